"""Files as batches of text cells: delimited text (plain, gzip, zip), Excel, Parquet.

A file is never held as a whole, but for Excel, whose format does not allow otherwise. Delimited text is cut into blocks
between two records, so that every row's line is known; a block is read by pyarrow.
"""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO, Protocol, cast

import fastexcel
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import WeibingError, did_you_mean
from features.sources.table.mapping import Table

# A block of this size makes a batch of some hundred thousand rows: large enough to be fast, small enough for 2 GiB.
BLOCK_BYTES = 16 << 20
# A record longer than this is a quotation mark that nobody closed.
RECORD_BYTES = 64 << 20
ROWS_PER_BATCH = 200_000
# The bit of a zip member's flags that says so (APPNOTE.TXT 4.4.4).
ENCRYPTED = 1

EXCEL = {".xlsx", ".xls", ".xlsb", ".xlsm"}


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a file, every cell a text; `place` says where a row is, as ``line 14``."""

    cells: pl.DataFrame
    place: Callable[[int], str]


class Source(Protocol):
    """One table of one file."""

    @property
    def name(self) -> str:
        """The file, and what within it, in the words of an error message."""

    @property
    def typed(self) -> bool:
        """Whether dates come as dates of the file's own, written down as ISO 8601."""

    def header(self) -> list[str]:
        """Return the names of the columns."""

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield the rows, with these columns alone."""


def sources(file: Path, table: Table) -> list[Source]:
    """Return the tables of a file that a table of the mapping takes: one, or one for each member of a zip.

    Raises
    ------
    WeibingError
        If the file cannot be read, or has no such sheet or member.
    """
    if not file.is_file():
        raise WeibingError(
            f"{file} is a folder. Name the files in it." if file.is_dir() else f"There is no file {file}."
        )
    suffix = file.suffix.lower()
    if suffix in EXCEL:
        return [Sheet(file, table)]
    if suffix == ".parquet":
        return [Parquet(file)]
    if suffix == ".zip":
        return [Delimited(file, table, member) for member in _members(file, table)]
    return [Delimited(file, table)]


def require_columns(source: Source, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sentence for each wanted column, told with its place in the mapping, that a source lacks."""
    header = source.header()
    sentences = []
    for place, column in wanted:
        if header.count(column) > 1:
            sentences.append(f'{place}: there are {header.count(column)} columns "{column}" in {source.name}.')
        elif column not in header:
            columns = f"The columns are: {', '.join(header)}."
            hint = did_you_mean(column, header)
            sentences.append(f'{place}: there is no column "{column}" in {source.name}.\n{columns}{hint}')
    return sentences


@dataclass(frozen=True)
class Delimited:
    """Text with a delimiter; a record may span lines within quotation marks."""

    file: Path
    table: Table
    member: str | None = None
    typed = False

    @property
    def name(self) -> str:
        """The file, and the member of a zip."""
        return f"{self.file.name}/{self.member}" if self.member else self.file.name

    @property
    def delimiter(self) -> str:
        """What stands between two cells: as the mapping says, or as the file's name does."""
        inner = (self.member or self.file.name).lower().removesuffix(".gz")
        return self.table.delimiter or ("\t" if inner.endswith((".tsv", ".tab")) else ",")

    def header(self) -> list[str]:
        """Return the names of the columns."""
        with self._opened() as stream:
            return self._header(next(_blocks(stream), b""))[0]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield the rows, with these columns alone."""
        with self._opened() as stream:
            header: list[str] = []
            line = 1
            for block in _blocks(stream):
                rows = block
                if not header:
                    header, above = self._header(block)
                    rows, line = block[above:], line + block.count(b"\n", 0, above)
                piece = _Block(self, header, self._as_utf8(rows, line), line)
                yield Batch(piece.cells(columns), piece.place)
                line += rows.count(b"\n")

    def _header(self, block: bytes) -> tuple[list[str], int]:
        """Return the names of the columns, and the bytes up to the first record."""
        end = 0
        for _ in range(self.table.skip):
            end = block.find(b"\n", end) + 1 or len(block)
        start, end = end, _end_of_first_record(block, end)
        written = self._as_utf8(block[start:end], 1).decode().removeprefix("\ufeff")
        names = [name.strip() for name in next(csv.reader([written], delimiter=self.delimiter), [])]
        if not any(names):
            raise WeibingError(f"{self.name}: there is no header in line {self.table.skip + 1}.")
        return names, end

    def _as_utf8(self, block: bytes, line: int) -> bytes:
        encoding = self.table.encoding
        try:
            text = block.decode(encoding)
        except UnicodeDecodeError as error:
            other = "gb18030" if encoding == "utf-8" else "utf-8"
            line += block.count(b"\n", 0, error.start)
            raise WeibingError(
                f'{self.name}, line {line}: this is not {encoding.upper()}. Try encoding = "{other}" in the mapping.'
            ) from error
        return block if encoding == "utf-8" else text.encode()

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with ExitStack() as opened:
                yield self._open(opened)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise WeibingError(f"{self.name} cannot be read to its end: {error}.") from error

    def _open(self, opened: ExitStack) -> IO[bytes]:
        if self.member:
            archive = opened.enter_context(zipfile.ZipFile(self.file))
            if archive.getinfo(self.member).flag_bits & ENCRYPTED:
                raise WeibingError(f"{self.name} is locked with a password. Unpack it first.")
            return opened.enter_context(archive.open(self.member))
        if self.file.suffix.lower() == ".gz":
            return opened.enter_context(cast(IO[bytes], gzip.open(self.file)))
        return opened.enter_context(self.file.open("rb"))


@dataclass(frozen=True)
class _Block:
    """Whole records of a delimited file, as UTF-8, that begin on a line."""

    source: Delimited
    header: list[str]
    content: bytes
    line: int

    def cells(self, columns: Sequence[str]) -> pl.DataFrame:
        """Read some columns as text.

        Raises
        ------
        WeibingError
            If a record has more or fewer cells than the header; names its line.
        """
        if not self.content.strip():
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        try:
            table = self._read([self.header.index(column) for column in columns])
        except pa.ArrowInvalid as error:
            raise WeibingError(self._what_is_wrong() or f"{self.source.name} cannot be read: {error}.") from error
        return pl.DataFrame(table.rename_columns(list(columns)))

    def _read(self, wanted: list[int]) -> pa.Table:
        # Names of our own, since a header may hold a name twice among the columns that nobody wants.
        names = [str(number) for number in range(len(self.header))]
        mark = self._end_mark()
        content = self.content + mark
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=len(content)),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self.source.delimiter, newlines_in_values=b'"' in content),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[names[number] for number in wanted],
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
        return self._without_end_mark(table) if mark else table

    def _end_mark(self) -> bytes:
        """Return a row to put behind a block that may end within an open quotation mark, which would swallow it."""
        if self.content.count(b'"') % 2 == 0:
            return b""
        return b"\n" + self.source.delimiter.join(["\0"] * len(self.header)).encode() + b"\n"

    def _without_end_mark(self, table: pa.Table) -> pa.Table:
        if table.num_rows and table[0][-1].as_py() == "\0":
            return table.slice(0, table.num_rows - 1)
        raise WeibingError(self._open_quotation_mark(max(line for line, _ in self._records())))

    def place(self, row: int) -> str:
        """Return the line on which a row begins."""
        for number, (line, _) in enumerate(self._records()):
            if number == row:
                return f"line {line}"
        return f"row {row + 1} after line {self.line}"

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the records that are not blank, with the line on which they begin; slow, for the sake of messages."""
        reader = csv.reader(io.StringIO(self.content.decode(), newline=""), delimiter=self.source.delimiter)
        line = self.line
        for record in reader:
            if record:
                yield line, record
            line = self.line + reader.line_num

    def _what_is_wrong(self) -> str | None:
        line = self.line
        try:
            for line, record in self._records():
                if len(record) != len(self.header):
                    return (
                        f"{self.source.name}, line {line}: there are {len(record)} cells where the header has "
                        f"{len(self.header)}. Is a delimiter or a quotation mark missing or left over?"
                    )
        except csv.Error:
            return self._open_quotation_mark(line)
        return None

    def _open_quotation_mark(self, line: int) -> str:
        return f"{self.source.name}, line {line} or soon after it: a quotation mark is opened and never closed."


@dataclass(frozen=True)
class Sheet:
    """A sheet of an Excel file: at most 1,048,576 rows, read as a whole."""

    file: Path
    table: Table
    typed = True

    @property
    def name(self) -> str:
        """The file, and the sheet where the mapping names one."""
        return f"{self.file.name}, sheet {self.table.sheet}" if self.table.sheet else self.file.name

    def header(self) -> list[str]:
        """Return the names of the columns."""
        return [name.strip() for name in self._load(rows=0).columns]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield the rows that are not blank, with these columns alone."""
        sheet = self._load()
        cells = sheet.rename(dict(zip(sheet.columns, self.header(), strict=True))).select(columns)
        filled = cells.select(~pl.all_horizontal(pl.all().is_null())).to_series()
        rows = filled.arg_true()
        for start in range(0, len(rows), ROWS_PER_BATCH):
            part = rows[start : start + ROWS_PER_BATCH]
            yield Batch(cells[part], partial(_row_of, part + self.table.skip + 2))

    def _load(self, rows: int | None = None) -> pl.DataFrame:
        try:
            book = fastexcel.read_excel(self.file)
            sheet = book.load_sheet(self._sheet(book), header_row=self.table.skip, n_rows=rows, dtypes="string")
        except (fastexcel.FastExcelError, OSError) as error:
            raise WeibingError(f"{self.name} cannot be read: {error}") from error
        return sheet.to_polars()

    def _sheet(self, book: fastexcel.ExcelReader) -> str | int:
        if self.table.sheet is None:
            return 0
        if self.table.sheet not in book.sheet_names:
            hint = did_you_mean(self.table.sheet, book.sheet_names)
            sheets = ", ".join(book.sheet_names)
            raise WeibingError(
                f'There is no sheet "{self.table.sheet}" in {self.file.name}. The sheets are: {sheets}.{hint}'
            )
        return self.table.sheet


@dataclass(frozen=True)
class Parquet:
    """A Parquet file; its numbers and dates are written down as text, as in the other files."""

    file: Path
    typed = True

    @property
    def name(self) -> str:
        """The file."""
        return self.file.name

    def header(self) -> list[str]:
        """Return the names of the columns."""
        with self._opened() as parquet:
            return list(parquet.schema_arrow.names)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield the rows, with these columns alone."""
        with self._opened() as parquet:
            first = 1
            for rows in parquet.iter_batches(ROWS_PER_BATCH, columns=list(columns)):
                cells = pl.DataFrame(rows).select(columns).cast(pl.String)
                yield Batch(cells, partial(_row_of, range(first, first + len(cells))))
                first += len(cells)

    @contextmanager
    def _opened(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        try:
            with pyarrow.parquet.ParquetFile(self.file) as parquet:
                yield parquet
        except (pa.ArrowInvalid, OSError) as error:
            raise WeibingError(f"{self.name} is not a Parquet file, or is damaged: {error}") from error


def _row_of(numbers: Sequence[int] | pl.Series, row: int) -> str:
    return f"row {numbers[row]}"


def _members(file: Path, table: Table) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise WeibingError(f"{file.name} cannot be read: {error}.") from error
    taken = [name for name in names if any(fnmatchcase(Path(name).name, pattern) for pattern in table.member)]
    if not taken:
        wanted = ", ".join(table.member)
        raise WeibingError(f'There is no member "{wanted}" in {file.name}. The members are: {", ".join(names)}.')
    return taken


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Cut a stream into blocks that end where a record does."""
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        block = rest + chunk
        end = _end_of_last_record(block)
        if not end and len(block) > RECORD_BYTES:
            end = block.rfind(b"\n") + 1 or len(block)
        if end:
            yield block[:end]
        rest = block[end:]
    if rest:
        yield rest


def _end_of_last_record(block: bytes) -> int:
    """Return the position behind the last line break that is not within quotation marks, or 0."""
    end = block.rfind(b"\n") + 1
    odd = block.count(b'"', 0, end) % 2
    while end and odd:
        before = block.rfind(b"\n", 0, end - 1) + 1
        odd ^= block.count(b'"', before, end) % 2
        end = before
    return end


def _end_of_first_record(block: bytes, start: int) -> int:
    """Return the position behind the first line break from `start` on that is not within quotation marks."""
    end, odd = start, 0
    while end < len(block):
        after = block.find(b"\n", end) + 1 or len(block)
        odd ^= block.count(b'"', end, after) % 2
        end = after
        if not odd:
            break
    return end
