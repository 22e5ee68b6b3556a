"""Explains the rows of one or more boosters of the same features: what each says, and why the first does."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.shapley.cuts import Code, Codes, Columns, Cuts, cuts_of, fill_codes, fill_seen
from training.shapley.kernel import add_up
from training.shapley.tables import (
    MOST_BYTES,
    MOST_ON_PATH,
    Lookups,
    Sizes,
    base,
    joined,
    lookups,
    plan_of,
    sizes,
)
from training.shapley.threads import share_out
from training.shapley.trees import read_forest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slow:
    """LightGBM's own explanation, for trees too deep for tables.

    Attributes
    ----------
    text : the trees
    group : shape (features,)
    groups : how many there are
    """

    text: str
    group: Ints
    groups: int

    def contributions(self, columns: Columns) -> Floats:
        """Return the sum of each group's contributions, shape (groups, rows)."""
        matrix = np.ascontiguousarray(columns.T, np.float64)
        explained = np.asarray(self._booster.predict(matrix, pred_contrib=True)).reshape(len(matrix), -1)
        told = np.zeros((self.groups, len(matrix)))
        np.add.at(told, self.group, explained[:, :-1].T)
        return told

    @cached_property
    def _booster(self) -> lgb.Booster:
        return lgb.Booster(model_str=self.text)


@dataclass(frozen=True)
class Explainer:
    """The trees of a model, made ready.

    Attributes
    ----------
    cuts : of all forests
    lookups : those that explain the first forest, and give the margins of all
    base : the first forest's margin before any feature is known: the same for every row
    groups : how many groups of features contributions are summed in
    forests : how many forests there are
    slow : what explains the first forest where it is too deep for tables
    """

    cuts: Cuts
    lookups: Lookups
    base: float
    groups: int
    forests: int
    slow: Slow | None = None

    @classmethod
    def of(cls, texts: Sequence[str], group: Ints | None = None) -> "Explainer":
        """Make boosters ready, given in LightGBM's text format.

        Parameters
        ----------
        group : shape (features,)
            The number of each feature's group, from 0; None for each feature by itself.

        Raises
        ------
        WeibingError
            If a tree is linear in its leaves, or splits on categories.
        ValueError
            If a text is damaged.
        """
        forests = [read_forest(text) for text in texts]
        group = np.arange(forests[0].features) if group is None else np.asarray(group, np.int64)
        groups = int(group.max(initial=-1)) + 1
        cuts, splits = cuts_of(forests)
        highest = int(np.iinfo(cuts.code).max)
        plans = [
            plan_of(cut, code, group, margin=groups + number, explained=number == 0, highest=highest)
            for number, (cut, code) in enumerate(splits)
        ]
        too_deep = _too_deep(sizes(forests[0], plans[0]))
        if too_deep:
            log.warning("The trees are explained by LightGBM, many times slower than by tables: %s.", too_deep)
            plans[0] = plans[0]._replace(explained=False)
        made = [lookups(forest, plan, sizes(forest, plan)) for forest, plan in zip(forests, plans, strict=True)]
        slow = Slow(texts[0], group, groups) if too_deep else None
        return cls(cuts, joined(made), base(forests[0]), groups, len(forests), slow)

    def codes(self, columns: Columns) -> Codes:
        """Return where each value lies among the thresholds of its feature.

        Parameters
        ----------
        columns : shape (features, rows), NaN where unknown

        Returns
        -------
        shape (cuts, rows)
        """
        codes = np.empty((len(self.cuts.feature), columns.shape[1]), self._code)
        unknown = int(np.iinfo(self._code).max)
        share_out(columns.shape[1], lambda start, stop: fill_codes(self.cuts, columns, codes, unknown, start, stop))
        return codes

    @cached_property
    def _code(self) -> Code:
        """The type of the codes, which takes longer to find than the codes of one row."""
        return self.cuts.code

    def explained(self, columns: Columns, codes: Codes | None = None) -> tuple[Floats, Floats]:
        """Explain rows on all processors.

        Parameters
        ----------
        columns : shape (features, rows), NaN where unknown
        codes : of the columns, where they are known already

        Returns
        -------
        the contributions of each group to the first forest's margin, shape (groups, rows), and the margin of each
        forest, shape (forests, rows); log-odds
        """
        of_rows = self.codes(columns) if codes is None else codes
        told = self.room(columns.shape[1])
        share_out(columns.shape[1], lambda start, stop: self.tell(columns, of_rows, told, start, stop))
        return told[: self.groups], told[self.groups :]

    def room(self, rows: int) -> Floats:
        """Return room for what :meth:`tell` writes, shape (groups + forests, rows)."""
        return np.empty((self.groups + self.forests, rows))

    def tell(self, columns: Columns, codes: Codes, told: Floats, start: int, stop: int) -> None:
        """Write the contributions of each group, and below them each forest's margin, of the rows ``[start, stop)``."""
        add_up(self.lookups, codes, told, start, stop)
        if self.slow:
            told[: self.groups, start:stop] = self.slow.contributions(columns[:, start:stop])

    def seen(self, columns: Columns, codes: Codes, looked_at: Ints) -> Ints:
        """Return a fingerprint of all that the trees look at in each row, and of some features' values, shape (rows,).

        Parameters
        ----------
        looked_at : features whose values count beside the trees
        """
        seen = np.empty(columns.shape[1], np.uint64)
        share_out(
            columns.shape[1], lambda start, stop: fill_seen(self.cuts, columns, codes, looked_at, seen, start, stop)
        )
        return seen.view(np.int64)


def _too_deep(of: Sizes) -> str | None:
    """Return why a forest is not tabulated, or None where it is."""
    if of.on_path > MOST_ON_PATH:
        return f"a path has {of.on_path} features, and {MOST_ON_PATH} are the most"
    size = of.table * np.dtype(np.float64).itemsize
    if size > MOST_BYTES:
        return f"tables would take {size / 2**20:,.0f} MiB, and {MOST_BYTES >> 20} are the most"
    return None
