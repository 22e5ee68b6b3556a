"""Values computed from other values of the same resident as the records are read.

Each is dated at the moment it is computed from, uses only what was recorded up to and including that moment, and joins
the values of its concept that were recorded as such. Where a source has several values of one moment, their mean
counts; height, sex and birth are the last known.
"""

import numpy as np

from features.compiled import compiled_lean
from features.kernel import Floats
from features.times import YEAR

# What values are derived from, in the order that `derive` knows.
SOURCES = (
    *("sbp", "dbp", "cholesterol", "hdl", "triglycerides", "creatinine", "weight", "height", "uacr"),
    *("glucose_fasting", "hypertension_in_father", "hypertension_in_mother", "female", "age"),
)
SBP, DBP, CHOLESTEROL, HDL, TRIGLYCERIDES, CREATININE, WEIGHT, HEIGHT, UACR, GLUCOSE, FATHER, MOTHER, FEMALE, BIRTH = (
    range(len(SOURCES))
)

# What they become, in the order that `derive` knows, from what, and whether a higher value there raises (1) or lowers
# (-1) it. Of birth and sex 0: nobody's age is raised, and the age at a creatinine is part of that measurement.
DERIVED = {
    "egfr": {"creatinine": -1, "female": 0, "age": 0},
    "bmi": {"weight": 1, "height": -1},
    "pulse_pressure": {"sbp": 1, "dbp": -1},
    "blood_pressure_controlled": {"sbp": -1, "dbp": -1, "age": 0},
    "non_hdl": {"cholesterol": 1, "hdl": -1},
    "triglycerides_to_hdl": {"triglycerides": 1, "hdl": -1},
    "uacr_stage": {"uacr": 1},
    "glucose_controlled": {"glucose_fasting": -1},
    "family_history_hypertension": {"hypertension_in_father": 1, "hypertension_in_mother": 1},
}

# The equation was developed in adults.
ADULT = 18.0
# National Basic Public Health Service Specification, third edition (2017): 150/90 from 65 years of age on.
OLD = 65.0
CONTROLLED_SBP, CONTROLLED_SBP_OLD, CONTROLLED_DBP = 140.0, 150.0, 90.0
CONTROLLED_GLUCOSE = 7.0
# KDIGO 2012: A2 from 30 mg/g, A3 above 300 mg/g.
MODERATE_ALBUMINURIA, SEVERE_ALBUMINURIA = 30.0, 300.0


@compiled_lean
def egfr_ckd_epi_2021(creatinine_umol_l: float, age_years: float, female: float) -> float:
    """Estimated glomerular filtration rate in mL/min/1.73 m² (CKD-EPI 2021, creatinine, without race).

    References
    ----------
    Inker et al., N Engl J Med 2021;385:1737-1749.
    """
    kappa = 0.7 if female > 0.5 else 0.9
    alpha = -0.241 if female > 0.5 else -0.302
    ratio = creatinine_umol_l / 88.4 / kappa
    sex = 1.012 if female > 0.5 else 1.0
    return float(142.0 * min(ratio, 1.0) ** alpha * max(ratio, 1.0) ** -1.2 * 0.9938**age_years * sex)


@compiled_lean
def body_mass_index(weight_kg: float, height_cm: float) -> float:
    """Body mass index in kg/m²."""
    return weight_kg / (height_cm / 100.0) ** 2


@compiled_lean
def _controlled(sbp: float, dbp: float, age_years: float) -> float:
    """1 where the pressure is below the specification's limits, else 0; an unknown age counts as below 65."""
    limit = CONTROLLED_SBP_OLD if age_years >= OLD else CONTROLLED_SBP
    return 1.0 if sbp < limit and dbp < CONTROLLED_DBP else 0.0


@compiled_lean
def _stage(uacr_mg_g: float) -> float:
    stage = 1.0 if uacr_mg_g < MODERATE_ALBUMINURIA else 2.0
    return 3.0 if uacr_mg_g > SEVERE_ALBUMINURIA else stage


@compiled_lean
def derive(now: Floats, known: Floats, time: int, result: Floats) -> bool:
    """Fill in what the values of a moment allow, NaN where they allow nothing; return whether they allow anything.

    Parameters
    ----------
    now : shape (sources,)
        The mean value of each source at this moment; NaN where it has none.
    known : shape (sources,)
        The last value of each source up to and including this moment; of the birth, its time.
    time
        Microseconds since 1970.
    result : shape (derived values,)
        Filled in place.
    """
    result[:] = np.nan
    age = (time - known[BIRTH]) / YEAR
    if not np.isnan(now[CREATININE]) and age >= ADULT and not np.isnan(known[FEMALE]):
        result[0] = egfr_ckd_epi_2021(now[CREATININE], age, known[FEMALE])
    if not np.isnan(now[WEIGHT]):
        result[1] = body_mass_index(now[WEIGHT], known[HEIGHT])
    if not np.isnan(now[SBP]) and not np.isnan(now[DBP]):
        result[2] = now[SBP] - now[DBP]
        result[3] = _controlled(now[SBP], now[DBP], age)
    result[4] = now[CHOLESTEROL] - now[HDL]
    result[5] = now[TRIGLYCERIDES] / now[HDL]
    if not np.isnan(now[UACR]):
        result[6] = _stage(now[UACR])
    if not np.isnan(now[GLUCOSE]):
        result[7] = 1.0 if now[GLUCOSE] < CONTROLLED_GLUCOSE else 0.0
    if not (np.isnan(now[FATHER]) and np.isnan(now[MOTHER])):
        # What is recorded without a value is a yes and counts as 1; a 0 is a no.
        result[8] = 0.0 + (known[FATHER] > 0.5) + (known[MOTHER] > 0.5)
    allowed = 0
    for value in result:
        allowed += not np.isnan(value)
    return allowed > 0
