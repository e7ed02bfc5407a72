"""The audit becomes a chain; alerts; order groups, longer order kinds, the name of a bot's strategy."""
import sqlalchemy as sa
from alembic import op

from production.journal.chain import digest_of
from production.journal.migrations import seal

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, 'sqlite')
SEALED = 'audit', 'decision', 'fill'   # facts: a later revision that must touch one drops its triggers first


def text(name, length=None, **more): return sa.Column(name, sa.String(length) if length else sa.Text(), **{'nullable': False} | more)
def number(name, **more): return sa.Column(name, sa.BigInteger(), **{'nullable': False} | more)


def upgrade():
    op.add_column('bot', text('strategy', 200, server_default=''))
    with op.batch_alter_table('intent') as intent:
        intent.alter_column('kind', existing_type=sa.String(8), existing_nullable=False, type_=sa.String(16))
        intent.add_column(text('group', nullable=True))
    op.create_table(
        'alert', sa.Column('id', KEY, primary_key=True), number('at'), text('dedupe', 200, unique=True), text('rule', 32), text('severity', 8), text('title'),
        text('text'), text('state', 16), number('level'), number('attempts'), number('next_try', nullable=True, index=True),
        sa.Column('results', sa.JSON(), nullable=False), number('acknowledged_at', nullable=True), text('acknowledged_by', 64, nullable=True))
    end = op.create_table('audit_end', sa.Column('id', KEY, primary_key=True), number('last'), text('digest', 64))
    op.add_column('audit', text('digest', 64, server_default=''))
    last, digest = link()
    op.bulk_insert(end, [dict(id=1, last=last, digest=digest)])
    for table in SEALED: seal(table)


def link():
    "The rows that are there as a chain; answers its end."
    audit = sa.table('audit', *(sa.column(name) for name in ('id', 'at', 'actor', 'event')), sa.column('detail', sa.JSON), sa.column('digest'))
    set_digest = audit.update().where(audit.c.id == sa.bindparam('row')).values(digest=sa.bindparam('digest'))
    connection, last, digest = op.get_bind(), 0, ''
    while rows := connection.execute(sa.select(*audit.c[:5]).where(audit.c.id > last).order_by(audit.c.id).limit(1000)).all():
        linked = []
        for row in rows:
            last, digest = row.id, digest_of(digest, *row)
            linked.append(dict(row=last, digest=digest))
        connection.execute(set_digest, linked)
    return last, digest


def downgrade(): raise NotImplementedError('a journal does not go back; restore the backup that was made before')
