"""The schedule; and tries of the outbox are counted without end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless `create_tables` has, and widen the counter: a broker may be away for weeks."""
    op.create_table(
        "messaging_schedule",
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("message_id", sa.Uuid(), primary_key=True),
        sa.Column("message_type", sa.String(128), nullable=False),
        sa.Column("draft", sa.LargeBinary(), nullable=True),
        sa.Column("deliver_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        if_not_exists=True,
    )
    op.create_index(
        "messaging_schedule_due", "messaging_schedule", ["service", "state", "due_at_ms"], if_not_exists=True
    )
    op.create_index("messaging_schedule_ended", "messaging_schedule", ["ended_at_ms"], if_not_exists=True)
    with op.batch_alter_table("messaging_outbox") as outbox:
        outbox.alter_column("attempts", type_=sa.Integer(), existing_type=sa.SmallInteger(), existing_nullable=False)


def downgrade() -> None:
    """Remove the table and what waits in it; a larger count becomes the largest that fits."""
    op.execute("UPDATE messaging_outbox SET attempts = 32767 WHERE attempts > 32767")
    with op.batch_alter_table("messaging_outbox") as outbox:
        outbox.alter_column("attempts", type_=sa.SmallInteger(), existing_type=sa.Integer(), existing_nullable=False)
    op.drop_table("messaging_schedule")
