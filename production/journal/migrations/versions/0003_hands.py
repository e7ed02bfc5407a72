"""What people ask for, and money that moved without an order of ours."""
import sqlalchemy as sa
from alembic import op

from production.journal.migrations import seal
from production.journal.tables import Money

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, 'sqlite')


def key(): return sa.Column('id', KEY, primary_key=True)
def bot(): return sa.Column('bot_id', KEY, sa.ForeignKey('bot.id'), nullable=False)
def text(name, length=None): return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)
def amount(name, **more): return sa.Column(name, Money(), **{'nullable': False} | more)
def number(name, **more): return sa.Column(name, sa.BigInteger(), **{'nullable': False} | more)


def upgrade():
    op.create_table(
        'hand', key(), bot(), number('at'), text('who', 64), text('why'), text('what', 16), text('about', 36), amount('cash', nullable=True),
        amount('position', nullable=True), number('done_at', nullable=True, index=True), text('said'))
    op.create_table('adjustment', key(), bot(), number('at'), text('who', 64), text('why'), amount('cash'), amount('position'), number('after'))
    seal('adjustment')


def downgrade(): raise NotImplementedError('a journal does not go back; restore the backup that was made before')
