"""The newest trust bundle that each service has used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless `create_tables` was quicker."""
    op.create_table(
        "messaging_trust",
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("realm", sa.String(64), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("seen_at_ms", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Remove the table: after that a restart believes older bundles again."""
    op.drop_table("messaging_trust")
