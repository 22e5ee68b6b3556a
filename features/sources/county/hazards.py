"""How often things happen: yearly hazards, log-linear in what a resident is like.

    log hazard = log(yearly_rate) + sum of log(ratio) * (covariate - reference) / per

over the rows of `effects.csv`. Three terms are no part of what a resident is like but of what has happened: recorded
diabetes, a recorded complication, and the years of diabetes beyond the fifth. They multiply.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from features.sources.county.period import DAYS_A_YEAR, Days, Floats, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rows

STATE = frozenset({"diabetes", "complication", "years_beyond_five"})
# How far the longest horizon looks past the last index time.
YEARS_BEYOND = 5


class Effect(NamedTuple):
    """A row of `effects.csv`: the hazard is multiplied by ``exp(log_ratio)`` per `per` units above the reference."""

    term: str
    reference: float
    per: float
    log_ratio: float


@cache
def effects(process: str) -> dict[str, Effect]:
    """Return the effects upon a process, by term."""
    return {
        row["term"]: Effect(row["term"], float(row["reference"]), float(row["per"]), float(np.log(float(row["ratio"]))))
        for row in rows("effects")
        if row["process"] == process
    }


@cache
def yearly_rate(process: str) -> float:
    """Return a process's yearly rate for a resident at all references."""
    return next(float(row["yearly_rate"]) for row in rows("processes") if row["process"] == process)


def linear_predictor(process: str, residents: Residents, age: Floats) -> Floats:
    """Return the sum of the effects of what residents are like at an age, shape of `age`."""
    total = np.zeros_like(age)
    for effect in effects(process).values():
        if effect.term not in STATE:
            distance = residents.covariate(effect.term, age) - effect.reference
            total += effect.log_ratio / effect.per * distance
    return total


def hazard(process: str, residents: Residents, age: Floats) -> Floats:
    """Return the yearly hazard at an age, without what has happened."""
    yearly: Floats = yearly_rate(process) * np.exp(linear_predictor(process, residents, age))
    return yearly


@cache
def state_ratio(process: str) -> Floats:
    """Return what recorded diabetes and a recorded complication multiply a hazard by, shape (2, 2) in that order."""
    known = effects(process)
    logs = [known[term].log_ratio if term in known else 0.0 for term in ("diabetes", "complication")]
    return np.exp(np.array([[0, logs[1]], [logs[0], logs[0] + logs[1]]], np.float64))


def ratio_of_duration(years_of_diabetes: Floats) -> Floats:
    """Return what the years of diabetes beyond the fifth multiply the hazard of a complication by.

    The first five do not count, so that a diabetes that begins within a horizon adds no state to follow.
    """
    effect = effects("complication")["years_beyond_five"]
    ratio: Floats = np.exp(effect.log_ratio / effect.per * np.maximum(years_of_diabetes - 5, 0))
    return ratio


@dataclass(frozen=True)
class Rates:
    """The yearly hazards of the years of a period and the five after, each process of shape (years + 5, residents)."""

    period: Period
    base: dict[str, Floats]

    @classmethod
    def of(cls, residents: Residents, period: Period) -> "Rates":
        """Evaluate every process in the middle of every year."""
        middle = np.array([_middle(period, year) for year in range(period.years + YEARS_BEYOND)])
        age = residents.age(middle[:, None])
        return cls(period, {row["process"]: hazard(row["process"], residents, age) for row in rows("processes")})

    def among(self, who: Days) -> "Rates":
        """Return the rates of some residents."""
        return Rates(self.period, {process: base[:, who] for process, base in self.base.items()})

    def by_state(self, process: str, year: int) -> Floats:
        """Return a hazard by diabetes and complication, shape (2, 2, residents)."""
        by_state: Floats = state_ratio(process)[:, :, None] * self.base[process][year]
        return by_state

    def vascular(self, year: int, diabetes: Days) -> Floats:
        """Return the hazard of a complication, or without diabetes of a cardiovascular event, shape (2, 2, residents).

        Parameters
        ----------
        diabetes : the day it was recorded, shape (residents,)
        """
        by_state = self.by_state("cardiovascular", year)
        duration = (_middle(self.period, year) - diabetes) / DAYS_A_YEAR
        by_state[1] = self.by_state("complication", year)[1] * ratio_of_duration(duration)
        return by_state


def _middle(period: Period, year: int) -> float:
    return (period.new_year(year) + period.new_year(year + 1)) / 2
