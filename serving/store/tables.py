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

# Who there is. Numbered in the order in which they first got a score: a shard's residents lie together. `identity` is
# encrypted, `number_hash` what an identity number is found by (see identity.py); a resident of whom the service knows
# nothing but the records has neither. `opted_out_at`: since when no score is computed without a person.
residents = sql.Table(
    "residents",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("subject_id", sql.BigInteger, nullable=False),
    sql.Column("identity", sql.LargeBinary),
    sql.Column("number_hash", sql.LargeBinary),
    sql.Column("township", sql.Text),
    sql.Column("sex", sql.Text),
    sql.Column("birth_year", sql.SmallInteger),
    sql.Column("opted_out_at", sql.DateTime),
    sql.UniqueConstraint("subject_id"),
)
# Partial, as are the others below: a night that adds residents without an identity writes nothing to it.
sql.Index(
    "ix_residents_number_hash",
    residents.c.number_hash,
    unique=True,
    sqlite_where=residents.c.number_hash.is_not(None),
    postgresql_where=residents.c.number_hash.is_not(None),
)

# By which secret identities are encrypted: not the secret, but what it makes of a known word. One row.
keys = sql.Table(
    "keys",
    METADATA,
    sql.Column("id", KEY, primary_key=True, autoincrement=False),
    sql.Column("proof", sql.LargeBinary, nullable=False),
    sql.Column("since", sql.DateTime, nullable=False),
)

# The residents under contract with one doctor. `doctor_id`: the doctor's account.
panels = sql.Table(
    "panels",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("doctor_id", KEY),
    sql.UniqueConstraint("name"),
    sql.Index("ix_panels_doctor_id", "doctor_id"),
)

# Contracts: from when, and until when, a resident belongs to a panel; at any time to one panel at most.
panel_residents = sql.Table(
    "panel_residents",
    METADATA,
    sql.Column("panel_id", KEY, sql.ForeignKey("panels.id"), primary_key=True),
    sql.Column("resident_id", KEY, sql.ForeignKey("residents.id"), primary_key=True),
    sql.Column("since", sql.DateTime, primary_key=True),
    sql.Column("until", sql.DateTime),
    sql.Index("ix_panel_residents_resident_id", "resident_id"),
)
sql.Index(
    "ix_panel_residents_open",
    panel_residents.c.resident_id,
    unique=True,
    sqlite_where=panel_residents.c.until.is_(None),
    postgresql_where=panel_residents.c.until.is_(None),
)

# What other systems have told by day, one row an identifier: a record that comes again is known by it, also after its
# events have gone into the event store (`compacted_at`). `digest`: of what it told, by which one that tells otherwise
# than before is known; null where that does not matter.
records = sql.Table(
    "records",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("identifier", sql.Text, nullable=False),
    sql.Column("resident_id", KEY, sql.ForeignKey("residents.id"), nullable=False),
    sql.Column("received_at", sql.DateTime, nullable=False),
    sql.Column("compacted_at", sql.DateTime),
    sql.Column("digest", sql.LargeBinary),
    sql.UniqueConstraint("identifier"),
    sql.Index("ix_records_resident_id", "resident_id"),
)

# The events of those records that are not in the event store yet, in its columns.
events = sql.Table(
    "events",
    METADATA,
    sql.Column("record_id", KEY, sql.ForeignKey("records.id"), primary_key=True, autoincrement=False),
    sql.Column("position", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("resident_id", KEY, nullable=False),
    sql.Column("time", sql.DateTime),
    sql.Column("code", sql.Text, nullable=False),
    sql.Column("numeric_value", sql.REAL),
    sql.Column("text_value", sql.Text),
    sql.Column("unit", sql.Text),
    sql.Index("ix_events_resident_id", "resident_id"),
)

# What the service rules say is due, as last computed (`as_of`), the most urgent first: a copy for lists, of what
# serving.duties says from the records. Written anew every night for everybody, so without a foreign key.
duties = sql.Table(
    "duties",
    METADATA,
    sql.Column("resident_id", KEY, primary_key=True, autoincrement=False),
    sql.Column("position", sql.SmallInteger, primary_key=True, autoincrement=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("rule", sql.Text, nullable=False),
    sql.Column("due", sql.Date, nullable=False),
    sql.Column("since", sql.Date, nullable=False),
    sql.Column("urgent", sql.Boolean, nullable=False),
    sql.Column("reason_en", sql.Text, nullable=False),
    sql.Column("reason_zh", sql.Text, nullable=False),
    sql.Column("citation", sql.Text, nullable=False),
    sql.Column("as_of", sql.Date, nullable=False),
    sqlite_with_rowid=False,
)

# Recorded contacts: by whom (an account), when, how. `closes`: JSON, the rules whose duties it closes. `note` is
# encrypted: people write names into notes.
visits = sql.Table(
    "visits",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("resident_id", KEY, sql.ForeignKey("residents.id"), nullable=False),
    sql.Column("user_id", KEY, nullable=False),
    sql.Column("time", sql.DateTime, nullable=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("closes", sql.Text, nullable=False),
    sql.Column("note", sql.LargeBinary),
    sql.Index("ix_visits_resident_id_time", "resident_id", "time"),
)

# Duties due at once: shown from `raised_at` until somebody (an account) has acknowledged them. `cause` names what made
# it due, so that the same is raised once.
alerts = sql.Table(
    "alerts",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("resident_id", KEY, sql.ForeignKey("residents.id"), nullable=False),
    sql.Column("rule", sql.Text, nullable=False),
    sql.Column("cause", sql.Text, nullable=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("reason_en", sql.Text, nullable=False),
    sql.Column("reason_zh", sql.Text, nullable=False),
    sql.Column("citation", sql.Text, nullable=False),
    sql.Column("raised_at", sql.DateTime, nullable=False),
    sql.Column("acknowledged_at", sql.DateTime),
    sql.Column("acknowledged_by", KEY),
    sql.UniqueConstraint("resident_id", "rule", "cause"),
)
sql.Index(
    "ix_alerts_open",
    alerts.c.resident_id,
    sqlite_where=alerts.c.acknowledged_at.is_(None),
    postgresql_where=alerts.c.acknowledged_at.is_(None),
)

# What became of the cards of decision support: by which system (`issuer`) and service. `accepted`: JSON, the ids of
# suggestions. `comment` is encrypted: people write names into comments. The same outcome of a card at the same time
# counts once.
cds_feedback = sql.Table(
    "cds_feedback",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
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
    sql.UniqueConstraint("issuer", "service", "card", "outcome", "outcome_at"),
)

# The champions as they were last read from the model registry: what serves while it is away. `artifact`: the model's
# files.
champions = sql.Table(
    "champions",
    METADATA,
    sql.Column("target", sql.Text, primary_key=True),
    sql.Column("version", sql.Text, nullable=False),
    sql.Column("digest", sql.Text, nullable=False),
    sql.Column("artifact", sql.LargeBinary, nullable=False),
    sql.Column("kept_at", sql.DateTime, nullable=False),
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

# Counts of a run as they were shown (JSON): made once, as two makings could tell, by their difference, of one resident.
counts = sql.Table(
    "counts",
    METADATA,
    sql.Column("run_id", KEY, primary_key=True, autoincrement=False),
    sql.Column("made_at", sql.DateTime, nullable=False),
    sql.Column("tables", sql.Text, nullable=False),
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
