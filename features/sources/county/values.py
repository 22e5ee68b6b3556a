"""What is measured at a visit: the usual value, what disease and drugs do to it, noise, rounding and faults."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from features.sources.county.ledger import Ledger
from features.sources.county.period import Days, Flags, Floats
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows
from features.sources.county.visits import Visits

# Share of the adult height at an age; between these ages it is on a line.
GROWTH_AGE = (0, 1, 2, 4, 7, 11, 15, 18)
GROWTH = (0.31, 0.45, 0.52, 0.61, 0.73, 0.86, 0.97, 1.0)
CHILD_BMI = (13.5, 17.0, 16.3, 15.6, 15.6, 17.2, 19.8, 21.5)


@dataclass(frozen=True)
class Moment:
    """Residents as they come to their visits, arrays of shape (visits,).

    Parameters
    ----------
    hypertensive, diabetic : whether the disease is there, found or not
    treated : whether drugs for the pressure have been taken since before the day
    found : whether diabetes is found on this very day
    """

    residents: Residents
    who: Days
    age: Floats
    hypertensive: Flags
    treated: Flags
    diabetic: Flags
    found: Flags

    def usual(self, name: str) -> Floats:
        """Return the usual value of a trait or habit, or 1 where a condition has begun."""
        if name in self.residents.traits:
            return self.residents.traits[name].level(self.age, self.who)
        if name in self.residents.habits:
            return self.residents.habits[name][self.who]
        return (self.age >= self.residents.onset[name][self.who]) * 1.0


def _systolic_rise(moment: Moment) -> Floats:
    rise = np.where(moment.treated, rate("hypertension_treated"), rate("hypertension_rise"))
    return rise * moment.hypertensive


def _glucose(moment: Moment) -> Floats:
    known = rate("glucose_at_hba1c_7") + rate("glucose_per_hba1c") * (moment.usual("hba1c") - 7)
    return np.where(moment.diabetic, known + rate("diabetes_rise") * moment.found, moment.usual("glucose"))


def _height(moment: Moment) -> Floats:
    return moment.usual("height") * np.interp(moment.age, GROWTH_AGE, GROWTH)


def _body_mass_index(moment: Moment) -> Floats:
    adult = moment.usual("bmi")
    return np.where(moment.age < GROWTH_AGE[-1], np.interp(moment.age, GROWTH_AGE, CHILD_BMI) * adult / 23.4, adult)


def _creatinine(moment: Moment) -> Floats:
    """Invert CKD-EPI 2021 (Inker et al., N Engl J Med 2021;385:1737), in umol/L."""
    female = moment.residents.female[moment.who] == 1
    kappa, alpha = np.where(female, 0.7, 0.9), np.where(female, -0.241, -0.302)
    relative = moment.usual("egfr") / (142 * 0.9938**moment.age * np.where(female, 1.012, 1.0))
    return 88.4 * kappa * relative ** (1 / np.where(relative > 1, alpha, -1.2))


def _low_density(moment: Moment) -> Floats:
    """Friedewald's formula in mmol/L."""
    return moment.usual("cholesterol") - moment.usual("hdl") - np.exp(moment.usual("log_triglycerides")) / 2.2


# What is neither a trait, a habit nor a condition as it stands. Where the scale is "log", the logarithm.
USUAL: dict[str, Callable[[Moment], Floats]] = {
    "sbp": lambda moment: moment.usual("sbp") + _systolic_rise(moment),
    "dbp": lambda moment: moment.usual("dbp") + rate("hypertension_dbp_share") * _systolic_rise(moment),
    "glucose_fasting": _glucose,
    "height": _height,
    "weight": lambda moment: _body_mass_index(moment) * (_height(moment) / 100) ** 2,
    "waist": lambda moment: 27 + 2.35 * moment.usual("bmi") - 2 * moment.residents.female[moment.who],
    "creatinine": _creatinine,
    "uacr": lambda moment: moment.usual("log_uacr"),
    "urine_protein": lambda moment: np.maximum((moment.usual("log_uacr") - 3.4) / 1.2, 0),
    "ldl": _low_density,
    "triglycerides": lambda moment: moment.usual("log_triglycerides"),
}


def measure(visits: Visits, moment: Moment, ledger: Ledger, rng: Generator) -> None:
    """Write what is measured at the visits of a kind."""
    body = {}
    for row in rows("measurements"):
        able = _able(row, moment)
        there = np.flatnonzero(able & (rng.random(len(able)) < float(row[visits.kind])))
        values = _measured(row, _usual(row["concept"], moment)[there], rng)
        _write(row["concept"], visits.who[there], visits.day[there], values, ledger, rng)
        if row["concept"] in ("height", "weight"):
            body[row["concept"]] = _spread(values, there, len(able))
    _write_body_mass_index(body["height"], body["weight"], visits, ledger)


def _able(row: dict[str, str], moment: Moment) -> Flags:
    old_enough = moment.age >= float(row["age_from"])
    return old_enough & moment.diabetic if row["known"] == "diabetes" else old_enough


def _usual(concept: str, moment: Moment) -> Floats:
    return USUAL[concept](moment) if concept in USUAL else moment.usual(concept)


def _measured(row: dict[str, str], usual: Floats, rng: Generator) -> Floats:
    """Add noise to usual values, and round them as people do."""
    noisy = usual + float(row["noise_sd"]) * rng.standard_normal(len(usual))
    noisy = np.clip(np.exp(noisy) if row["scale"] == "log" else noisy, float(row["low"]), float(row["high"]))
    coarse = rng.random(len(usual)) < float(row["coarse_share"])
    step = np.where(coarse, float(row["coarse_step"]), float(row["step"]))
    return np.round(noisy / step) * step


def _write(concept: str, who: Days, day: Days, values: Floats, ledger: Ledger, rng: Generator) -> None:
    """Write measured values, a few of them faulty."""
    sound = np.ones(len(values), bool)
    for fault in rows("faults"):
        if fault["concept"] == concept:
            wrong = sound & (rng.random(len(values)) < float(fault["share"]))
            sound &= ~wrong
            wrongly = np.round(values[wrong] * float(fault["times"]), 2)
            ledger.enter(concept, who[wrong], day[wrong], wrongly, fault["unit"] or None)
    ledger.enter(concept, who[sound], day[sound], values[sound])


def _spread(values: Floats, places: Days, length: int) -> Floats:
    spread = np.full(length, np.nan)
    spread[places] = values
    return spread


def _write_body_mass_index(height: Floats, weight: Floats, visits: Visits, ledger: Ledger) -> None:
    both = ~np.isnan(height + weight)
    index = np.round(weight[both] / (height[both] / 100) ** 2, 1)
    ledger.enter("bmi", visits.who[both], visits.day[both], index)
