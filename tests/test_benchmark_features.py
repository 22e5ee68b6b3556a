"""The benchmark compares like with like: its peers fill the same cells as Weibing on a small store."""

import importlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.features import with_pandas, with_weibing
from benchmarks.features.agreement import agreement
from benchmarks.features.declared import GRIDS, LOOK_BACKS, compared, grid, meanings
from benchmarks.features.records import EVENTS_PER_RESIDENT, INDEX_TIME, index_of, write_records
from benchmarks.features.report import Job, growth, size_of, summary
from features.events import EventStore
from features.measures import Measure
from tests.tables import events_from

RESIDENTS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    return write_records(tmp_path_factory.mktemp("benchmark") / "store", RESIDENTS, seed=11)


def events_of(store: EventStore) -> pl.DataFrame:
    return pl.concat([store.read(shard) for shard in store.shards])


def test_a_resident_has_a_hundred_events_of_which_some_come_at_the_index_time_and_after(store: EventStore) -> None:
    events = events_of(store)
    assert events["subject_id"].value_counts()["count"].to_list() == [EVENTS_PER_RESIDENT] * RESIDENTS
    assert events.filter(pl.col("time") == INDEX_TIME)["subject_id"].n_unique() >= RESIDENTS / 10
    assert events.filter(pl.col("time") > INDEX_TIME)["subject_id"].n_unique() > RESIDENTS / 2


def test_the_same_seed_writes_the_same_records_and_another_one_others(tmp_path: Path, store: EventStore) -> None:
    assert events_of(write_records(tmp_path / "same", RESIDENTS, seed=11)).equals(events_of(store))
    assert not events_of(write_records(tmp_path / "other", RESIDENTS, seed=12)).equals(events_of(store))


def test_no_resident_has_two_events_of_a_compared_concept_at_the_same_time(store: EventStore) -> None:
    known = events_of(store).join(meanings(), on=["code", "unit"], nulls_equal=True)
    named = {feature.concept for feature in compared(with_pandas.MEASURES)}
    at_once = known.filter(pl.col("concept").is_in(list(named))).group_by("subject_id", "concept", "time").len()
    assert at_once["len"].max() == 1


def test_pandas_fills_the_same_cells(store: EventStore) -> None:
    features, index = compared(with_pandas.MEASURES), index_of(store.residents())
    assert {Measure.LATEST, Measure.SLOPE, Measure.SINCE} <= {feature.measure for feature in features}
    theirs = pl.from_pandas(with_pandas.profiles(store, index, features))
    said = agreement(with_weibing.profiles(store, index, features), theirs)
    assert (said.cells, said.differing, said.features) == (RESIDENTS * len(features), 0, ())


def test_timeseriesflattener_fills_the_same_cells(store: EventStore) -> None:
    pytest.importorskip("timeseriesflattener", reason="see benchmarks/features/README.md")
    peer = importlib.import_module("benchmarks.features.with_timeseriesflattener")
    features, index = compared(peer.MEASURES), index_of(store.residents())
    assert Measure.LATEST in {feature.measure for feature in features}
    said = agreement(with_weibing.profiles(store, index, features), peer.profiles(store, index, features))
    assert (said.cells, said.differing, said.features) == (RESIDENTS * len(features), 0, ())


def test_a_grid_is_every_valued_concept_by_every_look_back_and_measure() -> None:
    features = grid(GRIDS["grid"])
    concepts = {feature.concept for feature in features}
    assert {"sbp", "hba1c", "cholesterol"} <= concepts
    assert not {"female", "age", "fall", "egfr"} & concepts
    assert len({feature.name for feature in features}) == len(concepts) * len(LOOK_BACKS) * len(GRIDS["grid"]) == 340


@pytest.mark.parametrize("peer", ["pandas", "timeseriesflattener"])
def test_peers_fill_the_same_cells_of_the_grids(store: EventStore, peer: str) -> None:
    pytest.importorskip(peer, reason="see benchmarks/features/README.md")
    profiles = importlib.import_module(f"benchmarks.features.with_{peer}").profiles
    features, index = grid(GRIDS["grid and latest"]), index_of(store.residents())
    theirs = profiles(store, index, features)
    said = agreement(
        with_weibing.profiles(store, index, features),
        theirs if isinstance(theirs, pl.DataFrame) else pl.from_pandas(theirs),
    )
    assert (said.cells, said.differing, said.features) == (RESIDENTS * len(features), 0, ())


def test_timeseriesflattener_counts_a_value_at_the_prediction_time_which_it_is_therefore_not_handed() -> None:
    peer = pytest.importorskip("timeseriesflattener", reason="see benchmarks/features/README.md")
    history = events_from("""
        time       | code | value
        2023-07-01 | sbp  | 130
        2024-01-01 | sbp  | 190
    """)
    values = history.select("subject_id", "time", sbp="numeric_value")
    mean = peer.PredictorSpec(
        peer.ValueFrame(values, "subject_id", "time"), [timedelta(days=365)], [peer.MeanAggregator()], float("nan")
    )
    times = peer.PredictionTimeFrame(index_of(values["subject_id"].unique().to_numpy()), "subject_id", "index_time")
    filled = peer.Flattener(times).aggregate_timeseries([mean]).df
    assert filled[filled.columns[-1]].to_list() == [(130 + 190) / 2]


def test_a_cell_that_differs_or_is_null_in_one_alone_is_counted() -> None:
    ours = pl.DataFrame({"subject_id": [1, 2, 3], "sbp_mean": [130.0, 140.0, None], "fall_count": [0.0, 1.0, 2.0]})
    theirs = pl.DataFrame({"subject_id": [3, 1, 2], "sbp_mean": [150.0, 130.0, 140.1], "fall_count": [2.0, 0.0, 1.0]})
    assert agreement(ours, theirs) == (6, 2, ("sbp_mean",))


def test_profiles_of_other_residents_or_features_are_not_compared() -> None:
    ours = pl.DataFrame({"subject_id": [1, 2], "sbp_mean": [130.0, 140.0]})
    with pytest.raises(ValueError, match="same residents"):
        agreement(ours, ours.with_columns(subject_id=pl.Series([1, 3])))
    with pytest.raises(ValueError, match="same features"):
        agreement(ours, ours.rename({"sbp_mean": "sbp_max"}))


def figures(seconds: float) -> dict[str, float]:
    return {"features": 340.0, "seconds": seconds, "processor_seconds": seconds, "peak_mebibytes": 300.0}


def test_the_ratio_is_against_the_fastest_way_of_using_a_peer() -> None:
    ways = {"weibing": 2.0, "timeseriesflattener": 30.0, "timeseriesflattener_in_processes": 22.0}
    medians = {Job(contender, "grid"): figures(seconds) for contender, seconds in ways.items()}
    size = size_of(1_000, medians, [{"whose": "grid", "peer": "timeseriesflattener", "cells": 340_000}])
    assert [(said["fastest"], said["times_seconds"]) for said in size["ratios"]] == [
        ("timeseriesflattener_in_processes", 22 / 2)
    ]
    assert (
        "Features of grid (340): 11.0 times as fast as timeseriesflattener (fastest of its ways: timeseries"
        in summary(size)
    )
    assert "All 340,000 cells of grid equal those of timeseriesflattener." in summary(size)


def test_growth_is_told_from_each_number_of_residents_to_the_next() -> None:
    full = Job("weibing", "full profile")
    sizes = [size_of(residents, {full: figures(seconds)}, []) for residents, seconds in ((100_000, 2), (1_000_000, 21))]
    assert growth(sizes) == "The full profile of 1,000,000 residents takes 10.5 times as long as that of 100,000."
    assert growth(sizes[:1]) == ""


def test_the_command_prints_times_ratios_and_one_resident_and_writes_them_as_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.features", "--residents", "50", "--runs", "1"]
    command += ["--peers", "pandas", "--features", "grid"]
    done = subprocess.run([*command, "--json", str(tmp_path / "f.json")], check=True, capture_output=True, text=True)
    assert "50 residents, 5,000 events" in done.stdout
    assert "All 17,000 cells of grid equal those of pandas." in done.stdout
    assert "One resident" in done.stdout
    found = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert [(job["contender"], job["whose"]) for job in found["many"][0]["jobs"]] == [
        ("weibing", "grid"),
        ("pandas", "grid"),
        ("weibing", "full profile"),
    ]
    assert found["one"]["stored_milliseconds"] > 0
