"""The tables of the durable inbox, outbox, schedule, trust record and failed runs.

`metadata` may be included in one's own. Times are Unix milliseconds of the database's clock, so that replicas with
different clocks agree; those of failed runs are the service's.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
)

__all__ = ["FAILED_RUN", "INBOX", "OUTBOX", "SCHEDULE", "TRUST", "metadata"]

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
    Column("attempts", Integer, nullable=False, default=0),
    Column("claimed_by", String(64), nullable=True),
    Column("claimed_until_ms", BigInteger, nullable=False, default=0),
    Column("problem", Text, nullable=True),
    Column("is_parked", Boolean, nullable=False, default=False),
    # Rows with the same one leave in their order; most have none.
    Column("partition_key", String(64), nullable=True),
    Index("messaging_outbox_due", "service", "is_parked", "due_at_ms"),
    Index("messaging_outbox_lane", "service", "partition_key", "id"),
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

SCHEDULE = Table(
    "messaging_schedule",
    metadata,
    Column("service", String(64), primary_key=True),
    Column("message_id", Uuid, primary_key=True),
    Column("message_type", String(128), nullable=False),
    # In clear until it is sealed at its time; empty once the row has ended.
    Column("draft", LargeBinary, nullable=True),
    Column("deliver_at_ms", BigInteger, nullable=False),
    # The next try: deliver_at_ms, and later when sealing failed.
    Column("due_at_ms", BigInteger, nullable=False),
    # waiting, sent or cancelled: an ended row stays for a while, so that a late cancellation is told the truth.
    Column("state", String(9), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("problem", Text, nullable=True),
    Index("messaging_schedule_due", "service", "state", "due_at_ms"),
    Index("messaging_schedule_ended", "ended_at_ms"),
)

# Written when a handler has failed, beside its transaction, which is undone: what a dead letter tells of each run.
FAILED_RUN = Table(
    "messaging_failed_run",
    metadata,
    Column("id", _Identity, primary_key=True, autoincrement=True),
    Column("service", String(64), nullable=False),
    Column("sender", String(64), nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("failed_at_ms", BigInteger, nullable=False),
    Column("error", String(200), nullable=False),
    Column("keep_until_ms", BigInteger, nullable=False),
    Index("messaging_failed_run_message", "service", "sender", "message_id"),
    Index("messaging_failed_run_purge", "keep_until_ms"),
)
