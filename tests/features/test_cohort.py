"""Who is at risk when, and what then happened: each rule and each edge of a window as a small table."""

import dataclasses
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from math import inf
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import events as events_module
from features.cohort import Cohort, IndexTimes, Limit, Target, cohort
from features.errors import WeibingError
from features.events import SCHEMA, EventStore
from tests.tables import events_from
from training.censoring import censoring_weights

ONCE = IndexTimes(every="1y", start="2015-01-01", stop="2015-01-01")
STROKE = Target(name="stroke", outcome=("stroke",), horizon="1y", index=ONCE)

# Of this resident the records begin before anyone's and end after, so that they do not depend on the history.
WITNESS = events_from(
    """
    time       | code
    2000-06-01 | outpatient_visit
    2030-06-01 | outpatient_visit
    """,
    subject_id=0,
)

Find = Callable[..., Cohort]


def target(**changes: object) -> Target:
    """The target STROKE, but for what is said."""
    return dataclasses.replace(STROKE, **changes)


@pytest.fixture
def cohort_of(tmp_path: Path) -> Find:
    """Find the cohort of a history."""
    numbers = count()

    def find(history: str | pl.DataFrame, sought: Target = STROKE, timezone: str = "UTC", **store: object) -> Cohort:
        made = EventStore.create(tmp_path / str(next(numbers)), timezone=timezone, **store)
        made.append([events_from(history) if isinstance(history, str) else history])
        return cohort(made, sought)

    return find


@pytest.fixture
def followed(cohort_of: Find) -> Callable[..., list[tuple[str, float]]]:
    """Say how the follow-up of resident 1 from each index time ended, and after how many days; witnessed."""

    def ends(history: str, sought: Target = STROKE, timezone: str = "UTC") -> list[tuple[str, float]]:
        rows = cohort_of(pl.concat([events_from(history), WITNESS]), sought, timezone).rows
        rows = rows.filter(pl.col("subject_id") == 1)
        ended = pl.when("observed").then(pl.lit("outcome")).when("died").then(pl.lit("death"))
        return rows.select(ended.otherwise(pl.lit("lost")), "time").rows()

    return ends


@pytest.fixture
def at_risk(followed: Callable[..., list[tuple[str, float]]]) -> Callable[..., bool]:
    """Say whether resident 1 is at risk at the one index time."""
    return lambda history, sought=STROKE: len(followed(history, sought)) == 1


def index_times(found: Cohort, resident: int = 1) -> list[str]:
    times = found.rows.filter(pl.col("subject_id") == resident)["index_time"]
    return [f"{time:%Y-%m-%d %H:%M}" for time in times]


UNTIL_2030 = 5630.0  # days from the index time to the end of the records, 2030-06-01


def test_the_outcome_ends_the_follow_up(followed):
    history = """
        time       | code
        2014-03-01 | outpatient_visit
        2015-01-31 | stroke
        2016-01-01 | MEDS_DEATH
    """
    assert followed(history) == [("outcome", 30)]


def test_the_outcome_is_found_by_what_its_code_means(followed):
    history = "time | code \n 2014-03-01 | LOCAL//x \n 2015-01-31 | ICD10//I63.902"
    assert followed(history) == [("outcome", 30)]


def test_an_outcome_at_any_time_of_day_is_counted_by_what_it_was_found_by(cohort_of):
    # The times of day are such that days as a fraction are not exact.
    days = [
        (number, f"2015-0{number}-11T0{number}:17:{13 + 5 * number}.{100003 * number:06}") for number in range(1, 10)
    ]
    lines = [f"{who} | 2014-03-01 | outpatient_visit \n {who} | {day} | stroke" for who, day in days]
    found = cohort_of("subject_id | time | code \n" + "\n".join(lines) + "\n 10 | 2018-01-01 | outpatient_visit")
    assert found.found_by == {"stroke": 9}


def test_an_outcome_at_the_index_time_counts(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-01-01 | stroke"
    assert followed(history) == [("outcome", 0)]


def test_an_outcome_at_the_end_of_the_horizon_is_too_late(cohort_of):
    history = """
        subject_id | time                       | code
        1          | 2014-03-01                 | outpatient_visit
        1          | 2015-12-31T23:59:59.999999 | stroke
        2          | 2014-03-01                 | outpatient_visit
        2          | 2016-01-01                 | stroke
        3          | 2018-01-01                 | outpatient_visit
    """
    rows = cohort_of(history).rows
    assert STROKE.horizon_days == 365
    assert rows["time"].to_list() == [pytest.approx(365, abs=1e-9), 365]
    known = censoring_weights(*(rows[name].to_numpy() for name in ("time", "observed", "died")), STROKE.horizon_days)
    assert known.outcome.tolist() == [1, 0]


def test_death_without_the_outcome_is_told_apart_from_being_lost(followed):
    visits = "time | code \n 2014-03-01 | outpatient_visit \n"
    assert followed(visits + "2015-03-02 | MEDS_DEATH") == [("death", 60)]
    assert followed(visits + "2015-03-02 | OBSERVATION_END") == [("lost", 60)]


def test_an_outcome_on_the_day_of_death_counts(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-03-02 | stroke \n 2015-03-02 | MEDS_DEATH"
    assert followed(history) == [("outcome", 60)]


def test_what_is_recorded_after_death_does_not_count(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-03-02 | MEDS_DEATH \n 2015-03-03 | stroke"
    assert followed(history) == [("death", 60)]


def test_an_outcome_after_the_end_of_observation_does_not_count(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-03-02 | OBSERVATION_END \n {} | stroke"
    assert followed(history.format("2015-03-03")) == [("lost", 60)]
    assert followed(history.format("2015-03-02")) == [("outcome", 60)], "at the end itself one still looks"


def test_a_death_after_the_end_of_observation_is_not_known(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-03-02 | OBSERVATION_END \n {} | MEDS_DEATH"
    assert followed(history.format("2015-03-03")) == [("lost", 60)]
    assert followed(history.format("2015-03-02")) == [("death", 60)]


def test_of_several_ends_of_observation_the_latest_counts(followed):
    history = """
        time       | code
        2014-03-01 | outpatient_visit
        2014-12-31 | OBSERVATION_END
        2015-12-31 | OBSERVATION_END
    """
    assert followed(history) == [("lost", 364)]


def test_without_an_end_of_observation_it_lasts_to_the_last_event_in_the_store(cohort_of):
    history = """
        subject_id | time       | code
        1          | 2014-03-01 | outpatient_visit
        2          | 2016-03-01 | outpatient_visit
    """
    assert cohort_of(history).rows.select("subject_id", "time").rows() == [(1, 425)]


def test_whoever_died_or_moved_out_before_the_index_time_is_not_at_risk(at_risk):
    visits = "time | code \n 2014-03-01 | outpatient_visit \n"
    assert at_risk(visits)
    assert not at_risk(visits + "2014-12-31 | MEDS_DEATH")
    assert not at_risk(visits + "2014-12-31 | OBSERVATION_END")


def test_a_death_at_the_index_time_is_not_known_at_it(followed):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2015-01-01 | MEDS_DEATH"
    assert followed(history) == [("death", 0)]


def test_whose_observation_ends_at_the_index_time_cannot_be_followed(at_risk):
    assert not at_risk("time | code \n 2014-03-01 | outpatient_visit \n 2015-01-01 | OBSERVATION_END")


def test_whose_records_begin_at_the_index_time_or_later_is_not_yet_observed(at_risk):
    assert not at_risk("time | code \n 2015-01-01 | outpatient_visit")
    assert at_risk("time | code \n 2014-12-31T23:59:59.999999 | outpatient_visit")


def test_birth_and_what_is_always_true_do_not_begin_the_records(at_risk):
    assert not at_risk("time | code | value \n 1950-01-01 | MEDS_BIRTH | \n | female | 1 \n 2016-01-01 | sbp | 120")


def test_an_outcome_had_before_leaves_out_unless_it_may_recur(followed):
    history = """
        time       | code
        2014-03-01 | stroke
        2015-01-11 | stroke
        2015-01-21 | stroke
    """
    assert followed(history) == []
    assert followed(history, target(recurrent=True)) == [("outcome", 10)], "the first from the index time on"


def test_an_outcome_at_the_index_time_was_not_had_before(at_risk):
    history = "time | code \n 2014-03-01 | outpatient_visit \n {} | stroke"
    assert at_risk(history.format("2015-01-01"))
    assert not at_risk(history.format("2014-12-31T23:59:59.999999"))


def test_an_outcome_that_always_holds_was_had_before(at_risk):
    assert not at_risk("time | code \n 2014-03-01 | outpatient_visit \n | stroke")


def test_of_several_outcomes_the_first_to_come_counts(followed):
    sought = target(outcome=("stroke", "myocardial_infarction"))
    history = """
        time       | code
        2014-03-01 | outpatient_visit
        2015-02-10 | stroke
        2015-01-31 | myocardial_infarction
    """
    assert followed(history, sought) == [("outcome", 30)]
    assert followed(history.replace("2015-01-31", "2014-06-01"), sought) == [], "any of them had before leaves out"


@pytest.mark.parametrize(
    ("sbp", "kept"),
    [("2014-06-01 | sbp | 139", True), ("2014-06-01 | sbp | 140", False), ("2014-06-01 | smoking | 2", True)],
)
def test_a_limit_asks_of_the_latest_value_where_one_is_known(at_risk, sbp, kept):
    sought = target(limits=(Limit("sbp", below=140),))
    assert at_risk(f"time | code | value \n 2014-03-01 | outpatient_visit | \n {sbp}", sought) == kept


def test_a_limit_does_not_ask_of_earlier_values_nor_of_one_at_the_index_time(at_risk):
    history = """
        time       | code | value
        2014-03-01 | sbp  | 180
        2014-06-01 | sbp  | 120
        2015-01-01 | sbp  | 180
    """
    assert at_risk(history, target(limits=(Limit("sbp", below=140),)))


@pytest.mark.parametrize(("egfr", "kept"), [(59.9, False), (60, True), (90, False)])
def test_a_limit_holds_its_lower_bound_and_not_its_upper(at_risk, egfr, kept):
    sought = target(limits=(Limit("egfr", at_least=60, below=90),))
    assert at_risk(f"time | code | value \n 2014-03-01 | egfr | {egfr}", sought) == kept


def test_all_limits_must_hold(at_risk):
    sought = target(limits=(Limit("sbp", below=140), Limit("dbp", below=90)))
    history = "time | code | value \n 2014-03-01 | sbp | 120 \n 2014-03-01 | dbp | {}"
    assert at_risk(history.format(80), sought)
    assert not at_risk(history.format(95), sought)


def test_a_value_that_cannot_be_is_as_good_as_none(at_risk):
    sought = target(limits=(Limit("sbp", below=140),))
    assert at_risk("time | code | value \n 2014-03-01 | sbp | 1400", sought)


@pytest.mark.parametrize(("time", "before"), [("2014-12-31T23:59:59.999999", True), ("2015-01-01", False), ("", True)])
def test_what_must_be_present_or_absent_counts_before_the_index_time_or_always(at_risk, time, before):
    history = f"time | code \n 2014-03-01 | outpatient_visit \n {time} | diabetes"
    assert at_risk(history, target(present=("diabetes",))) == before
    assert at_risk(history, target(absent=("diabetes",))) != before


def test_all_that_must_be_present_is_asked_and_any_that_must_be_absent(at_risk):
    history = "time | code \n 2014-03-01 | diabetes"
    assert not at_risk(history, target(present=("diabetes", "hypertension")))
    assert not at_risk(history, target(absent=("hypertension", "diabetes")))


# 18 years of 365.25 days before 2015-01-01 are 6574.5 days: 1996-12-31 at noon.
@pytest.mark.parametrize(
    ("birth", "age", "kept"),
    [
        ("1996-12-31T12:00", (18, inf), True),
        ("1997-01-01", (18, inf), False),
        ("1996-12-31T12:00", (0, 18), False),
        ("1997-01-01", (0, 18), True),
        ("1997-01-01", (0, inf), True),
    ],
)
def test_an_age_range_holds_its_lower_end_and_not_its_upper(at_risk, birth, age, kept):
    history = f"time | code \n {birth} | MEDS_BIRTH \n 2014-03-01 | outpatient_visit"
    assert at_risk(history, target(age=age)) == kept


def test_a_resident_without_birth_is_at_risk_only_where_age_does_not_matter(cohort_of):
    history = "time | code \n 2014-03-01 | outpatient_visit \n 2030-01-01 | outpatient_visit"
    assert len(cohort_of(history).rows) == 1
    found = cohort_of(history, target(age=(18, inf)))
    assert len(found.rows) == 0
    assert found.flow["age unknown"] == 1


def test_index_times_come_yearly_from_the_first_january_after_the_records_begin(cohort_of):
    history = "time | code \n 2012-03-01 | outpatient_visit \n 2016-06-01 | outpatient_visit"
    found = cohort_of(history, target(index=IndexTimes(every="1y")))
    assert index_times(found) == ["2013-01-01 00:00", "2014-01-01 00:00", "2015-01-01 00:00"]


def test_the_first_january_is_the_county_s(cohort_of):
    yearly = target(index=IndexTimes(every="1y"))
    history = "time | code \n {} | outpatient_visit \n 2016-06-01 | outpatient_visit"
    already_2013 = cohort_of(history.format("2012-12-31T16:00"), yearly, "Asia/Shanghai")
    assert index_times(already_2013) == ["2013-12-31 16:00", "2014-12-31 16:00"]
    still_2012 = cohort_of(history.format("2013-01-01T04:00"), yearly, "America/New_York")
    assert index_times(still_2012) == ["2013-01-01 05:00", "2014-01-01 05:00", "2015-01-01 05:00"]


def test_a_year_later_is_the_same_day_of_the_county_s_calendar(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2018-06-01 | outpatient_visit"
    yearly = IndexTimes(every="1y", start="2012-02-29", stop="2016-12-31")
    found = cohort_of(history, target(index=yearly), "Asia/Shanghai")
    assert [time[:10] for time in index_times(found)] == [f"{2012 + n}-02-{28 - (n % 4 > 0)}" for n in range(5)]


def test_summer_time_does_not_move_an_index_time_away_from_midnight(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2015-06-01 | outpatient_visit"
    half_yearly = IndexTimes(every="6mo", start="2012-01-01", stop="2012-12-31")
    found = cohort_of(history, target(index=half_yearly), "Europe/Zurich")
    assert index_times(found) == ["2011-12-31 23:00", "2012-06-30 22:00"]


def test_start_and_stop_are_both_index_times(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2015-06-01 | outpatient_visit"
    fortnightly = IndexTimes(every="2w", start="2012-05-01", stop="2012-05-29")
    found = cohort_of(history, target(index=fortnightly))
    assert [time[:10] for time in index_times(found)] == ["2012-05-01", "2012-05-15", "2012-05-29"]


def test_there_are_no_index_times_after_the_records_end(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2013-06-01 | outpatient_visit"
    found = cohort_of(history, target(index=IndexTimes(every="1y", stop="2020-01-01")))
    assert found.flow["candidates"] == 2


def test_an_index_time_less_than_the_horizon_before_the_records_end_is_left_out_for_everyone(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2013-01-01 | stroke \n {} | outpatient_visit"
    sought = target(index=IndexTimes(every="1y", start="2013-01-01", stop="2013-01-01"))
    assert index_times(cohort_of(history.format("2014-01-01"), sought)) == ["2013-01-01 00:00"]
    found = cohort_of(history.format("2013-12-31"), sought)
    assert found.flow["less than 1y before the records end"] == 1
    assert len(found.rows) == 0


def test_where_times_are_relative_nobody_knows_when_the_records_end(cohort_of):
    history = "time | code \n 2011-03-01 | outpatient_visit \n 2013-01-11 | stroke"
    sought = target(index=IndexTimes(every="1y", start="2013-01-01", stop="2013-01-01"))
    found = cohort_of(history, sought, description={"relative_times": True})
    assert found.rows["time"].to_list() == [10]


def test_the_first_of_two_concepts_is_the_moment_by_which_both_have_occurred(followed, cohort_of):
    both = target(index=IndexTimes(first=("examination", "diabetes")))
    history = """
        time       | code
        2013-01-01 | examination
        2014-05-01 | diabetes
        2014-06-01 | examination
        2014-07-01 | diabetes
        2014-05-11 | stroke
    """
    assert followed(history, both) == [("outcome", 10)]
    only_one = "time | code \n 2013-01-01 | examination \n 2013-02-01 | examination \n 2018-01-01 | fall"
    assert cohort_of(only_one, both).flow["candidates"] == 0


def test_a_concept_named_twice_needs_to_occur_once(cohort_of):
    history = "time | code \n 2013-01-01 | outpatient_visit \n 2013-02-01 | diabetes \n 2018-01-01 | fall"
    found = cohort_of(history, target(index=IndexTimes(first=("diabetes", "diabetes"))))
    assert index_times(found) == ["2013-02-01 00:00"]


def test_each_occurrence_is_an_index_time_once(cohort_of):
    history = """
        time       | code        | text
        2013-01-01 | examination |
        2014-01-01 | examination | at the clinic
        2014-01-01 | examination | at home
        2015-01-01 | examination |
        2018-01-01 | fall        |
    """
    found = cohort_of(history, target(index=IndexTimes(each="examination")))
    assert index_times(found) == ["2014-01-01 00:00", "2015-01-01 00:00"], "at the first nothing is known yet"


def test_an_offset_of_a_day_lets_the_day_itself_count(cohort_of):
    history = "time | code | value \n 2013-01-01 | examination | \n 2013-01-01 | sbp | {} \n 2018-01-01 | fall |"
    sought = target(index=IndexTimes(each="examination"), limits=(Limit("sbp", below=140),))
    a_day_later = dataclasses.replace(sought, index=IndexTimes(each="examination", offset="1d"))
    assert index_times(cohort_of(history.format(120), sought)) == []
    assert index_times(cohort_of(history.format(120), a_day_later)) == ["2013-01-02 00:00"]
    assert cohort_of(history.format(150), a_day_later).flow["latest sbp not below 140"] == 1


def test_an_outcome_on_the_day_itself_was_had_before_with_an_offset_of_a_day(followed):
    history = "time | code \n 2013-01-01 | outpatient_visit \n 2014-01-01 | diabetes \n 2014-01-01 | stroke"
    assert followed(history, target(index=IndexTimes(first=("diabetes",)))) == [("outcome", 0)]
    assert followed(history, target(index=IndexTimes(first=("diabetes",), offset="1d"))) == []


FLOW = """
    subject_id | time       | code             | value
    1          | 1950-01-01 | MEDS_BIRTH       |
    1          | 2014-01-01 | diabetes         |
    2          | 2014-01-01 | diabetes         |
    3          | 2010-01-01 | MEDS_BIRTH       |
    3          | 2014-01-01 | diabetes         |
    4          | 1950-01-01 | MEDS_BIRTH       |
    4          | 2014-01-01 | outpatient_visit |
    5          | 1950-01-01 | MEDS_BIRTH       |
    5          | 2014-01-01 | diabetes         |
    5          | 2014-02-01 | dementia         |
    6          | 1950-01-01 | MEDS_BIRTH       |
    6          | 2014-01-01 | diabetes         |
    6          | 2014-02-01 | sbp              | 150
    7          | 1950-01-01 | MEDS_BIRTH       |
    7          | 2014-01-01 | diabetes         |
    7          | 2014-02-01 | stroke           |
    8          | 1950-01-01 | MEDS_BIRTH       |
    8          | 2016-06-01 | diabetes         |
"""
EVERY_RULE = target(
    age=(18, inf), present=("diabetes",), absent=("dementia",), limits=(Limit("sbp", at_least=100, below=140),)
)


def test_everyone_left_out_is_counted_by_reason_in_the_order_asked(cohort_of):
    assert list(cohort_of(FLOW, EVERY_RULE).flow.items()) == [
        ("candidates", 8),
        ("not yet or no longer observed", 1),
        ("less than 1y before the records end", 0),
        ("age unknown", 1),
        ("age not at least 18", 1),
        ("without diabetes", 1),
        ("with dementia", 1),
        ("latest sbp not at least 100 and below 140", 1),
        ("outcome had before", 1),
        ("at risk", 1),
    ]


def test_the_flow_adds_up(cohort_of):
    found = cohort_of(FLOW, dataclasses.replace(EVERY_RULE, index=IndexTimes(every="1mo", start="2013-06-01")))
    left_out = sum(number for reason, number in found.flow.items() if reason not in ("candidates", "at risk"))
    assert found.flow["candidates"] == left_out + found.flow["at risk"]
    assert found.flow["at risk"] == len(found.rows) > 0


def test_the_shards_do_not_matter(cohort_of, monkeypatch):
    sought = dataclasses.replace(EVERY_RULE, index=IndexTimes(every="1mo", start="2013-06-01"))
    in_one = cohort_of(FLOW, sought)
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 1)
    in_many = cohort_of(FLOW, sought)
    assert in_many.rows.equals(in_one.rows)
    assert in_many.flow == in_one.flow


def test_a_target_names_its_concepts():
    named = dataclasses.replace(
        EVERY_RULE, index=IndexTimes(first=("examination",)), increasing=("age",), decreasing=("egfr",)
    )
    assert set(named.concepts) == {"stroke", "diabetes", "dementia", "sbp", "examination", "age", "egfr"}


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": ("strok",)},
        {"present": ("strok",)},
        {"absent": ("strok",)},
        {"limits": (Limit("strok"),)},
        {"increasing": ("strok",)},
        {"index": IndexTimes(first=("strok",))},
        {"index": IndexTimes(each="strok")},
    ],
)
def test_an_unknown_concept_is_refused(cohort_of, changes):
    with pytest.raises(WeibingError, match='no concept "strok"'):
        cohort_of(FLOW, target(**changes))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (IndexTimes(every="yearly"), '"yearly" is not a length of time'),
        (IndexTimes(every="0.5y"), 'every "0.5y": write a whole number'),
        (IndexTimes(every="90s"), 'every "90s": write a whole number'),
        (IndexTimes(every="1y", start="soon"), '"soon" is not a date'),
        (IndexTimes(each="stroke", offset="-1d"), '"-1d" is not a length of time'),
    ],
)
def test_a_wrong_index_time_is_refused(cohort_of, index, said):
    with pytest.raises(WeibingError, match=said):
        cohort_of(FLOW, target(index=index))


@pytest.mark.parametrize(
    "history", ["time | code", "time | code \n | female", "time | code \n 1950-01-01 | MEDS_BIRTH"]
)
def test_a_store_without_dated_events_has_no_cohort(cohort_of, history):
    with pytest.raises(WeibingError, match="holds no dated events"):
        cohort_of(history)


INDEX = datetime(2015, 1, 1)
CODES = ["stroke", "diabetes", "dementia", "sbp", "MEDS_DEATH", "MEDS_BIRTH", "outpatient_visit"]
EVENTS = st.lists(
    st.tuples(
        st.one_of(st.integers(-3, 3), st.integers(-9_000, 3_000)).map(lambda days: INDEX + timedelta(days=days)),
        st.sampled_from(CODES),
        st.one_of(st.none(), st.floats(100, 180, width=32)),
    ),
    max_size=8,
)
END = st.datetimes(datetime(2013, 1, 1), datetime(2020, 1, 1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(EVENTS, END), min_size=1, max_size=12))
def test_no_event_at_or_after_the_index_time_changes_who_is_at_risk(histories):
    """Of every resident there is a twin of whom nothing is recorded from the index time on, but for the end."""
    rows = [(0, datetime(2000, 1, 1), "fall", None), (0, datetime(2030, 1, 1), "fall", None)]
    for number, (history, end) in enumerate(histories, start=1):
        whole = [(datetime(1960, 1, 1), "MEDS_BIRTH", None), *history, (end, "OBSERVATION_END", None)]
        rows += [(number, *event) for event in whole]
        rows += [(-number, *event) for event in whole if event[0] < INDEX or event[1] == "OBSERVATION_END"]
    at_risk = set(at_risk_of(pl.DataFrame(rows, [*SCHEMA][:4], orient="row")))
    assert {number for number in at_risk if number > 0} == {-number for number in at_risk if number < 0}


def at_risk_of(events: pl.DataFrame) -> list[int]:
    sought = target(age=(0, 120), absent=("dementia",), limits=(Limit("sbp", below=140),))
    with tempfile.TemporaryDirectory() as folder:
        store = EventStore.create(Path(folder) / "store")
        store.append([events])
        return cohort(store, sought).rows["subject_id"].to_list()
