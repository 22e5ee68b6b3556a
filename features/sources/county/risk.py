"""The true risk: the probability that an outcome is recorded within the horizon, death before it a non-event.

Computed, not simulated: the law of `course.py`, followed backwards over the years of the horizon for every state of a
resident without the outcome. Moves are censoring and leave the risk as it is. Falls have a law of their own
(`fall_risk.py`), since what is recorded of them depends on what was asked when.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from features.sources.county.course import Course
from features.sources.county.hazards import STATES, Rates
from features.sources.county.period import Days, Floats

HORIZON_YEARS = {"hypertension": 4, "diabetes_complication": 5, "fall": 1}
# Below this a hazard is none: keeps the formula for a constant hazard from dividing by nothing.
NONE = 1e-12


@dataclass(frozen=True)
class Law:
    """The yearly hazards of a year by state, each of shape (3, 3, 2, residents).

    `hypertension`, `diabetes` and `complication` are those of leaving a level of that part of the state for the next.
    """

    outcome: Floats
    death: Floats
    hypertension: Floats
    diabetes: Floats
    complication: Floats


def cumulative_incidence(years: list[Law]) -> Floats:
    """Return the probability of the outcome before death over consecutive years, by state at their start.

    In a year with hazards a (outcome) and m (death, at any moment of it alike), the outcome comes first with
    probability ``exp(-m) (1 - exp(-a)) + (1 - exp(-m)) (1 - (1 - exp(-a)) / a)``.

    Parameters
    ----------
    years : the law of each year, in order

    Returns
    -------
    shape (3, 3, 2, residents)
    """
    risk = np.zeros_like(years[0].outcome)
    for law in reversed(years):
        outcome = np.maximum(law.outcome, NONE)
        spared, alive = np.exp(-outcome), np.exp(-law.death)
        comes = alive * (1 - spared) + (1 - alive) * (1 + np.expm1(-outcome) / outcome)
        risk = comes + alive * spared * _after_moving(risk, law)
    return risk


def _after_moving(risk: Floats, law: Law) -> Floats:
    """Return the expected risk at the end of a year, given the state at its start.

    Each part of the state goes on by a level or stays, and none knows of the others.
    """
    if not risk.any():
        return risk
    chances = [-np.expm1(-yearly) for yearly in (law.hypertension, law.diabetes, law.complication)]
    expected = np.zeros_like(risk)
    for steps in product((0, 1), repeat=len(STATES)):
        parts = (chance if step else 1 - chance for chance, step in zip(chances, steps, strict=True))
        then = [np.minimum(np.arange(size) + step, size - 1) for size, step in zip(STATES, steps, strict=True)]
        expected += np.prod(np.broadcast_arrays(*parts), axis=0) * risk[np.ix_(*then)]
    return expected


def recorded_risk(target: str, year: int, who: Days, course: Course, rates: Rates) -> Floats:
    """Return the true risk, from the first day of a year, of having hypertension found or a complication of diabetes.

    Parameters
    ----------
    who : those at risk, as places in the block, shape (who,)
    rates : of the whole block

    Returns
    -------
    shape (who,)
    """
    rates, diabetes = rates.among(who), course.began["diabetes"][who]
    laws = [_law(target, each, rates, diabetes) for each in range(year, year + HORIZON_YEARS[target])]
    levels = (level[who] for level in course.state(rates.period.new_year(year)))
    risk: Floats = cumulative_incidence(laws)[(*levels, np.arange(len(who)))]
    return risk


def _law(target: str, year: int, rates: Rates, diabetes: Days) -> Law:
    """Return the law of a year; the outcome itself leads to no other state."""
    complication = sum_of_complications(year, rates, diabetes)
    if target == "hypertension":
        outcome, hypertension = rates.by_state("hypertension_detection", year), rates.by_state("hypertension", year)
    else:
        outcome, hypertension = complication, _leaving("hypertension", year, rates)
        complication = np.zeros_like(complication)
    return Law(
        outcome=outcome,
        death=rates.by_state("death", year),
        hypertension=hypertension,
        diabetes=_leaving("diabetes", year, rates),
        complication=complication,
    )


def _leaving(disease: str, year: int, rates: Rates) -> Floats:
    """Return the hazard of going on from each level: of the beginning, then of being found."""
    return rates.by_state(disease, year) + rates.by_state(f"{disease}_detection", year)


def sum_of_complications(year: int, rates: Rates, diabetes: Days) -> Floats:
    """Return the hazard of a complication of any kind, by state."""
    total = np.zeros((*STATES, len(diabetes)))
    for _, by_state in rates.complications(year, diabetes):
        total += by_state
    return total
