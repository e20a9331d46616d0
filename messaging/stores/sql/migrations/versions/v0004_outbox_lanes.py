"""Rows of the outbox may have a key that orders them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, unless the table was made with it."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("messaging_outbox")}
    if "partition_key" not in known:
        op.add_column("messaging_outbox", sa.Column("partition_key", sa.String(64), nullable=True))
    op.create_index("messaging_outbox_lane", "messaging_outbox", ["service", "partition_key", "id"], if_not_exists=True)


def downgrade() -> None:
    """Remove the column: what waits leaves side by side again."""
    op.drop_index("messaging_outbox_lane", "messaging_outbox")
    with op.batch_alter_table("messaging_outbox") as outbox:
        outbox.drop_column("partition_key")
