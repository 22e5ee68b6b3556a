"""Made-up records for the tests of quality: what a careful county would write, in which faults are planted."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from features.events import EventStore, normalised
from features.quality import Fault, Quality, check

TOWNSHIPS = ("Qingxi", "Baita", "Dahe")


def frame(rows: dict[str, object]) -> pl.DataFrame:
    """Make events of columns, each a list, an array or one value for all."""
    size = max(len(column) for column in rows.values() if isinstance(column, (list, np.ndarray, pl.Series)))
    spread = {
        name: column if isinstance(column, (list, np.ndarray, pl.Series)) else [column] * size
        for name, column in rows.items()
    }
    return normalised(pl.DataFrame(spread, strict=False))


def people(residents: int, *, born: datetime = datetime(1960, 5, 1), townships: tuple[str, ...] = ()) -> pl.DataFrame:
    """Make the birth and sex of residents 1, 2, …, who live in the townships by turns."""
    who = list(range(1, residents + 1))
    parts = [
        frame({"subject_id": who, "time": born, "code": "MEDS_BIRTH"}),
        frame({"subject_id": who, "time": None, "code": "female", "numeric_value": [n % 2 for n in who]}),
    ]
    if townships:
        named = [townships[n % len(townships)] for n in who]
        parts.append(frame({"subject_id": who, "time": None, "code": "township", "text_value": named}))
    return pl.concat(parts)


def measured(
    code: str, values: np.ndarray, *, start: datetime = datetime(2020, 1, 1), **columns: object
) -> pl.DataFrame:
    """Make a value for each resident 1, 2, … on days of one year."""
    days = [start + timedelta(days=number % 360) for number in range(len(values))]
    who = list(range(1, len(values) + 1))
    return frame({"subject_id": who, "time": days, "code": code, "numeric_value": values, **columns})


def quality_of(tmp_path, *events: pl.DataFrame, **options: object) -> Quality:
    """Put events into a store and check it."""
    store = EventStore.create(tmp_path / "county")
    store.append(events)
    return check(store, **options)


def kinds(quality: Quality) -> set[str]:
    return {fault.kind for fault in quality.faults}


def the(quality: Quality, kind: str) -> Fault:
    """Return the only fault of a kind."""
    (found,) = [fault for fault in quality.faults if fault.kind == kind]
    return found


def row(quality: Quality, table: str, **keys: object) -> dict[str, object]:
    """Return the only row of a table with these keys."""
    found = quality.tables[table]
    for name, value in keys.items():
        found = found.filter(pl.col(name).is_null() if value is None else pl.col(name) == value)
    (only,) = found.to_dicts()
    return only
