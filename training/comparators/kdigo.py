"""The KDIGO heat map: eGFR and albuminuria give one of four levels of risk."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import polars as pl

from training.comparators.base import PointScore, weakest
from training.comparators.inputs import Bools, Floats, Input, all_of, inputs, number, rows_of

TABLE = "kdigo.csv"
AXES = ("egfr", "uacr")


@dataclass(frozen=True, kw_only=True)
class HeatMap(PointScore):
    """0 low, 1 moderate, 2 high, 3 very high."""

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The cells of the map."""
        return rows_of(TABLE)

    @property
    def paper(self) -> str:
        """Where the map is published."""
        return self.rows[0]["paper"]

    @property
    def trust(self) -> str:
        """The trust mark of its least sure cell."""
        return weakest([row["trust"] for row in self.rows])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The two axes."""
        return tuple(inputs()[axis] for axis in AXES)

    def score(self, profiles: pl.DataFrame) -> Floats:
        """Return the level, shape (n,); NaN where an axis is unknown."""
        known = all_of(~np.isnan(inputs()[axis].values(profiles)) for axis in AXES)
        return np.where(known, self.bounds(profiles)[0], np.nan)

    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the lowest and the highest level of the cells in which a resident may lie."""
        egfr, uacr = (inputs()[axis].values(profiles) for axis in AXES)
        levels = [np.where(_may_lie_in(row, egfr, uacr), float(row["level"]), np.nan) for row in self.rows]
        return np.nanmin(levels, axis=0), np.nanmax(levels, axis=0)


def _may_lie_in(row: Mapping[str, str], egfr: Floats, uacr: Floats) -> Bools:
    """Return who may lie in a cell; an unknown axis rules no cell out. 300 mg/g is still A2."""
    of_egfr = (egfr >= number(row["egfr_at_least"], -inf)) & (egfr < number(row["egfr_below"], inf))
    of_uacr = (uacr >= number(row["uacr_at_least"], -inf)) & (uacr < number(row["uacr_below"], inf))
    of_uacr &= (uacr > number(row["uacr_above"], -inf)) & (uacr <= number(row["uacr_at_most"], inf))
    return (of_egfr | np.isnan(egfr)) & (of_uacr | np.isnan(uacr))


KDIGO = HeatMap(
    name="kdigo",
    label_en="KDIGO heat map (0 low, 1 moderate, 2 high, 3 very high)",
    label_zh="KDIGO风险热图（0低 1中 2高 3极高）",
    outcome="kidney failure, cardiovascular events and death",
    horizon_days=None,
)
