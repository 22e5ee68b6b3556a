"""One synthetic county for the tests that ask it something."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.events import EventStore
from features.sources.county import County, simulate
from features.sources.county.period import DAYS_A_YEAR, day_of


@dataclass(frozen=True)
class Records:
    """A county as it was written: events and true risks with their day, and a row per resident."""

    store: EventStore
    county: County
    events: pl.DataFrame
    truth: pl.DataFrame
    residents: pl.DataFrame

    def first(self, pattern: str) -> pl.DataFrame:
        """The first day on which each resident has a code that matches."""
        found = self.events.filter(pl.col("code").str.contains(pattern))
        return found.group_by("subject_id").agg(first=pl.col("day").min())

    def aged(self, year: int, low: float) -> pl.DataFrame:
        """The residents of an age or above who are observed on the first day of a year."""
        day = new_year(year)
        there = (pl.col("born") <= day) & (pl.col("end") >= day)
        return self.residents.filter(there & ((day - pl.col("born")) / DAYS_A_YEAR >= low))


def new_year(year: int) -> int:
    """Return the first of January as days since 1970."""
    return day_of(date(year, 1, 1))


def local_day(time: str) -> pl.Expr:
    """Return the day in Shanghai of a time in UTC, as days since 1970."""
    return (pl.col(time) + timedelta(hours=8)).dt.date().cast(pl.Int64)


def read(path: Path, county: County) -> Records:
    """Read a county."""
    store = EventStore.open(path)
    events = pl.concat([store.read(shard) for shard in store.shards]).with_columns(day=local_day("time"))
    truth = pl.read_parquet(path / "truth.parquet").with_columns(day=local_day("index_time"))
    end = events.filter(pl.col("code").is_in(["MEDS_DEATH", "OBSERVATION_END"]))
    residents = events.filter(pl.col("code") == "MEDS_BIRTH").select("subject_id", born="day")
    residents = residents.join(end.group_by("subject_id").agg(end=pl.col("day").min()), on="subject_id")
    died = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", death="day")
    residents = residents.join(died, on="subject_id", how="left")
    hidden = pl.read_parquet(path / "hidden.parquet").with_columns(pl.col(pl.Date).cast(pl.Int32).cast(pl.Int64))
    return Records(store, county, events, truth, residents.join(hidden, on="subject_id"))


@pytest.fixture(scope="package")
def records(tmp_path_factory) -> Records:
    """Thirty thousand residents over eight years, as `weibing simulate` makes them."""
    path = tmp_path_factory.mktemp("county") / "store"
    return read(path, simulate(path, residents=30_000, years=8, seed=0))
