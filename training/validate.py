"""How well risks hold on residents the model was not fitted on.

Every measure is weighted, so that with inverse probability of censoring weights it speaks of all residents at risk and
not of those alone whose outcome is known. Rows of weight 0 are left out. Equal risks are ties and count as such.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.calibrate import logistic_line, logit, rows_that_count

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

METRICS = (
    "auroc",
    "average_precision",
    "scaled_brier",
    "calibration_intercept",
    "calibration_slope",
    "observed_to_expected",
)
# A risk nearer to 0 or 1 than this is taken as this on the log-odds scale, where 0 and 1 are infinitely far.
NEAREST_RISK = 1e-12
# A percentile interval from fewer of the replicates would hide those that failed, and they fail at the extremes.
SHARE_NEEDED = 0.95


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
class Validation:
    """Performance of risks, with intervals by person.

    Attributes
    ----------
    n : int
        Rows with weight: those whose outcome is known.
    residents : int
        Persons among them.
    events : int
        Rows among them with the outcome.
    metrics : dict
        One `Estimate` for every name in `METRICS`.
    replicates : int
        Bootstrap replicates that were drawn.
    skipped : int
        Replicates in which a metric was not defined: all of them where the drawn rows lack one kind of outcome, the
        slope where risk separates the outcomes. A metric that lacks more than one replicate in twenty has no interval.
    """

    n: int
    residents: int
    events: int
    metrics: dict[str, Estimate]
    replicates: int
    skipped: int

    def as_dict(self) -> dict[str, int | dict[str, float | None]]:
        """Return counts and metrics side by side by name, as JSON holds them."""
        counts = {name: getattr(self, name) for name in ("n", "residents", "events", "replicates", "skipped")}
        return counts | {name: metric.as_dict() for name, metric in self.metrics.items()}


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


@dataclass(frozen=True)
class RocCurve:
    """Shares found at every threshold, highest first, from (0, 0) to (1, 1); each array of shape (thresholds + 1,)."""

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray


@dataclass(frozen=True)
class _Ranked:
    """Rows with weight from highest to lowest risk."""

    outcome: FloatArray
    risk: FloatArray
    weight: FloatArray
    ends_tie: BoolArray
    place: IntArray


def validate(
    outcome: FloatArray,
    risk: FloatArray,
    weight: FloatArray,
    person: IntArray,
    *,
    replicates: int = 500,
    seed: int = 0,
) -> Validation:
    """Measure discrimination, overall fit and calibration, with 95 % percentile intervals.

    A replicate draws as many persons as there are, with replacement, and takes all rows of each: the rows of one
    person are not independent. The weights stay as given. The same seed gives the same intervals on any machine.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
        Whether the outcome came within the horizon.
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored
    person : shape (n,)
        Whose row it is.
    replicates : int
        0 leaves out the intervals.
    seed : int

    Returns
    -------
    Validation
        Where the rows lack one kind of outcome, or there are none, every metric is NaN and says so.

    Raises
    ------
    ValueError
        If the shapes differ, an outcome is neither 0 nor 1, a risk is outside 0 to 1, or a weight is negative.

    References
    ----------
    Steyerberg, Clinical Prediction Models, 2nd ed. (2019), chapter 15. Field and Welsh, J R Stat Soc B
    2007;69:369-390 (bootstrap of clusters).
    """
    _checked(outcome, risk, weight)
    rows = _ranked(outcome, risk, weight, person=person)
    persons, of_row = np.unique(person[rows.place], return_inverse=True)
    log_odds = _log_odds(rows.risk)

    def metrics(times: IntArray) -> FloatArray:
        return _metrics(rows, log_odds, rows.weight * times[of_row])

    drawn = _bootstrap(metrics, len(METRICS), persons.size, replicates, seed)
    estimates = metrics(np.ones(persons.size, dtype=np.int64)).tolist()
    return Validation(
        n=rows.risk.size,
        residents=persons.size,
        events=int(rows.outcome.sum()),
        metrics={name: _interval(estimates[i], drawn[:, i]) for i, name in enumerate(METRICS)},
        replicates=replicates,
        skipped=int(np.isnan(drawn).any(axis=1).sum()),
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
    a, b = (_ranked(outcome, risk, weight, person=person) for risk in (risk_a, risk_b))
    persons, of_a = np.unique(person[a.place], return_inverse=True)
    of_b = np.searchsorted(persons, person[b.place])

    def difference(times: IntArray) -> FloatArray:
        return np.array([_auroc_of(a, a.weight * times[of_a]) - _auroc_of(b, b.weight * times[of_b])])

    drawn = _bootstrap(difference, 1, persons.size, replicates, seed)
    return _interval(float(difference(np.ones(persons.size, dtype=np.int64))[0]), drawn[:, 0])


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
    rows = _ranked(outcome, risk, weight)
    return _defined("AUROC", _auroc_of(rows, rows.weight))


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
    rows = _ranked(outcome, risk, weight)
    return _defined("Average precision", _average_precision(rows.outcome, rows.weight, rows.ends_tie))


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
    total, _, _, squared = _sums(*_checked(outcome, risk, weight))
    return _defined("The Brier score", _ratio(squared, total))


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
    total, events, _, squared = _sums(*_checked(outcome, risk, weight))
    return _defined("The scaled Brier score", _scaled(total, events, squared))


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
    outcome, risk, weight = _checked(outcome, risk, weight)
    line = _line(outcome, _log_odds(risk), weight)
    _defined("The calibration slope", line.slope)
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
    _, events, expected, _ = _sums(*_checked(outcome, risk, weight))
    return _defined("Observed to expected", _ratio(events, expected))


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
    outcome, risk, weight = _checked(outcome, risk, weight)
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
    rows = _ranked(outcome, risk, weight)
    _defined("The ROC curve", _auroc_of(rows, rows.weight))
    found = np.cumsum(rows.weight * rows.outcome)
    wrong = np.cumsum(rows.weight * (1.0 - rows.outcome))
    at = rows.ends_tie
    return RocCurve(
        false_positive_rate=np.concatenate(([0.0], wrong[at] / wrong[-1])),
        true_positive_rate=np.concatenate(([0.0], found[at] / found[-1])),
    )


def _bootstrap(
    statistic: Callable[[IntArray], FloatArray], numbers: int, persons: int, replicates: int, seed: int
) -> FloatArray:
    """Call `statistic` with how many times each person is drawn; shape (replicates, numbers).

    Each replicate has a stream of its own, so the order in which threads run does not matter.
    """

    def replicate(stream: np.random.SeedSequence) -> FloatArray:
        drawn = np.random.default_rng(stream).integers(persons, size=persons)
        return statistic(np.bincount(drawn, minlength=persons))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        streams = np.random.SeedSequence(seed).spawn(replicates)
        return np.array(list(threads.map(replicate, streams))).reshape(replicates, numbers)


def _interval(estimate: float, drawn: FloatArray) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if math.isnan(estimate) or defined.size == 0 or defined.size < SHARE_NEEDED * drawn.size:
        return Estimate(estimate, math.nan, math.nan)
    lower, upper = np.quantile(defined, (0.025, 0.975))
    return Estimate(estimate, float(lower), float(upper))


def _metrics(rows: _Ranked, log_odds: FloatArray, weight: FloatArray) -> FloatArray:
    """All of `METRICS` in their order, NaN where not defined; `weight` is that of a replicate."""
    if not _both_kinds(rows.outcome, weight):
        return np.full(len(METRICS), np.nan)
    total, events, expected, squared = _sums(rows.outcome, rows.risk, weight)
    line = _line(rows.outcome, log_odds, weight)
    return np.array(
        [
            _auroc_of(rows, weight),
            _average_precision(rows.outcome, weight, rows.ends_tie),
            _scaled(total, events, squared),
            line.intercept,
            line.slope,
            _ratio(events, expected),
        ]
    )


def _both_kinds(outcome: FloatArray, weight: FloatArray) -> bool:
    return 0 < int(np.count_nonzero(outcome[weight > 0])) < int(np.count_nonzero(weight))


def _scaled(total: float, events: float, squared: float) -> float:
    return 1.0 - _ratio(squared * total, events * (total - events))


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else math.nan


def _defined(name: str, number: float) -> float:
    if math.isnan(number):
        raise ValueError(f"{name} is not defined: the rows with weight lack an outcome, a non-outcome, or differences.")
    return number


def _line(outcome: FloatArray, log_odds: FloatArray, weight: FloatArray) -> CalibrationLine:
    """Fit from the perfect line, which is near, or else from the flat one, from which every finite line is reached."""
    if not _both_kinds(outcome, weight):
        return CalibrationLine(math.nan, math.nan)
    intercept, _ = logistic_line(log_odds, outcome, weight, 0.0, 1.0, False)
    _, slope = logistic_line(log_odds, outcome, weight, intercept, 1.0, True)
    if math.isnan(slope):
        _, slope = logistic_line(log_odds, outcome, weight, 0.0, 0.0, True)
    return CalibrationLine(intercept, slope)


def _log_odds(risk: FloatArray) -> FloatArray:
    return logit(np.clip(risk, NEAREST_RISK, 1.0 - NEAREST_RISK))


def _checked(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the rows with weight, whose risks are probabilities."""
    rows = rows_that_count(outcome, weight, risk=risk)
    if not ((risk[rows] >= 0) & (risk[rows] <= 1)).all():
        raise ValueError("risk must be a probability, between 0 and 1.")
    return outcome[rows].astype(np.float64), risk[rows].astype(np.float64), weight[rows].astype(np.float64)


def _ranked(outcome: FloatArray, risk: FloatArray, weight: FloatArray, **others: IntArray) -> _Ranked:
    rows = np.flatnonzero(rows_that_count(outcome, weight, risk=risk, **others))
    place = rows[np.argsort(-risk[rows], kind="stable")]
    outcome, risk, weight = (column[place].astype(np.float64) for column in (outcome, risk, weight))
    return _Ranked(outcome, risk, weight, np.append(risk[1:] != risk[:-1], [True] * (risk.size > 0)), place)


def _auroc_of(rows: _Ranked, weight: FloatArray) -> float:
    return _auroc(rows.outcome, weight, rows.ends_tie)


@compiled
def _auroc(outcome: FloatArray, weight: FloatArray, ends_tie: BoolArray) -> float:
    """Area of the trapezia between thresholds, over the whole; NaN without one kind of outcome."""
    area = found = wrong = found_before = wrong_before = 0.0
    for i in range(outcome.size):
        found += weight[i] * outcome[i]
        wrong += weight[i] * (1.0 - outcome[i])
        if ends_tie[i]:
            area += (wrong - wrong_before) * (found + found_before) / 2.0
            found_before, wrong_before = found, wrong
    return area / (found * wrong) if found * wrong > 0.0 else math.nan


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


@compiled
def _sums(outcome: FloatArray, risk: FloatArray, weight: FloatArray) -> tuple[float, float, float, float]:
    """Total weight, observed and expected outcomes, and squared differences of risk and outcome."""
    total = events = expected = squared = 0.0
    for i in range(outcome.size):
        total += weight[i]
        events += weight[i] * outcome[i]
        expected += weight[i] * risk[i]
        squared += weight[i] * (risk[i] - outcome[i]) ** 2
    return total, events, expected, squared
