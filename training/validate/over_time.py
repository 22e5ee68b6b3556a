"""Discrimination by days of follow-up: whether those who get the outcome sooner were given the higher risks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.censoring import censoring_weights
from training.validate.bootstrap import Estimate, bootstrapped
from training.validate.discrimination import area
from training.validate.rows import BoolArray, FloatArray, IntArray, Ranked, ranked


@dataclass(frozen=True)
class TimeDependentAuc:
    """AUROC for outcomes within each number of days, and their mean.

    `mean` weighs each by the share of residents who get the outcome since the one before.
    """

    days: FloatArray
    auc: tuple[Estimate, ...]
    mean: Estimate


@dataclass(frozen=True)
class _FollowUp:
    """Rows by falling risk, with what makes each a case or a control within some days.

    Attributes
    ----------
    resolved : shape (n,)
        Weight once the outcome or death has come; 0 for who is censored.
    followed : shape (days,)
        Weight of everyone still followed at each number of days.
    """

    time: FloatArray
    observed: BoolArray
    resolved: FloatArray
    days: FloatArray
    followed: FloatArray
    ends_tie: BoolArray

    def aucs(self, times: IntArray) -> FloatArray:
        """Return the AUROC within each number of days and their mean; `times` is how often each row is drawn."""
        cases, areas = (np.array(each) for each in zip(*self._each(times), strict=True))
        share = np.diff(cases, prepend=0.0)
        known = share > 0
        mean = areas[known] @ share[known] / share[known].sum() if known.any() else np.nan
        return np.append(areas, mean)

    def _each(self, times: IntArray) -> Iterator[tuple[float, float]]:
        """Yield the weight of the cases and the AUROC, for each number of days."""
        for days, followed in zip(self.days, self.followed, strict=True):
            resolved = self.time < days
            weight = np.where(resolved, self.resolved, followed) * times.astype(np.float64)
            outcome = (resolved & self.observed).astype(np.float64)
            yield float(weight @ outcome), area(outcome, weight, self.ends_tie)


def time_dependent_auc(
    time: FloatArray,
    observed: BoolArray,
    died: BoolArray,
    risk: FloatArray,
    person: IntArray,
    days: FloatArray,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> TimeDependentAuc:
    r"""Cumulative, dynamic AUROC under censoring and competing death, with intervals by person.

    At t days, cases are those whose outcome came before t, and controls all others: those followed to t, and those who
    died before t without the outcome, who will never have it. Each row known at t counts
    :math:`1 / G(\min(t_i, t)-)`, as `censoring_weights` has it, so that they stand for those lost before t too; a row
    that is lost counts at every t until then. The weights stay as given in the replicates.

    Parameters
    ----------
    time, observed, died : shape (n,)
        All rows, also those whose outcome is unknown: as in `censoring_weights`.
    risk : shape (n,), any number that ranks
    person : shape (n,)
    days : shape (k,), above 0, rising
    replicates, seed : int
        As in `validate`.

    Returns
    -------
    TimeDependentAuc
        NaN at days before which no outcome came, or up to which there is no control.

    Raises
    ------
    ValueError
        If the shapes differ, a risk is not finite, the days do not rise from above 0, or as in `censoring_weights`.

    References
    ----------
    Uno et al., J Am Stat Assoc 2007;102:527-537. Blanche, Dartigues and Jacqmin-Gadda, Statistics in Medicine
    2013;32:5381-5397 (competing death; their second definition of controls). Lambert and Chevret, Stat Methods Med Res
    2016;25:2088-2102 (mean).
    """
    days = np.asarray(days, dtype=np.float64)
    if days.ndim != 1 or not days.size or not (np.diff(days, prepend=0.0) > 0).all():
        raise ValueError(f"days must rise, from above 0: {days.tolist()}.")
    rows = ranked(observed.astype(np.float64), risk, np.ones(observed.shape), person=person)
    follow_up = _follow_up(time, observed, died, days, rows)
    persons, of_row = np.unique(person[rows.place], return_inverse=True)
    found = bootstrapped(lambda times: follow_up.aucs(times[of_row]), persons.size, replicates, seed).estimates()
    return TimeDependentAuc(days, found[:-1], found[-1])


def _follow_up(time: FloatArray, observed: BoolArray, died: BoolArray, days: FloatArray, rows: Ranked) -> _FollowUp:
    followed = [_weight_followed_to(time, observed, died, float(day)) for day in days]
    resolved = censoring_weights(time, observed, died, float(days[-1])).weight
    at = rows.place
    return _FollowUp(time[at], observed[at], resolved[at], days, np.array(followed), rows.ends_tie)


def _weight_followed_to(time: FloatArray, observed: BoolArray, died: BoolArray, days: float) -> float:
    """Return the one weight of all who are followed so long; 0 if nobody is."""
    weight = censoring_weights(time, observed, died, days).weight
    return float(weight[time >= days].max(initial=0.0))
