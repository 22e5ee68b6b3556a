"""What is written down of falls: codes, notes, injuries, and answers at check-ups where falls are asked for.

Most falls are never written down: a hospital codes few, a doctor notes a few more, and the form that asks is not used
everywhere.
"""

import numpy as np
from numpy.random import Generator

from features.sources.county.course import Falls
from features.sources.county.fall_risk import Answers
from features.sources.county.ledger import Ledger
from features.sources.county.period import Days, Flags
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows
from features.sources.county.visits import Visits


def write_falls(falls: Falls, ledger: Ledger, rng: Generator) -> None:
    """Write the falls that are noted at once: by code with what was injured, or in the words of a doctor."""
    noted = falls[falls.noted]
    coded = rng.random(len(noted.who)) < rate("fall_coded")
    _write_kinds("fall_codes", noted[coded], ledger, rng)
    _write_kinds("fall_notes", noted[~coded], ledger, rng)
    ledger.enter("follow_up_visit", noted.who[~coded], noted.day[~coded])
    hurt = noted[coded & (rng.random(len(coded)) < rate("injury_given_coded_fall"))]
    old = ledger.residents.age(hurt.day, hurt.who) >= rate("hips_break_from")
    for group, shares in ((old, "share_old"), (~old, "share")):
        _write_kinds("fall_injuries", hurt[group], ledger, rng, shares)


def _write_kinds(table: str, falls: Falls, ledger: Ledger, rng: Generator, shares: str = "share") -> None:
    """Draw of which kind each fall is, and write it."""
    each = np.array([float(row[shares]) for row in rows(table)])
    kind = rng.choice(len(each), len(falls.who), p=each / each.sum())
    for number, row in enumerate(rows(table)):
        some = falls[kind == number]
        ledger.enter(row["code"], some.who, some.day, text=row.get("text") or None)
        for contact in row.get("contacts", "").split():
            ledger.enter(contact, some.who, some.day)


def answers_of(visits: Visits, residents: Residents, falls: Falls, ledger: Ledger) -> Answers:
    """Return what is answered at check-ups by those who are asked for the falls of the past twelve months."""
    asked = (residents.habits["falls_asked"][visits.who] == 1) & ledger.open(visits.who, visits.day)
    who, day = visits.who[asked], visits.day[asked]
    return Answers(who, day, *(counted(who, day - 365, day) for counted in (falls.bouts, falls.falls)))


def write_answers(answers: Answers, ledger: Ledger) -> None:
    """Write who says to have fallen, and how often."""
    fell: Flags = answers.falls > 0
    ledger.enter("fell_past_year", answers.who, answers.day, fell.astype(np.float64))
    number: Days = answers.falls[fell]
    ledger.enter("falls_past_year", answers.who[fell], answers.day[fell], number.astype(np.float64))
