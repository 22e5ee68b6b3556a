"""Drivers: the contributions of one concept, summed, beside the value that a person knows it by."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import isnan
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.compiled import compiled
from features.kernel import ALWAYS, Known
from features.times import DAY
from features.vocabulary import Concept

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Bools = NDArray[np.bool_]

EPOCH = datetime(1970, 1, 1)
# As a plain number, which is compared faster.
NEVER = int(ALWAYS)


class Driver(NamedTuple):
    """The share of one concept in a score.

    Attributes
    ----------
    concept, label_en, label_zh : its name, and what a person calls it
    contribution : its share of the log-odds
    value : the latest usable value before the index time, or None where none is known; of age, the age in whole years;
        of a condition, drug or contact None, as only its date is known
    unit : the unit of `value` (UCUM)
    date : when it was last recorded (UTC), or None where it never was or always holds
    modifiable : whether something can be done about it
    """

    concept: str
    label_en: str
    label_zh: str
    contribution: float
    value: float | None
    unit: str
    date: datetime | None
    modifiable: bool


class Latest(NamedTuple):
    """What was last known of each concept: `value`, NaN where none, and `time`, ``ALWAYS`` where none.

    Both of shape (residents, concepts); `time` is in microseconds since 1970 (UTC).
    """

    value: Singles
    time: Ints

    def of(self, residents: Ints, concepts: Ints) -> "Latest":
        """Return the same of some residents and concepts."""
        at = residents[:, np.newaxis], concepts
        return Latest(self.value[at], self.time[at])


class Kinds(NamedTuple):
    """What there is to know of some concepts, each of shape (concepts,).

    Attributes
    ----------
    static : whether what always holds goes before what is dated
    told : whether the value means something to a person, and not the date alone
    age : whether the value is the age, and what is recorded the birth
    """

    static: Bools
    told: Bools
    age: Bools

    @classmethod
    def of(cls, concepts: Sequence[Concept]) -> "Kinds":
        """Say it of concepts, in the order in which they are numbered."""
        static = [concept.kind == "static" for concept in concepts]
        told = [concept.numeric or concept.kind == "static" for concept in concepts]
        age = [concept.name == "age" for concept in concepts]
        return cls(np.array(static, np.bool_), np.array(told, np.bool_), np.array(age, np.bool_))


def latest(known: Known, index_time: Ints, kinds: Kinds, zone: int = 0) -> tuple[Latest, Bools]:
    """Find what was last known of each concept before each resident's index time.

    Where several values bear the same time, their mean counts. What always holds of a resident goes before what is
    dated in a static concept, and after it in any other. The value of age is the age at the index time, in whole years.

    Parameters
    ----------
    known : the residents' usable events of these concepts
    index_time : shape (residents,), microseconds
    kinds : of the concepts, in the order in which `known` numbers them
    zone : microseconds by which the county's days are ahead of UTC

    Returns
    -------
    what was found, and whether each resident was born at the index time or later, shape (residents,)
    """
    shape = (len(index_time), len(kinds.static))
    found, later = Latest(np.empty(shape, np.float32), np.empty(shape, np.int64)), np.zeros(shape[0], np.bool_)
    _find_latest(known, index_time, kinds, zone, found, later)
    return found, later


@compiled
def _find_latest(known: Known, index_time: Ints, kinds: Kinds, zone: int, found: Latest, later: Bools) -> None:
    """Fill what was last known of each resident and concept, in one pass."""
    concepts = found.value.shape[1]
    total, number, always = np.empty(concepts), np.empty(concepts, np.int64), np.empty(concepts, np.bool_)
    for resident in range(len(index_time)):
        time, index = found.time[resident], index_time[resident]
        time[:], total[:], number[:], always[:] = ALWAYS, 0.0, 0, False
        for event in range(known.starts[resident], known.starts[resident + 1]):
            concept, when = known.concept[event], known.time[event]
            later[resident] |= kinds.age[concept] and when >= index
            if when >= index or (always[concept] and when != ALWAYS):
                continue
            always[concept] |= kinds.static[concept] and when == ALWAYS
            if when != time[concept]:
                time[concept], total[concept], number[concept] = when, 0.0, 0
            if not np.isnan(known.value[event]):
                total[concept] += known.value[event]
                number[concept] += 1
        _tell(total, number, index, kinds, zone, found.value[resident], time)


@compiled
def _tell(total: Floats, number: Ints, index: int, kinds: Kinds, zone: int, value: Singles, time: Ints) -> None:
    """Write one resident's values: the means, but the age of age, and nothing where only the date means something."""
    for concept in range(len(value)):
        value[concept] = total[concept] / number[concept] if number[concept] and kinds.told[concept] else np.nan
        if kinds.age[concept]:
            born = time[concept]
            value[concept] = np.nan if born == ALWAYS else whole_years(born + zone, index + zone)
            time[concept] = ALWAYS


@compiled
def whole_years(since: int, until: int) -> int:
    """Return how many anniversaries have come from one moment (microseconds since 1970) to another."""
    (first, first_day), (last, last_day) = _month_and_day(since // DAY), _month_and_day(until // DAY)
    return (last - first - (last_day < first_day)) // 12


@compiled
def _month_and_day(day: int) -> tuple[int, int]:
    """Return the number of a day's month, and which day of it it is; both are counted from any beginning.

    The calendar is taken to begin on a 1 March, so that a leap day ends a year (Hinnant, chrono-compatible low-level
    date algorithms).
    """
    since_march_0 = day + 719_468
    era = since_march_0 // 146_097
    of_era = since_march_0 - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return 12 * (400 * era + year) + month, of_year - (153 * month + 2) // 5


class Chosen(NamedTuple):
    """Which concepts are named as drivers, the greatest contribution first, and then those that moved the most.

    `concept`, shape (rows, places), holds them, `number`, shape (rows,), says how many of the places are taken, and
    `other`, shape (rows,), is the sum of the contributions of all others.
    """

    concept: Small
    number: Small
    other: Floats


def choose(
    contributions: Floats, most: int | None, change: Floats | None = None, movers: int = 0, moved: float = 0.0
) -> Chosen:
    """Choose what to name as drivers.

    Parameters
    ----------
    contributions : shape (concepts, rows)
    most : how many of the greatest; None for all
    change : shape (concepts, rows), by how much each has changed, NaN where that is not known
    movers, moved : how many more of those that changed the most, each by `moved` at least
    """
    concepts, rows = contributions.shape
    most = concepts if most is None else min(most, concepts)
    movers = 0 if change is None else min(movers, concepts - most)
    chosen = Chosen(np.zeros((rows, most + movers), np.int32), np.zeros(rows, np.int32), np.zeros(rows))
    _choose(contributions, most, contributions if change is None else change, movers, moved, chosen)
    return chosen


@compiled
def _choose(contributions: Floats, most: int, change: Floats, movers: int, moved: float, chosen: Chosen) -> None:
    concepts = len(contributions)
    share, size, left = np.empty(concepts), np.empty(concepts), np.empty(concepts, np.bool_)
    for row in range(contributions.shape[1]):
        left[:] = True
        for concept in range(concepts):
            share[concept] = contributions[concept, row]
            size[concept] = abs(share[concept])
        _take_greatest(size, left, most, -1.0, row, chosen)
        if movers:
            for concept in range(concepts):
                size[concept] = abs(change[concept, row])
            _take_greatest(size, left, movers, moved, row, chosen)
        for concept in range(concepts):
            if left[concept]:
                chosen.other[row] += share[concept]


@compiled
def _take_greatest(size: Floats, left: Bools, most: int, at_least: float, row: int, chosen: Chosen) -> None:
    """Take up to so many of what is left, each at least of a size; of equals the first."""
    for _ in range(most):
        best = -1
        for concept in range(len(size)):
            if left[concept] and size[concept] >= at_least and (best < 0 or size[concept] > size[best]):
                best = concept
        if best < 0:
            return
        left[best] = False
        chosen.concept[row, chosen.number[row]] = best
        chosen.number[row] += 1


def drivers_of(
    concepts: Sequence[Concept], chosen: Chosen, contributions: Floats, of: Latest
) -> list[tuple[Driver, ...]]:
    """Return the drivers of scores.

    Parameters
    ----------
    concepts : those of the model
    contributions : shape (concepts, rows)
    of : both of shape (rows, concepts)
    """
    named = enumerate(zip(chosen.concept.tolist(), chosen.number.tolist(), strict=True))
    return [
        tuple(
            _driver(concepts[at], float(contributions[at, row]), of.value[row, at], int(of.time[row, at]))
            for at in concept[:number]
        )
        for row, (concept, number) in named
    ]


def driver_rows(
    concepts: Sequence[Concept], chosen: Chosen, contributions: Floats, change: Floats | None, of: Latest
) -> pl.DataFrame:
    """Return the drivers of many scores, a row each; arguments as for :func:`drivers_of`.

    Returns
    -------
    `score`, the row of the score, `position`, `concept`, `contribution`, `change`, `value`, `unit` and `date` (UTC)
    """
    places = chosen.concept.shape[1]
    named = np.flatnonzero((np.arange(places) < chosen.number[:, np.newaxis]).ravel())
    score, position = named // max(places, 1), named % max(places, 1)
    concept = chosen.concept.ravel()[named]
    changed = np.full(len(named), np.nan) if change is None else change[concept, score]
    return pl.DataFrame(
        {
            "score": pl.Series(score, dtype=pl.UInt32),
            "position": pl.Series(position, dtype=pl.Int16),
            "concept": pl.Series([each.name for each in concepts], dtype=pl.String).gather(concept),
            "contribution": contributions[concept, score],
            "change": pl.Series(changed, nan_to_null=True),
            "value": pl.Series(of.value[score, concept], nan_to_null=True),
            "unit": pl.Series([each.unit for each in concepts], dtype=pl.String).gather(concept),
            "date": _dates(of.time[score, concept]),
        }
    )


def _dates(time: Ints) -> pl.Series:
    when = pl.Series(time)
    return when.set(when == int(ALWAYS), None).cast(pl.Datetime("us"))


def _driver(concept: Concept, contribution: float, value: np.float32, time: int) -> Driver:
    return Driver(
        concept.name,
        concept.label_en,
        concept.label_zh,
        contribution,
        # The shortest decimal of a single, so that a recorded 5.3 reads 5.3.
        None if isnan(value) else float(str(value)),
        concept.unit,
        None if time == NEVER else EPOCH + timedelta(microseconds=time),
        concept.modifiable,
    )
