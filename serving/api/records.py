"""The records in a call become events, as the event store holds them; what is not used is counted and said."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

from features.errors import WeibingError
from features.events import SCHEMA
from features.times import instant, microseconds
from features.vocabulary import Meaning, Vocabulary
from serving.api.calls import Event, Resident
from serving.api.problems import Fault, unprocessable

# No record begins earlier and no index time lies later: what does is a mark for "unknown", or a slip.
EARLIEST, LATEST = microseconds(datetime(1850, 1, 1)), microseconds(datetime(2150, 1, 1))

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
    """One resident's events by column, and what was left out of them."""

    time: list[int | None] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    unit: list[str | None] = field(default_factory=list)
    unknown_codes: Counter[str] = field(default_factory=Counter)
    unused_values: list[UnusedValue] = field(default_factory=list)
    ignored_events: Counter[str] = field(default_factory=Counter)

    def add(self, event: Event, time: int | None) -> None:
        """Add an event that the engine is to see."""
        self.time.append(time)
        self.code.append(event.code)
        self.value.append(event.value)
        self.unit.append(event.unit)


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


def read_record(resident: Resident, number: int, index_time: int, vocabulary: Vocabulary, zone: str) -> Record:
    """Read the events of the resident at a position of the call.

    Raises
    ------
    ProblemError
        If a time is not one.
    """
    times = [
        None if event.time is None else read_time(event.time, zone, "residents", number, "events", at, "time")
        for at, event in enumerate(resident.events)
    ]
    told = [vocabulary.meanings(event.code, event.unit) for event in resident.events]
    birth = max(
        (t for t, of in zip(times, told, strict=True) if t is not None and t < index_time and _is_birth(of)),
        default=EARLIEST,
    )
    record = Record()
    for at, (event, time, meanings) in enumerate(zip(resident.events, times, told, strict=True)):
        if time is not None and time >= index_time:
            record.ignored_events[AT_OR_AFTER] += 1
            if _is_birth(meanings):
                record.add(event, time)
        elif not meanings:
            record.unknown_codes[event.code] += 1
        elif time is not None and time < birth:
            record.ignored_events[BEFORE_BIRTH] += 1
        else:
            record.add(event, time)
            for meaning in meanings:
                reason = _unused(event.value, meaning, vocabulary)
                if reason:
                    unused = UnusedValue(event=at, code=event.code, value=event.value, unit=event.unit, reason=reason)
                    record.unused_values.append(unused)
    return record


def events_of(records: Sequence[Record]) -> pl.DataFrame:
    """Return the events as the event store holds them; the resident is the position of the record."""
    lengths = [len(record.code) for record in records]
    columns = {
        "subject_id": pl.Series(np.repeat(np.arange(len(records)), lengths)),
        "time": pl.Series([each for record in records for each in record.time], dtype=pl.Int64).cast(SCHEMA["time"]),
        "code": pl.Series([each for record in records for each in record.code], dtype=pl.String),
        "numeric_value": pl.Series([each for record in records for each in record.value], dtype=pl.Float32),
        "text_value": pl.Series([None] * sum(lengths), dtype=pl.String),
        "unit": pl.Series([each for record in records for each in record.unit], dtype=pl.String),
    }
    return pl.DataFrame(columns)


# Records are full of the same dates: the days of ten years are 3,652.
@lru_cache(maxsize=65_536)
def _time(text: str, zone: str) -> int:
    time = microseconds(instant(text, zone))
    if not EARLIEST <= time < LATEST:
        raise ValueError("this date lies before 1850 or after 2149")
    return time


def _is_birth(meanings: tuple[Meaning, ...]) -> bool:
    return bool(meanings) and meanings[0].concept == BIRTH


def _unused(value: float | None, meaning: Meaning, vocabulary: Vocabulary) -> str:
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
