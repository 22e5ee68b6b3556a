"""The true risk: the probability that an outcome is recorded within the horizon, death before it a non-event.

Computed, not simulated: the law of `course.py`, followed backwards over the quarters of the horizon for the four
states of a resident without the outcome (diabetes or not, complication or not). Moves are censoring and leave the
risk as it is.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.sources.county.course import Course
from features.sources.county.hazards import Rates
from features.sources.county.period import QUARTERS, Days, Flags, Floats
from features.sources.county.residents import Residents

HORIZON_YEARS = {"hypertension": 4, "diabetes_complication": 5, "fall": 1}
SCHEMA = {
    "subject_id": pl.Int64(),
    "day": pl.Int64(),
    "target": pl.String(),
    "risk": pl.Float64(),
    "log_hazard": pl.Float64(),
}


@dataclass(frozen=True)
class Law:
    """The yearly hazards of a year by diabetes and complication, each of shape (2, 2, residents)."""

    outcome: Floats
    death: Floats
    diabetes: Floats
    complication: Floats


def cumulative_incidence(years: list[Law]) -> Floats:
    """Return the probability of the outcome before death over consecutive years, by state at their start.

    In a quarter with hazards a (outcome) and m (death, at any moment of it alike), the outcome comes first with
    probability ``exp(-m) (1 - exp(-a)) + (1 - exp(-m)) (1 - (1 - exp(-a)) / a)``.

    Parameters
    ----------
    years : the law of each year, in order

    Returns
    -------
    shape (2, 2, residents)
    """
    risk = np.zeros_like(years[0].outcome)
    for law in reversed(years):
        outcome, death = law.outcome / QUARTERS, law.death / QUARTERS
        spared, alive = np.exp(-outcome), np.exp(-death)
        comes = alive * (1 - spared) + (1 - alive) * (1 + np.expm1(-outcome) / outcome)
        to_diabetes = -np.expm1(-law.diabetes / QUARTERS)
        to_complication = -np.expm1(-law.complication / QUARTERS)
        for _ in range(QUARTERS):
            risk = comes + alive * spared * _after_moving(risk, to_diabetes, to_complication)
    return risk


def _after_moving(risk: Floats, to_diabetes: Floats, to_complication: Floats) -> Floats:
    """Return the expected risk at the end of a quarter, given the state at its start."""
    diabetes = to_diabetes[0]
    then = np.stack([(1 - diabetes) * risk[0] + diabetes * risk[1], risk[1]])
    moved = then.copy()
    moved[:, 0] = (1 - to_complication[:, 0]) * then[:, 0] + to_complication[:, 0] * then[:, 1]
    return moved


def true_risks(year: int, course: Course, residents: Residents, rates: Rates) -> pl.DataFrame:
    """Return the true risk of every resident at risk on the first day of a year, for every target."""
    day = rates.period.new_year(year)
    diabetes, complication = course.state(day)
    here = (residents.born <= day) & (course.left >= day)
    age = residents.age(day)
    at_risk = {
        "hypertension": here & (age >= 18) & (course.hypertension >= day),
        "diabetes_complication": here & diabetes & ~complication,
        "fall": here & (age >= 65),
    }
    return pl.concat([_of_target(target, year, who, course, residents, rates) for target, who in at_risk.items()])


def _of_target(
    target: str, year: int, at_risk: Flags, course: Course, residents: Residents, rates: Rates
) -> pl.DataFrame:
    day = rates.period.new_year(year)
    who = np.flatnonzero(at_risk)
    diabetes, complication = (flags[who].astype(int) for flags in course.state(day))
    laws = _laws(target, year, rates.among(who), course.diabetes[who])
    place = (diabetes, complication, np.arange(len(who)))
    return pl.DataFrame(
        {
            "subject_id": residents.subject_id[who],
            "day": np.full(len(who), day),
            "target": [target] * len(who),
            "risk": cumulative_incidence(laws)[place],
            "log_hazard": np.log(laws[0].outcome[place]),
        },
        schema=SCHEMA,
    )


def _laws(target: str, first: int, rates: Rates, diabetes: Days) -> list[Law]:
    return [_law(target, year, rates, diabetes) for year in range(first, first + HORIZON_YEARS[target])]


def _law(target: str, year: int, rates: Rates, diabetes: Days) -> Law:
    vascular = rates.vascular(year, diabetes)
    death, to_diabetes = rates.by_state("death", year), rates.by_state("diabetes", year)
    if target == "diabetes_complication":
        # The complication is the outcome itself, and leads to no other state.
        return Law(vascular, death, to_diabetes, np.zeros_like(vascular))
    return Law(rates.by_state(target, year), death, to_diabetes, vascular)
