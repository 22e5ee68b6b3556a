"""A resident is erased from the event store: all of it or nothing, and for good."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features import events as events_module
from features.errors import WeibingError
from features.events import EventStore, canonical
from features.generation import only_one_writer
from features.records import RECORD, VERSION, pairs_of, read_pairs
from features.sources.report import IngestReport
from tests.tables import events_from

# Processes are forked from one that has imported this module and started no thread.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
STEPS = {"os.rename", "os.mkdir", "os.rmdir", "os.link"}
ERASED = 7


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventStore:
    """A store of 40 residents in four shards, each with an event of a record and one of none."""
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 10)
    made = EventStore.create(tmp_path / "store", timezone="Asia/Shanghai")
    made.append([told(range(1, 41))])
    return made


def told(whose: range | list[int], value: float = 120, version: int = 1) -> pl.DataFrame:
    """Two events a resident; record 100 + n tells the first, of a code that resident 7 alone has."""
    rows = [
        {"subject_id": who, "code": code, "numeric_value": value, RECORD: record, VERSION: version if record else None}
        for who in whose
        for code, record in ((f"LOCAL//{'rare' if who == ERASED else 'sbp'}", 100 + who), ("dbp", None))
    ]
    day = pl.lit("2024-01-01").str.to_datetime(time_unit="us").alias("time")
    return pl.DataFrame(rows, schema_overrides={RECORD: pl.Int64, VERSION: pl.Int64}).with_columns(day)


def all_of(store: EventStore) -> pl.DataFrame:
    return canonical(pl.concat([store.read(shard) for shard in store.shards]))


def records_of(store: EventStore) -> set[int]:
    return {record for shard in store.shards for record in read_pairs(pairs_of(shard))[RECORD]}


def test_a_resident_is_erased_and_nothing_of_the_others_changes(store):
    before, state, untouched = all_of(store), store.state, {}
    for shard in store.shards:
        if ERASED not in store.read(shard)["subject_id"]:
            untouched[shard] = shard.stat().st_ino
    assert store.erase(ERASED) == 2
    assert_frame_equal(all_of(store), before.filter(pl.col("subject_id") != ERASED))
    assert store.state != state
    assert records_of(store) == {100 + who for who in range(1, 41) if who != ERASED}
    assert untouched
    assert {shard: shard.stat().st_ino for shard in untouched} == untouched
    codes = pl.read_parquet(store.path / "metadata" / "codes.parquet")["code"].to_list()
    assert codes == ["LOCAL//sbp", "dbp"]
    assert not [each.name for each in store.path.iterdir() if each.name.startswith((".append", "data."))]


def test_the_records_of_the_others_are_still_corrected(store):
    store.erase(ERASED)
    neighbours = [who for who in range(1, 41) if who != ERASED]
    done = store.append([told(neighbours, value=130, version=2)])
    assert (done.records_replaced, done.events_new) == (39, 78)
    sbp = all_of(store).filter(pl.col("code") == "LOCAL//sbp")
    assert sbp["numeric_value"].to_list() == [130.0] * 39


def test_what_is_told_again_of_an_erased_resident_is_left_out_and_counted_until_readmitted(store):
    store.erase(ERASED)
    done = store.append([told([ERASED, 50], version=2)])
    assert (done.events_new, done.events_erased, done.residents_new) == (2, 2, 1)
    assert ERASED not in store.residents()
    assert store.erased == {ERASED}
    assert EventStore.open(store.path).readmit(ERASED)
    assert not store.readmit(ERASED)
    assert store.append([told([ERASED], version=3)]).events_new == 2
    assert "were erased  2" in IngestReport(events_erased=2).text()


def test_a_record_that_told_of_another_before_and_tells_of_the_erased_now_tells_nothing(store):
    store.erase(ERASED)
    moved = told([ERASED], version=2).with_columns(pl.lit(108, pl.Int64).alias(RECORD))
    store.append([moved])
    assert all_of(store).filter(pl.col("subject_id") == 8)["code"].to_list() == ["dbp"]


def test_who_is_not_in_the_store_is_noted_and_a_pass_under_way_ends_with_what_it_holds(store):
    with store.held() as still:
        assert store.erase(ERASED) == 2
        assert store.erase(ERASED) == 0
        assert len(still.resident(ERASED)) == 2
    assert store.erase(99) == 0
    assert store.erased == {ERASED, 99}


def test_nobody_is_erased_while_another_writes_or_from_a_data_set_made_elsewhere(store):
    with only_one_writer(store.path), pytest.raises(WeibingError, match="Another ingest is writing"):
        store.erase(ERASED)
    (store.path / "data" / "shards.json").unlink()
    with pytest.raises(WeibingError, match="was not made by Weibing"):
        store.erase(ERASED)


def test_a_store_that_is_empty_after_it_is_still_a_store(tmp_path):
    store = EventStore.create(tmp_path / "store")
    store.append([events_from("time | code | value\n2020-01-01 | sbp | 120")])
    assert store.erase(1) == 1
    assert len(EventStore.open(store.path).residents()) == 0


def erase_until_step(path: Path, last: int) -> None:
    """Erase, and be killed just before the numbered change of a folder; end with the number of changes otherwise."""
    steps = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in STEPS and str(arguments[0]).startswith(str(path)):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    EventStore.open(path).erase(ERASED)
    os._exit(steps)


def ended(path: Path, last: int) -> int | None:
    process = PROCESSES.Process(target=erase_until_step, args=(path, last))
    process.start()
    process.join(timeout=60)
    return process.exitcode


def test_killed_at_any_step_and_run_again_it_ends_erased(store, tmp_path):
    before, path = all_of(store), tmp_path / "copy"
    after = before.filter(pl.col("subject_id") != ERASED)
    shutil.copytree(store.path, path)
    steps = ended(path, 0)
    assert steps
    for step in range(1, steps + 1):
        shutil.rmtree(path)
        shutil.copytree(store.path, path)
        assert ended(path, step) == -signal.SIGKILL
        found = EventStore.open(path)
        assert all_of(found).equals(after if found.erased else before), "all of it or nothing"
        found.erase(ERASED)
        assert all_of(found).equals(after)
        assert json.loads((path / "data" / "erased.json").read_text()) == {"subject_ids": [ERASED]}
        assert [each.name for each in path.glob("data*")] == ["data"]
