"""Which record told which event, so that a corrected record takes the place of its earlier version.

A record is what its source calls one: a FHIR resource, a row of an OMOP table, a form that was filled in. Events come
with the identity of their record; all that the record told before, and does not tell now, goes. An event that several
records tell is in the store once, and stays for as long as one of them tells it. Beside each shard, ``0000.records``
holds the pairs of event and record; ``withdrawn`` the records that had a version and tell nothing any more.

Of two versions, the one with the later time counts; where one of them has none, that which was told later does.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Columns of a frame of events that is being taken in, and in no file of the MEDS format. RECORD is the identity, and
# null where a source has none; VERSION the time since which it says what it says, or null; TELLING tells several
# tellings of a record in one append from one another, and the later from the earlier. A row without a code announces a
# record, which need tell nothing.
RECORD, VERSION, TELLING = "weibing.record", "weibing.version", "weibing.telling"
OF_A_RECORD = (RECORD, VERSION, TELLING)
ROW = "row"
PAIRS: dict[str, pl.DataType] = {ROW: pl.Int32(), RECORD: pl.Int64(), VERSION: pl.Int64()}

NONE = -1
WITHOUT_VERSION = np.iinfo(np.int64).min
WITHDRAWN = "withdrawn"

# Of 63: so many partitions are settled one after the other, so that memory is bounded.
PARTITION_BITS = 6
_NEW = "weibing.new"

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


def identity(source: str, parts: Iterable[str], key: bytes = b"") -> int:
    """Return a stable identity of a record: 63 bits of BLAKE2b, keyed where there is a secret.

    Parameters
    ----------
    source : the system that the record comes from
    parts : what it calls the record, from the general to the particular
    key : without which nobody can try out what the identity was made of
    """
    written = "\0".join((source, *parts)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(written, digest_size=8, key=key[:64]).digest(), "big") >> 1


def identities(source: str, table: str, cells: Sequence[pl.Series], key: bytes = b"") -> pl.Series:
    """Return the identities of rows that are named by some of their cells, null where all of these are empty.

    As :func:`identity` of the cells, for many rows.
    """
    begun = hashlib.blake2b(f"{source}\0{table}\0".encode(), digest_size=8, key=key[:64])
    columns = [cell.alias(str(number)).fill_null("") for number, cell in enumerate(cells)]
    written = pl.select(pl.concat_str(columns, separator="\0")).to_series()
    empty = pl.select(pl.all_horizontal([cell.is_null().alias(str(n)) for n, cell in enumerate(cells)])).to_series()
    return pl.Series([_hashed(begun, row) for row in written], dtype=pl.Int64).set(empty, None)


def _hashed(begun: "hashlib.blake2b", rest: str) -> int:
    hashed = begun.copy()
    hashed.update(rest.encode())
    return int.from_bytes(hashed.digest(), "big") >> 1


def numbered(source: str, table: str, numbers: pl.Series) -> pl.Series:
    """Return the identities of records that their source numbers, null where it does not."""
    salt = np.uint64(identity(source, (table,)))
    known = numbers.is_not_null()
    ids = scrambled(scrambled(numbers.fill_null(0).to_numpy().astype(np.int64)) ^ salt) >> np.uint64(1)
    return pl.Series(ids.astype(np.int64)).set(~known, None)


def scrambled(numbers: NDArray[np.int64] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a stable 64-bit hash of each number, shape as given (splitmix64, Steele et al. 2014)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Found(NamedTuple):
    """Some records looked up: which of them are told, and where they stand (anywhere if they are not)."""

    told: Mask
    at: Ids


@dataclass(frozen=True)
class Told:
    """The records of one append, each with the telling that counts; ascending by record.

    Parameters
    ----------
    records, versions, tellings : shape (records,)
    refused : whether the store has a later version
    known, changed, telling : whether the store knew the record; whether it tells otherwise now; whether it tells
        anything
    """

    records: Ids
    versions: Ids
    tellings: Ids
    refused: Mask
    known: Mask
    changed: Mask
    telling: Mask

    @classmethod
    def of(cls, records: Ids, versions: Ids, tellings: Ids) -> "Told":
        """Begin with nothing known of the store."""
        return cls(records, versions, tellings, *(np.zeros(len(records), bool) for _ in range(4)))

    def __len__(self) -> int:
        return len(self.records)

    def find(self, records: Ids) -> Found:
        """Look records up."""
        at = np.zeros(len(records), np.int64)
        if not len(self):
            return Found(np.zeros(len(records), bool), at)
        # Looked up in their order, since a look-up at random waits for memory: ten times as fast, sorting included.
        order = np.argsort(records)
        at[order] = np.searchsorted(self.records, records[order])
        at = at.clip(max=len(self) - 1)
        return Found(self.records[at] == records, at)

    def meet(self, pairs: pl.DataFrame) -> bool:
        """Learn what the store knows of the records; return whether any of it will be replaced."""
        found, at = self.find(pairs[RECORD].to_numpy())
        self.known[at[found]] = True
        versions = self.versions[at]
        before = pairs[VERSION].fill_null(WITHOUT_VERSION).to_numpy()
        newer = found & (versions != WITHOUT_VERSION) & (before > versions)
        self.refused[at[newer]] = True
        return bool((found & ~newer).any())

    def replaced(self, records: Found) -> Mask:
        """Return which of some records are told anew, so that what they told before goes."""
        return np.asarray(records.told & ~self.refused[records.at]) if len(self) else records.told

    def counting(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return those of the arriving events that are of the telling that counts, with its version."""
        if not len(self):
            return events
        found, at = self.find(events[RECORD].fill_null(NONE).to_numpy())
        ours = ~found | ((self.tellings[at] == events[TELLING].fill_null(0).to_numpy()) & ~self.refused[at])
        version = pl.Series(VERSION, np.where(found, self.versions[at], WITHOUT_VERSION))
        return events.with_columns(version).filter(pl.Series(ours))

    def learn(self, records: Found, *, before: Mask, now: Mask) -> None:
        """Note which records told an event before, and tell it now."""
        at, differs, now = records.at[records.told], (before != now)[records.told], now[records.told]
        open_to_change = ~self.refused[at]
        self.changed[at[differs & open_to_change]] = True
        self.telling[at[now & open_to_change]] = True

    @property
    def replaced_records(self) -> int:
        """How many records that the store knew tell otherwise now."""
        return int((self.known & self.changed).sum())

    def withdrawn(self) -> pl.DataFrame:
        """Return the records that tell nothing, with their versions; those without a version need not be remembered."""
        silent = ~self.telling & ~self.refused & (self.versions != WITHOUT_VERSION)
        return pl.DataFrame({RECORD: self.records[silent], VERSION: self.versions[silent]})


@dataclass
class Announced:
    """The records of an append while its frames come: on disk, in partitions by record."""

    folder: Path
    _any: bool = field(default=False)

    def add(self, frame: pl.DataFrame) -> None:
        """Remember the records of a frame."""
        if RECORD not in frame.columns:
            return
        rows = (
            announcements(frame)
            .select(RECORD, pl.col(VERSION).fill_null(WITHOUT_VERSION), pl.col(TELLING).fill_null(0))
            .to_numpy()
        )
        partition = rows[:, 0] >> (63 - PARTITION_BITS)
        for number in np.unique(partition):
            self._any = True
            with self._path(int(number)).open("ab") as file:
                file.write(np.ascontiguousarray(rows[partition == number]).tobytes())

    def settled(self) -> Told:
        """Return the telling of each record that counts: the latest version, and of that the last."""
        if not self._any:
            return Told.of(*(np.empty(0, np.int64) for _ in range(3)))
        outs = [self.folder / f"told{column}" for column in range(3)]
        for number in range(1 << PARTITION_BITS):
            if (path := self._path(number)).exists():
                latest = _latest(np.fromfile(path, np.int64).reshape(-1, 3))
                path.unlink()
                for column, out in enumerate(outs):
                    with out.open("ab") as file:
                        file.write(np.ascontiguousarray(latest[:, column]).tobytes())
        return Told.of(*(np.memmap(out, np.int64, "r") for out in outs))

    def _path(self, partition: int) -> Path:
        return self.folder / f"announced{partition}"


def _latest(rows: Ids) -> Ids:
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    last = np.append(rows[1:, 0] != rows[:-1, 0], True)
    return np.asarray(rows[last])


class Merged(NamedTuple):
    """A shard after an append: its events, who told them, and how many events were new, went, or came too late."""

    events: pl.DataFrame
    pairs: pl.DataFrame
    new: int
    removed: int
    outdated: int


def merged(present: pl.DataFrame, arriving: pl.DataFrame, told: Told, order: Sequence[str]) -> Merged:
    """Return the events of a shard after an append, as a set in the store's order.

    Parameters
    ----------
    present : the events that are in the store; with RECORD and VERSION, once for each record that tells it
    arriving : those that come
    told : all records of the append; learns what becomes of them
    order : the columns of events, in the order in which they are sorted by them
    """
    coming = told.counting(_with_record(arriving))
    both = pl.concat([_marked(present, new=False), _marked(coming, new=True)], how="diagonal_relaxed")
    rows = in_order(both, [*order, *sorted(set(both.columns) - {*order, *OF_A_RECORD, _NEW}), RECORD, _NEW])
    facts = rows.drop(RECORD, VERSION, _NEW)
    fact_begins = begins(facts)
    record, new = rows[RECORD].to_numpy(), rows[_NEW].to_numpy()
    pair_begins = np.flatnonzero(fact_begins | (np.diff(record, prepend=NONE) != 0))
    had, has = (np.logical_or.reduceat(mask, pair_begins) if len(rows) else mask for mask in (~new, new))
    records = told.find(record[pair_begins])
    told.learn(records, before=had, now=has)
    stays = has | (had & ~told.replaced(records))
    groups = _Groups(np.flatnonzero(fact_begins), pair_begins, had, stays)
    return _folded(facts, rows, groups, len(arriving) - len(coming))


class _Groups(NamedTuple):
    """Rows grouped by event, and within these by record: where each begins.

    Of the latter, which had been told before and which stay.
    """

    fact_begins: NDArray[np.intp]
    pair_begins: NDArray[np.intp]
    had: Mask
    stays: Mask


def _folded(facts: pl.DataFrame, rows: pl.DataFrame, groups: _Groups, outdated: int) -> Merged:
    first = np.searchsorted(groups.pair_begins, groups.fact_begins)
    had, stays = (np.logical_or.reduceat(it, first) if len(first) else it for it in (groups.had, groups.stays))
    number = np.cumsum(stays) - 1
    fact_of_pair = np.searchsorted(groups.fact_begins, groups.pair_begins, side="right") - 1
    last = np.append(groups.pair_begins[1:], len(rows))[: len(groups.pair_begins)] - 1
    pairs = pl.DataFrame(
        {ROW: number[fact_of_pair].astype(np.int32), RECORD: rows[RECORD][last], VERSION: rows[VERSION][last]}
    ).filter(pl.Series(groups.stays), pl.col(RECORD) != NONE)
    return Merged(
        facts[groups.fact_begins[stays]],
        pairs.with_columns(pl.col(VERSION).replace(WITHOUT_VERSION, None)),
        int((stays & ~had).sum()),
        int((had & ~stays).sum()),
        outdated,
    )


def _marked(events: pl.DataFrame, *, new: bool) -> pl.DataFrame:
    record = (pl.col(RECORD).fill_null(NONE), pl.col(VERSION).fill_null(WITHOUT_VERSION))
    return _with_record(events).drop(TELLING, strict=False).with_columns(*record, pl.lit(new).alias(_NEW))


def _with_record(events: pl.DataFrame) -> pl.DataFrame:
    absent = [name for name in OF_A_RECORD if name not in events.columns]
    return events.with_columns(pl.lit(None, pl.Int64).alias(name) for name in absent)


def announcements(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a row without an event for each telling of a record in a frame."""
    return _with_record(frame).select(OF_A_RECORD).drop_nulls(RECORD).unique()


def latest_tellings(frame: pl.DataFrame, announced: pl.DataFrame) -> pl.DataFrame:
    """Return a frame without the events of records that it tells anew further on."""
    if announced[RECORD].n_unique() == len(announced):
        return frame
    last = announced.sort(VERSION, TELLING, nulls_last=False).unique(RECORD, keep="last", maintain_order=True)
    without = frame.filter(pl.col(RECORD).is_null())
    return pl.concat([without, frame.join(last.select(RECORD, TELLING), on=[RECORD, TELLING], how="semi")])


def record_of(events: pl.DataFrame) -> Ids:
    """Return the record of each event, NONE where it has none."""
    if RECORD not in events.columns:
        return np.full(len(events), NONE, np.int64)
    return events[RECORD].fill_null(NONE).to_numpy()


def in_order(events: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return events sorted by some columns; codes and units become Enums."""
    texts = [name for name in ("code", "unit") if name in events.columns]
    # As numbers in the order of their texts, codes take a fraction of the memory while they are sorted.
    numbered_texts = events.with_columns(
        events[name].cast(pl.Enum(events[name].drop_nulls().unique().sort())) for name in texts
    )
    return numbered_texts.sort(by)


def begins(events: pl.DataFrame) -> Mask:
    """Return where a row differs from the one before it."""
    repeated = events.select(pl.all_horizontal(pl.all().eq_missing(pl.all().shift()))).to_series()
    differs = ~repeated.to_numpy()
    differs[:1] = True
    return np.asarray(differs)


def told_by(events: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the events of a shard, once for each record that tells it; as they are where no record is known."""
    pairs = read_pairs(path)
    if not len(pairs):
        return events
    rows = events.with_row_index(ROW).with_columns(pl.col(ROW).cast(PAIRS[ROW]))
    return rows.join(pairs, on=ROW, how="left").drop(ROW)


def read_pairs(path: Path) -> pl.DataFrame:
    """Read which record told which row of a shard; nothing where no record is known."""
    return pl.read_ipc(path) if path.exists() else pl.DataFrame(schema=PAIRS)


def following(pairs: pl.DataFrame, stays: Mask) -> pl.DataFrame:
    """Return which record told which row of those that stay, numbered anew."""
    number = pl.Series(ROW, np.cumsum(stays) - 1, PAIRS[ROW])
    still = pairs.filter(pl.Series(stays).gather(pairs[ROW]))
    return still.with_columns(number.gather(still[ROW]))


def pairs_of(shard: Path) -> Path:
    """Return where the records of a shard are."""
    return shard.with_suffix(".records")
