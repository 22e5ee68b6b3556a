"""What the county writes down of its residents: visits, values, diagnoses, drugs, falls.

What began before the record is registered at some day of its first year, as when a programme lays out its files.
"""

import numpy as np
import polars as pl
from numpy.random import Generator

from features.sources.county.course import Course
from features.sources.county.ledger import Ledger
from features.sources.county.period import DAYS_A_YEAR, NEVER, Days, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows
from features.sources.county.values import Moment, measure
from features.sources.county.visits import Visits, visits

# Diagnoses that the vocabulary has no concept for: a county's records are full of them.
ILLNESSES = ("ICD10//J06.9", "ICD10//K29.5", "ICD10//M54.5", "ICD10//A09", "ICD10//L30.9")
REFILL_DAYS = np.array([30, 60, 60, 90])


def records(residents: Residents, course: Course, period: Period, rng: Generator) -> pl.DataFrame:
    """Return all events of a block of residents, in no order."""
    clerk = _Clerk(residents, course, period, rng)
    clerk.write_visits()
    clerk.write_diagnoses()
    clerk.write_conditions()
    clerk.write_complications()
    clerk.write_falls()
    clerk.write_drugs()
    return clerk.ledger.events()


class _Clerk:
    """Who keeps the files of a block of residents."""

    def __init__(self, residents: Residents, course: Course, period: Period, rng: Generator) -> None:
        self.residents, self.course, self.period, self.rng = residents, course, period, rng
        self.ledger = Ledger(residents, course, period)
        self.registered = period.start + rng.integers(0, period.new_year(1) - period.start, len(residents))
        self.takes_drugs = rng.random(len(residents)) < rate("treated")
        self.known = {
            "hypertension": self._known(course.hypertension),
            "diabetes": self._known(course.diabetes),
            "complication": self._known(course.complication),
        }

    def _known(self, began: Days) -> Days:
        """Return the day at which something that began is written down."""
        return np.where(began < self.period.start, np.maximum(self.registered, self.residents.born), began)

    def write_visits(self) -> None:
        """Write every visit, and what is measured or found at it."""
        for some in (*visits(self.residents, self.period, self.known, self.rng), *self._findings()):
            self.ledger.enter(some.contact, some.who, some.day)
            measure(some, self._moment(some), self.ledger, self.rng)
            if some.kind == "illness":
                self._write_illness(some)

    def _findings(self) -> list[Visits]:
        """Return the visits at which a diagnosis is made: pressure or glucose is measured as at a follow-up."""
        found = []
        for disease in ("hypertension", "diabetes"):
            who = np.flatnonzero(self.known[disease] < self.period.end)
            found.append(Visits(f"{disease}_follow_up", "outpatient_visit", who, self.known[disease][who]))
        return found

    def _moment(self, some: Visits) -> Moment:
        course, who, day = self.course, some.who, some.day
        return Moment(
            self.residents,
            who,
            age=self.residents.age(day, who),
            hypertensive=course.hypertension[who] <= day,
            treated=self.takes_drugs[who] & (self.known["hypertension"][who] < day),
            diabetic=course.diabetes[who] <= day,
            found=course.diabetes[who] == day,
        )

    def _write_illness(self, some: Visits) -> None:
        which = self.rng.integers(0, len(ILLNESSES), len(some.who))
        for number, code in enumerate(ILLNESSES):
            self.ledger.enter(code, some.who[which == number], some.day[which == number])

    def write_diagnoses(self) -> None:
        """Write when hypertension and diabetes were diagnosed, or registered."""
        for disease, code in (("hypertension", "ICD10//I10"), ("diabetes", "ICD10//E11.9")):
            who = np.flatnonzero(self.known[disease] < NEVER)
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
        """Write each complication with a code of its kind; the first of before the record at registration."""
        earlier = np.flatnonzero(self.course.complication < self.period.start)
        pairs = [(earlier, self.known["complication"][earlier]), *self.course.complications]
        who, day = (np.concatenate(part) for part in zip(*pairs, strict=True))
        diabetic = self.course.diabetes[who] < day
        for column, some in (("with_diabetes", diabetic), ("without_diabetes", ~diabetic)):
            self._write_kinds(column, who[some], day[some])

    def _write_kinds(self, column: str, who: Days, day: Days) -> None:
        shares = np.array([float(row[column]) for row in rows("complications")])
        kind = self.rng.choice(len(shares), len(who), p=shares / shares.sum())
        for number, row in enumerate(rows("complications")):
            some = kind == number
            self.ledger.enter(row["code"], who[some], day[some])
            if row["hospital"] == "1":
                self.ledger.enter("hospital_stay", who[some], day[some])

    def write_falls(self) -> None:
        """Write each fall, coded or as told at a visit, and the fractures."""
        who, day = (np.concatenate(part) for part in zip(*self.course.falls, strict=True))
        coded = self.rng.random(len(who)) < rate("fall_coded")
        self.ledger.enter("ICD10//W19", who[coded], day[coded])
        self.ledger.enter("fall", who[~coded], day[~coded])
        broken = self.rng.random(len(who)) < rate("fracture_given_fall")
        hip = self.rng.random(len(who)) < rate("fracture_hip_share")
        self.ledger.enter("ICD10//S72.0", who[broken & hip], day[broken & hip])
        self.ledger.enter("ICD10//S52.5", who[broken & ~hip], day[broken & ~hip])

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
        if use == "sedative":
            began = self._began(use)
            return np.where(began < self.period.start, self.registered, began)
        known = self.known["diabetes" if use == "insulin" else use]
        takes = self.takes_drugs
        if use == "insulin":
            poor = self.residents.traits["hba1c"].level(self.residents.age(known)) > float(drug["above_hba1c"])
            takes = takes & poor & (self.rng.random(len(known)) < rate("insulin_share"))
        return np.where(takes, known, NEVER)

    def _dispensed(self, start: Days) -> tuple[Days, Days]:
        """Return who is given a drug at which day: every one to three months, a few times not."""
        refill = self.rng.choice(REFILL_DAYS, len(start))
        times = np.maximum((np.minimum(self.course.left, self.period.end) - start) // refill, 0)
        who = np.repeat(np.arange(len(start)), times)
        turn = np.arange(len(who)) - np.repeat(np.cumsum(times) - times, times)
        day = start[who] + turn * refill[who] + self.rng.integers(0, 7, len(who))
        given = self.rng.random(len(who)) < rate("taken")
        return who[given], day[given]
