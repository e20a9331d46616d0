"""The durable inbox and outbox on SQLAlchemy: SQLite embedded, PostgreSQL for real."""

from messaging.stores.sql.inserts import Inserts
from messaging.stores.sql.schema import metadata
from messaging.stores.sql.store import SqlStore

__all__ = ["Inserts", "SqlStore", "metadata"]
