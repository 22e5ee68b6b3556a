"""How counted values spread: quantiles, the median absolute deviation, and what lies far out."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Makes the median absolute deviation of a normal distribution its standard deviation.
NORMAL = 1.4826
# Above this ratio of the upper to the lower half, values are judged by their logarithms, as most laboratory values are.
SKEWED = 1.5


class Counted(NamedTuple):
    """Distinct values in ascending order, and how often each came; both of shape (values,)."""

    value: Floats
    events: Ints

    @classmethod
    def of(cls, frame: pl.DataFrame, value: str = "value") -> "Counted":
        """Sum the counts of a frame's column `value`, nulls aside."""
        summed = frame.drop_nulls(value).group_by(value).agg(pl.col("events").sum()).sort(value)
        return cls(summed[value].to_numpy().astype(np.float64), summed["events"].to_numpy().astype(np.int64))

    @property
    def total(self) -> int:
        """How many values there are."""
        return int(self.events.sum())

    def quantile(self, share: float) -> float:
        """Return the value below or at which that share of the values lies."""
        place = np.searchsorted(np.cumsum(self.events), share * self.total)
        return float(self.value[min(int(place), len(self.value) - 1)])

    def where(self, keep: NDArray[np.bool_]) -> "Counted":
        """Return some of the values."""
        return Counted(self.value[keep], self.events[keep])


class Bounds(NamedTuple):
    """Where most values lie: the median, and so many robust standard deviations on either side."""

    median: float
    low: float
    high: float


def bounds(values: Counted, deviations: float) -> Bounds | None:
    """Return how far values go that are not outliers; None where half of the values are the same.

    Parameters
    ----------
    deviations
        How many times 1.4826 median absolute deviations around the median are not yet far out.
    """
    median = values.quantile(0.5)
    upper, lower = values.quantile(0.9) - median, median - values.quantile(0.1)
    logarithmic = values.value[0] > 0 and upper > SKEWED * lower
    scaled = np.log(values.value) if logarithmic else values.value
    centre = np.log(median) if logarithmic else median
    distance = np.abs(scaled - centre)
    order = np.argsort(distance, kind="stable")
    deviation = NORMAL * Counted(distance[order], values.events[order]).quantile(0.5)
    if deviation == 0.0:
        return None
    low, high = centre - deviations * deviation, centre + deviations * deviation
    return Bounds(median, *((float(np.exp(low)), float(np.exp(high))) if logarithmic else (float(low), float(high))))
