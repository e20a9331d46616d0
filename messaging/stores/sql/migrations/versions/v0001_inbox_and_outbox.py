"""The inbox and the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make both tables, unless `create_tables` made them before there were versions."""
    op.create_table(
        "messaging_inbox",
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("sender", sa.String(64), primary_key=True),
        sa.Column("message_id", sa.Uuid(), primary_key=True),
        sa.Column("leaf", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reply", sa.LargeBinary(), nullable=True),
        sa.Column("processed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("keep_until_ms", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_index("messaging_inbox_purge", "messaging_inbox", ["keep_until_ms"], if_not_exists=True)
    op.create_table(
        "messaging_outbox",
        sa.Column("id", _identity, primary_key=True, autoincrement=True),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("message_type", sa.String(128), nullable=False),
        sa.Column("exchange", sa.String(255), nullable=False),
        sa.Column("routing_key", sa.String(255), nullable=False),
        sa.Column("is_mandatory", sa.Boolean(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("claimed_by", sa.String(64), nullable=True),
        sa.Column("claimed_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("is_parked", sa.Boolean(), nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "messaging_outbox_due", "messaging_outbox", ["service", "is_parked", "due_at_ms"], if_not_exists=True
    )


def downgrade() -> None:
    """Remove both tables and what they remember."""
    op.drop_table("messaging_outbox")
    op.drop_table("messaging_inbox")
