"""Backup and restore: the whole database of one moment, in one file, while the service goes on.

Of SQLite the file is a database that SQLite has written anew; of PostgreSQL a zip of what COPY gives of each table, in
one snapshot, with what it is in `backup.json`. Identities stay encrypted in it, and the key is not in it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import IO, cast
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import psycopg
import sqlalchemy as sql
from alembic import command
from psycopg import sql as written
from sqlalchemy.exc import DatabaseError

from features.errors import WeibingError
from features.generation import keep
from serving.store.database import VERSION, VERSION_TABLE, Database, knows, migrate
from serving.store.tables import METADATA

SQLITE = b"SQLite format 3\0"
ZIP = b"PK"
CONTENTS = "backup.json"
BYTES_AT_ONCE = 1 << 20
# Fast: what takes long is to write, not to compress.
COMPRESSION = 1


@dataclass(frozen=True)
class Backup:
    """What a backup holds: the form of the database, and how many rows each table has."""

    revision: str
    rows: dict[str, int]


def backup(database: Database, file: Path) -> Backup:
    """Write the database of this moment into a file, which is there when it is complete, for its owner alone to read.

    Raises
    ------
    WeibingError
        If the database is empty or of a newer program, or the file is there already or cannot be written.
    """
    if file.exists():
        raise WeibingError(f"There is a file {file} already. Name another one for the backup.")
    with _written_whole(file) as part:
        return _of_sqlite(database, part) if database.file else _of_postgresql(database, part)


def restore(file: Path, database: Database) -> Backup:
    """Put a backup into an empty database, all of it or nothing, and bring it to the present form.

    Parameters
    ----------
    database : where; it is not opened before, so that it stays empty

    Raises
    ------
    WeibingError
        If the database is not empty; if the file is no backup, is damaged, of the other kind of database, or of a
        newer program.
    """
    _need_empty(database)
    kind = _kind(file)
    if (kind == SQLITE) != bool(database.file):
        of, into = ("SQLite", "PostgreSQL") if kind == SQLITE else ("PostgreSQL", "SQLite")
        raise WeibingError(f"{file} is a backup of {of}: it cannot be restored into {into}.")
    return _into_sqlite(file, database) if database.file else _into_postgresql(file, database)


@contextmanager
def _written_whole(file: Path) -> Iterator[Path]:
    """Give a file beside the one that is to be, and put it there when it is complete and on the disk."""
    try:
        opened, name = mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as error:
        raise WeibingError(f"The backup {file} cannot be written: {error.strerror}.") from error
    os.close(opened)
    part = Path(name)
    try:
        yield part
        keep(part)
        part.rename(file)
        keep(file.parent)
    except OSError as error:
        raise WeibingError(f"The file {file} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


def _of_sqlite(database: Database, part: Path) -> Backup:
    if not cast(Path, database.file).is_file():
        raise WeibingError(f"There is no database {database.file}.")
    with database.bare() as connection:
        connection.cursor().execute("VACUUM INTO ?", (str(part),))
    with database.told(), _as_it_is(part).connect() as connection:
        return _told(connection, database.name)


def _of_postgresql(database: Database, part: Path) -> Backup:
    snapshot = database.engine.execution_options(isolation_level="REPEATABLE READ")
    with database.told(), snapshot.begin() as connection:
        found = _told(connection, database.name)
        with ZipFile(part, "w", ZIP_DEFLATED, compresslevel=COMPRESSION) as archive:
            columns = {name: _columns(connection, name) for name in found.rows}
            contents = asdict(found) | {"columns": columns}
            archive.writestr(CONTENTS, json.dumps(contents, ensure_ascii=False, indent=2))
            for name in found.rows:
                with archive.open(name, "w", force_zip64=True) as out:
                    _copy_out(connection, name, columns[name], out)
    return found


def _told(connection: sql.Connection, name: str) -> Backup:
    if not sql.inspect(connection).has_table(VERSION_TABLE):
        raise WeibingError(f"{name} is empty, or another program's: there is nothing of Weibing in it.")
    revision = str(connection.execute(sql.select(VERSION.c.version_num)).scalar_one())
    _need_known(revision, name)
    counts = {
        name: connection.execute(sql.select(sql.func.count()).select_from(sql.table(name))).scalar_one()
        for name in _tables(connection)
    }
    return Backup(revision, counts)


def _tables(connection: sql.Connection) -> list[str]:
    """Return the tables that are there, those that others refer to first."""
    present = set(sql.inspect(connection).get_table_names())
    return [table.name for table in METADATA.sorted_tables if table.name in present]


def _columns(connection: sql.Connection, table: str) -> list[str]:
    return [column["name"] for column in sql.inspect(connection).get_columns(table)]


def _driver(connection: sql.Connection) -> psycopg.Connection:
    return cast(psycopg.Connection, connection.connection.driver_connection)


def _copying(how: str, table: str, columns: list[str]) -> written.Composed:
    names = written.SQL(", ").join(map(written.Identifier, columns))
    return written.SQL("COPY {} ({}) {}").format(written.Identifier(table), names, written.SQL(how))


def _copy_out(connection: sql.Connection, table: str, columns: list[str], out: IO[bytes]) -> None:
    with _driver(connection).cursor() as cursor, cursor.copy(_copying("TO STDOUT", table, columns)) as copy:
        for block in copy:
            out.write(block)


def _copy_in(connection: sql.Connection, table: str, columns: list[str], source: IO[bytes]) -> None:
    with _driver(connection).cursor() as cursor, cursor.copy(_copying("FROM STDIN", table, columns)) as copy:
        while block := source.read(BYTES_AT_ONCE):
            copy.write(block)


def _need_empty(database: Database) -> None:
    if database.file and not database.file.is_file():
        return
    with database.reading() as connection:
        if tables := sorted(sql.inspect(connection).get_table_names()):
            raise WeibingError(f"The database {database.name} is not empty: it has a table {tables[0]}. Name another.")


def _kind(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(SQLITE))
    except OSError as error:
        raise WeibingError(f"The backup {file} cannot be read: {error.strerror}.") from error
    if begins == SQLITE or begins.startswith(ZIP):
        return SQLITE if begins == SQLITE else ZIP
    raise WeibingError(f"{file} is no backup of a database of Weibing.")


def _need_known(revision: str, name: str) -> None:
    if not knows(revision):
        raise WeibingError(f"{name} is of a newer version of Weibing (form {revision}). Install that version here.")


def _into_sqlite(file: Path, database: Database) -> Backup:
    target = cast(Path, database.file)
    with _written_whole(target) as part:
        shutil.copyfile(file, part)
        found = _looked_through(part, file)
    database.upgrade()
    return found


def _looked_through(part: Path, file: Path) -> Backup:
    """Return what a copied backup holds."""
    try:
        with _as_it_is(part).connect() as connection:
            if connection.exec_driver_sql("PRAGMA integrity_check").scalar() != "ok":
                raise WeibingError(f"The backup {file} is damaged. Take another one.")
            found = _told(connection, str(file))
    except DatabaseError as error:
        raise WeibingError(f"The backup {file} is damaged ({error.orig}). Take another one.") from error
    return found


def _as_it_is(part: Path) -> sql.Engine:
    """Return an engine that reads a file of SQLite and changes nothing of it."""
    return sql.create_engine(sql.URL.create("sqlite", database=str(part)), poolclass=sql.NullPool)


def _into_postgresql(file: Path, database: Database) -> Backup:
    try:
        with ZipFile(file) as archive, database.writing() as connection:
            contents = json.loads(archive.read(CONTENTS))
            _need_known(contents["revision"], str(file))
            migrate(connection, command.upgrade, contents["revision"])
            for name, columns in contents["columns"].items():
                with archive.open(name) as source:
                    _copy_in(connection, name, columns, source)
                _go_on_numbering(connection, name, columns)
            found = Backup(contents["revision"], contents["rows"])
            _need_all(connection, found, file)
            migrate(connection, command.upgrade, "head")
    except (BadZipFile, KeyError, EOFError, ValueError) as error:
        raise WeibingError(f"The backup {file} is damaged ({error}). Take another one.") from error
    return found


def _go_on_numbering(connection: sql.Connection, table: str, columns: list[str]) -> None:
    """Let the next row that gets a number get a new one."""
    if "id" in columns:
        sequence = sql.func.pg_get_serial_sequence(table, "id")
        most = sql.select(sql.func.max(sql.column("id"))).select_from(sql.table(table)).scalar_subquery()
        connection.execute(sql.select(sql.func.setval(sequence, most)))


def _need_all(connection: sql.Connection, found: Backup, file: Path) -> None:
    for name, rows in found.rows.items():
        there = connection.execute(sql.select(sql.func.count()).select_from(sql.table(name))).scalar_one()
        if there != rows:
            raise WeibingError(f"The backup {file} is damaged: {there} of {rows} rows of {name}. Take another one.")
