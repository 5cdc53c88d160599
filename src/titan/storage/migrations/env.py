"""Run by Alembic, on the connection and in the transaction of `titan.storage.migrate`."""

from alembic import context

from titan.storage.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
