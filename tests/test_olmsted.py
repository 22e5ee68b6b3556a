"""The main job on records that nobody here made: what benchmarks/olmsted/README.md shows, held."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.real import real_records
from weibing import app

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "olmsted"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The two commands of the benchmark: what the first said, and the figures of the second."""
    records = real_records("olmsted")
    out = tmp_path_factory.mktemp("olmsted")
    ingest = ["ingest", "table", *sorted(map(str, records.glob("*.csv.gz"))), str(out / "store")]
    said = invoke([*ingest, "--mapping", str(BENCHMARK / "mapping.toml")])
    train = ["train", str(out / "store"), "--targets", str(BENCHMARK / "targets.toml"), "--mlruns", str(out / "mlruns")]
    invoke([*train, "--json", str(out / "figures.json")])
    return said, json.loads((out / "figures.json").read_text(encoding="utf-8"))


def invoke(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_ingest_report_shows_the_faults_of_the_published_files(run):
    said = " ".join(run[0].split())
    assert 'test = "chol" 161,258' in said
    assert 'test = "dbp" 33,430' in said
    assert "sbp (50 to 300 mm[Hg]) 8 0 to 13682" in said


@pytest.mark.parametrize(("target", "at_least"), [("hypertension", 0.780), ("cardiovascular", 0.685)])
def test_trees_reach_what_is_asked_and_the_regression_does_not_pass_them(run, target, at_least):
    figures = run[1][target]
    assert figures["auroc"]["estimate"] >= at_least
    assert figures["logistic"]["auroc"]["estimate"] <= figures["auroc"]["estimate"]
    assert figures["auroc"]["lower"] < figures["auroc"]["estimate"] < figures["auroc"]["upper"]


@pytest.mark.parametrize("target", ["hypertension", "cardiovascular"])
def test_risks_are_calibrated(run, target):
    figures = run[1][target]
    assert 0.9 < figures["calibration_slope"]["estimate"] < 1.1
    assert 0.95 < figures["observed_to_expected"]["estimate"] < 1.05


def test_who_counts_is_who_the_data_description_counts(run):
    figures = run[1]
    # 7,950 and 1,321 people whose five years are known, give or take those lost on the very last day.
    assert (figures["hypertension"]["n"], figures["hypertension"]["events"]) == (7948, 1437)
    assert (figures["cardiovascular"]["n"], figures["cardiovascular"]["events"]) == (1321, 256)
