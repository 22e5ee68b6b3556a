"""How certain a number is: 95 % intervals from drawing persons, not rows, with replacement."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from training.validate.rows import FloatArray, IntArray

# A percentile interval from fewer of the replicates would hide those that failed, and they fail at the extremes.
SHARE_NEEDED = 0.95
# Each thread holds a few columns of the rows; more threads would bound neither memory nor, memory being slow, time.
MOST_THREADS = 8


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where it is not defined."""

    estimate: float
    lower: float
    upper: float

    def __str__(self) -> str:
        if math.isnan(self.estimate):
            return "not defined"
        if math.isnan(self.lower):
            return f"{self.estimate:.3f} (no interval)"
        return f"{self.estimate:.3f} ({self.lower:.3f} to {self.upper:.3f})"

    def as_dict(self) -> dict[str, float | None]:
        """Return the three numbers by name, as JSON holds them: null where one is not defined."""
        numbers = {"estimate": self.estimate, "lower": self.lower, "upper": self.upper}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()}


@dataclass(frozen=True)
class Bootstrapped:
    """Numbers of all rows, shape (numbers,), and of each replicate, shape (replicates, numbers)."""

    numbers: FloatArray
    drawn: FloatArray

    def estimates(self) -> tuple[Estimate, ...]:
        """Return each number with its percentile interval."""
        return tuple(interval(float(number), drawn) for number, drawn in zip(self.numbers, self.drawn.T, strict=True))

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return the lower and the upper ends of the intervals, each of shape (numbers,)."""
        found = self.estimates()
        return np.array([each.lower for each in found]), np.array([each.upper for each in found])


def bootstrapped(statistic: Callable[[IntArray], FloatArray], persons: int, replicates: int, seed: int) -> Bootstrapped:
    """Call `statistic` with how many times each person is drawn: once each, and then for every replicate.

    A replicate draws as many persons as there are, with replacement. Each has a stream of its own, so the order in
    which threads run does not matter.

    References
    ----------
    Field and Welsh, J R Stat Soc B 2007;69:369-390 (bootstrap of clusters).
    """

    def replicate(stream: np.random.SeedSequence) -> FloatArray:
        drawn = np.random.default_rng(stream).integers(persons, size=persons)
        return statistic(np.bincount(drawn, minlength=persons))

    numbers = statistic(np.ones(persons, dtype=np.int64))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
        streams = np.random.SeedSequence(seed).spawn(replicates)
        drawn = np.array(list(threads.map(replicate, streams)))
    return Bootstrapped(numbers, drawn.reshape(replicates, numbers.size))


def interval(estimate: float, drawn: FloatArray) -> Estimate:
    """Return the percentile interval; none where too many replicates are not defined."""
    finite = drawn[np.isfinite(drawn)]
    if math.isnan(estimate) or finite.size == 0 or finite.size < SHARE_NEEDED * drawn.size:
        return Estimate(estimate, math.nan, math.nan)
    lower, upper = np.quantile(finite, (0.025, 0.975))
    return Estimate(estimate, float(lower), float(upper))
