"""What a run is divided into: the shards of a store, large ones in parts that fit into memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.lib as pa
import pyarrow.parquet as pq

from features.columns import Columns, read_columns, read_columns_part
from features.errors import WeibingError
from features.events import EventStore
from features.remote import Store, on_disk

# What an event costs while its shard is read, filled and scored: 135 bytes were measured of a shard of 21 million, with
# three models (benchmarks/nightly), and histories differ.
BYTES_AN_EVENT = 250
# What the program takes before it reads anything: libraries, vocabulary, models.
BYTES_AT_REST = 800_000_000
# One shard is read, one worked on and one kept at the same time.
AT_ONCE = 3
FEWEST_EVENTS = 100_000


@dataclass(frozen=True)
class Piece:
    """A shard of a run, or a part of one; `place` is its place in the run, from 0."""

    place: int
    shard: str
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """What it is called in ledgers and logs."""
        return self.shard if self.parts == 1 else f"{self.shard} part {self.part + 1} of {self.parts}"


def pieces_of(store: Store, memory_bytes: int, workers: int = 1) -> list[Piece]:
    """Divide a store so that so many workers at once stay within a budget of memory.

    Raises
    ------
    WeibingError
        If the budget is too small for the program itself, or a shard cannot be read.
    """
    each = memory_bytes / workers - BYTES_AT_REST
    most = int(each / AT_ONCE / BYTES_AN_EVENT)
    if most < FEWEST_EVENTS:
        least = (BYTES_AT_REST + FEWEST_EVENTS * AT_ONCE * BYTES_AN_EVENT) * workers / 1e9
        raise WeibingError(
            f"{memory_bytes / 1e9:g} GB are too little for {workers} worker{'s' * (workers > 1)}."
            f" Give it {least:.1f} with --memory, or use fewer workers."
        )
    parts = [(name, _parts(store, name, most)) for name in _names(store)]
    flat = [(name, part, of) for name, of in parts for part in range(of)]
    return [Piece(place, *each) for place, each in enumerate(flat)]


def _names(store: Store) -> list[str]:
    inside = store.path if isinstance(store, EventStore) else Path()
    return [shard.relative_to(inside).as_posix() for shard in store.shards]


@contextmanager
def _file(store: Store, name: str) -> Iterator[Path]:
    """Give a shard as a file on this machine, for as long as it is read."""
    with on_disk(store, store.path / name if isinstance(store, EventStore) else Path(name)) as path:
        yield path


def _parts(store: Store, name: str, most: int) -> int:
    # A shard elsewhere would have to travel to be looked at; Weibing's own are small.
    if not isinstance(store, EventStore):
        return 1
    try:
        with _file(store, name) as path:
            return max(1, -(-int(pq.read_metadata(path).num_rows) // most))
    except (OSError, pa.ArrowException):
        # Whoever comes to score it says what is wrong with it.
        return 1


def read_piece(store: Store, piece: Piece) -> Columns:
    """Read a piece.

    Raises
    ------
    WeibingError
        If it cannot be read.
    """
    try:
        with _file(store, piece.shard) as path:
            if piece.parts == 1:
                return read_columns(path)
            return read_columns_part(path, piece.part, piece.parts)
    except (OSError, pa.ArrowException) as error:
        raise WeibingError(f"The shard {piece.shard} cannot be read: {error}.") from error
