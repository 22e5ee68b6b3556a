r"""The smooth calibration curve, and how far it lies from the diagonal.

The curve is a logistic regression of the outcome on a restricted cubic spline of the risk's log-odds,

.. math:: \operatorname{logit} P(y = 1) = \beta_0 + \beta_1 x + \sum_j \beta_{j+1} s_j(x), \quad
    x = \operatorname{logit}(\text{risk}),

of greatest weighted likelihood. Austin and Steyerberg (2019) draw it with loess, and Austin, Harrell and van Klaveren
(2020) with restricted cubic splines. The spline is taken here, since it stays between 0 and 1; it bends nowhere beyond
the outer knots, where outcomes are few; it takes censoring weights as they are; and one pass over the rows fits it, so
that hundreds of replicates cost little. With some 120 outcomes it lies as near to the diagonal as loess does for risks
that are true, and where curves bend, nearer to them. What it cannot follow is a bend beyond the outer knots: E90 shows
that first.

Its five knots lie at the weighted 5th, 27.5th, 50th, 72.5th and 95th percentile of the log-odds of all rows (Harrell
2015, section 2.4.6), and stay there in every replicate. Where knots coincide, because few risks differ, the curve has
fewer terms: a straight line with two different risks, the observed share with one.

Risks less than 1/256 of a log-odds apart share a level and are one point of the curve, which then costs no more for
millions of rows. No risk moves by more than 0.001, and the mean of a level stays.

References
----------
Austin and Steyerberg, Statistics in Medicine 2019;38:4051-4065. Austin, Harrell and van Klaveren, Statistics in
Medicine 2020;39:2714-2742. Harrell, Regression Modeling Strategies, 2nd ed. (2015), sections 2.4.5 and
2.4.6.
"""

import math
from dataclasses import dataclass

import numpy as np

from features.compiled import compiled
from training.calibrate import MOST_HALVINGS, MOST_STEPS, ROUNDING, expit
from training.validate.bootstrap import bootstrapped
from training.validate.rows import (
    FloatArray,
    IntArray,
    checked,
    counted,
    defined,
    log_odds_of,
    totals_by_group,
    weighted_quantile,
)

KNOTS = np.array([0.05, 0.275, 0.5, 0.725, 0.95])
LEVELS_A_LOG_ODDS = 256
# The curve is drawn between these shares of the weight: beyond, few rows bear it.
ENDS = np.array([0.01, 0.99])
POINTS = 101
# The fit ends when a step gains less log-likelihood than this for each unit of weight. Where risk separates the
# outcomes no finite curve fits best, but the curve's heights still settle, at 0 and 1.
SAME_LOSS = 1e-10
# Keeps a step finite where the rows do not determine it; it does not move where the steps lead.
DAMPING = 1e-12
_MEDIAN_AND_90TH = np.array([0.5, 0.9])


@dataclass(frozen=True)
class SmoothCalibration:
    """The observed share at a risk, each array of shape (points,); `lower` and `upper` are 95 % bounds at each risk.

    The risks are evenly spaced on the log-odds scale, from the 1st to the 99th weighted percentile. NaN where the
    rows with weight lack one kind of outcome.
    """

    risk: FloatArray
    observed: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class CalibrationDistance:
    """How far the smooth calibration curve lies from the diagonal over the rows; 0 is perfect.

    Attributes
    ----------
    ici : float
        Integrated calibration index: the weighted mean distance.
    e50, e90 : float
        The weighted median and 90th percentile of the distance.
    """

    ici: float
    e50: float
    e90: float


@dataclass(frozen=True)
class Levels:
    """Rows grouped by nearly equal risk; `of_row` has shape (n,), `basis` (levels, terms), the others (levels,)."""

    of_row: IntArray
    risk: FloatArray
    log_odds: FloatArray
    weight: FloatArray
    basis: FloatArray
    knots: FloatArray


def smooth_calibration(
    outcome: FloatArray,
    risk: FloatArray,
    weight: FloatArray,
    person: IntArray,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> SmoothCalibration:
    """Draw the smooth calibration curve with 95 % percentile intervals by person, at each risk for itself.

    Parameters and replicates as in `validate`.

    Raises
    ------
    ValueError
        If the shapes differ, an outcome is neither 0 nor 1, a risk is outside 0 to 1, or a weight is negative.

    References
    ----------
    Austin, Harrell and van Klaveren, Statistics in Medicine 2020;39:2714-2742.
    """
    rows = counted(outcome, risk, weight, person=person)
    outcome, risk, weight = checked(outcome, risk, weight)
    persons, of_row = np.unique(person[rows], return_inverse=True)
    levels = levels_of(risk, weight)
    points = _points(levels)
    basis = _basis(points, levels.knots)

    def heights(times: IntArray) -> FloatArray:
        totals = totals_by_group(levels.of_row, outcome, weight * times[of_row], levels.risk.size)
        return expit(basis @ _curve(levels.basis, totals))

    found = bootstrapped(heights, persons.size, replicates, seed)
    return SmoothCalibration(expit(points), found.numbers, *found.bounds())


def calibration_distance(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> CalibrationDistance:
    """Mean, median and 90th percentile of the distance between the smooth calibration curve and the risk.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, a risk is outside 0 to 1, or the rows with weight lack one kind of outcome.

    References
    ----------
    Austin and Steyerberg, Statistics in Medicine 2019;38:4051-4065.
    """
    outcome, risk, weight = checked(outcome, risk, weight)
    found = distances(levels_of(risk, weight), outcome, weight)
    defined("The integrated calibration index", float(found[0]))
    return CalibrationDistance(*found.tolist())


def distances(levels: Levels, outcome: FloatArray, weight: FloatArray) -> FloatArray:
    """Return ICI, E50 and E90 under the weights of a replicate; NaN without one kind of outcome."""
    totals = totals_by_group(levels.of_row, outcome, weight, levels.risk.size)
    apart = np.abs(expit(levels.basis @ _curve(levels.basis, totals)) - levels.risk)
    if np.isnan(apart).any() or not apart.size:
        return np.full(3, math.nan)
    of_level = totals.sum(axis=0)
    return np.append(np.average(apart, weights=of_level), weighted_quantile(apart, of_level, _MEDIAN_AND_90TH))


def levels_of(risk: FloatArray, weight: FloatArray) -> Levels:
    """Group rows of nearly equal risk, place the knots and lay out the spline."""
    log_odds = log_odds_of(risk)
    of_row = np.unique(np.floor(log_odds * LEVELS_A_LOG_ODDS), return_inverse=True)[1]
    total = np.bincount(of_row, weights=weight).astype(np.float64)
    mean_risk, mean_log_odds = (np.bincount(of_row, weights=weight * each) / total for each in (risk, log_odds))
    knots = _knots(mean_log_odds, total)
    return Levels(of_row, mean_risk, mean_log_odds, total, _basis(mean_log_odds, knots), knots)


def _knots(log_odds: FloatArray, weight: FloatArray) -> FloatArray:
    """Return those of the knots that differ; none where all rows share a level."""
    return np.unique(weighted_quantile(log_odds, weight, KNOTS)) if log_odds.size > 1 else np.empty(0)


def _points(levels: Levels) -> FloatArray:
    """Return the log-odds at which the curve is drawn."""
    if not levels.risk.size:
        return np.empty(0)
    lowest, highest = weighted_quantile(levels.log_odds, levels.weight, ENDS).tolist()
    return np.unique(np.linspace(lowest, highest, POINTS))


def _basis(log_odds: FloatArray, knots: FloatArray) -> FloatArray:
    """Return 1, the log-odds, and the terms of the restricted cubic spline, shape (n, terms)."""
    terms = [np.ones(log_odds.size)]
    if knots.size:
        terms.append(log_odds - knots.mean())
    terms += [_bend(log_odds, knot, knots) for knot in knots[:-2]]
    return np.stack(terms, axis=1)


def _bend(log_odds: FloatArray, knot: float, knots: FloatArray) -> FloatArray:
    """Return the term that bends from `knot` on and is straight again after the last knot."""
    first, *_, before_last, last = knots.tolist()
    bent, straightened, back = np.maximum(log_odds - np.array([[knot], [before_last], [last]]), 0.0) ** 3
    share = (last - knot) / (last - before_last)
    return np.asarray((bent - share * straightened + (share - 1.0) * back) / (last - first) ** 2, dtype=np.float64)


def _curve(basis: FloatArray, totals: FloatArray) -> FloatArray:
    """Fit the curve to weights without and with the outcome; NaN without one kind."""
    if not (totals.sum(axis=1) > 0).all():
        return np.full(basis.shape[1], math.nan)
    return _coefficients(basis, totals)


@compiled
def _coefficients(basis: FloatArray, totals: FloatArray) -> FloatArray:
    """Maximise the weighted likelihood by Newton's method from the flat curve; a step that overshoots is halved."""
    without, events = totals[0].sum(), totals[1].sum()
    found = np.zeros(basis.shape[1])
    found[0] = math.log(events / without)
    loss, gradient, hessian = _derivatives(basis, totals, found)
    for _ in range(MOST_STEPS):
        step = _solved(hessian + DAMPING * (events + without) * np.eye(found.size), gradient)
        before = loss
        for _ in range(MOST_HALVINGS):
            nearer = found - step
            loss, gradient, hessian = _derivatives(basis, totals, nearer)
            if loss <= before * (1.0 + ROUNDING):
                break
            step = step / 2.0
        found = nearer
        if before - loss <= SAME_LOSS * (events + without):
            break
    return found


@compiled
def _solved(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a positive definite system by elimination, which needs no pivots there; numpy's takes longer to compile."""
    matrix, solved = matrix.copy(), right.copy()
    for i in range(solved.size):
        for j in range(i + 1, solved.size):
            share = matrix[j, i] / matrix[i, i]
            solved[j] -= share * solved[i]
            for k in range(i, solved.size):
                matrix[j, k] -= share * matrix[i, k]
    for i in range(solved.size - 1, -1, -1):
        for k in range(i + 1, solved.size):
            solved[i] -= matrix[i, k] * solved[k]
        solved[i] /= matrix[i, i]
    return solved


@compiled
def _derivatives(
    basis: FloatArray, totals: FloatArray, coefficients: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Minus the log-likelihood, its gradient and Hessian; the smaller of p and 1 - p keeps its digits."""
    terms = coefficients.size
    loss, gradient, hessian = 0.0, np.zeros(terms), np.zeros((terms, terms))
    for i in range(basis.shape[0]):
        log_odds = 0.0
        for j in range(terms):
            log_odds += basis[i, j] * coefficients[j]
        small = math.exp(-abs(log_odds))
        likely, unlikely = 1.0 / (1.0 + small), small / (1.0 + small)
        risk, rest = (likely, unlikely) if log_odds >= 0.0 else (unlikely, likely)
        weight = totals[0, i] + totals[1, i]
        loss += weight * (math.log1p(small) + max(log_odds, 0.0)) - totals[1, i] * log_odds
        residual = totals[0, i] * risk - totals[1, i] * rest
        spread = weight * likely * unlikely
        for j in range(terms):
            gradient[j] += residual * basis[i, j]
            for k in range(terms):
                hessian[j, k] += spread * basis[i, j] * basis[i, k]
    return loss, gradient, hessian
