"""What the service rules say is due for a resident: a pure function of history and day."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.columns import Columns
from features.times import DAY, instant, microseconds, standard_offset
from features.vocabulary import Vocabulary, builtin
from serving.duties.forms import BY_NAME, Found
from serving.duties.history import EPOCH, History, HistoryReader
from serving.duties.rules import DISEASES, Rule, Rulebook, rulebook
from serving.duties.standing import ASKED, Standing

TIMEZONE = "Asia/Shanghai"
NO_TIERS: Mapping[str, str] = {}

Status = Literal["controlled", "not controlled", "unknown"]


@dataclass(frozen=True, slots=True)
class Duty:
    """What is due for a resident, and why.

    Attributes
    ----------
    kind : what is to be done; a resident has one duty of a kind
    due, since : by when, and since when it is a duty
    overdue : whether `due` has passed
    urgent : whether it is to be done at once
    reason_en, reason_zh : the value and the date that made it due, for every rule that asks for it
    rule, citation, trust : the rule that is due first, where it is written, and how far that is to be trusted
    also : the other rules that ask for it
    """

    kind: str
    due: date
    since: date
    overdue: bool
    urgent: bool
    reason_en: str
    reason_zh: str
    rule: str
    citation: str
    trust: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """Whether a disease is under control, by the last day that tells.

    Attributes
    ----------
    day : that day; None where nothing since the diagnosis tells
    values : what was measured on it, by concept: the mean of the day
    why_en, why_zh : what decides: the values, or what the doctor noted
    """

    status: Status
    day: date | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    why_en: str = ""
    why_zh: str = ""


class _Called(NamedTuple):
    """A rule that calls for something."""

    rule: Rule
    found: Found

    @property
    def order(self) -> tuple[bool, int, str]:
        """Urgent first, then by due date; the kind decides between equals."""
        return not self.rule.urgent, self.found.due, self.rule.kind


class DutyRules:
    """The rules of one version, ready for many residents.

    Parameters
    ----------
    book
        The rules.
    vocabulary
        What codes and units mean.
    timezone
        The county's: its days are those that duties speak of.

    Raises
    ------
    WeibingError
        If a rule names an unknown concept, or there is no such zone.
    """

    def __init__(self, book: Rulebook, vocabulary: Vocabulary | None = None, timezone: str = TIMEZONE) -> None:
        vocabulary = vocabulary or builtin()
        concepts = book.concepts | ASKED
        for concept in concepts:
            vocabulary.concept(concept)
        self.book = book
        self.timezone = timezone
        self._zone = standard_offset(timezone)
        self._reader = HistoryReader(concepts, vocabulary, timezone)

    def history(self, events: pl.DataFrame) -> History:
        """Return the history of one resident from the event store's columns; there may be no events."""
        return self._reader.one(events)

    def due(
        self, history: pl.DataFrame | History, day: date | datetime, tiers: Mapping[str, str] = NO_TIERS
    ) -> tuple[Duty, ...]:
        """Return what is due for a resident; arguments as for :func:`due`."""
        read = history if isinstance(history, History) else self.history(history)
        return self._due(read, *self._moment(day), tiers)

    def control(self, history: pl.DataFrame | History, day: date | datetime) -> dict[str, Control]:
        """Return whether the diseases that a resident has are under control; arguments as for :func:`control`."""
        read = history if isinstance(history, History) else self.history(history)
        who = Standing(read, *self._moment(day), self.book, NO_TIERS)
        return {disease: _control(who, disease) for disease in DISEASES if who.populations[disease] is not None}

    def of_many(
        self,
        events: pl.DataFrame | Columns,
        residents: NDArray[np.int64],
        day: date | datetime,
        tiers: Mapping[int, Mapping[str, str]] | None = None,
    ) -> Iterator[tuple[int, tuple[Duty, ...]]]:
        """Yield residents and what is due for each.

        Parameters
        ----------
        events
            Of a shard.
        residents : ascending
        tiers : by resident, by target
        """
        moment, today = self._moment(day)
        known = tiers or {}
        for resident, history in zip(residents.tolist(), self._reader.many(events, residents), strict=True):
            yield resident, self._due(history, moment, today, known.get(resident, NO_TIERS))

    def _moment(self, day: date | datetime) -> tuple[int, int]:
        """Return the moment (microseconds since 1970) before which things count, and its day."""
        if isinstance(day, datetime):
            moment = microseconds(instant(day, "UTC"))
            return moment, (moment + self._zone) // DAY + EPOCH
        return (day.toordinal() - EPOCH) * DAY - self._zone, day.toordinal()

    def _due(self, history: History, moment: int, today: int, tiers: Mapping[str, str]) -> tuple[Duty, ...]:
        who = Standing(history, moment, today, self.book, tiers)
        return tuple(_merged(_called(who), today)) if who.here else ()


def due(
    history: pl.DataFrame | History,
    day: date | datetime,
    *,
    targets: str = "2017",
    tiers: Mapping[str, str] = NO_TIERS,
    timezone: str = TIMEZONE,
) -> tuple[Duty, ...]:
    """Return what is due for a resident, urgent first, then by due date.

    What the records cannot tell creates no duty. The same arguments give the same duties.

    Parameters
    ----------
    history : columns of the event store, or a :class:`History`
        Of this resident alone.
    day
        What was recorded before it counts. A date begins at midnight in the county; a datetime is a moment (UTC).
    targets
        The version of the rules and of the targets of control: 2017, 2024 or 2025.
    tiers : by target
        How high the resident's risk is (low, moderate, high, very high).
    timezone
        The county's.

    Raises
    ------
    WeibingError
        If there is no such version or zone.
    """
    return _rules(targets, timezone).due(history, day, tiers)


def control(
    history: pl.DataFrame | History, day: date | datetime, *, targets: str = "2017", timezone: str = TIMEZONE
) -> dict[str, Control]:
    """Return whether hypertension and diabetes are under control, of those that the resident is known to have.

    As a follow-up judges: by the last day since the diagnosis that tells, against the limits of the version and of the
    age on that day.

    Parameters
    ----------
    history, day, targets, timezone
        As for :func:`due`.

    Raises
    ------
    WeibingError
        If there is no such version or zone.
    """
    return _rules(targets, timezone).control(history, day)


@cache
def _rules(targets: str, timezone: str) -> DutyRules:
    return DutyRules(rulebook(targets), timezone=timezone)


def _control(who: Standing, disease: str) -> Control:
    last = next(who.visits_back(disease), None)
    if last is None:
        return Control("unknown")
    status: Status = "not controlled" if last.bad else "controlled"
    return Control(status, date.fromordinal(last.day), last.values, last.en, last.zh)


def _called(who: Standing) -> Iterator[_Called]:
    """Yield the rules that call for something today."""
    populations, today = who.populations, who.today
    for rule in who.book.rules:
        if populations[rule.population] is not None and today >= rule.valid_from.toordinal():
            found = BY_NAME[rule.form](rule, who)
            if found is not None and found.since <= today:
                yield _Called(rule, found)


def _merged(called: Iterable[_Called], today: int) -> Iterator[Duty]:
    """Yield a duty of each kind, from the most pressing one on."""
    kinds: dict[str, list[_Called]] = {}
    for each in sorted(called, key=lambda each: each.order):
        kinds.setdefault(each.rule.kind, []).append(each)
    for same in kinds.values():
        yield _duty(same, today)


def _duty(same: list[_Called], today: int) -> Duty:
    rule, found = same[0]
    return Duty(
        kind=rule.kind,
        due=date.fromordinal(found.due),
        since=date.fromordinal(min(each.found.since for each in same)),
        overdue=found.due < today,
        urgent=rule.urgent,
        reason_en="; ".join(dict.fromkeys(_reason(each, "en") for each in same)),
        reason_zh="；".join(dict.fromkeys(_reason(each, "zh") for each in same)),
        rule=rule.rule,
        citation=rule.citation,
        trust=rule.trust,
        also=tuple(each.rule.rule for each in same[1:]),
    )


def _reason(called: _Called, language: str) -> str:
    rule, found = called
    if language == "en":
        text, sign = (rule.never_en if found.never else rule.reason_en), found.en
    else:
        text, sign = (rule.never_zh if found.never else rule.reason_zh), found.zh
    return text.format(sign=sign, date=date.fromordinal(found.date).isoformat())
