"""What befalls the residents, year by year.

Within a calendar year, hazards are held at what they are at its start and processes do not know of each other, but that
death or a move ends them all. That is the whole law of the county: `risk.py` follows it forward exactly.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from features.sources.county.dice import Dice
from features.sources.county.hazards import Rates, hazard, kinds_of_complication, ratio_of_duration, state_ratio
from features.sources.county.period import DAYS_A_YEAR, NEVER, Days, Flags, Floats, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows

PAST_YEARS, PAST_STEP = 60, 2
PROGRAMME_FROM = 2009
# Few have more bouts of falls in a year.
MOST_FALLS = 12
# What has a beginning that is hidden, and a day on which it is found.
DISEASES = ("hypertension", "diabetes")


@dataclass(frozen=True)
class Falls:
    """Bouts of falls, arrays of one shape: who fell (places in the block), on which day, whether it was noted at once.

    A bout is one fall or a few within days (`times`), dated by the first and noted as one.
    """

    who: Days
    day: Days
    noted: Flags
    times: Days

    def __getitem__(self, some: Flags | Days) -> "Falls":
        return Falls(self.who[some], self.day[some], self.noted[some], self.times[some])

    @classmethod
    def together(cls, parts: list["Falls"]) -> "Falls":
        """Return the falls of several parts as one."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def bouts(self, who: Days, since: Days | int, before: Days | int) -> Days:
        """Return how many bouts each of `who` had on the days ``[since, before)``, shape of `who`."""
        return self._sum(np.ones_like(self.times), who, since, before)

    def falls(self, who: Days, since: Days | int, before: Days | int) -> Days:
        """Return how often each of `who` fell on the days ``[since, before)``, shape of `who`."""
        return self._sum(self.times, who, since, before)

    def _sum(self, weight: Days, who: Days, since: Days | int, before: Days | int) -> Days:
        keys = self.who * NEVER + self.day
        order = np.argsort(keys, kind="stable")
        until = np.concatenate([[0], np.cumsum(weight[order])])
        last, first = (np.searchsorted(keys[order], who * NEVER + edge) for edge in (before, since))
        counted: Days = until[last] - until[first]
        return counted


@dataclass
class Course:
    """What has happened so far, and when: days of shape (residents,), `NEVER` where it has not.

    `began` and `found` are of hypertension and diabetes, `complications` of each kind's first.
    """

    began: dict[str, Days]
    found: dict[str, Days]
    complications: dict[str, Days]
    death: Days
    move: Days
    falls_by_year: list[Falls] = field(default_factory=list)

    @property
    def left(self) -> Days:
        """The day of death or of the move, whichever came first."""
        return np.minimum(self.death, self.move)

    @property
    def complication(self) -> Days:
        """The day of the first complication."""
        first: Days = np.minimum.reduce(list(self.complications.values()))
        return first

    @property
    def falls(self) -> Falls:
        """Every fall, noted or not, those of the year before the record included."""
        return Falls.together(self.falls_by_year)

    def state(self, day: int) -> tuple[Days, Days, Days]:
        """Return the levels of hypertension, diabetes and complication before a day."""
        levels = [(self.began[name] < day).astype(np.int64) + (self.found[name] < day) for name in DISEASES]
        return levels[0], levels[1], (self.complication < day).astype(np.int64)


def past(residents: Residents, period: Period, rates: Rates, dice: Dice) -> Course:
    """Draw what happened before the record begins: the same hazards, dampened where less was looked for."""
    history = _History(residents, period, dice)
    began = {name: history.first(name) for name in DISEASES}
    found = {name: history.first(f"{name}_detection", began[name]) for name in DISEASES}
    complications = {kind: history.complication(kind, began, found) for kind in kinds_of_complication()}
    never = np.full(len(residents), NEVER, np.int64)
    course = Course(began, found, complications, never.copy(), never.copy())
    _Year(-1, course, residents, rates, dice).fall()
    return course


class _History:
    """The decades before the record, in steps of which each has one hazard."""

    def __init__(self, residents: Residents, period: Period, dice: Dice) -> None:
        self.residents, self.dice = residents, dice
        self.edges = period.start - DAYS_A_YEAR * np.arange(PAST_YEARS, -1, -PAST_STEP)
        self.middle = ((self.edges[1:] + self.edges[:-1]) / 2)[:, None]
        self.age = residents.age(self.middle)

    def first(self, process: str, after: Days | None = None) -> Days:
        """Draw when a process first came, after something else where that is given."""
        yearly = self._hazard(process)
        if after is None:
            return self._arrival(process, yearly)
        return np.maximum(self._arrival(process, yearly * (self.middle > after)), after)

    def complication(self, kind: str, began: dict[str, Days], found: dict[str, Days]) -> Days:
        """Draw when a complication of a kind first came, given when the diseases began and were found."""
        levels = [(self.middle > began[name]).astype(int) + (self.middle > found[name]) for name in DISEASES]
        duration = ratio_of_duration(kind, (self.middle - began["diabetes"]) / DAYS_A_YEAR)
        return self._arrival(kind, self._hazard(kind) * state_ratio(kind)[levels[0], levels[1], 0] * duration)

    def _hazard(self, process: str) -> Floats:
        row = next(row for row in rows("processes") if row["process"] == process)
        early = 1970 + self.middle / DAYS_A_YEAR < PROGRAMME_FROM
        seen = np.where(early, float(row["before_2009"]), float(row["since_2009"]))
        yearly: Floats = hazard(process, self.residents, self.age) * seen * (self.age > 0)
        return yearly

    def _arrival(self, process: str, yearly: Floats) -> Days:
        return _first_arrival(yearly, self.edges, self.dice.of(f"past {process}"))


def _first_arrival(yearly: Floats, edges: Floats, rng: Generator) -> Days:
    """Draw when an event first comes under a hazard that is constant between edges, shape (residents,)."""
    width = np.diff(edges)[:, None]
    total = np.cumsum(yearly * width / DAYS_A_YEAR, axis=0)
    due = rng.exponential(size=yearly.shape[1])
    step = np.minimum((total < due).sum(axis=0), len(total) - 1)
    who = np.arange(yearly.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        day = edges[step + 1] - (total[step, who] - due) / yearly[step, who] * DAYS_A_YEAR
    return np.where(due <= total[-1], np.floor(np.where(due <= total[-1], day, 0)), NEVER).astype(np.int64)


def live_through(year: int, course: Course, residents: Residents, rates: Rates, dice: Dice) -> None:
    """Carry a course through a year of the period."""
    _Year(year, course, residents, rates, dice).live()


class _Year:
    """A calendar year: the state at its start decides the hazards of all of it."""

    def __init__(self, year: int, course: Course, residents: Residents, rates: Rates, dice: Dice) -> None:
        self.year, self.course, self.rates, self.dice = year, course, rates, dice
        self.start, self.end = rates.period.new_year(year), rates.period.new_year(year + 1)
        self.here = (residents.born < self.start) & (course.left == NEVER)
        self.state = (*course.state(self.start), np.arange(len(residents)))
        self.until = np.ones(len(residents))

    def live(self) -> None:
        """Draw what happens, and write it down unless death or a move came before."""
        course = self.course
        death, move = self._death(), self._arrival("move", self._hazard("move"))
        self.until = np.minimum(np.minimum(death, move), 1)
        for name in DISEASES:
            self._enter(course.began[name], self._arrival(name, self._hazard(name)))
            detection = f"{name}_detection"
            self._enter(course.found[name], self._arrival(detection, self._hazard(detection)))
        for kind, by_state in self.rates.complications(self.year, course.began["diabetes"]):
            self._enter(course.complications[kind], self._arrival(kind, by_state[self.state]))
        self.fall()
        self.until = np.ones(len(move))
        self._enter(course.death, np.where(death <= move, death, np.inf))
        self._enter(course.move, np.where(move < death, move, np.inf))

    def fall(self) -> None:
        """Draw the falls: how many bouts, when, which are noted at once, and how many falls each is."""
        rng = self.dice.of("fall", self.year)
        number = _poisson(np.where(self.here, self._hazard("fall"), 0), rng.random(len(self.here)))
        when, noted, more = rng.random((3, len(number), MOST_FALLS))
        fell = (np.arange(MOST_FALLS) < number[:, None]) & (when < self.until[:, None])
        times = 1 + sum((more[fell] < rate("fall_again") ** each).astype(np.int64) for each in (1, 2, 3))
        falls = Falls(np.nonzero(fell)[0], self._day(when[fell]), noted[fell] < rate("fall_noted"), times)
        self.course.falls_by_year.append(falls)

    def _hazard(self, process: str) -> Floats:
        """Return each resident's hazard of the year, given what happened before it began."""
        hazards: Floats = state_ratio(process)[self.state[:3]] * self.rates.base[process][self.year + 1]
        return hazards

    def _death(self) -> Floats:
        """Draw the fraction of the year after which death comes, infinite where it does not."""
        dies, when = self.dice.of("death", self.year).random((2, len(self.here)))
        return np.where(self.here & (dies < -np.expm1(-self._hazard("death"))), when, np.inf)

    def _arrival(self, process: str, yearly: Floats) -> Floats:
        """Draw the fraction of the year after which something comes; above one or infinite where it does not."""
        due = self.dice.of(process, self.year).exponential(size=len(self.here))
        return np.divide(due, yearly, out=np.full_like(due, np.inf), where=self.here & (yearly > 0))

    def _enter(self, day: Days, fraction: Floats) -> None:
        """Write the day of what comes before `until` for the first time."""
        who = np.flatnonzero((fraction < self.until) & (day == NEVER))
        day[who] = self._day(fraction[who])

    def _day(self, fraction: Floats) -> Days:
        return self.start + np.floor(fraction * (self.end - self.start)).astype(np.int64)


def _poisson(mean: Floats, uniform: Floats) -> Days:
    """Draw counts by inversion, so that a lower mean with the same uniform never gives more."""
    count, probability = np.zeros(len(mean), np.int64), np.exp(-mean)
    cumulated = probability.copy()
    for number in range(1, MOST_FALLS + 1):
        count += uniform >= cumulated
        probability = probability * mean / number
        cumulated += probability
    return count
