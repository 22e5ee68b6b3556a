"""Recorded events become usable events of concepts, in canonical units, with the values derived from them.

What cannot be used (an unknown code or unit, a value outside its plausible range) is left out here, and counted when
records are taken in.
"""

from collections.abc import Iterable
from math import nan
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.compiled import compiled
from features.derived import body_mass_index, egfr_ckd_epi_2021
from features.events import ORDER
from features.kernel import ALWAYS, Floats, Ints, Known, Singles, Small
from features.times import YEAR
from features.vocabulary import Vocabulary

# What values are derived from, in the order that the kernel knows, and what they become: see features/derived.py.
DERIVED_FROM = ("age", "female", "height", "creatinine", "weight")
DERIVED = {"egfr": ("age", "female", "creatinine"), "bmi": ("height", "weight")}

# With fewer events than this, a dictionary is faster than columns.
FEW = 4_000

Pairs = list[tuple[str, str | None]]


# The equation was developed in adults.
ADULT = 18.0


class Coded(NamedTuple):
    """Events as they were recorded; all of shape (events,), sorted by resident and time.

    `resident` is the position of the event's resident, `pair` says which (code, unit) pair it bears, `time` is in
    microseconds or ``ALWAYS``, `number` is NaN where none was recorded.
    """

    resident: Ints
    pair: Small
    time: Ints
    number: Singles


class Meanings(NamedTuple):
    """What each (code, unit) pair stands for.

    `starts`, shape (pairs + 1,), says where the meanings of each pair begin in `concept`, shape (meanings,), and
    `numbers`, shape (meanings, 3): factor, offset and, where the code itself says it, the value (else NaN). `bounds`,
    shape (concepts, 3), holds the lowest and highest plausible value, and whether the concept is a number. `sources`
    are the concepts age (dated at birth), female, height, creatinine and weight, `targets` the derived concepts eGFR
    and body mass index; -1 where not wanted.
    """

    starts: Small
    concept: Small
    numbers: Floats
    bounds: Floats
    sources: Small
    targets: Small


@compiled
def _usable(value: float, bounds: Floats) -> bool:
    """Whether an event says something: a number within its plausible range, or no number where none is needed."""
    if np.isnan(value):
        return bool(bounds[2] == 0.0)
    return bool(bounds[0] <= value <= bounds[1])


@compiled
def _canonical(number: float, numbers: Floats) -> float:
    """The value in the canonical unit, at the precision in which values are stored."""
    factor, offset, said = numbers[0], numbers[1], numbers[2]
    return float(np.float32(number * factor + offset if np.isnan(said) else said))


@compiled
def _derive(meanings: Meanings, concept: int, value: float, time: int, known: Floats) -> tuple[int, float]:
    """Remember what later values need, and compute what this one allows.

    `known` holds the latest time of birth, sex and height. Returns the derived concept, or -1, and its value.
    """
    sources, targets = meanings.sources, meanings.targets
    if concept == sources[0] and time != ALWAYS:
        known[0] = float(time)
    elif concept == sources[1]:
        known[1] = value
    elif concept == sources[2]:
        known[2] = value
    elif concept == sources[3] and targets[0] >= 0:
        age = (time - known[0]) / YEAR
        if age >= ADULT and not np.isnan(known[1]):
            return int(targets[0]), egfr_ckd_epi_2021(value, age, known[1])
    elif concept == sources[4] and targets[1] >= 0 and not np.isnan(known[2]):
        return int(targets[1]), body_mass_index(value, known[2])
    return -1, np.nan


@compiled
def translate(coded: Coded, meanings: Meanings) -> tuple[Ints, Small, Ints, Singles]:
    """Turn coded events into usable events of concepts, in the same order.

    Returns
    -------
    resident, concept, time, value : shape (events of concepts,)
    """
    room = 0
    for event in range(len(coded.pair)):
        room += meanings.starts[coded.pair[event] + 1] - meanings.starts[coded.pair[event]]
    who, what = np.empty(2 * room, np.int64), np.empty(2 * room, np.int32)
    when, worth = np.empty(2 * room, np.int64), np.empty(2 * room, np.float32)
    known = np.full(3, np.nan)
    filled, previous = 0, np.int64(-1)
    for event in range(len(coded.pair)):
        if coded.resident[event] != previous:
            previous = coded.resident[event]
            known[:] = np.nan
        time = coded.time[event]
        for meaning in range(meanings.starts[coded.pair[event]], meanings.starts[coded.pair[event] + 1]):
            concept = meanings.concept[meaning]
            value = _canonical(coded.number[event], meanings.numbers[meaning])
            if not _usable(value, meanings.bounds[concept]):
                continue
            who[filled], what[filled], when[filled], worth[filled] = previous, concept, time, value
            filled += 1
            derived, result = _derive(meanings, concept, value, time, known)
            if derived >= 0 and _usable(result, meanings.bounds[derived]):
                who[filled], what[filled], when[filled], worth[filled] = previous, derived, time, result
                filled += 1
    return who[:filled].copy(), what[:filled].copy(), when[:filled].copy(), worth[:filled].copy()


class Translator:
    """Turns recorded events into usable events of the wanted concepts, values derived from others among them."""

    def __init__(self, concepts: Iterable[str], vocabulary: Vocabulary) -> None:
        wanted = set(concepts)
        needed = {source for concept in wanted for source in DERIVED.get(concept, ())}
        self.concepts = sorted(wanted | needed)
        self.vocabulary = vocabulary

    def known(self, events: pl.DataFrame, residents: NDArray[np.int64]) -> Known:
        """Return the usable events of these residents, who are in ascending order, from those of a shard."""
        events = _ordered(events)
        subject = events["subject_id"].to_numpy()
        begins = np.flatnonzero(np.diff(subject, prepend=subject[:1] - 1))
        place = np.searchsorted(residents, subject[begins]).clip(max=len(residents) - 1)
        asked = residents[place] == subject[begins]
        counts = np.diff(begins, append=len(subject))
        if not asked.all():
            events = events.filter(pl.Series(np.repeat(asked, counts)))
        return self._translated(events, np.repeat(place[asked], counts[asked]), len(residents))

    def of_one(self, events: pl.DataFrame) -> Known:
        """Return the usable events of one resident."""
        return self._translated(_ordered(events), np.zeros(len(events), np.int64), 1)

    def frame(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the usable events of a shard as `subject_id`, `concept`, `time` (null: always) and `value`."""
        residents = events["subject_id"].unique().sort()
        known = self.known(events, residents.to_numpy())
        who = np.repeat(np.arange(len(residents)), np.diff(known.starts))
        concept = pl.Series(self.concepts, dtype=pl.Enum(self.concepts))
        return pl.DataFrame(
            {
                "subject_id": residents.gather(who),
                "concept": concept.gather(known.concept.astype(np.uint32)),
                "time": pl.Series(known.time).replace({int(ALWAYS): None}).cast(pl.Datetime("us")),
                "value": pl.Series(known.value, nan_to_null=True),
            }
        )

    def _translated(self, events: pl.DataFrame, resident: NDArray[np.int64], residents: int) -> Known:
        pair, pairs = _pairs(events)
        number = events["numeric_value"].to_numpy()
        coded = Coded(resident, pair, clock(events["time"]), number)
        who, what, when, worth = translate(coded, self._meanings(pairs))
        return Known(np.searchsorted(who, np.arange(residents + 1)), what, when, worth)

    def _meanings(self, pairs: Pairs) -> Meanings:
        number_of = {concept: number for number, concept in enumerate(self.concepts)}
        starts, concepts, numbers = [0], [], []
        for code, unit in pairs:
            for meaning in self.vocabulary.meanings(code, unit):
                if meaning.concept in number_of:
                    concepts.append(number_of[meaning.concept])
                    # A number in an unknown unit is not used.
                    factor = meaning.factor if meaning.known_unit else nan
                    numbers.append((factor, meaning.offset, nan if meaning.value is None else meaning.value))
            starts.append(len(concepts))
        known = [self.vocabulary.concepts[concept] for concept in self.concepts]
        return Meanings(
            starts=np.array(starts, np.int32),
            concept=np.array(concepts, np.int32),
            numbers=np.array(numbers, np.float64).reshape(-1, 3),
            bounds=np.array([(concept.low, concept.high, concept.numeric) for concept in known], np.float64),
            sources=np.array([number_of.get(concept, -1) for concept in DERIVED_FROM], np.int32),
            targets=np.array([number_of.get(concept, -1) for concept in DERIVED], np.int32),
        )


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events sorted by resident and time, as they are where they already are."""
    subject, time = events["subject_id"].to_numpy(), clock(events["time"])
    later = (subject[1:] > subject[:-1]) | ((subject[1:] == subject[:-1]) & (time[1:] >= time[:-1]))
    return events if later.all() else events.sort(ORDER)


def clock(time: pl.Series) -> NDArray[np.int64]:
    """Return times as microseconds since 1970, shape as given; ``ALWAYS`` where there is none."""
    # numpy's "not a time" is ALWAYS.
    return time.to_numpy().view(np.int64)


def _pairs(events: pl.DataFrame) -> tuple[Small, Pairs]:
    """Return which (code, unit) pair each event bears, and the pairs."""
    if len(events) <= FEW:
        number_of: dict[tuple[str, str | None], int] = {}
        both = zip(events["code"].to_list(), events["unit"].to_list(), strict=True)
        pair = [number_of.setdefault(each, len(number_of)) for each in both]
        return np.array(pair, np.int32), list(number_of)
    code, codes = _numbered(events["code"])
    unit, units = _numbered(events["unit"])
    combined = code.astype(np.int64) * len(units) + unit
    present = np.flatnonzero(np.bincount(combined, minlength=len(codes) * len(units)))
    number = np.zeros(len(codes) * len(units), np.int32)
    number[present] = np.arange(len(present))
    return number[combined], [(str(codes[p // len(units)]), units[p % len(units)]) for p in present]


def _numbered(texts: pl.Series) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return the number of each text, and the texts by number; the last one is null."""
    known = texts.drop_nulls().unique().sort()
    number = texts.cast(pl.Enum(known)).to_physical().cast(pl.Int64).fill_null(len(known))
    return number.to_numpy(), [*known.to_list(), None]
