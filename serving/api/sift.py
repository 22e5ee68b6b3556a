"""Which of a resident's events the engine is to see, and which it would leave out: one compiled pass."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.kernel import ALWAYS

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Small = NDArray[np.int32]

# Of an event: all is well; it lies at the index time or later; its code means nothing; it lies before birth; the engine
# may not use its value.
WELL, LATER, UNKNOWN, EARLY, ODD = range(5)
NO_PAIR = -1


class Senses(NamedTuple):
    """What is asked of the events of each (code, unit) pair before they are used, each of shape (pairs,).

    Attributes
    ----------
    birth : whether they tell of birth
    low, high : between which all is well with a value
    bare : whether all is well without a value
    """

    birth: Bools
    low: Floats
    high: Floats
    bare: Bools


class Sifted(NamedTuple):
    """The events that the engine is to see, in order of time, those of the same time as they came; and what of all.

    `pair`, `time` and `number` are of shape (events to see,), `standing`, one of the above, of shape (events,).
    """

    pair: Small
    time: Ints
    number: Singles
    standing: NDArray[np.uint8]


@compiled
def sift(pair: Small, time: Ints, value: Floats, index_time: int, earliest: int, senses: Senses) -> Sifted:
    """Sift a resident's events; a birth at the index time or later is seen, since nobody is at risk before it.

    Parameters
    ----------
    pair : the pair that each event bears, or ``NO_PAIR``
    time : microseconds, or ``ALWAYS``
    value : NaN where there is none
    earliest : before which no birth counts
    """
    standing, seen = np.empty(len(pair), np.uint8), np.empty(len(pair), np.bool_)
    born = earliest
    for event in range(len(pair)):
        if pair[event] != NO_PAIR and senses.birth[pair[event]] and time[event] < index_time:
            born = max(born, time[event])
    for event in range(len(pair)):
        standing[event] = _standing(pair[event], time[event], value[event], index_time, born, senses)
        birth = pair[event] != NO_PAIR and senses.birth[pair[event]]
        seen[event] = standing[event] in (WELL, ODD) or (standing[event] == LATER and birth)
    places = np.flatnonzero(seen)
    if not _ascending(time, places):
        places = places[np.argsort(time[places], kind="mergesort")]
    return Sifted(pair[places], time[places], value[places].astype(np.float32), standing)


def warm() -> None:
    """Sift nothing once, so that no caller waits for a compiler."""
    none = np.empty(0, np.int64)
    senses = Senses(none.astype(np.bool_), none.astype(np.float64), none.astype(np.float64), none.astype(np.bool_))
    sift(none.astype(np.int32), none, none.astype(np.float64), 0, 0, senses)


@compiled
def _standing(pair: int, time: int, value: float, index_time: int, born: int, senses: Senses) -> int:
    if time >= index_time:
        return LATER
    if pair == NO_PAIR:
        return UNKNOWN
    if time != ALWAYS and time < born:
        return EARLY
    if senses.bare[pair] if np.isnan(value) else senses.low[pair] <= value <= senses.high[pair]:
        return WELL
    return ODD


@compiled
def _ascending(time: Ints, places: Ints) -> bool:
    ascending = True
    for at in range(1, len(places)):
        ascending &= time[places[at]] >= time[places[at - 1]]
    return ascending
