"""An operational database with something in every table, for the tests of backup, erasure and migrations."""

from datetime import date, datetime

import polars as pl
import sqlalchemy as sql

from serving.store.alerts import Alert, Alerts
from serving.store.champions import ChampionsKept, KeptChampion
from serving.store.database import Database
from serving.store.duties import Duties, KeptDuty
from serving.store.feedback import CardFeedback, CardFeedbacks
from serving.store.identity import Identity, Key
from serving.store.observations import Observations
from serving.store.panels import Panels
from serving.store.people import People, Person
from serving.store.tables import drivers, number, run_shards, runs, scores
from serving.store.visits import Visit, Visits
from tests.tables import events_from

NOW = datetime(2026, 3, 1, 8)
KEY = Key.of("a secret of the tests, long enough")
NAME, NUMBER = "张伟", "110101195001011237"
DUTY = KeptDuty(
    "bp", "bp.yearly", date(2026, 3, 9), date(2026, 1, 1), False, "no BP in a year", "一年未测血压", "规范 3.1"
)


def person(subject_id: int, **told: object) -> Person:
    """Draw a resident with an identity."""
    identity = Identity(f"{NAME}{subject_id}", f"{NUMBER[:-3]}{subject_id:03}", "13800138000", "柿西村 7 号")
    return Person(subject_id, **{"identity": identity, "township": "柿西", "sex": "male", "birth_year": 1950} | told)


def records_from(table: str, subject_id: int = 1) -> pl.DataFrame:
    """Read a table of events with a column `identifier`."""
    return events_from(table, subject_id).with_columns(pl.col("subject_id").cast(pl.Int64))


def alert(subject_id: int = 1, cause: str = "obs-1", **told: object) -> Alert:
    """Draw an alert."""
    raised = {"rule": "bp.emergency", "kind": "referral", "reason_en": "BP 190/100", "reason_zh": "血压 190/100",
              "citation": "规范 3.2", "raised_at": NOW}  # fmt: skip
    return Alert(subject_id=subject_id, cause=cause, **raised | told)


def score_of(resident: int, target: str = "fall", run: int = 1, **told: object) -> dict[str, object]:
    """Draw a row of the table of scores, of a resident named by the number in the database."""
    row = {"id": number(run, 0, resident * 8 + len(target) % 7), "resident_id": resident, "target": target,
           "run_id": run, "index_time": NOW, "probability": 0.25, "lower": 0.1, "upper": 0.5, "tier": "high",
           "percentile": 90.0, "previous": 0.2, "base": -1.0, "other": 0.0, "completeness": "high",
           "model_version": "7", "synthetic": True, "scored_at": NOW, "seen": -5,
           "contributions": b"\x00\xff"}  # fmt: skip
    return row | told


def score(database: Database, resident: int, target: str = "fall", run: int = 1, **told: object) -> None:
    """Write a score of a resident, with two drivers."""
    row = score_of(resident, target, run, **told)
    reason = {"score_id": row["id"], "contribution": 0.5, "change": None, "value": 5.3, "unit": "mm[Hg]", "date": NOW}
    with database.writing() as connection:
        connection.execute(scores.insert().values(row))
        rows = [reason | {"position": position, "concept": name} for position, name in enumerate(("sbp", "跌倒"))]
        connection.execute(drivers.insert(), rows)


def night_of(run: int = 1, *, complete: bool = True) -> dict[str, object]:
    """Draw a row of the table of runs."""
    return {"id": run, "index_time": NOW, "started_at": NOW, "completed_at": NOW if complete else None,
            "store": "state", "models": "{}", "everyone": False}  # fmt: skip


def night(database: Database, run: int = 1, *, complete: bool = True) -> None:
    """Write a run."""
    with database.writing() as connection:
        connection.execute(runs.insert().values(night_of(run, complete=complete)))
        shard = {"run_id": run, "shard": "0000.parquet", "place": 0, "tally": "{}"}
        connection.execute(run_shards.insert().values(shard))


def furnish(database: Database, subject_ids: tuple[int, ...] = (1, 2)) -> None:
    """Put something into every table that this package fills."""
    people, panels = People(database, KEY), Panels(database)
    people.register([person(subject) for subject in subject_ids], NOW)
    panel = panels.make("第一组", doctor_id=7)
    panels.sign(panel.id, subject_ids, datetime(2026, 1, 1))
    night(database)
    for subject in subject_ids:
        known = people.resident(subject)
        assert known is not None
        score(database, known.id)
        Duties(database).keep({subject: [DUTY]}, NOW.date())
        told = records_from("identifier | time | code | value\nobs-1 | 2026-02-28T09:00 | sbp | 190.5", subject)
        Observations(database).append(told.with_columns(identifier=pl.lit(f"obs-{subject}")), NOW)
        Visits(database, KEY).record(Visit(subject, 7, NOW, "home", ("none",), f"{NAME} 说头晕"), NOW)
        Alerts(database).raise_all([alert(subject, f"obs-{subject}")])
    declined = CardFeedback("https://ehr.example.cn", "weibing-patient-view", "c0", "overridden", NOW, comment="不愿意")
    CardFeedbacks(database, KEY).add([declined], NOW)
    ChampionsKept(database).keep(KeptChampion("fall", "7", "00ff", bytes(range(256)) * 10, NOW))


def rows_of(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables, in a fixed order."""
    with database.engine.connect() as connection:
        return {
            name: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {name}")), key=repr)
            for name in sorted(sql.inspect(connection).get_table_names())
        }
