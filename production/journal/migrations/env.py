"""Alembic runs this. The connection comes from the program, or from `alembic -x url=…` when a revision is written."""
from alembic import context
from sqlalchemy import create_engine

from production.journal.tables import Table


def migrate(connection):
    context.configure(connection=connection, target_metadata=Table.metadata, version_table='journal_version', render_as_batch=True)
    with context.begin_transaction(): context.run_migrations()


connection = context.config.attributes.get('connection')
if connection is not None: migrate(connection)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)['url']).begin() as connection: migrate(connection)
