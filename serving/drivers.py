"""Drivers: the contributions of one concept, summed, beside the value that a person knows it by."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.kernel import ALWAYS, Known
from features.times import YEAR
from features.vocabulary import Concept

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

EPOCH = datetime(1970, 1, 1)

COLUMN = pl.List(
    pl.Struct(
        {
            "concept": pl.String(),
            "label_en": pl.String(),
            "label_zh": pl.String(),
            "contribution": pl.Float64(),
            "value": pl.Float32(),
            "unit": pl.String(),
            "date": pl.Datetime("us"),
            "modifiable": pl.Boolean(),
        }
    )
)

# Where a driver's fields come from that are the concept's own.
OF_CONCEPT = {"concept": "name"} | {name: name for name in ("label_en", "label_zh", "unit", "modifiable")}


class Driver(NamedTuple):
    """The share of one concept in a score.

    Attributes
    ----------
    concept, label_en, label_zh : its name, and what a person calls it
    contribution : its share of the log-odds
    value : the latest usable value before the index time, or None where none is known; of age, the age itself; of a
        condition, drug or contact None, as only its date is known
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
        return Latest(self.value[residents][:, concepts], self.time[residents][:, concepts])


def latest(known: Known, index_time: Ints, concepts: Sequence[Concept]) -> Latest:
    """Find what was last known of each concept before each resident's index time.

    Where several values bear the same time, their mean counts. What always holds of a resident goes before what is
    dated in a static concept, and after it in any other. The value of age is the age at the index time.

    Parameters
    ----------
    known : the residents' usable events of these concepts
    index_time : shape (residents,), microseconds
    concepts : in the order in which `known` numbers them
    """
    resident = np.repeat(np.arange(len(index_time)), np.diff(known.starts))
    slot = resident * len(concepts) + known.concept
    before = known.time < index_time[resident]
    last = np.full(len(index_time) * len(concepts), ALWAYS)
    np.maximum.at(last, slot[before], known.time[before])
    static = np.array([concept.kind == "static" for concept in concepts])
    last[slot[(known.time == ALWAYS) & static[known.concept]]] = ALWAYS
    counts = before & (known.time == last[slot])
    value = _means(slot[counts], known.value[counts], len(last))
    found = Latest(value.reshape(-1, len(concepts)), last.reshape(-1, len(concepts)))
    _leave_what_tells(found, index_time, concepts)
    return found


def strongest(contributions: Floats, most: int | None) -> Ints:
    """Return which contributions are the greatest in size, greatest first, shape (rows, concepts or `most`)."""
    return np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :most]


def rest(contributions: Floats, chosen: Ints) -> Floats:
    """Return the sum of each row's contributions that were not chosen, shape (rows,)."""
    left = contributions.copy()
    np.put_along_axis(left, chosen, 0.0, axis=1)
    return np.asarray(left.sum(axis=1))


def drivers_of(
    concepts: Sequence[Concept], chosen: Ints, contributions: Floats, of: Latest
) -> list[tuple[Driver, ...]]:
    """Return the drivers of scores.

    Parameters
    ----------
    concepts : those of the model
    chosen : shape (rows, drivers)
        Which of them to name, in order.
    contributions : shape (rows, concepts)
    of : both of shape (rows, concepts)
    """
    shares, values, times = (np.take_along_axis(each, chosen, axis=1) for each in (contributions, of.value, of.time))
    rows = zip(chosen.tolist(), shares.tolist(), values, times.tolist(), strict=True)
    return [tuple(_driver(concepts[at], *told) for at, *told in zip(*row, strict=True)) for row in rows]


def driver_column(concepts: Sequence[Concept], chosen: Ints, contributions: Floats, of: Latest) -> pl.Series:
    """Return the drivers of many scores as a column of lists.

    Parameters
    ----------
    chosen : shape (rows, drivers)
    contributions : shape (rows, concepts)
    of : both of shape (rows, concepts)
    """
    value = np.take_along_axis(of.value, chosen, axis=1).ravel()
    time = np.take_along_axis(of.time, chosen, axis=1).ravel()
    of_concept = {
        name: pl.Series([getattr(concept, field) for concept in concepts]).gather(chosen.ravel())
        for name, field in OF_CONCEPT.items()
    }
    of_row = {
        "contribution": np.take_along_axis(contributions, chosen, axis=1).ravel(),
        "value": pl.Series(value, nan_to_null=True),
        "date": pl.Series(time).replace({int(ALWAYS): None}).cast(pl.Datetime("us")),
    }
    flat = pl.DataFrame({**of_concept, **of_row}).select(Driver._fields)
    return flat.to_struct("drivers").reshape(chosen.shape).cast(COLUMN)


def _driver(concept: Concept, contribution: float, value: np.float32, time: int) -> Driver:
    return Driver(
        concept=concept.name,
        label_en=concept.label_en,
        label_zh=concept.label_zh,
        contribution=contribution,
        # The shortest decimal of a single, so that a recorded 5.3 reads 5.3.
        value=None if np.isnan(value) else float(str(value)),
        unit=concept.unit,
        date=None if time == ALWAYS else EPOCH + timedelta(microseconds=time),
        modifiable=concept.modifiable,
    )


def _means(slot: Ints, value: Singles, slots: int) -> Singles:
    """Return the mean of the known values of each slot; NaN where there is none."""
    known = ~np.isnan(value)
    number = np.bincount(slot[known], minlength=slots)
    total = np.bincount(slot[known], weights=value[known], minlength=slots)
    mean = np.full(slots, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean.astype(np.float32)


def _leave_what_tells(found: Latest, index_time: Ints, concepts: Sequence[Concept]) -> None:
    """Turn the date of birth into an age, and clear the values of concepts of which only the date means something."""
    for number, concept in enumerate(concepts):
        if concept.name == "age":
            born = found.time[:, number]
            elapsed = (index_time - born.astype(np.float64)) / YEAR
            found.value[:, number] = np.where(born == ALWAYS, np.nan, elapsed)
            found.time[:, number] = ALWAYS
        elif not concept.numeric and concept.kind != "static":
            found.value[:, number] = np.nan
