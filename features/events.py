"""The event store: every dated fact of every resident, in the MEDS 0.4 format, sharded by resident.

    STORE/data/0000.parquet …    events, sorted by resident and time; all of a resident in one shard
    STORE/data/0000.records …    which record told which of them, where sources number their records: see records.py
    STORE/metadata/dataset.json  MEDS's own description
    STORE/metadata/codes.parquet the codes that occur
    STORE/metadata/weibing.json  the county's time zone, and what the store is
    STORE/data/shards.json       into how many shards residents are spread; absent in a data set made elsewhere
    STORE/data/erased.json       the numbers of residents who were erased: nothing of them is taken in again

Events are a set: one that is already there is not added again, so that repeating an ingest changes nothing; and where a
record comes again, what it tells now takes the place of what it told before. An append becomes visible as a whole, and
survives a kill at any point: see generation.py.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds
from numpy.typing import NDArray

from features.errors import WeibingError
from features.generation import has_data, held, only_one_writer, require_store, scratch, settled, swap, write_kept
from features.records import (
    RECORD,
    VERSION,
    WITHDRAWN,
    Announced,
    Merged,
    Told,
    begins,
    following,
    in_order,
    merged,
    pairs_of,
    read_pairs,
    scrambled,
    told_by,
)
from features.times import zone
from features.vocabulary import builtin

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
ERASED = "erased.json"
RESIDENTS_PER_SHARD = 20_000
# Small enough that one resident is a short read, large enough that a shard is a fast one.
ROWS_PER_GROUP = 50_000
# About a hundred bytes an event while a run is sorted: 200 MB.
EVENTS_PER_RUN = 1_000_000


@dataclass(frozen=True)
class Appended:
    """What an append did: events written, events that were there already, residents new and known.

    Of records: how many that the store knew tell otherwise now, how many events went with that, and how many of the
    events that came were of a version that is not the latest. `events_erased` were left out, as their residents were
    erased.
    """

    events_new: int
    events_duplicate: int
    residents_new: int
    residents_known: int
    records_replaced: int = 0
    events_removed: int = 0
    events_outdated: int = 0
    events_erased: int = 0


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
    rows = in_order(events, [*ORDER, *sorted(set(events.columns) - set(ORDER))])
    return _spelled_out(rows.filter(pl.Series(begins(rows))))


def resident_hash(subject_id: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a stable 64-bit hash of each resident, shape as given (splitmix64, Steele et al. 2014)."""
    return scrambled(subject_id)


def shard_of(subject_id: int, bits: int) -> str:
    """Return the name of the shard, among ``2 ** bits``, that holds a resident's events."""
    return _shard_name(int(_shard_number(resident_hash(np.array([subject_id])), bits)[0]))


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

    def remove(self) -> None:
        """Remove it from the disk."""
        for suffix in (".arrow", ".npy"):
            self.path.with_suffix(suffix).unlink()

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
    origin: Path | None = None

    @property
    def place(self) -> Path:
        """Where the store is, as people know it: of one that is held, the store it is a moment of."""
        return self.origin or self.path

    @classmethod
    def open(cls, path: str | Path) -> "EventStore":
        """Open a store: ours, or any data set in the MEDS format.

        Raises
        ------
        WeibingError
            If there is no store at that path.
        """
        path = Path(path)
        require_store(path)
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
        if not has_data(path):
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
        return settled(self.path, lambda: _shard_bits(self.path))

    @property
    def shards(self) -> list[Path]:
        """The shards' files, in order of name."""
        return settled(self.path, lambda: sorted((self.path / "data").rglob("*.parquet")))

    @property
    def state(self) -> str:
        """A fingerprint of the shards' names, sizes and times of change: another one means other records."""
        return settled(self.path, lambda: _state(self.path, self.timezone))

    def read(self, shard: Path) -> pl.DataFrame:
        """Read all events of a shard, sorted by resident and time."""
        return normalised(pl.read_parquet(shard))

    @property
    def erased(self) -> frozenset[int]:
        """The residents who were erased, of whom nothing is taken in."""
        return settled(self.path, lambda: _erased(self.path / "data"))

    def resident(self, subject_id: int) -> pl.DataFrame:
        """Read one resident's events, without the shard's other residents; no rows where the resident is unknown."""
        return settled(self.path, lambda: self._resident(subject_id))

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
        self._need_own()
        with only_one_writer(self.path), scratch(self.path) as folder:
            announced = Announced(folder)
            runs, arriving, erased = _write_runs(frames, folder, announced, _erased(self.path / "data"))
            known = self.residents()
            new = len(np.setdiff1d(arriving, known, assume_unique=True))
            bits = int(_read_json(self.path / SHARDS)["shard_bits"])
            merging = _Merging(
                self.path / "data",
                folder / "data",
                runs,
                announced.settled(),
                bits,
                max(bits, _bits_for(len(known) + new)),
            )
            done = merging.run()
            # Else the disk would be made to take them as well, though they are of no more use.
            for run in runs:
                run.remove()
            swap(self.path, folder / "data")
            self._describe(self.shards)
        return replace(done, residents_new=new, residents_known=len(arriving) - new, events_erased=erased)

    def erase(self, subject_id: int) -> int:
        """Remove all that the store holds of a resident, and take in nothing of the resident again; return how much.

        Sources tell the whole of their records again and again; without the second, the next ingest would undo the
        first. What stays is the number. A pass that holds the store (:meth:`held`) ends with what it holds. Killed at
        any point and run again, it ends where an undisturbed one ends.

        Returns
        -------
        How many events there were.

        Raises
        ------
        WeibingError
            If the store was made elsewhere, or somebody else writes to it.
        """
        self._need_own()
        with only_one_writer(self.path), scratch(self.path) as folder:
            removed = _copy_without(subject_id, self.path / "data", folder / "data")
            swap(self.path, folder / "data")
            self._describe(self.shards)
        return removed

    def readmit(self, subject_id: int) -> bool:
        """Take in records of a resident who was erased, from now on; return whether the resident had been.

        Raises
        ------
        WeibingError
            If the store was made elsewhere, or somebody else writes to it.
        """
        self._need_own()
        with only_one_writer(self.path):
            erased = _erased(self.path / "data")
            _write_erased(self.path / "data", erased - {subject_id})
        return subject_id in erased

    @contextmanager
    def held(self) -> Iterator["EventStore"]:
        """Give the store as it is at this moment, for a pass that takes longer than a look.

        Its files stay what they are, however often somebody appends meanwhile: the pass sees all of an append
        or none of it. Processes that are given its shards may read them until it ends.
        """
        if self.origin is not None or self.shard_bits is None:
            yield self
            return
        with held(self.path) as path:
            yield replace(self, path=path, origin=self.place)

    def _need_own(self) -> None:
        if self.shard_bits is None:
            raise WeibingError(f"{self.path} was not made by Weibing. Take it in with: weibing ingest meds")

    def _lay_out(self) -> None:
        """Make an empty store; it is there when its data folder is, which comes last."""
        (self.path / "metadata").mkdir(parents=True, exist_ok=True)
        with only_one_writer(self.path), scratch(self.path) as folder:
            self._describe([])
            (folder / "data").mkdir()
            _write_json(folder / SHARDS, {"shard_bits": 0})
            (folder / "data").rename(self.path / "data")

    def _resident(self, subject_id: int) -> pl.DataFrame:
        bits = _shard_bits(self.path)
        for shard in self.shards if bits is None else self._shards_of(subject_id, bits):
            events = pl.scan_parquet(shard).filter(pl.col("subject_id") == subject_id).collect()
            if len(events):
                return normalised(events)
        return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))

    def _shards_of(self, subject_id: int, bits: int) -> list[Path]:
        path = self.path / "data" / shard_of(subject_id, bits)
        return [path] if path.exists() else []

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


@dataclass(frozen=True)
class _Merging:
    """What arrives, and what is there, becoming the store's next data folder, shard by shard."""

    source: Path
    target: Path
    runs: list[_Run]
    told: Told
    bits_before: int
    bits: int

    def run(self) -> Appended:
        """Write the new folder; the residents are left to be counted by whoever knows them."""
        self.target.mkdir()
        touched = self._touched()
        counts = np.zeros(4, np.int64)
        for number in range(1 << self.bits):
            arriving = [part for run in self.runs if len(part := run.shard(number, self.bits))]
            if arriving or self.bits != self.bits_before or _shard_name(number) in touched:
                counts += self._merge(number, arriving)
            else:
                for path in (self.source / _shard_name(number), pairs_of(self.source / _shard_name(number))):
                    _link(path, self.target)
        self._write_withdrawn()
        _link(self.source / ERASED, self.target)
        _write_json(self.target / SHARDS.name, {"shard_bits": self.bits})
        new, duplicate, removed, outdated = counts.tolist()
        return Appended(new, duplicate, 0, 0, self.told.replaced_records, removed, outdated)

    def _touched(self) -> set[str]:
        """Return the shards in which records are replaced."""
        if not len(self.told):
            return set()
        self.told.meet(read_pairs(self.source / WITHDRAWN))
        return {shard.name for shard in self.source.glob("*.parquet") if self.told.meet(read_pairs(pairs_of(shard)))}

    def _merge(self, number: int, arriving: list[pl.DataFrame]) -> NDArray[np.int64]:
        """Write a shard; return how many events were new, told twice, removed, outdated."""
        present, coming = self._present(number), pl.concat([_no_events(), *arriving], how="diagonal_relaxed")
        result = self._merged(present, coming)
        if len(result.events):
            _write_shard(result.events, self.target / _shard_name(number))
        if len(result.pairs):
            result.pairs.write_ipc(pairs_of(self.target / _shard_name(number)), compression="lz4")
        return np.array(
            [result.new, len(coming) - result.outdated - result.new, result.removed, result.outdated], np.int64
        )

    def _merged(self, present: pl.DataFrame, coming: pl.DataFrame) -> Merged:
        if RECORD in present.columns or RECORD in coming.columns:
            return merged(present, coming, self.told, ORDER)
        events = canonical(pl.concat([present, coming], how="diagonal_relaxed"))
        return Merged(events, pl.DataFrame(), len(events) - len(present), 0, 0)

    def _present(self, number: int) -> pl.DataFrame:
        """Read what is in the store already of a shard as it will be numbered, with the records that tell it."""
        path = self.source / _shard_name(number >> (self.bits - self.bits_before))
        if not path.exists():
            return _no_events()
        events = told_by(normalised(pl.read_parquet(path)), pairs_of(path))
        if self.bits == self.bits_before:
            return events
        return events.filter(_shard_number(resident_hash(events["subject_id"].to_numpy()), self.bits) == number)

    def _write_withdrawn(self) -> None:
        """Keep in mind which records tell nothing any more, lest an earlier version of them comes back."""
        before = read_pairs(self.source / WITHDRAWN)
        anew = self.told.replaced(self.told.find(before[RECORD].to_numpy()))
        still = before.filter(pl.Series(~anew, dtype=pl.Boolean))
        silent = pl.concat([still.select(RECORD, VERSION), self.told.withdrawn()]).sort(RECORD)
        if len(silent):
            silent.write_ipc(self.target / WITHDRAWN, compression="lz4")


def _no_events() -> pl.DataFrame:
    return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))


def _spelled_out(events: pl.DataFrame) -> pl.DataFrame:
    """Return events whose codes are Enums with codes that are texts."""
    return events.with_columns(pl.col(pl.Enum).cast(pl.String))


def _codes(shards: list[Path]) -> pl.DataFrame:
    found = [pl.scan_parquet(shard).select("code").unique().collect()["code"].to_list() for shard in shards]
    codes = sorted({code for part in found for code in part})
    vocabulary = builtin()
    labels = ["; ".join(vocabulary.concepts[m.concept].label_en for m in vocabulary.meanings(c)) or None for c in codes]
    parents = pl.Series("parent_codes", [None] * len(codes), pl.List(pl.String))
    described = pl.Series("description", labels, pl.String)
    return pl.DataFrame([pl.Series("code", codes, pl.String), described, parents])


def _state(path: Path, timezone: str) -> str:
    told = [timezone]
    for shard in sorted((path / "data").rglob("*.parquet")):
        found = shard.stat()
        told.append(f"{shard.relative_to(path)} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _shard_bits(path: Path) -> int | None:
    return _read_json(path / SHARDS).get("shard_bits")


def _bits_for(residents: int) -> int:
    return max(0, round(np.log2(residents / RESIDENTS_PER_SHARD))) if residents else 0


def _shard_number(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - bits) if bits else np.zeros_like(hashes)


def _shard_name(number: int) -> str:
    return f"{number:04d}.parquet"


def _erased(folder: Path) -> frozenset[int]:
    return frozenset(_read_json(folder / ERASED).get("subject_ids", ()))


def _write_erased(folder: Path, subject_ids: frozenset[int]) -> None:
    _write_json(folder / ERASED, {"subject_ids": sorted(subject_ids)})


def _copy_without(subject_id: int, source: Path, target: Path) -> int:
    """Make a data folder of another, without a resident, who is noted as erased; return how many events went."""
    target.mkdir()
    whose = source / shard_of(subject_id, int(_read_json(source / SHARDS.name)["shard_bits"]))
    removed = _write_without(subject_id, whose, target / whose.name)
    for file in source.iterdir():
        if file not in (whose, pairs_of(whose), source / ERASED):
            _link(file, target)
    _write_erased(target, _erased(source) | {subject_id})
    return removed


def _write_without(subject_id: int, shard: Path, target: Path) -> int:
    """Write a shard without a resident, and which record told the rest; return how many events went."""
    if not shard.exists():
        return 0
    events = normalised(pl.read_parquet(shard))
    stays = events["subject_id"] != subject_id
    if stays.all():
        _link(shard, target.parent)
        _link(pairs_of(shard), target.parent)
        return 0
    pairs = following(read_pairs(pairs_of(shard)), stays.to_numpy())
    if stays.any():
        _write_shard(events.filter(stays), target)
    if len(pairs):
        pairs.write_ipc(pairs_of(target), compression="lz4")
    return int((~stays).sum())


def _write_runs(
    frames: Iterable[pl.DataFrame], folder: Path, announced: Announced, erased: frozenset[int]
) -> tuple[list[_Run], NDArray[np.int64], int]:
    """Sort the events by hash in runs on disk, without those of the erased.

    Returns
    -------
    runs : mapped, not loaded
    residents : ascending
    left_out : how many events of the erased came
    """
    runs: list[_Run] = []
    residents, left_out = np.empty(0, np.int64), 0
    for number, batch in enumerate(_batched(frames)):
        # Also a record of the erased is announced: it may have told of another before.
        announced.add(batch)
        told = _without_announcements(batch)
        events = told.filter(~pl.col("subject_id").is_in(sorted(erased))) if erased else told
        left_out += len(told) - len(events)
        runs.append(_Run.write(events, folder / f"run{number}"))
        residents = np.union1d(residents, events["subject_id"].to_numpy())
    return runs, residents, left_out


def _without_announcements(batch: pl.DataFrame) -> pl.DataFrame:
    if RECORD in batch.columns:
        batch = batch.drop(VERSION, strict=False).filter(pl.col(RECORD).is_null() | pl.col("code").is_not_null())
    if batch["subject_id"].null_count() or batch["code"].null_count():
        raise ValueError("An event bears no resident or no code.")
    return batch


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
    table = meds.DataSchema.align(_spelled_out(events).to_arrow())
    pq.write_table(table, path, compression="lz4", row_group_size=ROWS_PER_GROUP)


def _link(shard: Path, folder: Path) -> None:
    if shard.exists():
        (folder / shard.name).hardlink_to(shard)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except ValueError as error:
        raise WeibingError(f"{path} is not JSON in UTF-8: {error}. Restore it, or ingest into a new store.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_kept(path, json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n")
