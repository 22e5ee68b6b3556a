"""Made-up records for the benchmark: a hundred events a resident, over ten years, of the codes in codes.csv.

    python -m benchmarks.features.records STORE RESIDENTS

Each resident has fourteen visits on different days. A visit records one contact, four different values, one diagnosis
and one drug, so that no two events of a concept bear the same time. Birth and sex make it a hundred.
"""

import argparse
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.events import EventStore

CODES = Path(__file__).with_name("codes.csv")
EVENTS_PER_RESIDENT = 100
VISITS = 14
# How many different codes of each group a visit records.
AT_A_VISIT = {"contact": 1, "value": 4, "diagnosis": 1, "drug": 1}
FIRST_DAY, LAST_DAY = date(2015, 1, 1), date(2025, 1, 1)
# Ninety years of life before the records begin.
OLDEST, YOUNGEST = -90 * 365, -18 * 365
# Nine of the ten years are look-back; what comes at this time or later is not yet known.
INDEX_TIME = datetime(2024, 1, 1)
# One value in two hundred is ten times too high, as a slip of the keyboard makes it.
SLIPS = 0.005
# One resident in ten has a visit at the index time itself, which is not yet known.
RESIDENTS_PER_EDGE = 10
RESIDENTS_AT_ONCE = 10_000


def write_records(path: Path, residents: int, seed: int = 0) -> EventStore:
    """Write a store of that many residents, numbered from one; the same seed writes the same store."""
    rng = np.random.default_rng(seed)
    store = EventStore.create(path, timezone="UTC", description={"synthetic": True})
    store.append(_frames(rng, residents))
    return store


def index_of(residents: NDArray[np.int64]) -> pl.DataFrame:
    """Return one index time for each resident."""
    time = pl.lit(INDEX_TIME, pl.Datetime("us")).alias("index_time")
    return pl.DataFrame({"subject_id": residents}).with_columns(time)


def _frames(rng: np.random.Generator, residents: int) -> Iterator[pl.DataFrame]:
    codes = pl.read_csv(CODES)
    for first in range(0, residents, RESIDENTS_AT_ONCE):
        ids = np.arange(first, min(first + RESIDENTS_AT_ONCE, residents)) + 1
        days = _visit_days(rng, len(ids))
        groups = codes.partition_by("group", maintain_order=True)
        yield pl.concat([_births(rng, ids), _sexes(rng, ids), *(_recorded(rng, ids, days, group) for group in groups)])


def _visit_days(rng: np.random.Generator, residents: int) -> NDArray[np.int64]:
    """Draw each resident's visits, one in each fourteenth of the time: days since 1970, shape (residents, visits)."""
    edges = np.linspace(_day(FIRST_DAY), _day(LAST_DAY), VISITS + 1).astype(np.int64)
    days = rng.integers(edges[:-1], edges[1:], (residents, VISITS))
    index_day = _day(INDEX_TIME.date())
    days[::RESIDENTS_PER_EDGE, np.searchsorted(edges, index_day, side="right") - 1] = index_day
    return days


def _recorded(
    rng: np.random.Generator, ids: NDArray[np.int64], days: NDArray[np.int64], codes: pl.DataFrame
) -> pl.DataFrame:
    """Draw what every visit records of one group of codes."""
    times = AT_A_VISIT[codes["group"][0]]
    drawn = np.argsort(rng.random((days.size, len(codes)), np.float32), axis=1)[:, :times].ravel()
    who = np.repeat(ids, VISITS * times)
    mean, spread = (codes[name].cast(pl.Float64).to_numpy()[drawn] for name in ("mean", "sd"))
    value = np.maximum(rng.normal(mean, spread), mean / 10).round(1) * np.where(rng.random(len(who)) < SLIPS, 10, 1)
    return _events(who, np.repeat(days.ravel(), times), codes["code"].gather(drawn), codes["unit"].gather(drawn), value)


def _births(rng: np.random.Generator, ids: NDArray[np.int64]) -> pl.DataFrame:
    born = _day(FIRST_DAY) + rng.integers(OLDEST, YOUNGEST, len(ids))
    return _events(ids, born, pl.repeat("MEDS_BIRTH", len(ids), eager=True))


def _sexes(rng: np.random.Generator, ids: NDArray[np.int64]) -> pl.DataFrame:
    code = pl.Series(np.where(rng.integers(0, 2, len(ids)), "GENDER//F", "GENDER//M"))
    return _events(ids, np.zeros(len(ids), np.int64), code).with_columns(time=pl.lit(None, pl.Datetime("us")))


def _events(
    who: NDArray[np.int64],
    day: NDArray[np.int64],
    code: pl.Series,
    unit: pl.Series | None = None,
    value: NDArray[np.float64] | None = None,
) -> pl.DataFrame:
    nothing = pl.repeat(None, len(who), dtype=pl.String, eager=True)
    number = np.full(len(who), np.nan) if value is None else value
    return pl.DataFrame(
        {
            "subject_id": who,
            "time": pl.Series(day.astype("datetime64[D]").astype("datetime64[us]")),
            "code": code,
            "unit": nothing if unit is None else unit,
            "numeric_value": pl.Series(number, nan_to_null=True).cast(pl.Float32),
        }
    )


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("residents", type=int)
    chosen = parser.parse_args()
    write_records(chosen.store, chosen.residents)


if __name__ == "__main__":
    main()
