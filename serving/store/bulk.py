"""A transaction that reads and writes whole frames: ADBC on SQLite, COPY on PostgreSQL.

Both leave the processors to others meanwhile: neither makes Python objects of the rows it writes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Protocol, cast

import adbc_driver_sqlite.dbapi as adbc
import polars as pl
import polars.selectors as cs
import psycopg
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from serving.store.database import SECONDS_FOR_OTHERS, VERSION, Database

Statement = sql.UpdateBase | CreateTable
Query = sql.Select[*tuple[object, ...]]

# As SQLAlchemy writes a time into SQLite, and as PostgreSQL reads it.
MOMENT = "%Y-%m-%d %H:%M:%S%.6f"

# More special types first.
POLARS: Mapping[type, pl.DataType] = {
    sql.Boolean: pl.Boolean(),
    sql.DateTime: pl.Datetime("us"),
    sql.Date: pl.Date(),
    sql.REAL: pl.Float32(),
    sql.Double: pl.Float64(),
    sql.LargeBinary: pl.Binary(),
    sql.SmallInteger: pl.Int16(),
    sql.BigInteger: pl.Int64(),
    sql.Integer: pl.Int32(),
    sql.Text: pl.String(),
}

# 64 MiB of pages; temporary tables in memory.
PRAGMAS = (
    f"busy_timeout = {SECONDS_FOR_OTHERS * 1000}",
    "synchronous = NORMAL",
    "cache_size = -65536",
    "temp_store = MEMORY",
)
# A shard is a small part of every table, and always found by an index; a planner that has not yet seen the tables'
# statistics would read the whole of them for each shard.
SETTINGS = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")


class Transaction(Protocol):
    """A connection in a transaction."""

    def run(self, statement: Statement) -> int:
        """Run a statement; return how many rows it changed."""

    def among(self, column: sql.ColumnElement[int], query: Query) -> sql.ColumnElement[bool]:
        """Return the condition that a column is one of the numbers of a query, to be answered by the column's index."""

    def add(self, table: sql.Table, query: Query, key: Sequence[str]) -> int:
        """Add the rows of a query whose key is not in the table yet; return how many were added."""

    def read(self, query: Query) -> pl.DataFrame:
        """Return the rows of a query."""

    def alone(self, table: sql.Table) -> None:
        """Wait until nobody else changes the table, and keep others from it until the end; they may read."""

    def append(self, table: sql.Table, rows: pl.DataFrame) -> None:
        """Add rows, whose columns are the table's or some of them, to a table; NaN is kept as null."""


@contextmanager
def transaction(database: Database, *, write: bool) -> Iterator[Transaction]:
    """Begin a transaction, and end it with all that was done in it, or nothing if an error comes.

    Parameters
    ----------
    write
        In SQLite, which has one writer at a time, whether to wait for the turn.

    Raises
    ------
    WeibingError
        If the database cannot be used, or is not in the form that the program knows.
    """
    with database.told(), _of_sqlite(database, write) if database.file else _of_postgresql(database) as opened:
        database.check(_revision(opened))
        yield opened


def frame(query: Query, rows: pl.DataFrame | Sequence[Sequence[object]]) -> pl.DataFrame:
    """Return the rows of a query with the types of its columns."""
    schema = {column.name: _polars(column.type) for column in query.selected_columns}
    if isinstance(rows, pl.DataFrame):
        moments = [name for name, kind in schema.items() if kind == pl.Datetime and rows[name].dtype == pl.String]
        return rows.with_columns(pl.col(moments).str.to_datetime(MOMENT)).cast(schema)
    return pl.DataFrame(rows, schema, orient="row")


def _polars(kind: sql.types.TypeEngine[object]) -> pl.DataType:
    return next(found for sort, found in POLARS.items() if isinstance(kind, sort))


def _revision(opened: Transaction) -> str | None:
    try:
        return next(iter(opened.read(sql.select(VERSION.c.version_num))["version_num"]), None)
    except (sql.exc.ProgrammingError, adbc.ProgrammingError):
        # There is no such table.
        return None


@contextmanager
def _of_sqlite(database: Database, write: bool) -> Iterator[Transaction]:
    # A connection that is closed before COMMIT leaves nothing behind.
    address = f"{Path(str(database.file)).as_uri()}?mode=rw"
    with closing(adbc.connect(address, autocommit=True)) as connection:
        opened = _Sqlite(connection)
        for setting in PRAGMAS:
            opened.execute(f"PRAGMA {setting}")
        opened.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        yield opened
        opened.execute("COMMIT")


class _Sqlite:
    """A transaction on a connection of ADBC."""

    def __init__(self, connection: adbc.Connection) -> None:
        self._connection = connection

    def execute(self, text: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(text)

    def run(self, statement: Statement) -> int:
        self.execute(self._text(statement))
        return int(self._rows("SELECT changes() AS rows").item())

    def among(self, column: sql.ColumnElement[int], query: Query) -> sql.ColumnElement[bool]:
        return column.in_(query)

    def add(self, table: sql.Table, query: Query, key: Sequence[str]) -> int:
        # SQLite takes ON CONFLICT for a join's ON where a query has no WHERE.
        names = [column.name for column in query.selected_columns]
        statement = sqlite.insert(table).from_select(names, query.where(sql.true()))
        return self.run(statement.on_conflict_do_nothing(index_elements=key))

    def read(self, query: Query) -> pl.DataFrame:
        return frame(query, self._rows(self._text(query)))

    def alone(self, table: sql.Table) -> None:
        # BEGIN IMMEDIATE is alone already.
        pass

    def append(self, table: sql.Table, rows: pl.DataFrame) -> None:
        kept = rows.with_columns(
            cs.float().fill_nan(None),
            cs.datetime().dt.strftime(MOMENT),
            cs.boolean().cast(pl.Int8),
            # The shortest decimal of a single, as PostgreSQL tells it, so that a recorded 5.3 reads 5.3.
        ).with_columns(cs.by_dtype(pl.Float32).cast(pl.String).cast(pl.Float64))
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(table.name, kept, mode="append", temporary="TEMPORARY" in table._prefixes)

    def _rows(self, text: str) -> pl.DataFrame:
        with self._connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetch_polars()

    def _text(self, statement: Statement | Query) -> str:
        # A literal for every value: what there is to say is said once.
        return str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))


@contextmanager
def _of_postgresql(database: Database) -> Iterator[Transaction]:
    with database.engine.begin() as connection:
        for setting in SETTINGS:
            connection.exec_driver_sql(f"SET LOCAL {setting} = off")
        yield _Postgresql(connection)


class _Postgresql:
    """A transaction on a connection of SQLAlchemy."""

    def __init__(self, connection: sql.Connection) -> None:
        self._connection = connection

    def run(self, statement: Statement) -> int:
        return self._connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount

    def among(self, column: sql.ColumnElement[int], query: Query) -> sql.ColumnElement[bool]:
        # As a join, PostgreSQL would walk the whole table in the order of its index.
        return column == sql.any_(sql.func.array(query.scalar_subquery()))

    def add(self, table: sql.Table, query: Query, key: Sequence[str]) -> int:
        names = [column.name for column in query.selected_columns]
        statement = postgresql.insert(table).from_select(names, query)
        return self.run(statement.on_conflict_do_nothing(index_elements=key))

    def read(self, query: Query) -> pl.DataFrame:
        return frame(query, self._connection.execute(query).fetchall())

    def alone(self, table: sql.Table) -> None:
        self._connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")

    def append(self, table: sql.Table, rows: pl.DataFrame) -> None:
        kept = rows.with_columns(cs.float().fill_nan(None), pl.format("\\x{}", cs.binary().bin.encode("hex")))
        text = BytesIO()
        kept.write_csv(text, include_header=False, datetime_format=MOMENT)
        columns = ", ".join(f'"{name}"' for name in rows.columns)
        driver = cast(psycopg.Connection, self._connection.connection.driver_connection)
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(text.getbuffer())
