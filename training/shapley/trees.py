"""The trees of a booster, read from its text: what splits where, and how many training rows went which way."""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.errors import WeibingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# LightGBM's bits of a split's `decision_type`, and its kinds of missing: none, zero (and NaN), NaN.
CATEGORICAL, DEFAULT_LEFT, MISSING_SHIFT, MISSING_MASK = 1, 2, 2, 3
NOTHING, ZERO, NAN = 0, 1, 2


class Forest(NamedTuple):
    """Trees one after the other; a tree of n splits has n + 1 leaves.

    Attributes
    ----------
    starts : shape (trees + 1,)
        Where the splits of each tree begin; its leaves begin by its number further on.
    feature, threshold, default_left, missing : shape (splits,)
        A row goes left where its value is at most the threshold, or where it counts as missing and `default_left`.
    left, right : shape (splits,)
        The child's number in its tree; of a leaf, the complement of its number.
    value : shape (leaves,), log-odds
    split_count, leaf_count : training rows that came by
    features : how many features there are
    """

    starts: Ints
    feature: Ints
    threshold: Floats
    default_left: Bools
    missing: Ints
    left: Ints
    right: Ints
    value: Floats
    split_count: Floats
    leaf_count: Floats
    features: int


def read_forest(text: str) -> Forest:
    """Read a booster of one margin.

    Raises
    ------
    WeibingError
        If a tree is linear in its leaves, or splits on categories.
    ValueError
        If the text is damaged, or its trees are not summed into one margin.
    """
    require_plain_trees(text)
    head = text.partition("\nTree=")[0]
    if "\naverage_output" in head or "num_tree_per_iteration=1\n" not in head:
        raise ValueError("the trees are not summed into one margin")
    leaves = _ints(text, "num_leaves")
    if "\nend of trees" not in text or len(leaves) != len(_ints(head + "\n", "tree_sizes")):
        raise ValueError("the trees are damaged: some are missing")
    decision = _ints(text, "decision_type")
    forest = Forest(
        starts=np.append(0, np.cumsum(leaves - 1)),
        feature=_ints(text, "split_feature"),
        threshold=_floats(text, "threshold"),
        default_left=(decision & DEFAULT_LEFT) != 0,
        missing=(decision >> MISSING_SHIFT) & MISSING_MASK,
        left=_ints(text, "left_child"),
        right=_ints(text, "right_child"),
        value=_floats(text, "leaf_value"),
        split_count=_floats(text, "internal_count"),
        leaf_count=_floats(text, "leaf_count"),
        features=int(_ints(head + "\n", "max_feature_idx")[0]) + 1,
    )
    _require_whole(forest, trees=len(leaves), leaves=int(leaves.sum()))
    return forest


def require_plain_trees(text: str) -> None:
    """Refuse trees that cannot be explained by what is on which side of a threshold.

    Raises
    ------
    WeibingError
        Naming the first feature that is split into categories, or saying that leaves are linear.
    """
    if "\nis_linear=1\n" in text:
        raise WeibingError(
            "The trees are linear in their leaves, and cannot be explained exactly. Train without linear_tree."
        )
    for tree in re.split(r"\nTree=", text)[1:] if re.search(r"^num_cat=[1-9]", text, re.MULTILINE) else ():
        decision = _ints(tree, "decision_type")
        if (decision & CATEGORICAL).any():
            number = _ints(tree, "split_feature")[(decision & CATEGORICAL) != 0][0]
            raise WeibingError(
                f"The trees split {_names(text)[number]} into categories, and only numbers can be explained exactly."
                " Train without categorical_feature: make it a feature for each category."
            )


def _names(text: str) -> list[str]:
    found = re.search(r"^feature_names=(.*)$", text, re.MULTILINE)
    return found[1].split(" ") if found else []


def _floats(text: str, key: str) -> Floats:
    """Return the numbers of all lines of a key, one after the other."""
    lines = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return np.array(" ".join(lines).split(), np.float64)


def _ints(text: str, key: str) -> Ints:
    return _floats(text, key).astype(np.int64)


def _require_whole(forest: Forest, trees: int, leaves: int) -> None:
    splits = leaves - trees
    of_splits = (forest.feature, forest.threshold, forest.missing, forest.left, forest.right, forest.split_count)
    of_leaves = (forest.value, forest.leaf_count)
    if any(len(each) != splits for each in of_splits) or any(len(each) != leaves for each in of_leaves):
        raise ValueError("the trees are damaged: a line is missing or cut short")
    if splits and not 0 <= forest.feature.min() <= forest.feature.max() < forest.features:
        raise ValueError("the trees are damaged: they split on a feature that is not there")
    tree = np.repeat(np.arange(trees), np.diff(forest.starts))
    own = np.diff(forest.starts)[tree]
    position = np.arange(splits) - forest.starts[:-1][tree]
    for child in (forest.left, forest.right):
        if not (((child > position) & (child < own)) | ((child < 0) & (~child <= own))).all():
            raise ValueError("the trees are damaged: a branch leads nowhere")
