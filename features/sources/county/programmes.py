"""Programmes of known effect: whom each may take, what it does to whose hazards, and who is in it.

`interventions.csv` holds the effects: a ratio by which a hazard is multiplied for as long as the record lasts, from
published trials. A trial's rate, hazard or risk ratio is taken for the ratio of hazards.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from features.errors import WeibingError, did_you_mean
from features.sources.county.course import Course
from features.sources.county.dice import Dice
from features.sources.county.hazards import Rates
from features.sources.county.period import DAYS_A_YEAR, Flags, Floats
from features.sources.county.residents import Residents
from features.sources.county.tables import rows

# Whom a programme takes: so many in a hundred of the eligible, as a share, or the eligible among these residents.
Taken = float | Collection[int]


def _walks_without_help(residents: Residents, course: Course, day: int) -> Flags:
    able: Flags = _able(residents, day) < 9
    return able


def _high_risk_of_falls(residents: Residents, course: Course, day: int) -> Flags:
    """As in the trials: fell in the past year, or needs help in daily life, or a walking aid."""
    everyone = np.arange(len(residents))
    fell = course.falls.bouts(everyone, int(day - DAYS_A_YEAR), day) > 0
    with_aid = residents.covariate("walking_aid", residents.age(day)) == 1
    high: Flags = fell | with_aid | (_able(residents, day) >= 4)
    return high


def _may_take_potassium(residents: Residents, course: Course, day: int) -> Flags:
    """As in the trial 55 and over without hypertension; and no kidney disease, because of the potassium."""
    return (residents.age(day) >= 55) & (course.began["hypertension"] >= day) & (course.complications["kidney"] >= day)


def _kidneys_filter_enough(residents: Residents, course: Course, day: int) -> Flags:
    enough: Flags = residents.traits["egfr"].level(residents.age(day)) >= 25
    return enough


def _able(residents: Residents, day: int) -> Floats:
    """Return the usual score of self-care, 0 where nothing is needed."""
    return residents.traits["adl_score"].level(residents.age(day))


ELIGIBLE: dict[str, Callable[[Residents, Course, int], Flags]] = {
    "anyone": lambda residents, course, day: np.ones(len(residents), bool),
    "walks_without_help": _walks_without_help,
    "high_risk_of_falls": _high_risk_of_falls,
    "may_take_potassium": _may_take_potassium,
    "kidneys_filter_enough": _kidneys_filter_enough,
    "hypertensive": lambda residents, course, day: course.began["hypertension"] < day,
}


@dataclass
class Programmes:
    """The programmes of a county.

    Parameters
    ----------
    taken : whom each programme takes
    first : the year of the record, counted from 0, with which they begin
    treated : who is in each once it has begun, shape (residents,)
    """

    taken: Mapping[str, Taken]
    first: int = 0
    treated: dict[str, Flags] = field(default_factory=dict)

    @staticmethod
    def names() -> list[str]:
        """Return the interventions there are."""
        return list(dict.fromkeys(row["intervention"] for row in rows("interventions")))

    @staticmethod
    def upon(target: str) -> list[str]:
        """Return the interventions that lower the risk of a target."""
        return list(dict.fromkeys(row["intervention"] for row in rows("interventions") if row["target"] == target))

    @staticmethod
    def check(taken: Mapping[str, Taken]) -> None:
        """Refuse what is no intervention, and a share that is none.

        Raises
        ------
        WeibingError
            Names the intervention.
        """
        known = Programmes.names()
        for name, share in taken.items():
            if name not in known:
                raise WeibingError(f'There is no intervention "{name}".{did_you_mean(name, known)}')
            if isinstance(share, float | int) and not 0 <= share <= 1:
                raise WeibingError(f"The intervention {name} takes a share of 0 to 1 of those eligible, not {share:g}.")

    @staticmethod
    def eligible(name: str, residents: Residents, course: Course, day: int) -> Flags:
        """Return whom an intervention may take on a day, apart from being at risk of its target."""
        rule = next(row["eligible"] for row in rows("interventions") if row["intervention"] == name)
        return ELIGIBLE[rule](residents, course, day)

    def begin(self, residents: Residents, course: Course, day: int, dice: Dice) -> "Programmes":
        """Return the programmes with those in them who are taken and eligible on the day they begin."""
        treated = {}
        for name, taken in self.taken.items():
            chosen = self._chosen(name, taken, residents, dice)
            treated[name] = chosen & self.eligible(name, residents, course, day)
        return Programmes(self.taken, self.first, treated)

    def in_force(self, rates: Rates, year: int) -> Rates:
        """Return the rates that hold from a year on: before the programmes begin, those without any."""
        if year < self.first or not self.treated:
            return rates
        return rates.changed(self._ratios(self.treated), self.first)

    def with_one_more(self, rates: Rates, year: int, name: str, eligible: Flags) -> Rates:
        """Return the rates as they would be with an intervention for all who are eligible, from a year on."""
        return self.in_force(rates, year).changed(self._ratios({name: eligible}), year)

    def is_in(self, name: str) -> Flags | np.bool_:
        """Return who is in a programme, shape (residents,) or ()."""
        return self.treated.get(name, np.bool_(0))

    def _chosen(self, name: str, taken: Taken, residents: Residents, dice: Dice) -> Flags:
        if isinstance(taken, float | int):
            return dice.of(f"takes {name}").random(len(residents)) < taken
        return np.isin(residents.subject_id, np.array(sorted(taken), np.int64))

    @staticmethod
    def _ratios(treated: Mapping[str, Flags]) -> dict[str, Floats]:
        ratios: dict[str, Floats] = {}
        for row in rows("interventions"):
            if row["intervention"] in treated:
                ratio = np.where(treated[row["intervention"]], float(row["ratio"]), 1.0)
                ratios[row["process"]] = ratios.get(row["process"], np.float64(1)) * ratio
        return ratios
