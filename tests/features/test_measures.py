"""What each measure makes of a history, drawn as a table."""

from math import isnan, sqrt
from statistics import stdev

import pytest

from features.engine import Engine
from features.errors import WeibingError
from features.measures import (
    Feature,
    Measure,
    active,
    age,
    count,
    daily_variability,
    days,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    night_to_day,
    per_day,
    share_of_days,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
    summed,
    variation,
)
from features.profile import Profile
from features.times import instant, microseconds
from features.vocabulary import builtin
from tests.tables import events_from

THREE_PRESSURES = """
    time       | code | value
    2022-01-01 | sbp  | 130
    2023-01-01 | sbp  | 140
    2024-01-01 | sbp  | 150
"""


# Times are drawn in UTC; days and nights are those of China, eight hours ahead.
CUFF_AT_HOME = """
    time             | code     | value
    2024-12-01T00:00 | home_sbp | 150
    2024-12-01T13:00 | home_sbp | 130
    2024-12-01T15:00 | home_sbp | 120
    2024-12-02T00:00 | home_sbp | 148
    2024-12-02T21:00 | home_sbp | 110
    2024-12-03T00:00 | home_sbp | 146
"""


def value_of(history: str, feature: Feature, at: str = "2025-01-01", timezone: str = "Asia/Shanghai") -> float | None:
    engine = Engine(Profile(feature), timezone=timezone)
    value = float(engine.one(events_from(history), microseconds(instant(at)))[0])
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


def test_the_coefficient_of_variation_is_the_spread_over_the_mean():
    assert value_of(THREE_PRESSURES, variation("sbp")) == pytest.approx(10 / 140)
    assert value_of(THREE_PRESSURES, variation("sbp", within="800d")) is None, "two values do not tell"
    no_mean = """
        time       | code                 | value
        2024-01-01 | bone_density_t_score | -1
        2024-02-01 | bone_density_t_score | -2
        2024-03-01 | bone_density_t_score | -3
    """
    assert value_of(no_mean, variation("bone_density_t_score")) is None


def test_a_sum_adds_the_values_and_is_0_where_there_are_none():
    stays = """
        time       | code           | value | unit
        2022-03-01 | length_of_stay | 30    | d
        2024-03-01 | length_of_stay | 4     | d
        2024-09-01 | length_of_stay | 7     | d
    """
    assert value_of(stays, summed("length_of_stay", within="1y")) == 4 + 7
    assert value_of(THREE_PRESSURES, summed("length_of_stay", within="1y")) == 0


def test_days_are_those_of_the_county_s_zone():
    # 23:59 and 00:00 in China, on the 4th and the 5th; in UTC both are on the 4th.
    midnight = """
        time             | code | value
        2024-03-04T15:59 | fall |
        2024-03-04T16:00 | fall |
    """
    assert value_of(midnight, days("fall")) == 2
    assert value_of(midnight, days("fall"), timezone="UTC") == 1
    assert value_of(midnight, count("fall")) == 2
    assert value_of(midnight, days("fall"), at="2024-01-01") == 0


def test_a_zone_that_keeps_summer_time_is_taken_at_its_standard_time():
    midsummer = """
        time             | code | value
        2024-07-01T22:30 | fall |
        2024-07-01T23:30 | fall |
    """
    # 23:30 and 00:30 at UTC+1; the clocks say 00:30 and 01:30.
    assert value_of(midsummer, days("fall"), timezone="Europe/Berlin") == 2


def test_the_share_of_days_says_how_regularly_a_device_is_worn():
    # Three local days have a reading, of the ten before.
    assert value_of(CUFF_AT_HOME, share_of_days("home_sbp", within="10d"), at="2024-12-04") == pytest.approx(3 / 10)
    # A look-back of a day holds two local days; a share is 1 at most.
    assert value_of(CUFF_AT_HOME, share_of_days("home_sbp", within="1d"), at="2024-12-02T00:30") == 1
    assert value_of(CUFF_AT_HOME, share_of_days("home_sbp", within="10d"), at="2023-01-01") == 0


def test_what_is_told_in_parts_is_summed_by_day():
    steps = """
        time             | code  | value
        2024-12-01T02:00 | steps | 1000
        2024-12-01T05:00 | steps | 2500
        2024-12-02T02:00 | steps | 4000
    """
    assert value_of(steps, per_day("steps", within="90d")) == (1000 + 2500 + 4000) / 2
    assert value_of(steps, per_day("steps", within="1d")) is None


def test_day_to_day_variability_is_the_spread_of_the_means_of_days():
    # Local days: 12-01 holds 150, 130, 120; 12-02 holds 148; 12-03 holds 110 and 146.
    means = [(150 + 130 + 120) / 3, 148, (110 + 146) / 2]
    assert value_of(CUFF_AT_HOME, daily_variability("home_sbp", within="90d")) == pytest.approx(stdev(means))
    assert value_of(CUFF_AT_HOME, daily_variability("home_sbp", at_least=4)) is None
    in_utc = [(150 + 130 + 120) / 3, (148 + 110) / 2, 146]
    found = value_of(CUFF_AT_HOME, daily_variability("home_sbp", within="90d"), timezone="UTC")
    assert found == pytest.approx(stdev(in_utc))


def test_the_night_pattern_is_the_mean_at_night_over_the_mean_by_day():
    # Local times: 08:00, 21:00 and 23:00 on the first day, 08:00 on the second, 05:00 and 08:00 on the third.
    night, by_day = (120 + 110) / 2, (150 + 130 + 148 + 146) / 4
    assert value_of(CUFF_AT_HOME, night_to_day("home_sbp", within="90d", at_least=2)) == pytest.approx(night / by_day)
    assert value_of(CUFF_AT_HOME, night_to_day("home_sbp", within="90d", at_least=3)) is None


def test_a_night_begins_at_ten_and_ends_at_six():
    edges = """
        time                | code     | value
        2024-12-01T13:59:59 | home_sbp | 150
        2024-12-01T14:00:00 | home_sbp | 100
        2024-12-01T21:59:59 | home_sbp | 104
        2024-12-01T22:00:00 | home_sbp | 154
    """
    assert value_of(edges, night_to_day("home_sbp", at_least=2)) == pytest.approx((100 + 104) / (150 + 154))


def test_what_is_dated_by_its_day_alone_is_neither_of_the_night_nor_of_the_day():
    dated = """
        time                | code     | value
        2024-12-01T16:00:00 | home_sbp | 170
        2024-12-01T17:00:00 | home_sbp | 108
        2024-12-02T01:00:00 | home_sbp | 135
    """
    assert value_of(dated, night_to_day("home_sbp", at_least=1)) == pytest.approx(108 / 135)


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
    assert daily_variability("home_sbp").unit(builtin().concept("home_sbp")) == "mm[Hg]"
    assert night_to_day("home_sbp").unit(builtin().concept("home_sbp")) == ""
    assert per_day("steps").unit(builtin().concept("steps")) == "{steps}/d"
    assert slope("phq9").unit(builtin().concept("phq9")) == ""
    assert mean("sbp", within="1y").label(sbp) == "systolic blood pressure, mean, 1y"


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
