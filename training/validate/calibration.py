"""Whether risks are as high as they should be: overall fit, the calibration line, and groups of rising risk."""

import math
from dataclasses import dataclass

import numpy as np

from features.compiled import compiled
from training.calibrate import logistic_line
from training.validate.rows import FloatArray, IntArray, both_kinds, checked, defined, log_odds_of, ratio


@dataclass(frozen=True)
class CalibrationLine:
    """How risks would have to be moved on the log-odds scale; 0 and 1 are perfect.

    Attributes
    ----------
    intercept : float
        Calibration in the large: what must be added to every log-odds, the slope held at 1. Above 0, the risks are
        too low. This is not the intercept that goes with the free slope.
    slope : float
        By how much every log-odds must be multiplied, the intercept left free. Below 1, the risks are too extreme.
    """

    intercept: float
    slope: float


@dataclass(frozen=True)
class CalibrationCurve:
    """Risk and observed share by groups of rising risk; each array of shape (groups,)."""

    risk: FloatArray
    observed: FloatArray
    weight: FloatArray
    rows: IntArray


def brier(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> float:
    """Weighted mean squared difference of risk and outcome: 0 is perfect.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, a risk is outside 0 to 1, or no row has weight.

    References
    ----------
    Graf et al., Statistics in Medicine 1999;18:2529-2545.
    """
    total, _, _, squared = sums(*checked(outcome, risk, weight))
    return defined("The Brier score", ratio(squared, total))


def scaled_brier(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> float:
    """One minus the Brier score over that of giving everyone the prevalence.

    1 is perfect; 0 is no better than the prevalence, below 0 worse.

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
    Steyerberg et al., Epidemiology 2010;21:128-138.
    """
    total, events, _, squared = sums(*checked(outcome, risk, weight))
    return defined("The scaled Brier score", scaled(total, events, squared))


def calibration_line(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> CalibrationLine:
    """Intercept, the slope held at 1, and slope of the outcome's log-odds on those of the risk.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), probability
        Nearer to 0 or 1 than 1e-12 it counts as 1e-12 away.
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, a risk is outside 0 to 1, or no finite line fits: one kind of outcome is lacking, or all
        risks are the same, or they separate the outcomes completely.

    References
    ----------
    Cox, Biometrika 1958;45:562-565. Steyerberg, Clinical Prediction Models, 2nd ed. (2019), section 15.3.
    """
    outcome, risk, weight = checked(outcome, risk, weight)
    line = line_of(outcome, log_odds_of(risk), weight)
    defined("The calibration slope", line.slope)
    return line


def observed_to_expected(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> float:
    """Observed over expected outcomes: calibration in the large.

    1 is perfect; above 1 the model promises too little.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
        Whether the outcome came within the horizon.
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, a risk is outside 0 to 1, or the expected number is zero.

    References
    ----------
    Steyerberg, Clinical Prediction Models, 2nd ed. (2019), section 15.3.
    """
    _, events, expected, _ = sums(*checked(outcome, risk, weight))
    return defined("Observed to expected", ratio(events, expected))


def calibration_curve(outcome: FloatArray, risk: FloatArray, weight: FloatArray, groups: int = 10) -> CalibrationCurve:
    """Mean risk and observed share in groups of about equal weight, by rising risk.

    Equal risks stay in one group, so there may be fewer groups.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored
    groups : int, 1 or more

    Raises
    ------
    ValueError
        If the shapes differ or a risk is outside 0 to 1.
    """
    outcome, risk, weight = checked(outcome, risk, weight)
    levels, level = np.unique(risk, return_inverse=True)
    of_level = np.bincount(level, weights=weight, minlength=levels.size)
    middle = (np.cumsum(of_level) - of_level / 2) / weight.sum()
    group = np.unique((groups * middle).astype(np.int64), return_inverse=True)[1][level]
    total = np.bincount(group, weights=weight).astype(np.float64)
    return CalibrationCurve(
        risk=np.bincount(group, weights=weight * risk) / total,
        observed=np.bincount(group, weights=weight * outcome) / total,
        weight=total,
        rows=np.bincount(group),
    )


def scaled(total: float, events: float, squared: float) -> float:
    """Return the scaled Brier score from `sums`."""
    return 1.0 - ratio(squared * total, events * (total - events))


def line_of(outcome: FloatArray, log_odds: FloatArray, weight: FloatArray) -> CalibrationLine:
    """Fit from the perfect line, which is near, or else from the flat one, from which every finite line is reached."""
    if not both_kinds(outcome, weight):
        return CalibrationLine(math.nan, math.nan)
    intercept, _ = logistic_line(log_odds, outcome, weight, 0.0, 1.0, False)
    _, slope = logistic_line(log_odds, outcome, weight, intercept, 1.0, True)
    if math.isnan(slope):
        _, slope = logistic_line(log_odds, outcome, weight, 0.0, 0.0, True)
    return CalibrationLine(intercept, slope)


@compiled
def sums(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> tuple[float, float, float, float]:
    """Total weight, observed and expected outcomes, and squared differences of risk and outcome."""
    total = events = expected = squared = 0.0
    for i in range(outcome.size):
        total += weight[i]
        events += weight[i] * outcome[i]
        expected += weight[i] * risk[i]
        squared += weight[i] * (risk[i] - outcome[i]) ** 2
    return total, events, expected, squared
