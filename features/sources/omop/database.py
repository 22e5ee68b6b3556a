"""An OMOP data set in a database that SQLAlchemy knows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from features.errors import WeibingError
from features.sources.omop.reading import TABLES, Only
from features.sources.omop.tables import VOCABULARY

ROWS_PER_BATCH = 50_000
# Databases limit the values of one statement: SQLite to 32,766, SQL Server to 2,100.
VALUES_PER_QUERY = 1_000

# Settings of ours in the query of the URL, beside the driver's own.
SCHEMA, VOCABULARY_SCHEMA = "schema", "vocabulary_schema"


@dataclass(frozen=True)
class Database:
    """Tables of an open database: what each is called there, and in which schema."""

    name: str
    connection: sql.Connection
    found: dict[str, sql.TableClause]

    def tables(self) -> list[str]:
        """Return the names of the tables."""
        return list(self.found)

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return [column.name.lower() for column in self.found[table].columns]

    def batches(self, table: str, columns: Sequence[str], only: Only | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows that are wanted, every cell a text or null, as the server hands them out."""
        wanted = {column.name.lower(): column for column in self.found[table].columns}
        query = sql.select(*(wanted[column] for column in columns))
        for condition in _conditions(wanted[only.column], only) if only else [sql.true()]:
            rows = self.connection.execute(query.where(condition), execution_options={"yield_per": ROWS_PER_BATCH})
            for part in rows.partitions():
                cells = zip(*part, strict=True)
                yield pl.DataFrame({column: _texts(told) for column, told in zip(columns, cells, strict=True)})

    def rows(self, table: str) -> int:
        """Count a table's rows."""
        counted = sql.select(sql.func.count()).select_from(self.found[table])
        return int(self.connection.execute(counted).scalar_one())


@contextmanager
def opened_database(address: str, schema: str | None = None) -> Iterator[Database]:
    """Open the database of a URL such as ``postgresql+psycopg://me@host/county?schema=cdm``.

    `schema`, or the setting of that name in the URL, is where the tables are; ``vocabulary_schema`` in the URL, where
    those of the vocabularies are.

    Raises
    ------
    WeibingError
        If it cannot be reached or read.
    """
    try:
        url = sql.make_url(address)
        engine = _engine(url.difference_update_query([SCHEMA, VOCABULARY_SCHEMA]))
        with engine.connect() as connection:
            yield Database(_hidden(address), connection, _found(connection, *_schemas(url, schema)))
    except SQLAlchemyError as error:
        raise WeibingError(f"The database {_hidden(address)} cannot be read: {_first_line(error)}") from error


def _engine(url: sql.URL) -> sql.Engine:
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        # SQLite would make an empty one.
        raise WeibingError(f"There is no database {url.database}.")
    try:
        return sql.create_engine(url)
    except ImportError as error:
        raise WeibingError(
            f"The driver of {url.drivername} is not installed ({error}). Install it: pip install {error.name}"
        ) from error


def _schemas(url: sql.URL, schema: str | None) -> tuple[str | None, str | None]:
    """Return the schemas of the records and of the vocabularies."""
    records = schema or _setting(url, SCHEMA)
    return records, _setting(url, VOCABULARY_SCHEMA) or records


def _setting(url: sql.URL, name: str) -> str | None:
    return next(iter(url.normalized_query.get(name, ())), None)


def _found(connection: sql.Connection, records: str | None, vocabularies: str | None) -> dict[str, sql.TableClause]:
    inspector = sql.inspect(connection)
    found = {}
    for schema in dict.fromkeys((records, vocabularies)):
        for name in (*inspector.get_table_names(schema), *inspector.get_view_names(schema)):
            table = name.lower()
            if table in TABLES and schema == (vocabularies if table in VOCABULARY else records):
                columns: list[sql.ColumnClause[object]]
                columns = [sql.column(column["name"]) for column in inspector.get_columns(name, schema)]
                found[table] = sql.table(name, *columns, schema=schema)
    return found


def _conditions(column: sql.ColumnClause[object], only: Only) -> Iterator[sql.ColumnElement[bool]]:
    for start in range(0, len(only.values), VALUES_PER_QUERY):
        yield column.in_(only.values[start : start + VALUES_PER_QUERY])


def _texts(cells: Sequence[object]) -> pl.Series:
    return pl.Series([None if cell is None else str(cell) for cell in cells], dtype=pl.String)


def _hidden(address: str) -> str:
    """Return a URL without what follows the name of its driver, which may hold a password."""
    return f"{address.partition('://')[0]}://…"


def _first_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
