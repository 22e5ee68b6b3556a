"""The folder of a registry: its database, its artifacts, and how models are found in it."""

import fcntl
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from features.errors import WeibingError, did_you_mean

Alias = Literal["champion", "challenger"]
CHAMPION: Alias = "champion"
CHALLENGER: Alias = "challenger"

# An experiment is named after its target, behind this.
EXPERIMENT = "weibing/"
# Says of a registered model that it is a RiskModel: others may live in the same registry.
OURS = ("weibing", "target")
ADDRESS = re.compile(r"models:/([^/@']+)(?:@([^/@]+)|/([0-9]+))|runs:/([0-9a-f]+)(?:/.*)?")

# MLflow stores where artifacts are as absolute paths, in these columns.
STORED_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# Of such a path, the parts that do not depend on where the folder is: target, "models", model, "artifacts".
PARTS_WITHIN = 4
SECONDS_FOR_OTHERS = 60


class Place:
    """A folder with MLflow's database and artifacts. It may be moved; several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.database = self.folder / "mlflow.db"
        self.artifacts = self.folder / "artifacts"

    def version(self, uri: str) -> ModelVersion:
        """Find a version of a model by its address.

        Raises
        ------
        WeibingError
            If there is none; says what there is instead, and what to do.
        """
        match = ADDRESS.fullmatch(uri)
        if match is None:
            raise WeibingError(
                f'"{uri}" is not the address of a model.'
                " Write models:/TARGET@champion, models:/TARGET/VERSION or runs:/RUN."
            )
        target, alias, number, run = match.groups()
        found = self.search(f"run_id = '{run}'" if run else f"name = '{target}'")
        if alias and found:
            number = self.bearers(alias).get(target)
        wanted = [version for version in found if run or str(version.version) == number]
        if not wanted:
            raise WeibingError(self.unknown(uri, target, found))
        return wanted[0]

    def bearers(self, alias: str) -> dict[str, str]:
        """Return which version of every target bears an alias."""
        if not self.database.exists():
            return {}
        models = self.client.search_registered_models(max_results=1000)
        ours = [model for model in models if OURS in model.tags.items() and alias in model.aliases]
        return {model.name: str(model.aliases[alias]) for model in sorted(ours, key=lambda model: model.name)}

    def search(self, condition: str) -> list[ModelVersion]:
        """Return the versions that meet a condition, in MLflow's words."""
        return list(self.client.search_model_versions(condition)) if self.database.exists() else []

    def unknown(self, uri: str, target: str | None, found: list[ModelVersion]) -> str:
        """Say which model was not found, what there is instead, and what to do."""
        said = f"The registry {self.folder} has no model {uri}."
        if found:
            numbers = ", ".join(str(number) for number in sorted(int(version.version) for version in found))
            said += f" The target {target} has version {numbers}."
        elif target:
            said += did_you_mean(target, list({version.name for version in self.search("")}))
        return f"{said} Train one with: weibing train STORE {target or 'TARGET'}"

    def files_of(self, version: ModelVersion) -> Path:
        """Return the folder in which MLflow keeps a version."""
        return self.artifacts.joinpath(*Path(str(version.source)).parts[-PARTS_WITHIN:])

    def evidence_of(self, version: ModelVersion) -> Path:
        """Return the folder of what the run kept from which a version came."""
        return self.artifacts / str(version.name) / str(version.run_id) / "artifacts"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client of the database.

        Raises
        ------
        WeibingError
            If the database cannot be used.
        """
        self._require_database()
        try:
            return _client_of(self.database)
        except MlflowException as error:
            raise WeibingError(
                f"The registry {self.database} cannot be used: {error.message}"
                f" If MLflow is newer than the registry, run: mlflow db upgrade {_uri(self.database)}"
            ) from error

    def _require_database(self) -> None:
        """Refuse a file that is no MLflow database, which MLflow itself would try to open for minutes."""
        try:
            with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as database:
                database.execute("SELECT version_num FROM alembic_version").fetchall()
        except sqlite3.Error as error:
            raise WeibingError(
                f"The registry {self.database} is not a readable MLflow database: {error}. Restore it from a backup,"
                " or move the folder away and train again."
            ) from error

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Wait until no other process writes to the folder, and keep others waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def prepare(self) -> None:
        """Make the database where there is none, and let MLflow follow the folder where it was moved."""
        if not self.database.exists():
            new = self.database.with_suffix(".new")
            new.unlink(missing_ok=True)
            _client_of(new)
            new.rename(self.database)
        ours = self.client.search_experiments(ViewType.ALL, filter_string=f"name LIKE '{EXPERIMENT}%'")
        for moved in {Path(experiment.artifact_location).parent for experiment in ours} - {self.artifacts}:
            self._move(moved)

    def _move(self, moved: Path) -> None:
        with closing(sqlite3.connect(self.database, timeout=SECONDS_FOR_OTHERS)) as database, database:
            for table, column in STORED_PLACES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (str(self.artifacts), len(str(moved)) + 1, len(str(moved)) + 1, f"{moved}/"),
                )


def _client_of(database: Path) -> MlflowClient:
    return MlflowClient(_uri(database), _uri(database))


def _uri(database: Path) -> str:
    return f"sqlite:///{database}"
