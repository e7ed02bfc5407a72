"""First tables."""
import sqlalchemy as sa
from alembic import op

from production.journal.tables import Money

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


KEY = sa.BigInteger().with_variant(sa.Integer, 'sqlite')   # only an INTEGER key counts by itself there


def key(): return sa.Column('id', KEY, primary_key=True)
def text(name, length=None, **more): return sa.Column(name, sa.String(length) if length else sa.Text(), **{'nullable': False} | more)
def amount(name, **more): return sa.Column(name, Money(), **{'nullable': False} | more)
def number(name, **more): return sa.Column(name, sa.BigInteger(), **{'nullable': False} | more)
def of(table, **more): return sa.Column(f'{table}_id', KEY, sa.ForeignKey(f'{table}.id'), nullable=False, **more)


def upgrade():
    op.create_table(
        'bot', key(), text('dossier', 64), text('account', 64), text('venue', 32), text('symbol', 32), text('timeframe', 8), number('start'),
        number('cursor', nullable=True), number('settled', nullable=True), text('state', 16), amount('opening_cash'), amount('opening_position'),
        amount('cash'), amount('position'), sa.UniqueConstraint('dossier', 'account', 'symbol', 'timeframe', name='one_bot'))
    op.create_table(
        'decision', key(), of('bot'), number('bar'), text('inputs', 64), sa.Column('target', sa.Double(), nullable=True), text('outcome', 8),
        text('reason'), amount('close'), amount('cash'), amount('position'), number('at'),
        sa.UniqueConstraint('bot_id', 'bar', name='one_decision'),
        sa.CheckConstraint("outcome in ('traded', 'held', 'skipped')", name='known_outcome'))
    op.create_table(
        'intent', key(), text('client_id', 36, unique=True), of('bot'), number('bar'), number('seq'), text('side', 4), text('kind', 8),
        amount('quantity'), amount('price', nullable=True), amount('stop_price', nullable=True), text('status', 16, index=True), amount('filled'),
        text('reason'), text('venue_order_id', 64, nullable=True), number('sent_at', nullable=True), number('window', nullable=True),
        number('attempts'), number('at'), sa.UniqueConstraint('bot_id', 'bar', 'seq', name='one_intent'))
    op.create_table(
        'fill', key(), of('intent', index=True), text('venue', 32), text('account', 64), text('symbol', 32), text('trade_id', 64), text('side', 4),
        amount('quantity'), amount('price'), amount('fee'), text('fee_asset', 16), number('time'),
        sa.UniqueConstraint('venue', 'account', 'symbol', 'trade_id', name='one_fill'))
    op.create_table(
        'halt', key(), text('scope', 100), number('at'), text('who', 64), text('why'), number('released_at', nullable=True),
        text('released_by', 64, nullable=True))
    op.create_table('audit', key(), number('at'), text('actor', 64), text('event', 32, index=True), sa.Column('detail', sa.JSON(), nullable=False))


def downgrade():
    for table in ('audit', 'halt', 'fill', 'intent', 'decision', 'bot'): op.drop_table(table)
