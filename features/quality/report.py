"""All checks over one store, and what they found: for programs, and for a terminal, the worst first."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from features.cohort import Target
from features.events import EventStore
from features.quality.completeness import EXPECTED_KINDS, Completeness
from features.quality.digits import Digits
from features.quality.fault import Fault
from features.quality.freshness import Freshness
from features.quality.labels import Labels
from features.quality.repeats import Repeats
from features.quality.survey import Check, Survey, Tables
from features.quality.trajectories import Trajectories
from features.quality.values import Values
from features.quality.words import Words, columns
from features.vocabulary import Vocabulary

# What a terminal shows: so many faults, of one kind so many, and so many rows and years of a table.
FAULTS_SHOWN = 24
OF_A_KIND = 4
ROWS_SHOWN = 12
YEARS_SHOWN = 8
NONE = "·"

Row = tuple[str, ...]


@dataclass(frozen=True)
class Quality:
    """What is wrong with the records of a store: `faults`, the worst first, and the counted `tables` behind them."""

    survey: Survey
    residents: int
    events: int
    faults: tuple[Fault, ...]
    tables: Tables

    def words(self, language: str) -> Words:
        """Return what reports say in a language.

        Raises
        ------
        WeibingError
            If there is none of that name.
        """
        return Words.of(language, self.survey.vocabulary, self.survey.targets)

    def as_dict(self, language: str = "en") -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        words = self.words(language)
        return {
            "store": self.survey.store.name,
            "synthetic": bool(self.survey.store.description.get("synthetic")),
            "residents": self.residents,
            "events": self.events,
            "first_day": str(self.survey.first_day),
            "last_day": str(self.survey.last_day),
            "vocabulary": self.survey.vocabulary.version,
            "faults": [fault.as_dict() | {"sentence": words.fault(fault)} for fault in self.faults],
            **{name: _records(table) for name, table in self.tables.items()},
        }

    def overview(self, words: Words) -> list[str]:
        """Return what the records are, in a few lines."""
        survey = self.survey
        named = [words("synthetic")] if survey.store.description.get("synthetic") else []
        line = words(
            "overview",
            residents=self.residents,
            events=self.events,
            first=survey.first_day,
            last=survey.last_day,
            townships=len(survey.townships),
        )
        return [*named, line, *([words("relative")] if survey.relative else [])]

    def text(self, language: str = "en") -> str:
        """Return what a county's engineer must read first, as a terminal shows it."""
        words = self.words(language)
        lines = [f"{words('title')}: {self.survey.store.name}", *self.overview(words), ""]
        for section in (_read_first, _years, _last_digits, _outcomes):
            lines += section(self, words)
        return "\n".join(lines).rstrip()

    @cached_property
    def core(self) -> list[str]:
        """The concepts that everyone should have and somebody has: first what targets ask for, then the commonest."""
        concepts = self.survey.vocabulary.concepts
        asked = [name for target in self.survey.targets for name in target.concepts]
        years = self.tables["completeness_by_year"]
        mean = years.group_by("concept").agg(share=pl.col("residents").sum() / pl.col("observed").sum())
        common = mean.sort(["share", "concept"], descending=[True, False])["concept"].to_list()
        wanted = [name for name in asked if name in common and concepts[name].kind in EXPECTED_KINDS]
        return list(dict.fromkeys([*wanted, *common]))

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yield, of each target, the row of any outcome and then of each of its outcome concepts."""
        labels = {(row["label"], row["of_target"]): row for row in self.tables["labels"].iter_rows(named=True)}
        for target in self.survey.targets:
            yield labels[target.name, True]
            yield from (labels[concept, False] for concept in target.outcome)


def check(
    store: EventStore,
    targets: tuple[Target, ...] = (),
    *,
    at: str | None = None,
    vocabulary: Vocabulary | None = None,
    progress: Callable[[str], None] | None = None,
) -> Quality:
    """Find what is wrong with the records of a store, shard by shard.

    Parameters
    ----------
    store : read only
    targets : what is to be predicted, whose outcomes are looked for
    at : the day, not included, up to which records are looked at; without one, all of them
    vocabulary : what codes mean; without one, the built-in one
    progress : told what is under way

    Raises
    ------
    WeibingError
        If there are no dated events, a target names an unknown concept, or `at` is not a date.
    """
    with store.held() as still:
        found = _checked(Survey.of(still, targets, at, vocabulary), targets, progress)
    return replace(found, survey=replace(found.survey, store=store))


def _checked(survey: Survey, targets: tuple[Target, ...], progress: Callable[[str], None] | None) -> Quality:
    for target in targets:
        for concept in target.concepts:
            survey.vocabulary.concept(concept)
    checks: list[Check] = [
        each(survey) for each in (Completeness, Values, Digits, Trajectories, Labels, Freshness, Repeats)
    ]
    residents = events = 0
    for number, shard in enumerate(survey.shards(), 1):
        residents, events = residents + len(shard.residents), events + len(shard.recorded)
        for each in checks:
            each.look(shard)
        if progress:
            progress(f"{residents:,} residents of {number} shards")
    faults = sorted((fault for each in checks for fault in each.faults()), key=lambda fault: fault.rank)
    tables = {name: table for each in checks for name, table in each.tables().items()}
    return Quality(survey, residents, events, tuple(faults), tables)


def _records(table: pl.DataFrame) -> list[dict[str, Any]]:
    return table.with_columns(pl.col(pl.Float64).round_sig_figs(6), pl.col(pl.Date).cast(pl.String)).to_dicts()


def _read_first(quality: Quality, words: Words) -> list[str]:
    shown = chosen(quality.faults, FAULTS_SHOWN, OF_A_KIND)
    rows: list[Row] = [(words(fault.level.name.lower()), words.fault(fault)) for fault in shown]
    left = len(quality.faults) - len(shown)
    more = [f"  {words('more', count=left)}"] if left else []
    return [words("read_first"), *(_aligned(rows, "<<") or [f"  {words('nothing')}"]), *more, ""]


def chosen(faults: tuple[Fault, ...], most: int, of_a_kind: int) -> list[Fault]:
    """Return the worst faults, of one kind only so many, so that none is hidden by many of another."""
    seen: Counter[str] = Counter()
    kept: list[Fault] = []
    for fault in faults:
        seen[fault.kind] += 1
        if seen[fault.kind] <= of_a_kind and len(kept) < most:
            kept.append(fault)
    return kept


def _years(quality: Quality, words: Words) -> list[str]:
    table = quality.tables["completeness_by_year"]
    years = sorted(table["year"].unique())[-YEARS_SHOWN:]
    shares = {(row["concept"], row["year"]): _share(row["share"]) for row in table.iter_rows(named=True)}
    rows = [
        (words.concept(name), *(shares.get((name, year), "") for year in years)) for name in quality.core[:ROWS_SHOWN]
    ]
    if not rows:
        return []
    return [words("completeness"), *_aligned([("", *map(str, years)), *rows], "<" + ">" * len(years)), ""]


def _last_digits(quality: Quality, words: Words) -> list[str]:
    rows = [
        (words.concept(row["concept"]), f"{row['readings']:,}", *(f"{row[f'ends_in_{n}']:.0%}" for n in range(10)))
        for row in quality.tables["last_digits"].iter_rows(named=True)
    ]
    if not rows:
        return []
    header = ("", words("readings"), *map(str, range(10)))
    return [words("last_digits"), *_aligned([header, *rows], "<" + ">" * 11), ""]


def _outcomes(quality: Quality, words: Words) -> list[str]:
    rows = [
        (
            words.target(row["label"]) if row["of_target"] else f"  {words.concept(row['label'])}",
            f"{row['residents']:,}",
            f"{row['share']:.1%}",
            f"{row['events']:,}",
            _span(row["first_year"], row["last_year"]),
        )
        for row in quality.outcomes()
    ]
    if not rows:
        return []
    header = ("", words("residents"), words("share"), words("events"), words("year"))
    return [words("labels_title"), *_aligned([header, *rows], "<>>>>"), ""]


def _share(share: float) -> str:
    return f"{share:.0%}" if share else NONE


def _span(first: int | None, last: int | None) -> str:
    return NONE if first is None else str(first) if first == last else f"{first}-{last}"


def _aligned(rows: list[Row], sides: str) -> list[str]:
    """Lay rows out in columns, each to its left or right side, two blanks apart."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    return [f"  {'  '.join(map(_padded, row, widths, sides))}".rstrip() for row in rows]


def _padded(text: str, width: int, side: str) -> str:
    gap = " " * (width - columns(text))
    return text + gap if side == "<" else gap + text
