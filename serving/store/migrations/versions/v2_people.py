"""Who residents are, their panels, what came by day, duties, visits, alerts, and the champions kept."""

import sqlalchemy as sql
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None

KEY = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

RESIDENT = {
    "identity": sql.LargeBinary,
    "number_hash": sql.LargeBinary,
    "township": sql.Text,
    "sex": sql.Text,
    "birth_year": sql.SmallInteger,
    "opted_out_at": sql.DateTime,
}


def upgrade() -> None:
    """Add the columns of residents, and make the tables."""
    for name, kind in RESIDENT.items():
        op.add_column("residents", sql.Column(name, kind))
    _partial_index("ix_residents_number_hash", "residents", "number_hash", "number_hash IS NOT NULL", unique=True)
    op.create_table(
        "keys",
        sql.Column("id", KEY, autoincrement=False, nullable=False),
        sql.Column("proof", sql.LargeBinary, nullable=False),
        sql.Column("since", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    _panels()
    _records_and_events()
    _duties_and_visits()
    _alerts()
    op.create_table(
        "champions",
        sql.Column("target", sql.Text, nullable=False),
        sql.Column("version", sql.Text, nullable=False),
        sql.Column("digest", sql.Text, nullable=False),
        sql.Column("artifact", sql.LargeBinary, nullable=False),
        sql.Column("kept_at", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("target", name="pk_champions"),
    )


def _panels() -> None:
    op.create_table(
        "panels",
        sql.Column("id", KEY, nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("doctor_id", KEY),
        sql.PrimaryKeyConstraint("id", name="pk_panels"),
        sql.UniqueConstraint("name", name="uq_panels_name"),
    )
    op.create_index("ix_panels_doctor_id", "panels", ["doctor_id"])
    op.create_table(
        "panel_residents",
        sql.Column("panel_id", KEY, nullable=False),
        sql.Column("resident_id", KEY, nullable=False),
        sql.Column("since", sql.DateTime, nullable=False),
        sql.Column("until", sql.DateTime),
        sql.PrimaryKeyConstraint("panel_id", "resident_id", "since", name="pk_panel_residents"),
        sql.ForeignKeyConstraint(["panel_id"], ["panels.id"], name="fk_panel_residents_panel_id"),
        sql.ForeignKeyConstraint(["resident_id"], ["residents.id"], name="fk_panel_residents_resident_id"),
    )
    op.create_index("ix_panel_residents_resident_id", "panel_residents", ["resident_id"])
    _partial_index("ix_panel_residents_open", "panel_residents", "resident_id", '"until" IS NULL', unique=True)


def _records_and_events() -> None:
    op.create_table(
        "records",
        sql.Column("id", KEY, nullable=False),
        sql.Column("identifier", sql.Text, nullable=False),
        sql.Column("resident_id", KEY, nullable=False),
        sql.Column("received_at", sql.DateTime, nullable=False),
        sql.Column("compacted_at", sql.DateTime),
        sql.PrimaryKeyConstraint("id", name="pk_records"),
        sql.UniqueConstraint("identifier", name="uq_records_identifier"),
        sql.ForeignKeyConstraint(["resident_id"], ["residents.id"], name="fk_records_resident_id"),
    )
    op.create_index("ix_records_resident_id", "records", ["resident_id"])
    op.create_table(
        "events",
        sql.Column("record_id", KEY, autoincrement=False, nullable=False),
        sql.Column("position", sql.Integer, autoincrement=False, nullable=False),
        sql.Column("resident_id", KEY, nullable=False),
        sql.Column("time", sql.DateTime),
        sql.Column("code", sql.Text, nullable=False),
        sql.Column("numeric_value", sql.REAL),
        sql.Column("text_value", sql.Text),
        sql.Column("unit", sql.Text),
        sql.PrimaryKeyConstraint("record_id", "position", name="pk_events"),
        sql.ForeignKeyConstraint(["record_id"], ["records.id"], name="fk_events_record_id"),
    )
    op.create_index("ix_events_resident_id", "events", ["resident_id"])


def _duties_and_visits() -> None:
    op.create_table(
        "duties",
        sql.Column("resident_id", KEY, autoincrement=False, nullable=False),
        sql.Column("position", sql.SmallInteger, autoincrement=False, nullable=False),
        sql.Column("kind", sql.Text, nullable=False),
        sql.Column("rule", sql.Text, nullable=False),
        sql.Column("due", sql.Date, nullable=False),
        sql.Column("since", sql.Date, nullable=False),
        sql.Column("urgent", sql.Boolean, nullable=False),
        sql.Column("reason_en", sql.Text, nullable=False),
        sql.Column("reason_zh", sql.Text, nullable=False),
        sql.Column("citation", sql.Text, nullable=False),
        sql.Column("as_of", sql.Date, nullable=False),
        sql.PrimaryKeyConstraint("resident_id", "position", name="pk_duties"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "visits",
        sql.Column("id", KEY, nullable=False),
        sql.Column("resident_id", KEY, nullable=False),
        sql.Column("user_id", KEY, nullable=False),
        sql.Column("time", sql.DateTime, nullable=False),
        sql.Column("kind", sql.Text, nullable=False),
        sql.Column("closes", sql.Text, nullable=False),
        sql.Column("note", sql.LargeBinary),
        sql.PrimaryKeyConstraint("id", name="pk_visits"),
        sql.ForeignKeyConstraint(["resident_id"], ["residents.id"], name="fk_visits_resident_id"),
    )
    op.create_index("ix_visits_resident_id_time", "visits", ["resident_id", "time"])


def _alerts() -> None:
    op.create_table(
        "alerts",
        sql.Column("id", KEY, nullable=False),
        sql.Column("resident_id", KEY, nullable=False),
        sql.Column("rule", sql.Text, nullable=False),
        sql.Column("cause", sql.Text, nullable=False),
        sql.Column("kind", sql.Text, nullable=False),
        sql.Column("reason_en", sql.Text, nullable=False),
        sql.Column("reason_zh", sql.Text, nullable=False),
        sql.Column("citation", sql.Text, nullable=False),
        sql.Column("raised_at", sql.DateTime, nullable=False),
        sql.Column("acknowledged_at", sql.DateTime),
        sql.Column("acknowledged_by", KEY),
        sql.PrimaryKeyConstraint("id", name="pk_alerts"),
        sql.UniqueConstraint("resident_id", "rule", "cause", name="uq_alerts_resident_id_rule_cause"),
        sql.ForeignKeyConstraint(["resident_id"], ["residents.id"], name="fk_alerts_resident_id"),
    )
    _partial_index("ix_alerts_open", "alerts", "resident_id", "acknowledged_at IS NULL")


def _partial_index(name: str, table: str, column: str, where: str, *, unique: bool = False) -> None:
    only = sql.text(where)
    op.create_index(name, table, [column], unique=unique, sqlite_where=only, postgresql_where=only)


def downgrade() -> None:
    """Drop them, and what is in them."""
    for table in ("champions", "alerts", "visits", "duties", "events", "records", "panel_residents", "panels", "keys"):
        op.drop_table(table)
    op.drop_index("ix_residents_number_hash", "residents")
    for name in RESIDENT:
        op.drop_column("residents", name)
