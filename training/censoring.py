"""Inverse probability of censoring weights for an outcome within a fixed horizon.

A resident who is lost before the horizon leaves the outcome unknown. Each resident who is known stands in for those
who were lost: the less likely someone was to stay under observation that long, the heavier.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sksurv.nonparametric import kaplan_meier_estimator

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class CensoringWeights:
    """The weight of every row, and how far it can be trusted.

    Attributes
    ----------
    weight : shape (n,)
        One over the probability of staying uncensored; 0 where the outcome is unknown.
    outcome : shape (n,), 0 or 1
        Whether the outcome came in ``[index, index + horizon)``; without meaning where `weight` is 0.
    known, censored : int
        Rows with and without a known outcome; together n.
    truncated : int
        Known rows whose probability was below `at_least` and was raised to it.
    smallest_probability : float
        The smallest probability among the known rows before truncation; NaN where no row is known.
    """

    weight: FloatArray
    outcome: FloatArray
    known: int
    censored: int
    truncated: int
    smallest_probability: float


def censoring_weights(
    time: FloatArray, observed: BoolArray, died: BoolArray, horizon_days: float, *, at_least: float = 0.05
) -> CensoringWeights:
    r"""Weigh the rows whose outcome is known so that they stand for all.

    A row is known by the outcome or by death before the horizon, or by being followed to it. With :math:`G(t-)` the
    probability of not being censored before t,

    .. math:: w_i = \frac{\text{known}_i}{\max(G(\min(t_i, \text{horizon})-),\ \text{at least})}

    G is the Kaplan-Meier estimate for the time of censoring, in which outcome and death end the follow-up. Where
    outcomes and censorings share a time, the outcomes come first: whoever is censored at t was still observed at t.
    The weights are right when censoring depends neither on the outcome nor on what predicts it.

    Parameters
    ----------
    time : shape (n,), days from the index time, 0 or more
        To outcome, death or end of observation, whichever comes first.
    observed : shape (n,)
        Whether `time` is that of the outcome. One at exactly the horizon is too late to count.
    died : shape (n,)
        Whether `time` is that of a death without the outcome: a known non-event.
    horizon_days : days, above 0
    at_least : probability
        A smaller G is raised to this, so that no row weighs more than ``1 / at_least``: a little bias for much less
        variance.

    Raises
    ------
    ValueError
        If the shapes differ, there is no row, a time is negative or not finite, a row both had the outcome and died
        without it, or `horizon_days` or `at_least` is out of range.

    References
    ----------
    Graf et al., Statistics in Medicine 1999;18:2529-2545. Vock et al., J Biomed Inform 2016;61:119-131.
    """
    _check(time, observed, died, horizon_days, at_least)
    known = observed | died | (time >= horizon_days)
    probability = _uncensored_before(np.minimum(time, horizon_days), known)
    weight = np.where(known, 1.0 / np.maximum(probability, at_least), 0.0)
    return CensoringWeights(
        weight=weight,
        outcome=(observed & (time < horizon_days)).astype(np.float64),
        known=int(known.sum()),
        censored=int((~known).sum()),
        truncated=int((known & (probability < at_least)).sum()),
        smallest_probability=float(probability[known].min()) if known.any() else float("nan"),
    )


def _uncensored_before(time: FloatArray, known: BoolArray) -> FloatArray:
    """Probability of not being censored before each row's time: the left limit G(t-)."""
    times, survival = kaplan_meier_estimator(known, time, reverse=True)
    before = np.concatenate(([1.0], survival))
    return np.asarray(before[np.searchsorted(times, time, side="left")], dtype=np.float64)


def _check(time: FloatArray, observed: BoolArray, died: BoolArray, horizon_days: float, at_least: float) -> None:
    if not time.shape == observed.shape == died.shape or time.ndim != 1 or time.size == 0:
        raise ValueError(
            "time, observed and died must be one column of the same rows, at least one: "
            f"their shapes are {time.shape}, {observed.shape} and {died.shape}."
        )
    if not (np.isfinite(time) & (time >= 0)).all():
        raise ValueError("time must be finite and not negative: it counts days from the index time.")
    if (observed & died).any():
        raise ValueError("A row cannot be both: observed means the outcome came, died means death without it.")
    if not (horizon_days > 0 and 0 < at_least <= 1):
        raise ValueError(f"horizon_days must be above 0 and at_least in (0, 1]: {horizon_days}, {at_least}.")
