"""Scores in points: each item that is answered with yes adds its own, and each that is unknown widens the bounds."""

from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import polars as pl

from training.comparators.base import PointScore, band_rows, weakest
from training.comparators.inputs import (
    Bools,
    Evidence,
    Floats,
    Input,
    all_of,
    answer,
    any_of,
    can_be_no,
    column,
    evidence_from,
    rows_of,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a score.

    Attributes
    ----------
    evidence : what answers it; none where the profile holds nothing of it
    asked : features any of which shows that somebody asked; without them a no is what the records say, not the resident
    """

    name: str
    label_en: str
    label_zh: str
    points: float
    evidence: tuple[Evidence, ...]
    asked: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the profile that it is answered from."""
        return (*(feature for each in self.evidence for feature in each.features), *self.asked)

    @property
    def answerable(self) -> bool:
        """Whether the profile can tell both a yes and a no; of the others it holds a yes at most."""
        return can_be_no(self.evidence)

    def answers(self, profiles: pl.DataFrame) -> Floats:
        """Return 1 for yes, 0 for no, NaN where unknown."""
        return answer(self.evidence, profiles) if self.evidence else np.full(profiles.height, np.nan)

    def certain_no(self, profiles: pl.DataFrame) -> Bools:
        """Return where the answer is no, and was given where it has to be."""
        says_no: Bools = self.answers(profiles) == 0
        if not self.asked:
            return says_no
        return says_no & any_of(~np.isnan(column(profiles, feature)) for feature in self.asked)


def items_of(table: str) -> tuple[Item, ...]:
    """Read the items of a score from a table beside this file; rows of one name are evidence for one item."""
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(table):
        grouped.setdefault(row["item"], []).append(row)
    return tuple(_item(name, rows) for name, rows in grouped.items())


def _item(name: str, rows: list[dict[str, str]]) -> Item:
    first = rows[0]
    evidence = tuple(evidence_from(row) for row in rows if row["feature"])
    asked = tuple(first["asked"].split(";")) if first["asked"] else ()
    return Item(name, first["label_en"], first["label_zh"], float(first["points"]), evidence, asked)


@dataclass(frozen=True, kw_only=True)
class ItemScore(PointScore):
    """The sum of the points of the items; or the total, where a clinic recorded that.

    It is computable where every item is answered that the profile can tell a no of. The others are never known to be a
    no: a yes on record adds its points, and its absence widens the bounds.

    Attributes
    ----------
    table : str
        Its items, beside this file.
    total : str
        The feature with the total as recorded; empty where there is none.
    """

    table: str
    total: str = ""

    @property
    def paper(self) -> str:
        """Where the points are published."""
        return rows_of(self.table)[0]["paper"]

    @property
    def trust(self) -> str:
        """The trust mark of the least sure of its points and bands."""
        return weakest([row["trust"] for row in (*rows_of(self.table), *band_rows(self.name))])

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Its items."""
        return items_of(self.table)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its items, and the total."""
        items = (Input(item.name, item.features) for item in self.items)
        return (*items, *([Input("total", (self.total,))] if self.total else []))

    def computable(self, profiles: pl.DataFrame) -> Bools:
        """Return where the total is recorded, or every item is answered that the profile can tell a no of."""
        answered = all_of(~np.isnan(item.answers(profiles)) for item in self.items if item.answerable)
        return self.meant_for(profiles) & (self._recorded(profiles) | answered)

    def score(self, profiles: pl.DataFrame) -> Floats:
        """Return the points on record, shape (n,); NaN where it is not computable."""
        return np.where(self.computable(profiles), self.bounds(profiles)[0], np.nan)

    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the points on record, and those with every item that is not certainly a no; NaN of others."""
        low = np.sum([item.points * (item.answers(profiles) == 1) for item in self.items], axis=0)
        high = np.sum([item.points * ~item.certain_no(profiles) for item in self.items], axis=0)
        others, recorded = self.not_meant_for(profiles), self._recorded(profiles)
        total = column(profiles, self.total)
        ends = (np.where(recorded, total, end) for end in (low, high))
        low, high = (np.where(others, np.nan, end) for end in ends)
        return low, high

    def _recorded(self, profiles: pl.DataFrame) -> Bools:
        return column(profiles, self.total) > -inf
