"""Of how many residents there is a usable value: by concept, by year and by township.

A resident is observed in a year from the first record to death, the end of observation or the end of the records. What
everyone has (a measurement, an answer, a contact) is expected of all; a disease or a drug is not.
"""

from collections.abc import Iterator

import polars as pl

from features.derived import DERIVED
from features.quality.fault import Fault, Level
from features.quality.survey import TOWNSHIP, Counts, Shard, Survey, Tables
from features.rules import TALLY

EXPECTED_KINDS = frozenset({"measurement", "finding", "contact"})
# What is computed of other values says nothing of its own; unless a target asks for it.
COMPUTED = frozenset({*DERIVED, *TALLY})
# A share is judged where so many residents were observed and so many of them should have a value.
FEWEST_OBSERVED = 100
FEWEST_EXPECTED = 50
FALLEN = 0.5
# The last year counts where it is nearly over.
LAST_MONTH = 12


class Completeness:
    """Shares of residents observed in a year, with a usable value."""

    def __init__(self, survey: Survey) -> None:
        concepts = survey.vocabulary.concepts
        self._survey = survey
        asked = {concept for target in survey.targets for concept in target.concepts}
        self._expected = [
            name
            for name, concept in concepts.items()
            if concept.kind in EXPECTED_KINDS and (name in asked or name not in COMPUTED)
        ]
        self._residents = Counts(TOWNSHIP)
        self._observed = Counts("year", TOWNSHIP)
        self._ever = Counts("concept", TOWNSHIP)
        self._with_value = Counts("concept", "year", TOWNSHIP)

    def look(self, shard: Shard) -> None:
        """Count who is observed, and who has a value, in each year."""
        residents = shard.residents
        self._residents.add(residents.group_by(TOWNSHIP).agg(residents=pl.len().cast(pl.Int64)))
        years = residents.drop_nulls("first_year").select(
            TOWNSHIP, year=pl.int_ranges("first_year", pl.col("last_year") + 1, dtype=pl.Int32)
        )
        self._observed.add(_counted(years.explode("year", empty_as_null=False), "year", TOWNSHIP))
        ever = shard.usable.select("subject_id", "concept").unique()
        self._ever.add(_counted(self._placed(ever, shard), "concept", TOWNSHIP))
        dated = shard.usable.filter(pl.col("day").is_not_null() & pl.col("concept").is_in(self._expected))
        seen = self._placed(dated.select("subject_id", "concept", year=pl.col("day").dt.year()).unique(), shard)
        within = seen.filter(pl.col("year").is_between("first_year", "last_year"))
        self._with_value.add(_counted(within, "concept", "year", TOWNSHIP))

    def tables(self) -> Tables:
        """Return the shares by concept, and by concept with year, township or both."""
        ever = self._ever.total().group_by("concept").agg(pl.col("residents").sum())
        total = int(self._residents.total()["residents"].sum())
        return {
            "townships": self._residents.total().sort("residents", descending=True),
            "completeness": ever.with_columns(
                kind=pl.col("concept").replace_strict(self._kinds(), default=None, return_dtype=pl.String),
                share=pl.col("residents") / max(total, 1),
            ).sort(["share", "concept"], descending=[True, False]),
            "completeness_by_year": self._shares(["year"]),
            "completeness_by_township": self._shares([TOWNSHIP]),
            "completeness_by_year_and_township": self._shares(["year", TOWNSHIP]),
        }

    def faults(self) -> Iterator[Fault]:
        """Yield concepts that targets ask for and nobody has, that fell away in a year, or that a township lacks."""
        yield from self._absent()
        yield from self._fallen()
        yield from self._lacking()

    def _placed(self, rows: pl.DataFrame, shard: Shard) -> pl.DataFrame:
        residents = shard.residents.select("subject_id", TOWNSHIP, "first_year", "last_year")
        return rows.join(residents, on="subject_id")

    def _kinds(self) -> dict[str, str]:
        return {name: concept.kind for name, concept in self._survey.vocabulary.concepts.items()}

    def _shares(self, keys: list[str]) -> pl.DataFrame:
        """Return, of every concept that anybody has, the share of the residents observed; 0 where nobody has it."""
        observed = self._observed.total().group_by(keys).agg(observed=pl.col("residents").sum())
        found = self._with_value.total().group_by(["concept", *keys]).agg(pl.col("residents").sum())
        every = found.select("concept").unique().join(observed, how="cross")
        joined = every.join(found, on=["concept", *keys], how="left", nulls_equal=True)
        counted = joined.with_columns(pl.col("residents").fill_null(0))
        return counted.with_columns(share=pl.col("residents") / pl.col("observed")).sort(["concept", *keys])

    def _absent(self) -> Iterator[Fault]:
        present = set(self._ever.total()["concept"])
        for target in self._survey.targets:
            for concept in dict.fromkeys(target.concepts):
                if concept not in present and concept not in target.outcome:
                    figures = {"concept": concept, "target": target.name}
                    yield Fault(Level.SUSPICIOUS, "absent", 1.0, 0, figures)

    def _fallen(self) -> Iterator[Fault]:
        """Yield the last year in which a concept reached less than half of the year before."""
        if self._survey.relative:
            return
        last = self._survey.last_day.year - (self._survey.last_day.month < LAST_MONTH)
        shares = self._shares(["year"]).filter(pl.col("year") <= last).sort("concept", "year")
        before = shares.with_columns(before=pl.col("share").shift().over("concept"))
        enough = (pl.col("observed") >= FEWEST_OBSERVED) & (pl.col("before") * pl.col("observed") >= FEWEST_EXPECTED)
        # In the first year, when records are opened, everyone is examined.
        settled = pl.col("year") > self._survey.first_day.year + 1
        fallen = before.filter(settled & enough & (pl.col("share") < FALLEN * pl.col("before")))
        for row in fallen.group_by("concept").last().sort("concept").iter_rows(named=True):
            figures = {"concept": row["concept"], "year": row["year"], "now": row["share"], "before": row["before"]}
            figures["residents"] = row["residents"]
            lost = round(row["before"] * row["observed"]) - row["residents"]
            yield Fault(Level.SUSPICIOUS, "fallen", row["before"] - row["share"], lost, figures)

    def _lacking(self) -> Iterator[Fault]:
        """Yield the townships where concepts reach less than half of the county's share."""
        county = self._with_value.total().group_by("concept").agg(pl.col("residents").sum())
        observed = max(int(self._observed.total()["residents"].sum()), 1)
        both = self._shares([TOWNSHIP]).drop_nulls(TOWNSHIP).join(county, on="concept", suffix="_county")
        judged = both.with_columns(county=pl.col("residents_county") / observed)
        enough = (pl.col("observed") >= FEWEST_OBSERVED) & (pl.col("county") * pl.col("observed") >= FEWEST_EXPECTED)
        less = judged.filter(enough & (pl.col("share") < FALLEN * pl.col("county")))
        for (township,), rows in less.sort(pl.col("share") - pl.col("county")).group_by(TOWNSHIP, maintain_order=True):
            worst = rows.row(0, named=True)
            figures = {
                TOWNSHIP: township,
                "concept": worst["concept"],
                "now": worst["share"],
                "before": worst["county"],
                "residents": worst["residents"],
                "listed": len(rows),
                "concepts": rows["concept"].to_list(),
            }
            yield Fault(Level.SUSPICIOUS, "lacking", worst["county"] - worst["share"], len(rows), figures)


def _counted(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    counted = rows.group_by(keys).agg(residents=pl.len().cast(pl.Int64))
    return counted.with_columns(pl.col("concept").cast(pl.String)) if "concept" in keys else counted
