r"""Look-ups: every answer that trees can give, with its Shapley values, computed once.

A *look-up* asks a row a few yes-or-no questions, whose answers form a bit pattern, and has a row of numbers ready for
each pattern. A tree of up to 8 splits is one look-up: its questions are its splits. A larger tree is one look-up for
each leaf: its questions are whether the row is on the leaf's side of each feature on its path.

The Shapley values of a leaf of value v, on whose path the feature i leaves the share :math:`r_i` of the training rows,
and of which a row satisfies what is asked of feature i (:math:`o_i = 1`) or not (0), are

.. math:: v\,(o_i - r_i) \int_0^1 \prod_{j \ne i} \bigl(t\,o_j + (1 - t)\,r_j\bigr)\,dt ,

a polynomial, which Gauss and Legendre's formula integrates exactly. Where a path has so many features that a table
would be too large, the formula is kept ready instead of the pattern's numbers: with :math:`P_n` for the product over
all features at node n and its weight :math:`w_n`, a feature that is satisfied is given
:math:`\sum_n w_n P_n v (1 - r_i) / (t_n + (1 - t_n) r_i)`, and each of the others
:math:`-\sum_n w_n P_n v / (1 - t_n)`.

References
----------
Lundberg et al., Nature Machine Intelligence 2020;2:56-67 (path-dependent TreeSHAP, its algorithm 2).
Owen, Management Science 1972;18(5):64-79 (the integral).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.shapley.cuts import Codes
from training.shapley.trees import Forest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A tree of up to so many splits is one look-up, of a byte.
SPLITS_AT_ONCE = 8
# A leaf with more features on its path is computed rather than looked up, which is faster than a table so large.
MOST_BITS = 6
# The most features on a path, and bytes of all tables: a model beyond is left to LightGBM.
MOST_ON_PATH = 64
MOST_BYTES = 256 << 20
NO_MARGIN = NO_LEAVES = -1


class Lookups(NamedTuple):
    """Look-ups in the order of their trees.

    Attributes
    ----------
    questions : shape (look-ups + 1,)
        Where the questions of each begin.
    cut, shift, width, keeps : shape (questions,)
        The answer is yes where ``code + shift``, wrapping, is at most `width`; where it is no, the pattern's bits that
        are not in `keeps` are cleared. The type of shifts and widths is that of the codes.
    bits : shape (look-ups,)
        Of a pattern. Where it is negative there is no table, but the formula for so many features: `keeps` is then the
        feature that a question asks, and `table` holds what :func:`_formula` says.
    slots : shape (look-ups + 1,)
        Where the numbers of a pattern go: `slot` holds rows of the output. First the groups, then the forests' margins.
    tables : shape (look-ups,)
        Where the table of each begins in `table`: a row a pattern, or a row a leaf.
    leaves : shape (look-ups,)
        Where the leaf of each pattern begins in `leaf`: of a whole tree that only a margin is wanted of, whose values,
        leaf by leaf, take little memory. ``NO_LEAVES`` of all others.
    margin, value : shape (look-ups,)
        What is added to which margin where all answers are yes; ``NO_MARGIN`` where the table holds it.
    """

    questions: Ints
    cut: NDArray[np.int32]
    shift: Codes
    width: Codes
    keeps: NDArray[np.uint8]
    bits: Ints
    slots: Ints
    slot: Ints
    tables: Ints
    table: Floats
    leaves: Ints
    leaf: NDArray[np.uint8]
    margin: Ints
    value: Floats


class Plan(NamedTuple):
    """What a forest's look-ups are made for.

    Attributes
    ----------
    cut, code : shape (splits,)
        The cut of each split, and the code of its threshold.
    group : shape (features,)
        The group of each feature, and the row of the output that its Shapley values go into.
    margin : the row of the output that the forest's margin goes into
    explained : whether Shapley values are wanted, or the margin alone
    highest : the highest code
    node, weight : of Gauss and Legendre's formula, see :func:`_legendre`
    """

    cut: Ints
    code: Ints
    group: Ints
    margin: int
    explained: bool
    highest: int
    node: Floats
    weight: Floats


class Sizes(NamedTuple):
    """How long a forest's look-ups are, and how many features its longest path has."""

    lookups: int
    questions: int
    slots: int
    table: int
    on_path: int
    leaf: int


def plan_of(cut: Ints, code: Ints, group: Ints, *, margin: int, explained: bool, highest: int) -> Plan:
    """Plan the look-ups of a forest; arguments as for :class:`Plan`."""
    return Plan(cut, code, group, margin, explained, highest, *LEGENDRE)


def sizes(forest: Forest, plan: Plan) -> Sizes:
    """Return how long the look-ups of a forest will be."""
    return Sizes(*_lay_out(forest, plan, _empty(Sizes(0, 0, 0, 0, 0, 0), plan), False))


def lookups(forest: Forest, plan: Plan, of: Sizes) -> Lookups:
    """Lay out and tabulate the look-ups of a forest, whose sizes are given."""
    made = _empty(of, plan)
    _lay_out(forest, plan, made, True)
    return made


def joined(parts: list[Lookups]) -> Lookups:
    """Return look-ups one after the other."""
    fields = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Lookups._fields}
    for starts, of in (("questions", "cut"), ("slots", "slot"), ("tables", "table"), ("leaves", "leaf")):
        before = np.cumsum([0, *(len(getattr(part, of)) for part in parts)])
        each = [getattr(part, starts) for part in parts]
        moved = [np.where(at < 0, at, at + more) for at, more in zip(each, before[:-1], strict=True)]
        if starts in {"questions", "slots"}:
            moved = [*(at[:-1] for at in moved), before[-1:]]
        fields[starts] = np.concatenate(moved)
    return Lookups(**fields)


def base(forest: Forest) -> float:
    """Return the mean margin of the training rows: what is said of a resident before anything is known."""
    return float(_base(forest))


def _empty(of: Sizes, plan: Plan) -> Lookups:
    code = np.uint8 if plan.highest <= np.iinfo(np.uint8).max else np.uint16
    return Lookups(
        questions=np.zeros(of.lookups + 1, np.int64),
        cut=np.zeros(of.questions, np.int32),
        shift=np.zeros(of.questions, code),
        width=np.zeros(of.questions, code),
        keeps=np.zeros(of.questions, np.uint8),
        bits=np.zeros(of.lookups, np.int64),
        slots=np.zeros(of.lookups + 1, np.int64),
        slot=np.zeros(of.slots, np.int64),
        tables=np.zeros(of.lookups, np.int64),
        table=np.zeros(of.table),
        leaves=np.full(of.lookups, NO_LEAVES, np.int64),
        leaf=np.zeros(of.leaf, np.uint8),
        margin=np.full(of.lookups, NO_MARGIN, np.int64),
        value=np.zeros(of.lookups),
    )


def _legendre(most: int) -> tuple[Floats, Floats]:
    """Return nodes and weights on 0 to 1 of 1, 2, ... nodes: shape (most + 1, most), padded with 0."""
    nodes, weights = np.zeros((most + 1, most)), np.zeros((most + 1, most))
    for number in range(1, most + 1):
        node, weight = np.polynomial.legendre.leggauss(number)
        nodes[number, :number], weights[number, :number] = (node + 1) / 2, weight / 2
    return nodes, weights


# n nodes are exact for polynomials of degree 2n - 1, and a path of d features has one of degree d - 1.
LEGENDRE = _legendre(MOST_ON_PATH // 2)


class _Tree(NamedTuple):
    """A tree on the way: of each split and leaf (numbered on from the splits) its parent, and on which side it is."""

    number: int
    first: int
    splits: int
    parent: Ints
    on_left: NDArray[np.bool_]


class _Path(NamedTuple):
    """The features on a leaf's path: the `share` of the training rows that each lets by, and what it asks.

    `left` and `right` are the splits, as bits, at which it asks for either side.
    """

    feature: Ints
    share: Floats
    left: Ints
    right: Ints


@compiled
def _lay_out(forest: Forest, plan: Plan, made: Lookups, fill: bool) -> Ints:
    """Lay out the look-ups of all trees, or only say how long they will be."""
    at = np.zeros(6, np.int64)
    for number in range(len(forest.starts) - 1):
        tree = _tree(forest, number)
        if tree.splits <= SPLITS_AT_ONCE:
            _whole_tree(forest, plan, tree, made, at, fill)
        else:
            for leaf in range(tree.splits + 1):
                _one_leaf(forest, plan, tree, leaf, made, at, fill)
    if fill:
        made.questions[-1] = at[1]
        made.slots[-1] = at[2]
    return at


@compiled
def _tree(forest: Forest, number: int) -> _Tree:
    first, splits = forest.starts[number], forest.starts[number + 1] - forest.starts[number]
    parent, on_left = np.full(2 * splits + 1, -1), np.zeros(2 * splits + 1, np.bool_)
    for split in range(splits):
        for side in range(2):
            child = forest.left[first + split] if side == 0 else forest.right[first + split]
            place = child if child >= 0 else splits + ~child
            parent[place] = split
            on_left[place] = side == 0
    return _Tree(number, first, splits, parent, on_left)


@compiled
def _whole_tree(
    forest: Forest,
    plan: Plan,
    tree: _Tree,
    made: Lookups,
    at: Ints,
    fill: bool,
) -> None:
    """Make a tree one look-up: a question for each split, yes for left."""
    slot = _slots(plan, forest.feature[tree.first : tree.first + tree.splits], True)
    patterns = 1 << tree.splits
    rows, leaves = (patterns, 0) if plan.explained else (tree.splits + 1, patterns)
    if fill:
        _begin(made, at, tree.splits, slot)
        for split in range(tree.splits):
            _ask(made, plan, at[1] + split, forest, tree.first + split, True, 0xFF ^ (1 << split))
        table = made.table[at[3] : at[3] + rows * len(slot)].reshape(rows, len(slot))
        if not plan.explained:
            made.leaves[at[0]] = at[5]
        for leaf in range(tree.splits + 1):
            path, value = _path(forest, tree, leaf), forest.value[tree.first + tree.number + leaf]
            if plan.explained:
                _tabulate_paths(table, plan, path, _shapley(path.share, value, plan), slot)
            else:
                table[leaf, 0] = value
            for pattern in range(patterns):
                if _satisfied(path, pattern) == (1 << len(path.feature)) - 1:
                    if plan.explained:
                        table[pattern, -1] = value
                    else:
                        made.leaf[at[5] + pattern] = leaf
    _end(at, tree.splits, len(slot), rows * len(slot), tree.splits)
    at[5] += leaves


@compiled
def _one_leaf(forest: Forest, plan: Plan, tree: _Tree, leaf: int, made: Lookups, at: Ints, fill: bool) -> None:
    """Make a leaf one look-up: a bit for each feature on its path, or one bit where only the margin is wanted."""
    splits, path = _sides(forest, plan, tree, leaf), _path(forest, tree, leaf)
    features = len(path.feature)
    deep = plan.explained and features > MOST_BITS
    slot = plan.group[path.feature] if deep else _slots(plan, path.feature, False)
    bits = -features if deep else (features if plan.explained else 1)
    length = (features + 1) // 2 * (3 * features + 1) if deep else len(slot) << bits
    if fill:
        _begin(made, at, bits, slot)
        for question, split in enumerate(splits):
            which = np.flatnonzero(path.feature == forest.feature[tree.first + split])[0]
            keeps = which if deep else 0xFF ^ (1 << (which if plan.explained else 0))
            _ask(made, plan, at[1] + question, forest, tree.first + split, _goes_left(tree, leaf, split), keeps)
        value = forest.value[tree.first + tree.number + leaf]
        made.margin[at[0]] = plan.margin
        made.value[at[0]] = value
        if deep:
            _formula(made.table[at[3] : at[3] + length], path.share, value, plan)
        elif plan.explained:
            table = made.table[at[3] : at[3] + length].reshape(1 << bits, len(slot))
            _tabulate(table, plan, path, _shapley(path.share, value, plan), slot)
    _end(at, len(splits), len(slot), length, features)


@compiled
def _begin(made: Lookups, at: Ints, bits: int, slot: Ints) -> None:
    made.questions[at[0]] = at[1]
    made.bits[at[0]] = bits
    made.slots[at[0]] = at[2]
    made.slot[at[2] : at[2] + len(slot)] = slot
    made.tables[at[0]] = at[3]


@compiled
def _end(at: Ints, questions: int, slots: int, table: int, on_path: int) -> None:
    at[0] += 1
    at[1] += questions
    at[2] += slots
    at[3] += table
    at[4] = max(at[4], on_path)


@compiled
def _ask(made: Lookups, plan: Plan, question: int, forest: Forest, split: int, left: bool, keeps: int) -> None:
    """Ask whether a row is on one side of a split: unknown, the highest code, wraps to 0 where it goes left."""
    wraps = np.int64(forest.default_left[split])
    codes = plan.highest + 1
    most = plan.code[split] + wraps
    made.cut[question] = plan.cut[split]
    made.shift[question] = wraps if left else (wraps - most - 1) % codes
    made.width[question] = most if left else plan.highest - most - 1
    made.keeps[question] = keeps


@compiled
def _slots(plan: Plan, features: Ints, with_margin: bool) -> Ints:
    """Return the rows of the output that a look-up adds to: the groups of its features, then the margin."""
    found = np.empty(len(features) + 1, np.int64)
    length = 0
    for feature in features:
        group = plan.group[feature]
        if plan.explained and not (found[:length] == group).any():
            found[length] = group
            length += 1
    if with_margin:
        found[length] = plan.margin
        length += 1
    return found[:length]


@compiled
def _sides(forest: Forest, plan: Plan, tree: _Tree, leaf: int) -> Ints:
    """Return the splits of a leaf's path, without those that a narrower one on the same side makes needless."""
    found = np.empty(tree.splits, np.int64)
    length = 0
    place = tree.splits + leaf
    while tree.parent[place] >= 0:
        split, needless = tree.parent[place], False
        for other in range(length):
            a, b = tree.first + found[other], tree.first + split
            same = plan.cut[a] == plan.cut[b] and forest.default_left[a] == forest.default_left[b]
            left = _goes_left(tree, leaf, found[other])
            if same and left == tree.on_left[place]:
                needless = True
                if (plan.code[b] < plan.code[a]) == left:
                    found[other] = split
        if not needless:
            found[length] = split
            length += 1
        place = split
    return found[:length]


@compiled
def _goes_left(tree: _Tree, leaf: int, split: int) -> bool:
    """Whether the path to a leaf goes left at a split that is on it."""
    place = tree.splits + leaf
    while tree.parent[place] != split:
        place = tree.parent[place]
    return bool(tree.on_left[place])


@compiled
def _path(forest: Forest, tree: _Tree, leaf: int) -> _Path:
    """Follow the path of a leaf up."""
    feature, share = np.empty(tree.splits, np.int64), np.ones(tree.splits)
    left, right = np.zeros(tree.splits, np.int64), np.zeros(tree.splits, np.int64)
    length, place = 0, tree.splits + leaf
    count = forest.leaf_count[tree.first + tree.number + leaf]
    while tree.parent[place] >= 0:
        split = tree.parent[place]
        which = 0
        while which < length and feature[which] != forest.feature[tree.first + split]:
            which += 1
        length = max(length, which + 1)
        feature[which] = forest.feature[tree.first + split]
        above = forest.split_count[tree.first + split]
        share[which] *= count / above if above > 0 else 0.0
        if tree.splits <= SPLITS_AT_ONCE:
            side = left if tree.on_left[place] else right
            side[which] |= 1 << split
        count, place = above, split
    return _Path(feature[:length], share[:length], left[:length], right[:length])


@compiled
def _satisfied(path: _Path, pattern: int) -> int:
    """Return which features of a path a pattern of splits satisfies, as bits."""
    satisfied = 0
    for which in range(len(path.feature)):
        if pattern & path.left[which] == path.left[which] and pattern & path.right[which] == 0:
            satisfied |= 1 << which
    return satisfied


@compiled
def _shapley(share: Floats, value: float, plan: Plan) -> Floats:
    """Return the Shapley values of a leaf for each set of features that are satisfied: shape (2 ** features, features).

    Parameters
    ----------
    share : shape (features,)
    """
    features = len(share)
    told = np.zeros((1 << features, features))
    before, after = np.empty(features + 1), np.empty(features + 1)
    nodes = (features + 1) // 2
    for satisfied in range(1 << features):
        for number in range(nodes):
            t = plan.node[nodes, number]
            before[0] = after[features] = 1.0
            for i in range(features):
                before[i + 1] = before[i] * (t * (satisfied >> i & 1) + (1 - t) * share[i])
            for i in range(features - 1, -1, -1):
                after[i] = after[i + 1] * (t * (satisfied >> i & 1) + (1 - t) * share[i])
            for i in range(features):
                told[satisfied, i] += plan.weight[nodes, number] * before[i] * after[i + 1]
        for i in range(features):
            told[satisfied, i] *= value * ((satisfied >> i & 1) - share[i])
    return told


@compiled
def _formula(table: Floats, share: Floats, value: float, plan: Plan) -> None:
    """Write the formula of a leaf: for each node n and feature i, four parts one after the other.

    The factor of i in the product where it is satisfied, and where it is not, shape (features, nodes) each; what the
    product is multiplied with for i where it is satisfied, shape (features, nodes); and for all others, shape (nodes,).
    """
    features = len(share)
    nodes = (features + 1) // 2
    parts = table[: 3 * features * nodes].reshape(3, features, nodes)
    for number in range(nodes):
        t, weight = plan.node[nodes, number], plan.weight[nodes, number]
        for i in range(features):
            parts[0, i, number] = t + (1 - t) * share[i]
            parts[1, i, number] = (1 - t) * share[i]
            parts[2, i, number] = weight * value * (1 - share[i]) / (t + (1 - t) * share[i])
        table[3 * features * nodes + number] = -weight * value / (1 - t)


@compiled
def _tabulate_paths(table: Floats, plan: Plan, path: _Path, told: Floats, slot: Ints) -> None:
    """Add a leaf to the table of a whole tree."""
    for pattern in range(len(table)):
        satisfied = _satisfied(path, pattern)
        for i, feature in enumerate(path.feature):
            table[pattern, _place(slot, plan.group[feature])] += told[satisfied, i]


@compiled
def _tabulate(table: Floats, plan: Plan, path: _Path, told: Floats, slot: Ints) -> None:
    """Fill the table of one leaf."""
    for pattern in range(len(table)):
        for i, feature in enumerate(path.feature):
            table[pattern, _place(slot, plan.group[feature])] += told[pattern, i]


@compiled
def _place(slot: Ints, group: int) -> int:
    place = 0
    while slot[place] != group:
        place += 1
    return place


@compiled
def _base(forest: Forest) -> float:
    total = 0.0
    for number in range(len(forest.starts) - 1):
        tree = _tree(forest, number)
        mean = 0.0
        for leaf in range(tree.splits + 1):
            reached = 1.0
            for share in _path(forest, tree, leaf).share:
                reached *= share
            mean += reached * forest.value[tree.first + tree.number + leaf]
        total += mean
    return total
