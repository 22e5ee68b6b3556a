"""The OMOP Common Data Model, versions 5.3 and 5.4: files, or a database, of a researcher's data set.

tables.py    which tables and columns are read
reading.py   files, as batches of text cells
database.py  the same from a database
rows.py      whose a row is, when it was, which concepts it names
amounts.py   numbers, units, answers and texts
concepts.py  concepts, as codes that the vocabulary knows
records.py   from the one to the other: events
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import polars as pl

from features.errors import WeibingError, did_you_mean
from features.sources.omop.concepts import Concepts
from features.sources.omop.database import opened_database
from features.sources.omop.reading import Files, Source
from features.sources.omop.records import Records
from features.sources.omop.rows import Reading
from features.sources.omop.tables import NEEDED, VOCABULARY
from features.sources.report import IngestReport, admit, opened_store
from features.sources.table.identities import ANYBODY, Who
from features.times import zone
from features.vocabulary import builtin

SOURCE = "omop"


def ingest_omop(
    source: Path | str,
    store_path: Path,
    *,
    timezone: str = "UTC",
    schema: str | None = None,
    who: Who = ANYBODY,
    today: date | None = None,
    progress: Callable[[str], None] | None = None,
) -> IngestReport:
    """Read an OMOP data set into an event store, new or there already: all of it or, if anything fails, nothing.

    Parameters
    ----------
    source : a folder or a zip of CSV or Parquet files, or the URL of a database; see `docs/omop.md`
    store_path : the store, created where there is none
    timezone : of the store, and of the data set's dates and times
    schema : where in a database the tables are; by default what the URL says, or the database's own default
    who : what is said of the persons' ids; the source is by default "omop", and rows of two sources with the same
        number are two records
    today : the day after whose end nothing can have happened; by default, today in that zone
    progress : called now and then with a line that says how far it is

    Raises
    ------
    WeibingError
        If the source or the store is not as it must be.
    """
    tell = progress or _in_silence
    report = IngestReport()
    reading = Reading(timezone, who.identities(SOURCE), report)
    until = today or datetime.now(zone(timezone)).date()
    with _opened(source, schema) as opened:
        _require_tables(opened)
        with opened_store(Path(store_path), timezone=timezone) as store:
            admit(_events(opened, reading, tell), store, report, until)
    return report


def _events(source: Source, reading: Reading, tell: Callable[[str], None]) -> Iterator[pl.DataFrame]:
    tell("reading the vocabulary tables")
    vocabulary = builtin()
    yield from Records(source, Concepts.read(source, vocabulary), vocabulary, reading, tell).events()
    tell("sorting the events into the store")


@contextmanager
def _opened(source: Path | str, schema: str | None) -> Iterator[Source]:
    if "://" in str(source):
        with opened_database(str(source), schema) as database:
            yield database
    else:
        yield Files.found(Path(source))


def _require_tables(source: Source) -> None:
    """Require a table that tells something, and in each table the columns without which it cannot be read."""
    tables = source.tables()
    if not set(tables) & (NEEDED.keys() - {*VOCABULARY}):
        known = ", ".join(NEEDED)
        raise WeibingError(f"{source.name}: there is no table of an OMOP data set. Those that are read are: {known}.")
    sentences = [sentence for table in NEEDED if table in tables for sentence in _what_lacks(source, table)]
    if sentences:
        raise WeibingError("\n".join(sentences))


def _what_lacks(source: Source, table: str) -> Iterator[str]:
    columns = source.columns(table)
    for wanted in NEEDED[table]:
        if not set(wanted) & set(columns):
            hint = did_you_mean(wanted[0], columns)
            what = " or ".join(f'"{column}"' for column in wanted)
            yield f"{table}: there is no column {what}. The columns are: {', '.join(columns)}.{hint}"


def _in_silence(line: str) -> None:
    pass
