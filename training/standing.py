"""Where a risk stands among people of the same age and sex: its percentile in the training population.

The training population stays what it is while residents are scored, so that a percentile does not depend on who else
is scored, nor on the order, and is the same live and at night.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SEXES = 2
BAND_YEARS = 5
BANDS = 20
# The least rows of one age and sex that a percentile is worth; with fewer, neighbouring ages are taken in.
FEWEST = 200
# With fewer of one sex at all, nothing is said.
TOO_FEW = 50
QUANTILES = np.linspace(0, 100, 101)


@dataclass(frozen=True)
class Standing:
    """Percentiles of the risk by sex and age.

    Attributes
    ----------
    risk : by sex (men first) and age in steps of five years, the last open, the 101 percentiles of the risk from 0 to
        100; none where too few were seen
    """

    risk: tuple[tuple[tuple[float, ...], ...], ...]

    @classmethod
    def of(cls, age: Floats | Singles, female: Floats | Singles, risk: Floats) -> "Standing":
        """Describe a population.

        Parameters
        ----------
        age : shape (n,), years, NaN where unknown
        female : shape (n,), 1 or 0, NaN where unknown
        risk : shape (n,), probability
        """
        known = ~(np.isnan(age) | np.isnan(female))
        band, sex = _band(np.asarray(age[known], np.float64)), female[known]
        return cls(tuple(_of_one_sex(band[sex == which], risk[known][sex == which]) for which in range(SEXES)))

    def percentile(self, age: Floats | Singles, female: Floats | Singles, risk: Floats) -> Floats:
        """Return which share of those of the same age and sex have a lower risk, ties counted by half.

        Parameters
        ----------
        age, female, risk : shape (n,); as for :meth:`of`

        Returns
        -------
        shape (n,), 0 to 100; NaN where age or sex is unknown, or too few of that sex were seen
        """
        found = np.empty(len(risk))
        _percentiles(self._table, np.asarray(age, np.float64), np.asarray(female, np.float64), risk, found)
        return found

    @cached_property
    def _table(self) -> Floats:
        """The same, shape (sexes, bands, 101), NaN where nothing is said."""
        table = np.full((SEXES, BANDS, len(QUANTILES)), np.nan)
        for sex, bands in enumerate(self.risk):
            for band, quantiles in enumerate(bands):
                table[sex, band, : len(quantiles)] = quantiles
        return table


NOTHING_KNOWN = Standing(((), ()))


def _of_one_sex(band: NDArray[np.int64], risk: Floats) -> tuple[tuple[float, ...], ...]:
    if len(risk) < TOO_FEW:
        return ()
    return tuple(_quantiles(risk[_near(band, each)]) for each in range(BANDS))


def _near(band: NDArray[np.int64], at: int) -> NDArray[np.bool_]:
    """Return who is of an age or, where these are few, of the ages around it, as many bands as it takes."""
    for around in range(BANDS):
        near = np.asarray(np.abs(band - at) <= around)
        if near.sum() >= FEWEST:
            return near
    return np.ones(len(band), np.bool_)


def _quantiles(risk: Floats) -> tuple[float, ...]:
    return tuple(float(each) for each in np.percentile(risk, QUANTILES))


def _band(age: Floats) -> NDArray[np.int64]:
    return np.clip(age // BAND_YEARS, 0, BANDS - 1).astype(np.int64)


@compiled
def _percentiles(table: Floats, age: Floats, female: Floats, risk: Floats, found: Floats) -> None:
    """Write the percentile of each row to `found`."""
    for row in range(len(risk)):
        found[row] = np.nan
        if np.isnan(age[row]) or not (female[row] == 0.0 or female[row] == 1.0):
            continue
        band = min(max(int(age[row] // BAND_YEARS), 0), BANDS - 1)
        quantiles = table[int(female[row]), band]
        if not np.isnan(quantiles[0]):
            found[row] = _place(quantiles, risk[row])


@compiled
def _place(quantiles: Floats, risk: float) -> float:
    """Return where a risk lies among quantiles: between two, or in the middle of those that equal it."""
    below = np.searchsorted(quantiles, risk, side="left")
    not_above = np.searchsorted(quantiles, risk, side="right")
    last = len(quantiles) - 1
    if below < not_above:
        return 100.0 * (below + not_above - 1) / 2 / last
    if below == 0:
        return 0.0
    if below > last:
        return 100.0
    part = (risk - quantiles[below - 1]) / (quantiles[below] - quantiles[below - 1])
    return float(100.0 * (below - 1 + part) / last)


def as_json(standing: Standing) -> list[list[list[float]]]:
    """Return it as JSON holds it."""
    return [[list(quantiles) for quantiles in bands] for bands in standing.risk]


def from_json(told: Sequence[Sequence[Sequence[float]]]) -> Standing:
    """Make it of what JSON holds.

    Raises
    ------
    ValueError
        If it is not of two sexes, each with nothing or all ages.
    """
    if len(told) != SEXES or any(len(bands) not in (0, BANDS) for bands in told):
        raise ValueError("the standing among people of the same age and sex is damaged")
    return Standing(tuple(tuple(tuple(quantiles) for quantiles in bands) for bands in told))
