"""Who lives in the county, and what each is like: the slow attributes that nobody records.

A trait is a straight line over age, drawn once; a condition begins at an age drawn once; a habit stays. So what a
resident is like at any time, past or to come, follows from the draw, and a true risk can be computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from features.sources.county.period import DAYS_A_YEAR, Days, Flags, Floats, Period
from features.sources.county.tables import rate, rows

# A trait is level before grown up and after this age.
GROWN, OLD = 18.0, 90.0


@dataclass(frozen=True)
class Trait:
    """A usual value as a straight line over age: `at_50` and `per_year`, each of shape (residents,)."""

    at_50: Floats
    per_year: Floats
    low: float
    high: float

    def level(self, age: Floats, who: Days | slice = slice(None)) -> Floats:
        """Return the usual value at an age, shape of `age` with `who` along its last axis."""
        line = self.at_50[who] + self.per_year[who] * (np.clip(age, GROWN, OLD) - 50)
        return np.clip(line, self.low, self.high)


@dataclass(frozen=True)
class Residents:
    """A block of residents, arrays of shape (residents,).

    Parameters
    ----------
    born : day of birth
    education : 1 none to 5 college
    township : the row of `townships.csv`
    onset : per condition, the age at which it begins
    """

    subject_id: Days
    born: Days
    female: Floats
    education: Floats
    township: Days
    traits: dict[str, Trait]
    habits: dict[str, Floats]
    onset: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.subject_id)

    def age(self, day: Floats | Days | int, who: Days | slice = slice(None)) -> Floats:
        """Return the age in years on a day."""
        return (day - self.born[who]) / DAYS_A_YEAR

    def covariate(self, term: str, age: Floats) -> Floats:
        """Return what a term of `effects.csv` is at an age, shape (…, residents) or (residents,)."""
        if term in self.traits:
            return self.traits[term].level(age)
        if term in self.onset:
            return (age >= self.onset[term]).astype(np.float64)
        if term in self.habits:
            return self.habits[term]
        return _OTHER[term](self, age)


_OTHER: dict[str, Callable[[Residents, Floats], Floats]] = {
    "age": lambda residents, age: age,
    "female": lambda residents, age: residents.female,
    "education": lambda residents, age: residents.education,
    "smokes": lambda residents, age: (residents.habits["smoking"] == 2) * (age >= GROWN),
    "under_18": lambda residents, age: (age < 18) * 1.0,
    "under_45": lambda residents, age: (age < 45) * 1.0,
    "under_35": lambda residents, age: (age < 35) * 1.0,
    "under_65": lambda residents, age: (age < 65) * 1.0,
    "young_adult": lambda residents, age: ((age >= 18) & (age < 35)) * 1.0,
}


def settle(first_id: int, count: int, period: Period, rng: Generator) -> Residents:
    """Draw `count` residents, numbered from `first_id`: those at home on the first day and those born later."""
    band = rng.choice(len(rows("pyramid")), count, p=_shares("pyramid", "share"))
    born, male_share = _born(band, period, rng), _column("pyramid", "male_share")[band]
    female = (rng.random(count) >= male_share).astype(np.float64)
    township = rng.choice(len(rows("townships")), count, p=_shares("townships", "share"))
    scores = _scores(count, rng)
    scores["remoteness"] += _column("townships", "remoteness")[township]
    return Residents(
        subject_id=np.arange(first_id, first_id + count),
        born=born,
        female=female,
        education=_education(born, female, period, rng),
        township=township,
        traits=_traits(scores, female, rng),
        habits={"rural": _column("townships", "rural")[township], **_habits(female, rng)},
        onset=_onsets(scores["frailty"], female, rng),
    )


def _born(band: Days, period: Period, rng: Generator) -> Days:
    low, high = _column("pyramid", "age_from")[band], _column("pyramid", "age_below")[band]
    before = period.start - 1 - (low + rng.random(len(band)) * (high - low)) * DAYS_A_YEAR
    births = rate("births") * period.years
    newborn = rng.random(len(band)) < births / (1 + births)
    during = period.start + rng.random(len(band)) * (period.end - period.start)
    return np.floor(np.where(newborn, during, before)).astype(np.int64)


def _education(born: Days, female: Floats, period: Period, rng: Generator) -> Floats:
    """Draw schooling: the younger the more, and of the old women the least."""
    younger = 60 - (period.start - born) / DAYS_A_YEAR
    score = rng.standard_normal(len(born)) + rate("schooling_per_year") * younger
    score += rate("schooling_female") * female * (younger < 0)
    steps = [rate(f"schooling_{school}") for school in ("primary", "middle", "high", "college")]
    return np.searchsorted(steps, score) + 1.0


def _scores(count: int, rng: Generator) -> dict[str, Floats]:
    """Draw a standard normal score per trait, correlated with that of the trait it follows."""
    scores: dict[str, Floats] = {}
    for row in rows("traits"):
        own, correlation = rng.standard_normal(count), float(row["correlation"])
        followed = scores.get(row["follows"], own)
        scores[row["trait"]] = correlation * followed + np.sqrt(1 - correlation**2) * own
    return scores


def _traits(scores: dict[str, Floats], female: Floats, rng: Generator) -> dict[str, Trait]:
    traits = {}
    for row in rows("traits"):
        name = row["trait"]
        mean = np.where(female, float(row["female"]), float(row["male"]))
        decade = np.where(female, float(row["per_decade_female"]), float(row["per_decade_male"]))
        decade = decade + float(row["per_decade_sd"]) * rng.standard_normal(len(female))
        at_50 = mean + float(row["sd"]) * scores[name]
        traits[name] = Trait(at_50, decade / 10, float(row["low"]), float(row["high"]))
    return traits


def _habits(female: Floats, rng: Generator) -> dict[str, Floats]:
    names = dict.fromkeys(row["habit"] for row in rows("habits"))
    return {name: _habit(name, female == 1, rng) for name in names}


def _habit(name: str, female: Flags, rng: Generator) -> Floats:
    levels = [row for row in rows("habits") if row["habit"] == name]
    shares = np.array([[float(row["male"]), float(row["female"])] for row in levels])
    above = rng.random(len(female))[:, None] > np.cumsum(shares, axis=0)[:-1].T[female.astype(int)]
    drawn: Floats = np.array([float(row["level"]) for row in levels])[above.sum(axis=1)]
    return drawn


def _onsets(frailty: Floats, female: Floats, rng: Generator) -> dict[str, Floats]:
    """Draw the age at which each condition begins, normal about its centre; the frail are earlier."""
    onsets = {}
    for row in rows("conditions"):
        loading = float(row["frailty"])
        score = np.sqrt(1 - loading**2) * rng.standard_normal(len(female)) - loading * frailty
        age = float(row["centre_age"]) + float(row["female_years"]) * female + float(row["spread_years"]) * score
        onsets[row["condition"]] = np.maximum(age, GROWN)
    return onsets


def _column(table: str, column: str) -> Floats:
    return np.array([float(row[column]) for row in rows(table)])


def _shares(table: str, column: str) -> Floats:
    shares = _column(table, column)
    normal: Floats = shares / shares.sum()
    return normal
