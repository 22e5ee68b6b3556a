"""The event store: every dated fact of every resident, in the MEDS 0.4 format, sharded by resident.

    STORE/data/0000.parquet …    events, sorted by resident and time; all of a resident in one shard
    STORE/metadata/dataset.json  MEDS's own description
    STORE/metadata/codes.parquet the codes that occur
    STORE/metadata/weibing.json  the county's time zone, and what the store is
    STORE/data/shards.json       into how many shards residents are spread; absent in a data set made elsewhere

Events are a set: one that is already there is not added again, so that repeating an ingest changes nothing. An append
becomes visible as a whole, by renaming a folder; killed before that, nothing has happened, and killed between the two
renames, the next opening finishes it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds
from numpy.typing import NDArray

from features.errors import WeibingError
from features.times import zone
from features.vocabulary import builtin

T = TypeVar("T")

SCHEMA: dict[str, pl.DataType] = {
    "subject_id": pl.Int64(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
    "text_value": pl.String(),
    "unit": pl.String(),
}
ORDER = ["subject_id", "time", "code", "unit", "numeric_value", "text_value"]

SHARDS = Path("data", "shards.json")
RESIDENTS_PER_SHARD = 20_000
# Small enough that one resident is a short read, large enough that a shard is a fast one.
ROWS_PER_GROUP = 50_000
# About a hundred bytes an event while a run is sorted: 200 MB.
EVENTS_PER_RUN = 1_000_000


@dataclass(frozen=True)
class Appended:
    """What an append did: events written, events that were there already, residents new and known."""

    events_new: int
    events_duplicate: int
    residents_new: int
    residents_known: int


def normalised(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events with the store's columns and types; extra columns pass through behind them.

    Absent optional columns become nulls, and a number that is not one becomes null.
    """
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in events.columns]
    extra = [name for name in events.columns if name not in SCHEMA]
    return (
        events.with_columns(missing)
        .select(*(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()), *extra)
        .with_columns(pl.col("numeric_value").fill_nan(None))
    )


def canonical(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events as a set in the store's order: by resident and time, ties by code, unit and value."""
    texts = [name for name in ("code", "unit") if name in events.columns]
    # As numbers in the order of their texts, codes take a fraction of the memory while they are sorted.
    numbered = events.with_columns(
        events[name].cast(pl.Enum(events[name].drop_nulls().unique().sort())) for name in texts
    )
    extra = sorted(set(events.columns) - set(ORDER))
    in_order = numbered.sort(ORDER + extra)
    repeated = pl.all_horizontal(pl.all().eq_missing(pl.all().shift()))
    first = pl.int_range(pl.len()) == 0
    return in_order.filter(first | ~repeated).with_columns(pl.col(texts).cast(pl.String))


def resident_hash(subject_id: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a stable 64-bit hash of each resident, shape as given (splitmix64, Steele et al. 2014)."""
    x = subject_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class _Run:
    """Events on disk in the order of their residents' hashes; mapped only while a shard is read."""

    path: Path

    @classmethod
    def write(cls, events: pl.DataFrame, path: Path) -> "_Run":
        """Sort events by hash and write them."""
        hashes = resident_hash(events["subject_id"].to_numpy())
        order = np.argsort(hashes, kind="stable")
        events[order].write_ipc(path.with_suffix(".arrow"), compression="uncompressed")
        np.save(path.with_suffix(".npy"), hashes[order])
        return cls(path)

    def shard(self, number: int, bits: int) -> pl.DataFrame:
        """Return the events of one of ``2 ** bits`` shards."""
        hashes = np.load(self.path.with_suffix(".npy"), mmap_mode="r")
        first, last = number << (64 - bits), ((number + 1) << (64 - bits)) - 1
        start = int(np.searchsorted(hashes, np.uint64(first)))
        stop = int(np.searchsorted(hashes, np.uint64(last), side="right"))
        with pa.memory_map(str(self.path.with_suffix(".arrow"))) as mapped:
            events = pa.ipc.open_file(mapped).read_all().slice(start, stop - start)
            return normalised(pl.DataFrame(events)).rechunk()


@dataclass(frozen=True)
class EventStore:
    """All events of a county, on disk."""

    path: Path
    timezone: str = "UTC"
    name: str = ""
    description: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> "EventStore":
        """Open a store: ours, or any data set in the MEDS format.

        Raises
        ------
        WeibingError
            If there is no store at that path.
        """
        path = Path(path)
        _require_store(path)
        own = _read_json(path / "metadata" / "weibing.json")
        described = _read_json(path / meds.dataset_metadata_filepath)
        return cls(
            path,
            timezone=own.get("timezone", "UTC"),
            name=described.get("dataset_name", path.name),
            description=own.get("description", {}),
        )

    @classmethod
    def create(
        cls, path: str | Path, *, timezone: str = "UTC", name: str = "", description: dict[str, Any] | None = None
    ) -> "EventStore":
        """Open a store, or lay out an empty one with the county's time zone.

        `description` is kept with the store: a synthetic county says there that it is one.

        Raises
        ------
        WeibingError
            If there is no such zone, or a store is there and its zone is another one.
        """
        path = Path(path)
        zone(timezone)
        if not _is_store(path):
            cls(path, timezone, name or path.name, description or {})._lay_out()
        store = cls.open(path)
        if store.shard_bits is not None and store.timezone != timezone:
            raise WeibingError(f"The store {path} is in the time zone {store.timezone}, not {timezone}.")
        return store

    @property
    def shard_bits(self) -> int | None:
        """Residents are spread over ``2 ** shard_bits`` shards; None in a data set made elsewhere.

        Read anew each time: an append may change it, in this process or another.
        """
        return _settled(self.path, lambda: _shard_bits(self.path))

    @property
    def shards(self) -> list[Path]:
        """The shards' files, in order of name."""
        return _settled(self.path, lambda: sorted((self.path / "data").rglob("*.parquet")))

    def read(self, shard: Path) -> pl.DataFrame:
        """Read all events of a shard, sorted by resident and time."""
        return normalised(pl.read_parquet(shard))

    def resident(self, subject_id: int) -> pl.DataFrame:
        """Read one resident's events, without the shard's other residents; no rows where the resident is unknown."""
        return _settled(self.path, lambda: self._resident(subject_id))

    def residents(self) -> NDArray[np.int64]:
        """Return every resident's id, ascending, shape (residents,)."""
        parts = [pl.scan_parquet(s).select("subject_id").unique().collect()["subject_id"] for s in self.shards]
        return np.sort(np.concatenate([p.to_numpy() for p in parts])) if parts else np.empty(0, np.int64)

    def append(self, frames: Iterable[pl.DataFrame]) -> Appended:
        """Add events to the store, all of them or, if anything goes wrong before the end, none.

        Memory stays bounded however many events come: they are sorted by shard in runs on disk and merged one shard
        at a time.

        Parameters
        ----------
        frames : events with at least `subject_id`, `time` and `code`
            In any order. Extra columns pass through.

        Raises
        ------
        WeibingError
            If the store was made elsewhere, or another append is under way.
        ValueError
            If an event bears no resident or no code.
        """
        if self.shard_bits is None:
            raise WeibingError(f"{self.path} was not made by Weibing. Take it in with: weibing ingest meds")
        with _only_one_writer(self.path), _scratch(self.path) as scratch:
            bits_before = int(_read_json(self.path / SHARDS)["shard_bits"])
            runs, arriving = _write_runs(frames, scratch)
            known = self.residents()
            total = len(known) + len(np.setdiff1d(arriving, known, assume_unique=True))
            bits = max(bits_before, _bits_for(total))
            written, duplicate = self._merge(runs, bits_before, bits, scratch / "data")
            _write_json(scratch / SHARDS, {"shard_bits": bits})
            _swap(self.path, scratch / "data")
            self._describe(self.shards)
        return Appended(written, duplicate, total - len(known), len(arriving) - (total - len(known)))

    def _lay_out(self) -> None:
        """Make an empty store; it is there when its data folder is, which comes last."""
        (self.path / "metadata").mkdir(parents=True, exist_ok=True)
        with _only_one_writer(self.path), _scratch(self.path) as scratch:
            self._describe([])
            (scratch / "data").mkdir()
            _write_json(scratch / SHARDS, {"shard_bits": 0})
            (scratch / "data").rename(self.path / "data")

    def _resident(self, subject_id: int) -> pl.DataFrame:
        bits = _shard_bits(self.path)
        for shard in self.shards if bits is None else self._shards_of(subject_id, bits):
            events = pl.scan_parquet(shard).filter(pl.col("subject_id") == subject_id).collect()
            if len(events):
                return normalised(events)
        return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))

    def _shards_of(self, subject_id: int, bits: int) -> list[Path]:
        number = _shard_number(resident_hash(np.array([subject_id])), bits)[0]
        path = self.path / "data" / _shard_name(int(number))
        return [path] if path.exists() else []

    def _merge(self, runs: list[_Run], bits_before: int, bits: int, target: Path) -> tuple[int, int]:
        target.mkdir()
        written = duplicate = 0
        for number in range(1 << bits):
            arriving = [part for run in runs if len(part := run.shard(number, bits))]
            if not arriving and bits == bits_before:
                _link(self.path / "data" / _shard_name(number), target)
                continue
            present = self._present(number, bits_before, bits)
            merged = canonical(pl.concat([present, *arriving], how="diagonal_relaxed"))
            if len(merged):
                _write_shard(merged, target / _shard_name(number))
            written += len(merged) - len(present)
            duplicate += len(present) + sum(map(len, arriving)) - len(merged)
        return written, duplicate

    def _present(self, number: int, bits_before: int, bits: int) -> pl.DataFrame:
        """Read the events that are in the store already of a shard as it will be numbered with `bits`."""
        path = self.path / "data" / _shard_name(number >> (bits - bits_before))
        if not path.exists():
            return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))
        events = self.read(path)
        if bits == bits_before:
            return events
        return events.filter(_shard_number(resident_hash(events["subject_id"].to_numpy()), bits) == number)

    def _describe(self, shards: list[Path]) -> None:
        folder = self.path / "metadata"
        _write_json(folder / "weibing.json", {"timezone": self.timezone, "description": self.description})
        dataset = {
            "dataset_name": self.name,
            "etl_name": "weibing",
            "meds_version": version("meds"),
            "code_modifier_columns": ["unit"],
        }
        _write_json(self.path / meds.dataset_metadata_filepath, dataset)
        codes = meds.CodeMetadataSchema.align(_codes(shards).to_arrow())
        pq.write_table(codes, self.path / meds.code_metadata_filepath)


def _codes(shards: list[Path]) -> pl.DataFrame:
    found = [pl.scan_parquet(shard).select("code").unique().collect()["code"].to_list() for shard in shards]
    codes = sorted({code for part in found for code in part})
    vocabulary = builtin()
    labels = ["; ".join(vocabulary.concepts[m.concept].label_en for m in vocabulary.meanings(c)) or None for c in codes]
    parents = pl.Series("parent_codes", [None] * len(codes), pl.List(pl.String))
    described = pl.Series("description", labels, pl.String)
    return pl.DataFrame([pl.Series("code", codes, pl.String), described, parents])


def _shard_bits(path: Path) -> int | None:
    return _read_json(path / SHARDS).get("shard_bits")


def _bits_for(residents: int) -> int:
    return max(0, round(np.log2(residents / RESIDENTS_PER_SHARD))) if residents else 0


def _shard_number(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - bits) if bits else np.zeros_like(hashes)


def _shard_name(number: int) -> str:
    return f"{number:04d}.parquet"


def _write_runs(frames: Iterable[pl.DataFrame], scratch: Path) -> tuple[list[_Run], NDArray[np.int64]]:
    """Sort the events by hash in runs on disk; return the runs (mapped, not loaded) and the residents, ascending."""
    runs: list[_Run] = []
    residents = np.empty(0, np.int64)
    for number, batch in enumerate(_batched(frames)):
        if batch["subject_id"].null_count() or batch["code"].null_count():
            raise ValueError("An event bears no resident or no code.")
        runs.append(_Run.write(batch, scratch / f"run{number}"))
        residents = np.union1d(residents, batch["subject_id"].to_numpy())
    return runs, residents


def _batched(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        waiting.append(normalised(frame))
        rows += len(frame)
        if rows >= EVENTS_PER_RUN:
            yield pl.concat(waiting, how="diagonal_relaxed")
            waiting, rows = [], 0
    if rows:
        yield pl.concat(waiting, how="diagonal_relaxed")


def _write_shard(events: pl.DataFrame, path: Path) -> None:
    # Polars would write codes with 64-bit offsets, which is not the type that MEDS demands.
    table = meds.DataSchema.align(events.to_arrow())
    pq.write_table(table, path, compression="lz4", row_group_size=ROWS_PER_GROUP)


def _link(shard: Path, folder: Path) -> None:
    if shard.exists():
        os.link(shard, folder / shard.name)


def _swap(path: Path, new: Path) -> None:
    """Put the new data folder in the place of the old one."""
    ready, old = path / "data.ready", path / "data.old"
    new.rename(ready)
    (path / "data").rename(old)
    ready.rename(path / "data")
    shutil.rmtree(old)


def _finish_interrupted_swap(path: Path) -> None:
    """Finish a swap that was killed half-way; `data.ready` exists only when it is complete."""
    ready = path / "data.ready"
    if ready.is_dir() and not (path / "data").is_dir():
        ready.rename(path / "data")
    for left in (ready, path / "data.old", *path.glob(".append-*")):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _only_one_writer(path: Path) -> Iterator[None]:
    """Hold the store's lock; what a killed writer left is finished or cleared first."""
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeibingError(f"Another ingest is writing to {path}. Wait until it has ended.") from error
        _finish_interrupted_swap(path)
        yield


def _is_store(path: Path) -> bool:
    """Say whether a store is at a path.

    Where its data folder is being renamed, wait for the writer, or finish in the place of one that was killed.
    """
    if not (path / "data").is_dir() and (path / ".lock").exists():
        with (path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _finish_interrupted_swap(path)
    return (path / "data").is_dir()


def _require_store(path: Path) -> None:
    if not _is_store(path):
        raise WeibingError(f"There is no event store at {path}. Make one with: weibing ingest … {path}")


def _settled(path: Path, read: Callable[[], T]) -> T:
    """Return what was read of a store's data folder, read again where an append put another in its place meanwhile."""
    while True:
        _require_store(path)
        before = _generation(path)
        try:
            found = read()
        except (OSError, pl.exceptions.PolarsError):
            if before is not None and before == _generation(path):
                raise
        else:
            if before is not None and before == _generation(path):
                return found


def _generation(path: Path) -> tuple[int, int] | None:
    """Return what tells one data folder from the next, or None while there is none."""
    try:
        folder = (path / "data").stat()
    except FileNotFoundError:
        return None
    return folder.st_ino, folder.st_mtime_ns


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Give a folder beside the data, on the same file system, and remove it afterwards."""
    folder = Path(mkdtemp(prefix=".append-", dir=path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except ValueError as error:
        raise WeibingError(f"{path} is not JSON in UTF-8: {error}. Restore it, or ingest into a new store.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
