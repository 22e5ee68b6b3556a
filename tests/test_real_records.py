"""The main job on records that nobody here made: what the benchmarks' README files show, held."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.cohort import cohort
from features.events import EventStore
from features.sources.table import ingest_tables
from tests.real import real_records
from training.sample import follow_up_weights
from training.targets import read_targets
from weibing import app

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# Of each target: residents and outcomes, as ../shared/data/README.md counts them, and the AUROC that is asked for.
ASKED = """
    records     | target                   | residents | outcomes | auroc
    olmsted     | hypertension             | 7948      | 1437     | 0.780
    olmsted     | cardiovascular           | 1321      | 256      | 0.685
    olmsted     | diabetes                 | 9380      | 703      | 0.760
    diabetes130 | nephropathy              | 15831     | 1277     | 0.715
    diabetes130 | retinopathy              | 16637     | 153      | 0.745
    diabetes130 | neuropathy               | 16123     | 768      | 0.665
    diabetes130 | cardiovascular           | 10127     | 2974     | 0.655
    nhanes      | cardiovascular_death_5y  | 2144      | 123      | 0.838
    nhanes      | cardiovascular_death_10y | 2144      | 254      | 0.793
"""
# Olmsted's figures are of those whose five years are known, give or take those lost on the very last day.
ROWS = [[cell.strip() for cell in line.split("|")] for line in ASKED.strip().splitlines()[1:]]
EVERY_TARGET = pytest.mark.parametrize(("records", "target"), [row[:2] for row in ROWS])


@dataclass
class Benchmarks:
    """The benchmarks on real records: what has been read and trained is kept for the tests that follow."""

    out: Path
    said: dict[str, str] = field(default_factory=dict)
    figures: dict[tuple[str, str], dict] = field(default_factory=dict)

    def store(self, records: str) -> Path:
        """Return the store of a set of records."""
        place = self.out / records
        if records not in self.said:
            files = sorted(path for path in real_records(records).iterdir() if path.suffix in {".gz", ".zip"})
            report = ingest_tables(files, place, BENCHMARKS / records / "mapping.toml")
            self.said[records] = " ".join(report.text().split())
        return place

    def trained(self, records: str, target: str) -> dict:
        """Return the figures that the command prints for a target."""
        if (records, target) not in self.figures:
            store, figures = self.store(records), self.out / f"{records}-{target}.json"
            where = ["--targets", str(BENCHMARKS / records / "targets.toml"), "--mlruns", str(self.out / "mlruns")]
            command = ["train", str(store), target, *where, "--json", str(figures)]
            done = CliRunner().invoke(app, command, catch_exceptions=False)
            assert done.exit_code == 0, done.output
            self.figures[records, target] = json.loads(figures.read_text(encoding="utf-8"))[target]
        return self.figures[records, target]


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    return Benchmarks(tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize(("records", "target", "residents", "outcomes"), [row[:4] for row in ROWS])
def test_who_counts_is_who_the_description_of_the_records_counts(benchmarks, records, target, residents, outcomes):
    declared = read_targets(BENCHMARKS / records / "targets.toml")[target]
    weights = follow_up_weights(cohort(EventStore.open(benchmarks.store(records)), declared).rows, declared)
    events = int(weights.outcome[weights.weight > 0].sum())
    assert (weights.known, events) == (int(residents), int(outcomes))


@EVERY_TARGET
def test_the_model_reaches_what_is_asked_and_the_regression_does_not_pass_it(benchmarks, records, target):
    figures = benchmarks.trained(records, target)
    asked = next(float(row[4]) for row in ROWS if row[:2] == [records, target])
    assert figures["auroc"]["estimate"] >= asked
    assert figures["logistic"]["auroc"]["estimate"] <= figures["auroc"]["estimate"]
    assert figures["auroc"]["lower"] < figures["auroc"]["estimate"] < figures["auroc"]["upper"]


@EVERY_TARGET
def test_risks_are_calibrated(benchmarks, records, target):
    figures = benchmarks.trained(records, target)
    assert 0.9 < figures["calibration_slope"]["estimate"] < 1.1
    assert 0.95 < figures["observed_to_expected"]["estimate"] < 1.05


def test_the_ingest_report_shows_the_faults_of_the_published_files(benchmarks):
    benchmarks.store("olmsted")
    said = benchmarks.said["olmsted"]
    assert 'test = "chol" 161,258' in said
    assert 'test = "dbp" 33,430' in said
    assert "sbp (50 to 300 mm[Hg]) 8 0 to 13682" in said


@pytest.mark.parametrize("target", ["cardiovascular_death_5y", "cardiovascular_death_10y"])
def test_what_came_after_the_examination_predicts_nothing(benchmarks, target):
    declared = read_targets(BENCHMARKS / "nhanes" / "targets.toml")[target]
    told_later = {"death", "observation_end", "cardiovascular_death"}
    assert told_later.isdisjoint(declared.predictors)
