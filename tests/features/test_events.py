"""The event store: the MEDS format on disk, and nothing lost and nothing twice."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import schema as meds
from polars.testing import assert_frame_equal

from features import events as events_module
from features import generation
from features.errors import WeibingError
from features.events import SCHEMA, Appended, EventStore, canonical, normalised, resident_hash
from tests.tables import events_from

# Processes are forked from one that has imported this module and started no thread.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])

HISTORY = """
    subject_id | time       | code          | value | unit    | text
    2          | 2020-05-01 | LOINC//8480-6 | 150   | mm[Hg]  |
    1          | 2021-03-01 | sbp           | 17.3  | kPa     |
    1          | 2020-03-01 | sbp           | 130   |         | sitting
    1          |            | female        | 1     |         |
    3          | 2020-01-01 | ICD10//E11.21 |       |         |
    1          | 1950-01-01 | MEDS_BIRTH    |       |         |
"""


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    """An empty store in Shanghai."""
    return EventStore.create(tmp_path / "store", timezone="Asia/Shanghai")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 10)


def batch(first: int, last: int, days: int = 5) -> pl.DataFrame:
    """Make events of the residents from first to last, so many each."""
    rows = [
        (resident, datetime(2020, 1, 1) + timedelta(days=day), "sbp", 100.0 + day + resident % 50)
        for resident in range(first, last + 1)
        for day in range(days)
    ]
    return pl.DataFrame(rows, ["subject_id", "time", "code", "numeric_value"], orient="row")


def all_of(store: EventStore) -> pl.DataFrame:
    """Read a whole store, in its order."""
    return canonical(pl.concat([store.read(shard) for shard in store.shards], how="diagonal_relaxed"))


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def shard_of(store: EventStore) -> dict[int, str]:
    """Say in which shard each resident is; fails where one is in two."""
    found: dict[int, str] = {}
    for shard in store.shards:
        for resident in pl.read_parquet(shard)["subject_id"].unique():
            assert resident not in found, f"resident {resident} is in two shards"
            found[resident] = shard.name
    return found


def test_what_was_written_is_read_back_in_order(store):
    store.append([events_from(HISTORY)])
    expected = """
        subject_id | time       | code          | value | unit    | text
        1          |            | female        | 1     |         |
        1          | 1950-01-01 | MEDS_BIRTH    |       |         |
        1          | 2020-03-01 | sbp           | 130   |         | sitting
        1          | 2021-03-01 | sbp           | 17.3  | kPa     |
        2          | 2020-05-01 | LOINC//8480-6 | 150   | mm[Hg]  |
        3          | 2020-01-01 | ICD10//E11.21 |       |         |
    """
    (shard,) = store.shards
    assert_frame_equal(store.read(shard), events_from(expected))


def test_events_that_bear_the_same_time_are_ordered_whatever_order_they_came_in(store, tmp_path):
    same_time = events_from(
        """
        time       | code | value | unit | text | ward
        2020-01-01 | a    | 1     | g    | x    | east
        2020-01-01 | a    | 1     | g    | x    | west
        2020-01-01 | a    | 1     | g    |      |
        2020-01-01 | a    | 2     | g    |      |
        2020-01-01 | a    |       |      |      |
        2020-01-01 | b    |       |      |      |
        """
    )
    turned = EventStore.create(tmp_path / "turned", timezone="Asia/Shanghai")
    store.append([same_time])
    turned.append([same_time.reverse()])
    assert contents(store.path / "data") == contents(turned.path / "data")


def test_every_file_conforms_to_meds(store, small_shards):
    store.append([events_from(HISTORY), batch(10, 60)])
    assert len(store.shards) > 1
    for shard in store.shards:
        meds.DataSchema.validate(pq.read_table(shard))
    meds.DatasetMetadataSchema.validate(json.loads((store.path / meds.dataset_metadata_filepath).read_text("utf-8")))
    codes = pq.read_table(store.path / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    assert set(codes["code"].to_pylist()) == {"female", "MEDS_BIRTH", "sbp", "LOINC//8480-6", "ICD10//E11.21"}


def test_codes_are_described_in_the_words_of_the_vocabulary(store):
    store.append([events_from("time | code \n 2020-01-01 | ICD10//E11.21 \n 2020-01-01 | LOCAL//unheard-of")])
    described = pl.read_parquet(store.path / meds.code_metadata_filepath).select("code", "description").rows()
    assert described == [("ICD10//E11.21", "diabetes; diabetic kidney disease"), ("LOCAL//unheard-of", None)]


def test_the_columns_that_a_source_leaves_out_are_null(store):
    store.append([pl.DataFrame({"subject_id": [1], "time": [datetime(2020, 1, 1)], "code": ["fall"]})])
    assert store.resident(1).schema == pl.Schema(SCHEMA)
    assert store.resident(1).row(0) == (1, datetime(2020, 1, 1), "fall", None, None, None)


def test_types_are_those_of_the_store_whatever_a_source_gives():
    given = pl.DataFrame(
        {
            "code": pl.Series(["a"], dtype=pl.Categorical),
            "subject_id": pl.Series([1], dtype=pl.UInt8),
            "time": pl.Series([datetime(2020, 1, 1, tzinfo=UTC)], dtype=pl.Datetime("ns", "UTC")),
            "numeric_value": pl.Series([1.5], dtype=pl.Float64),
            "ward": ["east"],
        }
    )
    assert normalised(given).schema == pl.Schema({**SCHEMA, "ward": pl.String()})
    assert normalised(given).row(0) == (1, datetime(2020, 1, 1), "a", 1.5, None, None, "east")


def test_a_number_that_is_not_one_becomes_null(store):
    store.append([batch(1, 1, days=1).with_columns(pl.lit(float("nan")).alias("numeric_value"))])
    assert store.resident(1)["numeric_value"].to_list() == [None]


@pytest.mark.parametrize("column", ["subject_id", "code"])
def test_an_event_without_a_resident_or_a_code_is_a_fault_of_the_source(store, column):
    with pytest.raises(ValueError, match="no resident or no code"):
        store.append([batch(1, 2), batch(3, 3).with_columns(pl.lit(None).alias(column))])
    assert len(store.residents()) == 0


def test_one_resident_is_read_in_order(store):
    store.append([events_from(HISTORY)])
    assert store.resident(1)["time"].to_list() == [
        None,
        datetime(1950, 1, 1),
        datetime(2020, 3, 1),
        datetime(2021, 3, 1),
    ]
    assert store.resident(3)["code"].to_list() == ["ICD10//E11.21"]


def test_an_unknown_resident_has_no_events_but_the_columns(store):
    assert store.resident(99).is_empty()
    store.append([events_from(HISTORY)])
    assert store.resident(99).is_empty()
    assert store.resident(99).schema == pl.Schema(SCHEMA)


def test_the_residents_are_counted_up_once_each(store, small_shards):
    assert store.residents().tolist() == []
    store.append([batch(1, 60)])
    assert store.residents().tolist() == list(range(1, 61))


@pytest.fixture
def grouped(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> EventStore:
    """A store of one shard with row groups of a hundred rows."""
    monkeypatch.setattr(events_module, "ROWS_PER_GROUP", 100)
    store.append([batch(1, 60, days=20)])
    return store


def groups_of(shard: Path) -> list[pq.RowGroupMetaData]:
    described = pq.ParquetFile(shard).metadata
    return [described.row_group(number) for number in range(described.num_row_groups)]


def test_the_row_groups_of_a_shard_say_in_order_which_residents_they_hold(grouped):
    ranges = [group.column(0).statistics for group in groups_of(grouped.shards[0])]
    assert len(ranges) == 60 * 20 / 100
    assert all(earlier.max <= later.min for earlier, later in pairwise(ranges))


def test_one_resident_is_read_without_the_other_row_groups(grouped):
    (shard,) = grouped.shards
    expected = grouped.resident(32)
    spoiled = bytearray(shard.read_bytes())
    for group in groups_of(shard):
        if not group.column(0).statistics.min <= 32 <= group.column(0).statistics.max:
            for column in range(group.num_columns):
                chunk = group.column(column)
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                spoiled[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    shard.write_bytes(spoiled)
    assert_frame_equal(grouped.resident(32), expected)
    with pytest.raises(pl.exceptions.PolarsError):
        grouped.read(shard)


def test_one_resident_is_read_without_the_other_shards(store, small_shards):
    store.append([batch(1, 80)])
    own = shard_of(store)[32]
    for shard in store.shards:
        if shard.name != own:
            shard.write_bytes(b"unreadable")
    assert len(store.resident(32)) == 5


def test_the_hash_of_a_resident_never_changes():
    # The first numbers of splitmix64 seeded with 0, as published: seeds grow by 0x9E3779B97F4A7C15.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    seeds = np.array([0, 0x9E3779B97F4A7C15, 0x3C6EF372FE94F82A], np.uint64).view(np.int64)
    assert resident_hash(seeds).tolist() == published


def test_residents_are_spread_over_shards_of_about_the_wanted_size(store, monkeypatch):
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 200)
    store.append([batch(-1_500, 1_499, days=1)])
    sizes = [len(store.read(shard)) for shard in store.shards]
    assert sum(sizes) == 3_000
    assert len(sizes) == 16, "2 ** 4 is the power of two that comes nearest to 3,000 / 200"
    assert 0.7 * 200 < min(sizes) <= max(sizes) < 1.4 * 200


def test_a_store_that_grows_keeps_every_event_and_each_resident_in_one_shard(tmp_path, small_shards):
    grown = EventStore.create(tmp_path / "grown")
    shards = []
    for first in range(1, 161, 20):
        grown.append([batch(first, first + 19)])
        shards.append(len(grown.shards))
    assert (shards[0], shards[-1]) == (2, 16)
    assert_frame_equal(all_of(grown), canonical(normalised(batch(1, 160))))
    assert sorted(shard_of(grown)) == list(range(1, 161))
    assert all(len(grown.resident(resident)) == 5 for resident in range(1, 161))
    at_once = EventStore.create(tmp_path / "at once")
    at_once.append([batch(1, 160)])
    assert contents(grown.path / "data") == contents(at_once.path / "data")


def test_a_store_opened_before_another_made_it_grow_reads_and_appends_as_if_opened_after(tmp_path, small_shards):
    first = EventStore.create(tmp_path / "store")
    first.append([batch(1, 4)])
    second = EventStore.open(tmp_path / "store")
    second.append([batch(5, 160)])
    assert all(len(first.resident(resident)) == 5 for resident in range(1, 161))
    first.append([batch(161, 170)])
    assert len(first.residents()) == len(second.residents()) == 170


def test_the_same_append_twice_adds_nothing(store, small_shards):
    frames = [events_from(HISTORY), batch(10, 40)]
    assert store.append(frames) == Appended(6 + 31 * 5, 0, 3 + 31, 0)
    before = contents(store.path)
    assert store.append(frames) == Appended(0, 6 + 31 * 5, 0, 3 + 31)
    assert contents(store.path) == before


def test_an_event_that_comes_twice_in_one_append_is_written_once(store):
    assert store.append([batch(1, 2), batch(2, 3)]) == Appended(15, 5, 3, 0)
    assert len(all_of(store)) == 15


def test_an_append_says_who_is_new_and_who_was_known(store):
    store.append([batch(1, 10)])
    assert store.append([batch(8, 12, days=6)]) == Appended(3 * 1 + 2 * 6, 3 * 5, 2, 3)


def test_an_append_of_nothing_changes_nothing(store):
    store.append([batch(1, 3)])
    before = contents(store.path)
    assert store.append([]) == store.append([batch(1, 0)]) == Appended(0, 0, 0, 0)
    assert contents(store.path) == before


def test_what_comes_in_many_runs_is_as_if_it_came_in_one(store, tmp_path, monkeypatch, small_shards):
    store.append([batch(1, 100)])
    monkeypatch.setattr(events_module, "EVENTS_PER_RUN", 30)
    in_runs = EventStore.create(tmp_path / "runs")
    in_runs.append([batch(resident, resident) for resident in range(100, 0, -1)])
    assert contents(in_runs.path / "data") == contents(store.path / "data")


def test_an_append_leaves_nothing_else_behind(store):
    store.append([batch(1, 3)])
    assert sorted(path.name for path in store.path.iterdir()) == [".lock", "data", "metadata"]


def test_extra_columns_pass_through(store):
    store.append([batch(1, 1, days=2).with_columns(ward=pl.Series(["east", None]), bed=pl.Series([7, 8]))])
    assert store.resident(1).columns == [*SCHEMA, "ward", "bed"]
    assert store.resident(1).select("ward", "bed").rows() == [("east", 7), (None, 8)]


@pytest.mark.parametrize("first", ["plain", "ward"])
def test_extra_columns_pass_through_when_only_one_of_two_appends_has_them(store, small_shards, first):
    plain, ward = batch(1, 30), batch(31, 60).with_columns(ward=pl.lit("east"))
    for frame in (plain, ward) if first == "plain" else (ward, plain):
        store.append([frame])
    kept = all_of(store).group_by("ward").len().sort("ward", nulls_last=True).rows()
    assert kept == [("east", 150), (None, 150)]


@pytest.mark.parametrize("appends", [1, 2])
def test_an_extra_column_may_be_empty_at_first(store, appends):
    empty = batch(1, 1, days=1).with_columns(ward=pl.lit(None))
    filled = batch(2, 2, days=1).with_columns(ward=pl.lit("east"))
    for frames in [[empty, filled]] if appends == 1 else [[empty], [filled]]:
        store.append(frames)
    assert all_of(store)["ward"].to_list() == [None, "east"]


def test_events_that_differ_in_an_extra_column_alone_are_two(store):
    frame = batch(1, 1, days=1)
    store.append([frame.with_columns(ward=pl.lit("east"))])
    assert store.append([frame.with_columns(ward=pl.lit("west"))]).events_new == 1


def test_a_source_that_fails_leaves_the_store_as_it_was(store, monkeypatch):
    monkeypatch.setattr(events_module, "EVENTS_PER_RUN", 10)
    store.append([batch(1, 3)])
    before = contents(store.path)

    def breaks_off() -> Iterator[pl.DataFrame]:
        yield batch(4, 30)
        raise WeibingError("exams.csv, line 7: that is no date.")

    with pytest.raises(WeibingError, match="line 7"):
        store.append(breaks_off())
    assert contents(store.path) == before


def test_until_an_append_has_ended_readers_see_the_store_as_it_was(store, monkeypatch):
    monkeypatch.setattr(events_module, "EVENTS_PER_RUN", 10)
    store.append([batch(1, 3)])
    seen = []

    def looked_at() -> Iterator[pl.DataFrame]:
        for first in (4, 14, 24):
            yield batch(first, first + 9)
            seen.append(EventStore.open(store.path).residents().tolist())

    store.append(looked_at())
    assert seen == [[1, 2, 3]] * 3
    assert len(store.residents()) == 33


def test_a_second_writer_is_refused_and_the_first_is_not_disturbed(store):
    def meddled() -> Iterator[pl.DataFrame]:
        yield batch(1, 3)
        with pytest.raises(WeibingError, match=r"Another ingest is writing .*\. Wait until it has ended"):
            EventStore.open(store.path).append([batch(4, 6)])
        yield batch(7, 9)

    store.append(meddled())
    assert store.residents().tolist() == [1, 2, 3, 7, 8, 9]


def test_a_store_keeps_its_zone_name_and_description(tmp_path):
    path = tmp_path / "store"
    EventStore.create(path, timezone="Asia/Shanghai", name="某县", description={"synthetic": True})
    EventStore.create(path, timezone="Asia/Shanghai", name="other").append([batch(1, 3)])
    opened = EventStore.open(str(path))
    assert (opened.timezone, opened.name, opened.description) == ("Asia/Shanghai", "某县", {"synthetic": True})


def test_a_store_is_named_after_its_folder_unless_it_bears_a_name(store):
    assert EventStore.open(store.path).name == "store"


def test_another_time_zone_is_refused(store):
    with pytest.raises(WeibingError, match="store is in the time zone Asia/Shanghai, not UTC"):
        EventStore.create(store.path, timezone="UTC")


def test_an_unknown_time_zone_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(WeibingError, match='no time zone "Asia/Shangai"'):
        EventStore.create(tmp_path / "store", timezone="Asia/Shangai")
    assert not (tmp_path / "store").exists()


def test_where_there_is_no_store_the_remedy_is_said(tmp_path):
    with pytest.raises(WeibingError, match=r"no event store at .*none\. Make one with: weibing ingest"):
        EventStore.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_store_that_was_taken_away_is_not_an_empty_one(store):
    store.append([batch(1, 3)])
    shutil.rmtree(store.path)
    for look in (lambda: store.shards, store.residents, lambda: store.resident(1)):
        with pytest.raises(WeibingError, match="no event store"):
            look()


@pytest.mark.parametrize("content", [b"{", '{"x": "中"}'.encode("gb18030")])
def test_a_spoiled_description_is_named(store, content):
    (store.path / "metadata" / "weibing.json").write_bytes(content)
    with pytest.raises(WeibingError, match=r"weibing\.json is not JSON in UTF-8"):
        EventStore.open(store.path)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A data set that another tool of the MEDS ecosystem made: its own shards, and no units."""
    for shard, residents in {"train/0": [5, 1], "held_out/0": [9]}.items():
        rows = [(resident, datetime(2020, 1, day), "sbp", 120.0 + day) for resident in residents for day in (1, 2)]
        frame = pl.DataFrame(rows, ["subject_id", "time", "code", "numeric_value"], orient="row")
        path = tmp_path / "foreign" / "data" / f"{shard}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(meds.DataSchema.align(frame.to_arrow()), path)
    (tmp_path / "foreign" / "metadata").mkdir()
    (tmp_path / "foreign" / "metadata" / "dataset.json").write_text('{"dataset_name": "MIMIC"}', encoding="utf-8")
    return tmp_path / "foreign"


def test_a_data_set_made_elsewhere_is_read(foreign):
    opened = EventStore.open(foreign)
    assert (opened.name, opened.timezone, opened.shard_bits) == ("MIMIC", "UTC", None)
    assert opened.residents().tolist() == [1, 5, 9]
    for resident in (1, 5, 9):
        assert opened.resident(resident).schema == pl.Schema(SCHEMA)
        assert opened.resident(resident)["numeric_value"].to_list() == [121, 122]
    assert opened.resident(2).is_empty()


def test_a_data_set_made_elsewhere_is_not_written_to(foreign):
    before = contents(foreign)
    with pytest.raises(WeibingError, match=r"was not made by Weibing\. Take it in with: weibing ingest meds"):
        EventStore.create(foreign, timezone="Asia/Shanghai").append([batch(1, 3)])
    assert contents(foreign) == before
    assert sorted(path.name for path in foreign.iterdir()) == ["data", "metadata"]


def between_renames(store: EventStore, then: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Append, and do something at the moment at which there is no data folder."""
    rename = Path.rename

    def watched(path: Path, to: Path) -> Path:
        renamed = rename(path, to)
        if Path(to).name == "data.old":
            then()
        return renamed

    monkeypatch.setattr(Path, "rename", watched)
    store.append([batch(1, 50)])


def test_a_reader_who_comes_between_the_two_renames_waits_for_the_second(store, monkeypatch, small_shards):
    store.append([batch(1, 1)])
    found: dict[str, int] = {}
    readers = [
        threading.Thread(target=lambda: found.update(shards=len(store.shards))),
        threading.Thread(target=lambda: found.update(resident=len(store.resident(1)))),
        threading.Thread(target=lambda: found.update(residents=len(store.residents()))),
        threading.Thread(target=lambda: found.update(opened=len(EventStore.open(store.path).residents()))),
    ]

    def readers_come() -> None:
        for reader in readers:
            reader.start()
        time.sleep(0.1)
        assert found == {}, "there is nothing to read yet"

    between_renames(store, readers_come, monkeypatch)
    for reader in readers:
        reader.join(timeout=10)
    assert found == {"shards": 4, "resident": 5, "residents": 50, "opened": 50}


def test_a_resident_is_read_again_when_an_append_comes_in_the_middle(store, monkeypatch, small_shards):
    first = np.arange(1, 6)
    resident = int(first[resident_hash(first).argmax()])
    store.append([batch(1, 5)])
    scan, coming = pl.scan_parquet, iter([batch(6, 160)])

    def interrupted(shard: Path) -> pl.LazyFrame:
        for frame in coming:
            store.append([frame])
        return scan(shard)

    monkeypatch.setattr(pl, "scan_parquet", interrupted)
    assert len(store.resident(resident)) == 5, "who was in the only shard is in the last of sixteen"


def test_a_resident_is_never_missing_while_others_are_added(store, small_shards):
    store.append([batch(1, 1)])
    ended, reads = threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            reads.append(len(store.resident(1)))

    reader = threading.Thread(target=read)
    reader.start()
    for first in range(2, 162, 20):
        store.append([batch(first, first + 19)])
    ended.set()
    reader.join(timeout=10)
    assert set(reads) == {5}


def test_what_was_killed_between_the_two_renames_is_finished_by_whoever_opens_next(store):
    store.append([batch(1, 3)])
    (store.path / "data").rename(store.path / "data.old")
    shutil.copytree(store.path / "data.old", store.path / "data.ready")
    assert EventStore.open(store.path).residents().tolist() == [1, 2, 3]
    assert sorted(path.name for path in store.path.iterdir()) == [".lock", "data", "metadata"]


def test_a_swap_that_was_not_begun_is_forgotten_by_the_next_writer(store):
    store.append([batch(1, 3)])
    shutil.copytree(store.path / "data", store.path / "data.ready")
    (store.path / "data.ready" / "0000.parquet").unlink()
    store.append([batch(4, 4)])
    assert store.residents().tolist() == [1, 2, 3, 4]


def test_a_long_pass_sees_the_store_of_one_moment(store, small_shards):
    store.append([batch(1, 60)])
    before = all_of(store)
    with store.held() as still:
        shards = still.shards
        first = still.read(shards[0])
        for start in (61, 161):
            store.append([batch(start, start + 99, days=2), batch(1, 60, days=7)])
        rest = [still.read(shard) for shard in shards[1:]]
        assert_frame_equal(canonical(pl.concat([first, *rest])), before)
        assert still.residents().tolist() == list(range(1, 61))
        assert len(still.resident(5)) == 5
        assert (still.timezone, still.name) == (store.timezone, store.name)
    assert len(store.residents()) == 260
    assert sorted(path.name for path in store.path.iterdir()) == [".lock", "data", "metadata"]


def test_a_pass_that_is_given_to_other_processes_is_of_one_moment(store, small_shards):
    store.append([batch(1, 60)])
    with store.held() as still, PROCESSES.Pool(1) as pool:
        store.append([batch(1, 160, days=7)])
        assert sum(pool.map(rows_of, still.shards)) == 60 * 5


def rows_of(shard: Path) -> int:
    return len(pl.read_parquet(shard))


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    """Hold a store for as long as one lives."""
    with EventStore.open(path).held():
        ready.set()
        time.sleep(60)


def test_what_a_killed_reader_held_is_cleared_by_the_next_writer_and_what_a_living_one_holds_is_not(store):
    store.append([batch(1, 3)])
    ready = PROCESSES.Event()
    reader = PROCESSES.Process(target=hold, args=(store.path, ready))
    reader.start()
    assert ready.wait(timeout=60)
    store.append([batch(4, 5)])
    assert len(list(store.path.glob(".read-*"))) == 1
    reader.kill()
    reader.join()
    store.append([batch(6, 7)])
    assert not list(store.path.glob(".read-*"))


def test_a_data_set_made_elsewhere_is_held_as_it_is(foreign):
    with EventStore.open(foreign).held() as still:
        assert still.path == foreign
    assert sorted(path.name for path in foreign.iterdir()) == ["data", "metadata"]


def test_a_store_that_one_may_not_write_to_is_read_in_its_place(store, monkeypatch):
    def refuse(**where: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    store.append([batch(1, 3)])
    monkeypatch.setattr(generation, "mkdtemp", refuse)
    with store.held() as still:
        assert still.residents().tolist() == [1, 2, 3]


def test_every_file_and_folder_is_on_the_disk_before_it_takes_the_place_of_another(store, monkeypatch, small_shards):
    done: list[str] = []
    keep, rename = generation.keep, Path.rename
    monkeypatch.setattr(generation, "keep", lambda path: (done.append(f"keep {path.name}"), keep(path)))
    monkeypatch.setattr(Path, "rename", lambda path, to: (done.append(f"rename {path.name}"), rename(path, to))[1])
    store.append([batch(1, 30)])
    names = [path.name for path in (store.path / "data").iterdir()]
    begin = done.index("rename data")
    assert done[begin : begin + 5] == ["rename data", "keep store", "rename data", "rename data.ready", "keep store"]
    assert {f"keep {name}" for name in (*names, "data")} <= set(done[:begin])


STEPS = {"os.rename", "os.mkdir", "os.rmdir", "os.link"}


def ingest(path: Path) -> None:
    """Make a store, or open it, and append so much that it grows."""
    events_module.RESIDENTS_PER_SHARD = 10
    EventStore.create(path, timezone="Asia/Shanghai").append([batch(3, 25), events_from(HISTORY)])


def ingest_until_step(path: Path, last: int) -> None:
    """Ingest, and be killed just before the numbered change of a folder; end with the number of changes otherwise."""
    steps = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in STEPS and str(arguments[0]).startswith(str(path)):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    ingest(path)
    os._exit(steps)


def ended(process: multiprocessing.Process) -> int | None:
    process.join(timeout=60)
    return process.exitcode


@pytest.fixture(params=["new", "known"])
def begun(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path]:
    """Return, each time anew, where there is no store yet, or one of a single shard."""
    if request.param == "known":
        EventStore.create(tmp_path / "begun", timezone="Asia/Shanghai", name="store").append([batch(1, 5)])
    else:
        (tmp_path / "begun").mkdir()

    def fresh() -> Path:
        path = tmp_path / "store"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "begun", path)
        return path

    return fresh


def assert_ends_like_an_undisturbed_one(path: Path, before: list[int], undisturbed: dict[str, bytes]) -> None:
    if (path / "data").exists() or (path / "data.ready").exists():
        assert EventStore.open(path).residents().tolist() in (before, list(range(1, 26))), "all of it or nothing"
    ingest(path)
    assert contents(path) == undisturbed


@pytest.mark.usefixtures("small_shards")
def test_killed_at_any_step_and_run_again_an_ingest_ends_like_an_undisturbed_one(begun):
    before = EventStore.open(begun()).residents().tolist() if (begun() / "data").exists() else []
    path = begun()
    ingest(path)
    undisturbed = contents(path)
    process = PROCESSES.Process(target=ingest_until_step, args=(begun(), 0))
    process.start()
    steps = ended(process)
    assert steps
    for step in range(1, steps + 1):
        process = PROCESSES.Process(target=ingest_until_step, args=(begun(), step))
        process.start()
        assert ended(process) == -signal.SIGKILL
        assert_ends_like_an_undisturbed_one(path, before, undisturbed)


@pytest.mark.usefixtures("small_shards")
def test_killed_at_any_moment_and_run_again_an_ingest_ends_like_an_undisturbed_one(begun):
    before = EventStore.open(begun()).residents().tolist() if (begun() / "data").exists() else []
    path = begun()
    ingest(path)
    undisturbed = contents(path)
    moments = random.Random(7)
    for _ in range(6):
        process = PROCESSES.Process(target=ingest, args=(begun(),))
        process.start()
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        ended(process)
        assert_ends_like_an_undisturbed_one(path, before, undisturbed)
