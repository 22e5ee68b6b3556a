"""Counts as they were shown, so that the same are shown again."""

import sqlalchemy as sql
from alembic import op

revision = "5"
down_revision = "4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "counts",
        sql.Column("run_id", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), nullable=False),
        sql.Column("made_at", sql.DateTime, nullable=False),
        sql.Column("tables", sql.Text, nullable=False),
        sql.PrimaryKeyConstraint("run_id", name="pk_counts"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("counts")
