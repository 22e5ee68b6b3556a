"""Rates of a simulated county beside the published ones (`published.csv`).

Everything is counted in the records, but for what no record shows, the prevalence of hypertension and diabetes found or
not. Counts are added up shard by shard, so a large county needs no more memory than a small one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from meds import schema as meds

from features.events import EventStore
from features.sources.county.ledger import END
from features.sources.county.period import DAYS_A_YEAR, Period
from features.sources.county.tables import rows

Row = Mapping[str, str]
# The first day of what is looked for: by code, and of hypertension by drug as well.
FIRST = {
    "hypertension": r"^ICD10//I10$|^ATC//C0[23789]",
    "diabetes": r"^ICD10//E11|^ATC//A10",
    "eye": r"^ICD10//E11\.3",
    "stroke": r"^ICD10//I6[13]",
    "infarction": r"^ICD10//I21",
    "heart_failure": r"^ICD10//I50",
    "kidney": r"^ICD10//(E11\.2|N18)",
    "fall": r"^fall$|^ICD10//W",
}
CODED_FALL = r"^ICD10//W"
# Values that tell a rate, of adults; the others are not read again.
VALUES = ("sbp", "dbp", "bmi", "smoking", "creatinine", "egfr", "fell_past_year", "falls_past_year", "living_alone")


PLAUSIBLE = {"sbp": (70, 250), "dbp": (35, 150), "bmi": (10, 60), "creatinine": (20, 1500)}


class Tally(NamedTuple):
    """What a rate is made of; tallies of shards add up."""

    numerator: float
    denominator: float

    def plus(self, other: "Tally") -> "Tally":
        """Return both counted together."""
        return Tally(self.numerator + other.numerator, self.denominator + other.denominator)


@dataclass(frozen=True)
class Comparison:
    """A rate as published, with the range within which its sources lie, and as simulated."""

    measure: str
    whom: str
    unit: str
    simulated: float
    published: float | None
    low: float
    high: float
    source: str
    trust: str

    @property
    def within(self) -> bool:
        """Whether the simulated rate lies in the stated range."""
        return self.low <= self.simulated <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it: nothing where a rate has nobody to be counted in."""
        simulated = None if isnan(self.simulated) else self.simulated
        return {**self.__dict__, "simulated": simulated, "within": self.within}


def compare(path: Path) -> list[Comparison]:
    """Return every published rate beside the one of a simulated county, in the order of `published.csv`."""
    store = EventStore.open(path)
    end = int(store.description["end"][:4])
    period = Period(end - store.description["years"], store.description["years"])
    hidden = pl.read_parquet(path / "hidden.parquet")
    totals = [Tally(0, 0)] * len(rows("published"))
    for shard in store.shards:
        seen = _Seen.of(store.read(shard), hidden, period)
        found = [MEASURES[row["measure"]](seen, row) for row in rows("published")]
        totals = [total.plus(each) for total, each in zip(totals, found, strict=True)]
    return [_comparison(row, total) for row, total in zip(rows("published"), totals, strict=True)]


def table(comparisons: list[Comparison]) -> str:
    """Return the comparisons as a table in plain text, and in a last line how many lie in their range."""
    head = f"{'rate':32} {'of':12} {'unit':14} {'simulated':>9} {'published':>9} {'range':>13} within  source"
    inside = sum(each.within for each in comparisons)
    return "\n".join([head, *map(_line, comparisons), f"{inside} of {len(comparisons)} rates lie in their ranges."])


def _line(each: Comparison) -> str:
    published = "" if each.published is None else f"{each.published:g}"
    span, within = f"{each.low:g} to {each.high:g}", "yes" if each.within else "NO"
    start = f"{each.measure:32} {each.whom:12} {each.unit:14} {each.simulated:9.1f} {published:>9} {span:>13}"
    return f"{start} {within:6}  {each.source} [{each.trust}]"


def summary(comparisons: list[Comparison]) -> dict[str, Any]:
    """Return the comparisons as JSON would have them."""
    return {"within": sum(each.within for each in comparisons), "rates": [each.as_dict() for each in comparisons]}


def _comparison(row: Row, total: Tally) -> Comparison:
    scale = {"percent": 100.0, "per 1000 years": 1000.0}.get(row["unit"], 1.0)
    simulated = scale * total.numerator / total.denominator if total.denominator else float("nan")
    published = float(row["published"]) if row["published"] else None
    limits = float(row["low"]), float(row["high"])
    return Comparison(
        row["measure"], _whom(row), row["unit"], simulated, published, *limits, row["source"], row["trust"]
    )


def _whom(row: Row) -> str:
    """Return of whom a rate is, as in ``women 65-74``."""
    who = {"0": "men ", "1": "women ", "": ""}[row["female"]]
    last = float(row["age_below"]) - 1
    return f"{who}{row['age_from']}+" if last > 100 else f"{who}{row['age_from']}-{last:.0f}"


@dataclass(frozen=True)
class _Seen:
    """The records of a shard.

    Parameters
    ----------
    people : a row per resident: day of birth and end, sex, and the first days of `FIRST` and of what is hidden
    values : the values of `VALUES`, with the age and sex they were measured at
    falls : falls with a code, and their days
    """

    people: pl.DataFrame
    values: pl.DataFrame
    falls: pl.DataFrame
    period: Period

    @classmethod
    def of(cls, events: pl.DataFrame, hidden: pl.DataFrame, period: Period) -> "_Seen":
        day = (pl.col("time") + timedelta(hours=8)).dt.date().cast(pl.Int32)
        events = events.with_columns(day=day).select("subject_id", "day", "code", "numeric_value")
        people = _first(events, "born", f"^{meds.birth_code}$")
        for name, pattern in {"end": f"^({meds.death_code}|{END})$", "death": f"^{meds.death_code}$", **FIRST}.items():
            people = people.join(_first(events, name, pattern), on="subject_id", how="left")
        for static in ("female", "education"):
            told = events.filter(code=static).select("subject_id", pl.col("numeric_value").alias(static))
            people = people.join(told, on="subject_id", how="left")
        people = people.join(hidden, on="subject_id").with_columns(pl.col(pl.Date).cast(pl.Int32))
        values = events.filter(pl.col("code").is_in(VALUES))
        values = values.join(people.select("subject_id", "born", "female", "hypertension", "diabetes"), on="subject_id")
        values = values.with_columns(age=(pl.col("day") - pl.col("born")) / DAYS_A_YEAR)
        return cls(people, values, events.filter(pl.col("code").str.contains(CODED_FALL)), period)

    def here(self, year: int, row: Row) -> pl.DataFrame:
        """The residents of the row's age and sex who are observed on the first day of a year."""
        day = self.period.new_year(year)
        age = (day - pl.col("born")) / DAYS_A_YEAR
        there = (pl.col("born") <= day) & (pl.col("end") > day)
        return self.people.filter(there & _of_sex(row) & _of_age(age, row))

    def each_year(self, row: Row, first: int = 0) -> Iterator[tuple[int, int, pl.DataFrame]]:
        """Yield the first day of each year, that of the next, and who is observed on the first."""
        for year in range(min(first, self.period.years - 1), self.period.years):
            yield self.period.new_year(year), self.period.new_year(year + 1), self.here(year, row)

    def measured(self, row: Row, concept: str) -> pl.DataFrame:
        """The plausible values of a concept at the row's age and sex."""
        low, high = PLAUSIBLE.get(concept, (0, 1000))
        plausible = (pl.col("code") == concept) & pl.col("numeric_value").is_between(low, high)
        return self.values.filter(plausible & _of_sex(row) & _of_age(pl.col("age"), row))


def _first(events: pl.DataFrame, name: str, pattern: str) -> pl.DataFrame:
    return (
        events.filter(pl.col("code").str.contains(pattern)).group_by("subject_id").agg(pl.col("day").min().alias(name))
    )


def _of_sex(row: Row) -> pl.Expr:
    return pl.col("female") == float(row["female"]) if row["female"] else pl.lit(value=True)


def _of_age(age: pl.Expr, row: Row) -> pl.Expr:
    return age.is_between(float(row["age_from"]), float(row["age_below"]), closed="left")


def _prevalence(column: str) -> Callable[[_Seen, Row], Tally]:
    """Who has something a year after the record begins, of all who are observed."""

    def tally(seen: _Seen, row: Row) -> Tally:
        here = seen.here(1, row)
        return Tally(here.filter(pl.col(column) < seen.period.new_year(1)).height, here.height)

    return tally


def _incidence(column: str, among: str | None = None) -> Callable[[_Seen, Row], Tally]:
    """First records of something, per year, after the year of registration."""

    def tally(seen: _Seen, row: Row) -> Tally:
        total = Tally(0, 0)
        for day, end, here in seen.each_year(row, first=1):
            at_risk = here.filter(pl.col(column).is_null() | (pl.col(column) >= day))
            at_risk = at_risk.filter(pl.col(among) < day) if among else at_risk
            until = pl.min_horizontal(column, "end", pl.lit(end))
            years = at_risk.select((until - day).sum()).item() / DAYS_A_YEAR
            total = total.plus(Tally(at_risk.filter(pl.col(column) < end).height, years))
        return total

    return tally


def _deaths(among: str | None = None) -> Callable[[_Seen, Row], Tally]:
    """Deaths per year, of all or of those with a record of something."""

    def tally(seen: _Seen, row: Row) -> Tally:
        total = Tally(0, 0)
        for day, end, everyone in seen.each_year(row):
            here = everyone.filter(pl.col(among) < day) if among else everyone
            years = here.select((pl.min_horizontal("end", pl.lit(end)) - day).sum()).item() / DAYS_A_YEAR
            total = total.plus(Tally(here.filter(pl.col("death") < end).height, years))
        return total

    return tally


def _coded_falls(seen: _Seen, row: Row) -> Tally:
    """Who has a fall by code in a calendar year, of those observed to its end."""
    total = Tally(0, 0)
    for day, end, here in seen.each_year(row):
        there = here.filter(pl.col("end") >= end)
        fell = seen.falls.filter(pl.col("day").is_between(day, end, closed="left"))
        total = total.plus(Tally(there.join(fell, on="subject_id", how="semi").height, there.height))
    return total


def _share_of_answers(concept: str, answer: float, of: str | None = None) -> Callable[[_Seen, Row], Tally]:
    """Answers of at least so much, of all answers to a question."""

    def tally(seen: _Seen, row: Row) -> Tally:
        yes = seen.measured(row, concept).filter(pl.col("numeric_value") >= answer).height
        return Tally(yes, seen.measured(row, of or concept).height)

    return tally


def _mean_without_hypertension(concept: str) -> Callable[[_Seen, Row], Tally]:
    """The mean value of those who are never found to have hypertension, readings that would be high left out."""

    def tally(seen: _Seen, row: Row) -> Tally:
        normal = seen.measured(row, concept).filter(pl.col("hypertension").is_null())
        limit = {"sbp": 140, "dbp": 90}.get(concept, 1000)
        normal = normal.filter(pl.col("numeric_value") < limit)
        return Tally(float(normal.select(pl.col("numeric_value").sum()).item()), normal.height)

    return tally


def _low_egfr(seen: _Seen, row: Row) -> Tally:
    """Residents whose median creatinine means an eGFR below 60 (CKD-EPI 2021), of those with a value."""
    female = pl.col("female") == 1
    ratio = pl.col("numeric_value") / 88.4 / pl.when(female).then(0.7).otherwise(0.9)
    alpha = pl.when(female).then(-0.241).otherwise(-0.302)
    low_part = pl.min_horizontal(ratio, pl.lit(1.0)).pow(alpha)
    sex = pl.when(female).then(1.012).otherwise(1.0)
    egfr = 142 * low_part * pl.max_horizontal(ratio, pl.lit(1.0)).pow(-1.2) * pl.lit(0.9938).pow(pl.col("age")) * sex
    values = seen.measured(row, "creatinine").group_by("subject_id").agg(egfr.median().alias("egfr"))
    return Tally(values.filter(pl.col("egfr") < 60).height, values.height)


def _share_of_residents(seen: _Seen, row: Row) -> Tally:
    everyone = {**row, "age_from": "0", "age_below": "200"}
    return Tally(seen.here(1, row).height, seen.here(1, everyone).height)


def _without_schooling(seen: _Seen, row: Row) -> Tally:
    here = seen.here(1, row)
    return Tally(here.filter(pl.col("education") == 1).height, here.height)


def _complication_prevalence(kind: str) -> Callable[[_Seen, Row], Tally]:
    def tally(seen: _Seen, row: Row) -> Tally:
        last = seen.period.years - 1
        here = seen.here(last, row).filter(pl.col("diabetes") < seen.period.new_year(last))
        return Tally(here.filter(pl.col(kind) < seen.period.new_year(last)).height, here.height)

    return tally


MEASURES: dict[str, Callable[[_Seen, Row], Tally]] = {
    "hypertension, found or not": _prevalence("hypertension_began"),
    "hypertension, registered": _prevalence("hypertension"),
    "hypertension, newly found": _incidence("hypertension"),
    "diabetes, found or not": _prevalence("diabetes_began"),
    "diabetes, registered": _prevalence("diabetes"),
    "new kidney disease in diabetes": _incidence("kidney", among="diabetes"),
    "new retinopathy in diabetes": _incidence("eye", among="diabetes"),
    "stroke in diabetes": _incidence("stroke", among="diabetes"),
    "infarction in diabetes": _incidence("infarction", among="diabetes"),
    "heart failure in diabetes": _incidence("heart_failure", among="diabetes"),
    "death in diabetes": _deaths(among="diabetes"),
    "retinopathy among diabetes": _complication_prevalence("eye"),
    "eGFR below 60": _low_egfr,
    "fell in the past year, asked": _share_of_answers("fell_past_year", 1),
    "fell twice or more, asked": _share_of_answers("falls_past_year", 2, of="fell_past_year"),
    "fall with a code": _coded_falls,
    "smokes": _share_of_answers("smoking", 2),
    "lives alone": _share_of_answers("living_alone", 1),
    "no schooling": _without_schooling,
    "mean sbp without hypertension": _mean_without_hypertension("sbp"),
    "mean dbp without hypertension": _mean_without_hypertension("dbp"),
    "mean bmi": _mean_without_hypertension("bmi"),
    "death": _deaths(),
    "share of residents": _share_of_residents,
}
