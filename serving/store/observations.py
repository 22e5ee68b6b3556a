"""What other systems tell by day: kept at once, and taken into the event store at night.

Systems tell at least once. A record bears an identifier, and one that comes again is not taken again, also after its
events have gone into the event store. There, too, it is a record of that identifier, and events are a set, so that a
compaction that was killed and begun again leaves nothing out and nothing twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import SCHEMA, EventStore, canonical, normalised
from features.records import RECORD, TELLING, VERSION, identity
from serving.store.bulk import frame
from serving.store.database import Database, insert
from serving.store.people import numbers_of
from serving.store.queries import NUMBERS_A_QUERY
from serving.store.tables import events, records, residents

IDENTIFIER = "identifier"
FACTS = [name for name in SCHEMA if name != "subject_id"]
EVENT = [residents.c.subject_id, *(events.c[name] for name in FACTS)]
RECORDS_AT_ONCE = 20_000
# Other systems do not repeat what they told a year ago; and the event store would still know it.
REMEMBERED = timedelta(days=365)


@dataclass(frozen=True)
class Taken:
    """The identifiers of records that came: which were new, and which had been taken before."""

    new: frozenset[str]
    known: frozenset[str]


@dataclass(frozen=True)
class Compacted:
    """How many records and events went into the event store."""

    records: int
    events: int


@dataclass(frozen=True)
class Observations:
    """The events of a database that are not in the event store yet."""

    database: Database

    def append(self, rows: pl.DataFrame, now: datetime) -> Taken:
        """Keep what records tell, all of them or none; a record that was taken before is left as it is.

        Parameters
        ----------
        rows
            An event a row, in the event store's columns; and `identifier`, of the record that tells it.

        Raises
        ------
        WeibingError
            If a record tells of two residents, or was taken before as another resident's.
        ValueError
            If an event bears no identifier, resident or code.
        """
        with self.database.writing() as connection:
            return append(connection, rows, now)

    def of(self, subject_id: int) -> pl.DataFrame:
        """Return a resident's events since the last compaction, in the event store's columns and order."""
        query = _events().where(residents.c.subject_id == subject_id)
        with self.database.reading() as connection:
            found = frame(query, connection.execute(query).fetchall())
        return canonical(normalised(found))

    def waiting(self) -> int:
        """Return how many events are not in the event store yet."""
        with self.database.reading() as connection:
            return connection.execute(sql.select(sql.func.count()).select_from(events)).scalar_one()

    def compact(self, store: EventStore, now: datetime) -> Compacted:
        """Take what is here into the event store, and remove it here. What comes meanwhile stays for the next time.

        Killed at any point and begun again, it leaves nothing out and nothing twice.

        Raises
        ------
        WeibingError
            If the store was made elsewhere, or another append is under way.
        """
        if not self.waiting():
            return Compacted(0, 0)
        parts = _Parts(self.database)
        store.append(parts)
        gone = sum(self._remove(part, now) for part in parts.records)
        self._forget(now - REMEMBERED)
        return Compacted(sum(map(len, parts.records)), gone)

    def _remove(self, numbers: list[int], now: datetime) -> int:
        with self.database.writing() as connection:
            gone = connection.execute(events.delete().where(events.c.record_id.in_(numbers))).rowcount
            connection.execute(records.update().where(records.c.id.in_(numbers)).values(compacted_at=now))
        return gone

    def _forget(self, before: datetime) -> None:
        with self.database.writing() as connection:
            connection.execute(records.delete().where(records.c.compacted_at < before))


@dataclass(frozen=True)
class _Parts:
    """The events of the database, part by part; it remembers the numbers of the records that it gave."""

    database: Database
    records: list[list[int]] = field(default_factory=list)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        last = -1
        while numbers := self._numbers(last):
            self.records.append(numbers)
            last = numbers[-1]
            yield self._part(numbers)

    def _numbers(self, last: int) -> list[int]:
        query = sql.select(events.c.record_id).distinct().where(events.c.record_id > last)
        with self.database.reading() as connection:
            return list(connection.execute(query.order_by(events.c.record_id).limit(RECORDS_AT_ONCE)).scalars())

    def _part(self, numbers: list[int]) -> pl.DataFrame:
        query = _events(records.c.identifier).join(records, records.c.id == events.c.record_id)
        some = query.where(events.c.record_id.in_(numbers))
        with self.database.reading() as connection:
            found = frame(some, connection.execute(some).fetchall())
        told = pl.Series(RECORD, [identity("weibing", [name]) for name in found[IDENTIFIER]], pl.Int64)
        nothing = [pl.lit(None, pl.Int64).alias(name) for name in (VERSION, TELLING)]
        return found.drop(IDENTIFIER).with_columns(told, *nothing)


def _events(*more: sql.ColumnElement[str]) -> sql.Select[*tuple[object, ...]]:
    return sql.select(*EVENT, *more).select_from(events).join(residents, residents.c.id == events.c.resident_id)


def append(connection: sql.Connection, rows: pl.DataFrame, now: datetime) -> Taken:
    """Keep what records tell, in the transaction of a connection: see :meth:`Observations.append`."""
    whose = _whose(rows)
    numbers = numbers_of(connection, whose.values())
    new = _claim(connection, {name: numbers[subject] for name, subject in whose.items()}, now)
    taken = rows.filter(pl.col(IDENTIFIER).is_in(list(new)))
    if told := list(_told(taken, new, numbers)):
        connection.execute(events.insert(), told)
    return Taken(frozenset(new), frozenset(whose) - frozenset(new))


def _whose(rows: pl.DataFrame) -> dict[str, int]:
    """Return the residents of records, in the order of the identifiers: whoever adds the same adds them so, too."""
    needed = rows.select(IDENTIFIER, "subject_id", "code")
    if needed.null_count().sum_horizontal().sum():
        raise ValueError("An event bears no identifier, resident or code.")
    pairs = needed.select(IDENTIFIER, "subject_id").unique().sort(IDENTIFIER)
    if twice := pairs.filter(pl.col(IDENTIFIER).is_duplicated())[IDENTIFIER].to_list():
        raise WeibingError(f"The record {twice[0]} tells of two residents. Give each record an identifier of its own.")
    return dict(pairs.iter_rows())


def _claim(connection: sql.Connection, whose: dict[str, int], now: datetime) -> dict[str, int]:
    """Add the records that are not there yet; return their numbers."""
    rows = [{"identifier": name, "resident_id": number, "received_at": now} for name, number in whose.items()]
    if not rows:
        return {}
    added = insert(connection, records).on_conflict_do_nothing(index_elements=["identifier"])
    told = connection.execute(added.returning(records.c.identifier, records.c.id), rows)
    new = {name: int(record) for name, record in told}
    _need_same_residents(connection, {name: number for name, number in whose.items() if name not in new})
    return new


def _need_same_residents(connection: sql.Connection, known: dict[str, int]) -> None:
    names = list(known)
    query = sql.select(records.c.identifier, records.c.resident_id)
    for start in range(0, len(names), NUMBERS_A_QUERY):
        some = records.c.identifier.in_(names[start : start + NUMBERS_A_QUERY])
        for name, number in connection.execute(query.where(some)):
            if known[name] != number:
                raise WeibingError(f"The record {name} was taken before, as another resident's. Nothing was taken.")


def _told(rows: pl.DataFrame, records_of: dict[str, int], numbers: dict[int, int]) -> Iterator[dict[str, object]]:
    """Return the rows of the table `events`."""
    positions = pl.int_range(pl.len()).over(IDENTIFIER).alias("position")
    for row in normalised(rows).with_columns(positions).iter_rows(named=True):
        told = {name: row[name] for name in ("position", *FACTS)}
        yield told | {"record_id": records_of[row[IDENTIFIER]], "resident_id": numbers[row["subject_id"]]}
