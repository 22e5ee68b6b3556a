"""What always holds of profiles (design.md, section 5): promises 1, 2, 3 and 6."""

import math

import numba
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine, fingerprint, profile_store
from features.events import EventStore, canonical, normalised
from features.measures import Measure, count, latest, mean
from features.profile import PROFILE, Profile
from features.vocabulary import builtin
from tests.features.histories import EVERYTHING, INDEX, INDEX_US, OF_MEASURE, histories
from tests.reference.featuriser import Recorded, profile_of
from tests.tables import events_from

ENGINE = Engine(EVERYTHING)


def recorded(events: pl.DataFrame) -> list[Recorded]:
    columns = (events["time"].to_physical(), events["code"], events["numeric_value"], events["unit"])
    return [Recorded(*row) for row in zip(*columns, strict=True)]


def test_the_five_features_of_the_design_exist():
    names = {"sbp_mean_1y", "hba1c_latest", "fall_count_1y", "antihypertensive_active", "egfr_slope_5y"}
    assert names <= set(PROFILE.names)


def test_every_measure_is_held_to_every_promise():
    assert set(OF_MEASURE) == set(Measure)
    assert all(feature.measure is measure for measure, features in OF_MEASURE.items() for feature in features)


@settings(max_examples=250, deadline=None)
@given(histories())
def test_the_engine_agrees_with_the_reference(events):
    filled = ENGINE.one(events, INDEX_US)
    expected = profile_of(recorded(events), INDEX_US, EVERYTHING, builtin())
    for name, value in zip(EVERYTHING.names, filled, strict=True):
        wanted = math.nan if expected[name] is None else expected[name]
        # A slope may lose digits where all times lie close together.
        scale = 1e-3 if "_slope" in name else 2e-6
        np.testing.assert_allclose(value, wanted, rtol=scale, atol=scale, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(histories(), histories())
def test_nothing_at_or_after_the_index_time_changes_a_profile(events, others):
    future = others.filter(pl.col("time") >= INDEX)
    past = events.filter(pl.col("time").is_null() | (pl.col("time") < INDEX))
    with_future = canonical(pl.concat([past, future]))
    np.testing.assert_array_equal(ENGINE.one(past, INDEX_US), ENGINE.one(with_future, INDEX_US))


BEFORE = """
    time             | code           | value
    2023-11-30T23:00 | fall           |
    2023-12-29T03:00 | home_sbp       | 118
    2023-12-29T16:00 | home_sbp       | 101
    2023-12-29T17:00 | home_sbp       | 121
    2023-12-29T18:00 | home_sbp       | 103
    2023-12-30T03:00 | home_sbp       | 131
    2023-12-30T04:00 | home_sbp       | 132
    2023-12-31T03:00 | home_sbp       | 127
    2023-12-29T03:00 | sbp            | 141
    2023-12-29T16:00 | sbp            | 120
    2023-12-30T03:00 | sbp            | 132
    2023-12-29T03:00 | steps          | 4000
    2023-12-29T03:00 | length_of_stay | 6
"""
# What tells of each measure, planted where it may or may not be known.
PLANTED = {
    Measure.AGE: ("MEDS_BIRTH", None),
    Measure.STATIC: ("female", 1.0),
    Measure.ACTIVE: ("antihypertensive", None),
    Measure.EVER: ("diabetes", None),
    Measure.TOTAL: ("diabetes", None),
    Measure.SUM: ("length_of_stay", 9.0),
    Measure.PER_DAY: ("steps", 9000.0),
    **dict.fromkeys((Measure.COUNT, Measure.SINCE, Measure.SINCE_FIRST, Measure.DAYS), ("fall", None)),
    **dict.fromkeys((Measure.VARIATION, Measure.SHARE_OF_DAYS, Measure.DAILY_VARIABILITY), ("home_sbp", 180.0)),
    Measure.NIGHT_TO_DAY: ("home_sbp", 180.0),
    **dict.fromkeys((Measure.LATEST, Measure.MEAN, Measure.MAX, Measure.STANDARD_DEVIATION), ("sbp", 180.0)),
    **dict.fromkeys((Measure.MIN, Measure.SLOPE), ("sbp", 80.0)),
}


@pytest.mark.parametrize("measure", Measure, ids=[measure.name for measure in Measure])
def test_what_is_planted_counts_one_microsecond_before_the_index_time_and_neither_at_it_nor_after_it(measure):
    engine, (code, number) = Engine(profile_with(measure)), PLANTED[measure]
    columns = [engine.profile.names.index(feature.name) for feature in OF_MEASURE[measure]]

    def filled(history: pl.DataFrame, *offsets: int) -> bytes:
        return engine.one(canonical(pl.concat([history, *(planted(code, number, at) for at in offsets)])), INDEX_US)[
            columns
        ].tobytes()

    nothing = events_from(BEFORE).clear()
    for history in (events_from(BEFORE), nothing):
        assert filled(history, 0) == filled(history)
        assert filled(history, 1) == filled(history)
        assert filled(history, 0, 1, 86_400_000_000) == filled(history)
    assert any(filled(history, -1) != filled(history) for history in (events_from(BEFORE), nothing))


def planted(code: str, number: float | None, offset: int) -> pl.DataFrame:
    time = pl.Series([INDEX_US + offset]).cast(pl.Datetime("us"))
    return normalised(pl.DataFrame({"subject_id": [1], "time": time, "code": [code], "numeric_value": [number]}))


def profile_with(measure: Measure) -> Profile:
    """Declare the features of a measure, and those that they sum."""
    parts = {name for feature in OF_MEASURE[measure] for name in feature.of}
    return Profile(*OF_MEASURE[measure], *(EVERYTHING[name] for name in sorted(parts)))


def test_a_look_back_holds_the_moment_it_begins_and_not_the_microsecond_before():
    engine = Engine(Profile(count("fall", within="30d")))
    start = INDEX_US - 30 * 86_400_000_000
    times = pl.Series([start - 1, start]).cast(pl.Datetime("us"))
    events = pl.DataFrame({"subject_id": [1, 1], "time": times, "code": ["fall", "fall"]})
    assert engine.profiles(normalised(events), index_of([1]))["fall_count_30d"].to_list() == [1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_is_many_bit_for_bit(data):
    residents = [data.draw(histories(subject_id=number)) for number in (1, 2, 3)]
    together = ENGINE.profiles(pl.concat(residents), index_of([1, 2, 3]))
    for number, events in enumerate(residents):
        batch = together.row(number)[2:]
        alone = ENGINE.one(events, INDEX_US)
        np.testing.assert_array_equal(np.array(batch, np.float32), alone)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_how_many_threads_there_are_changes_nothing(data):
    residents = [data.draw(histories(subject_id=number, most=12)) for number in range(1, 6)]
    events, index = pl.concat(residents), index_of([1, 2, 3, 4, 5])
    together = ENGINE.profiles(events, index)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = ENGINE.profiles(events, index)
    finally:
        numba.set_num_threads(threads)
    assert fingerprint(together) == fingerprint(alone)


def test_rows_beyond_a_block_are_filled_as_if_each_were_alone():
    residents = list(range(1, 200))
    events = normalised(
        pl.DataFrame(
            {"subject_id": residents, "time": [INDEX.replace(year=2023)] * 199, "code": ["sbp"] * 199}
        ).with_columns(numeric_value=100.0 + pl.col("subject_id"))
    )
    filled = Engine(Profile(latest("sbp"), count("sbp"))).profiles(events, index_of(residents))
    assert filled["sbp_latest"].to_list() == [100.0 + resident if resident <= 200 else None for resident in residents]


def test_one_is_many_among_so_many_events_that_codes_are_numbered_by_column(monkeypatch):
    monkeypatch.setattr("features.columns.FEW", 0)
    events = normalised(
        pl.DataFrame(
            {
                "subject_id": [1, 1, 1, 2],
                "time": [INDEX.replace(year=year) for year in (2021, 2022, 2023, 2023)],
                "code": ["sbp", "sbp", "creatinine", "sbp"],
                "numeric_value": [120.0, 16.0, 1.1, 150.0],
                "unit": [None, "kPa", "mg/dL", "mm[Hg]"],
            }
        )
    )
    by_column = ENGINE.profiles(events, index_of([1, 2]))
    monkeypatch.setattr("features.columns.FEW", 4_000)
    assert by_column.equals(ENGINE.profiles(events, index_of([1, 2])))
    assert by_column["sbp_max_2y"].to_list() == [np.float32(np.float32(16.0) * 7.50062), 150.0]


def test_many_index_times_of_a_resident_are_filled_as_if_each_were_alone():
    engine = Engine(Profile(mean("sbp", within="2y"), latest("sbp"), count("sbp")))
    events = normalised(
        pl.DataFrame(
            {
                "subject_id": [1, 1, 1],
                "time": [INDEX.replace(year=year) for year in (2020, 2021, 2022)],
                "code": ["sbp"] * 3,
                "numeric_value": [120.0, 130.0, 150.0],
            }
        )
    )
    index = pl.DataFrame(
        {"subject_id": [1] * 3, "index_time": [INDEX.replace(year=y, month=6) for y in (2022, 2020, 2021)]}
    )
    filled = engine.profiles(events, index)
    assert filled["index_time"].dt.year().to_list() == [2020, 2021, 2022]
    assert filled["sbp_mean_2y"].to_list() == [120, (120 + 130) / 2, (130 + 150) / 2]
    assert filled["sbp_latest"].to_list() == [120, 130, 150]
    assert filled["sbp_count"].to_list() == [1, 2, 3]


def test_a_resident_without_events_gets_nulls_and_zero_counts():
    engine = Engine(Profile(latest("sbp"), count("fall")))
    assert engine.profiles(
        normalised(pl.DataFrame({"subject_id": [1], "time": [INDEX], "code": ["sbp"]})), index_of([7])
    ).row(0)[2:] == (None, 0)


def test_events_in_any_order_give_the_same_profile():
    events = normalised(
        pl.DataFrame(
            {
                "subject_id": [1, 1, 1],
                "time": [INDEX.replace(year=year) for year in (2020, 2021, 2022)],
                "code": ["sbp"] * 3,
                "numeric_value": [120.0, 130.0, 150.0],
            }
        )
    )
    assert ENGINE.profiles(events, index_of([1])).equals(ENGINE.profiles(events.reverse(), index_of([1])))
    np.testing.assert_array_equal(ENGINE.one(events, INDEX_US), ENGINE.one(events.reverse(), INDEX_US))


def test_the_same_store_gives_the_same_profile_hash(tmp_path, small_store):
    index = pl.DataFrame({"subject_id": small_store.residents(), "index_time": INDEX.replace(year=2020)})
    first, second = (profile_store(small_store, index, Engine()) for _ in range(2))
    assert fingerprint(first) == fingerprint(second)
    copy = EventStore.create(tmp_path / "copy")
    copy.append(small_store.read(shard).sample(fraction=1.0, shuffle=True, seed=1) for shard in small_store.shards)
    assert fingerprint(profile_store(copy, index, Engine())) == fingerprint(first)
    assert fingerprint(first.drop("age")) != fingerprint(first)


def index_of(residents: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"subject_id": residents, "index_time": INDEX})
