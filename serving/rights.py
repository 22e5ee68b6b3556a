"""What a resident may ask for: everything that is held of one, and that it be erased."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from io import StringIO
from json import loads
from pathlib import Path
from typing import cast

import polars as pl
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import EventStore, normalised
from serving.audit import Audit
from serving.store.alerts import Alerts
from serving.store.database import Database
from serving.store.duties import Duties
from serving.store.erasure import erase as erase_rows
from serving.store.identity import Key
from serving.store.ledger import DatabaseLedger
from serving.store.observations import FACTS, Observations
from serving.store.people import People, Resident, unknown
from serving.store.tables import drivers, panel_residents, panels, records, residents, runs, scores
from serving.store.visits import Visits

Rows = list[dict[str, object]]

# Of a score, what is for the next night alone.
NOT_TOLD = ("id", "resident_id", "seen", "contributions")
# Of a training run, the one file with a row a resident: see training.tracking.evidence.
OUT_OF_FOLD = "out_of_fold.parquet"
NO_EVENTS = normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))


@dataclass(frozen=True)
class Erased:
    """What went: events of the event store (None where none was named), rows of the database by table."""

    events: int | None
    rows: Mapping[str, int]

    def text(self) -> str:
        """Say it."""
        rows = ", ".join(f"{number:,} of {table}" for table, number in self.rows.items() if number)
        stored = "" if self.events is None else f"{self.events:,} events of the event store; "
        return f"{stored}of the database {rows or 'nothing, it knew nobody of that number'}"


def held_of(database: Database, key: Key, store: EventStore | None, subject_id: int) -> dict[str, object]:
    """Return everything that database and event store hold of a resident, as JSON holds it; times are UTC.

    Raises
    ------
    WeibingError
        If neither knows the resident, or the key is not the database's.
    """
    people = People(database, key)
    resident = people.resident(subject_id)
    stored = NO_EVENTS if store is None else store.resident(subject_id)
    if resident is None and not len(stored):
        raise _unknown(subject_id, store)
    told = {
        "resident": {"id": subject_id, "times": "UTC"},
        "identity": _identity(people, subject_id),
        "events": {"event_store": _events(stored), "database": _events(Observations(database).of(subject_id))},
        **(_of_the_database(database, key, resident) if resident else {}),
        "audit": _audit(database, subject_id),
    }
    return cast(dict[str, object], _plain(told))


def _of_the_database(database: Database, key: Key, resident: Resident) -> dict[str, object]:
    subject_id, ours = resident.subject_id, resident.id
    known = ("township", "sex", "birth_year", "opted_out_at")
    of_panels = sql.select(panels.c.name.label("panel"), panel_residents.c.since, panel_residents.c.until).join(panels)
    of_records = sql.select(records.c.identifier, records.c.received_at, records.c.compacted_at)
    with database.reading() as connection:
        contracts = _told(connection, of_panels.where(panel_residents.c.resident_id == ours))
        told = _told(connection, of_records.where(records.c.resident_id == ours).order_by(records.c.id))
        scored = list(_scores(connection, ours))
    return {
        "resident": {"id": subject_id, "times": "UTC"} | {name: getattr(resident, name) for name in known},
        "contracts": contracts,
        "records": told,
        "scores": scored,
        "duties": [vars(duty) for duty in Duties(database).of(subject_id)],
        "visits": [vars(visit) for visit in Visits(database, key).of(subject_id)],
        "alerts": [vars(alert) for alert in Alerts(database).of(subject_id)],
    }


def erase(database: Database, store: EventStore | None, subject_id: int) -> Erased:
    """Remove all that event store and database hold of a resident; killed anywhere and run again, it ends so.

    First the store, so that no night begins with the records; then a night that has begun is given up, as it holds
    them; then the database. The audit stays.

    Raises
    ------
    WeibingError
        If neither knows the resident, or somebody else writes to the store.
    """
    if not _knows(database, subject_id) and not (store and _keeps(store, subject_id)):
        raise _unknown(subject_id, store)
    events = None if store is None else store.erase(subject_id)
    ledger = DatabaseLedger(database)
    if (under_way := ledger.unfinished()) is not None:
        ledger.abandon(under_way)
    return Erased(events, erase_rows(database, subject_id) if _knows(database, subject_id) else {})


def training_files_of(mlruns: Path, subject_id: int) -> list[Path]:
    """Return the files of training runs in which a resident is a row: who was held out, when, with which risk."""
    files = sorted((mlruns / "artifacts").rglob(OUT_OF_FOLD))
    return [file for file in files if _has(file, subject_id)]


def what_remains(subject_id: int, files: list[Path], store: EventStore | None) -> Iterator[str]:
    """Say, a sentence each, what an erasure leaves, and what to do about it."""
    yield (
        "Models that were trained on the records stay as they are: they hold no resident, but what many residents had "
        "in common. To have the resident out of them as well, train anew: weibing train"
    )
    for file in files:
        yield f"{file} has a row of the resident: number, index time, outcome, risk. Delete that run in MLflow."
    yield f"The audit keeps what was done with number {subject_id} for as long as the law asks: weibing audit forget"
    yield "Backups keep the resident until they are deleted. After a restore, erase again."
    yield "Files that weibing score --out, profile or cohort wrote keep the resident until they are written again."
    yield "What the records were taken in from, and copies of the event store elsewhere, are not reached from here."
    if store is None:
        yield "No event store was named: its records stay, and the next night scores the resident again. Name --store."
    else:
        yield f"{store.place} keeps the number {subject_id}, so that nothing of the resident is taken in again."


def _knows(database: Database, subject_id: int) -> bool:
    with database.reading() as connection:
        found = connection.execute(sql.select(residents.c.id).where(residents.c.subject_id == subject_id)).scalar()
    return found is not None


def _keeps(store: EventStore, subject_id: int) -> bool:
    """Whether a store has records of a resident, or has erased them: an erasure may have been broken off."""
    return subject_id in store.erased or len(store.resident(subject_id)) > 0


def _unknown(subject_id: int, store: EventStore | None) -> WeibingError:
    if store is None:
        return unknown(subject_id)
    return WeibingError(f"There is no resident {subject_id} in the database or in {store.place}.")


def _has(file: Path, subject_id: int) -> bool:
    try:
        ours = pl.scan_parquet(file).filter(pl.col("subject_id") == subject_id)
        return bool(ours.select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError):
        # It cannot be said that the resident is not in it.
        return True


def _identity(people: People, subject_id: int) -> dict[str, str | None] | None:
    found = people.identities([subject_id]).get(subject_id)
    return None if found is None else vars(found)


def _events(events: pl.DataFrame) -> Rows:
    # The shortest decimal of a single, so that a recorded 5.3 reads 5.3.
    shortest = events.with_columns(pl.col(pl.Float32).cast(pl.String).cast(pl.Float64))
    return shortest.select(pl.col(FACTS), pl.exclude("subject_id", *FACTS)).to_dicts()


def _told(connection: sql.Connection, query: sql.Select[*tuple[object, ...]]) -> Rows:
    return [dict(row._mapping) for row in connection.execute(query)]


def _scores(connection: sql.Connection, resident: int) -> Iterator[dict[str, object]]:
    """Yield every score that is held, also those that a later one has replaced, with what drove it."""
    query = sql.select(scores, runs.c.completed_at).join(runs, runs.c.id == scores.c.run_id)
    for row in _told(connection, query.where(scores.c.resident_id == resident).order_by(scores.c.run_id)):
        reasons = sql.select(drivers).where(drivers.c.score_id == row["id"]).order_by(drivers.c.position)
        told = _told(connection, reasons)
        shown = {name: cell for name, cell in row.items() if name not in NOT_TOLD}
        yield shown | {"drivers": [{k: v for k, v in each.items() if k != "score_id"} for each in told]}


def _audit(database: Database, subject_id: int) -> list[object]:
    written = StringIO()
    Audit(database).export(written, whose=subject_id)
    return [loads(line) for line in written.getvalue().splitlines()]


def _plain(told: object) -> object:
    """Return what JSON holds: times as ISO 8601."""
    if isinstance(told, dict):
        return {name: _plain(each) for name, each in told.items()}
    if isinstance(told, list | tuple):
        return [_plain(each) for each in told]
    return told.isoformat() if isinstance(told, date | datetime) else told
