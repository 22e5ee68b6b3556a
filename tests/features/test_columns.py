"""Shards as arrays, whole and in parts."""

from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from features.columns import Columns, read_columns, read_columns_part
from features.events import EventStore
from tests.tables import events_from


def events_of(columns: Columns) -> list[tuple]:
    """The events of columns, a tuple each, in their order."""
    who = np.repeat(columns.resident, np.diff(columns.starts))
    named = [columns.pairs[pair] for pair in columns.pair.tolist()]
    number = pl.Series(columns.number, nan_to_null=True).to_list()
    return list(zip(who.tolist(), columns.time.tolist(), named, number, strict=True))


def all_events(read: list[Columns]) -> list[tuple]:
    return list(chain.from_iterable(map(events_of, read)))


@pytest.fixture(scope="module")
def shard(small_store: EventStore) -> Path:
    [path] = small_store.shards
    return path


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_the_parts_of_a_shard_are_the_shard(shard, parts):
    read = [read_columns_part(shard, part, parts) for part in range(parts)]
    assert all_events(read) == events_of(read_columns(shard))


def test_all_events_of_a_resident_are_in_one_part(shard):
    residents = [set(read_columns_part(shard, part, 5).resident.tolist()) for part in range(5)]
    assert sum(map(len, residents)) == len(set.union(*residents)) == len(read_columns(shard).resident)
    assert min(map(len, residents)) > 100


def test_only_the_groups_of_rows_of_a_part_are_read(shard, tmp_path):
    small = tmp_path / "small.parquet"
    pl.read_parquet(shard).write_parquet(small, row_group_size=1_000, compression="uncompressed")
    whole, told = [read_columns_part(small, part, 3) for part in range(3)], pq.read_metadata(small)
    last = told.row_group(told.num_row_groups - 1).column(told.schema.names.index("numeric_value"))
    with small.open("r+b") as file:
        file.seek(last.data_page_offset)
        file.write(b"\xff" * 64)
    assert events_of(read_columns_part(small, 0, 3)) == events_of(whole[0])
    with pytest.raises((OSError, pl.exceptions.PolarsError)):
        read_columns_part(small, 2, 3)


def test_a_resident_with_more_events_than_a_part_leaves_the_next_part_empty(tmp_path):
    table = "time | code\n" + "\n".join(f"2020-01-{day:02} | sbp" for day in range(1, 11))
    events_from(table).write_parquet(tmp_path / "one.parquet")
    lengths = [len(read_columns_part(tmp_path / "one.parquet", part, 3).time) for part in range(3)]
    assert sorted(lengths) == [0, 0, 10]


@pytest.mark.parametrize("by", [["code"], ["subject_id"]], ids=["residents mixed", "times mixed"])
def test_a_shard_in_no_order_has_the_same_parts(shard, tmp_path, by):
    mixed = tmp_path / "mixed.parquet"
    pl.read_parquet(shard).sample(fraction=1, shuffle=True, seed=1).sort(by, maintain_order=True).write_parquet(mixed)
    read = [read_columns_part(mixed, part, 4) for part in range(4)]
    assert sorted(all_events(read), key=str) == sorted(events_of(read_columns(shard)), key=str)
    residents = [set(each.resident.tolist()) for each in read]
    assert sum(map(len, residents)) == len(set.union(*residents))
