"""Measurements that are told twice in other words: from two sources, with two codes, in two units.

The store keeps no event twice; but 136 mmHg as `LOINC//8480-6` and 136 as `sbp` of the same day are two events.
"""

from collections.abc import Iterator

import polars as pl

from features.derived import DERIVED
from features.quality.fault import Fault, Level
from features.quality.survey import Counts, Shard, Survey, Tables

# Values this near are the same, rounded or converted; a device that measures all day has more than so many.
NEAR = 0.005
MOST = 4
# Of two readings of a visit, few are equal; of two records of a reading, all are.
SHARE = 0.5
FEWEST = 20


class Repeats:
    """Days on which a resident has the same value of a concept twice."""

    def __init__(self, survey: Survey) -> None:
        concepts = survey.vocabulary.concepts
        measured = {name for name, concept in concepts.items() if concept.kind == "measurement"}
        self._concepts = sorted(measured - set(DERIVED))
        self._counts = Counts("concept")

    def look(self, shard: Shard) -> None:
        """Count the days with values, with several values, and with several that are nearly the same."""
        values = shard.usable.filter(pl.col("day").is_not_null() & pl.col("concept").is_in(self._concepts))
        value = pl.col("value")
        days = values.group_by("subject_id", "concept", "day").agg(n=pl.len(), low=value.min(), high=value.max())
        several = pl.col("n").is_between(2, MOST)
        near = several & (pl.col("high") - pl.col("low") <= NEAR * pl.col("high").abs())
        counted = days.group_by("concept").agg(
            days=pl.len().cast(pl.Int64), several=several.sum().cast(pl.Int64), repeated=near.sum().cast(pl.Int64)
        )
        self._counts.add(counted.with_columns(pl.col("concept").cast(pl.String)))

    def tables(self) -> Tables:
        """Return the days of each concept."""
        found = self._counts.total().filter(pl.col("several") > 0)
        shared = found.with_columns(share=pl.col("repeated") / pl.col("days"))
        return {"repeated_values": shared.sort(["repeated", "concept"], descending=[True, False])}

    def faults(self) -> Iterator[Fault]:
        """Yield concepts whose values of one day are mostly the same."""
        for row in self.tables()["repeated_values"].iter_rows(named=True):
            if row["repeated"] >= FEWEST and row["repeated"] >= SHARE * row["several"]:
                figures = {name: row[name] for name in ("concept", "several", "repeated")}
                yield Fault(Level.SUSPICIOUS, "repeated", row["share"], row["repeated"], figures)
