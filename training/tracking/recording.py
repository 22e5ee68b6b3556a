"""How a training run is written down in MLflow."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModelOutput, LoggedModelStatus, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from features.cohort import Target
from training.tracking.described import (
    KIND,
    NOTE,
    TABLES,
    dataset_of,
    metrics_of,
    note_of,
    note_of_target,
    parameters_of,
    tags_of,
)
from training.tracking.model_files import MODEL, save_for_mlflow
from training.tracking.place import EXPERIMENT, OURS, Place
from training.tracking.tables import FOLDER
from training.train import Trained

# Tags of a version: the fingerprints of the model's files, and of what the rule of promotion looks at.
DIGEST = "sha256"
EVIDENCE_DIGEST = "evidence_sha256"
# MLflow takes up to a thousand metrics at once.
MOST_METRICS_AT_ONCE = 900


@dataclass(frozen=True)
class Recorder:
    """Writes training runs of one person into a place; only one may write at a time."""

    place: Place
    account: str

    def record(
        self, trained: Trained, parameters: Mapping[str, object], evidence: Path, evidence_digest: str
    ) -> ModelVersion:
        """Write a run and its model down, and register the model as a new version without an alias."""
        target = trained.model.card.target
        experiment = self._experiment(target)
        with self._run(experiment, trained) as run_id:
            logged = self._client.create_logged_model(experiment, MODEL, run_id)
            self._describe(trained, parameters, run_id, logged.model_id)
            self._client.log_artifacts(run_id, str(evidence))
            self._client.set_tag(run_id, TABLES, _tables_in(evidence))
            with TemporaryDirectory(prefix="weibing-") as scratch:
                described = Model(run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id)
                digests = {DIGEST: save_for_mlflow(trained.model, Path(scratch), described)}
                self._client.log_model_artifacts(logged.model_id, scratch)
            self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            digests[EVIDENCE_DIGEST] = evidence_digest
            return self._version(trained, logged.artifact_location, run_id, digests)

    def _describe(self, trained: Trained, parameters: Mapping[str, object], run_id: str, model_id: str) -> None:
        """Keep figures, parameters, tags and the data that was read."""
        data = dataset_of(trained, str(parameters.get("store", trained.model.card.target.name)))
        self._client.log_inputs(run_id, [data])
        now, of = int(time.time() * 1000), data.dataset
        metrics = [
            Metric(name, value, now, 0, model_id, of.name, of.digest, run_id)
            for name, value in metrics_of(trained.evidence).items()
        ]
        for first in range(0, len(metrics), MOST_METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics[first : first + MOST_METRICS_AT_ONCE])
        given = parameters_of(trained) | dict(parameters)
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in given.items()])

    def _experiment(self, target: Target) -> str:
        name = f"{EXPERIMENT}{target.name}"
        found: Experiment | None = self._client.get_experiment_by_name(name)
        if found is None:
            number = str(self._client.create_experiment(name, str(self.place.artifacts / target.name)))
        else:
            number = str(found.experiment_id)
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(number)
        self._client.set_experiment_tag(number, NOTE, note_of_target(target))
        self._client.set_experiment_tag(number, *KIND)
        return number

    @contextmanager
    def _run(self, experiment: str, trained: Trained) -> Iterator[str]:
        """Open a run, and end it as finished or, where something goes wrong, as failed."""
        card = trained.model.card
        name = f"{card.target.name} {card.fingerprint}"
        tags = tags_of(trained, self.account)
        run_id = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        try:
            yield run_id
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id)

    def _version(self, trained: Trained, source: str, run_id: str, digests: dict[str, str]) -> ModelVersion:
        target = trained.model.card.target
        if not self._client.search_registered_models(f"name = '{target.name}'"):
            self._client.create_registered_model(target.name)
        self._client.set_registered_model_tag(target.name, *OURS)
        self._client.update_registered_model(target.name, note_of_target(target))
        note = note_of(trained)
        return self._client.create_model_version(target.name, source, run_id, digests, description=note)

    @property
    def _client(self) -> MlflowClient:
        return self.place.client


def _tables_in(evidence: Path) -> str:
    """Return how MLflow knows which of a run's artifacts are tables."""
    paths = sorted((evidence / FOLDER).glob("*.json"))
    return json.dumps([{"path": f"{FOLDER}/{path.name}", "type": "table"} for path in paths])
