"""Alembic's entry: runs the migrations on the connection that `migrate` hands over."""

from alembic import context

from messaging.stores.sql.migrations import VERSION_TABLE
from messaging.stores.sql.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
