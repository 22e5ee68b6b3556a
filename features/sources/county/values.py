"""What is measured at a visit: the usual value, what disease and drugs do to it, noise, rounding and faults.

The values agree with what has been found: a sound kidney never shows an eGFR below 60, and who is not known to have
hypertension or diabetes shows too few high values for a rule on values to find it (see `Held`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from features.sources.county.course import Course
from features.sources.county.ledger import Ledger
from features.sources.county.period import DAYS_A_YEAR, Days, Flags, Floats
from features.sources.county.residents import Residents
from features.sources.county.tables import rate, rows
from features.sources.county.visits import Visits

# Share of the adult height at an age; between these ages it is on a line.
GROWTH_AGE = (0, 1, 2, 4, 7, 11, 15, 18)
GROWTH = (0.31, 0.45, 0.52, 0.61, 0.73, 0.86, 0.97, 1.0)
CHILD_BMI = (13.5, 17.0, 16.3, 15.6, 15.6, 17.2, 19.8, 21.5)


# From here on a value counts towards a finding.
HIGH = {"sbp": 140.0, "dbp": 90.0, "glucose_fasting": 7.0}
LOW_EGFR, HIGH_UACR = 60.0, 30.0
# One cuff measures both.
TOGETHER = {"sbp": ("sbp", "dbp")}


@dataclass(frozen=True)
class Moment:
    """Residents as they come to their visits, arrays of shape (visits,).

    Parameters
    ----------
    treated : whether drugs for the pressure have been taken since before the day
    known_diabetes : whether diabetes has been found, on this day or before
    finds : which disease is found at these very visits, if any
    """

    residents: Residents
    course: Course
    who: Days
    day: Days
    age: Floats
    treated: Flags
    known_diabetes: Flags
    finds: str = ""

    def has(self, disease: str) -> Flags:
        """Return whether hypertension, diabetes or a complication has begun, found or not."""
        days = {**self.course.complications, **self.course.began}[disease]
        return days[self.who] <= self.day

    def usual(self, name: str) -> Floats:
        """Return the usual value of a trait or habit, or 1 where a condition has begun."""
        if name in self.residents.traits:
            return self.residents.traits[name].level(self.age, self.who)
        if name in self.residents.habits:
            return self.residents.habits[name][self.who]
        return (self.age >= self.residents.onset[name][self.who]) * 1.0

    def filters_badly(self) -> Flags:
        """Return whose kidney disease shows in the eGFR; the others' shows in the urine."""
        share = self.residents.subject_id[self.who] % 100 / 100
        return self.has("kidney") & (share < rate("kidney_low_egfr"))

    def leaks_albumin(self) -> Flags:
        """Return whose kidney disease shows in the urine."""
        return self.has("kidney") & ~self.filters_badly()


def _systolic_rise(moment: Moment) -> Floats:
    rise = np.where(moment.treated, rate("hypertension_treated"), rate("hypertension_rise"))
    return rise * moment.has("hypertension")


def _glucose(moment: Moment) -> Floats:
    known = rate("glucose_at_hba1c_7") + rate("glucose_per_hba1c") * (moment.usual("hba1c") - 7)
    hidden = np.where(moment.has("diabetes"), rate("diabetes_rise"), 0) + moment.usual("glucose")
    return np.where(moment.known_diabetes & (moment.finds != "diabetes"), known, hidden)


def _height(moment: Moment) -> Floats:
    return moment.usual("height") * np.interp(moment.age, GROWTH_AGE, GROWTH)


def _body_mass_index(moment: Moment) -> Floats:
    adult = moment.usual("bmi")
    return np.where(moment.age < GROWTH_AGE[-1], np.interp(moment.age, GROWTH_AGE, CHILD_BMI) * adult / 23.4, adult)


def _egfr(moment: Moment) -> Floats:
    usual = moment.usual("egfr")
    return np.where(moment.filters_badly(), rate("kidney_egfr") + 0.3 * (usual - 85), usual)


def _creatinine(moment: Moment) -> Floats:
    return creatinine_of(np.clip(_egfr(moment), 8, None), moment)


def creatinine_of(egfr: Floats | float, moment: Moment) -> Floats:
    """Invert CKD-EPI 2021 (Inker et al., N Engl J Med 2021;385:1737), in umol/L."""
    female = moment.residents.female[moment.who] == 1
    kappa, alpha = np.where(female, 0.7, 0.9), np.where(female, -0.241, -0.302)
    relative = egfr / (142 * 0.9938**moment.age * np.where(female, 1.012, 1.0))
    creatinine: Floats = 88.4 * kappa * relative ** (1 / np.where(relative > 1, alpha, -1.2))
    return creatinine


def _log_uacr(moment: Moment) -> Floats:
    return moment.usual("log_uacr") + rate("kidney_log_uacr") * moment.leaks_albumin()


def _low_density(moment: Moment) -> Floats:
    """Friedewald's formula in mmol/L."""
    return moment.usual("cholesterol") - moment.usual("hdl") - np.exp(moment.usual("log_triglycerides")) / 2.2


# What is neither a trait, a habit nor a condition as it stands. Where the scale is "log", the logarithm.
USUAL: dict[str, Callable[[Moment], Floats]] = {
    "sbp": lambda moment: moment.usual("sbp") + _systolic_rise(moment),
    "dbp": lambda moment: moment.usual("dbp") + rate("hypertension_dbp_share") * _systolic_rise(moment),
    "respiratory_rate": lambda moment: np.full(len(moment.who), 18.0),
    "temperature": lambda moment: np.full(len(moment.who), 36.5),
    "length_of_stay": lambda moment: np.full(len(moment.who), 1.9),
    "medication_adherence": lambda moment: 1.4 - 0.3 * moment.usual("engagement"),
    "without_partner": lambda moment: moment.usual("widowed"),
    "bilirubin_total": lambda moment: moment.usual("bilirubin"),
    "pulse": lambda moment: moment.usual("heart_rate"),
    "glucose_fasting": _glucose,
    "height": _height,
    "weight": lambda moment: _body_mass_index(moment) * (_height(moment) / 100) ** 2,
    "waist": lambda moment: 27 + 2.35 * moment.usual("bmi") - 2 * moment.residents.female[moment.who],
    "creatinine": _creatinine,
    "urea": lambda moment: _creatinine(moment) / 14,
    "uacr": _log_uacr,
    "urine_protein": lambda moment: np.maximum((_log_uacr(moment) - 3.4) / 1.2, 0),
    "urine_glucose": lambda moment: np.maximum((_glucose(moment) - 9.5) / 2.5, 0),
    "ldl": _low_density,
    "triglycerides": lambda moment: moment.usual("log_triglycerides"),
    "alt": lambda moment: moment.usual("log_alt"),
    "ast": lambda moment: 0.6 * moment.usual("log_alt") + 1.25,
    "visual_acuity_left": lambda moment: moment.usual("vision"),
    "visual_acuity_right": lambda moment: moment.usual("vision"),
    "distance_to_clinic": lambda moment: 0.8 + 0.7 * moment.usual("remoteness"),
    "one_leg_stand": lambda moment: moment.usual("log_one_leg_stand"),
    "dorsalis_pedis_pulse": lambda moment: 1.4 * moment.has("foot"),
    "cognitive_screen": lambda moment: moment.usual("dementia"),
    "emotional_screen": lambda moment: moment.usual("depression"),
    "unsteady_walking": lambda moment: moment.usual("gait_problem"),
    "fear_of_falling": lambda moment: 0.4 * moment.usual("frailty"),
    "self_care_level": lambda moment: np.digitize(moment.usual("adl_score"), (4, 9, 19)) + 1.0,
}

NO_LIMIT = (-np.inf, np.inf)
Limits = tuple[Floats | float, Floats | float]


def _creatinine_limits(moment: Moment) -> Limits:
    """Two units from 60, so that rounding does not carry a value across."""
    sound, low = creatinine_of(LOW_EGFR + 2, moment), creatinine_of(LOW_EGFR - 2, moment)
    return np.where(moment.filters_badly(), low, -np.inf), np.where(moment.filters_badly(), np.inf, sound)


def _uacr_limits(moment: Moment) -> Limits:
    low = np.where(moment.leaks_albumin(), HIGH_UACR + 2, -np.inf)
    return low, np.where(moment.has("kidney"), np.inf, HIGH_UACR - 2)


def _pressure_limits(moment: Moment) -> Limits:
    return (HIGH["sbp"] + 2 if moment.finds == "hypertension" else -np.inf), np.inf


def _glucose_limits(moment: Moment) -> Limits:
    low = HIGH["glucose_fasting"] + 0.1 if moment.finds == "diabetes" else -np.inf
    return low, np.where(moment.has("diabetes"), np.inf, HIGH["glucose_fasting"] - 0.1)


# Between which values a measurement lies, so that it agrees with what has begun and what is found on the day.
LIMITS: dict[str, Callable[[Moment], Limits]] = {
    "creatinine": _creatinine_limits,
    "uacr": _uacr_limits,
    "sbp": _pressure_limits,
    "glucose_fasting": _glucose_limits,
}


@dataclass
class Held:
    """Values that are written only once all are known: of pressure and fasting glucose.

    Who is not known to have a disease, ill or not, may show a high value now and then; often enough for a rule on
    values to find the disease, one is found. So before the finding one day a calendar year with a high pressure is
    kept, which makes at most two in any twelve months, and one high glucose; the others were not written down.
    """

    values: dict[str, list[tuple[Days, Days, Floats]]] = field(default_factory=lambda: {name: [] for name in HIGH})

    def add(self, concept: str, who: Days, day: Days, value: Floats) -> None:
        """Hold measured values, arrays of one shape."""
        self.values[concept].append((who, day, value))

    def write(self, known: dict[str, Days], ledger: Ledger, rng: Generator) -> None:
        """Write the values that are kept.

        Parameters
        ----------
        known : per disease, the day on which it is known, shape (residents,)
        """
        who, day, systolic = self._all("sbp")
        _, _, diastolic = self._all("dbp")
        year = np.floor(1970 + day / DAYS_A_YEAR).astype(np.int64)
        high = (systolic >= HIGH["sbp"]) | (diastolic >= HIGH["dbp"])
        kept = _kept(high & (day < known["hypertension"][who]), who, year, day)
        for concept, value in (("sbp", systolic), ("dbp", diastolic)):
            _write(concept, who[kept], day[kept], value[kept], ledger, rng)
        who, day, glucose = self._all("glucose_fasting")
        high = (glucose >= HIGH["glucose_fasting"]) & (day < known["diabetes"][who])
        kept = _kept(high, who, np.zeros_like(day), day)
        _write("glucose_fasting", who[kept], day[kept], glucose[kept], ledger, rng)

    def _all(self, concept: str) -> tuple[Days, Days, Floats]:
        who, day, value = (np.concatenate(part) for part in zip(*self.values[concept], strict=True))
        return who, day, value


def _kept(suspect: Flags, who: Days, group: Days, day: Days) -> Flags:
    """Keep what is not suspect, and of each resident's suspect values of a group those of the first day."""
    places = np.flatnonzero(suspect)
    places = places[np.lexsort((day[places], group[places], who[places]))]
    new = np.ones(len(places), bool)
    new[1:] = (np.diff(who[places]) != 0) | (np.diff(group[places]) != 0)
    first_day = day[places][np.maximum.accumulate(np.where(new, np.arange(len(places)), 0))]
    kept = ~suspect
    kept[places[day[places] == first_day]] = True
    return kept


def measure(visits: Visits, moment: Moment, ledger: Ledger, held: Held, rng: Generator) -> None:
    """Write what is measured at the visits of a kind."""
    body = {}
    for row in _measured_at(visits.kind):
        able = _able(row, moment)
        there = np.flatnonzero(able & (rng.random(len(able)) < float(row[visits.kind])))
        for concept in TOGETHER.get(row["concept"], (row["concept"],)):
            values = measured(concept, moment, rng)[there]
            if concept in HIGH and not moment.finds:
                held.add(concept, visits.who[there], visits.day[there], values)
            else:
                _write(concept, visits.who[there], visits.day[there], values, ledger, rng)
            if concept in ("height", "weight"):
                body[concept] = _spread(values, there, len(able))
    if len(body) > 1:
        _write_body_mass_index(body["height"], body["weight"], visits, ledger)


def _measured_at(kind: str) -> list[dict[str, str]]:
    return [row for row in rows("measurements") if float(row[kind] or 0) > 0]


def _row(concept: str) -> dict[str, str]:
    return next(row for row in rows("measurements") if row["concept"] == concept)


def _able(row: dict[str, str], moment: Moment) -> Flags:
    old_enough = moment.age >= float(row["age_from"])
    return old_enough & moment.known_diabetes if row["known"] == "diabetes" else old_enough


def measured(concept: str, moment: Moment, rng: Generator) -> Floats:
    """Add noise to usual values, keep them within what agrees with the finding, and round them as people do."""
    row = _row(concept)
    usual = USUAL[concept](moment) if concept in USUAL else moment.usual(concept)
    noisy = usual + float(row["noise_sd"]) * rng.standard_normal(len(usual))
    noisy = np.clip(np.exp(noisy) if row["scale"] == "log" else noisy, float(row["low"]), float(row["high"]))
    noisy = np.clip(noisy, *(LIMITS[concept](moment) if concept in LIMITS else NO_LIMIT))
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
