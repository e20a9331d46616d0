"""When each run of a message failed, and how."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless `create_tables` was quicker."""
    op.create_table(
        "messaging_failed_run",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("sender", sa.String(64), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("failed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.String(200), nullable=False),
        sa.Column("keep_until_ms", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "messaging_failed_run_message",
        "messaging_failed_run",
        ["service", "sender", "message_id"],
        if_not_exists=True,
    )
    op.create_index("messaging_failed_run_purge", "messaging_failed_run", ["keep_until_ms"], if_not_exists=True)


def downgrade() -> None:
    """Remove the table: dead letters then tell of the last run alone."""
    op.drop_table("messaging_failed_run")
