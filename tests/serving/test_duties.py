"""What is due for a resident: every rule, every branch, drawn as small histories."""

import csv
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.errors import WeibingError
from features.vocabulary import builtin
from serving import duties
from serving.duties import DutyRules, Rulebook, due, rulebook
from serving.duties.forms import BY_NAME
from serving.duties.rules import BUILTIN, FORMS, MARKS, TABLES
from serving.duties.standing import add_months
from tests.tables import events_from

AT = date(2024, 6, 1)
FALL, PRESSURE = {"fall": "very high"}, {"hypertension": "high"}

# A man of 50 with nothing but a pressure of last month, and a woman of the same age; what follows is added.
MAN = "1974-01-01 | MEDS_BIRTH |\n | female | 0\n"
WOMAN = "1974-01-01 | MEDS_BIRTH |\n | female | 1\n"
OLD = "1950-01-01 | MEDS_BIRTH |\n | female | 0\n"
YOUNG = "1995-01-01 | MEDS_BIRTH |\n | female | 0\n"
HYPERTENSIVE = MAN + "2020-01-01 | hypertension |\n2024-03-30 | examination |\n"
DIABETIC = MAN + "2020-01-01 | diabetes |\n2024-05-01 | examination |\n2024-05-01 | sbp | 120\n"
BOTH = DIABETIC + "2020-01-01 | hypertension |\n"


def history(rows: str) -> pl.DataFrame:
    return events_from("time | code | value\n" + rows)


def asked(rows: str, rule: str, *, day: date | datetime = AT, targets: str = "2017", tiers=None) -> str | None:
    """Return by when a rule asks for something, with ! where at once, or None."""
    for each in only(rule, targets).due(history(rows), day, tiers or {}):
        assert each.rule == rule
        return each.due.isoformat() + "!" * each.urgent
    return None


@cache
def only(rule: str, targets: str) -> DutyRules:
    """Return the rules with one of them alone in force; the others still say what is looked at."""
    book = rulebook(targets)
    assert rule in {each.rule for each in book.rules}
    rules = (each if each.rule == rule else replace(each, valid_from=date.max) for each in book.rules)
    return DutyRules(replace(book, rules=tuple(rules)))


# rule | who and what | expected
CASES = [
    # screening: 35 or older, yearly
    ("screening", MAN, "2024-06-01"),
    ("screening", MAN + "2020-03-01 | bmi | 22", "2020-03-01"),
    ("screening", MAN + "2022-03-05 | sbp | 120", "2023-03-05"),
    ("screening", MAN + "2022-03-05 | dbp | 70", "2023-03-05"),
    ("screening", MAN + "2023-06-30 | sbp | 120", "2024-06-30"),
    ("screening", MAN + "2023-07-02 | sbp | 120", None),
    ("screening", YOUNG + "2020-03-01 | bmi | 22", None),
    ("screening", "1989-05-20 | MEDS_BIRTH |\n2010-01-01 | sbp | 120", "2024-05-20"),
    ("screening", "1989-06-02 | MEDS_BIRTH |\n2010-01-01 | sbp | 120", None),
    ("screening", "2010-01-01 | sbp | 120", None),
    ("screening", MAN + "2020-01-01 | hypertension |", None),
    ("screening", MAN + "2020-01-01 | secondary_hypertension |", None),
    ("screening", MAN + "2020-01-01 | ATC//C09AA02 |", None),
    ("screening", MAN + "2022-03-05 | sbp | 1200\n2021-03-05 | sbp | 120", "2022-03-05"),
    # high risk: any of six, half-yearly
    ("high_risk_pressure", MAN + "2023-11-01 | sbp | 129\n2023-11-01 | dbp | 84", None),
    ("high_risk_pressure", MAN + "2023-11-01 | sbp | 130", "2024-05-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | dbp | 85", "2024-05-01"),
    ("high_risk_pressure", MAN + "2022-11-01 | sbp | 139\n2023-11-01 | sbp | 120", None),
    ("high_risk_pressure", MAN + "2022-11-01 | pre_hypertension |\n2023-11-01 | sbp | 120", "2024-05-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | bmi | 23.9\n2023-11-01 | sbp | 120", None),
    ("high_risk_pressure", MAN + "2023-11-01 | bmi | 24\n2023-11-01 | sbp | 120", "2024-05-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | weight | 75\n2023-11-01 | height | 170", "2023-11-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | waist | 89", None),
    ("high_risk_pressure", MAN + "2023-11-01 | waist | 90", "2023-11-01"),
    ("high_risk_pressure", WOMAN + "2023-11-01 | waist | 84", None),
    ("high_risk_pressure", WOMAN + "2023-11-01 | waist | 85", "2023-11-01"),
    ("high_risk_pressure", "1974-01-01 | MEDS_BIRTH |\n2023-11-01 | waist | 95", None),
    ("high_risk_pressure", MAN + "2023-11-01 | family_history_hypertension | 1", "2023-11-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | family_history_hypertension | 0", None),
    ("high_risk_pressure", MAN + " | hypertension_in_father |", "2024-06-01"),
    ("high_risk_pressure", MAN + " | hypertension_in_mother |", "2024-06-01"),
    ("high_risk_pressure", MAN + " | hypertension_in_mother | 0", None),
    ("high_risk_pressure", MAN + " | hypertension_in_sibling_or_child |", "2024-06-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | salt_intake | 3", "2023-11-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | salt_intake | 2", None),
    ("high_risk_pressure", MAN + "2023-11-01 | salty_diet |", "2023-11-01"),
    ("high_risk_pressure", MAN + "2023-11-01 | liquor_per_day | 99", None),
    ("high_risk_pressure", MAN + "2023-11-01 | liquor_per_day | 100", "2023-11-01"),
    ("high_risk_pressure", "1969-05-01 | MEDS_BIRTH |\n2023-11-01 | sbp | 120", "2024-05-01"),
    ("high_risk_pressure", "1969-06-02 | MEDS_BIRTH |\n2023-11-01 | sbp | 120", None),
    ("high_risk_pressure", MAN + "2024-01-01 | sbp | 135", None),
    # suspicion: a first high reading, three days, the referral and its result
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 139\n2024-05-01 | dbp | 89", None),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 140", "2024-05-29"),
    ("suspected_recheck", MAN + "2024-05-01 | dbp | 90", "2024-05-29"),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 144\n2024-05-01 | sbp | 134", None),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 150\n2024-05-10 | sbp | 130", None),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 150\n2024-05-10 | sbp | 150", "2024-05-29"),
    ("suspected_recheck", MAN + "2022-05-01 | sbp | 150\n2024-05-10 | sbp | 150", "2024-06-07"),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150", None),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 150\n2024-05-02 | hypertension |", None),
    ("suspected_recheck", MAN + "2024-05-01 | sbp | 150\n2024-05-02 | referral |", None),
    ("suspected_recheck", "2010-01-01 | MEDS_BIRTH |\n2024-05-01 | sbp | 150", None),
    ("suspected_referral", MAN + "2024-05-01 | sbp | 150\n2024-05-02 | dbp | 95\n2024-05-03 | sbp | 140", "2024-05-03"),
    ("suspected_referral", MAN + "2024-05-01 | sbp | 150\n2024-05-01T05:00 | sbp | 150\n2024-05-02 | sbp | 150", None),
    (
        "suspected_referral",
        MAN + "2023-05-01 | sbp | 150\n2024-04-01 | sbp | 150\n2024-04-30 | sbp | 150",
        "2024-04-30",
    ),
    ("suspected_referral", MAN + "2023-05-01 | sbp | 150\n2024-04-01 | sbp | 150\n2024-05-01 | sbp | 150", None),
    ("suspected_referral", MAN + "2022-05-01 | sbp | 150\n2023-05-02 | sbp | 150\n2023-06-02 | sbp | 150", None),
    (
        "suspected_referral",
        MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150\n2024-05-03 | referral |",
        None,
    ),
    (
        "suspected_referral",
        MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150\n2024-05-05 | hypertension |",
        None,
    ),
    ("suspected_result", MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150", "2024-05-17"),
    (
        "suspected_result",
        MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150\n2024-05-09 | referral |",
        "2024-05-23",
    ),
    (
        "suspected_result",
        MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150\n2024-05-09 | referral |\n"
        "2024-05-12 | phone_follow_up |",
        None,
    ),
    ("suspected_result", MAN + "2024-05-01 | sbp | 150\n2024-05-09 | referral |", None),
    (
        "suspected_result",
        MAN + "2024-05-01 | sbp | 150\n2024-05-02 | sbp | 150\n2024-05-03 | sbp | 150\n2024-05-03 | follow_up_visit |",
        "2024-05-17",
    ),
    ("suspected_result", YOUNG, None),
    # secondary hypertension: young, or a sign of it, until a referral
    ("secondary_referral", HYPERTENSIVE, None),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | potassium | 3.4", "2024-05-20"),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | potassium | 3.5", None),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | potassium | 3.4\n2024-05-25 | potassium | 3.9", None),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | urine_protein | 2", "2024-05-20"),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | urine_protein | 1", None),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | potassium | 3.4\n2024-05-20 | referral |", None),
    ("secondary_referral", HYPERTENSIVE + "2024-05-20 | potassium | 3.4\n2024-05-19 | referral |", "2024-05-20"),
    ("secondary_referral", MAN + "2024-05-20 | potassium | 3.4", None),
    ("secondary_referral", YOUNG + "2024-05-20 | hypertension |", "2024-05-20"),
    ("secondary_referral", YOUNG + "2024-05-20 | hypertension |\n2024-05-21 | referral |", None),
    ("secondary_referral", YOUNG + "2024-05-20 | secondary_hypertension |", None),
    ("secondary_referral", "1994-05-20 | MEDS_BIRTH |\n2024-05-20 | hypertension |", None),
    ("secondary_referral", "2024-05-20 | hypertension |", None),
    # a glucose in the range of diabetes, without a diagnosis
    ("glucose_repeat", MAN + "2024-05-20 | glucose_fasting | 6.9", None),
    ("glucose_repeat", MAN + "2024-05-20 | glucose_fasting | 7", "2024-06-03"),
    ("glucose_repeat", MAN + "2024-05-20 | glucose | 11.1", "2024-06-03"),
    ("glucose_repeat", MAN + "2024-05-20 | glucose | 11", None),
    ("glucose_repeat", MAN + "2024-05-20 | glucose_2h | 11.1", "2024-06-03"),
    ("glucose_repeat", MAN + "2024-05-20 | hba1c | 6.5", "2024-06-03"),
    ("glucose_repeat", MAN + "2024-05-20 | hba1c | 6.4", None),
    ("glucose_repeat", MAN + "2024-05-20 | glucose_fasting | 7\n2024-05-25 | glucose_fasting | 6", None),
    ("glucose_repeat", MAN + "2024-05-20 | glucose_fasting | 7\n2024-05-25 | glucose_fasting | 7", None),
    ("glucose_repeat", DIABETIC + "2024-05-20 | glucose_fasting | 8", None),
    # hypertension: follow-up four times a year, face to face
    ("hypertension_follow_up", MAN + "2024-03-10 | hypertension |", "2024-06-10"),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-02-20 | follow_up_visit |", "2024-05-20"),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-02-20 | clinic_follow_up |", "2024-05-20"),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-02-20 | home_visit |", "2024-05-20"),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-02-20 | sbp | 120", "2024-05-20"),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-04-20 | sbp | 120", None),
    ("hypertension_follow_up", HYPERTENSIVE + "2024-04-20 | phone_follow_up |", "2020-04-01"),
    (
        "hypertension_follow_up",
        HYPERTENSIVE + "2024-04-20 | phone_follow_up |\n2024-04-20 | follow_up_visit |",
        "2020-04-01",
    ),
    (
        "hypertension_follow_up",
        HYPERTENSIVE + "2024-04-20 | missed_follow_up |\n2024-04-20 | follow_up_visit |",
        "2020-04-01",
    ),
    ("hypertension_follow_up", YOUNG + "2020-01-01 | hypertension |", None),
    ("hypertension_follow_up", "2020-01-01 | hypertension |", None),
    ("hypertension_follow_up", MAN + "2020-01-01 | secondary_hypertension |", None),
    ("hypertension_follow_up", MAN + "2024-03-10 | antihypertensive |", "2024-06-10"),
    ("hypertension_follow_up", MAN + " | hypertension |\n2024-03-10 | bmi | 22", "2024-06-10"),
    ("hypertension_follow_up", MAN + "2015-03-10 | sbp | 120\n2024-03-10 | hypertension |", "2024-06-10"),
    # control, and two weeks
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-25 | sbp | 139\n2024-05-25 | dbp | 89", None),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-25 | sbp | 140", "2024-06-08"),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-25 | dbp | 90", "2024-06-08"),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-25 | sbp | 150\n2024-05-28 | phone_follow_up |", None),
    (
        "hypertension_uncontrolled",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-25 | sbp | 120\n2024-05-25 | dbp | 70",
        None,
    ),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-25 | sbp | 150", None),
    ("hypertension_uncontrolled", MAN + "2024-05-20 | sbp | 150\n2024-05-25 | hypertension |", None),
    (
        "hypertension_uncontrolled",
        HYPERTENSIVE + "2024-05-31 | sbp | 120\n2024-05-31 | dbp | 70\n2024-05-31 | adverse_drug_reaction | 1",
        "2024-06-14",
    ),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-31 | adverse_drug_reaction | 0", None),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-31 | follow_up_class | 3", "2024-06-14"),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-31 | follow_up_class | 2", "2024-06-14"),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-31 | follow_up_class | 1", None),
    ("hypertension_uncontrolled", BOTH + "2024-05-31 | follow_up_class | 2", None),
    ("hypertension_uncontrolled", HYPERTENSIVE + "2024-05-31 | follow_up_class | 4", None),
    ("hypertension_uncontrolled_again", HYPERTENSIVE + "2024-05-20 | sbp | 150", None),
    ("hypertension_uncontrolled_again", HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-25 | sbp | 150", "2024-05-25"),
    (
        "hypertension_uncontrolled_again",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-25 | sbp | 150\n2024-05-25 | referral |",
        None,
    ),
    (
        "hypertension_uncontrolled_again",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-20 | referral |\n2024-05-25 | sbp | 150",
        "2024-05-25",
    ),
    (
        "hypertension_uncontrolled_again",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-22 | sbp | 120\n2024-05-22 | dbp | 70\n2024-05-25 | sbp | 150",
        None,
    ),
    (
        "hypertension_uncontrolled_again",
        HYPERTENSIVE + "2024-05-20 | follow_up_class | 3\n2024-05-25 | follow_up_class | 3",
        "2024-05-25",
    ),
    ("hypertension_complication", HYPERTENSIVE + "2024-05-20 | follow_up_class | 4", "2024-05-20"),
    ("hypertension_complication", HYPERTENSIVE + "2024-05-20 | follow_up_class | 3", None),
    (
        "hypertension_complication",
        HYPERTENSIVE + "2024-05-20 | follow_up_class | 4\n2024-05-21 | hospital_stay |",
        None,
    ),
    (
        "hypertension_referral_result",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-31 | sbp | 150\n2024-05-31 | referral |",
        "2024-06-14",
    ),
    ("hypertension_referral_result", HYPERTENSIVE + "2024-05-31 | follow_up_class | 4", "2024-06-14"),
    ("hypertension_referral_result", HYPERTENSIVE + "2024-05-31 | sbp | 150", None),
    (
        "hypertension_referral_result",
        HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-05-25 | sbp | 150\n2024-05-29 | phone_follow_up |",
        None,
    ),
    ("hypertension_referral_result", HYPERTENSIVE, None),
    # diabetes
    ("diabetes_follow_up", DIABETIC + "2024-02-20 | follow_up_visit |", "2024-05-20"),
    ("diabetes_follow_up", DIABETIC + "2024-02-20 | glucose_fasting | 6", "2024-05-20"),
    ("diabetes_follow_up", DIABETIC, "2020-04-01"),
    ("diabetes_follow_up", DIABETIC + "2020-01-01 | type_1_diabetes |", None),
    ("diabetes_follow_up", YOUNG + "2020-01-01 | diabetes |", None),
    ("diabetes_follow_up", MAN, None),
    ("diabetes_glucose", DIABETIC + "2024-02-20 | glucose_fasting | 6", "2024-05-20"),
    ("diabetes_glucose", DIABETIC + "2024-05-20 | follow_up_visit |", "2020-04-01"),
    ("diabetes_glucose", DIABETIC + "2024-05-20 | glucose_fasting | 6", None),
    ("diabetes_uncontrolled", DIABETIC + "2024-05-25 | glucose_fasting | 6.9", None),
    ("diabetes_uncontrolled", DIABETIC + "2024-05-25 | glucose_fasting | 7", "2024-06-08"),
    ("diabetes_uncontrolled", DIABETIC + "2024-05-25 | glucose_fasting | 8\n2024-05-26 | clinic_follow_up |", None),
    ("diabetes_uncontrolled_again", DIABETIC + "2024-05-25 | glucose_fasting | 8", None),
    (
        "diabetes_uncontrolled_again",
        DIABETIC + "2024-05-20 | glucose_fasting | 8\n2024-05-25 | glucose_fasting | 8",
        "2024-05-25",
    ),
    (
        "diabetes_uncontrolled_again",
        DIABETIC + "2024-05-20 | glucose_fasting | 8\n2024-05-25 | glucose_fasting | 8\n2024-05-28 | referral |",
        None,
    ),
    ("diabetes_complication", DIABETIC + "2024-05-20 | follow_up_class | 4", "2024-05-20"),
    ("diabetes_complication", DIABETIC, None),
    (
        "diabetes_referral_result",
        DIABETIC + "2024-05-20 | glucose_fasting | 8\n2024-05-25 | glucose_fasting | 8",
        "2024-06-08",
    ),
    ("diabetes_referral_result", DIABETIC + "2024-05-25 | glucose_fasting | 8", None),
    ("diabetes_screening", MAN + "2023-05-15 | glucose_fasting | 6.0", None),
    ("diabetes_screening", MAN + "2023-05-15 | glucose_fasting | 6.1", "2024-05-15"),
    ("diabetes_screening", MAN + "2023-05-15 | prediabetes |", "2023-05-15"),
    ("diabetes_screening", MAN + "2023-05-15 | family_history_diabetes |", "2023-05-15"),
    ("diabetes_screening", MAN + "2023-05-15 | bmi | 24", "2023-05-15"),
    ("diabetes_screening", MAN + "2023-05-15 | hypertension |", "2023-05-15"),
    ("diabetes_screening", WOMAN + "2023-05-15 | gestational_diabetes |", "2023-05-15"),
    ("diabetes_screening", DIABETIC + "2023-05-15 | bmi | 24", None),
    ("diabetes_screening", MAN, None),
    # examinations
    ("hypertension_examination", MAN + "2023-06-15 | hypertension |", "2024-06-15"),
    ("hypertension_examination", HYPERTENSIVE, None),
    ("diabetes_examination", MAN + "2023-06-15 | diabetes |", "2024-06-15"),
    ("diabetes_examination", DIABETIC, None),
    ("old_age_examination", OLD + "2022-06-15 | sbp | 120", "2022-06-15"),
    ("old_age_examination", OLD + "2023-06-15 | examination |", "2024-06-15"),
    ("old_age_examination", OLD + "2023-09-15 | examination |", None),
    ("old_age_examination", "1959-05-01 | MEDS_BIRTH |\n2010-01-01 | examination |", "2024-05-01"),
    ("old_age_examination", "1959-06-02 | MEDS_BIRTH |\n2010-01-01 | examination |", None),
    # complications of diabetes
    ("kidney_screening", DIABETIC, "2020-01-01"),
    ("kidney_screening", DIABETIC + "2024-02-01 | uacr | 10", "2020-01-01"),
    ("kidney_screening", DIABETIC + "2024-02-01 | egfr | 90", "2020-01-01"),
    ("kidney_screening", DIABETIC + "2024-02-01 | egfr | 90\n2023-03-01 | uacr | 10", "2024-03-01"),
    ("kidney_screening", DIABETIC + "2024-02-01 | creatinine | 70\n2024-02-01 | uacr | 10", None),
    ("kidney_screening", YOUNG + "2024-02-01 | diabetes |", "2024-02-01"),
    ("eye_screening", DIABETIC, "2020-01-01"),
    ("eye_screening", DIABETIC + "2023-06-03 | eye_examination |", "2024-06-03"),
    ("eye_screening", DIABETIC + "2024-02-03 | fundus_abnormal | 0", None),
    ("foot_screening", DIABETIC + "2023-06-03 | foot_examination |", "2024-06-03"),
    ("foot_screening", DIABETIC + "2024-02-03 | dorsalis_pedis_pulse | 0", None),
    ("foot_screening", DIABETIC + "2024-02-03 | foot_sensation_lost | 0", None),
    ("foot_screening", MAN, None),
    # emergencies
    ("pressure_emergency", MAN + "2024-05-31 | sbp | 179\n2024-05-31 | dbp | 109", None),
    ("pressure_emergency", MAN + "2024-05-31 | sbp | 180", "2024-05-31!"),
    ("pressure_emergency", MAN + "2024-05-31 | dbp | 110", "2024-05-31!"),
    ("pressure_emergency", "2024-05-31 | sbp | 180", "2024-05-31!"),
    ("pressure_emergency", MAN + "2024-05-31T01:00 | sbp | 190\n2024-05-31T02:00 | sbp | 150", "2024-05-31!"),
    ("pressure_emergency", MAN + "2024-05-30 | sbp | 190\n2024-05-31 | sbp | 150", None),
    ("pressure_emergency", MAN + "2024-05-30 | sbp | 190\n2024-05-31 | phone_follow_up |", "2024-05-30!"),
    ("pressure_emergency", MAN + "2024-05-30 | sbp | 190\n2024-05-30 | referral |", None),
    ("pressure_emergency", MAN + "2024-05-30 | sbp | 190\n2024-05-31 | emergency_visit |", None),
    ("pressure_emergency", MAN + "2024-05-30 | sbp | 190\n2024-05-31 | hospital_stay |", None),
    ("pressure_emergency", MAN + "2024-05-29 | referral |\n2024-05-30 | sbp | 190", "2024-05-30!"),
    ("pressure_emergency", WOMAN + "2024-03-01 | pregnancy |\n2024-05-30 | sbp | 140", "2024-05-30!"),
    ("pressure_emergency", WOMAN + "2024-03-01 | lactation |\n2024-05-30 | dbp | 90", "2024-05-30!"),
    ("pressure_emergency", WOMAN + "2023-03-01 | pregnancy |\n2024-05-30 | sbp | 140", None),
    ("pressure_emergency", WOMAN + "2024-03-01 | pregnancy |\n2024-05-30 | sbp | 139", None),
    ("pressure_emergency", WOMAN + "2024-05-31 | pregnancy |\n2024-05-30 | sbp | 140", None),
    ("glucose_emergency", MAN + "2024-05-30 | glucose | 16.7", "2024-05-30!"),
    ("glucose_emergency", MAN + "2024-05-30 | glucose | 16.6", None),
    ("glucose_emergency", MAN + "2024-05-30 | glucose | 61", None),
    ("glucose_emergency", MAN + "2024-05-30 | glucose_2h | 20\n2024-05-31 | glucose_fasting | 8", None),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | glucose_fasting | 3.9", "2024-05-30!"),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | home_glucose | 3.95", None),
    ("diabetes_emergency", MAN + "2024-05-30 | glucose_fasting | 3.9", None),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | heart_rate | 100", None),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | heart_rate | 101", "2024-05-30!"),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | pulse | 101", "2024-05-30!"),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | heart_rate | 120\n2024-05-31 | pulse | 80", None),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | temperature | 39", None),
    ("diabetes_emergency", DIABETIC + "2024-05-30 | temperature | 39.1", "2024-05-30!"),
    ("diabetes_emergency", DIABETIC + "2024-03-01 | pregnancy |\n2024-05-30 | glucose_fasting | 6.1", "2024-05-30!"),
    ("diabetes_emergency", DIABETIC + "2020-01-01 | type_1_diabetes |\n2024-05-30 | glucose | 3", "2024-05-30!"),
    ("emergency_result", MAN + "2024-05-30 | sbp | 190\n2024-05-30 | referral |", "2024-06-13"),
    ("emergency_result", MAN + "2024-05-30 | sbp | 190\n2024-05-31 | home_visit |", None),
    ("emergency_result", DIABETIC + "2024-05-30 | glucose | 3", "2024-06-13"),
    ("emergency_result", HYPERTENSIVE + "2024-05-31 | nausea |", "2024-06-14"),
    ("emergency_result", MAN, None),
]


@pytest.mark.parametrize(("rule", "rows", "expected"), CASES)
def test_a_rule_asks_for_what_it_says_and_no_more(rule, rows, expected):
    assert asked(rows, rule) == expected


@pytest.mark.parametrize(
    ("rule", "rows", "tiers", "expected"),
    [
        ("fall_risk_home", OLD, FALL, "2024-06-01"),
        ("fall_risk_home", OLD + "2020-01-01 | sbp | 120", FALL, "2024-06-01"),
        ("fall_risk_home", OLD, {"fall": "high"}, None),
        ("fall_risk_home", OLD, {"hypertension": "very high"}, None),
        ("fall_risk_home", OLD, {}, None),
        ("fall_risk_home", OLD + "2023-06-10 | home_safety_visit |", FALL, "2024-06-10"),
        ("fall_risk_home", OLD + "2024-02-10 | home_safety_visit |", FALL, None),
        ("hypertension_risk_pressure", YOUNG, PRESSURE, "2024-06-01"),
        ("hypertension_risk_pressure", YOUNG + "2023-11-10 | sbp | 120", {"hypertension": "very high"}, "2024-05-10"),
        ("hypertension_risk_pressure", YOUNG + "2023-11-10 | sbp | 120", {"hypertension": "moderate"}, None),
        ("hypertension_risk_pressure", YOUNG + "2024-02-10 | sbp | 120", PRESSURE, None),
        ("hypertension_risk_pressure", HYPERTENSIVE, PRESSURE, None),
        ("hypertension_risk_advice", YOUNG, PRESSURE, "2024-06-01"),
        ("hypertension_risk_advice", YOUNG + "2024-05-10 | lifestyle_advice |", PRESSURE, None),
        ("hypertension_risk_advice", YOUNG + "2023-11-10 | examination |", PRESSURE, "2024-05-10"),
        ("hypertension_risk_advice", YOUNG, {"hypertension": "low"}, None),
    ],
)
def test_a_high_risk_makes_duties_of_its_own(rule, rows, tiers, expected):
    assert asked(rows, rule, tiers=tiers) == expected


EMERGENCIES = [
    (rule.rule, sign)
    for rule in rulebook("2017").rules
    if rule.form == "emergency"
    for sign in rule.signs
    if not sign.of_number
]


@pytest.mark.parametrize(("rule", "sign"), EMERGENCIES, ids=lambda each: getattr(each, "concept", each))
def test_a_sign_of_emergency_calls_for_referral_until_a_contact_without_it(rule, sign):
    known = HYPERTENSIVE if rule == "hypertension_emergency" else DIABETIC
    seen = f"2024-05-31 | {sign.concept} |\n"
    assert asked(known + seen, rule) == "2024-05-31!"
    assert asked(MAN + seen, rule) is None, "the sign alone says nothing of somebody without the disease"
    assert asked(known + seen + "2024-05-31 | referral |", rule) is None
    assert asked(known + seen + "2024-05-31 | follow_up_visit |", rule) == "2024-05-31!", "it was seen at the visit"
    later = date(2024, 6, 5)
    assert asked(known + seen, rule, day=later) == "2024-05-31!"
    assert asked(known + seen + "2024-06-02 | follow_up_visit |", rule, day=later) is None


def test_a_headache_or_dizziness_that_is_not_severe_is_no_emergency():
    assert asked(HYPERTENSIVE + "2024-05-31 | headache |\n2024-05-31 | dizziness |", "hypertension_emergency") is None


@pytest.mark.parametrize(
    ("born", "pressure", "expected"),
    [
        # 50 years
        ("1974-01-01", (139, 89), {"2025"}),
        ("1974-01-01", (140, 80), {"2017", "2024", "2025"}),
        ("1974-01-01", (129, 79), set()),
        ("1974-01-01", (130, 79), {"2025"}),
        ("1974-01-01", (129, 80), {"2025"}),
        # 70
        ("1954-01-01", (149, 89), {"2024", "2025"}),
        ("1954-01-01", (150, 80), {"2017", "2024", "2025"}),
        # 85
        ("1939-01-01", (149, 89), set()),
        ("1939-01-01", (150, 89), {"2017", "2024", "2025"}),
        ("1939-01-01", (140, 90), {"2017", "2024", "2025"}),
    ],
)
def test_the_target_of_blood_pressure_depends_on_age_and_version(born, pressure, expected):
    rows = (
        f"{born} | MEDS_BIRTH |\n2020-01-01 | hypertension |\n"
        f"2024-05-30 | sbp | {pressure[0]}\n2024-05-30 | dbp | {pressure[1]}"
    )
    day = date(2025, 6, 1)
    found = {
        version
        for version in ("2017", "2024", "2025")
        if asked(rows, "hypertension_uncontrolled", targets=version, day=day)
    }
    assert found == expected


def test_the_age_of_the_target_is_that_of_the_reading():
    rows = "1959-05-20 | MEDS_BIRTH |\n2020-01-01 | hypertension |\n2024-05-{} | sbp | 145\n2024-05-{} | dbp | 80"
    assert asked(rows.format(18, 18), "hypertension_uncontrolled") is not None
    assert asked(rows.format(20, 20), "hypertension_uncontrolled") is None


@pytest.mark.parametrize("value", [6.9, 7.0])
@pytest.mark.parametrize("version", ["2017", "2024", "2025"])
def test_the_target_of_fasting_glucose_is_below_7_in_every_version(version, value):
    rows = DIABETIC + f"2024-05-25 | glucose_fasting | {value}"
    assert (asked(rows, "diabetes_uncontrolled", targets=version, day=AT) is None) == (value < 7)


def test_a_pressure_of_which_half_is_known_is_uncontrolled_or_unknown_but_never_controlled():
    before = HYPERTENSIVE + "2024-05-01 | sbp | 150\n"
    assert asked(before + "2024-05-20 | sbp | 150", "hypertension_uncontrolled_again") == "2024-05-20"
    assert asked(before + "2024-05-20 | sbp | 120\n2024-05-25 | sbp | 150", "hypertension_uncontrolled_again")


@pytest.mark.parametrize("gone", ["MEDS_DEATH", "OBSERVATION_END"])
def test_nothing_is_due_for_who_has_died_or_left(gone):
    assert due(history(MAN), AT)
    assert due(history(MAN + f"2024-05-01 | {gone} |"), AT) == ()
    assert due(history(MAN + f"2024-06-02 | {gone} |"), AT), "it has not happened yet"


def test_nothing_is_due_for_somebody_of_whom_nothing_is_known_or_who_is_not_born():
    assert due(history(""), AT) == ()
    assert due(history("2024-07-01 | MEDS_BIRTH |"), AT) == ()


def test_a_day_begins_at_midnight_in_the_county():
    rows = MAN + "2024-05-31T{} | sbp | 190"
    assert asked(rows.format("15:59"), "pressure_emergency") == "2024-05-31!"
    assert asked(rows.format("16:00"), "pressure_emergency") is None, "it is June in Shanghai"


def test_a_moment_sees_what_came_before_it_on_the_same_day():
    rows = MAN + "2024-06-01T02:00 | sbp | 190"
    assert asked(rows, "pressure_emergency", day=datetime(2024, 6, 1, 2)) is None
    assert asked(rows, "pressure_emergency", day=datetime(2024, 6, 1, 2, 0, 1)) == "2024-06-01!"


def test_duties_are_urgent_first_and_then_by_date():
    found = due(history(BOTH + "2024-05-30 | sbp | 190\n2024-05-30 | dbp | 100"), AT, tiers=FALL)
    assert found[0].kind == "referral"
    assert found[0].urgent
    assert [each.due for each in found[1:]] == sorted(each.due for each in found[1:])
    assert not any(each.urgent for each in found[1:])


def test_one_duty_of_a_kind_names_every_rule_and_reason():
    rows = (
        OLD + "2020-01-01 | hypertension |\n2023-06-05 | examination |\n2024-05-30 | sbp | 130\n2024-05-30 | dbp | 80"
    )
    (examination,) = [each for each in due(history(rows), AT) if each.kind == "examination"]
    assert (examination.rule, examination.also) == ("hypertension_examination", ("old_age_examination",))
    assert examination.reason_en == (
        "hypertension: last examination on 2023-06-05; 65 or older: last examination on 2023-06-05"
    )
    assert examination.reason_zh == "高血压：上次体检 2023-06-05；65岁及以上：上次体检 2023-06-05"


def test_a_reason_names_the_value_and_its_date_in_both_languages():
    (first, *_) = due(history(MAN + "2024-05-30 | sbp | 187\n2024-05-30 | dbp | 112"), AT)
    assert first.reason_en.startswith("systolic pressure 187, diastolic pressure 112 on 2024-05-30: treat and refer")
    assert first.reason_zh.startswith("2024-05-30 收缩压 187、舒张压 112：处理后立即转诊")
    assert "emergency referral" in first.citation
    assert first.trust == "VP"
    assert first.overdue


def test_a_pressure_in_another_unit_is_the_same_pressure():
    events = events_from("time | code | value | unit\n2024-05-30 | LOINC//8480-6 | 25 | kPa")
    assert due(events, AT)[0].reason_en.startswith("systolic pressure 187.52 on 2024-05-30")


def test_a_duty_is_overdue_from_the_day_after_it_was_due():
    rows = MAN + "2023-06-01 | sbp | 120"
    on, after = due(history(rows), AT), due(history(rows), date(2024, 6, 2))
    assert [(each.due, each.overdue) for each in on] == [(AT, False)]
    assert [(each.due, each.overdue) for each in after] == [(AT, True)]


def test_a_rule_is_not_in_force_before_it_was_written():
    assert asked(MAN + "2010-01-01 | sbp | 120", "screening", day=date(2017, 2, 27)) is None
    assert asked(MAN + "2010-01-01 | sbp | 120", "screening", day=date(2017, 2, 28)) is not None


def test_three_high_days_are_those_of_the_phenotype():
    rows = MAN + "2023-05-01 | sbp | 150\n2024-04-28 | sbp | 150\n2024-04-29 | sbp | {}"
    for value in (139, 140):
        found = "hypertension_measured" in DutyRules(rulebook("2017")).history(history(rows.format(value))).seen
        assert not found, "the rules do not ask for the phenotype itself"
        assert (asked(rows.format(value), "suspected_referral") is not None) == (value == 140)


def test_many_residents_get_what_each_gets_alone():
    rules = DutyRules(rulebook("2017"))
    tables = {3: MAN, 5: BOTH + "2024-05-30 | sbp | 190", 8: OLD + "2024-05-01 | sbp | 150"}
    events = pl.concat([history(rows).with_columns(subject_id=pl.lit(who, pl.Int64)) for who, rows in tables.items()])
    residents = np.array([3, 4, 5, 8])
    found = dict(rules.of_many(events, residents, AT, {8: FALL}))
    assert found == {who: rules.due(history(tables.get(who, "")), AT, FALL if who == 8 else {}) for who in (3, 4, 5, 8)}
    assert found[4] == ()


# the tables


def rows_of(table: str) -> list[dict[str, str]]:
    with (BUILTIN / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_rule_is_exercised_with_and_without_a_duty():
    cases = [(rule, expected) for rule, _, expected in CASES] + [(rule, "!") for rule, _ in EMERGENCIES]
    cases += [(rule, None) for rule, _ in EMERGENCIES]
    cases += [("fall_risk_home", "x"), ("hypertension_risk_pressure", "x"), ("hypertension_risk_advice", "x")]
    cases += [("fall_risk_home", None), ("hypertension_risk_pressure", None), ("hypertension_risk_advice", None)]
    every = {row["rule"] for row in rows_of("rules.csv")}
    assert {rule for rule, expected in cases if expected} == every
    assert {rule for rule, expected in cases if not expected} == every


def test_every_sign_of_a_rule_is_exercised():
    drawn = "\n".join(rows for _, rows, _ in CASES)
    drawn += "".join(f" {sign.concept} " for _, sign in EMERGENCIES)
    for row in rows_of("signs.csv"):
        if row["concept"] not in {"age", "hypertension_found"}:
            assert f" {row['concept']} " in drawn, row


@pytest.mark.parametrize("table", TABLES)
def test_no_row_has_cells_beyond_its_header_or_blanks_around_them(table):
    for row in rows_of(table):
        assert None not in row
        assert [cell for cell in row.values() if cell is None or cell != cell.strip()] == []


def test_every_row_names_its_source_and_how_far_to_trust_it():
    for row in [*rows_of("rules.csv"), *rows_of("targets.csv")]:
        assert row["citation"]
        assert row["trust"] in MARKS
        date.fromisoformat(row["valid_from"])
    for row in rows_of("signs.csv"):
        assert row["source"]
        assert row["trust"] in MARKS


def test_every_reason_and_label_is_there_in_both_languages():
    for row in rows_of("rules.csv"):
        assert bool(row["never_en"]) == bool(row["never_zh"]) == (row["form"] == "regular"), row["rule"]
        for language in ("en", "zh"):
            assert ("{sign}" in row[f"reason_{language}"]) == ("{sign}" in row["reason_en"])
            assert "{date}" in row[f"reason_{language}"]
    for row in [*rows_of("signs.csv"), *rows_of("kinds.csv")]:
        assert row["label_en"].isascii()
        assert not row["label_zh"].isascii()


def test_every_form_is_worked_out_and_used():
    assert set(BY_NAME) == set(FORMS) == {rule.form for rule in rulebook("2017").rules}


@pytest.mark.parametrize("version", ["2017", "2024", "2025"])
def test_every_concept_of_a_version_is_known(version):
    for concept in rulebook(version).concepts:
        builtin().concept(concept)


def test_an_unknown_version_is_refused_with_those_there_are():
    with pytest.raises(WeibingError, match='no targets of version "2016"; there are 2017, 2024, 2025'):
        due(history(MAN), AT, targets="2016")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for table in TABLES:
        (tmp_path / table).write_bytes((BUILTIN / table).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("rules.csv", (",regular,", ",regulr,"), 'there is no "regulr". Did you mean "regular"?'),
        ("rules.csv", (",unmanaged,", ",unmanged,"), 'there is no "unmanged". Did you mean "unmanaged"?'),
        ("rules.csv", (",examination,", ",examinaton,"), 'there is no "examinaton". Did you mean'),
        ("rules.csv", ("fall:very high", "fall"), 'the tier "fall" must be written TARGET:TIER'),
        ("targets.csv", (",140,", ",high,"), 'the below "high"'),
        ("targets.csv", (",diabetes,", ",diabete,"), 'there is no "diabete"'),
        ("signs.csv", (",beside,", ",besides,"), 'there is no column "beside". Did you mean "besides"?'),
        ("rules.csv", (",VP,", ",VX,"), 'trust: there is no "VX".'),
        ("signs.csv", (",16.7,", ",much,"), 'the at_least "much" of glucose_emergency is wrong'),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_place(own, table, change, said):
    path = own / table
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(WeibingError) as error:
        Rulebook.read("2017", own)
    assert said in str(error.value)
    assert table in str(error.value)


def test_a_missing_table_is_named(own):
    (own / "signs.csv").unlink()
    with pytest.raises(WeibingError, match=r"signs\.csv cannot be read: No such file"):
        Rulebook.read("2017", own)


def test_a_newer_row_of_a_rule_takes_the_place_of_the_older_from_its_version_on(own):
    path = own / "rules.csv"
    row = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("screening,"))
    newer = row.replace("screening,2017", "screening,2025").replace(",12,", ",6,")
    path.write_text(path.read_text(encoding="utf-8") + newer + "\n", encoding="utf-8")
    months = {
        version: next(rule.every_months for rule in Rulebook.read(version, own).rules if rule.rule == "screening")
        for version in ("2017", "2024", "2025")
    }
    assert months == {"2017": 12, "2024": 12, "2025": 6}


def test_a_county_s_own_rule_of_an_unknown_concept_is_refused(own):
    path = own / "signs.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",waist,", ",wast,"), encoding="utf-8")
    with pytest.raises(WeibingError, match='no concept "wast"'):
        DutyRules(Rulebook.read("2017", own))


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [
        ("2024-01-31", 1, "2024-02-29"),
        ("2023-01-31", 1, "2023-02-28"),
        ("2024-03-15", 12, "2025-03-15"),
        ("2024-10-31", 1, "2024-11-30"),
        ("2024-11-30", 1, "2024-12-30"),
        ("2024-11-30", 13, "2025-12-30"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2023-12-31", 2, "2024-02-29"),
        ("9999-06-01", 12, "9999-12-31"),
        ("9999-11-30", 1, "9999-12-30"),
    ],
)
def test_a_month_later_is_the_same_day_of_the_month_or_its_last(day, months, expected):
    assert date.fromordinal(add_months(date.fromisoformat(day).toordinal(), months)) == date.fromisoformat(expected)


def test_what_the_package_offers_is_named():
    assert set(duties.__all__) == {
        *("Control", "Duty", "DutyRules", "History", "Rulebook", "control", "due", "rulebook")
    }


AGED = "1955-01-01 | MEDS_BIRTH |\n2020-01-01 | hypertension |\n2024-05-20 | dbp | 80\n2024-05-20 | sbp | "


@pytest.mark.parametrize(
    ("rows", "targets", "expected"),
    [
        (HYPERTENSIVE, "2017", ("unknown", None, {})),
        (HYPERTENSIVE + "2019-05-20 | sbp | 150", "2017", ("unknown", None, {})),
        (HYPERTENSIVE + "2024-05-20 | sbp | 139", "2017", ("unknown", None, {})),
        (HYPERTENSIVE + "2024-05-20 | sbp | 140", "2017", ("not controlled", "2024-05-20", {"sbp": 140})),
        (AGED + "148", "2017", ("controlled", "2024-05-20", {"sbp": 148, "dbp": 80})),
        (AGED + "148", "2024", ("not controlled", "2024-05-20", {"sbp": 148, "dbp": 80})),
        (AGED + "135", "2024", ("controlled", "2024-05-20", {"sbp": 135, "dbp": 80})),
        (AGED + "135", "2025", ("not controlled", "2024-05-20", {"sbp": 135, "dbp": 80})),
        (HYPERTENSIVE + "2024-05-20 | follow_up_class | 1", "2017", ("controlled", "2024-05-20", {})),
        (HYPERTENSIVE + "2024-05-20 | follow_up_class | 2", "2017", ("not controlled", "2024-05-20", {})),
        (
            AGED + "135\n2024-05-20 | follow_up_class | 3",
            "2017",
            ("not controlled", "2024-05-20", {"sbp": 135, "dbp": 80}),
        ),
        (
            HYPERTENSIVE + "2024-05-20 | sbp | 150\n2024-06-01 | sbp | 120",
            "2017",
            ("not controlled", "2024-05-20", {"sbp": 150}),
        ),
    ],
)
def test_hypertension_is_under_control_as_the_last_day_that_tells_says(rows, targets, expected):
    found = duties.control(history(rows), AT, targets=targets)["hypertension"]
    assert (found.status, found.day and found.day.isoformat(), dict(found.values)) == expected


def test_control_is_told_of_the_diseases_that_somebody_has():
    rows = BOTH + "2024-05-20 | glucose_fasting | 6.9\n2024-05-21 | glucose_fasting | 7.1\n2024-05-20 | dbp | 80"
    found = duties.control(history(rows), AT)
    assert {name: each.status for name, each in found.items()} == {
        "hypertension": "unknown",
        "diabetes": "not controlled",
    }
    assert (found["diabetes"].why_en, found["diabetes"].why_zh) == ("fasting glucose 7.1", "空腹血糖 7.1")
    assert duties.control(history(MAN + "2024-05-20 | sbp | 150"), AT) == {}


def test_every_rule_and_version_is_explained():
    page = (Path(__file__).parents[2] / "docs" / "duties.md").read_text(encoding="utf-8")
    for name in {row["rule"] for row in rows_of("rules.csv")} | {row["version"] for row in rows_of("targets.csv")}:
        assert f"`{name}`" in page


def test_what_follows_from_a_risk_alone_is_a_duty_since_today():
    (home,) = only("fall_risk_home", "2017").due(history(OLD + "2020-01-01 | sbp | 120"), AT, FALL)
    assert (home.since, home.due, home.overdue) == (AT, AT, False)
    assert home.reason_zh == "跌倒风险很高，无居家安全访视记录"


def test_what_is_due_regularly_is_a_duty_some_days_before():
    rules, rows = only("screening", "2017"), MAN + "2023-06-15 | sbp | 120"
    assert rules.due(history(rows), date(2024, 5, 15)) == ()
    (duty,) = rules.due(history(rows), date(2024, 5, 16))
    assert (duty.since, duty.due, duty.overdue) == (date(2024, 5, 16), date(2024, 6, 15), False)


def test_a_disease_known_before_35_is_followed_up_from_35_on_and_its_reason_names_when_it_was_known():
    rows = "1989-02-01 | MEDS_BIRTH |\n2020-03-01 | hypertension |"
    (duty,) = only("hypertension_follow_up", "2017").due(history(rows), AT)
    assert duty.due == date(2024, 5, 1)
    assert duty.reason_en == "hypertension on record since 2020-03-01, no face-to-face follow-up on record"
