"""What the county writes down of its residents: visits, values, diagnoses, drugs.

What was found before the record is registered at some day of its first year, as when a programme lays out its files.
"""

import numpy as np
import polars as pl

from features.sources.county.course import DISEASES, Course
from features.sources.county.devices import write_devices
from features.sources.county.dice import Dice
from features.sources.county.fall_records import answers_of, write_answers, write_falls
from features.sources.county.fall_risk import Answers
from features.sources.county.ledger import Ledger
from features.sources.county.period import DAYS_A_YEAR, NEVER, Days, Flags, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows
from features.sources.county.values import Held, Moment, measure, measured
from features.sources.county.visits import CHECK_UP, Visits, visits

# Diagnoses that the vocabulary has no concept for: a county's records are full of them.
ILLNESSES = ("ICD10//J06.9", "ICD10//K29.5", "ICD10//M54.5", "ICD10//A09", "ICD10//L30.9")
REFILL_DAYS = np.array([30, 60, 90, 90, 90])
# Hypertension is found by a high pressure on each of so many days in a row.
DAYS_OF_FINDING = 3
# Two low eGFRs or high albumins so far apart make a kidney disease.
KIDNEY_DAYS = 100


def records(residents: Residents, course: Course, period: Period, dice: Dice) -> tuple[pl.DataFrame, Answers]:
    """Return all events of a block of residents, in no order, and what was answered when falls were asked for."""
    clerk = _Clerk(residents, course, period, dice)
    clerk.write_register()
    clerk.write_visits()
    clerk.write_diagnoses()
    clerk.write_conditions()
    clerk.write_complications()
    write_falls(course.falls, clerk.ledger, dice.of("fall records"))
    clerk.write_drugs()
    write_devices(clerk.known["hypertension"], clerk.ledger, dice.of("devices"))
    return clerk.ledger.events(), clerk.answers


class _Clerk:
    """Who keeps the files of a block of residents."""

    def __init__(self, residents: Residents, course: Course, period: Period, dice: Dice) -> None:
        self.residents, self.course, self.period, self.dice = residents, course, period, dice
        self.rng = dice.of("records")
        self.ledger, self.held = Ledger(residents, course, period), Held()
        self.registered = period.start + self.rng.integers(0, period.new_year(1) - period.start, len(residents))
        self.takes_drugs = self.rng.random(len(residents)) < rate("treated")
        self.known = {name: self._known(course.found[name]) for name in DISEASES}
        self.answers = Answers(*[np.empty(0, np.int64)] * 4)

    def _known(self, began: Days) -> Days:
        """Return the day at which something that is found, or began, is written down."""
        return np.where(began < self.period.start, np.maximum(self.registered, self.residents.born), began)

    def write_register(self) -> None:
        """Write what the departments of health, insurance and civil affairs know of each resident."""
        age = self.residents.age(self.registered)
        for row in rows("register"):
            by_schooling = float(row["per_step_of_schooling"]) ** (self.residents.education - 2)
            by_place = np.where(self.residents.habits["rural"] == 1, float(row["in_villages"]), 1.0)
            odds = float(row["share"]) / (1 - float(row["share"])) * by_schooling * by_place
            has = self.rng.random(len(age)) < odds / (1 + odds)
            of_age = (age >= float(row["age_from"])) & (age < float(row["age_below"]))
            who = np.flatnonzero(has & of_age & (self.rng.random(len(age)) < float(row["share_recorded"])))
            value = np.full(len(who), float(row["value"])) if row["value"] else None
            self.ledger.enter(row["code"], who, self.registered[who], value)

    def write_visits(self) -> None:
        """Write every visit, and what is measured or found at it."""
        for some in visits(self.residents, self.period, self.known, self.dice.of("visits")):
            self._write_visit(some)
            if some.missed is not None:
                self.ledger.enter("missed_follow_up", *some.missed)
            if some.kind in ("illness", "hospital"):
                self._write_illness(some)
            if some.kind == CHECK_UP:
                self.answers = answers_of(some, self.residents, self.course.falls, self.ledger)
                write_answers(self.answers, self.ledger)
        for disease, days in (("hypertension", DAYS_OF_FINDING), ("diabetes", 1)):
            self._write_finding(disease, days)
        self.held.write(self.known, self.ledger, self.rng)

    def _write_visit(self, some: Visits, finds: str = "") -> None:
        self.ledger.enter(some.contact, some.who, some.day)
        measure(some, self._moment(some, finds), self.ledger, self.held, self.rng)

    def _write_finding(self, disease: str, days: int) -> None:
        """Write the visits that find a disease: the last on the day itself."""
        who = np.flatnonzero(self.known[disease] < self.period.end)
        for before in range(days):
            day = self.known[disease][who] - before
            self._write_visit(Visits(f"{disease}_finding", "outpatient_visit", who, day), disease)

    def _moment(self, some: Visits, finds: str) -> Moment:
        who, day = some.who, some.day
        return Moment(
            self.residents,
            self.course,
            who,
            day,
            age=self.residents.age(day, who),
            treated=self.takes_drugs[who] & (self.known["hypertension"][who] < day),
            known_diabetes=self.known["diabetes"][who] <= day,
            finds=finds,
        )

    def _write_illness(self, some: Visits) -> None:
        which = self.rng.integers(0, len(ILLNESSES), len(some.who))
        for number, code in enumerate(ILLNESSES):
            self.ledger.enter(code, some.who[which == number], some.day[which == number])

    def write_diagnoses(self) -> None:
        """Write the codes of hypertension and diabetes on the day they are known; a few are known by values alone."""
        for disease, code in (("hypertension", "ICD10//I10"), ("diabetes", "ICD10//E11.9")):
            coded = self.rng.random(len(self.residents)) < rate(f"{disease}_coded")
            who = np.flatnonzero((self.known[disease] < NEVER) & coded)
            self.ledger.enter(code, who, self.known[disease][who])

    def write_conditions(self) -> None:
        """Write each condition some while after it began, if anyone does."""
        for row in rows("conditions"):
            began = self._began(row["condition"])
            delay = self.rng.exponential(rate("condition_delay_years") * DAYS_A_YEAR, len(began)).astype(np.int64)
            entered = self.rng.random(len(began)) < float(row["share_recorded"])
            if row["recorded"] == "diagnosis":
                who = np.flatnonzero(entered)
                self.ledger.enter(row["code"], who, self._known(began + delay)[who])

    def _began(self, condition: str) -> Days:
        since_birth: Days = np.floor(self.residents.onset[condition] * DAYS_A_YEAR).astype(np.int64)
        return self.residents.born + since_birth

    def write_complications(self) -> None:
        """Write each complication with a code of its kind; one of before the record at registration."""
        share = self.rng.random(len(self.residents))
        for row in rows("complications"):
            began = self.course.complications[row["complication"]]
            day = self._known(began)
            diabetic = self.known["diabetes"] <= day
            coded = self.rng.random(len(began)) < float(row["coded"])
            if row["complication"] == "kidney":
                coded |= ~self._write_kidney_values(diabetic & ~coded & (began >= self.period.start))
            kind = (share >= float(row["share_from"])) & (share < float(row["share_below"]))
            code = np.where(diabetic, row["code_in_diabetes"], row["code"])
            for each in {row["code_in_diabetes"], row["code"]} - {""}:
                who = np.flatnonzero(coded & kind & (code == each) & (began < NEVER))
                self.ledger.enter(each, who, day[who])
                self._write_stay(row, who, day[who], began)

    def _write_stay(self, row: dict[str, str], who: Days, day: Days, began: Days) -> None:
        """Write the hospital stay that a complication of the record's years takes."""
        new = began[who] >= self.period.start
        days = float(row["hospital_days"] or 0)
        if days:
            who, day = who[new], day[new]
            self.ledger.enter("hospital_stay", who, day)
            self.ledger.enter("length_of_stay", who, day, 1.0 + self.rng.poisson(days - 1, len(who)))

    def _write_kidney_values(self, found_by_values: Flags) -> Flags:
        """Write the two values by which a kidney disease without a code is found; return for whom there was room."""
        day = self.course.complications["kidney"]
        first = day - KIDNEY_DAYS
        found = found_by_values & (first >= np.maximum(self.period.start, self.known["diabetes"] + 1))
        who = np.flatnonzero(found)
        # The first value is as bad as the second, which is of the day of finding.
        moment = self._moment(Visits("", "", who, day[who]), "")
        for concept, some in (("creatinine", moment.filters_badly()), ("uacr", moment.leaks_albumin())):
            for when in (first, day):
                value = measured(concept, moment, self.rng)
                self.ledger.enter(concept, who[some], when[who[some]], value[some])
        return found

    def write_drugs(self) -> None:
        """Write every dispensing of the drugs that residents take."""
        for use in dict.fromkeys(row["for"] for row in rows("drugs")):
            choices = [row for row in rows("drugs") if row["for"] == use]
            shares = np.array([float(row["share"]) for row in choices])
            start = self._takes(use, choices[0])
            drug = self.rng.choice(len(choices), len(start), p=shares / shares.sum())
            who, day = self._dispensed(start)
            for number, row in enumerate(choices):
                some = drug[who] == number
                self.ledger.enter(row["code"], who[some], day[some])

    def _takes(self, use: str, drug: dict[str, str]) -> Days:
        """Return the day from which each resident takes a drug for a use, `NEVER` where it is not taken."""
        start = self._since(drug["after"])
        takes = self.rng.random(len(start)) < float(drug["taken_by"])
        if drug["after"] in DISEASES:
            takes &= self.takes_drugs
        if float(drug["above_hba1c"]):
            takes &= self.residents.traits["hba1c"].level(self.residents.age(start)) > float(drug["above_hba1c"])
        return np.where(takes, start, NEVER)

    def _since(self, condition: str) -> Days:
        """Return the day from which a condition may be treated."""
        if condition in self.known:
            return self.known[condition]
        if condition in self.course.complications:
            return self._known(self.course.complications[condition])
        return self._known(self._began(condition))

    def _dispensed(self, start: Days) -> tuple[Days, Days]:
        """Return who is given a drug at which day: every one to three months, a few times not."""
        refill = self.rng.choice(REFILL_DAYS, len(start))
        times = np.maximum((np.minimum(self.course.left, self.period.end) - start) // refill, 0)
        who = np.repeat(np.arange(len(start)), times)
        turn = np.arange(len(who)) - np.repeat(np.cumsum(times) - times, times)
        day = start[who] + turn * refill[who] + self.rng.integers(0, 7, len(who))
        given = self.rng.random(len(who)) < rate("taken")
        return who[given], day[given]
