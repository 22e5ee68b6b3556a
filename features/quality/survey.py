"""What every check sees: how far the records go, and one shard of them at a time, with what it says in concepts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from features.cohort import Target
from features.errors import WeibingError
from features.events import SCHEMA, EventStore
from features.quality.fault import Fault
from features.sources.report import BIRTH, DEATH, OBSERVATION_END
from features.times import instant, standard_offset
from features.translation import Translator
from features.vocabulary import Vocabulary, builtin

TOWNSHIP = "township"
FRAMES = (BIRTH, DEATH, OBSERVATION_END)
# More places than this are no townships; the smallest are left together, without a name.
MOST_TOWNSHIPS = 200
# About a quarter of a kilobyte each while they are looked at.
EVENTS_AT_A_TIME = 1_000_000

MOMENT = timedelta(microseconds=1)

Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Survey:
    """How far the records go, and by what they are judged.

    Where a day `cuts` the records off, events at `end` or later are not looked at. `townships` are the names that
    residents' records give.
    """

    store: EventStore
    vocabulary: Vocabulary
    start: datetime
    end: datetime
    townships: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    cuts: bool = False

    @property
    def offset(self) -> timedelta:
        """How far the county's standard time is ahead of UTC."""
        return timedelta(microseconds=standard_offset(self.store.timezone))

    @property
    def relative(self) -> bool:
        """Whether times are counted from a day of each resident, so that no calendar holds for all."""
        return bool(self.store.description.get("relative_times"))

    @property
    def first_day(self) -> date:
        """The local day of the first event."""
        return (self.start + self.offset).date()

    @property
    def last_day(self) -> date:
        """The last local day that is looked at."""
        return (self.end + self.offset - MOMENT).date()

    @classmethod
    def of(
        cls, store: EventStore, targets: tuple[Target, ...], at: str | None = None, vocabulary: Vocabulary | None = None
    ) -> "Survey":
        """Look how far the records of a store go, up to the day `at` (not included) or to their end.

        Raises
        ------
        WeibingError
            If there are no dated events, or `at` is not a date.
        """
        known = vocabulary or builtin()
        end = instant(at, store.timezone) if at else None
        facts = [_extent(shard, _codes_of_townships(known), end) for shard in store.shards]
        dated = pl.concat([extent for extent, _ in facts]) if facts else pl.DataFrame({"start": [None], "end": [None]})
        start, last = dated["start"].min(), dated["end"].max()
        if not isinstance(start, datetime) or not isinstance(last, datetime):
            before = f" before {at}" if at else ""
            raise WeibingError(f"The event store {store.place} holds no dated events{before}. Ingest records first.")
        names = pl.concat([places for _, places in facts]).group_by("name").agg(pl.col("residents").sum())
        largest = names.sort(["residents", "name"], descending=[True, False]).head(MOST_TOWNSHIPS)["name"]
        return cls(store, known, start, end or last, tuple(largest.sort()), targets, cuts=at is not None)

    def shards(self) -> "Iterator[Shard]":
        """Yield the records of the store, shard by shard; a large shard in parts, so that memory stays bounded."""
        concepts = {name for name, concept in self.vocabulary.concepts.items() if concept.kind != "place"}
        translator = Translator(concepts, self.vocabulary, self.store.timezone)
        for path in self.store.shards:
            for part in _parts(self.store.read(path).select(list(SCHEMA))):
                yield self._shard(part, translator)

    def _shard(self, events: pl.DataFrame, translator: Translator) -> "Shard":
        before = pl.col("time").is_null() | (pl.col("time") < self.end)
        recorded = events.filter(before) if self.cuts else events
        usable = translator.frame(recorded).with_columns(day=self.day())
        residents = self._residents(recorded, usable)
        place = residents.select("subject_id", TOWNSHIP)
        return Shard(
            recorded.join(place, on="subject_id", how="left", maintain_order="left"),
            usable.join(place, on="subject_id", how="left", maintain_order="left"),
            residents,
        )

    def day(self) -> pl.Expr:
        """The local day of a time."""
        return (pl.col("time") + self.offset).dt.date()

    def _residents(self, recorded: pl.DataFrame, usable: pl.DataFrame) -> pl.DataFrame:
        records = recorded.filter(~pl.col("code").is_in(FRAMES)).group_by("subject_id").agg(begin=pl.col("time").min())
        parts = [
            recorded.select("subject_id").unique(maintain_order=True),
            self._places(recorded),
            records,
            _first(usable, "age", "birth"),
            _first(usable, "death", "death"),
            _first(usable, "observation_end", "left"),
        ]
        joined = reduce(lambda left, right: left.join(right, on="subject_id", how="left"), parts)
        last = pl.lit(self.end - MOMENT).cast(pl.Datetime("us"))
        return joined.with_columns(ends=pl.min_horizontal("death", "left", last)).with_columns(
            first_year=(pl.col("begin") + self.offset).dt.year(), last_year=(pl.col("ends") + self.offset).dt.year()
        )

    def _places(self, recorded: pl.DataFrame) -> pl.DataFrame:
        """Return the township that is told last of each resident."""
        told = recorded.filter(pl.col("code").is_in(_codes_of_townships(self.vocabulary)))
        named = told.filter(pl.col("text_value").is_in(self.townships)).sort("time", maintain_order=True)
        last = named.group_by("subject_id").agg(pl.col("text_value").last().alias(TOWNSHIP))
        return last.with_columns(pl.col(TOWNSHIP).cast(pl.Enum(self.townships)))


@dataclass(frozen=True)
class Shard:
    """The records of some residents: of a shard of the store, or of a part of one.

    `recorded` are the events as they came, `usable` what they say in concepts, with the local `day`; both with the
    resident's `township`. `residents` has one row each: when the records `begin`, `birth`, `death`, when the
    observation `ends`, and the first and last year in between.
    """

    recorded: pl.DataFrame
    usable: pl.DataFrame
    residents: pl.DataFrame


class Check(Protocol):
    """One kind of question to the records: sees every shard once, then says what it found."""

    def look(self, shard: Shard) -> None:
        """Count what matters in a shard."""

    def tables(self) -> Tables:
        """Return what was counted."""

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong."""


class Counts:
    """Counts by keys, added up over the shards."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self._parts: list[pl.DataFrame] = []

    def add(self, counted: pl.DataFrame) -> None:
        """Add the counts of a shard: its other columns are summed, but for a `last` day, of which the latest counts."""
        self._parts.append(counted)
        if len(self._parts) > 1:
            self._parts = [self._summed()]

    def total(self) -> pl.DataFrame:
        """Return the counts of all shards, in the order of the keys."""
        return self._summed().sort(self.keys)

    def _summed(self) -> pl.DataFrame:
        every = pl.concat(self._parts)
        others = [name for name in every.columns if name not in self.keys]
        summed = [pl.col(name).max() if name == "last" else pl.col(name).sum() for name in others]
        return every.group_by(self.keys).agg(summed) if self.keys else every.select(summed)


def _parts(events: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the events of a shard, whole residents at a time."""
    subject = events["subject_id"].to_numpy()
    begins = np.flatnonzero(np.diff(subject)) + 1
    cuts = np.searchsorted(begins, np.arange(EVENTS_AT_A_TIME, len(events), EVENTS_AT_A_TIME))
    edges = [0, *np.unique(begins[cuts[cuts < len(begins)]]).tolist(), len(events)]
    for start, stop in pairwise(edges):
        yield events.slice(start, stop - start)


def _first(usable: pl.DataFrame, concept: str, name: str) -> pl.DataFrame:
    return usable.filter(pl.col("concept") == concept).group_by("subject_id").agg(pl.col("time").min().alias(name))


def _codes_of_townships(vocabulary: Vocabulary) -> list[str]:
    codes = [code for code, meanings in vocabulary.codes.items() if any(m.concept == TOWNSHIP for m in meanings)]
    return [TOWNSHIP, *codes]


def _extent(shard: Path, codes: list[str], end: datetime | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the first and last time of a shard's events, births aside, and how many residents name each township."""
    events = pl.scan_parquet(shard)
    time, text = pl.col("time").cast(pl.Datetime("us")), pl.col("text_value").cast(pl.String)
    records = events.filter(pl.col("code") != BIRTH, time < end if end else pl.col("time").is_not_null())
    # Observation ends before the moment that is told, and a record is part of what is looked at.
    is_end = pl.col("code") == OBSERVATION_END
    until = pl.max_horizontal(time.filter(~is_end).max() + MOMENT, time.filter(is_end).max())
    extent = records.select(start=time.filter(~is_end).min(), end=until)
    if "text_value" not in events.collect_schema().names():
        events = events.with_columns(text_value=pl.lit(None, pl.String))
    told = events.filter(pl.col("code").is_in(codes), pl.col("text_value").is_not_null())
    named = told.group_by(name=text).agg(residents=pl.col("subject_id").n_unique().cast(pl.Int64))
    return extent.collect(), named.collect()
