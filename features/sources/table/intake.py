"""One table of the mapping, with its files: batch after batch, rows become events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import WeibingError
from features.sources.report import IngestReport, Reason
from features.sources.table.cells import cleaned
from features.sources.table.mapping import IN_ROW_ORDER, MISSING, Table
from features.sources.table.reading import Batch, Source
from features.sources.table.residents import are_identity_numbers, are_rounded_identity_numbers, integers, keyed
from features.sources.table.rows import RANK, RESIDENT, ROW, TIME, Notes, Rows, shown
from features.sources.table.rules import events_of, times
from features.sources.table.settings import Column

Ranks = dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class Intake:
    """A table of the mapping and what it is read from.

    `key` is the secret with which ids are hashed, if they are; `labels` is what a report calls each source.
    """

    table: Table
    sources: Sequence[Source]
    labels: Sequence[str]
    zone: str = "UTC"
    missing: Sequence[str] = MISSING
    key: bytes | None = None

    def events(self, report: IngestReport, progress: Callable[[str], None]) -> Iterator[pl.DataFrame]:
        """Yield the events of all files, births before the rest of a batch.

        Raises
        ------
        WeibingError
            If a file cannot be read, or a resident's id is not what the mapping says.
        """
        ranks = self._ranks(progress)
        rank = 0
        for rows in self._rows(report, progress):
            ranked = _ranked(rows, ranks, rank)
            rank += len(rows)
            timed = ranked.having(TIME, times(self.table.time, ranked)) if self.table.time else ranked
            for place, rule in self.table.rules():
                yield events_of(rule, timed.under(rule), place)

    def _rows(self, report: IngestReport, progress: Callable[[str], None]) -> Iterator[Rows]:
        for source, label in zip(self.sources, self.labels, strict=True):
            report.add_rows(label, 0)
            for batch in source.batches(sorted(set(self.table.columns()))):
                report.add_rows(label, len(batch.cells))
                notes = Notes(report, label, batch.place, len(batch.cells))
                yield self._about_residents(batch, notes, typed=source.typed)
                progress(f"{label}: {report.rows[label]:,} rows")

    def _about_residents(self, batch: Batch, notes: Notes, *, typed: bool) -> Rows:
        """Return the rows that pass the table's filters and have a resident."""
        frame = cleaned(batch.cells, self.missing).with_row_index(ROW)
        rows = Rows(frame, notes, self.zone, typed)
        passing = rows.filtered(rows.meeting(self.table.where))
        notes.rest(Reason.FILTERED, len(rows) - len(passing))
        known = passing.filled(self.table.resident.column)
        notes.rest(Reason.NO_RESIDENT, len(passing) - len(known))
        return known.having(RESIDENT, self._residents(known))

    def _residents(self, rows: Rows) -> pl.Series:
        column = self.table.resident.column
        ids = rows[column]
        if are_rounded_identity_numbers(ids):
            raise WeibingError(
                f'{rows.notes.label}: the identity numbers in the column "{column}" have lost their last digits, as '
                "happens when a spreadsheet takes them for numbers. Export the column as text."
            )
        if self.key:
            return keyed(ids, self.key)
        if are_identity_numbers(ids):
            raise WeibingError(
                f'{rows.notes.label}: the column "{column}" holds identity numbers, which never enter the store. '
                f"{_hashed(column)}"
            )
        return self._integers(rows, ids, column)

    def _integers(self, rows: Rows, ids: pl.Series, column: Column) -> pl.Series:
        found = integers(ids)
        if found.null_count():
            first = int(found.is_null().arg_true()[0])
            place = rows.notes.place(rows[ROW][first])
            raise WeibingError(
                f"{rows.notes.label}, {place}: the resident {shown(ids[first])} is not an integer. {_hashed(column)} "
                "If the row is about nobody, such as a sum, leave it out with where."
            )
        return found

    def _ranks(self, progress: Callable[[str], None]) -> Ranks:
        """Return the rank of every row among its resident's, for each order; reads the files for it beforehand."""
        orders = self.table.orders()
        if not orders:
            return {}
        wanted = {order: pl.lit(0) if order == IN_ROW_ORDER else pl.col(order) for order in orders}
        rows = self._rows(IngestReport(), lambda line: progress(f"{line}, to find their order"))
        frame = pl.concat([part.frame.select(RESIDENT, **wanted) for part in rows])
        return {order: _rank(frame[RESIDENT], _sortable(frame[order])) for order in orders}


def _hashed(column: Column) -> str:
    return f'Hash them with a secret: resident = {{ column = "{column}", key = "WEIBING_RESIDENT_KEY" }}.'


def _ranked(rows: Rows, ranks: Ranks, start: int) -> Rows:
    for order, rank in ranks.items():
        rows = rows.having(f"{RANK}{order}", pl.Series(rank[start : start + len(rows)]))
    return rows


def _sortable(keys: pl.Series) -> pl.Series:
    """Return the keys as numbers if all of them are, so that 9 comes before 10."""
    for dtype in (pl.Int64, pl.Float64):
        cast = keys.cast(dtype, strict=False)
        if cast.null_count() == keys.null_count():
            return cast
    return keys


def _rank(residents: pl.Series, keys: pl.Series) -> NDArray[np.int32]:
    """Return the rank of each row among its resident's, from 0; ties in the order in which they came."""
    by_resident = pl.DataFrame({"resident": residents, "key": keys}).select(
        pl.arg_sort_by("resident", "key", nulls_last=True, maintain_order=True)
    )
    order = by_resident.to_series().to_numpy()
    sorted_residents = residents.to_numpy()[order]
    begins = np.flatnonzero(np.diff(sorted_residents, prepend=sorted_residents[:1] - 1))
    length = np.diff(begins, append=len(order))
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order)) - np.repeat(begins, length)
    return ranks
