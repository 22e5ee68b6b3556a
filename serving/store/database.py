"""Where the operational database is, and how it is brought to the form that this program knows.

SQLite: one file, WAL; several processes write one after the other. Bulk goes through ADBC, which brings a SQLite of
its own. Two copies of SQLite in a process undo each other's locks when one of them closes the file, so no thread may
read through :attr:`Database.engine` while another writes in bulk; another process may.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any, cast

import psycopg
import sqlalchemy as sql
from adbc_driver_manager import Error as AdbcError
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError

from features.errors import WeibingError
from serving.store import accounts, tables

# All of them: those of each module, on the one METADATA.
TABLES = {**tables.METADATA.tables, **accounts.accounts.metadata.tables}
MIGRATIONS = Path(__file__).parent / "migrations"
# A name of its own: MLflow's database, too, has an alembic_version, and a table of runs.
VERSION_TABLE = "weibing_schema"
VERSION = sql.table(VERSION_TABLE, sql.column("version_num", sql.Text))

SECONDS_TO_CONNECT = 10
# As many connections as threads that answer.
POOLED = {"pool_pre_ping": True, "max_overflow": 64}
# Others may write shard after shard before it is one's turn.
SECONDS_FOR_OTHERS = 600

SUFFIXES = (".db", ".sqlite")
SERVERS = ("postgresql", "postgresql+psycopg", "postgres")
FORMS = "Write a file such as weibing.db, or postgresql://user@host/database."

# What SQLite says, and what an operator can do about it.
REMEDIES = {
    "disk is full": "Make room on the disk, and start again.",
    "disk i/o error": "Look at the disk, and start again.",
    "database is locked": "Another program holds it; end that program, and start again.",
    "unable to open": "Check that the file is there and may be read and written.",
    "failed to open": "Check that the file is there and may be read and written.",
    "readonly": "Check that the file and its folder may be written.",
    "not a database": "Name another file.",
    "malformed": "The file is damaged; restore a backup.",
}
# States of PostgreSQL that are no fault of the program: no right, a server that only reads.
REFUSED = (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


class AwayError(WeibingError):
    """The database cannot be used now: it is away, full, held by another program, or lets nobody in."""


# Alembic keeps what it works on in its module.
_MIGRATING = RLock()


@dataclass(frozen=True)
class Database:
    """An operational database. It can be pickled, and connects where it is used.

    Attributes
    ----------
    address : as SQLAlchemy takes it; may hold a password
    pooled
        Whether connections are kept for whoever reads or writes next, as a process wants it that goes on for days; each
        is tried before it is used again.
    """

    address: str = field(repr=False)
    pooled: bool = False

    @classmethod
    def open(cls, address: str, *, upgrade: bool = True) -> "Database":
        """Open the database at an address, and bring an empty or older one to the present form.

        Parameters
        ----------
        address
            ``sqlite:///FILE``, a path that ends in .db or .sqlite, or ``postgresql://…``
        upgrade
            False where others may be at work on it: then an older one is refused.

        Raises
        ------
        WeibingError
            If it cannot be reached or is of a newer program; never tells a password.
        """
        database = cls.at(address)
        database._need_a_place(file=not upgrade)
        if upgrade:
            database.upgrade()
        database.check(database.revision())
        return database

    @classmethod
    def at(cls, address: str) -> "Database":
        """Name the database at an address, as :meth:`open` takes it; nothing is connected to, made or changed.

        Raises
        ------
        WeibingError
            If that is no address of a database.
        """
        return cls(_address(address).render_as_string(hide_password=False))

    @property
    def url(self) -> sql.URL:
        """The address in its parts."""
        return sql.make_url(self.address)

    @property
    def name(self) -> str:
        """What to call it in a sentence: no user, no password."""
        return (
            str(self.url.database) if self.file else f"{self.url.database or ''} at {self.url.host or 'this machine'}"
        )

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(str(self.url.database)) if self.url.get_backend_name() == "sqlite" else None

    @property
    def engine(self) -> sql.Engine:
        """SQLAlchemy's engine; it keeps no connection open where they are not pooled."""
        return _engine(self.address, self.pooled)

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """Give a connection to read with; what an operator can mend is told in a sentence."""
        with self.told(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """Give a connection in a small transaction: all of it is kept, or nothing if an error comes.

        SQLite has one writer at a time: there it waits for the turn.
        """
        with self.told(), self.engine.execution_options(begin="IMMEDIATE").begin() as connection:
            yield connection

    @contextmanager
    def bare(self) -> Iterator[DBAPIConnection]:
        """Give the driver's own connection, in no transaction."""
        with self.told(), closing(self.engine.raw_connection()) as connection:
            yield cast(DBAPIConnection, connection.dbapi_connection)

    def upgrade(self) -> None:
        """Bring it to the present form, whole or not at all; one process after the other, and none where it is.

        Raises
        ------
        WeibingError
            If it cannot be reached, is of a newer program, or is another program's.
        """
        if self.revision() == _revisions()[0]:
            return
        with _MIGRATING, self.told(), self.engine.execution_options(begin="IMMEDIATE").begin() as connection:
            if not self.file:
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(sql.func.hashtext(VERSION_TABLE))))
            found = _revision(connection)
            if found is None:
                self._need_no_tables(connection)
            elif found not in _revisions():
                self.check(found)
            migrate(connection, command.upgrade, "head")

    def revision(self) -> str | None:
        """Return which form it is in; None if it is empty.

        Raises
        ------
        WeibingError
            If it cannot be reached.
        """
        with self.told(), self.engine.connect() as connection:
            return _revision(connection)

    def check(self, found: str | None) -> None:
        """Refuse a form of the database that is not the present one.

        Raises
        ------
        WeibingError
            Says which is newer, the database or the program.
        """
        known = _revisions()
        if found == known[0]:
            return
        if found is None or found in known:
            raise WeibingError(
                f"The database {self.name} is of an older version of Weibing, or empty. Start weibing score or weibing "
                "serve on one machine first: that brings it up to date."
            )
        raise WeibingError(
            f"The database {self.name} is of a newer version of Weibing (form {found}; this program knows {known[0]}). "
            "Install that version here."
        )

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say in a sentence what an operator can mend; other errors of the database are the program's."""
        try:
            yield
        except (DBAPIError, psycopg.Error, sqlite3.Error, AdbcError) as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            hidden = sentence.replace(str(self.url.password), "…") if self.url.password else sentence
            raise AwayError(f"The database {self.name} cannot be used: {hidden}") from error

    def _need_a_place(self, *, file: bool) -> None:
        if self.file and not self.file.parent.is_dir():
            raise WeibingError(
                f"There is no folder {self.file.parent} for the database {self.file.name}. Make it first."
            )
        if self.file and file and not self.file.is_file():
            raise WeibingError(f"There is no database {self.file}. It must lie on a disk that all workers share.")

    def _need_no_tables(self, connection: sql.Connection) -> None:
        present = sorted(TABLES.keys() & set(sql.inspect(connection).get_table_names()))
        if present:
            raise WeibingError(
                f"The database {self.name} is another program's: Weibing did not make its table {present[0]}. "
                "Name another database."
            )


def insert(connection: sql.Connection, table: sql.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that can be told what to do where the row is there already."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def knows(revision: str) -> bool:
    """Say whether the program knows a form of the database, so that it can bring it to the present one."""
    return revision in _revisions()


def migrate(connection: sql.Connection, step: Callable[[Config, str], None], revision: str) -> None:
    """Take Alembic's step, up or down, to a revision, in the transaction of the connection."""
    config = _config()
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    with _MIGRATING:
        step(config, revision)


def _address(address: str) -> sql.URL:
    """Return where a database is, in full."""
    if "://" not in address and address.endswith(SUFFIXES):
        return sql.URL.create("sqlite", database=str(Path(address).absolute()))
    try:
        url = sql.make_url(address)
    except (ArgumentError, ValueError):
        raise WeibingError(f"That is not the address of a database. {FORMS}") from None
    if url.drivername in SERVERS:
        _need_an_unambiguous_password(url)
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return sql.URL.create("sqlite", database=str(Path(url.database).absolute()))
    raise WeibingError(f"Weibing keeps no scores in a database {url.drivername}://… {FORMS}")


def _need_an_unambiguous_password(url: sql.URL) -> None:
    if "@" in (url.host or ""):
        raise WeibingError("The address of the database has an @ too many: in a password, write it as %40.")


@cache
def _engine(address: str, pooled: bool) -> sql.Engine:
    # The values of a statement may be names of residents: no error tells them.
    url = sql.make_url(address)
    kept: dict[str, Any] = POOLED if pooled else {"poolclass": sql.NullPool}
    if url.get_backend_name() == "sqlite":
        engine = sql.create_engine(url, hide_parameters=True, connect_args={"timeout": SECONDS_FOR_OTHERS}, **kept)
        sql.event.listen(engine, "connect", _on_connect)
        sql.event.listen(engine, "begin", _on_begin)
        return engine
    settings = {"connect_timeout": SECONDS_TO_CONNECT, "application_name": "weibing"}
    chosen = {name: setting for name, setting in settings.items() if name not in url.query}
    return sql.create_engine(url, hide_parameters=True, connect_args=chosen, **kept)


def _on_connect(connection: sqlite3.Connection, _: object) -> None:
    # Python's own BEGIN leaves out what changes tables.
    connection.isolation_level = None
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


def _on_begin(connection: sql.Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")


def _config() -> Config:
    config = Config()
    # A percent sign in a path would be read as a setting's name.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@cache
def _revisions() -> list[str]:
    """Return the revisions that the program knows, the newest first."""
    return [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]


def _revision(connection: sql.Connection) -> str | None:
    if not sql.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sql.select(VERSION.c.version_num)).scalar()


def _sentence(error: Exception) -> str | None:
    """Return what went wrong and what to do, if an operator can do something."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = next(iter(str(cause).splitlines()), "").rstrip(".")
    if isinstance(cause, REFUSED):
        return f"{reason}. Check that the server runs, and lets this user in and write."
    return next((f"{reason}. {remedy}" for words, remedy in REMEDIES.items() if words in reason.lower()), None)
