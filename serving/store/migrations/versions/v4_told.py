"""What a record told, as a digest; what became of the cards of decision support."""

import sqlalchemy as sql
from alembic import op

revision = "4"
down_revision = "3"
branch_labels = None
depends_on = None

KEY = sql.BigInteger().with_variant(sql.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table, and the column."""
    op.add_column("records", sql.Column("digest", sql.LargeBinary))
    op.create_table(
        "cds_feedback",
        sql.Column("id", KEY, nullable=False),
        sql.Column("issuer", sql.Text, nullable=False),
        sql.Column("service", sql.Text, nullable=False),
        sql.Column("card", sql.Text, nullable=False),
        sql.Column("outcome", sql.Text, nullable=False),
        sql.Column("outcome_at", sql.DateTime, nullable=False),
        sql.Column("accepted", sql.Text, nullable=False),
        sql.Column("reason_system", sql.Text),
        sql.Column("reason_code", sql.Text),
        sql.Column("reason_display", sql.Text),
        sql.Column("comment", sql.LargeBinary),
        sql.Column("received_at", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("id", name="pk_cds_feedback"),
        sql.UniqueConstraint(
            "issuer", "service", "card", "outcome", "outcome_at",
            name="uq_cds_feedback_issuer_service_card_outcome_outcome_at",
        ),
    )  # fmt: skip


def downgrade() -> None:
    """Drop them, and what is in them."""
    op.drop_table("cds_feedback")
    op.drop_column("records", "digest")
