"""What the rows of every table have in common: whose they are, when they were, which concepts they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from features.errors import WeibingError
from features.events import SCHEMA
from features.records import RECORD, TELLING, numbered
from features.sources.omop.reading import Source
from features.sources.omop.tables import WHO, key_of
from features.sources.report import IngestReport, Reason
from features.sources.table.cells import cleaned
from features.sources.table.identities import Identities
from features.sources.table.mapping import MISSING, InColumn
from features.sources.table.residents import IDENTITY_OR_MOBILE, are_identity_numbers, integers
from features.sources.table.rows import RESIDENT, ROW, TIME, Notes, Rows, shown
from features.sources.table.settings import Column


@dataclass(frozen=True)
class Reading:
    """How rows are read: the zone of their times, who their persons are, and the report of what cannot be used."""

    zone: str
    identities: Identities
    report: IngestReport


def rows_of(source: Source, table: str, wanted: Sequence[str], reading: Reading) -> Iterator[tuple[pl.DataFrame, Rows]]:
    """Yield the records of a table, and its rows that are about somebody, batch by batch; nothing without the table.

    A column that is wanted and not there is empty.

    Raises
    ------
    WeibingError
        If a person's id is not an integer, or is an identity number.
    """
    if table not in source.tables():
        return
    report, columns = reading.report, [WHO, key_of(table), *wanted]
    there = [column for column in dict.fromkeys(columns) if column in source.columns(table)]
    absent = [pl.lit(None, pl.String).alias(column) for column in columns if column not in there]
    report.add_rows(table, 0)
    for batch in source.batches(table, there):
        first = report.rows[table]
        notes = Notes(report, table, partial(_place, first + 1), len(batch))
        report.add_rows(table, len(batch))
        frame = cleaned(batch, MISSING).with_columns(absent).with_row_index(ROW)
        rows = Rows(_recorded(frame, table, first, reading.identities.source), notes, reading.zone, typed=False)
        yield rows.frame.select(rows.of_a_record()), _about_people(rows, reading.identities)


def dated(rows: Rows, columns: Sequence[str]) -> Rows:
    """Return the rows that have a time; the others are counted."""
    timed = rows.having(TIME, first_date(rows, columns)).filled(TIME)
    rows.notes.rest(Reason.UNDATED, len(rows) - len(timed))
    return timed


def first_date(rows: Rows, columns: Sequence[str]) -> pl.Series:
    """Return the time of each row: of several columns, by the first that tells it."""
    first, *others = columns
    found = rows.dates(InColumn(column=Column(first)))
    for other in others:
        untold = found.is_null()
        if untold.any():
            found = found.scatter(untold.arg_true(), rows.filtered(untold).dates(InColumn(column=Column(other))))
    return found


def concepts(rows: Rows, column: str) -> pl.Series:
    """Return the concepts of a column, 0 where there is none."""
    found = integers(rows[column])
    wrong = (found.is_null() & rows[column].is_not_null()).arg_true()
    if len(wrong):
        rows.notes.cells(Reason.NOT_A_NUMBER, column, rows[ROW][wrong], rows[column][wrong])
    return found.fill_null(0)


def texts(rows: Rows, column: str) -> pl.Series:
    """Return the texts of a column; identity and telephone numbers in them are struck out, and counted."""
    telling = rows[column].str.contains(IDENTITY_OR_MOBILE).fill_null(value=False)
    rows.notes.rest(Reason.STRUCK_OUT, int(telling.sum()), column)
    return rows[column].str.replace_all(IDENTITY_OR_MOBILE, "***")


def codes(rows: Rows, column: str) -> pl.Series:
    """Return the source's own codes.

    Raises
    ------
    WeibingError
        If they are identity numbers.
    """
    _require_no_identity_numbers(rows, column)
    return rows[column]


def events(rows: Rows, **columns: pl.Series | str | None) -> pl.DataFrame:
    """Return an event for each row, at its time unless one is given."""
    given = {"time": rows[TIME] if TIME in rows.frame.columns else None, **columns}
    told = {
        name: column if isinstance(column, pl.Series) else pl.lit(column, SCHEMA[name])
        for name, column in given.items()
    }
    return rows.frame.select(pl.col(RESIDENT).alias("subject_id"), *rows.of_a_record(), **told)


def _recorded(frame: pl.DataFrame, table: str, first: int, source: str) -> pl.DataFrame:
    """Return rows with the record that each is, and a number of this telling of it."""
    record = numbered(source, table, integers(frame[key_of(table)]))
    return frame.with_columns(record.alias(RECORD), pl.int_range(first, first + len(frame), eager=True).alias(TELLING))


def _about_people(rows: Rows, identities: Identities) -> Rows:
    known = rows.filled(WHO)
    rows.notes.rest(Reason.NO_RESIDENT, len(rows) - len(known))
    if not identities.given:
        return _numbered_people(known)
    found = known.having(RESIDENT, identities.residents(known[WHO])).filled(RESIDENT)
    rows.notes.rest(Reason.NOT_LISTED, len(known) - len(found))
    return found


def _numbered_people(rows: Rows) -> Rows:
    _require_no_identity_numbers(rows, WHO)
    found = integers(rows[WHO])
    if found.null_count():
        first = int(found.is_null().arg_true()[0])
        raise WeibingError(
            f"{rows.notes.label}, {rows.notes.place(rows[ROW][first])}: the person {shown(rows[WHO][first])} is not "
            "an integer, as OMOP requires."
        )
    return rows.having(RESIDENT, found)


def _require_no_identity_numbers(rows: Rows, column: str) -> None:
    if are_identity_numbers(rows[column]):
        raise WeibingError(
            f"{rows.notes.label}: the column {column} holds identity numbers, which never enter the store. Number the "
            "people otherwise, or empty the column, before you export it."
        )


def _place(first: int, row: int) -> str:
    return f"row {first + row}"
