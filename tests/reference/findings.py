"""The slow oracle of what events say together: derived values, phenotypes and frailty, in plain Python.

It shares the declarations with the compiled pass, and nothing else. It goes back over all that was recorded up to each
moment, where the compiled pass remembers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from features.phenotypes import Evidence, Phenotype, Sign
from features.rules import Deficit

DAY = 86_400_000_000
YEAR = 31_557_600_000_000


@dataclass(frozen=True)
class Fact:
    """What an event says: a concept, and its value in the canonical unit or None; time in microseconds or None."""

    time: int | None
    concept: str
    value: float | None


@dataclass
class Findings:
    """Adds to the facts of one resident what they say together.

    `usable` says whether a value of a concept can be used; `zone_offset` is the county's time less UTC, in
    microseconds.
    """

    phenotypes: list[Phenotype]
    frailty: list[Deficit]
    usable: Callable[[str, float | None], bool]
    zone_offset: int
    so_far: list[Fact] = field(default_factory=list)

    def of(self, facts: list[Fact]) -> list[Fact]:
        """Return the facts, moment by moment, each followed by what is new at it."""
        for moment in sorted({fact.time for fact in facts}, key=lambda time: -math.inf if time is None else time):
            now = [fact for fact in facts if fact.time == moment]
            self.so_far += now
            self.so_far += [Fact(moment, name, value) for name, value in self.derived(now, moment)]
            self.find(moment)
            if self.frailty:
                self.so_far += self.tally(moment)
                self.find(moment)
        return self.so_far

    def derived(self, now: list[Fact], moment: int | None) -> list[tuple[str, float]]:
        """Compute what the values of a moment allow."""
        value = {concept: mean([f.value for f in now if f.concept == concept]) for concept in {f.concept for f in now}}
        born = [f.time for f in self.so_far if f.concept == "age" and f.time is not None]
        age = (moment - born[-1]) / YEAR if born and moment is not None else math.nan
        found: dict[str, float] = {}
        if "creatinine" in value and age >= 18 and (female := self.last("female")) is not None:
            found["egfr"] = ckd_epi_2021(value["creatinine"], age, female == 1)
        if "weight" in value and (height := self.last("height")) is not None:
            found["bmi"] = value["weight"] / (height / 100) ** 2
        if "sbp" in value and "dbp" in value:
            found["pulse_pressure"] = value["sbp"] - value["dbp"]
            limit = 150 if age >= 65 else 140
            found["blood_pressure_controlled"] = float(value["sbp"] < limit and value["dbp"] < 90)
        if "cholesterol" in value and "hdl" in value:
            found["non_hdl"] = value["cholesterol"] - value["hdl"]
        if "triglycerides" in value and "hdl" in value:
            found["triglycerides_to_hdl"] = value["triglycerides"] / value["hdl"]
        if "uacr" in value:
            found["uacr_stage"] = 1.0 if value["uacr"] < 30 else 2.0 if value["uacr"] <= 300 else 3.0
        if "glucose_fasting" in value:
            found["glucose_controlled"] = float(value["glucose_fasting"] < 7.0)
        parents = ("hypertension_in_father", "hypertension_in_mother")
        if any(parent in value for parent in parents):
            ill = [parent for parent in parents if self.last_yes(parent)]
            found["family_history_hypertension"] = float(len(ill))
        return [(name, float32(it)) for name, it in found.items() if self.usable(name, float32(it))]

    def last(self, concept: str) -> float | None:
        """The mean value of a concept at the last moment at which it has one."""
        found = [fact for fact in self.so_far if fact.concept == concept]
        return mean([f.value for f in found if f.time == found[-1].time]) if found else None

    def last_yes(self, concept: str) -> bool:
        """Whether the concept was last told with a yes: without a value, or with one above a half."""
        found = [fact for fact in self.so_far if fact.concept == concept]
        values = [1.0 if f.value is None else f.value for f in found if f.time == found[-1].time]
        return bool(found) and mean(values) > 0.5

    def find(self, moment: int | None) -> None:
        """Add the phenotypes that are satisfied at a moment and were not before."""
        for phenotype in self.phenotypes:
            if not self.dated(phenotype, moment) and any(
                self.satisfied(evidence, moment, anew=phenotype.recurrent) for evidence in phenotype.evidence
            ):
                self.so_far.append(Fact(moment, phenotype.name, None))

    def dated(self, phenotype: Phenotype, moment: int | None) -> bool:
        """Whether a phenotype was found; of a recurrent one, on this very day."""
        before = [fact.time for fact in self.so_far if fact.concept == phenotype.name]
        return self.day(moment) in map(self.day, before) if phenotype.recurrent else bool(before)

    def satisfied(self, evidence: Evidence, moment: int | None, *, anew: bool) -> bool:
        """Whether evidence is there; where it must be so `anew`, by something of this moment."""
        names = {fact.concept for fact in self.so_far}
        if not set(evidence.given) <= names:
            return False
        moments = sorted({f.time for f in self.so_far if f.time is not None})
        asked = [moment] if anew else [*([None] if any(f.time is None for f in self.so_far) else []), *moments]
        return any(self.satisfied_at(evidence, time) for time in asked)

    def satisfied_at(self, evidence: Evidence, moment: int | None) -> bool:
        """Whether a sign of this moment completes the evidence."""
        seen = self.seen(evidence.signs, moment)
        if evidence.beside:
            return self.beside(evidence, moment)
        if not any(time == moment for time, _ in seen):
            return False
        if evidence.distinct:
            recent = [sign for time, sign in seen if time is None or self.recent(evidence, time, moment)]
            return len(set(recent)) >= evidence.times
        if evidence.times == 1:
            return True
        return moment is not None and self.often_enough(evidence, [t for t, _ in seen if t is not None], moment)

    def beside(self, evidence: Evidence, moment: int | None) -> bool:
        """Whether a sign and one beside it fall on the day of this moment, one of them at this moment."""
        sides = [self.seen(signs, moment) for signs in (evidence.signs, evidence.beside)]
        now = any(time == moment for side in sides for time, _ in side)
        same_day = [any(self.day(time) == self.day(moment) for time, _ in side) for side in sides]
        return moment is not None and now and all(same_day)

    def recent(self, evidence: Evidence, time: int, moment: int | None) -> bool:
        """Whether a sign is within the evidence's length of time at this moment."""
        return moment is None or evidence.within is None or moment - time <= span(evidence.within)

    def often_enough(self, evidence: Evidence, times: list[int], moment: int) -> bool:
        """Whether this moment is counted, and is the last of enough counted days within the length of time."""
        counted: list[int] = []
        for time in sorted(set(times)):
            apart = span(evidence.apart) if evidence.apart else None
            next_day = not counted or self.day(time) != self.day(counted[-1])
            if not counted or (time - counted[-1] >= apart if apart else next_day):
                counted.append(time)
        if counted[-1] != moment or len(counted) < evidence.times:
            return False
        return evidence.within is None or moment - counted[-evidence.times] <= span(evidence.within)

    def seen(self, signs: tuple[Sign, ...], moment: int | None) -> list[tuple[int | None, Sign]]:
        """Return when each of the signs was seen, up to a moment."""
        upto = [f for f in self.so_far if f.time is None or (moment is not None and f.time <= moment)]
        return [(f.time, sign) for f in upto for sign in signs if f.concept == sign.concept and counts(f.value, sign)]

    def tally(self, moment: int | None) -> list[Fact]:
        """Count the deficits, and those that the kinds of record seen so far could show, if that is new."""
        before = {f.concept: f.value for f in self.so_far if f.concept.startswith("frailty_")}
        names = sorted({row.deficit for row in self.frailty} - {""})
        there = [name for name in names if any(row.deficit == name and self.shown(row) for row in self.frailty)]
        kinds = {row.recorded_in for row in self.frailty if any(f.concept == row.sign.concept for f in self.so_far)}
        could = {row.deficit for row in self.frailty if row.recorded_in in kinds} - {""}
        assessable = len(could | set(there))
        counted = (float(len(there)), float(assessable))
        if not assessable or (before.get("frailty_deficits"), before.get("frailty_assessable")) == counted:
            return []
        values = (*counted, float32(len(there) / len(names)))
        titles = ("frailty_deficits", "frailty_assessable", "frailty_index")
        return [Fact(moment, title, value) for title, value in zip(titles, values, strict=True)]

    def shown(self, row: Deficit) -> bool:
        """Whether a deficit was ever shown by a row of the table."""
        return any(f.concept == row.sign.concept and counts(f.value, row.sign) for f in self.so_far)

    def day(self, time: int | None) -> int | None:
        """The county's day of a time."""
        return None if time is None else (time + self.zone_offset) // DAY


def counts(value: float | None, sign: Sign) -> bool:
    """Whether a value is a sign; without limits none is needed."""
    if value is None:
        return not sign.of_number
    return sign.at_least <= value < sign.below


def span(text: str) -> int:
    """The microseconds of a number of days or years."""
    return int(text[:-1]) * {"d": DAY, "y": YEAR}[text[-1]]


def ckd_epi_2021(creatinine_umol_l: float, age: float, female: bool) -> float:
    """Inker et al., N Engl J Med 2021;385:1737-1749."""
    kappa, alpha = (0.7, -0.241) if female else (0.9, -0.302)
    ratio = creatinine_umol_l / 88.4 / kappa
    result = 142 * min(ratio, 1) ** alpha * max(ratio, 1) ** -1.200 * 0.9938**age
    return result * 1.012 if female else result


def mean(values: list[float]) -> float:
    """The mean in the order in which values were recorded."""
    return sum(values) / len(values) if None not in values else math.nan


def float32(value: float) -> float:
    """Round to the precision in which values are kept."""
    return float(np.float32(value))
