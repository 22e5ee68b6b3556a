"""Residents, runs, scores and their drivers."""

import sqlalchemy as sql
from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None

KEY = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

# Abandoned runs have no rows, and an unfinished one is greater than the last complete one.
CURRENT_SCORES = """
CREATE VIEW current_scores AS
SELECT
    residents.subject_id, scores.id, scores.resident_id, scores.target, scores.run_id, scores.index_time,
    scores.probability, scores.lower, scores.upper, scores.tier, scores.percentile, scores.previous, scores.base,
    scores.other, scores.completeness, scores.model_version, scores.synthetic, scores.scored_at, scores.seen,
    scores.contributions
FROM scores
JOIN residents ON residents.id = scores.resident_id
WHERE scores.probability IS NOT NULL AND scores.run_id = (
    SELECT max(version.run_id)
    FROM scores AS version
    WHERE version.resident_id = scores.resident_id AND version.target = scores.target
    AND version.run_id <= (SELECT max(runs.id) FROM runs WHERE runs.completed_at IS NOT NULL)
)
"""


def upgrade() -> None:
    """Make the tables and the view."""
    op.create_table(
        "residents",
        sql.Column("id", KEY, nullable=False),
        sql.Column("subject_id", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("id", name="pk_residents"),
        sql.UniqueConstraint("subject_id", name="uq_residents_subject_id"),
    )
    op.create_table(
        "runs",
        sql.Column("id", KEY, nullable=False),
        sql.Column("index_time", sql.DateTime, nullable=False),
        sql.Column("started_at", sql.DateTime, nullable=False),
        sql.Column("completed_at", sql.DateTime),
        sql.Column("abandoned_at", sql.DateTime),
        sql.Column("store", sql.Text, nullable=False),
        sql.Column("models", sql.Text, nullable=False),
        sql.Column("everyone", sql.Boolean, nullable=False),
        sql.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_table(
        "run_shards",
        sql.Column("run_id", KEY, nullable=False),
        sql.Column("shard", sql.Text, nullable=False),
        sql.Column("place", sql.Integer, nullable=False),
        sql.Column("tally", sql.Text, nullable=False),
        sql.PrimaryKeyConstraint("run_id", "shard", name="pk_run_shards"),
        sql.UniqueConstraint("run_id", "place", name="uq_run_shards_run_id_place"),
        sql.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_shards_run_id"),
    )
    _scores_and_drivers()
    op.execute(CURRENT_SCORES)


def _scores_and_drivers() -> None:
    op.create_table(
        "scores",
        sql.Column("id", KEY, autoincrement=False, nullable=False),
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
        sql.PrimaryKeyConstraint("id", name="pk_scores"),
        sql.UniqueConstraint("resident_id", "target", "run_id", name="uq_scores_resident_id_target_run_id"),
    )
    op.create_table(
        "drivers",
        sql.Column("score_id", KEY, autoincrement=False, nullable=False),
        sql.Column("position", sql.SmallInteger, autoincrement=False, nullable=False),
        sql.Column("concept", sql.Text, nullable=False),
        sql.Column("contribution", sql.Double, nullable=False),
        sql.Column("change", sql.Double),
        sql.Column("value", sql.REAL),
        sql.Column("unit", sql.Text, nullable=False),
        sql.Column("date", sql.DateTime),
        sql.PrimaryKeyConstraint("score_id", "position", name="pk_drivers"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop them, and what is in them."""
    op.execute("DROP VIEW current_scores")
    for table in ("drivers", "scores", "run_shards", "runs", "residents"):
        op.drop_table(table)
