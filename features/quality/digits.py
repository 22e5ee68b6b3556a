"""The last digits of blood pressure: who reads a scale with care ends one reading in ten in 0.

A scale marked every 2 mmHg allows even digits alone: then one in five ends in 0. More than that is rounding, or a
pressure that nobody has measured.
"""

from collections.abc import Iterator
from math import sqrt

import polars as pl

from features.quality.fault import Fault, Level
from features.quality.survey import TOWNSHIP, Counts, Shard, Survey, Tables

PRESSURES = ("sbp", "dbp", "home_sbp", "home_dbp")
IN_ORDER = pl.Enum(PRESSURES)
FEWEST = 100
# A careful reader of a scale marked every 2 mmHg, at most.
CAREFUL = 0.2
# Standard errors by which a share must lie above that, and points by which a township's must lie above the county's.
ERRORS = 3.0
APART = 0.1
# Below this share of odd digits, a scale marked every 2 mmHg was read.
ODD = 0.05
# Above this share of the same value, readings are copied rather than taken.
SAME_VALUE = 0.15
WHOLE = 1e-3


class Digits:
    """How often blood pressures end in each digit."""

    def __init__(self, survey: Survey) -> None:
        self._counts = Counts("concept", TOWNSHIP, "reading")

    def look(self, shard: Shard) -> None:
        """Count the readings in whole mmHg."""
        pressures = shard.usable.filter(pl.col("concept").is_in(PRESSURES))
        rounded = pl.col("value").round().cast(pl.Int32)
        whole = pressures.filter((pl.col("value") - pl.col("value").round()).abs() < WHOLE)
        keyed = whole.select(pl.col("concept").cast(IN_ORDER), TOWNSHIP, reading=rounded)
        self._counts.add(keyed.group_by(pl.all()).agg(readings=pl.len().cast(pl.Int64)))

    def tables(self) -> Tables:
        """Return the shares of the last digits, in the county and by township."""
        return {
            "last_digits": _shares(self._counts.total(), ["concept"]),
            "last_digits_by_township": _shares(self._counts.total(), ["concept", TOWNSHIP]),
        }

    def faults(self) -> Iterator[Fault]:
        """Yield readings that end in 0 too often, in the county or still more so in a township; or are all the same."""
        tables = self.tables()
        county = {}
        for row in tables["last_digits"].filter(pl.col("readings") >= FEWEST).iter_rows(named=True):
            county[row["concept"]] = row["ends_in_0"]
            if _preferred(row, CAREFUL):
                yield Fault(Level.SUSPICIOUS, "digits", row["ends_in_0"], row["readings"], _of(row))
            elif row["odd"] < ODD:
                yield Fault(Level.NOTE, "even_digits", 1 - row["odd"], row["readings"], _of(row))
            if row["commonest_share"] >= SAME_VALUE:
                yield Fault(Level.SUSPICIOUS, "same_reading", row["commonest_share"], row["readings"], _of(row))
        places = tables["last_digits_by_township"].drop_nulls(TOWNSHIP).filter(pl.col("readings") >= FEWEST)
        for row in places.iter_rows(named=True):
            share = county.get(row["concept"], 0.0)
            if _preferred(row, min(max(CAREFUL, share + APART), 1.0)):
                figures = _of(row) | {TOWNSHIP: row[TOWNSHIP], "county": share}
                yield Fault(Level.SUSPICIOUS, "digits_in_township", row["ends_in_0"], row["readings"], figures)


def _shares(counts: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    readings, digit = pl.col("readings"), pl.col("reading") % 10
    total = readings.sum()
    found = (
        counts.group_by([*keys, "reading"])
        .agg(readings.sum())
        .sort("readings", "reading", descending=[True, False])
        .group_by(keys, maintain_order=True)
        .agg(
            total,
            *((readings.filter(digit == number).sum() / total).alias(f"ends_in_{number}") for number in range(10)),
            odd=readings.filter(digit % 2 == 1).sum() / total,
            commonest=pl.col("reading").first(),
            commonest_share=readings.first() / total,
        )
    )
    return found.sort(keys)


def _preferred(row: dict[str, float], share: float) -> bool:
    """Whether 0 comes more often than a share, beyond chance."""
    return row["ends_in_0"] > share + ERRORS * sqrt(share * (1 - share) / row["readings"])


def _of(row: dict[str, float]) -> dict[str, float]:
    return {name: row[name] for name in ("concept", "ends_in_0", "ends_in_5", "commonest", "commonest_share")}
