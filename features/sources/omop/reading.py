"""Where an OMOP data set lies: its tables, as batches of text cells, from files; `database.py` has the other way.

Names of tables and columns count in small letters, whatever the source writes. What is read is never held as a whole.
"""

import csv
import gzip
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Protocol, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import WeibingError
from features.sources.omop.tables import NEEDED, NOT_TAKEN

# A block of this size makes a batch of some ten thousand rows. Arrow keeps a dozen of them in memory.
BLOCK_BYTES = 4 << 20
ROWS_PER_BATCH = 200_000

TABLES = frozenset((*NEEDED, *NOT_TAKEN))
DELIMITED = frozenset({".csv", ".tsv", ".txt"})
PARQUET = ".parquet"
# What zip archives made on a Mac hold beside the files.
LITTER = "__MACOSX"

_WRONG_WIDTH = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")


class Only(NamedTuple):
    """The rows that are wanted: those in which a column has one of some values."""

    column: str
    values: Sequence[int] | Sequence[str]


class Source(Protocol):
    """An OMOP data set."""

    @property
    def name(self) -> str:
        """What a message calls it."""

    def tables(self) -> list[str]:
        """Return the names of its tables."""

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""

    def batches(self, table: str, columns: Sequence[str], only: Only | None = None) -> Iterator[pl.DataFrame]:
        """Yield a table's rows, every cell a text or null; rows that are not wanted may be among them."""

    def rows(self, table: str) -> int:
        """Count a table's rows."""


@dataclass(frozen=True)
class Part:
    """A file that holds rows of a table: in a folder, or in a zip."""

    where: Path
    inner: str

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"{self.where.name}/{self.inner}"

    @property
    def unpacked(self) -> PurePosixPath:
        """Its name in small letters and without ``.gz``."""
        return PurePosixPath(self.inner.lower().removesuffix(".gz"))

    @property
    def is_parquet(self) -> bool:
        """Whether it is a Parquet file; otherwise it is delimited text."""
        return self.unpacked.suffix == PARQUET

    def columns(self) -> list[str]:
        """Return the names of the columns."""
        if not self.is_parquet:
            return self._layout().columns
        with self._opened() as stream:
            return [name.lower() for name in pyarrow.parquet.ParquetFile(stream).schema_arrow.names]

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows, with these columns alone."""
        with self._opened() as stream:
            yield from self._of_parquet(stream, columns) if self.is_parquet else self._of_text(stream, columns)

    def rows(self) -> int:
        """Count the rows."""
        if not self.is_parquet:
            return sum(map(len, self.batches(self.columns()[:1])))
        with self._opened() as stream:
            return int(pyarrow.parquet.ParquetFile(stream).metadata.num_rows)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with ExitStack() as opened:
                yield self._open(opened)
        except (pa.ArrowInvalid, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise WeibingError(f"{self.name}{_what_is_wrong(error)}") from error

    def _open(self, opened: ExitStack) -> IO[bytes]:
        zipped = self.where.is_file()
        stream: IO[bytes]
        if zipped:
            stream = opened.enter_context(opened.enter_context(zipfile.ZipFile(self.where)).open(self.inner))
        else:
            stream = opened.enter_context((self.where / self.inner).open("rb"))
        if self.inner.lower().endswith(".gz"):
            stream = cast(IO[bytes], opened.enter_context(gzip.GzipFile(fileobj=stream)))
        return opened.enter_context(_seekable(stream)) if zipped and self.is_parquet else stream

    def _of_parquet(self, stream: IO[bytes], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        parquet = pyarrow.parquet.ParquetFile(stream)
        actual = {name.lower(): name for name in parquet.schema_arrow.names}
        for rows in parquet.iter_batches(ROWS_PER_BATCH, columns=[actual[column] for column in columns]):
            frame = pl.DataFrame(rows).rename(str.lower).select(columns)
            yield frame.select(_as_text(frame[column]) for column in columns)

    def _of_text(self, stream: IO[bytes], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        layout = self._layout()
        reader = pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(
                column_names=layout.columns, skip_rows=1, block_size=BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        )
        for rows in reader:
            yield pl.DataFrame(rows).select(columns)

    def _layout(self) -> "_Layout":
        with self._opened() as stream:
            layout = _Layout.of(stream.readline().decode("utf-8-sig", errors="replace").strip("\r\n"))
        if not any(layout.columns):
            raise WeibingError(f"{self.name}: there is no header in its first line.")
        return layout


@dataclass(frozen=True)
class _Layout:
    """How a delimited file is written."""

    columns: list[str]
    delimiter: str
    quoted: bool

    @classmethod
    def of(cls, header: str) -> "_Layout":
        """Read it off the header.

        OHDSI's vocabularies come apart by tabs, with quotation marks that are part of a name and quote nothing.
        """
        delimiter = "\t" if "\t" in header else ","
        names = next(csv.reader([header], delimiter=delimiter), [])
        return cls([name.strip().lower() for name in names], delimiter, delimiter == "," or '"' in header)


@dataclass(frozen=True)
class Files:
    """A folder or a zip of files, each named after a table, or in a folder that is."""

    path: Path
    parts: dict[str, list[Part]]

    @classmethod
    def found(cls, path: Path) -> "Files":
        """Find the tables.

        Raises
        ------
        WeibingError
            If there is no folder or zip at that path.
        """
        parts: dict[str, list[Part]] = {}
        for inner in _inner_names(path):
            part = Part(path, inner)
            if table := _table_of(part.unpacked):
                parts.setdefault(table, []).append(part)
        return cls(path, parts)

    @property
    def name(self) -> str:
        """What a message calls it."""
        return str(self.path)

    def tables(self) -> list[str]:
        """Return the names of the tables that there are files of."""
        return list(self.parts)

    def columns(self, table: str) -> list[str]:
        """Return the names of the columns that all files of a table have."""
        first, *others = (part.columns() for part in self.parts[table])
        return [column for column in first if all(column in columns for columns in others)]

    def batches(self, table: str, columns: Sequence[str], only: Only | None = None) -> Iterator[pl.DataFrame]:
        """Yield all rows of a table, every cell a text or null."""
        for part in self.parts[table]:
            yield from part.batches(columns)

    def rows(self, table: str) -> int:
        """Count a table's rows."""
        return sum(part.rows() for part in self.parts[table])


def _inner_names(path: Path) -> list[str]:
    """Return the names of all files in a folder or zip."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
    if not zipfile.is_zipfile(path):
        wrong = "is neither a folder nor a zip" if path.exists() else "is not there"
        raise WeibingError(
            f"{path} {wrong}. Name the folder, the zip or the database that holds the tables of an OMOP data set."
        )
    with zipfile.ZipFile(path) as archive:
        return [name for name in sorted(archive.namelist()) if LITTER not in name]


def _table_of(file: PurePosixPath) -> str | None:
    """Return the table that a file belongs to by its name, or by the folder of a table in several files."""
    if file.suffix not in DELIMITED | {PARQUET} or file.name.startswith("."):
        return None
    names = (file.stem, *(PurePosixPath(folder).stem for folder in reversed(file.parts[:-1])))
    return next((name for name in names if name in TABLES), None)


def _as_text(cells: pl.Series) -> pl.Series:
    """Return cells as text; times with a zone of their own bear its offset."""
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone:
        return cells.dt.strftime("%Y-%m-%d %H:%M:%S%.6f%:z")
    return cells.cast(pl.String)


@contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the content as a file in which one can go back and forth, as Parquet needs."""
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def _what_is_wrong(error: Exception) -> str:
    message = str(error)
    if "UTF8" in message:
        return " is not in UTF-8. Save it as UTF-8."
    if found := _WRONG_WIDTH.search(message):
        row, expected, got = found.groups()
        return (
            f", row {int(row) - 1}: there are {got} cells where the header has {expected}. Is a delimiter or a "
            "quotation mark missing or left over?"
        )
    return f" cannot be read: {message.splitlines()[0] if message else type(error).__name__}."
