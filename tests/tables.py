"""Histories drawn as small tables.

    time       | code  | value
    2023-03-01 | sbp   | 130
               | rural | 1

The first line names the columns, in any order: `time`, `code`, and where wanted `value`, `unit`, `text`, `subject_id`,
or any other. A cell may be empty. An event without a time is always true of the resident.
"""

from datetime import datetime

import polars as pl

from features.events import normalised

NAMED = {"value": "numeric_value", "text": "text_value"}


def cells_from(table: str) -> pl.DataFrame:
    """Read a table as it is drawn: columns of text, null where a cell is empty."""
    names, *rows = [[cell.strip() or None for cell in line.split("|")] for line in table.splitlines() if line.strip()]
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def events_from(table: str, subject_id: int = 1) -> pl.DataFrame:
    """Read a table as events of the store, in the order drawn; of one resident unless a column says who."""
    cells = cells_from(table).rename(NAMED, strict=False)
    time = pl.Series("time", list(map(moment, cells["time"])), pl.Datetime("us"))
    if "subject_id" not in cells.columns:
        cells = cells.with_columns(pl.lit(subject_id).alias("subject_id"))
    return normalised(cells.with_columns(time))


def moment(text: str | None) -> datetime | None:
    """Read an ISO 8601 date or time, in UTC as the event store holds it; None where there is none."""
    return datetime.fromisoformat(text) if text else None
