"""MLflow: what every training run leaves behind, and which model of a target serves.

    mlruns/mlflow.db              runs, parameters, metrics, versions and their aliases
    mlruns/artifacts/<target>/    plots and evidence of each run, and the models

Everything goes to that folder and to nowhere else; MLflow's process-wide settings are neither read nor changed.
"""

import fcntl
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version as version_of
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Literal

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModelOutput, LoggedModelStatus, Metric, Param, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from features.cohort import Target
from features.errors import WeibingError, did_you_mean
from training.model import Card, RiskModel
from training.train import Evidence, Trained
from training.validate import Estimate, Validation

Alias = Literal["champion", "challenger"]
CHAMPION: Alias = "champion"
CHALLENGER: Alias = "challenger"

# An experiment is named after its target, behind this.
EXPERIMENT = "weibing/"
# Says of a registered model that it is a RiskModel: others may live in the same registry.
OURS = ("weibing", "target")
MODEL = "model"
DIGEST = "sha256"
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

NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Registered:
    """Where a training run and its model went."""

    run_id: str
    target: str
    version: str
    alias: Alias


class Registry:
    """The runs and models of a county, in one folder.

    The folder is made by the first run that is logged to it. It may be moved; several processes may use it at once.
    """

    def __init__(self, folder: Path = Path("mlruns")) -> None:
        self.folder = folder.absolute()
        self.database = self.folder / "mlflow.db"
        self.artifacts = self.folder / "artifacts"

    def log(self, trained: Trained, *, parameters: Mapping[str, object] = NOTHING) -> Registered:
        """Keep a training run: what went in, what came out, plots, and the model as a new version of its target.

        The first version of a target becomes its champion, a later one its challenger.

        Parameters
        ----------
        parameters : more of what went in
            Kept beside the target's and the trees' own; a parameter named like one of them replaces it.

        Raises
        ------
        WeibingError
            If the folder's database cannot be used.
        """
        with TemporaryDirectory(prefix="weibing-") as scratch:
            _write_evidence(trained, Path(scratch))
            with self._only_writer():
                self._prepare()
                return self._record(trained, parameters, Path(scratch))

    def champion(self, target: str) -> RiskModel:
        """Load the model that serves a target.

        Raises
        ------
        WeibingError
            If the target has none, or its files are damaged.
        """
        return self.load(f"models:/{target}@{CHAMPION}")

    def champions(self) -> dict[str, RiskModel]:
        """Load the model of every target that has a champion, by name of the target.

        Raises
        ------
        WeibingError
            If the files of one are damaged.
        """
        return {target: self.load(f"models:/{target}/{version}") for target, version in self.versions().items()}

    def versions(self, alias: Alias = CHAMPION) -> dict[str, str]:
        """Return which version of every target bears an alias; targets without one are left out."""
        return self._bearers(alias) if self.database.exists() else {}

    def load(self, uri: str) -> RiskModel:
        """Load a model by its address: ``models:/fall@champion``, ``models:/fall/3`` or ``runs:/…``.

        Raises
        ------
        WeibingError
            If the address names no model, or the model's files are damaged.
        """
        version = self._version(uri)
        place = self.artifacts.joinpath(*Path(str(version.source)).parts[-PARTS_WITHIN:])
        folder = place / "artifacts" / MODEL
        if version.tags.get(DIGEST) != digest_of(folder):
            raise WeibingError(
                f"The files of version {version.version} of {version.name} in {folder} are missing, or not those that"
                " were registered. Restore them from a backup, or train again and promote the new version."
            )
        return RiskModel.load(folder).with_version(str(version.version))

    def promote(self, target: str, version: str) -> None:
        """Let a version of a target serve from now on.

        Raises
        ------
        WeibingError
            If there is no such version.
        """
        self._version(f"models:/{target}/{version}")
        with self._only_writer():
            self._prepare()
            self._client.set_registered_model_alias(target, CHAMPION, version)
            if self.versions(CHALLENGER).get(target) == version:
                self._client.delete_registered_model_alias(target, CHALLENGER)

    @cached_property
    def _client(self) -> MlflowClient:
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
    def _only_writer(self) -> Iterator[None]:
        """Wait until no other process writes to the folder, and keep others waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _prepare(self) -> None:
        """Make the database where there is none, and let MLflow follow the folder where it was moved."""
        if not self.database.exists():
            new = self.database.with_suffix(".new")
            new.unlink(missing_ok=True)
            _client_of(new)
            new.rename(self.database)
        ours = self._client.search_experiments(ViewType.ALL, filter_string=f"name LIKE '{EXPERIMENT}%'")
        for before in {Path(experiment.artifact_location).parent for experiment in ours} - {self.artifacts}:
            self._move(before)

    def _move(self, before: Path) -> None:
        with closing(sqlite3.connect(self.database, timeout=SECONDS_FOR_OTHERS)) as database, database:
            for table, column in STORED_PLACES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (str(self.artifacts), len(str(before)) + 1, len(str(before)) + 1, f"{before}/"),
                )

    def _record(self, trained: Trained, parameters: Mapping[str, object], evidence: Path) -> Registered:
        target = trained.model.card.target.name
        experiment = self._experiment(target)
        with self._run(experiment, trained.model.card) as run_id:
            logged = self._client.create_logged_model(experiment, MODEL, run_id)
            self._client.log_batch(run_id, *_entries(trained, parameters, run_id, logged.model_id))
            self._client.log_artifacts(run_id, str(evidence))
            with TemporaryDirectory(prefix="weibing-") as scratch:
                described = Model(run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id)
                digest = save_for_mlflow(trained.model, Path(scratch), described)
                self._client.log_model_artifacts(logged.model_id, scratch)
            self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            version, alias = self._register(target, logged.artifact_location, run_id, digest)
        return Registered(run_id, target, version, alias)

    def _experiment(self, target: str) -> str:
        name = f"{EXPERIMENT}{target}"
        found: Experiment | None = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name, str(self.artifacts / target)))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    @contextmanager
    def _run(self, experiment: str, card: Card) -> Iterator[str]:
        """Open a run, and end it as finished or, where something goes wrong, as failed."""
        tags = {"target": card.target.name, "fingerprint": card.fingerprint, "synthetic": str(card.synthetic).lower()}
        name = f"{card.target.name} {card.fingerprint}"
        run_id = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        try:
            yield run_id
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id)

    def _register(self, target: str, source: str, run_id: str, digest: str) -> tuple[str, Alias]:
        if not self._client.search_registered_models(f"name = '{target}'"):
            self._client.create_registered_model(target)
        self._client.set_registered_model_tag(target, *OURS)
        version = str(self._client.create_model_version(target, source, run_id, {DIGEST: digest}).version)
        alias = CHALLENGER if target in self.versions() else CHAMPION
        self._client.set_registered_model_alias(target, alias, version)
        return version, alias

    def _version(self, uri: str) -> ModelVersion:
        match = ADDRESS.fullmatch(uri)
        if match is None:
            raise WeibingError(
                f'"{uri}" is not the address of a model.'
                " Write models:/TARGET@champion, models:/TARGET/VERSION or runs:/RUN."
            )
        target, alias, number, run = match.groups()
        found = self._search(f"run_id = '{run}'" if run else f"name = '{target}'")
        if alias and found:
            number = self._bearers(alias).get(target)
        wanted = [version for version in found if run or str(version.version) == number]
        if not wanted:
            raise WeibingError(self._unknown(uri, target, found))
        return wanted[0]

    def _bearers(self, alias: str) -> dict[str, str]:
        models = self._client.search_registered_models(max_results=1000)
        ours = [model for model in models if OURS in model.tags.items() and alias in model.aliases]
        return {model.name: str(model.aliases[alias]) for model in sorted(ours, key=lambda model: model.name)}

    def _search(self, condition: str) -> list[ModelVersion]:
        return list(self._client.search_model_versions(condition)) if self.database.exists() else []

    def _unknown(self, uri: str, target: str | None, found: list[ModelVersion]) -> str:
        """Say which model was not found, what there is instead, and what to do."""
        said = f"The registry {self.folder} has no model {uri}."
        if found:
            numbers = ", ".join(str(number) for number in sorted(int(version.version) for version in found))
            said += f" The target {target} has version {numbers}."
        elif target:
            said += did_you_mean(target, list({version.name for version in self._search("")}))
        return f"{said} Train one with: weibing train STORE {target or 'TARGET'}"


def save_for_mlflow(model: RiskModel, folder: Path, described: Model | None = None) -> str:
    """Write a model as MLflow serves it: our code, the model's files, a signature and an example, and no pickle.

    Returns
    -------
    the digest of the model's files
    """
    with TemporaryDirectory(prefix="weibing-") as scratch:
        files = Path(scratch, MODEL)
        model.save(files)
        mlflow.pyfunc.save_model(
            folder,
            python_model=Path(__file__).with_name("pyfunc.py"),
            artifacts={MODEL: str(files)},
            mlflow_model=described,
            signature=signature_of(model),
            input_example=example_of(model),
            pip_requirements=[f"weibing=={version_of('weibing')}"],
        )
        return digest_of(files)


def signature_of(model: RiskModel) -> ModelSignature:
    """Return what MLflow checks at its door: the features by name, and whether reasons are asked for."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.double, name) for name in model.card.features]),
        outputs=Schema([ColSpec(DataType.double)]),
        params=ParamSchema([ParamSpec("explain", DataType.boolean, default=False)]),
    )


def example_of(model: RiskModel) -> pd.DataFrame:
    """Return rows that the model can score and that are nobody's: the deciles of each feature, and nothing known."""
    typical = {name: [*of.quantiles[1:-1], float("nan")] for name, of in model.background.items()}
    return pd.DataFrame({name: typical[name] for name in model.card.features})


def digest_of(folder: Path) -> str:
    """Return a fingerprint of a model's files by name and content."""
    digest = hashlib.sha256()
    for path in sorted((*folder.rglob("*.txt"), *folder.rglob("*.json"))):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def parameters_of(trained: Trained) -> dict[str, object]:
    """Return what went into a training run."""
    card, grown = trained.model.card, trained.evidence.grown
    return {
        **_declared(card.target),
        **asdict(grown.trees),
        "rounds": grown.rounds,
        "seed": grown.booster.params["seed"],
        "folds": len(grown.folds),
        "features": len(card.features),
        "profile_version": card.profile_version,
        "vocabulary_version": card.vocabulary_version,
        "weibing_version": version_of("weibing"),
    }


def metrics_of(evidence: Evidence) -> dict[str, float]:
    """Return what came out of a training run, intervals as `…_lower` and `…_upper`, and nothing that is not defined."""
    measured = {"": evidence.validation, "logistic_": evidence.logistic}
    if isinstance(evidence.temporal, Validation):
        measured["temporal_"] = evidence.temporal
    numbers = {
        "rows": float(evidence.validation.n),
        "residents": float(evidence.validation.residents),
        "events": float(evidence.validation.events),
        "censored": float(evidence.censoring.censored),
        "truncated": float(evidence.censoring.truncated),
        **_with_interval("gain", evidence.gain),
    }
    for prefix, validation in measured.items():
        for name, estimate in validation.metrics.items():
            numbers |= _with_interval(f"{prefix}{name}", estimate)
    return {name: number for name, number in numbers.items() if isfinite(number)}


def _with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.estimate, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}


def _declared(target: Target) -> dict[str, str]:
    """Say what a target declares in words, by the names of the targets file; what it leaves open is left out."""
    words = {
        "target": target.name,
        "outcome": _said(target.outcome),
        "horizon": target.horizon,
        "index": "; ".join(f"{name} {_said(value)}" for name, value in asdict(target.index).items() if value),
        "age": _range(*target.age),
        "present": _said(target.present),
        "absent": _said(target.absent),
        "latest": "; ".join(f"{limit.concept} {_range(limit.at_least, limit.below)}" for limit in target.limits),
        "recurrent": str(target.recurrent),
        "increasing": _said(target.increasing),
        "decreasing": _said(target.decreasing),
        "tiers": _said(target.tiers),
    }
    return {name: said for name, said in words.items() if said}


def _range(at_least: float, below: float) -> str:
    return f"[{at_least:g}, {below:g})"


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _entries(
    trained: Trained, parameters: Mapping[str, object], run_id: str, model_id: str
) -> tuple[list[Metric], list[Param]]:
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, 0, model_id=model_id, run_id=run_id)
        for name, value in metrics_of(trained.evidence).items()
    ]
    return metrics, [Param(name, str(value)) for name, value in (parameters_of(trained) | dict(parameters)).items()]


def _write_evidence(trained: Trained, folder: Path) -> None:
    # Drawing needs seconds to import what a service that only loads models never uses.
    from training.plots import draw_all  # noqa: PLC0415

    evidence = trained.evidence
    _write(folder / "features.json", _features(trained))
    _write(folder / "cohort.json", _cohort(evidence))
    _write(folder / "validation.json", _validation(evidence))
    draw_all(trained, folder / "plots")


def _features(trained: Trained) -> dict[str, object]:
    card = trained.model.card
    used = [{"feature": name, "concept": of} for name, of in zip(card.features, card.concepts, strict=True)]
    return {"used": used, "dropped": trained.evidence.dropped}


def _cohort(evidence: Evidence) -> dict[str, object]:
    censoring = evidence.censoring
    counts = {name: getattr(censoring, name) for name in ("known", "censored", "truncated", "smallest_probability")}
    return {"flow": evidence.cohort.flow, "censoring": counts}


def _validation(evidence: Evidence) -> dict[str, object]:
    temporal = evidence.temporal
    return {
        "out_of_fold": evidence.validation.as_dict(),
        "logistic": evidence.logistic.as_dict(),
        "gain": evidence.gain.as_dict(),
        "temporal": temporal if isinstance(temporal, str) else temporal.as_dict(),
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _client_of(database: Path) -> MlflowClient:
    return MlflowClient(_uri(database), _uri(database))


def _uri(database: Path) -> str:
    return f"sqlite:///{database}"
