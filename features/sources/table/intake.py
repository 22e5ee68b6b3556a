"""One table of the mapping, with its files: batch after batch, rows become events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import WeibingError
from features.records import RECORD, TELLING, identities
from features.sources.report import IngestReport, Reason
from features.sources.table.cells import cleaned
from features.sources.table.identities import NUMBERED, Identities
from features.sources.table.mapping import IN_ROW_ORDER, MISSING, Table
from features.sources.table.reading import Source
from features.sources.table.residents import are_identity_numbers, are_rounded_identity_numbers, integers
from features.sources.table.rows import RANK, RESIDENT, ROW, TIME, Notes, Rows, shown
from features.sources.table.rules import events_of, times
from features.sources.table.settings import Column

Ranks = dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class Intake:
    """A table of the mapping and what it is read from.

    `identities` says who ids are, where they are not the residents; `labels` is what a report calls each source.
    """

    table: Table
    sources: Sequence[Source]
    labels: Sequence[str]
    zone: str = "UTC"
    missing: Sequence[str] = MISSING
    identities: Identities = NUMBERED

    def events(self, report: IngestReport, progress: Callable[[str], None]) -> Iterator[pl.DataFrame]:
        """Yield the events of all files, births before the rest of a batch.

        Raises
        ------
        WeibingError
            If a file cannot be read, or a resident's id is not what the mapping says.
        """
        ranks = self._ranks(progress)
        rank = 0
        for announced, rows in self._rows(report, progress):
            if self.table.record:
                yield announced
            ranked = _ranked(rows, ranks, rank)
            rank += len(rows)
            timed = ranked.having(TIME, times(self.table.time, ranked)) if self.table.time else ranked
            for place, rule in self.table.rules():
                yield events_of(rule, timed.under(rule), place)

    def _rows(self, report: IngestReport, progress: Callable[[str], None]) -> Iterator[tuple[pl.DataFrame, Rows]]:
        """Yield the records of each batch, also of rows that are left out, and the rows about residents."""
        first = 0
        for source, label in zip(self.sources, self.labels, strict=True):
            report.add_rows(label, 0)
            for batch in source.batches(sorted(set(self.table.columns()))):
                report.add_rows(label, len(batch.cells))
                notes = Notes(report, label, batch.place, len(batch.cells))
                frame = cleaned(batch.cells, self.missing).with_row_index(ROW)
                every = Rows(frame.with_columns(self._record(frame, label, first)), notes, self.zone, source.typed)
                yield every.frame.select(every.of_a_record()), self._about_residents(every)
                first += len(batch.cells)
                progress(f"{label}: {report.rows[label]:,} rows")

    def _record(self, frame: pl.DataFrame, label: str, first: int) -> list[pl.Series]:
        """Return which record each row is, and a number of this telling of it; nothing where nobody says."""
        if not self.table.record:
            return []
        who = self.table.resident.column
        cells = {name: frame[name] for name in self.table.record}
        if who in cells:
            cells[who] = self._anybody(cells[who]).cast(pl.String)
        if self.identities.key is None and any(map(are_identity_numbers, cells.values())):
            raise WeibingError(
                f"{label}: identity numbers are part of the record, which never enter the store. {_hashed(who)}"
            )
        record = identities(self.identities.source, self.table.title, list(cells.values()), self.identities.key or b"")
        if who in cells:
            record = record.set(cells[who].is_null(), None)
        return [record.alias(RECORD), pl.int_range(first, first + len(frame), eager=True).alias(TELLING)]

    def _anybody(self, ids: pl.Series) -> pl.Series:
        return self.identities.residents(ids) if self.identities.given else integers(ids)

    def _about_residents(self, rows: Rows) -> Rows:
        """Return the rows that pass the table's filters and have a resident."""
        notes = rows.notes
        passing = rows.filtered(rows.meeting(self.table.where))
        notes.rest(Reason.FILTERED, len(rows) - len(passing))
        known = passing.filled(self.table.resident.column)
        notes.rest(Reason.NO_RESIDENT, len(passing) - len(known))
        found = known.having(RESIDENT, self._residents(known)).filled(RESIDENT)
        notes.rest(Reason.NOT_LISTED, len(known) - len(found))
        return found

    def _residents(self, rows: Rows) -> pl.Series:
        column = self.table.resident.column
        ids = rows[column]
        if are_rounded_identity_numbers(ids):
            raise WeibingError(
                f'{rows.notes.label}: the identity numbers in the column "{column}" have lost their last digits, as '
                "happens when a spreadsheet takes them for numbers. Export the column as text."
            )
        if self.identities.given:
            return self.identities.residents(ids)
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
        frame = pl.concat([part.frame.select(RESIDENT, **wanted) for _, part in rows])
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
