"""Registers that an office keeps as tables: who residents are, and who is under contract with a panel.

CSV in UTF-8 or GB18030, also packed; Excel; Parquet. A cell that cannot be what its column says is refused, by its
line, and then nothing of the file is kept. No message shows what a cell holds: it may be a name.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import polars as pl

from features.errors import WeibingError, did_you_mean
from features.sources.table.cells import cleaned
from features.sources.table.mapping import MISSING, Resident, Table
from features.sources.table.reading import BLOCK_BYTES, EXCEL, Source, sources
from features.sources.table.residents import are_identity_numbers, integers
from features.sources.table.settings import Column
from serving.store.identity import Identity
from serving.store.people import Person, Sex

T = TypeVar("T")

RESIDENT = "resident"
PERSON = ("name", "number", "telephone", "address", "township", "sex", "birth_year")
# As the office writes it, or by number: GB/T 2261.1-2003, where 0 and 9 are not known.
SEXES: dict[str, Sex | None] = {
    **dict.fromkeys(("female", "f", "女", "2"), "female"),
    **dict.fromkeys(("male", "m", "男", "1"), "male"),
    **dict.fromkeys(("0", "9", "unknown", "未知"), None),
}
YEARS = range(1850, 2101)
PACKED = {".gz", ".zip", ".parquet", *EXCEL}


class Row(NamedTuple):
    """A row of a register, and where it is, as ``people.csv, line 14``."""

    place: str
    resident: int
    cells: dict[str, str | None]


def read_people(file: Path) -> Iterator[Person]:
    """Yield who residents are; columns: resident, and any of those of `PERSON`.

    Raises
    ------
    WeibingError
        If the file cannot be read, a resident is told of twice, or a cell cannot be what its column says.
    """
    for place, resident, cells in _rows(file, PERSON):
        yield Person(
            resident,
            identity=_identity(cells, place),
            township=cells["township"],
            sex=_cell(cells, "sex", place, _sex, "female or male, 女 or 男, 2 or 1"),
            birth_year=_cell(cells, "birth_year", place, lambda text: YEARS[YEARS.index(int(text))], "a year"),
        )


def read_residents(file: Path) -> list[int]:
    """Return whom a register lists, in the column resident.

    Raises
    ------
    WeibingError
        If the file cannot be read, lists nobody, lists a resident twice, or a cell is no number of a resident.
    """
    found = [row.resident for row in _rows(file, ())]
    if not found:
        raise WeibingError(f"{file.name} lists nobody.")
    return found


def _rows(file: Path, optional: Sequence[str]) -> Iterator[Row]:
    written = Table.model_construct(
        file=(file.name,), resident=Resident(column=Column(RESIDENT)), encoding=_encoding(file)
    )
    known: set[int] = set()
    for source in sources(file, written):
        columns = _columns(source, optional)
        for batch in source.batches(columns):
            cells = cleaned(batch.cells, MISSING)
            residents = _residents(cells[RESIDENT], source.name, batch.place)
            for number, (resident, row) in enumerate(zip(residents, cells.iter_rows(named=True), strict=True)):
                place = f"{source.name}, {batch.place(number)}"
                if resident in known:
                    raise WeibingError(f"{place}: this resident is in the file before. Leave one of the rows out.")
                known.add(resident)
                yield Row(place, resident, dict.fromkeys(optional) | row)


def _encoding(file: Path) -> str:
    """Return how a text is written: in GB18030 where it is no UTF-8."""
    if file.suffix.lower() in PACKED or not file.is_file():
        return "utf-8"
    reader = getincrementaldecoder("utf-8")()
    try:
        with file.open("rb") as opened:
            while block := opened.read(BLOCK_BYTES):
                reader.decode(block)
            reader.decode(b"", final=True)
    except UnicodeDecodeError:
        return "gb18030"
    except OSError as error:
        raise WeibingError(f"{file} cannot be read: {error.strerror}.") from error
    return "utf-8"


def _columns(source: Source, optional: Sequence[str]) -> list[str]:
    header = source.header()
    if RESIDENT not in header:
        there = ", ".join(header)
        raise WeibingError(
            f'{source.name}: there is no column "{RESIDENT}". The columns are: {there}.{did_you_mean(RESIDENT, header)}'
        )
    # One that is misspelt would be left out in silence.
    for name in header if optional else ():
        if name not in (RESIDENT, *optional):
            known = ", ".join((RESIDENT, *optional))
            raise WeibingError(
                f'{source.name}: the column "{name}" is not known. Those that are: {known}.'
                f"{did_you_mean(name, list(optional))}"
            )
    return [name for name in header if name in (RESIDENT, *optional)]


def _residents(cells: pl.Series, name: str, place: Callable[[int], str]) -> list[int]:
    numbers = integers(cells)
    if are_identity_numbers(cells):
        raise WeibingError(
            f"{name}: residents are identity numbers. Name them as the event store does; identity numbers belong in "
            'the column "number".'
        )
    wrong = numbers.is_null().arg_true()
    if len(wrong):
        raise WeibingError(f"{name}, {place(int(wrong[0]))}: the resident is no number. It is that of the event store.")
    return numbers.to_list()


def _identity(cells: dict[str, str | None], place: str) -> Identity | None:
    name, *more = (cells[each] for each in ("name", "number", "telephone", "address"))
    if name is None and any(more):
        raise WeibingError(f"{place}: there is a number, a telephone or an address, and no name. Name the resident.")
    return None if name is None else Identity(name, *more)


def _sex(text: str) -> Sex | None:
    return SEXES[text.casefold()]


def _cell(
    cells: dict[str, str | None], column: str, place: str, read: Callable[[str], T | None], expected: str
) -> T | None:
    """Read a cell; None where it is empty."""
    text = cells[column]
    try:
        return None if text is None else read(text)
    except (KeyError, ValueError):
        raise WeibingError(f"{place}: the {column} must be {expected}.") from None
