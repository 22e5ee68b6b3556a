"""What is said of a resident now: of the event store, and of what came since the last night.

The database is read before the store. Events that a night takes from the one into the other meanwhile are then in one
of them at least, and those that are in both count once, as events are a set.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl
import sqlalchemy as sql

from features.cohort import Target
from features.errors import WeibingError
from features.events import SCHEMA, EventStore, canonical, normalised, shard_of
from features.generation import settled
from serving.api.assessments import Due
from serving.api.problems import unavailable
from serving.duties.duty import Duty, DutyRules
from serving.kept import day_of, due_now, score_of
from serving.scoring import NotAtRisk, Score, Scorer
from serving.scoring.shard import OPTED_OUT
from serving.store import risks
from serving.store.alerts import Alert, cause_of, raise_all
from serving.store.database import AwayError, Database
from serving.store.duties import keep
from serving.store.observations import Taken
from serving.store.tables import residents
from serving.store.telling import Known, came_since, hold, known_of, open_alerts, take
from training.targets import TARGETS

T = TypeVar("T")
Answer = Score | NotAtRisk
Histories = Mapping[int, pl.DataFrame]

NO_SCORE = "no risk as of the last night"
NO_STORE = "The records cannot be read now. Try again in a moment."
NO_DATABASE = "The database cannot be used now. Nothing was kept; try again in a moment."
# So many are scored one after the other on this thread, more on all processors.
FEW = 8
DRIVERS = 5
MOST_TARGETS = 1_000
NO_EVENTS = normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))
NOTHING_KNOWN = Known()
# What a store that cannot be read now throws, of whatever part of it.
UNREADABLE = (OSError, ValueError, pl.exceptions.PolarsError, WeibingError)


class Loaded(Protocol):
    """The models that are loaded."""

    @property
    def scorer(self) -> Scorer | None:
        """None until there is one."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not loaded, one sentence each."""


@dataclass(frozen=True)
class Assessed:
    """What models and service rules say of a resident.

    Attributes
    ----------
    at : the moment before which things count (UTC); None where the resident was never scored
    targets : what the answers are about, by name
    """

    subject_id: int
    at: datetime | None
    answers: tuple[Answer, ...]
    duties: tuple[Due, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[Score, ...]:
        """The targets for which the resident is at risk."""
        return tuple(answer for answer in self.answers if isinstance(answer, Score))


@dataclass(frozen=True)
class Renewed:
    """What is said of a resident of whom something was told.

    Attributes
    ----------
    missing : why there are no scores, where no model is loaded; then `assessed` has none
    alerts : those that nobody has acknowledged, the latest first
    """

    assessed: Assessed
    missing: str
    alerts: tuple[Alert, ...]


@dataclass(frozen=True)
class Telling:
    """What was taken of a telling, and what is said now of those of whom it tells."""

    taken: Taken
    renewed: tuple[Renewed, ...]


class Live:
    """Answers for residents, from store and database. Its methods may be called on any thread.

    Parameters
    ----------
    store : the folder of the event store; None where what the database holds is all that is known
    """

    def __init__(self, store: Path | None, database: Database, champions: Loaded, rules: DutyRules) -> None:
        self.store = store
        self.database = database
        self.champions = champions
        self.rules = rules

    def history(self, subject_id: int) -> pl.DataFrame:
        """Return all events of a resident, as a set in the event store's columns and order; none of one unknown.

        Raises
        ------
        ProblemError
            503 where store or database cannot be read.
        """
        return self.histories([subject_id])[subject_id]

    def histories(self, subject_ids: Collection[int]) -> dict[int, pl.DataFrame]:
        """Return the same for many residents."""
        with _reading(self.database) as connection:
            since = came_since(connection, subject_ids)
        return by_resident(subject_ids, since, self._stored(subject_ids))

    def known(self, subject_ids: Collection[int]) -> dict[int, Known]:
        """Return what the database knows of residents; whom it does not know is not in it."""
        with _reading(self.database) as connection:
            return known_of(connection, subject_ids)

    def assess(
        self, subject_id: int, now: datetime, *, targets: Iterable[str] | None = None, most: int | None = DRIVERS
    ) -> Assessed:
        """Say of a resident what models and rules say of all that is known up to now.

        Raises
        ------
        ProblemError
            503 where no model is loaded, or store or database cannot be read.
        """
        self._scorer()
        opted_out = self.known([subject_id]).get(subject_id, NOTHING_KNOWN).opted_out
        history = self.history(subject_id)
        return self.of(history, now, subject_id, opted_out=opted_out, targets=targets, most=most)

    def of(
        self,
        events: pl.DataFrame,
        now: datetime,
        subject_id: int = 0,
        *,
        opted_out: bool = False,
        targets: Iterable[str] | None = None,
        most: int | None = DRIVERS,
    ) -> Assessed:
        """Say of events, of one resident alone, what models and rules say; nothing is read.

        Raises
        ------
        ProblemError
            503 where no model is loaded.
        """
        scorer, refused = self._scorer(), {subject_id} if opted_out else set()
        answers = _answers(scorer, {subject_id: events}, now, refused, targets, most)[subject_id]
        return Assessed(subject_id, now, answers, self._duties(events, now, answers), _targets(scorer))

    def kept(self, subject_id: int, now: datetime) -> Assessed:
        """Say of a resident what was said last night; duties are those that were last computed.

        Raises
        ------
        ProblemError
            503 where the database cannot be read, or a target is one that nobody knows any more.
        """
        with _reading(self.database) as connection:
            rows = risks.page(connection, (risks.live(), residents.c.subject_id == subject_id), None, MOST_TARGETS)
            duties = risks.duties_of(connection, [subject_id]).get(subject_id, ())
            opted_out = known_of(connection, [subject_id]).get(subject_id, NOTHING_KNOWN).opted_out
        targets = {row.target: self.target(row.target) for row in rows}
        answers = tuple(_kept_answer(row, opted_out=opted_out) for row in rows)
        at = max((row.index_time for row in rows), default=None)
        return Assessed(subject_id, at, answers, due_now(duties, day_of(now, self.rules.timezone)), targets)

    def target(self, name: str) -> Target:
        """Return a target by its name.

        Raises
        ------
        ProblemError
            503 where neither a model that is loaded nor the program knows it.
        """
        scorer = self.champions.scorer
        found = {**TARGETS, **({} if scorer is None else _targets(scorer))}.get(name)
        if found is None:
            raise unavailable(f"No model of {name} is loaded.")
        return found

    def renew(self, subject_id: int, now: datetime) -> Assessed:
        """Say of a resident what is known now; keep what is due, and raise what is due at once.

        Raises
        ------
        ProblemError
            503 where no model is loaded (what is due is kept all the same), or store or database cannot be read.
        """
        (renewed,) = self._told(self.histories([subject_id]), now, now, lambda _: None)[1]
        if renewed.missing:
            raise unavailable(renewed.missing)
        return renewed.assessed

    def tell(self, rows: pl.DataFrame, before: Histories, now: datetime, at: datetime | None = None) -> Telling:
        """Take what records tell; keep what is due now, and raise what is due at once: all of it or nothing.

        Parameters
        ----------
        rows : as for :func:`serving.store.telling.take`
        before : what :meth:`histories` said a moment ago of all of whom they tell
        at : before which things count; now, where it is not given

        Raises
        ------
        WeibingError
            As :func:`serving.store.telling.take`.
        ProblemError
            503 where the database cannot be used; then nothing was taken.
        """
        return Telling(*self._told(before, now, at or now, lambda connection: take(connection, rows, now)))

    def _told(
        self, before: Histories, now: datetime, at: datetime, write: Callable[[sql.Connection], T]
    ) -> tuple[T, tuple[Renewed, ...]]:
        """Write something about residents, and renew what is said of them in the same transaction."""
        with _writing(self.database) as connection:
            written = write(connection)
            hold(connection, before)
            return written, self._renewed(connection, before, now, at)

    def _renewed(
        self, connection: sql.Connection, before: Histories, now: datetime, at: datetime
    ) -> tuple[Renewed, ...]:
        known = known_of(connection, before)
        histories = by_resident(before, came_since(connection, before), *before.values())
        refused = {subject for subject, of in known.items() if of.opted_out}
        scorer, missing = self.champions.scorer, ""
        if scorer is None:
            missing = " ".join(self.champions.missing)
        answers = {} if scorer is None else _answers(scorer, histories, at, refused, None, DRIVERS)
        due = {subject: self._duties(of, at, answers.get(subject, ())) for subject, of in histories.items()}
        keep(connection, due, day_of(now, self.rules.timezone))
        raise_all(connection, (_alert(subject, duty, now) for subject, of in due.items() for duty in of if duty.urgent))
        alerts, targets = open_alerts(connection, before), {} if scorer is None else _targets(scorer)
        return tuple(
            Renewed(
                Assessed(subject, at, answers.get(subject, ()), due[subject], targets), missing, tuple(alerts[subject])
            )
            for subject in before
        )

    def _duties(self, events: pl.DataFrame, at: datetime, answers: Iterable[Answer]) -> tuple[Duty, ...]:
        tiers = {answer.target: answer.tier for answer in answers if isinstance(answer, Score)}
        return self.rules.due(events, at, tiers)

    def _scorer(self) -> Scorer:
        scorer = self.champions.scorer
        if scorer is None:
            raise unavailable(" ".join(self.champions.missing))
        return scorer

    def _stored(self, subject_ids: Collection[int]) -> pl.DataFrame:
        folder = self.store
        return NO_EVENTS if folder is None else _read_twice(folder, subject_ids)


def _answers(
    scorer: Scorer,
    histories: Histories,
    at: datetime,
    opted_out: Collection[int],
    targets: Iterable[str] | None,
    most: int | None,
) -> dict[int, tuple[Answer, ...]]:
    """Score residents by their histories; of who has opted out, that is said instead."""
    asked = list(scorer.questions if targets is None else targets)
    for target in asked:
        if target not in scorer.questions:
            raise unavailable(f"No model of {target} is loaded.")
    refused = {subject: tuple(NotAtRisk(subject, target, at, OPTED_OUT) for target in asked) for subject in opted_out}
    scored = {subject: of for subject, of in histories.items() if subject not in opted_out}
    return {**refused, **_scored(scorer, scored, at, asked, most)}


def _scored(
    scorer: Scorer, histories: Histories, at: datetime, targets: Sequence[str], most: int | None
) -> dict[int, tuple[Answer, ...]]:
    if len(histories) <= FEW:
        return {
            subject: tuple(scorer.one(events, subject, at, at, targets=targets, most=most))
            for subject, events in histories.items()
        }
    subjects = list(histories)
    placed = [
        events.with_columns(pl.lit(place, pl.Int64).alias("subject_id"))
        for place, events in enumerate(histories.values())
    ]
    found = scorer.many(pl.concat(placed), subjects, [at] * len(subjects), at, targets=targets, most=most)
    return {subject: tuple(answers) for subject, answers in zip(subjects, found, strict=True)}


def _targets(scorer: Scorer) -> dict[str, Target]:
    return {name: question.model.card.target for name, question in scorer.questions.items()}


def _kept_answer(row: risks.KeptScore, *, opted_out: bool) -> Answer:
    if opted_out or row.probability is None:
        return NotAtRisk(row.subject_id, row.target, row.index_time, OPTED_OUT if opted_out else NO_SCORE)
    return score_of(row)


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


def by_resident(subject_ids: Iterable[int], *frames: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """Return the events of each resident, as a set; of several frames together."""
    every = canonical(pl.concat([NO_EVENTS, *(frame.select(list(SCHEMA)) for frame in frames)]))
    parts = every.partition_by("subject_id", as_dict=True)
    return {subject: parts.get((subject,), NO_EVENTS) for subject in subject_ids}


def _read_twice(folder: Path, subject_ids: Collection[int]) -> pl.DataFrame:
    """Read residents' events; a second time where the store was written anew in between."""
    try:
        return _read(folder, subject_ids)
    except UNREADABLE:
        pass
    try:
        return _read(folder, subject_ids)
    except UNREADABLE as error:
        raise unavailable(NO_STORE) from error


def _read(folder: Path, subject_ids: Collection[int]) -> pl.DataFrame:
    store = EventStore.open(folder)
    return settled(store.path, lambda: _of_shards(store, subject_ids))


def _of_shards(store: EventStore, subject_ids: Collection[int]) -> pl.DataFrame:
    bits, wanted = store.shard_bits, pl.col("subject_id").is_in(sorted(subject_ids))
    shards = store.shards
    if bits is not None:
        names = {shard_of(subject, bits) for subject in subject_ids}
        shards = [shard for shard in shards if shard.name in names]
    parts = [normalised(pl.scan_parquet(shard).filter(wanted).collect()) for shard in shards]
    return pl.concat([NO_EVENTS, *(part.select(list(SCHEMA)) for part in parts)])


@contextmanager
def _reading(database: Database) -> Iterator[sql.Connection]:
    with _away_told(), database.reading() as connection:
        yield connection


@contextmanager
def _writing(database: Database) -> Iterator[sql.Connection]:
    with _away_told(), database.writing() as connection:
        yield connection


@contextmanager
def _away_told() -> Iterator[None]:
    try:
        yield
    except AwayError as error:
        raise unavailable(NO_DATABASE) from error
