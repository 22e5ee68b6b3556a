"""Planted leaks are found and named; a county without any raises no alarm."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.cohort import IndexTimes, Target
from features.engine import Engine, profile_store
from features.events import EventStore
from tests.conftest import SMALL_TARGET, START, events_of, residents_of
from training.fit import CANDIDATES, Grown, Rows, grow
from training.leaks import DAYS_DROPPED, Alarm, after, alarms, alone, recent
from training.sample import Sample, sample_of
from training.train import rows_of

YEARLY = Target(
    name="hypertension",
    outcome=("hypertension",),
    horizon="1y",
    index=IndexTimes(every="1y"),
    age=(18, float("inf")),
    absent=("hypertension", "antihypertensive"),
    increasing=("age", "sbp", "bmi"),
)


class Looked:
    """A store with a fit on it."""

    def __init__(self, store: EventStore, target: Target) -> None:
        self.store, self.engine = store, Engine.of_store(store)
        self.sample: Sample = sample_of(store, target, self.engine)
        self.rows: Rows = rows_of(self.sample, self.engine)[0]
        self.grown: Grown = grow(self.rows, target, self.engine, candidates=CANDIDATES[2:])

    def after(self) -> list[Alarm]:
        return after(self.sample, self.rows, self.grown, self.store, self.engine)

    def recent(self) -> list[Alarm]:
        return recent(self.sample, self.rows, self.grown, self.before(), self.engine)

    def before(self) -> pl.DataFrame:
        index = self.sample.cohort.rows.select("subject_id", pl.col("index_time") - pl.duration(days=DAYS_DROPPED))
        return profile_store(self.store, index, self.engine)

    def alarms(self) -> tuple[Alarm, ...]:
        return alarms(self.sample, self.rows, self.grown, self.before(), self.store, self.engine)


@pytest.fixture(scope="module")
def clean(small_store: EventStore) -> Looked:
    return Looked(small_store, SMALL_TARGET)


def planted(
    path: Path, target: Target, residents: int, plant: Callable[[pl.DataFrame], list[tuple[int, float]]]
) -> Looked:
    """Lay a leak into a county like the small one: dizziness of residents on days after START."""
    rng = np.random.default_rng(7)
    drawn = residents_of(rng, residents)
    events = events_of(rng, drawn)
    at = [(who, START + timedelta(days=day)) for who, day in plant(drawn)]
    dizzy = pl.DataFrame(at, {"subject_id": pl.Int64, "time": pl.Datetime("us")}, orient="row")
    dizzy = dizzy.with_columns(code=pl.lit("dizziness"), numeric_value=pl.lit(None, pl.Float32))
    store = EventStore.create(path, timezone="Asia/Shanghai")
    store.append([pl.concat([events, dizzy])])
    return Looked(EventStore.open(path), target)


def rows_with(**features: list[float]) -> Rows:
    """Make rows, the first half with the outcome, of these features."""
    matrix = np.array(list(features.values()), np.float32).T
    n = len(matrix)
    return Rows(tuple(features), matrix, (np.arange(n) < n // 2).astype(float), np.ones(n), np.arange(n))


def test_a_county_without_leaks_raises_no_alarm(clean: Looked) -> None:
    assert clean.alarms() == ()


def test_one_feature_that_tells_the_outcome_is_named() -> None:
    rows = rows_with(told=[3, 2, 2, 2, 1, 1, 0, 1], telling_little=[1, 1, 1, 0, 0, 1, 0, 0])
    (alarm,) = alone(rows)
    assert (alarm.kind, alarm.feature, alarm.value) == ("alone", "told", 1.0)
    assert alarm.message == ("told alone reaches an AUROC of 1.000, above 0.90: it may hold the outcome itself.")


@pytest.mark.parametrize(
    "feature",
    [
        pytest.param([0, 0, 0, 0, 1, 1, 2, 1], id="backwards"),
        pytest.param([5, 1, 3, 2, *[np.nan] * 4], id="missing without the outcome"),
        pytest.param([*[np.nan] * 4, 5, 1, 3, 2], id="missing with the outcome"),
    ],
)
def test_telling_backwards_or_by_being_missing_counts_too(feature: list[float]) -> None:
    assert [alarm.value for alarm in alone(rows_with(told=feature))] == [1.0]


def test_an_auroc_of_nine_tenths_is_still_allowed() -> None:
    # Ten with, ten without; the one without that ranks as the best nine with: 100 - 9 - 0.5 x 1 pairs of 100.
    feature = [1.0] * 9 + [0.0] + [0.0] * 9 + [1.0]
    assert alone(rows_with(told=feature)) == []


def test_a_row_without_a_known_outcome_tells_nothing() -> None:
    rows = rows_with(told=[1, 1, 1, 0, 0, 0, 0, 1])
    weight = np.array([1.0, 1, 1, 0, 1, 1, 1, 0])
    told = Rows(rows.features, rows.matrix, rows.outcome, weight, rows.person)
    assert (alone(rows), [alarm.value for alarm in alone(told)]) == ([], [1.0])


def with_the_outcome(residents: pl.DataFrame, days: float) -> list[tuple[int, float]]:
    """Everybody's dizziness so many days after hypertension; and that of 25 residents, foretelling it, long before."""
    seen = pl.min_horizontal("MEDS_DEATH", "moved", pl.lit(3600.0))
    came = residents.filter(pl.col("hypertension") < seen, pl.col("hypertension") > pl.col("examined") + 60)
    early = came.filter(pl.col("hypertension") < pl.col("examined") + 1800)["subject_id"].to_list()[:25]
    late = [(who, day + days) for who, day in came.select("subject_id", "hypertension").iter_rows()]
    examined = dict(residents.select("subject_id", "examined").iter_rows())
    return [event for event in late if event[0] not in early] + [(who, examined[who] - 20) for who in early]


@pytest.mark.parametrize("days", [-20, 40])
def test_what_is_recorded_only_with_or_after_the_outcome_is_named(tmp_path: Path, days: float) -> None:
    looked = planted(tmp_path / "store", SMALL_TARGET, 1500, lambda residents: with_the_outcome(residents, days))
    (alarm,) = looked.after()
    assert (alarm.kind, alarm.feature) == ("after", "dizziness_ever")
    assert alarm.value >= 0.9
    assert alarm.message.startswith("dizziness_ever rests on dizziness, which in 9")
    # Of an outcome that comes again, what an earlier one left behind is no leak.
    again = replace(looked.sample.cohort, target=replace(SMALL_TARGET, recurrent=True))
    looked.sample = replace(looked.sample, cohort=again)
    assert looked.after() == []


def test_what_is_recorded_long_before_the_outcome_is_no_leak(tmp_path: Path) -> None:
    assert (
        planted(tmp_path / "store", SMALL_TARGET, 1500, lambda residents: with_the_outcome(residents, -40)).after()
        == []
    )


def last_index_before(day: float) -> float:
    """Return the first of January before a day, both in days after START."""
    when = START + timedelta(days=day)
    return float((datetime(when.year, 1, 1) - START).days)


def foretold(residents: pl.DataFrame, days: float) -> list[tuple[int, float]]:
    """Dizziness so many days before the last index time ahead of hypertension, in two of three."""
    came = residents.filter(pl.col("hypertension").is_between(800, 3600), pl.col("subject_id") % 3 > 0)
    return [(who, last_index_before(day) - days) for who, day in came.select("subject_id", "hypertension").iter_rows()]


def test_a_model_that_lives_on_the_last_days_is_named(tmp_path: Path) -> None:
    looked = planted(tmp_path / "store", YEARLY, 500, lambda residents: foretold(residents, 10))
    (alarm,) = looked.recent()
    assert (alarm.kind, alarm.feature) == ("recent", "dizziness_ever")
    assert alarm.value > 0.03
    assert "when the last 30 days before the index time are dropped, most of it by dizziness_ever" in alarm.message


def test_what_was_known_for_longer_may_be_used(tmp_path: Path) -> None:
    looked = planted(tmp_path / "store", YEARLY, 500, lambda residents: foretold(residents, 40))
    assert looked.grown.whole.importance[looked.rows.features.index("dizziness_ever")] > 0.1
    assert looked.recent() == []
