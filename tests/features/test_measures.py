"""What each measure makes of a history, drawn as a table."""

from math import isnan, sqrt

import pytest

from features.engine import Engine
from features.errors import WeibingError
from features.measures import (
    Feature,
    Measure,
    active,
    age,
    count,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
)
from features.profile import PROFILE, Profile
from features.times import instant, microseconds
from features.vocabulary import builtin
from tests.tables import events_from

THREE_PRESSURES = """
    time       | code | value
    2022-01-01 | sbp  | 130
    2023-01-01 | sbp  | 140
    2024-01-01 | sbp  | 150
"""


def value_of(history: str, feature: Feature, at: str = "2025-01-01") -> float | None:
    value = float(Engine(Profile(feature)).one(events_from(history), microseconds(instant(at)))[0])
    return None if isnan(value) else value


def test_mean_leaves_out_a_value_at_the_index_time():
    history = """
        time        | code | value
        2023-03-01  | sbp  | 130
        2023-09-01  | sbp  | 150
        2024-01-01  | sbp  | 190
    """
    assert value_of(history, mean("sbp", within="1y"), at="2024-01-01") == (130 + 150) / 2


def test_latest_is_the_last_value_before_the_index_time():
    assert value_of(THREE_PRESSURES, latest("sbp")) == 150
    assert value_of(THREE_PRESSURES, latest("sbp"), at="2023-06-01") == 140
    assert value_of(THREE_PRESSURES, latest("sbp", within="30d")) is None


def test_latest_is_the_mean_of_values_that_bear_the_same_time():
    history = """
        time             | code | value
        2024-01-01T08:00 | sbp  | 150
        2024-01-01T09:00 | sbp  | 140
        2024-01-01T09:00 | sbp  | 130
    """
    assert value_of(history, latest("sbp")) == (140 + 130) / 2


def test_extremes_spread_and_count_over_a_look_back():
    assert value_of(THREE_PRESSURES, minimum("sbp", within="800d")) == 140
    assert value_of(THREE_PRESSURES, maximum("sbp")) == 150
    assert value_of(THREE_PRESSURES, count("sbp", within="5y")) == 3
    deviations = (130 - 140) ** 2 + 0 + (150 - 140) ** 2
    assert value_of(THREE_PRESSURES, standard_deviation("sbp")) == pytest.approx(sqrt(deviations / 2))


def test_a_spread_needs_two_values():
    assert value_of(THREE_PRESSURES, standard_deviation("sbp", within="400d")) is None


def test_slope_is_the_change_per_year():
    assert value_of(THREE_PRESSURES, slope("sbp", within="5y")) == pytest.approx(10, abs=0.01)


def test_slope_needs_enough_values_and_two_different_times():
    assert value_of(THREE_PRESSURES, slope("sbp", within="2y", at_least=3)) is None
    assert value_of(THREE_PRESSURES, slope("sbp", within="3y", at_least=2)) == pytest.approx(10, abs=0.01)
    at_once = """
        time       | code | value
        2024-01-01 | sbp  | 130
        2024-01-01 | sbp  | 150
        2024-01-01 | sbp  | 140
    """
    assert value_of(at_once, slope("sbp")) is None


def test_count_takes_events_at_the_same_time_as_one():
    history = """
        time       | code
        2024-01-01 | fall
        2024-01-01 | ICD10//W19
        2024-05-01 | fall
    """
    assert value_of(history, count("fall", within="1y"), at="2024-12-01") == 2


def test_what_never_happened_counts_zero_and_is_nobodys_days_ago():
    assert value_of(THREE_PRESSURES, count("fall")) == 0
    assert value_of(THREE_PRESSURES, ever("stroke")) == 0
    assert value_of(THREE_PRESSURES, since("fall")) is None
    assert value_of(THREE_PRESSURES, since_first("fall")) is None


def test_since_counts_days_from_the_last_and_from_the_first_time():
    assert value_of(THREE_PRESSURES, since("sbp")) == 366
    assert value_of(THREE_PRESSURES, since_first("sbp")) == 365 + 365 + 366


def test_a_drug_is_active_while_its_last_dispensing_lies_in_the_look_back():
    history = """
        time       | code
        2024-03-01 | ATC//C09AA02
    """
    assert value_of(history, active("antihypertensive", within="180d"), at="2024-08-28") == 1
    assert value_of(history, active("antihypertensive", within="180d"), at="2024-08-29") == 0


def test_ever_also_holds_of_what_is_always_true_but_not_within_a_look_back():
    history = """
        time | code
             | diabetes
    """
    assert value_of(history, ever("diabetes")) == 1
    assert value_of(history, ever("diabetes", within="5y")) == 0
    assert value_of(history, count("diabetes")) == 0


def test_static_prefers_what_is_always_true_to_what_was_said_once():
    history = """
        time       | code      | value
                   | GENDER//F |
        2020-01-01 | female    | 0
    """
    assert value_of(history, static("female")) == 1
    dated = """
        time       | code   | value
        2020-01-01 | female | 1
    """
    assert value_of(dated, static("female")) == 1
    assert value_of(dated, static("female"), at="2019-01-01") is None


def test_age_is_counted_from_birth_in_years():
    history = """
        time       | code
        1960-01-01 | MEDS_BIRTH
    """
    assert value_of(history, age(), at="1990-01-01") == pytest.approx(10_958 / 365.25)
    assert value_of(history, age(), at="1959-01-01") is None


def test_a_value_outside_its_plausible_range_or_in_an_unknown_unit_is_not_used():
    history = """
        time       | code | value | unit
        2022-01-01 | sbp  | 120   | mm[Hg]
        2023-01-01 | sbp  | 13682 | mm[Hg]
        2024-01-01 | sbp  | 118   | furlong
    """
    assert value_of(history, latest("sbp")) == 120
    assert value_of(history, count("sbp")) == 1


def test_units_become_the_canonical_one():
    history = """
        time       | code            | value | unit
        2024-01-01 | LOINC//1558-6   | 126   | mg/dL
        2024-01-01 | hba1c           | 48    | mmol/mol
    """
    assert value_of(history, latest("glucose_fasting")) == pytest.approx(126 / 18.0156, rel=1e-6)
    assert value_of(history, latest("hba1c")) == pytest.approx(48 * 0.09148 + 2.152, rel=1e-6)


@pytest.mark.parametrize(
    ("creatinine", "born", "sex", "egfr"),
    [(70, "1964-01-01", "F", 85.34), (106.08, "1969-01-01", "M", 71.42), (130, "1952-01-01", "F", 37.68)],
)
def test_egfr_follows_ckd_epi_2021(creatinine, born, sex, egfr):
    history = f"""
        time       | code        | value
        {born}     | MEDS_BIRTH  |
                   | GENDER//{sex} |
        2024-01-01 | creatinine  | {creatinine}
    """
    assert value_of(history, latest("egfr")) == pytest.approx(egfr, abs=0.02)


def test_egfr_needs_sex_and_an_adult():
    unknown_sex = """
        time       | code       | value
        1964-01-01 | MEDS_BIRTH |
        2024-01-01 | creatinine | 70
    """
    child = """
        time       | code       | value
        2014-01-01 | MEDS_BIRTH |
                   | GENDER//F  |
        2024-01-01 | creatinine | 40
    """
    assert value_of(unknown_sex, latest("egfr")) is None
    assert value_of(child, latest("egfr")) is None


def test_body_mass_index_takes_the_latest_height_known_by_then():
    history = """
        time       | code   | value
        2020-01-01 | height | 160
        2024-01-01 | weight | 64
        2024-06-01 | height | 170
    """
    assert value_of(history, latest("bmi")) == pytest.approx(64 / 1.6**2)


def test_names_say_what_features_hold():
    declared = Profile(mean("sbp", within="1y"), latest("hba1c"), slope("egfr", within="5y"), since_first("diabetes"))
    assert declared.names == ["sbp_mean_1y", "hba1c_latest", "egfr_slope_5y", "diabetes_days_since_first"]


def test_units_and_labels_follow_the_measure():
    sbp = builtin().concept("sbp")
    assert slope("sbp", within="5y").unit(sbp) == "mm[Hg]/a"
    assert count("sbp").unit(sbp) == ""
    assert since("sbp").unit(sbp) == "d"
    assert mean("sbp", within="1y").label(sbp) == "systolic blood pressure, mean, 1y"


def test_every_feature_of_the_profile_belongs_to_a_known_concept():
    Engine(PROFILE)
    assert len(PROFILE) == len(set(PROFILE.names))


def test_a_profile_refuses_the_same_name_twice():
    with pytest.raises(WeibingError, match="declares sbp_latest more than once"):
        Profile(latest("sbp"), latest("sbp", within="1y"))


def test_a_profile_says_what_the_closest_feature_is():
    with pytest.raises(WeibingError, match=r'no feature "sbp_mean". Did you mean "sbp_mean'):
        Profile(mean("sbp", within="1y"))["sbp_mean"]


def test_the_engine_refuses_an_unknown_concept_and_numbers_of_a_concept_that_has_none():
    with pytest.raises(WeibingError, match='There is no concept "spb"'):
        Engine(Profile(latest("spb")))
    with pytest.raises(WeibingError, match=r"fall_latest\" needs numbers, but fall \(kind: event\) has none"):
        Engine(Profile(latest("fall")))


def test_the_version_of_a_profile_changes_with_its_declaration():
    assert Profile(latest("sbp")).version != Profile(latest("sbp", within="1y")).version
    assert Profile(latest("sbp")).version == Profile(Feature("sbp_latest", Measure.LATEST, "sbp")).version
