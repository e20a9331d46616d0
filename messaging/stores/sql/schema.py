"""The tables of the durable inbox, outbox and trust record. `metadata` may be included in an application's own.

Times are Unix milliseconds of the database's clock, so that replicas with different clocks agree.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)

__all__ = ["INBOX", "OUTBOX", "TRUST", "metadata"]

metadata = MetaData()

# SQLite numbers rows by itself only under this very type.
_Identity = BigInteger().with_variant(Integer, "sqlite")

INBOX = Table(
    "messaging_inbox",
    metadata,
    Column("service", String(64), primary_key=True),
    Column("sender", String(64), primary_key=True),
    Column("message_id", Uuid, primary_key=True),
    Column("leaf", LargeBinary(32), nullable=False),
    # done or failed: what is under way is a transaction that has not yet committed, so a crash leaves no row.
    Column("state", String(8), nullable=False),
    Column("reply", LargeBinary, nullable=True),
    Column("processed_at_ms", BigInteger, nullable=False),
    Column("keep_until_ms", BigInteger, nullable=False),
    Index("messaging_inbox_purge", "keep_until_ms"),
)

OUTBOX = Table(
    "messaging_outbox",
    metadata,
    Column("id", _Identity, primary_key=True, autoincrement=True),
    Column("service", String(64), nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("message_type", String(128), nullable=False),
    Column("exchange", String(255), nullable=False),
    Column("routing_key", String(255), nullable=False),
    Column("is_mandatory", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("attempts", SmallInteger, nullable=False, default=0),
    Column("claimed_by", String(64), nullable=True),
    Column("claimed_until_ms", BigInteger, nullable=False, default=0),
    Column("problem", Text, nullable=True),
    Column("is_parked", Boolean, nullable=False, default=False),
    Index("messaging_outbox_due", "service", "is_parked", "due_at_ms"),
)

# One row for each service: replicas of one that lags must not forbid another what it has never had.
TRUST = Table(
    "messaging_trust",
    metadata,
    Column("service", String(64), primary_key=True),
    Column("realm", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
)
