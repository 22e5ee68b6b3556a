"""Which of a county's codes the vocabulary knows, by count, so that the mapping work can be seen.

The codes are a column of a table, or all those of an event store.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from features.errors import WeibingError, did_you_mean
from features.events import EventStore
from features.sources.table.cells import cleaned, numbers
from features.sources.table.mapping import MISSING, Resident, Table
from features.sources.table.reading import Source, sources
from features.sources.table.settings import ENCODINGS, Column
from features.vocabulary import HIERARCHICAL, Vocabulary, builtin

# What a terminal shows of the known codes and of the unknown ones.
SHOWN = 20
# The marks of codes that somebody has looked up (docs/vocabulary.md); the others are shown.
VERIFIED = frozenset({"VP", "VI", ""})
UNVERIFIED = "A mark such as [M] says that nobody has looked the code up yet: see docs/vocabulary.md."

CODE, COUNT = "\0code", "\0count"


@dataclass(frozen=True)
class Coverage:
    """How often each code of a source occurs, and what the vocabulary makes of it."""

    source: str
    counts: dict[str, int]
    vocabulary: Vocabulary

    @property
    def known(self) -> dict[str, int]:
        """The codes that stand for a concept, the most frequent first."""
        return self._where(lambda code: bool(self.vocabulary.meanings(code)))

    @property
    def unknown(self) -> dict[str, int]:
        """The codes that stand for none, the most frequent first."""
        return self._where(lambda code: not self.vocabulary.meanings(code))

    def concepts(self, code: str) -> list[str]:
        """Return the concepts that a code stands for."""
        return [meaning.concept for meaning in self.vocabulary.meanings(code)]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        known, unknown = self.known, self.unknown
        return {
            "source": self.source,
            "codes": {"known": len(known), "unknown": len(unknown)},
            "occurrences": {"known": sum(known.values()), "unknown": sum(unknown.values())},
            "known": [self._described(code, count) for code, count in known.items()],
            "unknown": [{"code": code, "count": count} for code, count in unknown.items()],
        }

    def text(self, shown: int = SHOWN) -> str:
        """Return it as a terminal shows it: the sums, the most frequent known codes, the most frequent unknown ones."""
        known, unknown = self.known, self.unknown
        lines = [
            f"Codes in {self.source}",
            f"  {_of('codes', len(known), len(self.counts))}",
            f"  {_of('occurrences', sum(known.values()), sum(self.counts.values()))}",
            *_listed("Known", known, shown, self._explained),
            *_listed("Unknown", unknown, shown, lambda code: ""),
            *([UNVERIFIED] if any(self._mark(code) not in VERIFIED for code in list(known)[:shown]) else []),
        ]
        return "\n".join(lines)

    def _where(self, wanted: Callable[[str], bool]) -> dict[str, int]:
        of_interest = [(code, count) for code, count in self.counts.items() if wanted(code)]
        return dict(sorted(of_interest, key=lambda it: (-it[1], it[0])))

    def _described(self, code: str, count: int) -> dict[str, Any]:
        return {
            "code": code,
            "count": count,
            "concepts": self.concepts(code),
            "listed_as": self.vocabulary.listed(code),
            "trust": self._mark(code),
        }

    def _mark(self, code: str) -> str:
        return self.vocabulary.trust.get(self.vocabulary.listed(code) or "", "")

    def _explained(self, code: str) -> str:
        """Return the concepts of a code, by which listed code it is known, and the mark of one nobody has verified."""
        found = [self.vocabulary.concepts[name] for name in self.concepts(code)]
        said = ", ".join(f"{concept.name} {concept.label_zh}" for concept in found)
        listed, mark = self.vocabulary.listed(code), self._mark(code)
        beginning = f" (as {listed})" if listed not in {None, code} else ""
        return f"{said}{beginning}" + (f" [{mark}]" if mark not in VERIFIED else "")


def check_codes(
    source: Path,
    *,
    column: str = "code",
    system: str | None = None,
    system_column: str | None = None,
    count_column: str | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Coverage:
    """Count the codes of a table, or of an event store, and look each of them up in the vocabulary.

    Parameters
    ----------
    source : a table (CSV, gzip, zip, Excel, Parquet), or the folder of an event store
    column : where a table's codes stand
    system : the system of all codes, such as ``ICD10``; without any, codes are written as in the store
    system_column : where a table has the system of each code
    count_column : where a table says how often each code occurs; without one, a row is one time
    separator : what stands between codes where a cell holds several
    encoding : of a table that is text, ``utf-8`` or ``gb18030``

    Raises
    ------
    WeibingError
        If the file cannot be read, or a column is not there.
    """
    if source.is_dir():
        counts = _counts_of_store(EventStore.open(source))
    else:
        codes = _Codes(column, system, system_column, count_column, separator)
        counts = Counter()
        for cells in _cells(source, codes.columns, encoding):
            counts.update(codes.counted(cells))
    return Coverage(source.name, dict(counts), builtin())


@dataclass(frozen=True)
class _Codes:
    """How a table holds codes."""

    column: str
    system: str | None
    system_column: str | None
    count_column: str | None
    separator: str | None

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.column, self.system_column, self.count_column) if name]

    def counted(self, cells: pl.DataFrame) -> dict[str, int]:
        """Return how often each code occurs in some rows, written as the event store writes it."""
        rows = cells.with_columns(self._counts(cells).alias(COUNT)).drop_nulls(self.column)
        if self.separator:
            parts = rows.with_columns(pl.col(self.column).str.split(self.separator)).explode(self.column)
            rows = parts.with_columns(pl.col(self.column).str.strip_chars()).filter(pl.col(self.column) != "")
        summed = rows.select(self._code().alias(CODE), COUNT).group_by(CODE).agg(pl.col(COUNT).sum())
        return dict(summed.iter_rows())

    def _counts(self, cells: pl.DataFrame) -> pl.Series:
        if self.count_column is None:
            return pl.repeat(1, len(cells), dtype=pl.Int64, eager=True)
        return numbers(cells[self.count_column]).value.fill_null(0).cast(pl.Int64)

    def _code(self) -> pl.Expr:
        """Return the code with its system in front; in capitals where the system is a classification."""
        code = pl.col(self.column)
        if not (self.system or self.system_column):
            return code
        system = pl.col(self.system_column) if self.system_column else pl.lit(self.system)
        spelled = pl.when(system.is_in(sorted(HIERARCHICAL))).then(code.str.to_uppercase()).otherwise(code)
        return pl.when(system.is_null()).then(code).otherwise(system + "//" + spelled)


def _cells(file: Path, columns: list[str], encoding: str) -> Iterator[pl.DataFrame]:
    if encoding.lower() not in ENCODINGS:
        raise WeibingError(f'The encoding "{encoding}" is not known. Use "utf-8" or "gb18030".')
    # Of a mapping's table, only how the file is written matters here.
    written = Table.model_construct(
        file=(file.name,), resident=Resident(column=Column(columns[0])), encoding=ENCODINGS[encoding.lower()]
    )
    for source in sources(file, written):
        _require_columns(source, columns)
        for batch in source.batches(list(dict.fromkeys(columns))):
            yield cleaned(batch.cells, MISSING)


def _require_columns(source: Source, columns: list[str]) -> None:
    header = source.header()
    for column in columns:
        if column not in header:
            hint = did_you_mean(column, header)
            columns_there = ", ".join(header)
            raise WeibingError(f'There is no column "{column}" in {source.name}, but {columns_there}.{hint}')


def _counts_of_store(store: EventStore) -> Counter[str]:
    counts: Counter[str] = Counter()
    with store.held() as still:
        for shard in still.shards:
            counts.update(dict(pl.scan_parquet(shard).group_by("code").agg(pl.len()).collect().iter_rows()))
    return counts


def _of(what: str, known: int, total: int) -> str:
    share = f"{100 * known / total:6.1f} %" if total else ""
    return f"known {known:>9,} of {total:>9,} {what:<11}  {share}".rstrip()


def _listed(title: str, codes: dict[str, int], shown: int, explained: Callable[[str], str]) -> Iterator[str]:
    if codes:
        yield title
    for code, count in list(codes.items())[:shown]:
        yield f"  {count:>9,}  {code}  {explained(code)}".rstrip()
    if len(codes) > shown:
        yield f"  {sum(list(codes.values())[shown:]):>9,}  in {len(codes) - shown:,} more codes"
