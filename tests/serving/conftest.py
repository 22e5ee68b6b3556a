"""An operational database of either kind, for the tests that keep something in one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from features.engine import Engine
from features.profile import declared
from serving.scoring import Scorer
from serving.store.database import Database
from tests.postgres import new_database
from tests.serving.accounts import copied
from tests.serving.clinics import Models
from training.targets import TARGETS
from training.tracking import Registry
from training.train import Trained


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite database with nothing in it, to be copied."""
    return Database.open(str(tmp_path_factory.mktemp("sqlite") / "county.db")).address


@pytest.fixture(scope="session")
def postgresql(database_server: str) -> str:
    """The address of a PostgreSQL database with nothing in it, to be copied."""
    return Database.open(new_database(database_server)).address


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path) -> Iterator[Database]:
    """An operational database of either kind, with nothing in it."""
    with copied(request.getfixturevalue(request.param), tmp_path / "county.db") as copy:
        yield copy


@pytest.fixture
def another(database: Database, request: pytest.FixtureRequest, tmp_path) -> Database:
    """A second one of the same kind, which is not opened yet and holds nothing."""
    if database.file:
        return Database(f"sqlite:///{tmp_path / 'another.db'}")
    return Database(new_database(request.getfixturevalue("database_server")))


@pytest.fixture(scope="session")
def models(small_trained: Trained) -> Models:
    """A model that is loaded and warm."""
    engine = Engine(declared(), timezone="Asia/Shanghai")
    scorer = Scorer({"hypertension": small_trained.model}, engine)
    scorer.warm()
    return Models(engine, scorer)


@pytest.fixture(scope="session")
def registry(small_trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose models of the three targets share their trees; of hypertension there are two versions."""
    folder = tmp_path_factory.mktemp("registry") / "mlruns"
    model = small_trained.model
    for target in (*TARGETS.values(), TARGETS["hypertension"]):
        another = replace(model, card=replace(model.card, target=target))
        Registry(folder).log(replace(small_trained, model=another))
    return folder
