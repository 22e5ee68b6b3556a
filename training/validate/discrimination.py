"""Whether those who get the outcome were given the higher risks."""

import math
from dataclasses import dataclass

import numpy as np

from features.compiled import compiled
from training.validate.bootstrap import Estimate, bootstrapped
from training.validate.rows import BoolArray, FloatArray, IntArray, Ranked, defined, ranked, ratio


@dataclass(frozen=True)
class RocCurve:
    """Shares found at every threshold, highest first, from (0, 0) to (1, 1); each array of shape (thresholds + 1,)."""

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray


@dataclass(frozen=True)
class TopShare:
    """What calling the residents of highest risk would find.

    Attributes
    ----------
    sensitivity : float
        Share of all who get the outcome that are among those called.
    ppv : float
        Positive predictive value: share of those called who get the outcome.
    """

    sensitivity: float
    ppv: float


def auroc(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> float:
    """Area under the receiver operating characteristic: how often a case outranks a non-case; a tie counts half.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), any number that ranks
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, or the rows with weight lack one kind of outcome.

    References
    ----------
    Hanley and McNeil, Radiology 1982;143:29-36.
    """
    rows = ranked(outcome, risk, weight)
    return defined("AUROC", auroc_of(rows, rows.weight))


def average_precision(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> float:
    """Mean of the precision at every threshold, weighted by the cases found there; at best 1, at chance the prevalence.

    Rows of equal risk share a threshold; there is no interpolation.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), any number that ranks
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, or no row with weight has the outcome.

    References
    ----------
    Davis and Goadrich, Proc ICML 2006:233-240.
    """
    rows = ranked(outcome, risk, weight)
    return defined("Average precision", average_precision_of(rows, rows.weight))


def top_share(outcome: FloatArray, risk: FloatArray, weight: FloatArray, share: float) -> TopShare:
    """Sensitivity and positive predictive value of calling the `share` of highest risk.

    The share is one of the weight, not of the rows. Where the border runs through rows of equal risk, each of them is
    called in part, by the same part: what a draw among them would find on average.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), any number that ranks
    weight : shape (n,), inverse probability of remaining uncensored
    share : above 0, at most 1

    Raises
    ------
    ValueError
        If the shapes differ, `share` is out of range, or no row with weight has the outcome.

    References
    ----------
    Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction (2003), chapter 2.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1: {share}.")
    rows = ranked(outcome, risk, weight)
    found = float(found_in_top(rows.outcome, rows.weight, rows.ends_tie, np.array([share]))[0])
    sensitivity = defined("The sensitivity", ratio(found, float(rows.weight @ rows.outcome)))
    return TopShare(sensitivity, found / (share * float(rows.weight.sum())))


def roc_curve(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> RocCurve:
    """Points of the receiver operating characteristic, one for each different risk.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), any number that ranks
    weight : shape (n,), inverse probability of remaining uncensored

    Raises
    ------
    ValueError
        If the shapes differ, or the rows with weight lack one kind of outcome.
    """
    rows = ranked(outcome, risk, weight)
    defined("The ROC curve", auroc_of(rows, rows.weight))
    found = np.cumsum(rows.weight * rows.outcome)
    wrong = np.cumsum(rows.weight * (1.0 - rows.outcome))
    at = rows.ends_tie
    return RocCurve(
        false_positive_rate=np.concatenate(([0.0], wrong[at] / wrong[-1])),
        true_positive_rate=np.concatenate(([0.0], found[at] / found[-1])),
    )


def paired_difference(
    outcome: FloatArray,
    risk_a: FloatArray,
    risk_b: FloatArray,
    weight: FloatArray,
    person: IntArray,
    *,
    replicates: int = 500,
    seed: int = 0,
) -> Estimate:
    """Return the AUROC of `risk_a` minus that of `risk_b` on the same rows, with its 95 % interval by person.

    Both are measured on the same replicates, so what is hard about a resident for both cancels out. NaN if the rows
    with weight lack one kind of outcome. Parameters and replicates as in `validate`, but the risks may be any numbers
    that rank.

    Raises
    ------
    ValueError
        If the shapes differ, an outcome is neither 0 nor 1, a risk is not finite, or a weight is negative.
    """
    a, b = (ranked(outcome, risk, weight, person=person) for risk in (risk_a, risk_b))
    persons, of_a = np.unique(person[a.place], return_inverse=True)
    of_b = np.searchsorted(persons, person[b.place])

    def difference(times: IntArray) -> FloatArray:
        return np.array([auroc_of(a, a.weight * times[of_a]) - auroc_of(b, b.weight * times[of_b])])

    return bootstrapped(difference, persons.size, replicates, seed).estimates()[0]


def auroc_of(rows: Ranked, weight: FloatArray) -> float:
    """Return the AUROC under the weights of a replicate; NaN without one kind of outcome."""
    return area(rows.outcome, weight, rows.ends_tie)


def average_precision_of(rows: Ranked, weight: FloatArray) -> float:
    """Return the average precision under the weights of a replicate; NaN without an outcome."""
    return _average_precision(rows.outcome, weight, rows.ends_tie)


@compiled
def area(outcome: FloatArray, weight: FloatArray, ends_tie: BoolArray) -> float:
    """Area of the trapezia between thresholds, over the whole; NaN without one kind of outcome."""
    total = found = wrong = found_before = wrong_before = 0.0
    for i in range(outcome.size):
        found += weight[i] * outcome[i]
        wrong += weight[i] * (1.0 - outcome[i])
        if ends_tie[i]:
            total += (wrong - wrong_before) * (found + found_before) / 2.0
            found_before, wrong_before = found, wrong
    return total / (found * wrong) if found * wrong > 0.0 else math.nan


@compiled
def found_in_top(outcome: FloatArray, weight: FloatArray, ends_tie: BoolArray, shares: FloatArray) -> FloatArray:
    """Weight of the outcomes in each of the rising `shares` of highest risk; of a tie at the border, a part."""
    borders = shares * weight.sum()
    at_border = np.zeros(shares.size)
    found = called = found_before = called_before = 0.0
    reached = 0
    for i in range(outcome.size):
        found += weight[i] * outcome[i]
        called += weight[i]
        if ends_tie[i]:
            while reached < shares.size and called >= borders[reached]:
                part = (borders[reached] - called_before) / (called - called_before)
                at_border[reached] = found_before + part * (found - found_before)
                reached += 1
            found_before, called_before = found, called
    at_border[reached:] = found
    return at_border


@compiled
def _average_precision(outcome: FloatArray, weight: FloatArray, ends_tie: BoolArray) -> float:
    total = found = called = found_before = 0.0
    for i in range(outcome.size):
        found += weight[i] * outcome[i]
        called += weight[i]
        if ends_tie[i] and found > found_before:
            total += (found - found_before) * found / called
            found_before = found
    return total / found if found > 0.0 else math.nan
