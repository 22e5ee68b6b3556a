"""A county's tables: the door by which most records come in. A mapping file says how they become events.

mapping.py    the mapping file, in frozen models; settings.py holds the kinds of setting
reading.py    files, as batches of text cells
cells.py      text cells, as numbers, ages and times
identities.py who the ids of a source are: by a crosswalk, or hashed; residents.py keeps identity numbers out
rows.py       cleaned rows, and notes of what cannot be read
rules.py      rows, as events
intake.py     a table with its files, from the one to the other
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path

import polars as pl

from features.errors import WeibingError
from features.sources.report import IngestReport, admit, opened_store
from features.sources.table.identities import ANYBODY, Identities, Who
from features.sources.table.intake import Intake
from features.sources.table.mapping import Mapping, Table, read_mapping, table_lines
from features.sources.table.reading import require_columns, sources
from features.times import zone


def ingest_tables(
    files: Sequence[Path],
    store_path: Path,
    mapping: Path,
    *,
    who: Who = ANYBODY,
    today: date | None = None,
    progress: Callable[[str], None] | None = None,
) -> IngestReport:
    """Read tables into an event store, new or there already: all that they tell or, if anything fails, nothing.

    Parameters
    ----------
    files : the tables; each must be one that the mapping knows
    store_path : the store, created where there is none
    mapping : how tables become events, see `docs/records.md`
    who : what is said of the residents' ids beyond what the mapping says
    today : the day after whose end nothing can have happened; by default, today in the county's time zone
    progress : called now and then with a line that says how far it is

    Raises
    ------
    WeibingError
        If the mapping, a file or the store is not as it must be.
    """
    read = read_mapping(mapping)
    intakes = _plan(files, read, mapping, who)
    report = IngestReport()
    description = {"relative_times": True} if read.relative_times else {}
    with opened_store(store_path, timezone=read.timezone, name=read.name, description=description) as store:
        events = _events(intakes, report, progress or _in_silence)
        admit(events, store, report, today or datetime.now(zone(read.timezone)).date())
    return report


def _events(intakes: list[Intake], report: IngestReport, progress: Callable[[str], None]) -> Iterator[pl.DataFrame]:
    """Yield all events; tables that tell births come first, so that the rest can be held against them."""
    for intake in sorted(intakes, key=lambda intake: intake.table.birth is None):
        yield from intake.events(report, progress)
    progress("sorting the events into the store")


def _plan(files: Sequence[Path], mapping: Mapping, path: Path, who: Who) -> list[Intake]:
    """Return what to read, having found the files and the columns to be there; names all that are not."""
    tables = [(table, [file for file in files if table.takes(file)]) for table in mapping.table]
    _require_all_taken(files, tables, path)
    found = [(table, [source for file in taken for source in sources(file, table)]) for table, taken in tables]
    lines = table_lines(path.read_text(encoding="utf-8-sig"))
    sentences = [
        sentence
        for number, (table, parts) in enumerate(found)
        for source in parts
        for sentence in require_columns(source, _wanted(table, f"{path.name}, {_place(number, lines)}"))
    ]
    if sentences:
        raise WeibingError("\n".join(sentences))
    names = [source.name for _, parts in found for source in parts]
    return [
        Intake(
            table,
            parts,
            [name if names.count(name) == 1 else f"{name} (table {number + 1})" for name in (it.name for it in parts)],
            table.timezone or mapping.timezone,
            mapping.missing if table.missing is None else table.missing,
            _identities(table, mapping, path, who),
        )
        for number, (table, parts) in enumerate(found)
        if parts
    ]


def _identities(table: Table, mapping: Mapping, path: Path, who: Who) -> Identities:
    source = who.source or mapping.source_of(table)
    if who.crosswalk and not source:
        raise WeibingError(f'{path.name}: say which source of the crosswalk the ids are of, such as source = "his".')
    return who.identities(source, table.resident.key)


def _require_all_taken(files: Sequence[Path], tables: list[tuple[Table, list[Path]]], path: Path) -> None:
    if not files:
        raise WeibingError("There are no files to read.")
    patterns = ", ".join(pattern for table, _ in tables for pattern in table.file)
    taken = {file for _, of_table in tables for file in of_table}
    for file in files:
        if file not in taken:
            raise WeibingError(f"{path.name}: no table takes the file {file.name}. The tables take: {patterns}.")


def _wanted(table: Table, place: str) -> list[tuple[str, str]]:
    """Return the columns that a table needs, each with its place in the mapping."""
    rules = list(table.rules())
    of_rules = [(f"{place}, {rule_place}", column) for rule_place, rule in rules for column in rule.columns()]
    elsewhere = set(table.columns()) - {column for _, column in of_rules}
    return [*((place, column) for column in sorted(elsewhere)), *dict.fromkeys(of_rules)]


def _place(number: int, lines: list[int]) -> str:
    return f"table {number + 1} (line {lines[number]})" if number < len(lines) else f"table {number + 1}"


def _in_silence(line: str) -> None:
    pass
