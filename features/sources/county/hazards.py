"""How often things happen: yearly hazards, log-linear in what a resident is like.

    log hazard = log(yearly_rate) + sum of log(ratio) * (covariate - reference) / per

over the rows of `effects.csv`. Some terms are no part of what a resident is like but of what has happened, the
resident's state: hypertension and diabetes (0 not there, 1 there, 2 there and found) and whether there is a
complication. They multiply, as do the years of diabetes beyond the fifth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from features.sources.county.period import DAYS_A_YEAR, Days, Flags, Floats, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rows

LEVELS = {
    "hypertension": ("hypertension", "hypertension_found"),
    "diabetes": ("diabetes", "diabetes_found"),
    "complication": ("complication",),
}
STATES = (3, 3, 2)
DURATION = "years_beyond_five"
OF_STATE = frozenset({DURATION, *(term for terms in LEVELS.values() for term in terms)})
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


@cache
def kinds_of_complication() -> tuple[str, ...]:
    """Return the processes that end in a complication of diabetes, or without it in the same disease."""
    return tuple(row["process"] for row in rows("processes") if row["is_complication"] == "1")


def linear_predictor(process: str, residents: Residents, age: Floats) -> Floats:
    """Return the sum of the effects of what residents are like at an age, shape of `age`."""
    total = np.zeros_like(age)
    for effect in effects(process).values():
        if effect.term not in OF_STATE:
            distance = residents.covariate(effect.term, age) - effect.reference
            total += effect.log_ratio / effect.per * distance
    return total


def hazard(process: str, residents: Residents, age: Floats) -> Floats:
    """Return the yearly hazard at an age, without what has happened."""
    yearly: Floats = yearly_rate(process) * np.exp(linear_predictor(process, residents, age))
    return yearly


@cache
def state_ratio(process: str) -> Floats:
    """Return what the state multiplies a hazard by, of shape `STATES`; 0 where the process cannot happen."""
    known = effects(process)
    logs = [np.cumsum([0.0, *(known[t].log_ratio if t in known else 0.0 for t in terms)]) for terms in LEVELS.values()]
    ratio: Floats = np.exp(logs[0][:, None, None] + logs[1][:, None] + logs[2])
    return np.where(_possible(process), ratio, 0.0)


def _possible(process: str) -> Flags:
    """Return in which states a process can happen: its row says of which disease the level must be which."""
    needs = next(row for row in rows("processes") if row["process"] == process)
    level = dict(zip(LEVELS, np.indices(STATES), strict=True))
    possible = np.ones(STATES, bool)
    if needs["needs"]:
        possible = level[needs["needs"]] == int(needs["level"])
    return possible


def ratio_of_duration(process: str, years_of_diabetes: Floats) -> Floats:
    """Return what the years of diabetes beyond the fifth multiply the hazard of a complication by.

    The first five do not count, so that a diabetes that begins within a horizon adds no state to follow.
    """
    known = effects(process)
    if DURATION not in known:
        return np.ones_like(years_of_diabetes)
    ratio: Floats = np.exp(known[DURATION].log_ratio / known[DURATION].per * np.maximum(years_of_diabetes - 5, 0))
    return ratio


@dataclass(frozen=True)
class Rates:
    """The yearly hazards, without the state, of the year before the period, its years and the five after.

    Each process has shape (1 + years + 5, residents).
    """

    period: Period
    base: dict[str, Floats]

    @classmethod
    def of(cls, residents: Residents, period: Period) -> "Rates":
        """Evaluate every process in the middle of every year."""
        middle = np.array([_middle(period, year) for year in range(-1, period.years + YEARS_BEYOND)])
        age = residents.age(middle[:, None])
        return cls(period, {row["process"]: hazard(row["process"], residents, age) for row in rows("processes")})

    def among(self, who: Days) -> "Rates":
        """Return the rates of some residents."""
        return Rates(self.period, {process: base[:, who] for process, base in self.base.items()})

    def changed(self, ratios: dict[str, Floats], first: int = -1) -> "Rates":
        """Return the rates with some processes multiplied, shape (residents,), from a year of the period on."""
        base = dict(self.base)
        for process, ratio in ratios.items():
            base[process] = base[process].copy()
            base[process][first + 1 :] *= ratio
        return Rates(self.period, base)

    def by_state(self, process: str, year: int) -> Floats:
        """Return a hazard of a year by state, shape (3, 3, 2, residents)."""
        by_state: Floats = state_ratio(process)[..., None] * self.base[process][year + 1]
        return by_state

    def complications(self, year: int, diabetes: Days) -> Iterator[tuple[str, Floats]]:
        """Yield each kind of complication and its hazard by state.

        Parameters
        ----------
        diabetes : the day on which it began, shape (residents,)
        """
        years = (_middle(self.period, year) - diabetes) / DAYS_A_YEAR
        for kind in kinds_of_complication():
            by_state = self.by_state(kind, year)
            by_state[:, 1:] *= ratio_of_duration(kind, years)
            yield kind, by_state


def _middle(period: Period, year: int) -> float:
    return (period.new_year(year) + period.new_year(year + 1)) / 2
