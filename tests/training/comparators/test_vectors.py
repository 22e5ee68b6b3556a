"""Each equation against risks worked out from its published form, each score against its points added by hand."""

from math import exp

import numpy as np
import polars as pl
import pytest

from training.comparators.ckd_pc_decline import CKD_PC_DECLINE
from training.comparators.ckd_pc_incident import CKD_PC_INCIDENT
from training.comparators.framingham_hypertension import FRAMINGHAM_HYPERTENSION
from training.comparators.inputs import inputs
from training.comparators.kfre import KFRE
from training.comparators.recode import OUTCOMES, RECODE
from training.comparators.ukpds import UKPDS

SEEN = {"examination_days_since": 30.0}
NO_DRUGS = {
    f"{drug}_active": 0.0
    for drug in ("antihypertensive", "insulin", "oral_glucose_lowering", "statin", "anticoagulant")
}
NO_DISEASE = {
    f"{disease}_ever": 0.0
    for disease in (
        *("myocardial_infarction", "stroke", "heart_failure", "ischaemic_heart_disease", "angina"),
        *("atrial_fibrillation", "peripheral_artery_disease", "diabetic_foot"),
        *("coronary_revascularisation", "amputation", "blindness"),
    )
}
WITH_DIABETES = SEEN | NO_DRUGS | NO_DISEASE | {"diabetes_found_ever": 1.0}


def profile_of(**features: float | None) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series([value], dtype=pl.Float32) for name, value in features.items()})


FRAMINGHAM_VECTORS = """
    age female bmi sbp dbp smoker parents | 1y     2y     4y
    45  0      24  125 80  1      0       | 3.006  6.507  13.784
    60  1      26  135 85  0      1       | 13.866 28.038 51.582
    35  0      22  110 70  0      0       | 0.269  0.591  1.299
    70  1      24  138 80  0      0       | 14.677 29.523 53.758
    55  1      28  132 86  0      2       | 13.913 28.124 51.710
"""


@pytest.mark.parametrize("line", FRAMINGHAM_VECTORS.strip().splitlines()[1:])
def test_framingham_gives_the_published_risks(line):
    given, expected = ([float(cell) for cell in part.split()] for part in line.split("|"))
    age, female, bmi, sbp, dbp, smoker, parents = given
    profile = profile_of(
        age=age, female=female, bmi_latest=bmi, sbp_latest=sbp, dbp_latest=dbp,
        smoking_latest=2 * smoker, family_history_hypertension=parents,
    )  # fmt: skip
    assert [100 * score.predict_proba(profile)[0] for score in FRAMINGHAM_HYPERTENSION] == pytest.approx(
        expected, abs=5e-4
    )


RECODE_A = WITH_DIABETES | {
    "age": 60, "female": 0, "sbp_latest": 140, "smoking_latest": 0, "creatinine_latest": 88.4,
    "cholesterol_latest": 200 / 38.67, "hdl_latest": 45 / 38.67, "hba1c_latest": 8.0, "uacr_latest": 30,
}  # fmt: skip
RECODE_B = WITH_DIABETES | {
    "age": 68, "female": 1, "sbp_latest": 150, "smoking_latest": 0, "creatinine_latest": 1.2 * 88.4,
    "cholesterol_latest": 180 / 38.67, "hdl_latest": 50 / 38.67, "hba1c_latest": 9.0, "uacr_latest": 300,
    "antihypertensive_active": 1, "stroke_ever": 1, "oral_glucose_lowering_active": 1, "statin_active": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (RECODE_A, (7.607, 8.157, 13.170, 18.672, 2.769, 8.944)),
        (RECODE_B, (8.353, 17.278, 21.343, 48.826, 32.518, 24.570)),
    ],
)
def test_recode_gives_the_published_numbers_for_all_six_outcomes(features, expected):
    risks = [100 * score.predict_proba(profile_of(**features))[0] for score in RECODE]
    assert dict(zip(OUTCOMES, risks, strict=True)) == pytest.approx(
        dict(zip(OUTCOMES, expected, strict=True)), abs=1e-3
    )


def test_recode_is_marked_as_fit_for_ranking_only():
    assert all(score.ranking_only and "ranking only" in score.title("en") for score in RECODE)


REFERENCE = WITH_DIABETES | {
    "age": 55, "female": 0, "egfr_latest": 75, "hba1c_latest": 7, "bmi_latest": 27, "uacr_latest": 10,
    "smoking_latest": 0, "sbp_latest": 120, "dbp_latest": 80, "oral_glucose_lowering_active": 1,
}  # fmt: skip
INCIDENT_A = REFERENCE | {
    "age": 60, "female": 1, "egfr_latest": 85, "hba1c_latest": 7.5, "antihypertensive_active": 1, "bmi_latest": 25,
    "uacr_latest": 15,
}  # fmt: skip
INCIDENT_B = REFERENCE | {
    "age": 70, "egfr_latest": 68, "stroke_ever": 1, "hba1c_latest": 8.5, "insulin_active": 1, "smoking_latest": 2,
    "sbp_latest": 150, "uacr_latest": 120,
}  # fmt: skip


@pytest.mark.parametrize(
    ("features", "expected"),
    [(REFERENCE, (28.912, 18.480)), (INCIDENT_A, (29.058, 18.581)), (INCIDENT_B, (93.728, 80.948))],
)
def test_ckd_pc_gives_the_published_risk_of_an_egfr_below_60(features, expected):
    risks = [100 * score.predict_proba(profile_of(**features))[0] for score in CKD_PC_INCIDENT]
    assert risks == pytest.approx(expected, abs=1e-3)


def test_ckd_pc_counts_an_egfr_above_90_by_its_own_coefficient():
    """Against an eGFR of 90: -0.1525133 * (100 - 90) / 5."""
    ninety, hundred = (
        CKD_PC_INCIDENT[0].predict_proba(profile_of(**REFERENCE | {"egfr_latest": egfr}))[0] for egfr in (90, 100)
    )
    assert np.log1p(-hundred) / np.log1p(-ninety) == pytest.approx(exp(-0.1525133 * 2))


DECLINE_A = WITH_DIABETES | {
    "age": 60, "female": 1, "egfr_latest": 85, "uacr_latest": 15, "sbp_latest": 140, "antihypertensive_active": 1,
    "bmi_latest": 25, "hba1c_latest": 7.5, "smoking_latest": 0, "oral_glucose_lowering_active": 1,
}  # fmt: skip
DECLINE_B = WITH_DIABETES | {
    "age": 70, "female": 0, "egfr_latest": 68, "uacr_latest": 120, "sbp_latest": 150, "antihypertensive_active": 1,
    "ischaemic_heart_disease_ever": 1, "smoking_latest": 2, "bmi_latest": 27, "hba1c_latest": 8.5, "insulin_active": 1,
}  # fmt: skip


@pytest.mark.parametrize(("features", "expected"), [(DECLINE_A, 2.4085), (DECLINE_B, 11.7329)])
def test_ckd_pc_gives_the_published_risk_of_a_decline_by_two_fifths(features, expected):
    assert 100 * CKD_PC_DECLINE.predict_proba(profile_of(**features))[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"age": 65, "female": 0, "egfr_latest": 40, "uacr_latest": 300}, (1.762, 6.652)),
        ({"age": 75, "female": 1, "egfr_latest": 25, "uacr_latest": 1000}, (9.689, 32.607)),
    ],
)
def test_the_kidney_failure_equation_gives_the_published_risks(features, expected):
    risks = [100 * score.predict_proba(profile_of(**features))[0] for score in KFRE]
    assert risks == pytest.approx(expected, abs=1e-3)


def ukpds(name: str, **features: float | None) -> float:
    score = next(score for score in UKPDS if score.name == f"ukpds_{name}_1y")
    return score.predict_proba(profile_of(**WITH_DIABETES | features))[0]


def test_ukpds_gives_another_heart_attack_at_a_constant_hazard():
    """An LDL of 3 and albuminuria: -4.179 + 0.021 * 30 + 0.344 = -3.205, whatever the years of diabetes."""
    for years in (0, 12):
        risk = ukpds(
            "heart_attack_again", myocardial_infarction_ever=1, ldl_latest=3, uacr_latest=80,
            diabetes_days_since_first=365.25 * years,
        )  # fmt: skip
        assert risk == pytest.approx(1 - exp(-exp(-3.205)))


def test_ukpds_gives_another_stroke_at_a_hazard_that_rises_with_the_years_of_diabetes():
    """Diagnosed at 60, ten years ago, smoker, no albuminuria: exp(-9.431 + 0.046 * 60 + 0.656) * (11^rho - 10^rho)."""
    risk = ukpds(
        "stroke_again", stroke_ever=1, age=70, diabetes_days_since_first=3652.5, smoking_latest=2, uacr_latest=10
    )
    assert risk == pytest.approx(1 - exp(-exp(-6.015) * (11**1.956 - 10**1.956)))


def test_ukpds_gives_a_foot_ulcer_by_a_logistic_equation():
    """-11.295 + 0.043 * 55 - 0.962 + 0.053 * 26 + 0.160 * 8 + 0.968."""
    predictor = -11.295 + 0.043 * 55 - 0.962 + 0.053 * 26 + 0.160 * 8 + 0.968
    risk = ukpds(
        "foot_ulcer", age=60, diabetes_days_since_first=5 * 365.25, female=1, bmi_latest=26, hba1c_latest=8,
        peripheral_artery_disease_ever=1,
    )  # fmt: skip
    assert risk == pytest.approx(1 / (1 + exp(-predictor)))


def test_ukpds_is_not_computed_where_the_profile_lacks_what_it_asks_for():
    """White cells were not counted, and of amputations and sight nothing is told."""
    everything = {
        "age": 60, "diabetes_days_since_first": 3652, "female": 0, "hba1c_latest": 8, "hdl_latest": 1.1,
        "ldl_latest": 3, "uacr_latest": 10, "sbp_latest": 140, "smoking_latest": 0, "egfr_latest": 80,
        "bmi_latest": 25, "heart_rate_latest": 70, "haemoglobin_latest": 140,
    }  # fmt: skip
    for name in ("stroke", "heart_attack_men", "heart_failure", "kidney_failure", "blindness"):
        score = next(score for score in UKPDS if score.name == f"ukpds_{name}_1y")
        untold = dict.fromkeys(("amputation_ever", "blindness_ever"))
        profile = profile_of(**WITH_DIABETES | everything | untold)
        low, high = score.bounds(profile)
        assert not score.computable(profile)[0]
        assert np.isnan(score.predict_proba(profile)[0])
        assert 0 < low[0] < high[0] < 1


def test_ukpds_asks_only_for_what_the_profile_holds():
    assert all(asked.features or asked.fixed for score in UKPDS for asked in score.inputs)


def test_ukpds_counts_white_cells_an_amputation_and_urine_albumin_in_the_paper_s_own_unit():
    """Diagnosed at 60, ten years ago, SBP 140, HbA1c 8, LDL 3, eGFR 80, WBC 7, 60 mg/L of albumin, an amputation."""
    predictor = -13.053 + 0.066 * 60 + 0.092 * 8 + 0.016 * 30 + 0.42 + 0.17 * 14 + 0.04 * 7 + 1.09 - 0.19 * 6
    risk = ukpds(
        "stroke", age=70, diabetes_days_since_first=3652.5, female=0, hba1c_latest=8, ldl_latest=3, egfr_latest=80,
        sbp_latest=140, smoking_latest=0, white_cells_latest=7, urine_albumin_latest=60, amputation_ever=1,
    )  # fmt: skip
    assert risk == pytest.approx(1 - exp(-exp(predictor) * (11**1.466 - 10**1.466)))


@pytest.mark.parametrize(
    ("urine_albumin", "uacr", "yes"), [(50, None, 1), (49, None, 0), (None, 30, 1), (None, 29, 0), (None, None, np.nan)]
)
def test_albuminuria_is_50_mg_of_albumin_a_litre_or_in_its_stead_30_mg_a_gram_of_creatinine(urine_albumin, uacr, yes):
    profile = profile_of(urine_albumin_latest=urine_albumin, uacr_latest=uacr)
    assert inputs()["albuminuria"].values(profile) == pytest.approx([yes], nan_ok=True)


def test_a_revascularisation_is_cardiovascular_disease_to_ckd_pc():
    before, after = (
        CKD_PC_INCIDENT[0].predict_proba(profile_of(**REFERENCE | {"coronary_revascularisation_ever": had}))[0]
        for had in (0, 1)
    )
    assert np.log1p(-after) / np.log1p(-before) == pytest.approx(exp(0.1870637))


def test_the_spline_of_ukpds_does_not_jump_at_an_egfr_of_60():
    score = next(score for score in UKPDS if score.name == "ukpds_heart_attack_women_1y")
    spline = [term for term in score.equation.terms if term.input == "egfr"]
    below, above = (sum(term.of({"egfr": np.array([egfr])})[0] for term in spline) for egfr in (59.999, 60.001))
    assert below == pytest.approx(above, abs=1e-3)
    assert below == pytest.approx(-0.28 * 6, abs=1e-3)
