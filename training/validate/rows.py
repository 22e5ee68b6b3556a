"""The rows that a measure looks at, checked and put in order, and what every measure needs of them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.calibrate import logit, rows_that_count

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# A risk nearer to 0 or 1 than this is taken as this on the log-odds scale, where 0 and 1 are infinitely far.
NEAREST_RISK = 1e-12


@dataclass(frozen=True)
class Ranked:
    """Rows with weight from highest to lowest risk; `place` is where each was."""

    outcome: FloatArray
    risk: FloatArray
    weight: FloatArray
    ends_tie: BoolArray
    place: IntArray


def ranked(outcome: FloatArray, risk: FloatArray, weight: FloatArray, **others: IntArray) -> Ranked:
    """Return the rows with weight by falling risk, which may be any numbers that rank."""
    rows = np.flatnonzero(rows_that_count(outcome, weight, risk=risk, **others))
    place = rows[np.argsort(-risk[rows], kind="stable")]
    outcome, risk, weight = (column[place].astype(np.float64) for column in (outcome, risk, weight))
    return Ranked(outcome, risk, weight, np.append(risk[1:] != risk[:-1], [True] * (risk.size > 0)), place)


def checked(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return outcome, risk and weight of the rows with weight, whose risks are probabilities."""
    rows = counted(outcome, risk, weight)
    return outcome[rows].astype(np.float64), risk[rows].astype(np.float64), weight[rows].astype(np.float64)


def counted(outcome: FloatArray, risk: FloatArray, weight: FloatArray, **others: IntArray) -> BoolArray:
    """Return which rows have weight, shape (n,); there, risks are probabilities."""
    rows = rows_that_count(outcome, weight, risk=risk, **others)
    if not ((risk[rows] >= 0) & (risk[rows] <= 1)).all():
        raise ValueError("risk must be a probability, between 0 and 1.")
    return rows


def both_kinds(outcome: FloatArray, weight: FloatArray) -> bool:
    """Whether rows with weight have the outcome, and rows with weight lack it."""
    return 0 < int(np.count_nonzero(outcome[weight > 0])) < int(np.count_nonzero(weight))


def log_odds_of(risk: FloatArray) -> FloatArray:
    """Return finite log-odds of risks."""
    return logit(np.clip(risk, NEAREST_RISK, 1.0 - NEAREST_RISK))


def ratio(over: float, under: float) -> float:
    """Return a quotient, NaN where there is nothing below the line."""
    return over / under if under > 0 else math.nan


def defined(name: str, number: float) -> float:
    """Return a number, or raise ValueError if it is NaN."""
    if math.isnan(number):
        raise ValueError(f"{name} is not defined: the rows with weight lack an outcome, a non-outcome, or differences.")
    return number


def weighted_quantile(number: FloatArray, weight: FloatArray, share: FloatArray) -> FloatArray:
    """Return the smallest numbers at or below which at least `share` of the weight lies, shape as `share`."""
    order = np.argsort(number, kind="stable")
    below = np.cumsum(weight[order])
    at = np.minimum(np.searchsorted(below, share * below[-1]), number.size - 1)
    return np.asarray(number[order[at]], dtype=np.float64)


@compiled
def totals_by_group(group: IntArray, outcome: FloatArray, weight: FloatArray, groups: int) -> FloatArray:
    """Return the weight without and with the outcome of each group, shape (2, groups)."""
    totals = np.zeros((2, groups))
    for i in range(group.size):
        totals[1, group[i]] += weight[i] * outcome[i]
        totals[0, group[i]] += weight[i] * (1.0 - outcome[i])
    return totals
