"""Where a value lies among the thresholds of its feature: all that trees look at, as a small integer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.shapley.trees import NAN, ZERO, Forest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.float32 | np.float64]
Codes = NDArray[np.uint8 | np.uint16]
Code = type[np.uint8] | type[np.uint16]

# LightGBM takes what is this near to zero for zero.
NEARLY_ZERO = float(np.float32(1e-35))
# The highest code is for unknown; the one before it is never a split's, so that adding 1 to a code does not wrap.
FEWEST_SPARE = 2
# Values compared side by side; fewer, or with more thresholds than this, are searched for one by one.
BLOCK = 512
FEW_VALUES, MANY_THRESHOLDS = 8, 1000


class Cuts(NamedTuple):
    """The thresholds of the features that trees split.

    A feature has a cut for each way in which its splits take what is missing. The code of a value is the number of
    thresholds below it, so that ``value <= threshold[k]`` where ``code <= k``; the highest code of its type is unknown.

    Attributes
    ----------
    feature, missing : shape (cuts,)
    starts : shape (cuts + 1,)
        Where each cut's thresholds begin.
    threshold : ascending and distinct in each cut
    """

    feature: Ints
    missing: Ints
    starts: Ints
    threshold: Floats

    @property
    def code(self) -> Code:
        """The type of the codes."""
        most = int(np.diff(self.starts).max(initial=0))
        return np.uint8 if most <= np.iinfo(np.uint8).max + 1 - FEWEST_SPARE else np.uint16


def cuts_of(forests: Sequence[Forest]) -> tuple[Cuts, list[tuple[Ints, Ints]]]:
    """Lay out the thresholds of all forests.

    Returns
    -------
    the cuts, and for each forest the cut of each of its splits, and the code of its threshold
    """
    splits = [np.column_stack([f.feature, f.missing]) for f in forests]
    pairs, cut_of = np.unique(np.concatenate(splits), axis=0, return_inverse=True)
    cut_of = cut_of.reshape(-1)
    threshold = np.concatenate([f.threshold for f in forests])
    order = np.lexsort((threshold, cut_of))
    new = np.ones(len(order), np.bool_)
    new[1:] = (threshold[order][1:] != threshold[order][:-1]) | (np.diff(cut_of[order]) != 0)
    starts = np.searchsorted(cut_of[order][new], np.arange(len(pairs) + 1))
    code = np.empty(len(order), np.int64)
    code[order] = np.cumsum(new) - 1 - starts[cut_of[order]]
    ends = np.cumsum([len(f.feature) for f in forests])[:-1]
    cuts = Cuts(pairs[:, 0].copy(), pairs[:, 1].copy(), starts, threshold[order][new])
    return cuts, list(zip(np.split(cut_of, ends), np.split(code, ends), strict=True))


@compiled
def fill_codes(cuts: Cuts, columns: Columns, codes: Codes, unknown: int, start: int, stop: int) -> None:
    """Write the codes of the rows ``[start, stop)``: of `columns`, shape (features, rows), shape (cuts, rows)."""
    if stop - start < FEW_VALUES:
        for row in range(start, stop):
            _fill_codes_of_one(cuts, columns, codes, unknown, row)
        return
    value, below = np.empty(BLOCK), np.empty(BLOCK, codes.dtype)
    for cut in range(len(cuts.feature)):
        column, missing = columns[cuts.feature[cut]], cuts.missing[cut]
        threshold = cuts.threshold[cuts.starts[cut] : cuts.starts[cut + 1]]
        for first in range(start, stop, BLOCK):
            rows = min(BLOCK, stop - first)
            for row in range(rows):
                value[row] = column[first + row]
                if abs(value[row]) <= NEARLY_ZERO or (missing != NAN and np.isnan(value[row])):
                    value[row] = 0.0
            _fill_below(threshold, value[:rows], below)
            for row in range(rows):
                codes[cut, first + row] = unknown if _no_value(value[row], missing) else below[row]


@compiled
def _fill_codes_of_one(cuts: Cuts, columns: Columns, codes: Codes, unknown: int, row: int) -> None:
    for cut in range(len(cuts.feature)):
        value, missing = np.float64(columns[cuts.feature[cut], row]), cuts.missing[cut]
        if abs(value) <= NEARLY_ZERO or (missing != NAN and np.isnan(value)):
            value = np.float64(0.0)
        if _no_value(value, missing):
            codes[cut, row] = unknown
        else:
            codes[cut, row] = _below(cuts.threshold, cuts.starts[cut], cuts.starts[cut + 1], value)


@compiled
def _no_value(value: float, missing: int) -> bool:
    return bool(np.isnan(value) or (missing == ZERO and value == 0))


@compiled
def _fill_below(threshold: Floats, value: Floats, below: Codes) -> None:
    """Write how many thresholds lie below each value: of many values by comparing all with all, side by side."""
    if len(threshold) > MANY_THRESHOLDS:
        for row in range(len(value)):
            below[row] = _below(threshold, 0, len(threshold), value[row])
        return
    below[: len(value)] = 0
    one, none = below.dtype.type(1), below.dtype.type(0)
    for bound in threshold:
        for row in range(len(value)):
            below[row] += one if bound < value[row] else none


@compiled
def _below(threshold: Floats, first: int, last: int, value: float) -> int:
    """Return how many thresholds of ``[first, last)`` lie below a value, with no branch that is hard to foresee."""
    low, length = first, last - first
    while length > 1:
        half = length // 2
        low += half * (threshold[low + half - 1] < value)
        length -= half
    return low - first + (length == 1 and threshold[low] < value)


@compiled
def fill_seen(
    cuts: Cuts,
    columns: Columns,
    codes: Codes,
    looked_at: Ints,
    seen: NDArray[np.uint64],
    start: int,
    stop: int,
) -> None:
    """Write a fingerprint of the rows ``[start, stop)``: of their codes, and of some features' values.

    Where a cut takes NaN for zero, whether the value is known is looked at as well: how much of a resident is known
    depends on it.
    """
    seen[start:stop] = np.uint64(0x9E3779B97F4A7C15)
    for cut in range(len(cuts.feature)):
        column, blurred = columns[cuts.feature[cut]], cuts.missing[cut] != NAN
        for row in range(start, stop):
            told = np.uint64(codes[cut, row])
            if blurred and np.isnan(column[row]):
                told |= np.uint64(1 << 32)
            seen[row] = _mixed(seen[row], told)
    value = np.empty(1)
    bits = value.view(np.uint64)
    for feature in looked_at:
        for row in range(start, stop):
            # Zero has two signs, and NaN many forms, that say the same.
            value[0] = columns[feature, row] + 0.0
            seen[row] = _mixed(seen[row], bits[0] if not np.isnan(value[0]) else np.uint64(1))


@compiled
def _mixed(seen: np.uint64, told: np.uint64) -> np.uint64:
    both = (seen ^ told) * np.uint64(0xD6E8FEB86659FD93)
    return np.uint64(both ^ (both >> np.uint64(32)))
