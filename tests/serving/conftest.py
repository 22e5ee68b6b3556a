"""An operational database of either kind, for the tests that keep something in one."""

from collections.abc import Iterator

import pytest

from serving.store.database import Database
from tests.postgres import new_database, postgres_server


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with postgres_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path) -> Iterator[str]:
    """The address of an empty database of either kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "county.db")
        return
    server = request.getfixturevalue("database_server")
    yield new_database(server)


@pytest.fixture
def database(empty: str) -> Database:
    """An operational database of either kind, with nothing in it."""
    return Database.open(empty)


@pytest.fixture
def another(database: Database, request: pytest.FixtureRequest, tmp_path) -> Database:
    """A second one of the same kind, which is not opened yet and holds nothing."""
    if database.file:
        return Database(f"sqlite:///{tmp_path / 'another.db'}")
    return Database(new_database(request.getfixturevalue("database_server")))
