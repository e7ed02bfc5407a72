"What the revisions share."
from alembic import op


def seal(table):
    "Let the database refuse to change or remove a row."
    said = f'rows of {table} are only ever added'
    if op.get_context().dialect.name == 'sqlite':
        for event in ('update', 'delete'): op.execute(f"create trigger {table}_no_{event} before {event} on {table} begin select raise(abort, '{said}'); end")
        return
    op.execute(f"create function {table}_sealed() returns trigger language plpgsql as $$ begin raise exception '{said}'; end $$")
    op.execute(f'create trigger {table}_sealed before update or delete on {table} for each row execute function {table}_sealed()')
    op.execute(f'create trigger {table}_kept before truncate on {table} for each statement execute function {table}_sealed()')
