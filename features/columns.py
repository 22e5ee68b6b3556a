"""A shard's events as arrays, codes and units as numbers: what the compiled loops read.

Our own shards hold codes as dictionaries, so that they need not become texts on the way.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.compiled import compiled
from features.events import ORDER, normalised

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Singles = NDArray[np.float32]

# With fewer events than this, a dictionary is faster than columns.
FEW = 4_000
# What a shard must hold to be read without a detour.
AS_WRITTEN = {"subject_id": pa.int64(), "time": pa.timestamp("us"), "numeric_value": pa.float32()}
TEXTS = ("code", "unit")

Pairs = list[tuple[str, str | None]]


class Columns(NamedTuple):
    """Events sorted by resident and time, as arrays.

    `resident`, shape (residents,), are the residents in ascending order, `starts`, shape (residents + 1,), says where
    each one's events begin in the others, all of shape (events,): `pair` says which of `pairs`, (code, unit), an event
    bears, `time` is in microseconds (UTC) or ``ALWAYS``, `number` is NaN where none was recorded.
    """

    resident: Ints
    starts: Ints
    time: Ints
    number: Singles
    pair: Small
    pairs: Pairs


def read_columns(shard: Path) -> Columns:
    """Read a shard as columns."""
    with pq.ParquetFile(shard, read_dictionary=list(TEXTS), memory_map=True) as file:
        as_written = _is_as_written(file)
        table = file.read(columns=[*AS_WRITTEN, *TEXTS]) if as_written else None
    columns = None if table is None else _of_table(table)
    return columns_of(normalised(pl.read_parquet(shard))) if columns is None else columns


def read_columns_part(shard: Path, part: int, parts: int) -> Columns:
    """Read one of several parts of a shard, each of whole residents and of about as many events.

    Only the part is in memory, unless residents are not in order in the shard.
    """
    with pq.ParquetFile(shard, read_dictionary=list(TEXTS), memory_map=True) as file:
        subject = file.read(columns=["subject_id"])["subject_id"].to_numpy()
        if not (subject[1:] >= subject[:-1]).all():
            return _of_residents(shard, np.array_split(np.unique(subject), parts)[part])
        start, stop = (_first_of_resident(subject, len(subject) * edge // parts) for edge in (part, part + 1))
        table = _rows_of(file, start, stop) if _is_as_written(file) and start < stop else None
    columns = None if table is None else _of_table(table)
    if columns is None:
        columns = columns_of(normalised(pl.scan_parquet(shard).slice(start, stop - start).collect()))
    return columns


def _of_residents(shard: Path, residents: Ints) -> Columns:
    events = pl.scan_parquet(shard).filter(pl.col("subject_id").is_in(residents.tolist())).collect()
    return columns_of(normalised(events))


def _is_as_written(file: pq.ParquetFile) -> bool:
    schema = file.schema_arrow
    told = {name: schema.field(name).type for name in schema.names}
    as_written = all(told.get(name) == kind for name, kind in AS_WRITTEN.items())
    return bool(as_written and "unit" in told and file.metadata.num_rows)


def _of_table(table: pa.Table) -> Columns | None:
    """Return the columns of a table of events, or None where they are not sorted."""
    table = table.unify_dictionaries()
    subject, time = table["subject_id"].to_numpy(), clock(table["time"].to_numpy())
    resident, starts, ordered = segments(subject, time)
    if not ordered:
        return None
    code, codes = _of_dictionary(table["code"])
    unit, units = _of_dictionary(table["unit"])
    pair, pairs = _paired(code, codes, unit, units)
    return Columns(resident, starts, time, table["numeric_value"].to_numpy(), pair, pairs)


def _first_of_resident(subject: Ints, row: int) -> int:
    """Return where the resident of a row begins."""
    while 0 < row < len(subject) and subject[row - 1] == subject[row]:
        row -= 1
    return row


def _rows_of(file: pq.ParquetFile, start: int, stop: int) -> pa.Table:
    """Read the rows ``[start, stop)``, with no more of the file than the groups that they lie in."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    first, last = (int(np.searchsorted(ends, row, side="right")) for row in (start, stop - 1))
    table = file.read_row_groups(list(range(first, last + 1)), columns=[*AS_WRITTEN, *TEXTS])
    return table.slice(start - (int(ends[first - 1]) if first else 0), stop - start)


def columns_of(events: pl.DataFrame) -> Columns:
    """Return events as columns.

    Parameters
    ----------
    events : columns of the event store
        In any order; those of a resident and time stay in theirs where all are sorted already.
    """
    resident, starts, ordered = segments(events["subject_id"].to_numpy(), clock(events["time"].to_numpy()))
    if not ordered:
        events = events.sort(ORDER)
        resident, starts, _ = segments(events["subject_id"].to_numpy(), clock(events["time"].to_numpy()))
    pair, pairs = _pairs(events)
    return Columns(resident, starts, clock(events["time"].to_numpy()), events["numeric_value"].to_numpy(), pair, pairs)


def clock(time: NDArray[np.datetime64]) -> Ints:
    """Return times (in microseconds) as numbers, shape as given; ``ALWAYS`` where there is none."""
    # numpy's "not a time" is ALWAYS.
    return time.view(np.int64)


@compiled
def segments(subject: Ints, time: Ints) -> tuple[Ints, Ints, bool]:
    """Find where each resident's events begin, in one pass.

    Returns
    -------
    resident : shape (residents,)
    starts : shape (residents + 1,)
    ordered
        Whether the events are sorted by resident and time; the others mean nothing if not.
    """
    events, found, ordered = len(subject), 0, True
    begins = np.empty(events + 1, np.int64)
    for event in range(events):
        if event == 0 or subject[event] != subject[event - 1]:
            ordered = ordered and (event == 0 or subject[event] > subject[event - 1])
            begins[found] = event
            found += 1
        else:
            ordered = ordered and time[event] >= time[event - 1]
    begins[found] = events
    starts = begins[: found + 1].copy()
    return subject[starts[:-1]], starts, ordered


def _of_dictionary(texts: pa.ChunkedArray) -> tuple[list[NDArray[np.int32]], list[str | None]]:
    """Return the numbers of texts, chunk by chunk, and the texts by number; the last one is null."""
    known = texts.chunk(0).dictionary.to_pylist()
    numbers = [pc.fill_null(chunk.indices, len(known)).to_numpy(zero_copy_only=False) for chunk in texts.chunks]
    return numbers, [*known, None]


def _paired(
    code: Sequence[NDArray[np.int32]],
    codes: list[str | None],
    unit: Sequence[NDArray[np.int32]],
    units: list[str | None],
) -> tuple[Small, Pairs]:
    """Number the (code, unit) pairs that occur."""
    number = np.full(len(codes) * len(units), -1, np.int32)
    parts, found = [], 0
    for codes_here, units_here in zip(code, unit, strict=True):
        pair, found = _number_pairs(codes_here, units_here, len(units), number, found)
        parts.append(pair)
    pairs = np.argsort(number, kind="stable")[len(number) - found :]
    # A code is never null.
    named = [(cast(str, codes[pair // len(units)]), units[pair % len(units)]) for pair in pairs]
    return np.concatenate(parts), named


@compiled
def _number_pairs(code: Small, unit: Small, units: int, number: Small, found: int) -> tuple[Small, int]:
    """Number pairs in the order in which they are first met; `number` remembers them, -1 for one not met yet."""
    pair = np.empty(len(code), np.int32)
    for event in range(len(code)):
        place = np.int64(code[event]) * units + unit[event]
        if number[place] < 0:
            number[place] = found
            found += 1
        pair[event] = number[place]
    return pair, found


def _pairs(events: pl.DataFrame) -> tuple[Small, Pairs]:
    """Return which (code, unit) pair each event bears, and the pairs."""
    if len(events) <= FEW:
        number_of: dict[tuple[str, str | None], int] = {}
        both = zip(events["code"].to_list(), events["unit"].to_list(), strict=True)
        pair = [number_of.setdefault(each, len(number_of)) for each in both]
        return np.array(pair, np.int32), list(number_of)
    code, codes = _numbered(events["code"])
    unit, units = _numbered(events["unit"])
    return _paired([code], codes, [unit], units)


def _numbered(texts: pl.Series) -> tuple[NDArray[np.int32], list[str | None]]:
    """Return the number of each text, and the texts by number; the last one is null."""
    known = texts.drop_nulls().unique().sort()
    number = texts.cast(pl.Enum(known)).to_physical().cast(pl.Int32).fill_null(len(known))
    return number.to_numpy(), [*known.to_list(), None]
