"""Logistic recalibration: a straight line on the log-odds scale from a model's margins to probabilities that hold.

Boosted trees stopped early promise too little at the ends; two numbers, fitted on margins from outside the folds, put
that right, keep the order of the residents and keep contributions additive.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from features.compiled import compiled
from features.errors import WeibingError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# The fit ends when a step moves no row's log-odds by more than this.
TOLERANCE = 1e-10
# Newton's method needs about ten steps for a finite line; with none, each step leads on by about one log-odds.
MOST_STEPS = 100
MOST_HALVINGS = 60
# A loss that is higher by this share is the same loss, summed over many rows.
ROUNDING = 1e-12
# Below this share of determinant to diagonal the rows lie at one margin: no slope.
FLAT = 1e-12


@dataclass(frozen=True)
class Recalibration:
    """The line ``logit(probability) = intercept + slope * margin``."""

    intercept: float
    slope: float

    def logit(self, margin: FloatArray) -> FloatArray:
        """Return the calibrated log-odds of margins, any shape."""
        return self.intercept + self.slope * margin

    def probability(self, margin: FloatArray) -> FloatArray:
        """Return the calibrated probability of margins, any shape."""
        return expit(self.logit(margin))


def logit(probability: FloatArray) -> FloatArray:
    """Return log-odds, any shape; minus and plus infinity at 0 and 1."""
    return special.logit(probability)


def expit(log_odds: FloatArray) -> FloatArray:
    """Return probabilities of log-odds, any shape, without overflow at either end."""
    return special.expit(log_odds)


def recalibrate(margin: FloatArray, outcome: FloatArray, weight: FloatArray) -> Recalibration:
    r"""Fit the line of greatest weighted likelihood.

    Maximises :math:`\sum_i w_i (y_i z_i - \log(1 + e^{z_i}))` with :math:`z_i = a + b m_i` by Newton's method. The
    weighted mean of the resulting probabilities then equals the weighted share of outcomes.

    Parameters
    ----------
    margin : shape (n,), log-odds
        The model's raw output for rows it was not fitted on.
    outcome : shape (n,), 0 or 1
        Whether the outcome came within the horizon; not looked at where `weight` is 0.
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    WeibingError
        If only one kind of outcome is there, or the margins are all the same, separate the outcomes completely, or
        rank them backwards (a slope of 0 or less).
    ValueError
        If the shapes differ, a number is not finite, an outcome is neither 0 nor 1, or a weight is negative.

    References
    ----------
    Cox, Biometrika 1958;45:562-565. Steyerberg, Clinical Prediction Models, 2nd ed. (2019), section 15.3.
    """
    rows = rows_that_count(outcome, weight, margin=margin)
    margin, outcome, weight = (column[rows].astype(np.float64) for column in (margin, outcome, weight))
    _require_signal(margin, outcome)
    centre = float(np.average(margin, weights=weight))
    intercept, slope = logistic_line(margin - centre, outcome, weight, 0.0, 0.0, True)
    _require_order(slope)
    return Recalibration(intercept - slope * centre, slope)


def rows_that_count(outcome: FloatArray, weight: FloatArray, **numbers: FloatArray | IntArray) -> BoolArray:
    """Check columns of the same rows and return which rows have weight, shape (n,).

    Raises
    ------
    ValueError
        If the shapes differ, a weight is negative or not finite, or, where there is weight, an outcome is neither 0
        nor 1 or a number is not finite.
    """
    shapes = {"outcome": outcome.shape, "weight": weight.shape} | {name: of.shape for name, of in numbers.items()}
    if len(set(shapes.values())) > 1 or outcome.ndim != 1:
        raise ValueError(f"The columns must be of the same rows; their shapes are {shapes}.")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("weight must be finite and not negative.")
    rows = np.asarray(weight > 0)
    if not np.isin(outcome[rows], (0, 1)).all():
        raise ValueError("outcome must be 0 or 1 wherever there is weight.")
    broken = [name for name, of in numbers.items() if not np.isfinite(of[rows]).all()]
    if broken:
        raise ValueError(f"{broken[0]} must be finite wherever there is weight.")
    return rows


def _require_signal(margin: FloatArray, outcome: FloatArray) -> None:
    events = int(outcome.sum())
    if events in {0, outcome.size}:
        raise WeibingError(
            f"Recalibration needs rows with and without the outcome, but {events} of {outcome.size} rows with a known "
            "outcome had it. Widen the target's outcome or its horizon, or bring more records."
        )
    if np.ptp(margin) == 0:
        raise WeibingError(
            f"The model gives all {outcome.size} rows the same margin, so there is nothing to recalibrate. "
            "Bring more outcomes or features that tell residents apart."
        )


def _require_order(slope: float) -> None:
    if math.isnan(slope):
        raise WeibingError(
            "The model's margins separate those with the outcome completely from those without, so no finite slope "
            "recalibrates them. Too few outcomes, or a feature that gives the outcome away: look at the target."
        )
    if slope <= 0:
        raise WeibingError(
            f"The model ranks residents backwards: the recalibration slope is {slope:.3f}, and only one above 0 keeps "
            "higher margins at higher risk. The features do not predict this target; bring more outcomes or features."
        )


@compiled
def logistic_line(
    margin: FloatArray, outcome: FloatArray, weight: FloatArray, intercept: float, slope: float, free_slope: bool
) -> tuple[float, float]:
    """Return intercept and slope of greatest weighted likelihood, or two NaN where there is no finite line.

    Newton's method from the given line; a step that overshoots is halved. With `free_slope` false the slope stays as
    given and only the intercept is fitted. `margin` should be about centred: far from 0, rounding spoils the slope.
    """
    lowest, highest = margin.min(), margin.max()
    loss, g0, g1, h00, h01, h11 = _derivatives(margin, outcome, weight, intercept, slope)
    for _ in range(MOST_STEPS):
        d0, d1 = _step(g0, g1, h00, h01, h11, free_slope)
        moved = max(abs(d0 + d1 * lowest), abs(d0 + d1 * highest))
        if math.isnan(moved) or moved <= TOLERANCE:
            return intercept + d0, slope + d1
        most = loss * (1.0 + ROUNDING)
        for _ in range(MOST_HALVINGS):
            a, b = intercept + d0, slope + d1
            loss, g0, g1, h00, h01, h11 = _derivatives(margin, outcome, weight, a, b)
            if loss <= most:
                break
            d0, d1 = d0 / 2.0, d1 / 2.0
        intercept, slope = a, b
    return math.nan, math.nan


@compiled
def _step(g0: float, g1: float, h00: float, h01: float, h11: float, free_slope: bool) -> tuple[float, float]:
    """Newton's step for intercept and slope; NaN where the rows do not determine it."""
    determinant = h00 * h11 - h01 * h01
    if not h00 > 0.0 or (free_slope and not determinant > FLAT * h00 * h11):
        return math.nan, math.nan
    if not free_slope:
        return -g0 / h00, 0.0
    return (h01 * g1 - h11 * g0) / determinant, (h01 * g0 - h00 * g1) / determinant


@compiled
def _derivatives(
    margin: FloatArray, outcome: FloatArray, weight: FloatArray, intercept: float, slope: float
) -> tuple[float, float, float, float, float, float]:
    """Minus the log-likelihood, its gradient and Hessian; the smaller of p and 1 - p keeps its digits."""
    loss = g0 = g1 = h00 = h01 = h11 = 0.0
    for i in range(margin.size):
        if weight[i] > 0.0:
            log_odds = intercept + slope * margin[i]
            small = math.exp(-abs(log_odds))
            likely, unlikely = 1.0 / (1.0 + small), small / (1.0 + small)
            risk, rest = (likely, unlikely) if log_odds >= 0.0 else (unlikely, likely)
            loss += weight[i] * (math.log1p(small) + max(log_odds, 0.0) - outcome[i] * log_odds)
            residual = weight[i] * ((1.0 - outcome[i]) * risk - outcome[i] * rest)
            spread = weight[i] * likely * unlikely
            g0 += residual
            g1 += residual * margin[i]
            h00 += spread
            h01 += spread * margin[i]
            h11 += spread * margin[i] * margin[i]
    return loss, g0, g1, h00, h01, h11
