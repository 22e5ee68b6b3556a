"""The tables of the operational database, as the newest migration leaves them.

Times are naive UTC. A run only adds score rows: those of residents of whom something has changed. What a resident's
score is now, the view ``current_scores`` says; readers ask it, not the table.
"""

import sqlalchemy as sql

# SQLite numbers the rows of a table itself where the key is called INTEGER.
KEY = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

METADATA = sql.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# Numbered in the order in which they first got a score: a shard's residents lie together.
residents = sql.Table(
    "residents",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("subject_id", sql.BigInteger, nullable=False),
    sql.UniqueConstraint("subject_id"),
)

# `models`: JSON, by target the version, digest and concepts of what scored.
runs = sql.Table(
    "runs",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("index_time", sql.DateTime, nullable=False),
    sql.Column("started_at", sql.DateTime, nullable=False),
    sql.Column("completed_at", sql.DateTime),
    sql.Column("abandoned_at", sql.DateTime),
    sql.Column("store", sql.Text, nullable=False),
    sql.Column("models", sql.Text, nullable=False),
    sql.Column("everyone", sql.Boolean, nullable=False),
)

# A row for every shard that is in the database, whole. `tally`: JSON.
run_shards = sql.Table(
    "run_shards",
    METADATA,
    sql.Column("run_id", KEY, sql.ForeignKey("runs.id"), primary_key=True),
    sql.Column("shard", sql.Text, primary_key=True),
    sql.Column("place", sql.Integer, nullable=False),
    sql.Column("tally", sql.Text, nullable=False),
    sql.UniqueConstraint("run_id", "place"),
)

# The live score of a resident and target is the row of the greatest run up to the last complete one; without a
# probability it says that there is none any more. The id holds the run, the shard's place in it and the row (see
# `number`), so that rows are appended, a run's rows are one range, and machines need not agree on numbers. No foreign
# keys here and in `drivers`: rows come and go with what they refer to in one transaction, and to look each reference up
# would cost PostgreSQL a third of the night's writing.
scores = sql.Table(
    "scores",
    METADATA,
    sql.Column("id", KEY, primary_key=True, autoincrement=False),
    sql.Column("resident_id", KEY, nullable=False),
    sql.Column("target", sql.Text, nullable=False),
    sql.Column("run_id", KEY, nullable=False),
    sql.Column("index_time", sql.DateTime, nullable=False),
    sql.Column("probability", sql.Double),
    sql.Column("lower", sql.Double),
    sql.Column("upper", sql.Double),
    sql.Column("tier", sql.Text),
    sql.Column("percentile", sql.Double),
    sql.Column("previous", sql.Double),
    sql.Column("base", sql.Double),
    sql.Column("other", sql.Double),
    sql.Column("completeness", sql.Text),
    sql.Column("model_version", sql.Text),
    sql.Column("synthetic", sql.Boolean),
    sql.Column("scored_at", sql.DateTime),
    sql.Column("seen", sql.BigInteger),
    sql.Column("contributions", sql.LargeBinary),
    sql.UniqueConstraint("resident_id", "target", "run_id"),
)

drivers = sql.Table(
    "drivers",
    METADATA,
    sql.Column("score_id", KEY, primary_key=True, autoincrement=False),
    sql.Column("position", sql.SmallInteger, primary_key=True, autoincrement=False),
    sql.Column("concept", sql.Text, nullable=False),
    sql.Column("contribution", sql.Double, nullable=False),
    sql.Column("change", sql.Double),
    sql.Column("value", sql.REAL),
    sql.Column("unit", sql.Text, nullable=False),
    sql.Column("date", sql.DateTime),
    sqlite_with_rowid=False,
)

# The columns of `scores` that have a probability, of the live rows, and the resident's number in the store.
current_scores = sql.table(
    "current_scores",
    sql.column("subject_id", sql.BigInteger),
    *(sql.column(column.name, column.type) for column in scores.columns),
)

PLACE_BITS = ROW_BITS = 20
PLACES, ROWS = 1 << PLACE_BITS, 1 << ROW_BITS


def number(run: int, place: int = 0, row: int = 0) -> int:
    """Return the id of a score: of a row, in the order of a shard, at a place in a run."""
    return ((run << PLACE_BITS) + place << ROW_BITS) + row
