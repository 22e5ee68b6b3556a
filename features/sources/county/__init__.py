"""A synthetic county: residents who live, fall ill, are examined and written down, with their true risks beside.

Nobody in it exists. What is recorded is drawn from hazards that depend on slow attributes of each resident
(`residents.py`, `hazards.py`), so the probability of every outcome is known exactly (`risk.py`) and a model can be
asked how much of it it recovers. The figures lie in the tables beside this file, most of them assumptions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.errors import WeibingError
from features.events import EventStore
from features.sources.county.course import live_through, past
from features.sources.county.hazards import Rates
from features.sources.county.ledger import EIGHT_HOURS
from features.sources.county.period import Period
from features.sources.county.records import records
from features.sources.county.residents import settle
from features.sources.county.risk import SCHEMA, true_risks
from features.sources.county.tables import fingerprint
from features.times import DAY, instant

ZONE = "Asia/Shanghai"
NAME = "synthetic county"
# A block is drawn as a whole from the seed and its number, so the first residents do not depend on how many follow.
BLOCK = 2_000


@dataclass(frozen=True)
class County:
    """A county that was simulated: how many residents and events, and from when until when in naive UTC."""

    residents: int
    events: int
    start: datetime
    end: datetime


def simulate(
    path: Path,
    *,
    residents: int = 20_000,
    years: int = 8,
    seed: int = 0,
    end: date = date(2025, 1, 1),
    progress: Callable[[str], None] | None = None,
) -> County:
    """Write a synthetic county into an event store, and the true risks into its `truth.parquet`.

    The same arguments give the same bytes.

    Parameters
    ----------
    path : where the store is made
    residents : everyone who lives there at some time, those born during the record included
    years : how many calendar years the record has
    seed : from which everything is drawn
    end : the first of January with which the record closes
    progress : told in a sentence how far it is

    Returns
    -------
    County
        `truth.parquet` has a row per resident at risk, index time (each first of January of the record, in naive UTC)
        and target: `risk`, the probability that the outcome is recorded within the target's horizon and before death,
        and `log_hazard`, the natural logarithm of the yearly hazard at that time.

    Raises
    ------
    WeibingError
        If a number is out of range, or a store with other events is at the path.
    """
    _check(residents, years, seed, end)
    made_of = {"residents": residents, "years": years, "seed": seed, "end": end.isoformat(), "tables": fingerprint()}
    store = _store(path, {"synthetic": True, **made_of})
    period = Period(end.year - years, years)
    with _Truth(path / "truth.parquet") as truth:
        blocks = _blocks(residents, period, seed, truth, progress or _silently)
        store.append(blocks)
    events = sum(pq.read_metadata(shard).num_rows for shard in store.shards)
    return County(residents, events, instant(date(period.first_year, 1, 1), ZONE), instant(end, ZONE))


def _silently(sentence: str) -> None:
    """Tell nobody."""


def _check(residents: int, years: int, seed: int, end: date) -> None:
    if residents < 1 or years < 1 or seed < 0:
        raise WeibingError("A county needs at least one resident, one year and a seed that is not negative.")
    if (end.month, end.day) != (1, 1):
        raise WeibingError(f"A county's record closes on a first of January, not on {end}. Use {end.year}-01-01.")
    if end.year - years < 1992:
        raise WeibingError(f"A county's record begins in 1992 or later. Ask for at most {end.year - 1992} years.")


def _store(path: Path, description: dict[str, Any]) -> EventStore:
    store = EventStore.create(path, timezone=ZONE, name=NAME, description=description)
    if store.description != description:
        raise WeibingError(f"{path} holds other records than this county's. Choose another place, or remove it.")
    return store


class _Truth:
    """The file of true risks: written block by block beside its place, and moved there when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.unfinished = path, path.with_suffix(".new")
        self.writer = pq.ParquetWriter(self.unfinished, _truth_frame(pl.DataFrame(schema=SCHEMA)).to_arrow().schema)

    def __enter__(self) -> "_Truth":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.writer.close()
        if error is None:
            self.unfinished.replace(self.path)
        else:
            self.unfinished.unlink()

    def add(self, risks: pl.DataFrame) -> None:
        """Write the risks of a block."""
        self.writer.write_table(_truth_frame(risks).to_arrow())


def _truth_frame(risks: pl.DataFrame) -> pl.DataFrame:
    index_time = (pl.col("day") * DAY - EIGHT_HOURS).cast(pl.Datetime("us"))
    columns = ("subject_id", "index_time", "target", "risk", "log_hazard")
    return risks.with_columns(index_time=index_time).select(columns).sort("subject_id", "index_time", "target")


def _blocks(
    residents: int, period: Period, seed: int, truth: _Truth, progress: Callable[[str], None]
) -> Iterator[pl.DataFrame]:
    """Yield the events of each block of residents, and write their true risks."""
    for block in range(-(-residents // BLOCK)):
        events, risks = _block(block, period, seed)
        wanted = pl.col("subject_id") <= residents
        truth.add(risks.filter(wanted))
        yield events.filter(wanted)
        progress(f"{min((block + 1) * BLOCK, residents):,} of {residents:,} residents")


def _block(number: int, period: Period, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the events and the true risks of a block of residents."""
    rng = np.random.default_rng([seed, number])
    residents = settle(1 + number * BLOCK, BLOCK, period, rng)
    rates, course = Rates.of(residents, period), past(residents, period, rng)
    risks = []
    for year in range(period.years):
        risks.append(true_risks(year, course, residents, rates))
        live_through(year, course, residents, rates, rng)
    return records(residents, course, period, rng), pl.concat(risks)
