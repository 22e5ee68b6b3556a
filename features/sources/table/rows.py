"""Rows that rules work on: cleaned cells, each row about a resident, and the notes of what cannot be read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.records import OF_A_RECORD
from features.sources.report import IngestReport, Reason
from features.sources.table.cells import DATE_FORMATS, Numbers, ages, answers, instants, numbers, sensible
from features.sources.table.mapping import InColumn, Rule, Where
from features.sources.table.residents import IDENTITY_OR_MOBILE

# Columns of our own beside the file's, none of which begins like this.
OWN = "\0"
RESIDENT, TIME, ROW, CODE, RANK = "\0resident", "\0time", "\0row", "\0code", "\0rank "

LONGEST_EXAMPLE = 40
# A number of microseconds beyond this does not fit into 64 bits.
FARTHEST = 9e18


@dataclass
class Notes:
    """Counts what a batch holds that cannot be taken; a cell once, however many rules read it."""

    report: IngestReport
    label: str
    place: Callable[[int], str]
    rows: int
    _noted: dict[tuple[Reason, str], NDArray[np.bool_]] = field(default_factory=dict)

    def cells(self, reason: Reason, column: str, rows: pl.Series, text: pl.Series) -> None:
        """Count cells of a column, with the first as an example."""
        noted = self._noted.setdefault((reason, column), np.zeros(self.rows, bool))
        new = np.flatnonzero(~noted[rows.to_numpy()])
        noted[rows.to_numpy()] = True
        if len(new):
            example = None
            if not self.report.has_example(reason, thing := f"{self.label}, {column}"):
                example = f"{shown(text[int(new[0])])} in {self.place(rows[int(new[0])])}"
            self.report.remark(reason, thing, len(new), example=example)

    def names(self, reason: Reason, column: str, names: pl.Series) -> None:
        """Count names or answers of a column, each apart."""
        for name, count in names.value_counts().iter_rows():
            self.report.remark(reason, f"{self.label}, {column} = {shown(name)}", count)

    def rest(self, reason: Reason, count: int, what: str | None = None) -> None:
        """Count rows, or the events of a rule."""
        self.report.remark(reason, f"{self.label}, {what}" if what else self.label, count)


@dataclass(frozen=True)
class Rows:
    """Rows with the columns that are wanted, all text, and those of our own."""

    frame: pl.DataFrame
    notes: Notes
    zone: str
    typed: bool

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, column: str) -> pl.Series:
        """Return the cells of a column."""
        return self.frame[column]

    def filtered(self, keep: pl.Series) -> "Rows":
        """Return some of the rows."""
        return replace(self, frame=self.frame.filter(keep))

    def filled(self, *columns: str) -> "Rows":
        """Return the rows in which none of the columns is missing."""
        return replace(self, frame=self.frame.drop_nulls(columns))

    def having(self, name: str, column: pl.Series) -> "Rows":
        """Return the rows with a column more."""
        return replace(self, frame=self.frame.with_columns(column.alias(name)))

    def apart(self, column: str, separators: tuple[str, ...]) -> "Rows":
        """Return a row for each of the parts of a column's cells."""
        first, *others = separators
        text = self[column]
        for other in others:
            text = text.str.replace_all(other, first, literal=True)
        parts = self.having(column, text.str.split(first)).frame.explode(column)
        stripped = parts.with_columns(pl.col(column).str.strip_chars())
        return replace(self, frame=stripped.filter(pl.col(column) != ""))

    def of_a_record(self) -> list[str]:
        """Return the columns that say of which record a row is; none where that is not known."""
        return [name for name in OF_A_RECORD if name in self.frame.columns]

    def under(self, rule: Rule) -> "Rows":
        """Return the rows that meet the conditions of a rule, with the columns that it needs."""
        own = [name for name in self.frame.columns if name.startswith(OWN) or name in OF_A_RECORD]
        rows = replace(self, frame=self.frame.select(*own, *dict.fromkeys(rule.columns())))
        return rows.filtered(rows.meeting(rule.where)) if rule.where else rows

    def meeting(self, conditions: tuple[Where, ...]) -> pl.Series:
        """Return whether each row meets all conditions."""
        meets = pl.repeat(value=True, n=len(self), eager=True)
        for where in conditions:
            meets &= _meets(self[where.column], where)
        return meets

    def numbers(self, column: str) -> Numbers:
        """Read a column of numbers."""
        found = numbers(self[column])
        self._note(Reason.NOT_A_NUMBER, column, found.value.is_null())
        if found.bounds is not None:
            self._note(Reason.BOUND, column, found.bounds.is_not_null())
        return found

    def ages(self, column: str) -> pl.Series:
        """Read a column of ages, in years."""
        found = ages(self[column])
        self._note(Reason.NOT_AN_AGE, column, found.is_null())
        return found

    def dates(self, told: InColumn) -> pl.Series:
        """Read a column of dates, as instants; a file with dates of its own may have them in any column."""
        formats = (*told.format, *DATE_FORMATS) if self.typed else told.format
        found = instants(self[told.column], formats, self.zone)
        self._note(Reason.NOT_A_DATE, told.column, found.is_null())
        return found

    def after(self, start: pl.Series, microseconds: pl.Series, column: str) -> pl.Series:
        """Return times that much after others; counts the cells of the column that lead out of this world."""
        fits = microseconds.set(microseconds.abs() > FARTHEST, None).round().cast(pl.Int64)
        found = sensible((start.cast(pl.Int64) + fits).cast(pl.Datetime("us")))
        self._note(Reason.NOT_A_DATE, column, found.is_null() & microseconds.is_not_null() & start.is_not_null())
        return found

    def _note(self, reason: Reason, column: str, wrong: pl.Series) -> None:
        at = (wrong & self[column].is_not_null()).arg_true()
        if len(at):
            self.notes.cells(reason, column, self[ROW][at], self[column][at])


def shown(cell: str) -> str:
    """Return a cell as a message may show it: short, on one line, and without numbers that tell who it is."""
    line = " ".join(cell.split())
    short = line if len(line) <= LONGEST_EXAMPLE else f"{line[:LONGEST_EXAMPLE]}…"
    return f'"{re.sub(IDENTITY_OR_MOBILE, "***", short)}"'


def _meets(text: pl.Series, where: Where) -> pl.Series:
    """Return whether cells meet a condition; a missing one is none of any answers, and is no number."""
    meets = pl.repeat(value=True, n=len(text), eager=True)
    if where.one_of is not None:
        meets &= _is_one_of(text, where.one_of)
    if where.none_of is not None:
        meets &= ~_is_one_of(text, where.none_of)
    if where.at_least is not None:
        meets &= (numbers(text).value >= where.at_least).fill_null(value=False)
    if where.at_most is not None:
        meets &= (numbers(text).value <= where.at_most).fill_null(value=False)
    if where.present is not None:
        meets &= text.is_not_null() == where.present
    return meets


def _is_one_of(text: pl.Series, wanted: tuple[str, ...]) -> pl.Series:
    return answers(text).is_in(wanted).fill_null(value=False)
