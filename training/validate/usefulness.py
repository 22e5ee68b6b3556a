r"""Whether acting on risks does more good than harm: net benefit and the decision curve.

Whoever acts on a risk of at least :math:`t` says by it that one outcome found is worth :math:`(1 - t) / t` residents
called in vain. Net benefit counts both in that currency, in outcomes found for each resident:

.. math:: \text{NB}(t) = \frac{TP}{N} - \frac{FP}{N} \cdot \frac{t}{1 - t}

with :math:`TP`, :math:`FP` and :math:`N` the weight of those called rightly, called in vain, and of all. Calling nobody
is worth 0.

References
----------
Vickers and Elkin, Medical Decision Making 2006;26:565-574. Vickers et al., BMC Med Inform Decis Mak 2008;8:53 (paired
differences, censoring).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.validate.bootstrap import Estimate, bootstrapped
from training.validate.rows import BoolArray, FloatArray, IntArray, counted, defined, totals_by_group


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of acting on risks at each threshold; each array of shape (thresholds,).

    Attributes
    ----------
    thresholds : probability
    prevalence : float
        Weighted share of outcomes; NaN where no row has weight.
    net_benefit, lower, upper : dict
        For each of the risks by name, the net benefit and its 95 % bounds, at each threshold for itself.
    treat_all, treat_all_lower, treat_all_upper
        The same of acting on everyone.
    """

    thresholds: FloatArray
    prevalence: float
    net_benefit: dict[str, FloatArray]
    lower: dict[str, FloatArray]
    upper: dict[str, FloatArray]
    treat_all: FloatArray
    treat_all_lower: FloatArray
    treat_all_upper: FloatArray

    @property
    def treat_none(self) -> FloatArray:
        """Net benefit of acting on nobody: 0 at every threshold."""
        return np.zeros(self.thresholds.size)


@dataclass(frozen=True)
class _Called:
    """How many of the thresholds each row reaches, and where the outcomes are."""

    reached: IntArray
    outcome: FloatArray
    thresholds: FloatArray

    def net_benefit(self, weight: FloatArray) -> FloatArray:
        """Return the net benefit at every threshold under the weights of a replicate; NaN where there are none."""
        totals = totals_by_group(self.reached, self.outcome, weight, self.thresholds.size + 1)
        vain, found = np.cumsum(totals[:, ::-1], axis=1)[:, ::-1][:, 1:]
        with np.errstate(invalid="ignore"):
            return np.asarray((found - vain * _odds(self.thresholds)) / totals.sum())


def decision_curve(
    outcome: FloatArray,
    risks: Mapping[str, FloatArray],
    weight: FloatArray,
    person: IntArray,
    thresholds: FloatArray,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit of several risks of the same rows over a range of thresholds, with intervals by person.

    All curves are drawn from the same replicates.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risks : each of shape (n,), probability
        By name. Each must be there for every row with weight: leave out rows that one of them cannot judge.
    weight : shape (n,), inverse probability of remaining uncensored
    person : shape (n,)
    thresholds : shape (t,), 0 or more and below 1, rising
        A row is called when its risk is at least the threshold.
    replicates, seed : int
        As in `validate`.

    Raises
    ------
    ValueError
        If the shapes differ, an outcome is neither 0 nor 1, a risk is outside 0 to 1, a weight is negative, or the
        thresholds do not rise within 0 to 1.

    References
    ----------
    Vickers and Elkin, Medical Decision Making 2006;26:565-574.
    """
    thresholds = _rising(thresholds)
    rows = _rows(outcome, risks, weight, person)
    outcome, weight, person = outcome[rows].astype(np.float64), weight[rows].astype(np.float64), person[rows]
    curves = [_called(outcome, risk[rows], thresholds) for risk in risks.values()]
    curves.append(_called(outcome, np.ones(outcome.size), thresholds))
    persons, of_row = np.unique(person, return_inverse=True)

    def benefits(times: IntArray) -> FloatArray:
        drawn = weight * times[of_row]
        return np.concatenate([curve.net_benefit(drawn) for curve in curves])

    found = bootstrapped(benefits, persons.size, replicates, seed)
    each, lower, upper = (numbers.reshape(len(curves), -1) for numbers in (found.numbers, *found.bounds()))
    return DecisionCurve(
        thresholds=thresholds,
        prevalence=float(np.average(outcome, weights=weight)) if outcome.size else float("nan"),
        net_benefit=dict(zip(risks, each, strict=False)),
        lower=dict(zip(risks, lower, strict=False)),
        upper=dict(zip(risks, upper, strict=False)),
        treat_all=each[-1],
        treat_all_lower=lower[-1],
        treat_all_upper=upper[-1],
    )


def net_benefit(outcome: FloatArray, risk: FloatArray, weight: FloatArray, threshold: float) -> float:
    """Net benefit of acting on everyone whose risk is at least the threshold, for each resident.

    At best the prevalence; 0 is worth no more than acting on nobody.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored
    threshold : 0 or more and below 1

    Raises
    ------
    ValueError
        If the shapes differ, a risk is outside 0 to 1, `threshold` is out of range, or no row has weight.

    References
    ----------
    Vickers and Elkin, Medical Decision Making 2006;26:565-574.
    """
    thresholds = _rising(np.array([threshold]))
    rows = counted(outcome, risk, weight)
    called = _called(outcome[rows].astype(np.float64), risk[rows], thresholds)
    return defined("Net benefit", float(called.net_benefit(weight[rows].astype(np.float64))[0]))


def net_benefit_difference(
    outcome: FloatArray,
    risk_a: FloatArray,
    risk_b: FloatArray,
    weight: FloatArray,
    person: IntArray,
    threshold: float,
    *,
    replicates: int = 500,
    seed: int = 0,
) -> Estimate:
    """Return the net benefit of `risk_a` minus that of `risk_b` on the same rows, with its 95 % interval by person.

    Both are measured on the same replicates, so what is hard about a resident for both cancels out. NaN if no row has
    weight. Parameters and replicates as in `validate`.

    Raises
    ------
    ValueError
        If the shapes differ, an outcome is neither 0 nor 1, a risk is outside 0 to 1, a weight is negative, or
        `threshold` is out of range.
    """
    thresholds = _rising(np.array([threshold]))
    rows = _rows(outcome, {"risk_a": risk_a, "risk_b": risk_b}, weight, person)
    outcome, weight = outcome[rows].astype(np.float64), weight[rows].astype(np.float64)
    a, b = (_called(outcome, risk[rows], thresholds) for risk in (risk_a, risk_b))
    persons, of_row = np.unique(person[rows], return_inverse=True)

    def difference(times: IntArray) -> FloatArray:
        drawn = weight * times[of_row]
        return a.net_benefit(drawn) - b.net_benefit(drawn)

    return bootstrapped(difference, persons.size, replicates, seed).estimates()[0]


def _odds(threshold: FloatArray) -> FloatArray:
    return threshold / (1.0 - threshold)


def _rising(thresholds: FloatArray) -> FloatArray:
    thresholds = np.asarray(thresholds, dtype=np.float64)
    within = ((thresholds >= 0) & (thresholds < 1)).all()
    if thresholds.ndim != 1 or not thresholds.size or not within or not (np.diff(thresholds) > 0).all():
        raise ValueError(f"thresholds must rise, from 0 or more to below 1: {thresholds.tolist()}.")
    return thresholds


def _rows(outcome: FloatArray, risks: Mapping[str, FloatArray], weight: FloatArray, person: IntArray) -> BoolArray:
    """Check all risks and return which rows have weight, the same for each."""
    if not risks:
        raise ValueError("risks must name at least one.")
    return [counted(outcome, risk, weight, person=person) for risk in risks.values()][-1]


def _called(outcome: FloatArray, risk: FloatArray, thresholds: FloatArray) -> _Called:
    return _Called(np.searchsorted(thresholds, risk, side="right"), outcome, thresholds)
