"""The declaration: what is in a profile, what is not, how each feature is called, and the page that lists them."""

import re

import pytest

from features.catalogue import PAGE, PHENOTYPES_PAGE, page, phenotypes_page
from features.engine import Engine
from features.errors import WeibingError
from features.measures import KINDS, Feature, Measure, active, count, ever, latest, mean, share_of_days, total
from features.profile import FALL_RISK_CLASSES, PROFILE, SPECIAL, SWITCH, Profile, declared
from features.vocabulary import builtin
from tests.tables import events_from


def test_there_are_at_least_two_hundred_features():
    assert len(PROFILE) >= 200


def test_the_five_features_of_the_design_exist():
    names = {"sbp_mean_1y", "hba1c_latest", "fall_count_1y", "antihypertensive_active", "egfr_slope_5y"}
    assert names <= set(PROFILE.names)


def test_the_profile_uses_every_measure_but_those_that_a_county_may_want():
    assert set(Measure) - {feature.measure for feature in PROFILE.features} <= {Measure.DAYS}


@pytest.mark.parametrize(
    "names",
    [
        "sbp_latest sbp_mean_1y sbp_min_2y sbp_max_2y sbp_sd_2y sbp_cv_2y sbp_slope_2y sbp_count_1y sbp_days_since",
        "hypertension_ever diabetes_ever stroke_ever ckd_found_ever hypertension_days_since_first",
        "insulin_active statin_active benzodiazepine_active drug_class_count fall_risk_drug_class_count",
        "outpatient_visit_count_1y missed_follow_up_count_1y length_of_stay_sum_1y hospital_stay_count_1y",
        "stay_independent_score_latest fall_scale_2011_score_latest adl_score_latest mmse_latest phq9_latest",
        "grip_strength_latest timed_up_and_go_latest gait_speed_latest one_leg_stand_latest sit_and_reach_latest",
        "education_latest living_alone_latest minimum_living_allowance_ever distance_to_clinic_latest",
        "home_sbp_mean_90d home_sbp_daily_sd_90d home_sbp_night_to_day_90d home_sbp_share_of_days_90d",
        "steps_per_day_30d sleep_hours_per_day_30d worn_hours_share_of_days_30d wearable_heart_rate_mean_30d",
        "bmi_latest pulse_pressure_latest egfr_latest egfr_slope_5y non_hdl_latest triglycerides_to_hdl_latest",
        "uacr_stage_latest frailty_index_latest frailty_assessable_latest chronic_condition_count",
    ],
)
def test_what_a_county_records_has_its_features(names):
    assert set(names.split()) <= set(PROFILE.names)


def test_every_feature_belongs_to_a_known_concept_and_the_engine_takes_all():
    assert Engine(PROFILE).profile.names == list(dict.fromkeys(PROFILE.names))


def test_every_feature_is_labelled_in_both_languages():
    labels = [
        (feature.name, feature.label(concept), feature.label(concept, "zh"))
        for feature in (*PROFILE.features, *SPECIAL)
        for concept in [builtin().concept(feature.concept)]
    ]
    assert [name for name, english, _ in labels if not english or re.search(r"[\u4e00-\u9fff]", english)] == []
    assert [name for name, _, chinese in labels if not re.search(r"[\u4e00-\u9fff]", chinese)] == []


def test_no_two_features_are_called_the_same():
    for language in ("en", "zh"):
        labels = [feature.label(builtin().concept(feature.concept), language) for feature in PROFILE.features]
        assert [label for label in labels if labels.count(label) > 1] == []


def test_a_label_says_what_of_what_since_when():
    sbp = builtin().concept("sbp")
    assert mean("sbp", within="1y").label(sbp) == "systolic blood pressure, mean, 1y"
    assert mean("sbp", within="1y").label(sbp, "zh") == "收缩压，平均，近1年"
    assert latest("sbp").label(sbp, "zh") == "收缩压，最近一次"
    assert share_of_days("home_sbp", within="90d").label(builtin().concept("home_sbp"), "zh") == (
        "家庭自测收缩压，记录天数占比，近90天"
    )


def test_every_measure_says_what_it_means():
    assert set(KINDS) == set(Measure)
    assert all(kind.meaning.endswith(".") for kind in KINDS.values())


@pytest.mark.parametrize("concept", ["hiv", "severe_mental_illness", "tuberculosis"])
def test_a_special_category_is_refused_and_the_message_names_the_concept_and_the_switch(concept):
    with pytest.raises(WeibingError, match=f"is of {concept}, one of the law's special categories. Set {SWITCH}=1"):
        Engine(Profile(ever(concept)))
    assert Engine(Profile(ever(concept), special_categories=True)).profile.names == [f"{concept}_ever"]


def test_a_county_switches_the_special_categories_on():
    assert declared({}) is PROFILE
    assert declared({SWITCH: "0"}) is PROFILE
    switched = declared({SWITCH: "1"})
    assert switched.names == [*PROFILE.names, *(feature.name for feature in SPECIAL)]
    assert Engine(switched).also([ever("hiv", within="1y")]).profile.names[-1] == "hiv_ever_1y"
    with pytest.raises(WeibingError, match=f'{SWITCH} is "yes". Set it to 1'):
        declared({SWITCH: "yes"})


def test_no_feature_of_the_profile_is_of_a_special_category_or_a_place():
    kinds = {builtin().concept(feature.concept).kind for feature in PROFILE.features}
    assert kinds.isdisjoint({"special", "place"})
    with pytest.raises(WeibingError, match="is of township, a place, which no profile holds"):
        Engine(Profile(ever("township")))


@pytest.mark.parametrize(
    ("code", "concept"),
    [
        ("B20", "hiv"),
        ("Z21", "hiv"),
        ("A16.200", "tuberculosis"),
        ("F20.9", "severe_mental_illness"),
        ("F31", "severe_mental_illness"),
    ],
)
def test_special_categories_are_known_by_their_codes_with_the_mark_of_what_nobody_has_verified(code, concept):
    meanings = builtin().meanings(f"ICD10//{code}")
    assert [meaning.concept for meaning in meanings] == [concept]
    assert builtin().trust[builtin().listed(f"ICD10//{code}")] == "M"


def test_the_classes_of_stoppfall_are_fourteen_of_its_list():
    assert len(FALL_RISK_CLASSES) == len(set(FALL_RISK_CLASSES)) == 14
    assert {f"{drug}_active" for drug in FALL_RISK_CLASSES} <= set(PROFILE.names)


def test_a_total_sums_its_parts_where_they_are_known():
    history = events_from("""
        time       | code          | value
        2024-05-01 | insulin       |
        2024-05-01 | statin        |
        2020-01-01 | metformin     |
        2024-05-01 | hba1c         | 7.5
    """)
    drugs = [active(drug, within="180d") for drug in ("insulin", "statin", "metformin")]
    values = [latest("hba1c"), latest("sbp")]
    nobody_knows = [latest("ldl")]
    engine = Engine(
        Profile(
            total("drugs", "drug_classes", drugs),
            *drugs,
            total("values", "hba1c", values),
            *values,
            total("unknown", "ldl", nobody_knows),
            *nobody_knows,
        )
    )
    filled = dict(zip(engine.profile.names, engine.one(history, 1_717_200_000_000_000).tolist(), strict=True))
    assert filled["drugs"] == 1 + 1 + 0
    assert filled["values"] == 7.5
    assert filled["unknown"] != filled["unknown"], "null, as none of its parts is known"


def test_a_total_must_sum_features_of_the_profile():
    with pytest.raises(WeibingError, match=r'no feature "fall_count_2y"\. Did you mean "fall_count_1y"'):
        Profile(count("fall", within="1y"), total("falls", "fall", [count("fall", within="2y")]))
    twice = total("falls", "fall", [count("fall")])
    with pytest.raises(WeibingError, match='"more" sums "falls", which is a sum itself'):
        Profile(count("fall"), twice, total("more", "fall", [twice]))


def test_a_share_of_days_needs_a_look_back():
    with pytest.raises(WeibingError, match='"worn" needs a look-back, such as within="30d"'):
        Engine(Profile(Feature("worn", Measure.SHARE_OF_DAYS, "worn_hours")))


def test_docs_features_is_what_the_declaration_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m features.catalogue"
    assert PHENOTYPES_PAGE.read_text(encoding="utf-8") == phenotypes_page(), "write it again: features.catalogue"
