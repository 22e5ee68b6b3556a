"""A clinic's whole night: what came by day goes into the event store, everybody is scored, duties are worked out anew.

The three follow one another and never overlap: the scores go into SQLite by a copy of it that must not meet the one
that the others use (see `serving.store.database`). Killed anywhere and begun again, it ends where an undisturbed one
ends: the compaction and the run go on where they ended, and the duties of everybody are worked out again.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import polars as pl
import sqlalchemy as sql
from numpy.typing import NDArray

from features.columns import Columns
from features.events import EventStore, canonical
from features.remote import Store
from serving.duties.duty import Duty, DutyRules
from serving.kept import day_of
from serving.scoring.nightly import Night, Options, night
from serving.scoring.pieces import pieces_of, read_piece
from serving.scoring.run import Ledger
from serving.scoring.scorer import ALL_PROCESSORS
from serving.store.alerts import Alert, cause_of, raise_all
from serving.store.database import Database
from serving.store.duties import Duties, keep
from serving.store.ledger import DatabaseLedger
from serving.store.observations import Compacted, Observations
from serving.store.people import opted_out
from serving.store.queries import tiers_of
from serving.store.telling import came_since, hold, known_of
from training.model import RiskModel

Ints = NDArray[np.int64]
Due = dict[int, tuple[Duty, ...]]
Tell = Callable[[str], None]

# Others who write wait for so many at most: about half a second.
RESIDENTS_AT_ONCE = 2_000
NOTHING = Compacted(0, 0)


@dataclass
class DueTonight:
    """What is due: of so many residents, so many duties, of these urgent, and how many alerts are new."""

    residents: int = 0
    duties: int = 0
    urgent: int = 0
    alerts: int = 0


@dataclass(frozen=True)
class WholeNight:
    """What a night did."""

    scored: Night
    compacted: Compacted = NOTHING
    due: DueTonight | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON holds it; of what was not done, nothing."""
        if self.due is None:
            return self.scored.as_dict()
        return {**self.scored.as_dict(), "compacted": vars(self.compacted), "due": vars(self.due)}

    def text(self) -> str:
        """Say what was done besides scoring."""
        if self.due is None:
            return ""
        of, due = self.compacted, self.due
        return (
            f"taken in from the day: {of.events:,} events of {of.records:,} records\n"
            f"due: {due.duties:,} duties of {due.residents:,} residents, {due.urgent:,} of them at once; "
            f"{due.alerts:,} new alerts"
        )


def whole_night(
    store: Store,
    ledgers: Sequence[Ledger],
    models: Mapping[str, RiskModel],
    rules: DutyRules,
    now: datetime,
    options: Options,
    *,
    progress: Tell = lambda _: None,
    log: Callable[[dict[str, object]], None] = lambda _: None,
) -> WholeNight:
    """Take in what came by day, score everybody who has not opted out, and work out what is due.

    Parameters
    ----------
    ledgers
        Where none of them is a database's, everybody is scored, and that is all.
    now
        When it begins (UTC): who is under contract then has duties.

    Raises
    ------
    IncompleteError, WeibingError
        As :func:`serving.scoring.nightly.night`; duties are then left as they are.
    """
    database = next((ledger.database for ledger in ledgers if isinstance(ledger, DatabaseLedger)), None)
    if database is None:
        return WholeNight(night(store, ledgers, models, now, options, progress=progress, log=log))
    compacted = take_in(store, database, now, progress)
    scored = night(
        store, ledgers, models, now, replace(options, opted_out=opted_out(database)), progress=progress, log=log
    )
    due = work_out_duties(store, database, rules, scored.run.index_time, now, options.memory_bytes, progress)
    log({"event": "duties", **vars(due)})
    return WholeNight(scored, compacted, due)


def take_in(store: Store, database: Database, now: datetime, progress: Tell = lambda _: None) -> Compacted:
    """Take the database's events into the store, where that is a folder of Weibing's that may be written to.

    Raises
    ------
    WeibingError
        If somebody else writes to the store.
    """
    observations = Observations(database)
    if not isinstance(store, EventStore) or store.shard_bits is None or not os.access(store.path, os.W_OK):
        return NOTHING
    if not observations.waiting():
        return NOTHING
    progress("taking in what came by day")
    return observations.compact(store, now)


def work_out_duties(
    store: Store,
    database: Database,
    rules: DutyRules,
    at: datetime,
    now: datetime,
    memory_bytes: int,
    progress: Tell = lambda _: None,
) -> DueTonight:
    """Work out what is due for all of whom duties are kept, keep it, and raise what is due at once.

    Parameters
    ----------
    at
        What was recorded before this moment (UTC) counts.
    now
        When: who is under contract then is among them.

    Raises
    ------
    WeibingError
        If a shard cannot be read, or the database cannot be used.
    """
    with store.held() as still:
        everybody = Duties(database).whose(now)
        duties = _Duties(still, database, rules, at, now)
        left = everybody
        for columns in _pieces(still, memory_bytes) if len(everybody) else ():
            here = np.intersect1d(columns.resident, left, assume_unique=True)
            left = np.setdiff1d(left, here, assume_unique=True)
            for some in _parts(here):
                duties.work_out(some, columns)
            progress(f"duties of {duties.told.residents:,} of {len(everybody):,} residents, {duties.told.duties:,} due")
        for some in _parts(left):
            duties.work_out(some)
    return duties.told


def _pieces(store: Store, memory_bytes: int) -> Iterator[Columns]:
    for piece in pieces_of(store, memory_bytes):
        yield read_piece(store, piece)


def _parts(residents: Ints) -> Iterator[Ints]:
    for start in range(0, len(residents), RESIDENTS_AT_ONCE):
        yield residents[start : start + RESIDENTS_AT_ONCE]


@dataclass(frozen=True)
class _Duties:
    """Duties being worked out; `told` counts them."""

    store: Store
    database: Database
    rules: DutyRules
    at: datetime
    now: datetime
    told: DueTonight = field(default_factory=DueTonight)

    def work_out(self, residents: Ints, columns: Columns | None = None) -> None:
        """Work out and keep what is due for some residents, of all or none.

        Parameters
        ----------
        columns : their records; None where the store has none of them
        """
        whose = residents.tolist()
        with self.database.reading() as connection:
            tiers = tiers_of(connection, whose)
        found: Due = dict.fromkeys(whose, ())
        if columns is not None:
            with ALL_PROCESSORS:
                found = dict(self.rules.of_many(columns, residents, self.at, tiers))
        with self.database.writing() as connection:
            # Who tells of one of them meanwhile waits, and works out anew what is due then.
            hold(connection, whose)
            found |= self._with_what_came(connection, whose, tiers)
            # Whoever was erased meanwhile is not brought back.
            still = known_of(connection, whose)
            found = {subject: due for subject, due in found.items() if subject in still}
            keep(connection, found, day_of(self.at, self.rules.timezone))
            self.told.alerts += raise_all(connection, self._alerts(found))
        self._count(found)

    def _with_what_came(
        self, connection: sql.Connection, residents: list[int], tiers: Mapping[int, Mapping[str, str]]
    ) -> Due:
        """Return what is due for those of whom the database has events that are not in the store."""
        return {
            int(subject): self.rules.due(self._history(int(subject), events), self.at, tiers.get(int(subject), {}))
            for (subject,), events in came_since(connection, residents).partition_by("subject_id", as_dict=True).items()
        }

    def _history(self, subject_id: int, since: pl.DataFrame) -> pl.DataFrame:
        return canonical(pl.concat([self.store.resident(subject_id).select(since.columns), since]))

    def _alerts(self, found: Due) -> Iterator[Alert]:
        for subject, due in found.items():
            for duty in due:
                if duty.urgent:
                    yield _alert(subject, duty, self.now)

    def _count(self, found: Due) -> None:
        self.told.residents += len(found)
        self.told.duties += sum(map(len, found.values()))
        self.told.urgent += sum(duty.urgent for due in found.values() for duty in due)


def _alert(subject_id: int, duty: Duty, now: datetime) -> Alert:
    return Alert(
        subject_id=subject_id,
        rule=duty.rule,
        cause=cause_of(duty),
        kind=duty.kind,
        reason_en=duty.reason_en,
        reason_zh=duty.reason_zh,
        citation=duty.citation,
        raised_at=now,
    )
