"""Adding up look-ups: the margins and Shapley values of rows, block by block.

Every row's numbers are added in the order of the look-ups, whichever way it is taken, so that a row alone and among
others gives the same, bit for bit.
"""

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.shapley.cuts import Codes
from training.shapley.tables import NO_LEAVES, NO_MARGIN, Lookups

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# Rows taken side by side: so few that what is added up for them stays in a processor's own memory.
BLOCK = 512
# Fewer rows are taken one by one.
FEW_ROWS = 6


@compiled
def add_up(lookups: Lookups, codes: Codes, told: Floats, start: int, stop: int) -> None:
    """Write what the look-ups say of the rows ``[start, stop)``.

    Parameters
    ----------
    codes : shape (cuts, rows)
    told : shape (outputs, rows)
        The sums: first of the groups, then the margins.
    """
    if stop - start < FEW_ROWS:
        for row in range(start, stop):
            _one_row(lookups, codes, told, row)
        return
    coded = np.zeros((len(codes), BLOCK), codes.dtype)
    sums = np.empty((len(told), BLOCK))
    answers, place = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint16)
    for first in range(start, stop, BLOCK):
        rows = min(BLOCK, stop - first)
        coded[:, :rows] = codes[:, first : first + rows]
        sums[:] = 0.0
        for lookup in range(len(lookups.bits)):
            if lookups.bits[lookup] < 0:
                _compute(lookups, coded, sums, lookup)
            else:
                _answer(lookups, coded, answers, lookup)
                _add(lookups, answers, place, sums, lookup)
        told[:, first : first + rows] = sums[:, :rows]


@compiled
def _answer(lookups: Lookups, coded: Codes, answers: Bytes, lookup: int) -> None:
    """Write the pattern of a look-up's answers for each row of a block."""
    answers[:] = (1 << lookups.bits[lookup]) - 1
    for question in range(lookups.questions[lookup], lookups.questions[lookup + 1]):
        codes, shift, width = coded[lookups.cut[question]], lookups.shift[question], lookups.width[question]
        keeps, every = lookups.keeps[question], np.uint8(0xFF)
        for row in range(BLOCK):
            answers[row] &= every if coded.dtype.type(codes[row] + shift) <= width else keeps


@compiled
def _add(lookups: Lookups, answers: Bytes, place: NDArray[np.uint16], sums: Floats, lookup: int) -> None:
    """Add what a look-up has ready for each row's pattern to the sums of a block."""
    first, last = lookups.slots[lookup], lookups.slots[lookup + 1]
    slots = last - first
    table = lookups.table[lookups.tables[lookup] :]
    if lookups.leaves[lookup] != NO_LEAVES:
        leaf = lookups.leaf[lookups.leaves[lookup] :]
        for row in range(BLOCK):
            place[row] = leaf[answers[row]]
    else:
        for row in range(BLOCK):
            place[row] = answers[row] * slots
    for number in range(slots):
        into = sums[lookups.slot[first + number]]
        for row in range(BLOCK):
            into[row] += table[np.int64(place[row]) + number]
    if lookups.margin[lookup] != NO_MARGIN:
        into, value = sums[lookups.margin[lookup]], lookups.value[lookup]
        every = np.uint8((1 << lookups.bits[lookup]) - 1)
        for row in range(BLOCK):
            into[row] += value if answers[row] == every else 0.0


@compiled
def _compute(lookups: Lookups, coded: Codes, sums: Floats, lookup: int) -> None:
    """Add a leaf with many features on its path to the sums of rows side by side, by its formula."""
    features, rows = -lookups.bits[lookup], coded.shape[1]
    nodes = (features + 1) // 2
    table = lookups.table[lookups.tables[lookup] :]
    factor = table[: 3 * features * nodes].reshape(3, features, nodes)
    satisfied, all_satisfied = _satisfied(lookups, coded, lookup)
    product = np.ones((nodes, rows))
    for i in range(features):
        for node in range(nodes):
            of, yes, no = product[node], factor[0, i, node], factor[1, i, node]
            for row in range(rows):
                of[row] *= yes if satisfied[i, row] else no
    others = _weighted(product, table[3 * features * nodes :])
    for i in range(features):
        own, into = _weighted(product, factor[2, i]), sums[lookups.slot[lookups.slots[lookup] + i]]
        for row in range(rows):
            into[row] += own[row] if satisfied[i, row] else others[row]
    into, value = sums[lookups.margin[lookup]], lookups.value[lookup]
    for row in range(rows):
        into[row] += value if all_satisfied[row] else 0.0


@compiled
def _satisfied(lookups: Lookups, coded: Codes, lookup: int) -> tuple[Bytes, Bytes]:
    """Return of which features, and whether of all, rows satisfy what a leaf asks: 0 or 1."""
    features, rows = -lookups.bits[lookup], coded.shape[1]
    satisfied, all_satisfied = np.ones((features, rows), np.uint8), np.ones(rows, np.uint8)
    for question in range(lookups.questions[lookup], lookups.questions[lookup + 1]):
        codes, shift, width = coded[lookups.cut[question]], lookups.shift[question], lookups.width[question]
        of = satisfied[lookups.keeps[question]]
        for row in range(rows):
            yes = np.uint8(coded.dtype.type(codes[row] + shift) <= width)
            of[row] &= yes
            all_satisfied[row] &= yes
    return satisfied, all_satisfied


@compiled
def _weighted(product: Floats, weight: Floats) -> Floats:
    """Return the weighted sum over the nodes, shape (rows,)."""
    total = np.zeros(product.shape[1])
    for node in range(len(product)):
        for row in range(product.shape[1]):
            total[row] += product[node, row] * weight[node]
    return total


@compiled
def _one_row(lookups: Lookups, codes: Codes, told: Floats, row: int) -> None:
    """Add up one row, look-up by look-up."""
    coded = codes[:, row : row + 1].copy()
    sums = np.zeros((len(told), 1))
    for lookup in range(len(lookups.bits)):
        if lookups.bits[lookup] < 0:
            _compute(lookups, coded, sums, lookup)
            continue
        every = (1 << lookups.bits[lookup]) - 1
        answers = every
        for question in range(lookups.questions[lookup], lookups.questions[lookup + 1]):
            code = codes.dtype.type(coded[lookups.cut[question], 0] + lookups.shift[question])
            answers &= every if code <= lookups.width[question] else np.int64(lookups.keeps[question])
        first, last = lookups.slots[lookup], lookups.slots[lookup + 1]
        if lookups.leaves[lookup] != NO_LEAVES:
            place = lookups.tables[lookup] + np.int64(lookups.leaf[lookups.leaves[lookup] + answers])
        else:
            place = lookups.tables[lookup] + answers * (last - first)
        for number in range(last - first):
            sums[lookups.slot[first + number], 0] += lookups.table[place + number]
        if lookups.margin[lookup] != NO_MARGIN:
            sums[lookups.margin[lookup], 0] += lookups.value[lookup] if answers == every else 0.0
    told[:, row] = sums[:, 0]
