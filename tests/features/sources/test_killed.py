"""Nothing lost, nothing twice: every source, killed at any moment and run again, ends as if undisturbed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest

from features import events as events_module
from features.events import EventStore
from features.sources.county import simulate
from features.sources.fhir import ingest_fhir
from features.sources.meds import ingest_meds
from features.sources.omop import ingest_omop
from features.sources.table import ingest_tables

TODAY = date(2025, 1, 1)
RESIDENTS = range(1, 61)
MAPPING = """
    [[table]]
    file = "form.csv"
    resident = "id"
    record = ["id"]
    time = { column = "day" }
    value = [{ column = "sbp", code = "sbp" }]
"""

# Processes are forked from one that has imported this module and started no thread.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
RENAMES = {"os.rename", "os.link", "os.rmdir"}


def table(folder: Path, value: int) -> None:
    (folder / "mapping.toml").write_text(MAPPING)
    (folder / "form.csv").write_text("id,day,sbp\n" + "".join(f"{n},2024-03-05,{value}\n" for n in RESIDENTS))
    ingest_tables([folder / "form.csv"], folder / "store", folder / "mapping.toml", today=TODAY)


def fhir(folder: Path, value: int) -> None:
    code = {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}
    seen = {"status": "final", "effectiveDateTime": "2024-03-05", "code": code, "valueQuantity": {"value": value}}
    (folder / "export.ndjson").write_text(
        "\n".join(
            json.dumps({"resourceType": "Observation", "id": str(n), "subject": {"reference": f"Patient/{n}"}, **seen})
            for n in RESIDENTS
        )
    )
    ingest_fhir([folder / "export.ndjson"], folder / "store", today=TODAY)


def omop(folder: Path, value: int) -> None:
    (folder / "cdm").mkdir(exist_ok=True)
    rows = "".join(f"{n},{n},3004249,2024-03-05,{value}\n" for n in RESIDENTS)
    header = "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number\n"
    (folder / "cdm" / "measurement.csv").write_text(header + rows)
    ingest_omop(folder / "cdm", folder / "store", today=TODAY)


def meds(folder: Path, value: int) -> None:
    (folder / "theirs" / "data").mkdir(parents=True, exist_ok=True)
    rows = pl.DataFrame({"subject_id": [*RESIDENTS]}).with_columns(
        time=pl.date(2024, 3, 5), code=pl.lit("sbp"), numeric_value=pl.lit(float(value))
    )
    rows.write_parquet(folder / "theirs" / "data" / "0.parquet")
    ingest_meds(folder / "theirs", folder / "store", today=TODAY)


def county(folder: Path, value: int) -> None:
    if value == CORRECTED:
        simulate(folder / "store", residents=60, years=2)


WRONG, CORRECTED = 512, 152
BY_NAME = {source.__name__: source for source in (table, fhir, omop, meds, county)}


def ingest(source: str, folder: Path) -> None:
    """Take in the corrected records of a source, into a store that grows over several shards."""
    with patch.object(events_module, "RESIDENTS_PER_SHARD", 20):
        BY_NAME[source](folder, CORRECTED)


def ingest_until(source: str, folder: Path, last: int) -> None:
    """Ingest, and be killed just before the numbered change of a folder's names; end with their number otherwise."""
    steps = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in RENAMES and str(arguments[0]).startswith(str(folder / "store")):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    ingest(source, folder)
    os._exit(min(steps, 200))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass
class Disturbed:
    """An ingest of a source into a store of wrong values, and what comes of it when nobody disturbs it."""

    source: str
    begun: Path
    folder: Path

    def __post_init__(self) -> None:
        BY_NAME[self.source](self.begun, WRONG)
        self.before = values_of(self.begun / "store")
        ingest(self.source, self.anew())
        self.undisturbed, self.after = contents(self.folder / "store"), values_of(self.folder / "store")

    def anew(self) -> Path:
        """Begin again where nothing has been corrected."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.begun, self.folder)
        return self.folder

    def require_as_if_undisturbed(self) -> None:
        """Require all of it or nothing now, and the same bytes as an undisturbed ingest's when it has run again."""
        assert values_of(self.folder / "store") in (self.before, self.after)
        ingest(self.source, self.folder)
        assert contents(self.folder / "store") == self.undisturbed


@pytest.fixture(params=sorted(BY_NAME))
def disturbed(request, tmp_path):
    (tmp_path / "begun").mkdir()
    return Disturbed(request.param, tmp_path / "begun", tmp_path / "folder")


def killed(target, *arguments, after: float | None = None) -> int | None:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join(timeout=60)
    return process.exitcode


def values_of(path: Path) -> set[float]:
    if not any((path / name).exists() for name in ("data", "data.ready")):
        return set()
    store = EventStore.open(path)
    return {value for shard in store.shards for value in store.read(shard)["numeric_value"].drop_nulls()}


def test_killed_at_any_change_of_names_and_run_again_an_ingest_ends_as_if_undisturbed(disturbed):
    steps = killed(ingest_until, disturbed.source, disturbed.anew(), 0)
    assert steps
    for step in sorted({steps // 2, *range(steps - 2, steps + 1)}):
        assert killed(ingest_until, disturbed.source, disturbed.anew(), step) == -signal.SIGKILL
        disturbed.require_as_if_undisturbed()


def test_killed_at_any_moment_and_run_again_an_ingest_ends_as_if_undisturbed(disturbed):
    moments = random.Random(7)
    for _ in range(3):
        killed(ingest, disturbed.source, disturbed.anew(), after=moments.uniform(0, 0.3))
        disturbed.require_as_if_undisturbed()
