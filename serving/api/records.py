"""The records in a call become events, as the engine takes them; what is not used is counted and said.

What an event says is settled once for each pair of code and unit, and kept, so that an event costs a few look-ups.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from features.columns import Columns
from features.errors import WeibingError
from features.kernel import ALWAYS
from features.times import instant, microseconds
from features.translation import Book, Pair, Translator
from features.vocabulary import Concept, Meaning, Vocabulary
from serving.api.calls import Event, Resident
from serving.api.problems import Fault, unprocessable
from serving.api.sift import EARLY, LATER, NO_PAIR, UNKNOWN, Senses, sift

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Small = NDArray[np.int32]

# No record begins earlier and no index time lies later: what does is a mark for "unknown", or a slip.
EARLIEST, LATEST = microseconds(datetime(1850, 1, 1)), microseconds(datetime(2150, 1, 1))
# Records are full of the same dates: the days of ten years are 3,652.
MOST_TIMES = 65_536
# A value this near to a bound, of what its concept's values are at most, is looked at more closely.
NEAR = 1e-5

AT_OR_AFTER = "at or after the index time"
BEFORE_BIRTH = "before birth"
BIRTH = "age"


class UnusedValue(BaseModel):
    """A value that was not used."""

    event: Annotated[int, Field(description="Its position among the resident's events, from 0.")]
    code: str
    value: float | None
    unit: str | None
    reason: Annotated[str, Field(examples=["sbp lies within 50 to 300 mm[Hg]"])]


@dataclass
class Record:
    """One resident's events that the engine is to see, in order of time, and what was left out.

    `pair`, `time` and `number`, each of shape (events,), are those of :class:`features.columns.Columns`.
    """

    pair: Small
    time: Ints
    number: Singles
    unknown_codes: Counter[str] = field(default_factory=Counter)
    unused_values: list[UnusedValue] = field(default_factory=list)
    ignored_events: Counter[str] = field(default_factory=Counter)


class Times(dict[str | None, int]):
    """Dates and times of a zone as microseconds since 1970 (UTC), remembered."""

    def __init__(self, zone: str) -> None:
        super().__init__()
        self.zone = zone

    def __missing__(self, text: str | None) -> int:
        """Read one that was not met yet."""
        found = int(ALWAYS) if text is None else _time(text, self.zone)
        if len(self) >= MOST_TIMES:
            self.clear()
        self[text] = found
        return found


class Reader:
    """Reads the records of calls for one engine, whose `zone` is that of dates that come without one."""

    def __init__(self, translator: Translator, zone: str) -> None:
        self.vocabulary = translator.vocabulary
        self.zone = zone
        self._translator = translator
        self._times = Times(zone)
        book = translator.book(())
        self._known = book, _senses(book.number, translator.vocabulary)

    def read(self, residents: Sequence[Resident], index_times: Sequence[int]) -> tuple[Book, list[Record]]:
        """Read the events of the residents of a call; the book says what the pairs of the records are.

        Raises
        ------
        ProblemError
            If a time is not one; says which.
        """
        book, senses = self._known
        pairs = [_numbers(resident, book) for resident in residents]
        if any(NO_PAIR in each for each in pairs):
            book, senses = self._book({(event.code, event.unit) for of in residents for event in of.events})
            pairs = [_numbers(resident, book) for resident in residents]
        told = zip(residents, pairs, index_times, strict=True)
        return book, [self._record(number, *each, senses) for number, each in enumerate(told)]

    def time(self, text: str, *place: str | int) -> int:
        """Return a date or time as :func:`read_time`, and remember it."""
        try:
            return self._times[text]
        except (WeibingError, OverflowError, ValueError):
            return read_time(text, self.zone, *place)

    def _book(self, pairs: set[Pair]) -> tuple[Book, Senses]:
        """Return a book that has all of the pairs that mean something, and what is asked of the events of each."""
        book = self._translator.book(sorted((pair for pair in pairs if self.vocabulary.meanings(*pair)), key=str))
        known = self._known
        if book is not known[0]:
            # Others may be reading too, so that what is returned is what was made here.
            self._known = known = book, _senses(book.number, self.vocabulary)
        return known

    def _record(self, at: int, resident: Resident, pairs: list[int], index_time: int, senses: Senses) -> Record:
        events = resident.events
        pair, time = np.array(pairs, np.int32), np.array(self._times_of(events, at), np.int64)
        value = np.array([event.value for event in events], np.float64)
        sifted = sift(pair, time, value, index_time, EARLIEST, senses)
        record = Record(sifted.pair, sifted.time, sifted.number)
        for number in np.flatnonzero(sifted.standing).tolist():
            self._say(record, number, events[number], int(sifted.standing[number]))
        return record

    def _say(self, record: Record, number: int, event: Event, standing: int) -> None:
        """Say what is not as it should be with an event."""
        if standing == LATER:
            record.ignored_events[AT_OR_AFTER] += 1
        elif standing == EARLY:
            record.ignored_events[BEFORE_BIRTH] += 1
        elif standing == UNKNOWN:
            record.unknown_codes[event.code] += 1
        else:
            told = {"event": number, "code": event.code, "value": event.value, "unit": event.unit}
            for meaning in self.vocabulary.meanings(event.code, event.unit):
                if reason := unused(event.value, meaning, self.vocabulary):
                    record.unused_values.append(UnusedValue(**told, reason=reason))

    def _times_of(self, events: Sequence[Event], at: int) -> list[int]:
        times, place = self._times, ("residents", at, "events")
        try:
            return [times[event.time] for event in events]
        except (WeibingError, OverflowError, ValueError):
            # Whichever it is, this time its place is said.
            return [
                int(ALWAYS) if event.time is None else read_time(event.time, self.zone, *place, number, "time")
                for number, event in enumerate(events)
            ]


def read_time(text: str, zone: str, *place: str | int) -> int:
    """Return a date or time as microseconds since 1970 (UTC).

    Raises
    ------
    ProblemError
        If it is not one, or lies before 1850 or after 2149; says at which place.
    """
    try:
        return _time(text, zone)
    except (WeibingError, OverflowError):
        raise unprocessable(Fault(place, "this is not a date or time: write it as YYYY-MM-DD")) from None
    except ValueError as error:
        raise unprocessable(Fault(place, str(error))) from None


def columns_of(book: Book, records: Sequence[Record]) -> Columns:
    """Return records as columns; the resident is the position of the record."""
    starts = np.append(0, np.cumsum([len(record.pair) for record in records], dtype=np.int64))
    return Columns(
        np.arange(len(records), dtype=np.int64),
        starts,
        np.concatenate([record.time for record in records]),
        np.concatenate([record.number for record in records]),
        np.concatenate([record.pair for record in records]),
        list(book.number),
    )


def unused(value: float | None, meaning: Meaning, vocabulary: Vocabulary) -> str:
    """Return why the engine will not use the value of an event, or nothing."""
    concept = vocabulary.concepts[meaning.concept]
    if meaning.value is not None:
        return ""
    if value is None:
        return f"{concept.name} needs a number" if concept.numeric else ""
    if not meaning.known_unit:
        return f"{concept.name} is not known in this unit"
    # The engine compares singles.
    if concept.low <= np.float32(value * meaning.factor + meaning.offset) <= concept.high:
        return ""
    return f"{concept.name} lies within {concept.low:g} to {concept.high:g} {concept.unit}".rstrip()


def _time(text: str, zone: str) -> int:
    time = microseconds(instant(text, zone))
    if not EARLIEST <= time < LATEST:
        raise ValueError("this date lies before 1850 or after 2149")
    return time


def _numbers(resident: Resident, book: Book) -> list[int]:
    """Return the number of each event's pair."""
    number_of = book.number
    return [number_of.get((event.code, event.unit), NO_PAIR) for event in resident.events]


def _senses(pairs: Iterable[Pair], vocabulary: Vocabulary) -> Senses:
    told = [vocabulary.meanings(*pair) for pair in pairs]
    asked = [[(vocabulary.concepts[each.concept], each) for each in of if each.value is None] for of in told]
    between = [tuple(_between(concept, meaning) for concept, meaning in of) for of in asked]
    return Senses(
        np.array([of[0].concept == BIRTH for of in told], np.bool_),
        np.array([max((low for low, _ in of), default=-inf) for of in between], np.float64),
        np.array([min((high for _, high in of), default=inf) for of in between], np.float64),
        np.array([not any(concept.numeric for concept, _ in of) for of in asked], np.bool_),
    )


def _between(concept: Concept, meaning: Meaning) -> tuple[float, float]:
    """Return between which numbers, in the unit they are told in, :func:`unused` has nothing to say."""
    if not meaning.known_unit or not meaning.factor:
        return inf, -inf
    near = NEAR * max(abs(bound) for bound in (concept.low, concept.high, meaning.offset) if isfinite(bound))
    low, high = concept.low + near, concept.high - near
    ends = sorted((bound - meaning.offset) / meaning.factor for bound in (low, high))
    return ends[0], ends[1]
