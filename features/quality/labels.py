"""What a model can learn from: the outcomes of targets, and phenotypes; whose they are, when and where."""

from collections.abc import Iterator
from itertools import chain

import polars as pl

from features.quality.fault import Fault, Level
from features.quality.survey import TOWNSHIP, Counts, Shard, Survey, Tables

# Fewer people with an outcome than this make a model that knows little.
FEW = 100
# A township where so many were expected and less than a third of them were found does not record the outcome.
EXPECTED = 10
UNDER_RECORDED = 1 / 3
# Who got an outcome in a year, at least so many, and nobody in the last one.
YEARLY = 10
LAST_MONTH = 12
ANY = "any"


class Labels:
    """The outcome concepts of targets, alone and together, and every phenotype."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        phenotypes = [name for name, concept in survey.vocabulary.concepts.items() if concept.kind == "phenotype"]
        self._groups = {target.name: list(target.outcome) for target in survey.targets}
        self._concepts = list(dict.fromkeys([*chain.from_iterable(self._groups.values()), *phenotypes]))
        self._residents = Counts(TOWNSHIP)
        self._whose = Counts("label", "of_target", TOWNSHIP)
        self._when = Counts("label", "of_target", "year")

    def look(self, shard: Shard) -> None:
        """Count the residents of each label, and its occasions by year."""
        self._residents.add(shard.residents.group_by(TOWNSHIP).agg(residents=pl.len().cast(pl.Int64)))
        labelled = shard.usable.filter(pl.col("concept").is_in(self._concepts))
        single = labelled.with_columns(label=pl.col("concept").cast(pl.String), of_target=pl.lit(value=False))
        self._add(single)
        for target, outcome in self._groups.items():
            any_of = labelled.filter(pl.col("concept").is_in(outcome))
            self._add(any_of.with_columns(label=pl.lit(target), of_target=pl.lit(value=True)))

    def tables(self) -> Tables:
        """Return the residents of each label, by township, and the occasions by year."""
        return {
            "labels": self._labels(),
            "labels_by_year": self._when.total(),
            "labels_by_township": self._places(),
        }

    def faults(self) -> Iterator[Fault]:
        """Yield outcomes of targets that nobody has, too few have, that end early, or that a township lacks."""
        labels = self._labels()
        for target, outcome in self._groups.items():
            row = labels.filter(pl.col("of_target") & (pl.col("label") == target)).row(0, named=True)
            figures = {"target": target, "residents": row["residents"], "concepts": outcome}
            if not row["residents"]:
                yield Fault(Level.WRONG, "no_outcome", 1.0, 0, figures)
            elif row["residents"] < FEW:
                yield Fault(Level.SUSPICIOUS, "few_outcomes", 1 - row["residents"] / FEW, row["residents"], figures)
            yield from self._ended(target)
        yield from self._lacking()

    def _add(self, labelled: pl.DataFrame) -> None:
        keys = ["label", "of_target"]
        whose = labelled.select("subject_id", *keys, TOWNSHIP).unique()
        self._whose.add(whose.group_by(*keys, TOWNSHIP).agg(residents=pl.len().cast(pl.Int64)))
        occasions = labelled.drop_nulls("day").select("subject_id", *keys, "day").unique()
        yearly = occasions.group_by(*keys, year=pl.col("day").dt.year())
        self._when.add(
            yearly.agg(events=pl.len().cast(pl.Int64), last=pl.col("day").max(), residents=_distinct("subject_id"))
        )

    def _total(self) -> int:
        return max(int(self._residents.total()["residents"].sum()), 1)

    def _labels(self) -> pl.DataFrame:
        """Return every label, those that nobody has too."""
        keys = ["label", "of_target"]
        rows = [(name, True) for name in self._groups] + [(name, False) for name in self._concepts]
        every = pl.DataFrame(rows, schema={"label": pl.String, "of_target": pl.Boolean}, orient="row")
        whose = self._whose.total().group_by(keys).agg(pl.col("residents").sum())
        when = self._when.total().filter(pl.col("events") > 0).group_by(keys)
        dated = when.agg(
            pl.col("events").sum(),
            first_year=pl.col("year").min(),
            last_year=pl.col("year").max(),
            last=pl.col("last").max(),
        )
        joined = every.join(whose, on=keys, how="left").join(dated, on=keys, how="left")
        counted = joined.with_columns(pl.col("residents", "events").fill_null(0))
        return counted.with_columns(share=pl.col("residents") / self._total())

    def _places(self) -> pl.DataFrame:
        """Return, of every label that anybody has, the residents of each township who have it; 0 where nobody does."""
        keys = ["label", "of_target"]
        found = self._whose.total()
        places = self._residents.total().rename({"residents": "of"})
        every = found.select(keys).unique().join(places, how="cross")
        joined = every.join(found, on=[*keys, TOWNSHIP], how="left", nulls_equal=True)
        counted = joined.with_columns(pl.col("residents").fill_null(0))
        return counted.with_columns(share=pl.col("residents") / pl.col("of")).sort([*keys, TOWNSHIP])

    def _ended(self, target: str) -> Iterator[Fault]:
        """Yield an outcome of which the last whole year has none."""
        last = self._survey.last_day.year - (self._survey.last_day.month < LAST_MONTH)
        yearly = self._when.total().filter(pl.col("of_target") & (pl.col("label") == target)).sort("year")
        if self._survey.relative or not len(yearly) or yearly["year"].max() == last:
            return
        row = yearly.row(-1, named=True)
        if row["year"] < last and row["residents"] >= YEARLY:
            figures = {"target": target, "year": row["year"], "residents": row["residents"]}
            yield Fault(Level.SUSPICIOUS, "labels_end", 1.0, row["residents"], figures)

    def _lacking(self) -> Iterator[Fault]:
        places = self._places().filter("of_target").drop_nulls(TOWNSHIP)
        whole = {row["label"]: row["share"] for row in self._labels().filter("of_target").iter_rows(named=True)}
        for row in places.iter_rows(named=True):
            expected = whole[row["label"]] * row["of"]
            if expected >= EXPECTED and row["residents"] < UNDER_RECORDED * expected:
                figures = {
                    "target": row["label"],
                    TOWNSHIP: row[TOWNSHIP],
                    "now": row["share"],
                    "residents": row["residents"],
                    "before": whole[row["label"]],
                }
                lost = 1 - row["residents"] / expected
                yield Fault(Level.SUSPICIOUS, "labels_lacking", lost, round(expected) - row["residents"], figures)


def _distinct(column: str) -> pl.Expr:
    return pl.col(column).n_unique().cast(pl.Int64)
