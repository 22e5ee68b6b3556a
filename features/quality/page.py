"""The result as one page in HTML that needs nothing else: charts are drawn into it, and nobody is named.

A count of fewer than ten residents or events is written as ``<10``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from features.quality import charts
from features.quality.report import Quality, chosen
from features.quality.survey import TOWNSHIP
from features.quality.words import HIDDEN, NO_SHARE, Words, is_small

FAULTS_SHOWN = 60
OF_A_KIND = 10
ROWS_SHOWN = 50

# The tables of the page, and their columns; a count comes before the share that rests on it.
TABLES = {
    "labels": ("label", "residents", "share", "events", "first_year", "last_year"),
    "trajectories": ("kind", "residents", "share", "events"),
    "implausible_values": ("concept", "code", "unit", "events", "share", "smallest", "largest", "commonest"),
    "values": ("concept", "events", "smallest", "median", "largest", "outliers"),
    "unknown_codes": ("code", "events", "share"),
    "repeated_values": ("concept", "repeated", "share"),
    "freshness_by_township": ("township", "events", "last", "days"),
    "freshness": ("concept", "events", "last", "days"),
}
COUNTS = frozenset({"residents", "events", "outliers", "repeated"})


@dataclass(frozen=True)
class Chart:
    """A chart with its title, as SVG; a `wide` one may have to be scrolled."""

    title: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Listing:
    """A table as it is read: every cell is a text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int


def page(quality: Quality, language: str = "en") -> str:
    """Return the page in HTML.

    Raises
    ------
    WeibingError
        If there is no such language.
    """
    words = replace(quality.words(language), hides=True)
    shown = chosen(quality.faults, FAULTS_SHOWN, OF_A_KIND)
    environment = Environment(
        loader=PackageLoader("features.quality", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(
        words=words,
        language={"en": "en", "zh": "zh-CN"}[language],
        store=quality.survey.store.name,
        overview=quality.overview(words),
        faults=[(fault.level.name.lower(), words.fault(fault)) for fault in shown],
        left=len(quality.faults) - len(shown),
        charts=list(_charts(quality, words)),
        listings=list(_listings(quality, words)),
    )


def _charts(quality: Quality, words: Words) -> Iterator[Chart]:
    tables, core = quality.tables, quality.core[: charts.CONCEPTS_SHOWN]
    targets = [target.name for target in quality.survey.targets]
    specs = {
        "suspicious_numbers": charts.numbers(tables["suspicious_numbers"], words),
        "last_digits_chart": charts.digits(tables["last_digits"], words),
        "last_digits_by_township": charts.digits_of_townships(tables["last_digits_by_township"], words),
        "labels_chart": charts.labels(tables["labels_by_year"], targets, words),
        "volume": None if quality.survey.relative else charts.volume(tables["volume_by_month"], words),
        "completeness": charts.heat(tables["completeness_by_year"], "year", core, words),
        "completeness_by_township": charts.heat(tables["completeness_by_township"], TOWNSHIP, core, words),
    }
    for name, spec in specs.items():
        if spec is not None:
            yield Chart(words(name), charts.drawn(spec), wide=name.startswith("completeness"))


def _listings(quality: Quality, words: Words) -> Iterator[Listing]:
    for name, columns in TABLES.items():
        table = quality.tables[name]
        if name == "labels":
            table = table.filter(pl.col("of_target") | (pl.col("residents") > 0))
        if len(table):
            rows = [_cells(row, columns, words) for row in table.head(ROWS_SHOWN).iter_rows(named=True)]
            header = [words(f"column.{column}") for column in columns]
            yield Listing(words(f"table.{name}"), header, rows, max(len(table) - ROWS_SHOWN, 0))


def _cells(row: dict[str, Any], columns: tuple[str, ...], words: Words) -> list[str]:
    rests_on = next((row[column] for column in columns if column in COUNTS), 0)
    return [_cell(column, row[column], row, rests_on, words) for column in columns]


def _cell(column: str, value: Any, row: dict[str, Any], rests_on: int, words: Words) -> str:
    if column in COUNTS:
        return HIDDEN if is_small(value) else f"{value:,}"
    if column == "share":
        return NO_SHARE if is_small(rests_on) else f"{value:.1%}"
    return _named(column, value, row, words)


def _named(column: str, value: Any, row: dict[str, Any], words: Words) -> str:
    if value is None:
        return {"unit": words("no_unit"), TOWNSHIP: words("unplaced")}.get(column, "")
    if column == "concept":
        return words.concept(value)
    if column == "label":
        return words.target(value) if row["of_target"] else words.concept(value)
    if column == "kind":
        return words(f"kind.{value}")
    return f"{value:g}" if isinstance(value, float) else str(value)
