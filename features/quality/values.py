"""Numbers: without a value, in an unknown unit, outside the plausible range, in another unit, far out.

Numbers are counted by code, unit and township, rounded to three digits, so that a few thousand counts hold a province.
"""

from collections.abc import Iterator
from functools import cached_property
from math import inf
from typing import Any

import polars as pl

from features.quality.fault import Fault, Level
from features.quality.spread import Counted, bounds
from features.quality.survey import TOWNSHIP, Counts, Shard, Survey, Tables
from features.quality.units import Suspicion, shifted, suspicion
from features.vocabulary import Concept

DIGITS = 3
# Six robust standard deviations: of a normal distribution two values in a thousand million.
FAR = 6.0
# Fewer values than this do not say what is far out.
ENOUGH = 100
# Above these shares a fault is suspicious; below, and once it has come so often, it is worth a note.
IMPLAUSIBLE_SHARE = 0.005
WITHOUT_VALUE_SHARE = 0.05
UNKNOWN_CODES_SHARE = 0.05
NOTED = 10
ADULT_DAYS = round(18 * 365.25)
SUSPECTED = "suspected"


class Values:
    """What is wrong with numbers, and which codes nobody knows."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._counts = Counts("code", "unit", TOWNSHIP, "adult", "number")

    def look(self, shard: Shard) -> None:
        """Count the numbers of each code."""
        births = shard.residents.select("subject_id", "birth")
        events = shard.recorded.join(births, on="subject_id", how="left")
        adult = (pl.col("time") - pl.col("birth") >= pl.duration(days=ADULT_DAYS)).fill_null(value=True)
        number = pl.col("numeric_value").cast(pl.Float64).round_sig_figs(DIGITS)
        keyed = events.select("code", "unit", TOWNSHIP, adult=adult, number=number)
        self._counts.add(keyed.group_by(pl.all()).agg(events=pl.len().cast(pl.Int64)))

    def tables(self) -> Tables:
        """Return how values spread, and what is wrong with them."""
        return {
            "values": self._spread,
            "implausible_values": self._implausible,
            "unit_suspicions": self._suspicions,
            "unit_suspicions_by_township": self._suspected_places,
            "suspicious_numbers": self._histogram(),
            "values_missing": self._missing,
            "unknown_units": self._unknown_units,
            "unknown_codes": self._unknown_codes,
        }

    def faults(self) -> Iterator[Fault]:
        """Yield units that are suspicious or unknown, values impossible, missing or far out, and unknown codes."""
        explained = set()
        for row in self._suspicions.iter_rows(named=True):
            explained.add((row["concept"], row["code"], row["unit"]))
            figures = {key: row[key] for key in ("concept", "code", "unit", "looks_like", "township", "township_share")}
            kind = "unit_in_township" if row["township"] else "unit"
            level = Level.WRONG if row["share"] >= IMPLAUSIBLE_SHARE else Level.NOTE
            yield Fault(level, kind, row["share"], row["events"], figures)
        yield from self._impossible(explained)
        yield from self._incomplete()
        yield from self._outlying()
        yield from self._unknown()

    @cached_property
    def _numbers(self) -> pl.DataFrame:
        """The counts by what code and unit mean: `concept`, `value` in its unit, and whether it is `plausible`."""
        counts = self._counts.total()
        pairs = counts.select("code", "unit").unique()
        rows = [row for code, unit in pairs.iter_rows() for row in self._meanings(code, unit)]
        meant = counts.join(pl.DataFrame(rows, schema=MEANINGS, orient="row"), on=["code", "unit"], nulls_equal=True)
        value = pl.col("number") * pl.col("factor") + pl.col("offset")
        plausible = value.cast(pl.Float32).is_between(pl.col("low"), pl.col("high"))
        return meant.with_columns(value=value, plausible=pl.col("known_unit") & plausible)

    def _meanings(self, code: str, unit: str | None) -> Iterator[tuple[Any, ...]]:
        for meaning in self._survey.vocabulary.meanings(code, unit):
            concept = self._survey.vocabulary.concepts[meaning.concept]
            if concept.numeric and meaning.value is None:
                yield (
                    *(code, unit, concept.name, concept.kind, meaning.factor, meaning.offset, meaning.known_unit),
                    *(concept.low, concept.high),
                )

    @cached_property
    def _spread(self) -> pl.DataFrame:
        """Of each measured concept, in adults: how many values there are, where they lie, and how many far out."""
        usable = self._numbers.filter(pl.col("plausible") & pl.col("adult") & (pl.col("kind") == "measurement"))
        concepts = self._survey.vocabulary.concepts
        rows = [_spread_of(concepts[str(name)], Counted.of(rows)) for (name,), rows in usable.group_by("concept")]
        return pl.DataFrame(rows, schema=SPREAD, orient="row").sort("concept")

    @cached_property
    def _implausible(self) -> pl.DataFrame:
        """Values outside the plausible range, by concept, code and unit: how many, and which is the commonest."""
        keys = ["concept", "code", "unit"]
        of = _summed(self._numbers.drop_nulls("number"), [*keys]).rename({"events": "of"})
        out = self._numbers.filter(pl.col("known_unit") & ~pl.col("plausible")).drop_nulls("number")
        commonest = _summed(out, [*keys, "number"]).sort("events", "number", descending=[True, False])
        found = commonest.group_by(keys).agg(
            pl.col("events").sum(),
            smallest=pl.col("number").min(),
            largest=pl.col("number").max(),
            commonest=pl.col("number").first(),
            commonest_events=pl.col("events").first(),
        )
        shared = found.join(of, on=keys, nulls_equal=True).with_columns(share=pl.col("events") / pl.col("of"))
        return shared.sort(["events", *keys], descending=[True, False, False, False])

    @cached_property
    def _missing(self) -> pl.DataFrame:
        """Events of numeric concepts that bear no number, by concept and code."""
        keys = ["concept", "code"]
        of = _summed(self._numbers, keys).rename({"events": "of"})
        found = _summed(self._numbers.filter(pl.col("number").is_null()), keys)
        shared = found.join(of, on=keys).with_columns(share=pl.col("events") / pl.col("of"))
        return shared.sort(["events", *keys], descending=[True, False, False])

    @cached_property
    def _unknown_units(self) -> pl.DataFrame:
        keys = ["concept", "code", "unit"]
        unknown = self._numbers.filter(~pl.col("known_unit") & pl.col("number").is_not_null())
        return _summed(unknown, keys).sort(["events", *keys], descending=[True, False, False, False])

    @cached_property
    def _unknown_codes(self) -> pl.DataFrame:
        counts = _summed(self._counts.total(), ["code"])
        unknown = [code for code in counts["code"] if not self._survey.vocabulary.meanings(code)]
        found = counts.filter(pl.col("code").is_in(unknown))
        shared = found.with_columns(share=pl.col("events") / max(int(counts["events"].sum()), 1))
        return shared.sort(["events", "code"], descending=[True, False])

    @cached_property
    def _suspected(self) -> list[tuple[dict[str, Any], pl.DataFrame]]:
        """What seems to have another unit: of which concept, code and unit, and its numbers, each suspected or not."""
        adults = self._numbers.filter(pl.col("adult") & pl.col("known_unit") & (pl.col("kind") == "measurement"))
        numbers = adults.drop_nulls("number")
        found = []
        for (concept,), of_concept in numbers.group_by("concept", maintain_order=True):
            usual = Counted.of(of_concept.filter("plausible"))
            for (code, unit), rows in of_concept.group_by("code", "unit", maintain_order=True):
                about = {"concept": concept, "code": code, "unit": unit}
                found += [(about | said, marked) for said, marked in self._suspicion(str(concept), rows, usual)]
        return found

    def _suspicion(
        self, concept: str, rows: pl.DataFrame, usual: Counted
    ) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
        """Yield which other unit some numbers of a code and unit seem to have, by all of them or by township."""
        vocabulary, meant = self._survey.vocabulary, self._survey.vocabulary.concepts[concept]
        stated = (float(rows["factor"][0]), float(rows["offset"][0]))
        found = suspicion(Counted.of(rows, "number"), stated, meant, vocabulary, usual)
        if found:
            yield {"looks_like": found.unit, "sign": found.sign}, _marked(rows, found)
            return
        for (township,), here in rows.drop_nulls(TOWNSHIP).group_by(TOWNSHIP, maintain_order=True):
            is_here = (pl.col(TOWNSHIP) == township).fill_null(value=False)
            elsewhere = Counted.of(rows.filter(~is_here), "number")
            unit = shifted(Counted.of(here, "number"), elsewhere, stated, meant, vocabulary)
            if unit:
                yield {"looks_like": unit, "sign": "township"}, rows.with_columns(is_here.alias(SUSPECTED))

    @cached_property
    def _suspicions(self) -> pl.DataFrame:
        rows = []
        for about, marked in self._suspected:
            inside = marked.filter(SUSPECTED)
            total, many = int(marked["events"].sum()), int(inside["events"].sum())
            places = _summed(inside.drop_nulls(TOWNSHIP), [TOWNSHIP]).sort("events", descending=True)
            first: dict[str, Any] = places.row(0, named=True) if len(places) else {TOWNSHIP: None, "events": 0}
            median = Counted.of(inside, "number").quantile(0.5)
            counts = {"events": many, "of": total, "share": many / total, "median": median}
            rows.append(about | counts | {TOWNSHIP: first[TOWNSHIP], "township_share": first["events"] / many})
        return pl.DataFrame(rows, schema=SUSPICIONS).sort("share", descending=True)

    @cached_property
    def _suspected_places(self) -> pl.DataFrame:
        """Where the suspected values come from: of each township's values, how many."""
        parts = [
            marked.group_by(TOWNSHIP)
            .agg(of=pl.col("events").sum(), events=pl.col("events").filter(pl.col(SUSPECTED)).sum())
            .with_columns(concept=pl.lit(about["concept"]), code=pl.lit(about["code"]))
            .with_columns(pl.col(TOWNSHIP).cast(pl.String), share=pl.col("events") / pl.col("of"))
            .select(list(PLACES))
            for about, marked in self._suspected
        ]
        return pl.concat([pl.DataFrame(schema=PLACES), *parts]).sort(["concept", "code", TOWNSHIP])

    def _histogram(self) -> pl.DataFrame:
        """Return the numbers of what is suspicious, counted."""
        parts = [
            _summed(marked, ["number", SUSPECTED])
            .with_columns(concept=pl.lit(about["concept"]), code=pl.lit(about["code"]))
            .select(list(NUMBERS))
            for about, marked in self._suspected
        ]
        return pl.concat([pl.DataFrame(schema=NUMBERS), *parts]).sort(["concept", "code", "number"])

    def _impossible(self, explained: set[tuple[Any, ...]]) -> Iterator[Fault]:
        for row in self._implausible.iter_rows(named=True):
            if (row["concept"], row["code"], row["unit"]) in explained or row["events"] < NOTED:
                continue
            level = Level.WRONG if row["share"] >= IMPLAUSIBLE_SHARE else Level.NOTE
            names = ("concept", "code", "unit", "smallest", "largest", "commonest", "commonest_events")
            yield Fault(level, "implausible", row["share"], row["events"], {name: row[name] for name in names})

    def _incomplete(self) -> Iterator[Fault]:
        for row in self._missing.iter_rows(named=True):
            if row["events"] >= NOTED:
                level = Level.SUSPICIOUS if row["share"] >= WITHOUT_VALUE_SHARE else Level.NOTE
                figures = {"concept": row["concept"], "code": row["code"]}
                yield Fault(level, "no_value", row["share"], row["events"], figures)
        for row in self._unknown_units.filter(pl.col("events") >= NOTED).iter_rows(named=True):
            figures = {name: row[name] for name in ("concept", "code", "unit")}
            yield Fault(Level.WRONG, "unknown_unit", 1.0, row["events"], figures)

    def _outlying(self) -> Iterator[Fault]:
        for row in self._spread.filter(pl.col("outliers") >= NOTED).iter_rows(named=True):
            share = row["outliers"] / row["events"]
            figures = {name: row[name] for name in ("concept", "usual_low", "usual_high", "smallest", "largest")}
            yield Fault(Level.NOTE, "outliers", share, row["outliers"], figures)

    def _unknown(self) -> Iterator[Fault]:
        share = float(self._unknown_codes["share"].sum())
        if len(self._unknown_codes):
            first = self._unknown_codes.row(0, named=True)
            level = Level.SUSPICIOUS if share >= UNKNOWN_CODES_SHARE else Level.NOTE
            figures = {"codes": len(self._unknown_codes), "first": first["code"], "first_events": first["events"]}
            yield Fault(level, "unknown_codes", share, int(self._unknown_codes["events"].sum()), figures)


MEANINGS = {
    "code": pl.String,
    "unit": pl.String,
    "concept": pl.String,
    "kind": pl.String,
    "factor": pl.Float64,
    "offset": pl.Float64,
    "known_unit": pl.Boolean,
    "low": pl.Float64,
    "high": pl.Float64,
}
SPREAD = {
    "concept": pl.String,
    "events": pl.Int64,
    "smallest": pl.Float64,
    "median": pl.Float64,
    "largest": pl.Float64,
    "usual_low": pl.Float64,
    "usual_high": pl.Float64,
    "outliers": pl.Int64,
}
SUSPICIONS = {
    "concept": pl.String,
    "code": pl.String,
    "unit": pl.String,
    "looks_like": pl.String,
    "sign": pl.String,
    "events": pl.Int64,
    "of": pl.Int64,
    "share": pl.Float64,
    "median": pl.Float64,
    TOWNSHIP: pl.String,
    "township_share": pl.Float64,
}
PLACES = {
    "concept": pl.String,
    "code": pl.String,
    TOWNSHIP: pl.String,
    "of": pl.Int64,
    "events": pl.Int64,
    "share": pl.Float64,
}
NUMBERS = {
    "concept": pl.String,
    "code": pl.String,
    "number": pl.Float64,
    SUSPECTED: pl.Boolean,
    "events": pl.Int64,
}


def _summed(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return frame.group_by(keys).agg(pl.col("events").sum())


def _marked(rows: pl.DataFrame, found: Suspicion) -> pl.DataFrame:
    """Say of each number whether it is suspected; `found` speaks of the distinct numbers in ascending order."""
    distinct = Counted.of(rows, "number").value
    marks = pl.DataFrame({"number": distinct, SUSPECTED: found.numbers})
    return rows.join(marks, on="number", how="left")


def _spread_of(concept: Concept, values: Counted) -> tuple[Any, ...]:
    found = bounds(values, FAR) if values.total >= ENOUGH else None
    low, high = (max(found.low, concept.low), min(found.high, concept.high)) if found else (-inf, inf)
    outliers = int(values.events[(values.value < low) | (values.value > high)].sum())
    ends = (float(values.value[0]), values.quantile(0.5), float(values.value[-1]))
    return concept.name, values.total, *ends, *((low, high) if found else (None, None)), outliers
