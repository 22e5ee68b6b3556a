"""What befalls the residents, quarter by quarter.

Within a quarter, hazards are held at what they are at its start and processes do not know of each other, but that
death or a move ends them all. That is the whole law of the county: `risk.py` follows it forward exactly.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from features.sources.county.hazards import Rates, hazard, ratio_of_duration
from features.sources.county.period import DAYS_A_YEAR, NEVER, QUARTERS, Days, Flags, Floats, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rows

PAST_YEARS, PAST_STEP = 60, 5
PROGRAMME_FROM = 2009


@dataclass
class Course:
    """What has happened so far, and when: days of shape (residents,), `NEVER` where it has not.

    `falls` and `complications` recur: pairs of who (the place in the block) and day.
    """

    hypertension: Days
    diabetes: Days
    complication: Days
    death: Days
    move: Days
    falls: list[tuple[Days, Days]] = field(default_factory=list)
    complications: list[tuple[Days, Days]] = field(default_factory=list)

    @property
    def left(self) -> Days:
        """The day of death or of the move, whichever came first."""
        return np.minimum(self.death, self.move)

    def state(self, day: int) -> tuple[Flags, Flags]:
        """Return whether diabetes and a complication were there before a day."""
        return self.diabetes < day, self.complication < day


def past(residents: Residents, period: Period, rng: Generator) -> Course:
    """Draw what happened before the record begins: the same hazards, dampened as long as fewer were examined."""
    edges = period.start - DAYS_A_YEAR * np.arange(PAST_YEARS, -1, -PAST_STEP)
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None]
    age = residents.age(middle)
    found = {
        row["process"]: hazard(row["process"], residents, age) * _examined(row, middle) * (age > 0)
        for row in rows("processes")
    }
    hypertension = _first_arrival(found["hypertension"], edges, rng)
    diabetes = _first_arrival(found["diabetes"], edges, rng)
    after = found["complication"] * ratio_of_duration((middle - diabetes) / DAYS_A_YEAR)
    complication = _first_arrival(np.where(middle > diabetes, after, found["cardiovascular"]), edges, rng)
    never = np.full(len(residents), NEVER, np.int64)
    return Course(hypertension, diabetes, complication, never.copy(), never.copy())


def _examined(process: dict[str, str], day: Floats) -> Floats:
    """Return which share of a hazard was found at a time, shape of `day`."""
    before = 1970 + day / DAYS_A_YEAR < PROGRAMME_FROM
    return np.where(before, float(process["before_2009"]), float(process["since_2009"]))


def _first_arrival(yearly: Floats, edges: Floats, rng: Generator) -> Days:
    """Draw when an event first comes under a hazard that is constant between edges, shape (residents,)."""
    width = np.diff(edges)[:, None]
    total = np.cumsum(yearly * width / DAYS_A_YEAR, axis=0)
    due = rng.exponential(size=yearly.shape[1])
    step = np.minimum((total < due).sum(axis=0), len(total) - 1)
    who = np.arange(yearly.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        day = edges[step + 1] - (total[step, who] - due) / yearly[step, who] * DAYS_A_YEAR
    return np.where(due <= total[-1], np.floor(day), NEVER).astype(np.int64)


def live_through(year: int, course: Course, residents: Residents, rates: Rates, rng: Generator) -> None:
    """Carry a course through the four quarters of a year of the period."""
    quarters = rates.period.quarters_from[QUARTERS * year : QUARTERS * (year + 1) + 1]
    for start, end in pairwise(quarters.tolist()):
        _Quarter(start, end - start, year, course, residents, rates, rng).live()


@dataclass(frozen=True)
class _Quarter:
    start: int
    days: int
    year: int
    course: Course
    residents: Residents
    rates: Rates
    rng: Generator

    def live(self) -> None:
        """Draw what happens, and write it down unless death or a move came before."""
        course = self.course
        here = (self.residents.born < self.start) & (course.left == NEVER)
        death, move = self._death(here), self._arrival("move", here)
        until = np.minimum(np.minimum(death, move), 1)
        for name in ("hypertension", "diabetes"):
            day = getattr(course, name)
            self._enter(day, self._arrival(name, here & (day == NEVER)), until)
        self._complications(here, until)
        self._falls(here, until)
        self._enter(course.death, death, np.minimum(move, 1))
        self._enter(course.move, move, np.minimum(death, 1))

    def _hazard(self, by_state: Floats) -> Floats:
        """Return each resident's hazard of a quarter, given what happened before it began."""
        diabetes, complication = self.course.state(self.start)
        who = np.arange(len(self.residents))
        quarterly: Floats = by_state[diabetes.astype(int), complication.astype(int), who] / QUARTERS
        return quarterly

    def _death(self, here: Flags) -> Floats:
        """Draw the fraction of the quarter after which death comes, infinite where it does not."""
        quarterly = self._hazard(self.rates.by_state("death", self.year))
        dies = self.rng.random(len(here)) < -np.expm1(-quarterly)
        return np.where(here & dies, self.rng.random(len(here)), np.inf)

    def _arrival(self, process: str, free: Flags) -> Floats:
        """Draw the fraction of the quarter after which something comes; above one or infinite where it does not."""
        quarterly = self._hazard(self.rates.by_state(process, self.year))
        return np.where(free, self.rng.exponential(size=len(free)) / quarterly, np.inf)

    def _enter(self, day: Days, fraction: Floats, until: Floats) -> Days:
        """Write the day of what came before `until`, and return whom it came to."""
        who = np.flatnonzero(fraction < until)
        day[who] = self._day(fraction[who])
        return who

    def _complications(self, here: Flags, until: Floats) -> None:
        quarterly = self._hazard(self.rates.vascular(self.year, self.course.diabetes))
        fraction = np.where(here, self.rng.exponential(size=len(here)) / quarterly, np.inf)
        who = np.flatnonzero(fraction < until)
        day = self._day(fraction[who])
        self.course.complications.append((who, day))
        self.course.complication[who] = np.minimum(self.course.complication[who], day)

    def _falls(self, here: Flags, until: Floats) -> None:
        quarterly = self._hazard(self.rates.by_state("fall", self.year))
        who = np.repeat(np.arange(len(here)), self.rng.poisson(np.where(here, quarterly, 0)))
        fraction = self.rng.random(len(who))
        before = fraction < until[who]
        self.course.falls.append((who[before], self._day(fraction[before])))

    def _day(self, fraction: Floats) -> Days:
        return self.start + np.floor(fraction * self.days).astype(np.int64)
