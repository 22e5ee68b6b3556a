"""A whole training run, on the small county and on one whose true risks are known."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.cohort import IndexTimes, Target
from features.engine import Engine, profile_store
from features.errors import WeibingError
from features.events import EventStore
from features.sources.county import simulate
from training import report
from training.calibrate import Recalibration
from training.evaluate import evaluate
from training.targets import FALL
from training.train import temporal_split, train

ENGINE = Engine()


@pytest.fixture(scope="module")
def county(tmp_path_factory):
    """A simulated county, with the true risks beside it."""
    path = tmp_path_factory.mktemp("county") / "store"
    simulate(path, residents=5_000, years=5, seed=3, end=date(2024, 1, 1))
    return EventStore.open(path)


@pytest.fixture(scope="module")
def fall(county):
    """A model of falls in that county."""
    return train(county, FALL, ENGINE)


def test_a_model_recovers_the_true_risk(county, fall):
    truth = pl.read_parquet(county.path / "truth.parquet").filter(target="fall")
    profiles = profile_store(county, fall.evidence.cohort.rows, ENGINE)
    risk = fall.model.probability(fall.model.matrix(profiles))
    both = profiles.select("subject_id", "index_time").with_columns(score=risk)
    both = both.join(truth, on=["subject_id", "index_time"])
    assert len(both) > 4_000
    assert both["score"].mean() == pytest.approx(both["risk"].mean(), rel=0.08)
    assert np.corrcoef(both["score"], both["risk"])[0, 1] > 0.75
    assert (both["score"] - both["risk"]).abs().mean() < 0.06


def test_an_ingest_that_ends_during_training_is_seen_whole_or_not_at_all(small_store, small_trained, tmp_path):
    store = EventStore.create(tmp_path / "store", timezone=small_store.timezone, description=small_store.description)
    events = pl.concat([small_store.read(shard) for shard in small_store.shards])
    store.append([events])

    def ingest_meanwhile(sentence: str) -> None:
        if "filling" in sentence:
            higher = events.filter(code="sbp").with_columns(pl.col("numeric_value") + 50)
            store.append([higher.with_columns(pl.col("time").dt.offset_by("-1h"))])

    trained = train(store, small_trained.model.card.target, ENGINE, progress=ingest_meanwhile)
    assert trained.model.booster_text == small_trained.model.booster_text


def test_a_model_holds_on_later_index_times(fall):
    later, out_of_fold = fall.evidence.temporal, fall.evidence.validation
    assert not isinstance(later, str)
    difference = later.metrics["auroc"].estimate - out_of_fold.metrics["auroc"].estimate
    assert abs(difference) < 0.06
    assert later.metrics["observed_to_expected"].estimate == pytest.approx(1, abs=0.2)


def test_every_index_time_leaves_a_horizon_of_records(county, fall):
    rows = fall.evidence.cohort.rows
    assert rows["index_time"].max() + timedelta(days=365) <= datetime(2024, 1, 1)
    known = (rows["time"] >= FALL.horizon_days) | rows["observed"] | rows["died"]
    # Only those who move away are lost before the horizon.
    assert known.mean() > 0.95


def test_a_synthetic_store_marks_its_models(fall):
    assert fall.model.card.synthetic
    assert report.summary(fall)["synthetic"] is True


def test_the_summary_holds_each_figure_with_its_interval(fall):
    figures = report.summary(fall)
    for name in ("auroc", "calibration_slope", "observed_to_expected"):
        assert figures[name]["lower"] < figures[name]["estimate"] < figures[name]["upper"]
    assert set(figures["logistic"]["auroc"]) == {"estimate", "lower", "upper"}
    assert figures["n"] == fall.evidence.validation.n
    assert figures["events"] == fall.evidence.validation.events
    assert figures["cohort"]["at risk"] == len(fall.evidence.cohort.rows)


def test_lines_name_what_a_reader_looks_for_first(fall):
    told = dict(report.lines(fall))
    assert told["AUROC"] == str(fall.evidence.validation.metrics["auroc"])
    assert told["  difference"].startswith(("+", "-"))


def test_figures_are_out_of_fold_and_not_of_the_model_on_its_own_rows(county, fall):
    flattered = evaluate(county, fall.model, ENGINE).raw.metrics["auroc"].estimate
    assert flattered > fall.evidence.validation.metrics["auroc"].estimate


def test_a_model_is_measured_on_another_county(tmp_path, fall):
    simulate(tmp_path / "other", residents=2_000, years=5, seed=8, end=date(2024, 1, 1))
    found = evaluate(EventStore.open(tmp_path / "other"), fall.model, ENGINE).raw
    assert found.metrics["auroc"].estimate == pytest.approx(fall.evidence.validation.metrics["auroc"].estimate, abs=0.1)
    assert found.metrics["observed_to_expected"].estimate == pytest.approx(1, abs=0.25)


def test_a_model_is_recalibrated_on_the_other_residents_of_a_place(fall, county):
    doubled = replace(fall.model, card=replace(fall.model.card, recalibration=Recalibration(0.5, 2.0)))
    found = evaluate(county, doubled, ENGINE)
    assert found.raw.metrics["calibration_slope"].estimate < 0.8
    assert found.recalibrated.metrics["calibration_slope"].estimate == pytest.approx(1, abs=0.05)
    assert found.recalibrated.metrics["observed_to_expected"].estimate == pytest.approx(1, abs=0.05)
    assert found.recalibrated.metrics["auroc"].estimate == pytest.approx(found.raw.metrics["auroc"].estimate, abs=0.01)


def test_a_model_measured_on_the_rows_that_it_was_trained_on_is_said_to_be(county, fall, small_store, small_trained):
    assert evaluate(county, fall.model, ENGINE).same_records
    fewer = replace(small_trained.model.card.target, age=(40, float("inf")))
    assert not evaluate(small_store, small_trained.model, ENGINE, fewer).same_records


def test_nobody_at_risk_is_said_with_the_reasons(county):
    unborn = Target("unborn", ("fall",), "1y", IndexTimes(every="1y"), age=(150, 200))
    with pytest.raises(WeibingError, match=r"Nobody in .* is at risk for the target unborn: candidates"):
        train(county, unborn, ENGINE)


def test_too_few_outcomes_are_refused_by_name(county):
    rare = Target("rare", ("parkinson",), "1y", IndexTimes(every="4y"))
    with pytest.raises(WeibingError, match=r"The target rare has \d+ outcomes in these records; training needs 50"):
        train(county, rare, ENGINE)


def test_relative_times_allow_no_temporal_hold_out(small_trained, small_store):
    relative = EventStore(
        small_store.path, small_store.timezone, small_store.shard_bits, description={"relative_times": True}
    )
    trained = train(relative, small_trained.model.card.target, ENGINE)
    assert trained.evidence.temporal == "These records have no calendar dates."


def test_the_later_quarter_is_held_out_where_windows_before_it_end_in_time():
    times = pl.Series([datetime(year, 1, 1) for year in (2015, 2016, 2017, 2018)] * 5)
    one_year = Target("t", ("fall",), "1y", IndexTimes(every="1y"))
    four_years = Target("t", ("fall",), "4y", IndexTimes(every="1y"))
    assert temporal_split(times, one_year) == datetime(2018, 1, 1)
    assert temporal_split(times, four_years) is None
