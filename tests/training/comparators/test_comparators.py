"""What holds for every published score, and the scores in points."""

from itertools import product

import numpy as np
import polars as pl
import pytest

from features.profile import PROFILE
from training.comparators.base import TRUST, PointScore
from training.comparators.ckd_pc_decline import CKD_PC_DECLINE
from training.comparators.fall_scale_2011 import FALL_SCALE_2011
from training.comparators.frailty_index import FRAILTY_INDEX
from training.comparators.framingham_hypertension import FRAMINGHAM_HYPERTENSION
from training.comparators.inputs import FOLDER, answer, evidence_from, inputs, rows_of
from training.comparators.kdigo import KDIGO
from training.comparators.kfre import KFRE
from training.comparators.national_high_risk import NATIONAL_HIGH_RISK
from training.comparators.prior_fall import PRIOR_FALL
from training.comparators.registry import COMPARATORS
from training.comparators.stay_independent import STAY_INDEPENDENT
from training.comparators.systolic_pressure import SYSTOLIC_PRESSURE
from training.comparators.three_key_questions import THREE_KEY_QUESTIONS
from training.comparators.ukpds import UKPDS
from training.targets import TARGETS

EVERY = [score for scores in COMPARATORS.values() for score in scores]
NAMES = [score.name for score in EVERY]
PAGE = FOLDER.parents[1] / "docs" / "comparators.md"
UNKNOWN = {"examination_days_since": None}


def profile_of(**features: float | None) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series([value], dtype=pl.Float32) for name, value in features.items()})


def in_care(**features: float | None) -> pl.DataFrame:
    """Draw a resident with records, of whom every yes or no that is not named is a no."""
    noes = {
        feature: 0.0
        for feature in PROFILE.names
        if feature.endswith(("_ever", "_ever_1y", "_active", "_count_1y", "_count_3y"))
    }
    return profile_of(**noes | {"examination_days_since": 30.0} | features)


def random_profiles(number: int, seed: int) -> pl.DataFrame:
    """Draw residents of every kind: each feature that a score asks for within its range, unknown of a third."""
    random = np.random.default_rng(seed)
    ranges = {each.features[0]: (each.low, each.high) for each in inputs().values() if each.features and each.unit}
    columns = {}
    for feature in sorted({feature for score in EVERY for feature in score.features}):
        low, high = ranges.get(feature, (0, 2))
        values = random.uniform(low, high, number) if feature in ranges else random.integers(0, 3, number)
        zero = feature.endswith(("_ever", "_ever_1y", "_active"))
        columns[feature] = np.where(
            random.random(number) < 1 / 3, 0.0 if zero else np.nan, np.minimum(values, 1 if zero else np.inf)
        )
    return pl.DataFrame(columns).fill_nan(None)


def test_every_built_in_target_has_rivals():
    assert set(COMPARATORS) == set(TARGETS)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("score", EVERY, ids=NAMES)
def test_a_score_asks_only_for_features_of_the_profile(score):
    assert set(score.features) <= set(PROFILE.names)


@pytest.mark.parametrize("score", EVERY, ids=NAMES)
def test_a_score_is_named_in_both_languages_and_says_where_it_is_from(score):
    assert score.label_en
    assert score.label_zh
    assert score.outcome
    assert score.paper
    assert score.trust in TRUST


def test_every_number_of_a_table_bears_its_paper_and_trust_mark():
    tables = [path.name for path in FOLDER.glob("*.csv") if path.name != "inputs.csv"]
    assert len(tables) == 13
    for table in tables:
        assert all(row["paper"] and row["trust"] in TRUST for row in rows_of(table)), table


@pytest.mark.parametrize("score", EVERY, ids=NAMES)
def test_the_page_lists_a_score_as_it_is(score):
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{score.name}` |"))
    for said in (score.title("en"), score.title("zh"), score.trust, score.paper):
        assert f"| {said} |" in row


def test_what_is_unverified_says_so_wherever_it_is_named():
    assert [score.name for score in EVERY if not score.verified] == [
        "kdigo",
        *(f"ukpds_{name}_1y" for name in ("heart_failure", "heart_attack_women", "stroke", "kidney_failure")),
        "three_key_questions",
    ]
    assert KDIGO.title("en").endswith("(unverified)")
    assert KDIGO.title("zh").endswith("（未经核实）")
    assert "unverified" not in KFRE[0].title("en")


def test_no_score_counts_ethnicity():
    """Race terms of the papers are kept as published, and multiplied by 0 for everybody."""
    profile = profile_of(age=50.0)
    assert [inputs()[race].values(profile)[0] for race in ("black", "hispanic", "afro_caribbean", "asian_indian")] == [
        0
    ] * 4


@pytest.mark.parametrize("score", EVERY, ids=NAMES)
def test_a_score_lies_within_its_bounds_and_is_nan_where_it_is_not_computable(score):
    profiles = random_profiles(400, seed=1)
    low, high = score.bounds(profiles)
    rank, computable = score.rank(profiles), score.computable(profiles)
    assert (np.isnan(rank) == ~computable).all()
    assert (low[computable] <= rank[computable] + 1e-12).all()
    assert (rank[computable] <= high[computable] + 1e-12).all()


EQUATIONS = [score for score in EVERY if not isinstance(score, PointScore)]


@pytest.mark.parametrize("score", EQUATIONS, ids=[score.name for score in EQUATIONS])
def test_an_equation_s_bounds_are_the_risk_itself_where_all_is_known(score):
    profiles = random_profiles(2000, seed=2)
    computable = score.computable(profiles)
    low, high = (bound[computable] for bound in score.bounds(profiles))
    np.testing.assert_allclose(low, score.rank(profiles)[computable], rtol=1e-9)
    np.testing.assert_allclose(high, score.rank(profiles)[computable], rtol=1e-9)


@pytest.mark.parametrize("score", [*FRAMINGHAM_HYPERTENSION, CKD_PC_DECLINE], ids=lambda score: score.name)
def test_bounds_are_the_lowest_and_highest_risk_over_the_ends_of_what_is_missing(score):
    """Of interacting inputs too: age by diastolic pressure, systolic pressure by treatment."""
    known = {
        "age": 50, "female": 1, "bmi_latest": 24, "sbp_latest": 125, "dbp_latest": 80, "smoking_latest": 0,
        "family_history_hypertension": 1, "hba1c_latest": 7, "egfr_latest": 80, "uacr_latest": 20,
        "diabetes_found_ever": 1,
    }  # fmt: skip
    missing = {"age": (18, 100), "dbp_latest": (40, 130), "sbp_latest": (80, 220), "hba1c_latest": (4.5, 15)}
    filled = [
        score.rank(in_care(**known | dict(zip(missing, ends, strict=True))))[0] for ends in product(*missing.values())
    ]
    low, high = score.bounds(in_care(**known | dict.fromkeys(missing)))
    assert (low[0], high[0]) == pytest.approx((min(filled), max(filled)))


def test_a_missing_input_is_not_taken_for_zero():
    score = FRAMINGHAM_HYPERTENSION[2]
    profile = in_care(age=50, female=0, bmi_latest=24, sbp_latest=125, dbp_latest=80, smoking_latest=0)
    low, high = score.bounds(profile)
    none, both = (
        score.rank(profile.with_columns(family_history_hypertension=pl.lit(float(parents))))[0] for parents in (0, 2)
    )
    assert not score.computable(profile)[0]
    assert (low[0], high[0]) == pytest.approx((none, both))


def test_a_zero_of_someone_without_records_is_unknown_and_of_someone_in_care_a_no():
    evidence = [evidence_from({"feature": "stroke_ever", "at_least": "1", "below": ""})]
    assert np.isnan(answer(evidence, profile_of(stroke_ever=0, examination_days_since=None))[0])
    assert answer(evidence, profile_of(stroke_ever=0, examination_days_since=30))[0] == 0
    assert np.isnan(answer(evidence, profile_of(stroke_ever=0, outpatient_visit_count_1y=0))[0])
    assert answer(evidence, profile_of(stroke_ever=1, examination_days_since=None))[0] == 1


def test_a_column_that_the_profiles_lack_is_unknown():
    assert not SYSTOLIC_PRESSURE.computable(profile_of(age=50))[0]
    assert SYSTOLIC_PRESSURE.bounds(profile_of(age=50)) == (80, 220)


@pytest.mark.parametrize(
    ("egfr", "diabetes", "decline", "failure"),
    [(59, 1, False, True), (60, 1, True, False), (60, 0, False, False), (None, 1, False, False)],
)
def test_a_score_is_computed_only_for_those_it_is_meant_for(egfr, diabetes, decline, failure):
    profile = in_care(
        age=60, female=0, egfr_latest=egfr, uacr_latest=20, sbp_latest=130, bmi_latest=24, hba1c_latest=7,
        smoking_latest=0, diabetes_found_ever=diabetes,
    )  # fmt: skip
    assert CKD_PC_DECLINE.computable(profile)[0] == decline
    assert KFRE[0].computable(profile)[0] == failure


def test_bounds_are_nan_of_those_a_score_is_known_not_to_be_meant_for():
    assert np.isnan(KFRE[0].bounds(in_care(age=60, egfr_latest=80))).all()
    assert not np.isnan(KFRE[0].bounds(in_care(age=60, egfr_latest=None))).any()


def test_the_equation_for_one_sex_is_for_that_sex_alone():
    men, women = (next(score for score in UKPDS if score.name.endswith(f"{sex}_1y")) for sex in ("_men", "_women"))
    woman = in_care(female=1, diabetes_found_ever=1)
    assert men.not_meant_for(woman)[0]
    assert women.meant_for(woman)[0]


def test_an_ankle_brachial_index_shows_artery_disease_but_is_not_needed_to_rule_it_out():
    asked = inputs()["peripheral_artery_disease"]
    assert asked.values(in_care(ankle_brachial_index_latest=0.8))[0] == 1
    assert asked.values(in_care(ankle_brachial_index_latest=None))[0] == 0


NORMAL = {
    "age": 40, "female": 1, "sbp_latest": 118, "dbp_latest": 76, "bmi_latest": 22, "waist_latest": 75,
    "family_history_hypertension": 0, "salt_intake_latest": 1, "drinking_latest": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("features", "factors"),
    [
        ({}, 0),
        ({"sbp_latest": 130}, 1),
        ({"dbp_latest": 85}, 1),
        ({"sbp_latest": 130, "dbp_latest": 85}, 1),
        ({"bmi_latest": 24}, 1),
        ({"waist_latest": 85}, 1),
        ({"waist_latest": 85, "female": 0}, 0),
        ({"waist_latest": 90, "female": 0}, 1),
        ({"family_history_hypertension": 1}, 1),
        ({"salt_intake_latest": 3}, 1),
        ({"age": 55}, 1),
        ({"age": 55, "sbp_latest": 135, "salt_intake_latest": 3, "bmi_latest": 30}, 4),
    ],
)
def test_the_national_rule_counts_each_factor_once(features, factors):
    assert NATIONAL_HIGH_RISK.score(in_care(**NORMAL | features))[0] == factors


def test_the_national_rule_leaves_open_how_much_a_daily_drinker_drinks():
    """Less often than daily is less than 100 mL a day; daily may be more or less."""
    often, daily = (in_care(**NORMAL | {"drinking_latest": value}) for value in (2, 3))
    assert NATIONAL_HIGH_RISK.bounds(often) == (0, 0)
    assert NATIONAL_HIGH_RISK.bounds(daily) == (0, 1)
    assert not NATIONAL_HIGH_RISK.computable(daily)[0]


@pytest.mark.parametrize(("liquor", "factors"), [(50, 0), (99, 0), (100, 1)])
def test_the_national_rule_counts_100_ml_of_liquor_a_day_where_it_is_recorded(liquor, factors):
    profile = in_care(**NORMAL | {"drinking_latest": 3, "liquor_per_day_latest": liquor})
    assert NATIONAL_HIGH_RISK.score(profile)[0] == factors


def test_one_factor_makes_high_risk_whatever_else_is_missing():
    high_risk = NATIONAL_HIGH_RISK.bands["high risk"]
    assert NATIONAL_HIGH_RISK.reaches(in_care(age=60), high_risk)[0] == 1
    assert np.isnan(NATIONAL_HIGH_RISK.reaches(in_care(age=40), high_risk)[0])
    assert NATIONAL_HIGH_RISK.reaches(in_care(**NORMAL), high_risk)[0] == 0


KDIGO_MAP = """
    egfr | 10 30 300 301
    95   | 0  1  1   2
    60   | 0  1  1   2
    59   | 1  2  2   3
    44   | 2  3  3   3
    29   | 3  3  3   3
    10   | 3  3  3   3
"""


def test_the_heat_map_gives_each_cell_its_level_and_300_is_still_moderate_albuminuria():
    header, *rows = [line.replace("|", " ").split() for line in KDIGO_MAP.strip().splitlines()]
    for row in rows:
        found = [KDIGO.score(profile_of(egfr_latest=float(row[0]), uacr_latest=float(uacr)))[0] for uacr in header[1:]]
        assert found == [float(level) for level in row[1:]]


@pytest.mark.parametrize(
    ("egfr", "uacr", "low", "high"), [(50, None, 1, 3), (20, None, 3, 3), (None, 10, 0, 3), (None, 500, 2, 3)]
)
def test_the_heat_map_gives_a_range_where_an_axis_is_unknown(egfr, uacr, low, high):
    profile = profile_of(egfr_latest=egfr, uacr_latest=uacr)
    assert KDIGO.bounds(profile) == (low, high)
    assert not KDIGO.computable(profile)[0]


def test_the_scale_of_2011_adds_its_points():
    """80 years 3, walks with an aid 3, a fall 2, blood pressure drug 1, diabetes drug 1: 10, high."""
    profile = in_care(
        age=80, walking_aid_ever=1, fall_found_count_3y=1, antihypertensive_active=1, metformin_active=1,
        oral_glucose_lowering_active=1, insulin_active=1, adl_score_latest=1,
    )  # fmt: skip
    assert FALL_SCALE_2011.score(profile)[0] == 10
    assert FALL_SCALE_2011.reaches(profile, FALL_SCALE_2011.bands["high"])[0] == 1


def test_the_scale_of_2011_is_35_items_of_53_points_of_which_28_can_be_answered_either_way():
    items = FALL_SCALE_2011.items
    assert len(items) == 35
    assert sum(item.points for item in items) == 53
    assert sum(item.answerable for item in items) == 28
    assert [item.name for item in items if not item.evidence] == ["other_drug"]


def test_items_that_no_profile_can_rule_out_widen_the_bounds_of_the_scale_of_2011():
    """Seven of a point each can never be ruled out; a fall that nobody asked about adds 2 more."""
    asked, unasked = (in_care(age=70, adl_score_latest=0, fell_past_year_latest=answered) for answered in (0, None))
    assert FALL_SCALE_2011.bounds(asked) == (0, 7)
    assert FALL_SCALE_2011.bounds(unasked) == (0, 7 + 2)


def test_an_item_that_no_profile_can_rule_out_counts_where_it_is_on_record():
    with_catheter = in_care(age=70, adl_score_latest=0, urinary_catheter_ever_1y=1)
    assert FALL_SCALE_2011.score(with_catheter)[0] == 1


@pytest.mark.parametrize(
    ("features", "answer"),
    [
        ({"adl_moving_latest": 5}, 1),
        ({"adl_moving_latest": 1}, 0),
        ({"adl_score_latest": 4}, 0),
        ({"adl_score_latest": 5}, np.nan),
        ({"adl_score_latest": 5, "adl_moving_latest": 1}, 0),
        ({"needs_help_walking_ever": 1, "adl_score_latest": 0}, 1),
        ({}, np.nan),
    ],
)
def test_whether_someone_needs_help_to_walk_is_told_by_the_self_care_form(features, answer):
    """Of a total below 5, moving can be no 5."""
    item = next(item for item in FALL_SCALE_2011.items if item.name == "needs_help_walking")
    assert item.answers(in_care(**features)) == pytest.approx([answer], nan_ok=True)


@pytest.mark.parametrize("score", [FALL_SCALE_2011, STAY_INDEPENDENT], ids=lambda score: score.name)
def test_a_recorded_total_is_the_score_and_needs_no_items(score):
    profile = profile_of(**{f"{score.name}_score_latest": 7})
    assert score.computable(profile)[0]
    assert score.score(profile)[0] == 7
    assert score.bounds(profile) == (7, 7)


ANSWERS = ("holds_furniture", "pushes_up_to_stand", "trouble_with_steps", "rushes_to_toilet", "drugs_cause_dizziness")


def test_stay_independent_counts_the_first_two_items_twice():
    """A fall 2, an aid 2, unsteady 1, holds on to furniture 1: 6 of 14; at risk from 4."""
    profile = in_care(
        fall_found_count_1y=1, walking_aid_ever=1, unsteady_walking_latest=1, fear_of_falling_latest=0,
        numb_feet_latest=0, **{f"{answer}_latest": 0 for answer in ANSWERS} | {"holds_furniture_latest": 1},
    )  # fmt: skip
    assert len(STAY_INDEPENDENT.items) == 12
    assert sum(item.points for item in STAY_INDEPENDENT.items) == 14
    assert STAY_INDEPENDENT.score(profile)[0] == 6
    assert STAY_INDEPENDENT.bounds(profile) == (6, 6)
    assert STAY_INDEPENDENT.reaches(profile, STAY_INDEPENDENT.bands["at risk"])[0] == 1


def test_questions_of_stay_independent_that_nobody_asked_leave_a_range_and_no_score():
    profile = in_care(fall_found_count_1y=1, walking_aid_ever=1, unsteady_walking_latest=1, numb_feet_latest=0)
    assert not STAY_INDEPENDENT.computable(profile)[0]
    assert STAY_INDEPENDENT.bounds(profile) == (5, 5 + len(ANSWERS) + 1)
    assert STAY_INDEPENDENT.reaches(profile, STAY_INDEPENDENT.bands["at risk"])[0] == 1


@pytest.mark.parametrize(
    ("fallen", "unsteady", "worried", "at_risk"),
    [(0, 0, 0, 0), (1, None, None, 1), (0, 1, 0, 1), (0, 0, 1, 1), (0, None, None, np.nan), (0, 0, None, np.nan)],
)
def test_any_yes_to_the_three_key_questions_is_at_risk(fallen, unsteady, worried, at_risk):
    profile = in_care(fall_found_count_1y=fallen, unsteady_walking_latest=unsteady, fear_of_falling_latest=worried)
    assert THREE_KEY_QUESTIONS.reaches(profile, 1) == pytest.approx([at_risk], nan_ok=True)


def test_the_frailty_index_may_be_higher_by_what_cannot_be_assessed():
    """Nine deficits of 36, of which 30 can be assessed: up to 15."""
    low, high = FRAILTY_INDEX.bounds(profile_of(frailty_index_latest=9 / 36, frailty_assessable_latest=30))
    assert (low[0], high[0]) == pytest.approx((9 / 36, 15 / 36))
    assert FRAILTY_INDEX.bounds(profile_of(age=70)) == (0, 1)
    assert not FRAILTY_INDEX.computable(profile_of(age=70))[0]


def test_a_fall_on_record_counts_and_its_absence_is_certain_only_where_someone_asked():
    fallen, asked, unasked = (
        in_care(fall_found_count_1y=1),
        in_care(fear_of_falling_latest=0),
        in_care(),
    )
    assert [PRIOR_FALL.score(profile)[0] for profile in (fallen, asked, unasked)] == [1, 0, 0]
    assert [PRIOR_FALL.bounds(profile) for profile in (fallen, asked, unasked)] == [(1, 1), (0, 0), (0, 1)]
    assert not PRIOR_FALL.computable(profile_of(fall_found_count_1y=0, **UNKNOWN))[0]
