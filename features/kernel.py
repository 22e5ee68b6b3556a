"""One compiled pass over sorted events fills every look-back.

:func:`fill` walks each resident's usable events (see `translation.py`) once for each index time. For every slot, that
is a (concept, look-back), it keeps the few running numbers named below, from which each feature is one formula.

Times are microseconds since 1970 (UTC); ``ALWAYS`` marks a fact without a time. Events are sorted by resident and time.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled, compiled_parallel
from features.measures import Measure
from features.times import DAY, YEAR

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

ALWAYS = np.iinfo(np.int64).min
UNBOUNDED = np.iinfo(np.int64).max

# The running numbers of a slot. Values are summed as differences from the first one, so that a small spread around a
# large value keeps its digits.
OCCASIONS, LAST_TIME, LAST_SUM, LAST_COUNT, VALUES, FIRST, SUM, SQUARES, LOWEST, HIGHEST = range(10)
FIRST_TIME, TIMES, TIMES_SQUARED, TIMES_VALUES, HOLDS, HELD, FIRST_OCCASION, VALUED_TIME = range(10, 18)
RUNNING = 18

LATEST, MEAN, MIN, MAX, STANDARD_DEVIATION, SLOPE, COUNT, EVER, ACTIVE, SINCE, SINCE_FIRST, AGE, STATIC = (
    int(m) for m in Measure
)

# Residents are handed out in chunks, so that each thread reuses its running numbers.
CHUNKS = 256


class Known(NamedTuple):
    """Usable events of concepts: `starts`, shape (residents + 1,), says where each resident's begin in the others."""

    starts: Ints
    concept: Small
    time: Ints
    value: Singles


class Rows(NamedTuple):
    """The rows of a profile: `starts`, shape (residents + 1,), and the `index_time` of each, shape (rows,)."""

    starts: Ints
    index_time: Ints


class Plan(NamedTuple):
    """A compiled declaration.

    `slot_starts`, shape (concepts + 1,), says where the slots of each concept begin; `slot_length`, shape (slots,), is
    the look-back in microseconds, from a concept's longest to its shortest. `measure`, `slot` and `at_least`, shape
    (features,), make a feature of the running numbers of a slot.
    """

    slot_starts: Small
    slot_length: Ints
    measure: Small
    slot: Small
    at_least: Small


@compiled
def _clear(slot: Floats) -> None:
    slot[:] = 0.0
    slot[HELD] = np.nan


@compiled
def _add(slot: Floats, time: int, index: int, value: float) -> None:
    """Add an event to the running numbers of a slot; events come in order of time."""
    if slot[OCCASIONS] == 0:
        slot[FIRST_OCCASION] = time
    if slot[OCCASIONS] == 0 or slot[LAST_TIME] != time:
        slot[OCCASIONS] += 1
        slot[LAST_TIME] = time
    if np.isnan(value):
        return
    if slot[VALUES] == 0 or slot[VALUED_TIME] != time:
        slot[VALUED_TIME], slot[LAST_SUM], slot[LAST_COUNT] = time, 0.0, 0.0
    if slot[VALUES] == 0:
        slot[FIRST], slot[FIRST_TIME] = value, time
        slot[LOWEST], slot[HIGHEST] = value, value
    slot[LAST_SUM] += value
    slot[LAST_COUNT] += 1
    slot[VALUES] += 1
    slot[LOWEST] = min(slot[LOWEST], value)
    slot[HIGHEST] = max(slot[HIGHEST], value)
    difference, years = value - slot[FIRST], (time - index) / YEAR
    slot[SUM] += difference
    slot[SQUARES] += difference * difference
    slot[TIMES] += years
    slot[TIMES_SQUARED] += years * years
    slot[TIMES_VALUES] += years * difference


@compiled
def _slope(slot: Floats) -> float:
    values = slot[VALUES]
    spread = values * slot[TIMES_SQUARED] - slot[TIMES] * slot[TIMES]
    if slot[VALUED_TIME] == slot[FIRST_TIME] or spread <= 0.0:
        return np.nan
    return float((values * slot[TIMES_VALUES] - slot[TIMES] * slot[SUM]) / spread)


@compiled
def _standard_deviation(slot: Floats) -> float:
    values = slot[VALUES]
    return float(np.sqrt(max(slot[SQUARES] - slot[SUM] * slot[SUM] / values, 0.0) / (values - 1.0)))


@compiled
def _of_values(measure: int, slot: Floats, at_least: int) -> float:
    """One feature that needs numbers; NaN where there are too few."""
    result = np.nan
    if slot[VALUES] < at_least:
        return result
    if measure == LATEST:
        result = slot[LAST_SUM] / slot[LAST_COUNT]
    elif measure == MEAN:
        result = slot[FIRST] + slot[SUM] / slot[VALUES]
    elif measure == MIN:
        result = slot[LOWEST]
    elif measure == MAX:
        result = slot[HIGHEST]
    elif measure == STANDARD_DEVIATION:
        result = _standard_deviation(slot)
    else:
        result = _slope(slot)
    return float(result)


@compiled
def _feature(measure: int, slot: Floats, at_least: int, index: int) -> float:
    """One feature from the running numbers of its slot; NaN is null."""
    result = np.nan
    happened = slot[OCCASIONS] > 0
    if measure == COUNT:
        result = slot[OCCASIONS]
    elif measure == ACTIVE:
        result = 1.0 if happened else 0.0
    elif measure == EVER:
        result = 1.0 if happened or slot[HOLDS] > 0 else 0.0
    elif measure in (SINCE, AGE):
        elapsed = DAY if measure == SINCE else YEAR
        result = (index - slot[LAST_TIME]) / elapsed if happened else np.nan
    elif measure == SINCE_FIRST:
        result = (index - slot[FIRST_OCCASION]) / DAY if happened else np.nan
    elif measure == STATIC:
        result = slot[HELD] if slot[HOLDS] > 0 else _of_values(LATEST, slot, at_least)
    else:
        result = _of_values(measure, slot, at_least)
    return float(result)


@compiled
def _walk(known: Known, resident: int, index: int, plan: Plan, running: Floats) -> None:
    """Add one resident's events before the index time to every slot whose look-back holds them."""
    for event in range(known.starts[resident], known.starts[resident + 1]):
        time = known.time[event]
        if time >= index:
            break
        concept = known.concept[event]
        # A concept's slots go from the longest look-back to the shortest.
        for slot in range(plan.slot_starts[concept], plan.slot_starts[concept + 1]):
            if time == ALWAYS:
                if plan.slot_length[slot] == UNBOUNDED:
                    running[slot, HOLDS], running[slot, HELD] = 1.0, known.value[event]
                break
            if index - time > plan.slot_length[slot]:
                break
            _add(running[slot], time, index, known.value[event])


@compiled
def fill_residents(start: int, stop: int, known: Known, rows: Rows, plan: Plan, profile: Singles) -> None:
    """Fill the profile rows of the residents ``[start, stop)``; arguments as for :func:`fill`."""
    running = np.empty((len(plan.slot_length), RUNNING))
    for resident in range(start, stop):
        for row in range(rows.starts[resident], rows.starts[resident + 1]):
            index = rows.index_time[row]
            for slot in range(len(plan.slot_length)):
                _clear(running[slot])
            _walk(known, resident, index, plan, running)
            for feature in range(len(plan.measure)):
                numbers = running[plan.slot[feature]]
                profile[feature, row] = _feature(plan.measure[feature], numbers, plan.at_least[feature], index)


@compiled_parallel
def fill(known: Known, rows: Rows, plan: Plan, profile: Singles) -> None:
    """Fill the profiles of many residents, in parallel over residents.

    Parameters
    ----------
    known, rows
        Events and rows of the same residents, in the same order.
    plan
        The compiled declaration.
    profile : shape (features, rows)
        Filled in place; NaN is null.
    """
    residents = len(known.starts) - 1
    chunks = min(CHUNKS, residents)
    for chunk in numba.prange(chunks):
        fill_residents(chunk * residents // chunks, (chunk + 1) * residents // chunks, known, rows, plan, profile)
