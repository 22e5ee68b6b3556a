"""One compiled pass over sorted events fills every look-back.

:func:`fill` lays a resident's usable events (see `translation.py`) out by concept. A look-back of a concept is then one
run of events, found by bisection, and each feature is a formula over its run: the functions below, a few lines each. No
formula sees more than its run, and every one takes the events in order of time, so that a profile does not depend on
who else is filled, nor on how many threads there are.

Times are microseconds since 1970 (UTC); ``ALWAYS`` marks a fact without a time. Events are sorted by resident and time.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled, compiled_lean, compiled_parallel
from features.measures import NIGHT_BEGINS, NIGHT_ENDS, Measure
from features.times import DAY, SECOND, YEAR

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

ALWAYS = np.iinfo(np.int64).min
UNBOUNDED = np.iinfo(np.int64).max

NUMBERS = [int(measure) for measure in Measure]
LATEST, MEAN, MIN, MAX, STANDARD_DEVIATION, SLOPE, COUNT, EVER, ACTIVE, SINCE, SINCE_FIRST, AGE, STATIC = NUMBERS[:13]
SUM, VARIATION, DAYS, SHARE_OF_DAYS, PER_DAY, DAILY_VARIABILITY, NIGHT_TO_DAY, TOTAL = NUMBERS[13:]
OVER_VALUES = (MEAN, MIN, MAX, STANDARD_DEVIATION, VARIATION, SUM)
OVER_TIME = (LATEST, STATIC, SLOPE, PER_DAY, DAILY_VARIABILITY, NIGHT_TO_DAY)

HOUR = 3600 * SECOND

# Residents are handed out in chunks, so that each thread reuses its memory.
CHUNKS = 256
# Rows are filled side by side in so many, small enough for a processor's own memory, and then turned into columns.
ROWS_AT_ONCE = 64


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

    Attributes
    ----------
    wanted : shape (series,)
        Whether a series has slots. Series ``2 * c`` is the dates of concept ``c``, ``2 * c + 1`` its dates and values.
    slot_starts : shape (series + 1,)
        Where the slots of each series begin; a slot is a look-back of a series.
    slot_length : shape (slots,)
        The look-back in microseconds, from a series' longest to its shortest.
    feature_starts : shape (slots + 1,)
        Where the features of each slot begin in the next three.
    column, measure, at_least : shape (features of events,)
    part_starts : shape (totals + 1,)
        Where the parts of each total begin in `part`; both are columns.
    total : shape (totals,)
    part : shape (parts,)
    nothing : shape (features,)
        What each feature is where nothing was recorded.
    zone : microseconds by which local days are ahead of UTC
    """

    wanted: NDArray[np.bool_]
    slot_starts: Small
    slot_length: Ints
    feature_starts: Small
    column: Small
    measure: Small
    at_least: Small
    part_starts: Small
    total: Small
    part: Small
    nothing: Singles
    zone: int


class Run(NamedTuple):
    """The events ``[start, stop)`` of a series, in order of time; one or more."""

    time: Ints
    value: Floats
    start: int
    stop: int


class View(NamedTuple):
    """From where a run is looked at: the `index_time`, the look-back's `length`, and the `zone` of its days."""

    index_time: int
    length: int
    zone: int


class Laid(NamedTuple):
    """One resident's events by series: of each concept the dates, and the dates and values of those that have one.

    `starts`, shape (series + 1,), says where each begins in `time` and `value`; `ends` is for laying them out.
    """

    starts: Ints
    ends: Ints
    time: Ints
    value: Floats


@compiled_lean
def _first_at(time: Ints, start: int, stop: int, moment: int) -> int:
    """The first event of ``[start, stop)`` at a moment or after it, or `stop`."""
    while start < stop:
        middle = (start + stop) // 2
        if time[middle] < moment:
            start = middle + 1
        else:
            stop = middle
    return start


@compiled_lean
def _occasions(run: Run) -> int:
    """How many different times there are."""
    found = 0
    for event in range(run.start, run.stop):
        found += event == run.start or run.time[event] != run.time[event - 1]
    return found


@compiled_lean
def _days(run: Run, zone: int) -> int:
    """How many different local days there are."""
    found, previous = 0, 0
    for event in range(run.start, run.stop):
        day = (run.time[event] + zone) // DAY
        found += found == 0 or day != previous
        previous = day
    return found


@compiled_lean
def _latest(run: Run) -> float:
    """The mean of the values that bear the last time."""
    first = run.stop - 1
    while first > run.start and run.time[first - 1] == run.time[run.stop - 1]:
        first -= 1
    return _mean(Run(run.time, run.value, first, run.stop))


@compiled_lean
def _sum(run: Run) -> float:
    total = 0.0
    for event in range(run.start, run.stop):
        total += run.value[event]
    return total


@compiled_lean
def _mean(run: Run) -> float:
    return _sum(run) / (run.stop - run.start)


@compiled_lean
def _lowest(run: Run) -> float:
    found = run.value[run.start]
    for event in range(run.start + 1, run.stop):
        found = min(found, run.value[event])
    return float(found)


@compiled_lean
def _highest(run: Run) -> float:
    found = run.value[run.start]
    for event in range(run.start + 1, run.stop):
        found = max(found, run.value[event])
    return float(found)


@compiled_lean
def _standard_deviation(run: Run) -> float:
    """The square root of the sum of squares about the mean over the number less one."""
    mean, squares = _mean(run), 0.0
    for event in range(run.start, run.stop):
        squares += (run.value[event] - mean) ** 2
    return float(np.sqrt(squares / (run.stop - run.start - 1)))


@compiled_lean
def _variation(run: Run) -> float:
    mean = _mean(run)
    return _standard_deviation(run) / mean if mean > 0.0 else np.nan


@compiled_lean
def _slope(run: Run) -> float:
    """The slope of the least-squares line, per year; NaN where all values bear the same time."""
    last, middle = run.time[run.stop - 1], 0.0
    if run.time[run.start] == last:
        return np.nan
    for event in range(run.start, run.stop):
        middle += run.time[event] - last
    middle, mean = middle / (run.stop - run.start), _mean(run)
    across, spread = 0.0, 0.0
    for event in range(run.start, run.stop):
        along = run.time[event] - last - middle
        across += along * (run.value[event] - mean)
        spread += along * along
    return across / spread * YEAR


@compiled_lean
def _daily_variability(run: Run, at_least: int, zone: int) -> float:
    """The sample standard deviation of the means of days, one day after the other (Welford 1962)."""
    days, mean, squares, first = 0, 0.0, 0.0, run.start
    for event in range(run.start, run.stop):
        if event + 1 < run.stop and (run.time[event] + zone) // DAY == (run.time[event + 1] + zone) // DAY:
            continue
        above = _mean(Run(run.time, run.value, first, event + 1)) - mean
        days, first = days + 1, event + 1
        mean += above / days
        squares += above * above * (days - 1) / days
    return float(np.sqrt(squares / (days - 1))) if days >= at_least else np.nan


@compiled_lean
def _night_to_day(run: Run, at_least: int, zone: int) -> float:
    """The mean at night over the mean by day; NaN where either has too few values."""
    night, by_day = 0, 0
    total_at_night, total_by_day = 0.0, 0.0
    for event in range(run.start, run.stop):
        of_day = (run.time[event] + zone) % DAY
        if of_day >= NIGHT_BEGINS * HOUR or 0 < of_day < NIGHT_ENDS * HOUR:
            night, total_at_night = night + 1, total_at_night + run.value[event]
        elif of_day != 0:
            by_day, total_by_day = by_day + 1, total_by_day + run.value[event]
    if min(night, by_day) < at_least or total_by_day <= 0.0:
        return np.nan
    return (total_at_night / night) / (total_by_day / by_day)


@compiled_lean
def _over_values(measure: int, run: Run) -> float:
    """One feature that needs numbers alone."""
    if measure == MEAN:
        return _mean(run)
    if measure == MIN:
        return _lowest(run)
    if measure == MAX:
        return _highest(run)
    if measure == STANDARD_DEVIATION:
        return _standard_deviation(run)
    if measure == VARIATION:
        return _variation(run)
    return _sum(run)


@compiled_lean
def _over_time(measure: int, run: Run, at_least: int, zone: int) -> float:
    """One feature that needs numbers and their times."""
    if measure == SLOPE:
        return _slope(run)
    if measure == PER_DAY:
        return _sum(run) / _days(run, zone)
    if measure == DAILY_VARIABILITY:
        return _daily_variability(run, at_least, zone)
    if measure == NIGHT_TO_DAY:
        return _night_to_day(run, at_least, zone)
    return _latest(run)


@compiled_lean
def _over_dates(measure: int, run: Run, view: View) -> float:
    """One feature that asks only whether and when."""
    if measure == COUNT:
        return float(_occasions(run))
    if measure == SINCE:
        return float((view.index_time - run.time[run.stop - 1]) / DAY)
    if measure == SINCE_FIRST:
        return float((view.index_time - run.time[run.start]) / DAY)
    if measure == AGE:
        return float((view.index_time - run.time[run.stop - 1]) / YEAR)
    if measure == DAYS:
        return float(_days(run, view.zone))
    if measure == SHARE_OF_DAYS:
        return min(_days(run, view.zone) / (view.length / DAY), 1.0)
    return 1.0


@compiled_lean
def _feature(measure: int, run: Run, at_least: int, view: View) -> float:
    """One feature of a run of one event or more; NaN is null."""
    if measure in OVER_VALUES:
        return _over_values(measure, run)
    if measure in OVER_TIME:
        return _over_time(measure, run, at_least, view.zone)
    return _over_dates(measure, run, view)


@compiled_lean
def _lay_out(known: Known, resident: int, plan: Plan, laid: Laid) -> None:
    """Lay one resident's events out by series, each in order of time; a series without slots stays empty."""
    starts, ends = laid.starts, laid.ends
    for series in range(len(starts)):
        starts[series] = 0
    for event in range(known.starts[resident], known.starts[resident + 1]):
        dates = 2 * known.concept[event]
        starts[dates + 1] += plan.wanted[dates]
        starts[dates + 2] += plan.wanted[dates + 1] and not np.isnan(known.value[event])
    for series in range(len(ends)):
        ends[series] = starts[series]
        starts[series + 1] += starts[series]
    for event in range(known.starts[resident], known.starts[resident + 1]):
        dates = 2 * known.concept[event]
        if plan.wanted[dates]:
            laid.time[ends[dates]] = known.time[event]
            ends[dates] += 1
        if plan.wanted[dates + 1] and not np.isnan(known.value[event]):
            laid.time[ends[dates + 1]], laid.value[ends[dates + 1]] = known.time[event], known.value[event]
            ends[dates + 1] += 1


@compiled_lean
def _fill_series(laid: Laid, series: int, index: int, plan: Plan, row: Singles) -> None:
    """Fill the features of a series that a resident has events of."""
    begin, end = laid.starts[series], laid.starts[series + 1]
    first = _first_at(laid.time, begin, end, ALWAYS + 1)
    start, stop = first, _first_at(laid.time, first, end, index)
    for slot in range(plan.slot_starts[series], plan.slot_starts[series + 1]):
        length = plan.slot_length[slot]
        if length != UNBOUNDED:
            start = _first_at(laid.time, start, stop, index - length)
        run, view = Run(laid.time, laid.value, start, stop), View(index, length, plan.zone)
        for place in range(plan.feature_starts[slot], plan.feature_starts[slot + 1]):
            measure, column, at_least = plan.measure[place], plan.column[place], plan.at_least[place]
            if first > begin and measure == STATIC:
                row[column] = laid.value[first - 1]
            elif first > begin and measure == EVER and length == UNBOUNDED:
                row[column] = 1.0
            elif stop - start >= at_least:
                row[column] = _feature(measure, run, at_least, view)


@compiled_lean
def _fill_totals(plan: Plan, row: Singles) -> None:
    """Sum, of each total, the parts that are known; NaN where none is."""
    for number in range(len(plan.total)):
        total, known = 0.0, 0
        for place in range(plan.part_starts[number], plan.part_starts[number + 1]):
            part = row[plan.part[place]]
            if not np.isnan(part):
                total, known = total + part, known + 1
        row[plan.total[number]] = total if known else np.nan


@compiled_lean
def _fill_row(laid: Laid, index: int, plan: Plan, row: Singles) -> None:
    for column in range(len(row)):
        row[column] = plan.nothing[column]
    for series in range(len(laid.ends)):
        if laid.starts[series] < laid.starts[series + 1]:
            _fill_series(laid, series, index, plan, row)
    _fill_totals(plan, row)


@compiled
def _room(known: Known, start: int, stop: int, series: int) -> Laid:
    """Room for the events of any of the residents ``[start, stop)``, each of which may be in two series."""
    most = 0
    for resident in range(start, stop):
        most = max(most, known.starts[resident + 1] - known.starts[resident])
    return Laid(
        np.empty(series + 1, np.int64), np.empty(series, np.int64), np.empty(2 * most, np.int64), np.empty(2 * most)
    )


@compiled_lean
def _write(filled: Singles, first: int, rows: int, profile: Singles) -> None:
    """Write the first rows of a block, shape (rows, features), as columns from a row of the profile on."""
    for feature in range(filled.shape[1]):
        for row in range(rows):
            profile[feature, first + row] = filled[row, feature]


@compiled
def fill_residents(start: int, stop: int, known: Known, rows: Rows, plan: Plan, profile: Singles) -> None:
    """Fill the profile rows of the residents ``[start, stop)``; arguments as for :func:`fill`."""
    laid = _room(known, start, stop, len(plan.wanted))
    first, last = rows.starts[start], rows.starts[stop]
    block = np.empty((min(ROWS_AT_ONCE, last - first), len(plan.nothing)), np.float32)
    filled = 0
    for resident in range(start, stop):
        _lay_out(known, resident, plan, laid)
        for row in range(rows.starts[resident], rows.starts[resident + 1]):
            _fill_row(laid, rows.index_time[row], plan, block[filled])
            filled += 1
            if filled == len(block):
                _write(block, row + 1 - filled, filled, profile)
                filled = 0
    _write(block, last - filled, filled, profile)


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
