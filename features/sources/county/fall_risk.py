"""The true risk that a fall is recorded within the year.

A fall is noted at once (a code, a doctor's note), or it comes out when the check-up of the year asks how often one fell
in the past twelve months, or it is never recorded. So the risk depends on falls of before the index time that nobody
has asked for yet. What is known of those is what was recorded: the answer at the last check-up, and the falls noted.

With time in years from the index time, b the hazard of a fall that is not noted, a the time until which a noted fall
keeps the answer at yes, the answer at u is no with probability ``w(u) exp(-b u)`` for u > a, else 0, where w is the
probability that nothing unrecorded happened between u - 1 and 0.
"""

from dataclasses import dataclass

import numpy as np

from features.sources.county.course import Course, Falls
from features.sources.county.hazards import Rates, state_ratio
from features.sources.county.period import Days, Floats, Period
from features.sources.county.tables import rate

# The answer's chances are summed over steps of five days.
STEPS = 73
MIDDLES = (np.arange(STEPS) + 0.5) / STEPS


@dataclass(frozen=True)
class Answers:
    """What was answered when falls were asked for: who, on which day, how many bouts and falls in the past year."""

    who: Days
    day: Days
    bouts: Days
    falls: Days


@dataclass(frozen=True)
class Recall:
    """What is recorded of the falls before an index time, arrays of shape (residents,), times in years from it.

    Parameters
    ----------
    noted : the time of the last fall that was noted, minus infinity where none was
    asked : the time of the last answer, -1 where it is older or there is none
    unnoted : how many bouts of falls in that answer had not been noted
    yearly : the hazard of a fall, in the year before, that was not noted
    """

    noted: Floats
    asked: Floats
    unnoted: Floats
    yearly: Floats

    def nothing_hidden(self, time: Floats) -> Floats:
        """Return the probability that no fall between a year before a time and the index time went unrecorded."""
        since = np.maximum(self.asked[:, None], time - 1)
        after_answer = np.exp(self.yearly[:, None] * since)
        share_before = np.clip(time - self.asked[:, None], 0, 1)
        return np.where(time > self.noted[:, None] + 1, after_answer * share_before ** self.unnoted[:, None], 0.0)


def fall_risk(yearly: Floats, noted: Floats | float, asked: Floats, death: Floats, recall: Recall) -> Floats:
    """Return the probability that a fall is recorded within a year and before death, shape (residents,).

    Parameters
    ----------
    yearly : the hazard of a fall
    noted : the share of falls that is noted at once
    asked : the probability of a check-up at which falls are asked for, on any day of the year alike
    death : the hazard of death, on any day of the year alike
    """
    hidden = ((1 - noted) * yearly)[:, None]
    no = recall.nothing_hidden(MIDDLES) * np.exp(-hidden * MIDDLES)
    nothing_told = 1 - asked[:, None] * (MIDDLES - (np.cumsum(no, axis=1) - no / 2) / STEPS)
    untold_all_year = 1 - asked * (1 - no.mean(axis=1))
    at_once = noted * yearly
    alive, dead = np.exp(-death), -np.expm1(-death)
    spared_by_death = (np.exp(-at_once[:, None] * MIDDLES) * nothing_told).mean(axis=1)
    risk: Floats = 1 - alive * np.exp(-at_once) * untold_all_year - dead * spared_by_death
    return risk


def recall(year: int, who: Days, falls: Falls, answers: Answers, yearly: Floats, period: Period) -> Recall:
    """Return what is recorded before the first day of a year of the falls of some residents.

    Parameters
    ----------
    yearly : the hazard of a fall in the year before, shape (who,)
    """
    day, before, days = period.new_year(year), period.new_year(year - 1), 365.0
    everyone = int(max(who.max(initial=0), falls.who.max(initial=0), answers.who.max(initial=0))) + 1
    seen = falls[falls.noted & (falls.day >= period.start)]
    noted = np.full(everyone, -np.inf)
    np.maximum.at(noted, seen.who[seen.day < day], (seen.day[seen.day < day] - day) / days)
    asked, unnoted = np.full(everyone, -1.0), np.zeros(everyone)
    last = (answers.day >= before) & (answers.day < day)
    asked[answers.who[last]] = (answers.day[last] - day) / days
    told = answers.bouts[last] - seen.bouts(answers.who[last], answers.day[last] - 365, answers.day[last])
    unnoted[answers.who[last]] = told
    share = 1 - rate("fall_noted") if year else 1.0
    return Recall(noted[who], np.maximum(asked[who], -1), unnoted[who], share * yearly)


def recorded_fall_risk(
    year: int, who: Days, course: Course, answers: Answers, asked: Floats, rates: Rates, treated: Rates | None = None
) -> Floats:
    """Return the true risk, from the first day of a year, of a recorded fall within it.

    Parameters
    ----------
    who : those at risk, as places in the block, shape (who,)
    asked : the probability of being asked within a year, shape (residents,)
    treated : the rates of the year itself, where they differ from those of the past

    Returns
    -------
    shape (who,)
    """
    before = _hazard("fall", year - 1, who, course, rates)
    known = recall(year, who, course.falls, answers, before, rates.period)
    now = treated or rates
    yearly, death = (_hazard(process, year, who, course, now) for process in ("fall", "death"))
    return fall_risk(yearly, rate("fall_noted"), asked[who], death, known)


def _hazard(process: str, year: int, who: Days, course: Course, rates: Rates) -> Floats:
    levels = tuple(level[who] for level in course.state(rates.period.new_year(year)))
    hazards: Floats = state_ratio(process)[levels] * rates.base[process][year + 1, who]
    return hazards
