"""The linear partner of the trees: a ridge logistic regression that keeps to the target's directions.

On few outcomes a straight line often ranks as well as trees, and errs elsewhere, so that the mean of both is better
than either. It is a sum over features, so contributions stay exact, and its signs are bound like the trees' splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from scipy.special import expit

from features.compiled import compiled
from training.shapley import Columns

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
FloatColumn = np.ndarray[tuple[int], np.dtype[np.float64]]
Bools = NDArray[np.bool_]

# What a known value is clipped to, as quantiles of the training rows: one wild value moves nobody's risk far.
CLIPPED_AT = (0.005, 0.995)
# A feature without negative values that is more skewed than this, such as a ratio of concentrations, is taken in logs.
SKEWED = 2.0
MOST_STEPS = 300
# The fit ends when the loss of a step falls by less than this share.
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Scale:
    """How each feature is brought to a common scale; each array of shape (features,).

    ``(log(offset + value) − centre) / spread`` with the value clipped to `low` and `high`, without the logarithm where
    `offset` is NaN. Unknown is 0, the centre.
    """

    low: Floats
    high: Floats
    offset: Floats
    centre: Floats
    spread: Floats

    def __call__(self, matrix: Floats | Singles) -> Floats:
        """Return features on the common scale, shape (rows, features), NaN where unknown."""
        clipped = np.clip(matrix, self.low, self.high).astype(np.float64)
        logged = ~np.isnan(self.offset)
        clipped[:, logged] = np.log(self.offset[logged] + clipped[:, logged])
        return np.asarray((clipped - self.centre) / self.spread)


@dataclass(frozen=True)
class Linear:
    """A linear partner.

    Attributes
    ----------
    intercept : log-odds where every feature is at its centre
    coefficient : shape (features,), log-odds for each step of the scale
    unknown : shape (features,), log-odds where the feature is unknown
    mean : shape (features,), the mean over the training rows of each feature's share of the log-odds
    scale : how features are brought to a common scale
    """

    intercept: float
    coefficient: Floats
    unknown: Floats
    mean: Floats
    scale: Scale

    def __eq__(self, other: object) -> bool:
        """Whether it says the same of every row."""
        return isinstance(other, Linear) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((self.intercept, self.coefficient.tobytes()))

    @property
    def base(self) -> float:
        """The log-odds before anything is told of a resident: the mean over the training rows."""
        return self.intercept + float(self.mean.sum())

    def terms(self, matrix: Floats | Singles) -> Floats:
        """Return each feature's share of the log-odds, shape (rows, features)."""
        columns, lines = np.ascontiguousarray(matrix.T), lines_of([self])
        told = np.empty(columns.shape)
        for feature, values in enumerate(columns):
            fill_term(lines, 0, feature, values, told[feature])
        return np.ascontiguousarray(told.T)

    def margin(self, matrix: Floats | Singles) -> Floats:
        """Return log-odds, shape (rows,)."""
        return self.intercept + _sum_of_each(self.terms(matrix))

    def contributions(self, matrix: Floats | Singles) -> Floats:
        """Return by how much each feature moves the log-odds away from `base`, shape (rows, features).

        These are the Shapley values of a sum: what a feature adds does not depend on the others.
        """
        return self.terms(matrix) - self.mean

    def as_dict(self) -> dict[str, object]:
        """Return its numbers by name, as JSON holds them: null for no logarithm."""
        scale = {of.name: _listed(getattr(self.scale, of.name)) for of in fields(Scale)}
        named = {name: _listed(getattr(self, name)) for name in ("coefficient", "unknown", "mean")}
        return {"intercept": self.intercept, **named, "scale": scale}

    @classmethod
    def from_dict(cls, told: dict[str, object]) -> "Linear":
        """Make it of its numbers by name.

        Raises
        ------
        ValueError
            If one is missing, or is no number.
        """
        try:
            scale = {of.name: _array(told["scale"][of.name]) for of in fields(Scale)}  # type: ignore[index]
            named = {name: _array(told[name]) for name in ("coefficient", "unknown", "mean")}
            return cls(float(told["intercept"]), scale=Scale(**scale), **named)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the linear partner is damaged: {error}") from error


class Lines(NamedTuple):
    """Partners laid out for compiled functions: each array of shape (partners, features) but `intercept`, (partners,).

    `moves` says whether a feature moves the log-odds at all; the others are those of :class:`Linear`.
    """

    intercept: Floats
    moves: Bools
    coefficient: Floats
    unknown: Floats
    mean: Floats
    low: Floats
    high: Floats
    offset: Floats
    centre: Floats
    spread: Floats


def lines_of(partners: Sequence[Linear]) -> Lines:
    """Lay partners of the same features out; there may be none."""
    own = {name: [getattr(each, name) for each in partners] for name in ("coefficient", "unknown", "mean")}
    scale = {of.name: [getattr(each.scale, of.name) for each in partners] for of in fields(Scale)}
    laid = {name: np.atleast_2d(np.array(rows, np.float64)) for name, rows in {**own, **scale}.items()}
    moves = (laid["coefficient"] != 0) | (laid["unknown"] != 0)
    return Lines(np.array([each.intercept for each in partners], np.float64), moves, **laid)


@compiled
def fill_term(lines: Lines, partner: int, feature: int, values: Columns, told: Floats) -> None:
    """Write a feature's share of a partner's log-odds for values of it, each of shape (n,)."""
    low, high = lines.low[partner, feature], lines.high[partner, feature]
    centre, spread = lines.centre[partner, feature], lines.spread[partner, feature]
    coefficient, unknown = lines.coefficient[partner, feature], lines.unknown[partner, feature]
    offset = lines.offset[partner, feature]
    for row in range(len(values)):
        told[row] = min(max(np.float64(values[row]), low), high)
    if not np.isnan(offset):
        for row in range(len(values)):
            told[row] = np.log(offset + told[row])
    for row in range(len(values)):
        told[row] = unknown if np.isnan(values[row]) else (told[row] - centre) / spread * coefficient


@compiled
def _sum_of_each(terms: Floats) -> Floats:
    """Sum each row one term after the other, so that a row alone and among others gives the same, bit for bit."""
    sums = np.zeros(terms.shape[0])
    for row in range(terms.shape[0]):
        for term in terms[row]:
            sums[row] += term
    return sums


def linear_path(
    matrix: Floats | Singles, outcome: Floats, weight: Floats, direction: list[int], ridges: tuple[float, ...]
) -> list[Linear]:
    r"""Fit a linear partner for each ridge penalty.

    Minimises :math:`\sum_i w_i \log(1 + e^{-y_i z_i}) + \frac{\lambda}{2} \lVert\beta\rVert^2` (y of −1 and 1), where a
    feature's coefficient has the sign of its direction. The weights are scaled to a mean of 1.

    Parameters
    ----------
    matrix : shape (n, features), NaN where unknown
    outcome : shape (n,), 0 or 1
    weight : shape (n,), above 0
    direction : shape (features,), 1 for only up, -1 for only down, 0 for free
    ridges : penalties, each above 0, the largest first

    References
    ----------
    le Cessie and van Houwelingen, J R Stat Soc C 1992;41:191-201.
    """
    scale = scale_of(matrix)
    known = ~np.isnan(matrix)
    sometimes = np.asarray(~known.all(axis=0))
    design = np.hstack([np.where(known, scale(matrix), 0.0), ~known[:, sometimes]])
    bounds = _bounds(direction, free=int(sometimes.sum()) + 1)
    fitted, solution = [], np.zeros(design.shape[1] + 1)
    for ridge in ridges:
        solution = _solved(design, outcome, weight / weight.mean(), ridge, bounds, solution)
        fitted.append(_linear(solution, matrix, sometimes, scale))
    return fitted


def scale_of(matrix: Floats | Singles) -> Scale:
    """Return how the features of training rows are brought to a common scale."""
    columns = [_scale_of_one(column[~np.isnan(column)].astype(np.float64)) for column in matrix.T]
    return Scale(*np.array(columns, np.float64).reshape(-1, len(fields(Scale))).T)


def _scale_of_one(known: Floats) -> tuple[float, float, float, float, float]:
    if not len(known):
        return 0.0, 0.0, np.nan, 0.0, 1.0
    low, high = np.quantile(known, CLIPPED_AT)
    clipped = np.clip(known, low, high)
    offset = np.nan
    if low >= 0 and high > low and _skewness(clipped) > SKEWED:
        offset = float(np.quantile(clipped[clipped > 0], 0.05))
        clipped = np.log(offset + clipped)
    return float(low), float(high), offset, float(clipped.mean()), float(clipped.std()) or 1.0


def _skewness(values: Floats) -> float:
    spread = values.std()
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def _solved(
    design: Floats,
    outcome: Floats,
    weight: Floats,
    ridge: float,
    bounds: Bounds,
    start: Floats,
) -> Floats:
    """Return coefficients and, last, the intercept of least penalised loss within the bounds."""

    def loss(solution: FloatColumn) -> tuple[float, FloatColumn]:
        coefficient, z = solution[:-1], design @ solution[:-1] + solution[-1]
        wrong = weight * (expit(z) - outcome)
        value = float((weight * (np.logaddexp(0.0, z) - outcome * z)).sum() + ridge / 2 * coefficient @ coefficient)
        return value, np.append(wrong @ design + ridge * coefficient, wrong.sum())

    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MOST_STEPS, "ftol": TOLERANCE, "maxcor": 20},
    )
    return np.asarray(found.x)


def _bounds(direction: list[int], free: int) -> Bounds:
    lowest = [0.0 if way > 0 else -np.inf for way in direction] + [-np.inf] * free
    highest = [0.0 if way < 0 else np.inf for way in direction] + [np.inf] * free
    return Bounds(lowest, highest)


def _linear(solution: Floats, matrix: Floats | Singles, sometimes: Bools, scale: Scale) -> Linear:
    features = matrix.shape[1]
    unknown = np.zeros(features)
    unknown[sometimes] = solution[features:-1]
    fitted = Linear(float(solution[-1]), solution[:features], unknown, np.zeros(features), scale)
    return Linear(fitted.intercept, fitted.coefficient, unknown, fitted.terms(matrix).mean(axis=0), scale)


def _listed(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _array(values: object) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)  # type: ignore[attr-defined]
