"""All measures of a model's risks at once, with intervals by person."""

from dataclasses import dataclass

import numpy as np

from training.validate.bootstrap import Estimate, bootstrapped
from training.validate.calibration import line_of, scaled, sums
from training.validate.discrimination import auroc_of, average_precision_of, found_in_top
from training.validate.rows import FloatArray, IntArray, Ranked, both_kinds, checked, log_odds_of, ranked, ratio
from training.validate.smooth import Levels, distances, levels_of

# Residents whom a programme can reach: the highest risks, in percent of all.
TOP_PERCENT = (1, 5, 10, 20)
METRICS = (
    "auroc",
    "average_precision",
    "scaled_brier",
    "calibration_intercept",
    "calibration_slope",
    "observed_to_expected",
    "ici",
    "e50",
    "e90",
    *(f"{measure}_top_{percent}" for percent in TOP_PERCENT for measure in ("sensitivity", "ppv")),
)
_TOP_SHARES = np.array(TOP_PERCENT) / 100.0


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


def validate(
    outcome: FloatArray,
    risk: FloatArray,
    weight: FloatArray,
    person: IntArray,
    *,
    rank: FloatArray | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> Validation:
    """Measure discrimination, overall fit and calibration, with 95 % percentile intervals.

    A replicate draws as many persons as there are, with replacement, and takes all rows of each: the rows of one
    person are not independent. The weights stay as given. The same seed gives the same intervals on any machine.

    `ici`, `e50` and `e90` are distances, which chance can only add to: each replicate adds some, so their intervals
    reach higher than those of the other metrics, and where calibration is near perfect may lie above the estimate.

    Parameters
    ----------
    outcome : shape (n,), 0 or 1
        Whether the outcome came within the horizon.
    risk : shape (n,), probability
    weight : shape (n,), inverse probability of remaining uncensored
    person : shape (n,)
        Whose row it is.
    rank : shape (n,), any numbers
        What residents are ranked by; by default the risk. Out-of-fold risks are recalibrated by a line for each fold,
        while a model that serves has one line, which changes no rank: its ranking is that of the log-odds before.
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
    checked(outcome, risk, weight)
    rows = ranked(outcome, risk, weight, person=person)
    in_order = rows if rank is None else ranked(outcome, rank, weight, person=person)
    persons, of_row = np.unique(person[rows.place], return_inverse=True)
    of_place = np.searchsorted(persons, person[in_order.place])
    log_odds, levels = log_odds_of(rows.risk), levels_of(rows.risk, rows.weight)

    def metrics(times: IntArray) -> FloatArray:
        weights = in_order.weight * times[of_place]
        return _metrics(rows, in_order, log_odds, levels, rows.weight * times[of_row], weights)

    found = bootstrapped(metrics, persons.size, replicates, seed)
    return Validation(
        n=rows.risk.size,
        residents=persons.size,
        events=int(rows.outcome.sum()),
        metrics=dict(zip(METRICS, found.estimates(), strict=True)),
        replicates=replicates,
        skipped=int(np.isnan(found.drawn).any(axis=1).sum()),
    )


def _metrics(
    rows: Ranked, in_order: Ranked, log_odds: FloatArray, levels: Levels, weight: FloatArray, of_place: FloatArray
) -> FloatArray:
    """All of `METRICS` in their order, NaN where not defined; the weights are those of a replicate.

    `in_order` are the same rows by what ranks them, and `of_place` their weights.
    """
    if not both_kinds(rows.outcome, weight):
        return np.full(len(METRICS), np.nan)
    total, events, expected, squared = sums(rows.outcome, rows.risk, weight)
    line = line_of(rows.outcome, log_odds, weight)
    found = found_in_top(in_order.outcome, of_place, in_order.ends_tie, _TOP_SHARES)
    return np.array(
        [
            auroc_of(in_order, of_place),
            average_precision_of(in_order, of_place),
            scaled(total, events, squared),
            line.intercept,
            line.slope,
            ratio(events, expected),
            *distances(levels, rows.outcome, weight),
            *np.stack([found / events, found / (_TOP_SHARES * total)], axis=1).ravel(),
        ]
    )
