"""Contributions of features to a margin: path-dependent TreeSHAP, exact, on the log-odds scale, as fast as prediction.

A tree of 8 leaves has 7 splits, whose outcomes make at most 128 patterns. For each the tree's Shapley values are
computed once; to explain a row is then to see into which pattern it falls in each tree, and to add up what is there.

    trees.py      the trees, read from LightGBM's text
    cuts.py       a value as the number of thresholds below it: a small integer
    tables.py     the Shapley values of every pattern
    kernel.py     adding them up, for blocks of rows
    explainer.py  all of these together
    stored.py     tables kept in a file
    threads.py    rows shared out among the processors

Compiled functions are kept on disk, and `RiskModel.warm` runs each once, so that no request waits for one.

References
----------
Lundberg et al., Nature Machine Intelligence 2020;2:56-67.
"""

from training.shapley.cuts import Codes, Columns
from training.shapley.explainer import Explainer
from training.shapley.stored import read_tables, write_tables
from training.shapley.threads import share_out
from training.shapley.trees import require_plain_trees

__all__ = ["Codes", "Columns", "Explainer", "read_tables", "require_plain_trees", "share_out", "write_tables"]
