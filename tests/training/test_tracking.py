"""What a training run leaves in MLflow, and which model of a target serves."""

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from math import nan
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from features.cohort import Limit
from features.errors import WeibingError
from training.tracking import Registered, Registry, metrics_of, parameters_of
from training.train import Trained
from training.validate import METRICS, Estimate

# Logs a run in a process of its own, in which any call to another machine ends it.
LOG = """
import pickle, socket, sys
from pathlib import Path

def refuse(*call, **options):
    sys.exit(f"called {call}")

socket.socket.connect = socket.getaddrinfo = refuse
from training.tracking import Registry

trained = pickle.loads(Path(sys.argv[1]).read_bytes())
Registry(Path("mlruns")).log(trained, parameters={"written_by": sys.argv[2]})
"""
# With these, MLflow would stay quiet because it is being tested.
SIGNS_OF_A_TEST = ("MLFLOW_", "DO_NOT_TRACK", "BENTOML_", "PYTEST_", "CI", "GITHUB_")


@pytest.fixture(scope="module")
def logged_at_once(small_trained: Trained, tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder to which two processes logged at the same time, from nothing, and what they said."""
    folder = tmp_path_factory.mktemp("county")
    (folder / "trained.pickle").write_bytes(pickle.dumps(small_trained))
    outside = {name: value for name, value in os.environ.items() if not name.startswith(SIGNS_OF_A_TEST)}
    command = [sys.executable, "-c", LOG, "trained.pickle"]
    running = [
        subprocess.Popen([*command, who], cwd=folder, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for who in ("one", "two")
    ]
    said = [process.communicate(timeout=120)[0].decode() + f"exit {process.returncode}" for process in running]
    (folder / "trained.pickle").unlink()
    return folder, said


@pytest.fixture
def registry(logged_at_once: tuple[Path, list[str]], tmp_path: Path) -> Registry:
    """A registry with two versions of hypertension, moved to a place of its own."""
    shutil.copytree(logged_at_once[0] / "mlruns", tmp_path / "somewhere else" / "mlruns")
    return Registry(tmp_path / "somewhere else" / "mlruns")


@pytest.fixture
def client(registry: Registry) -> MlflowClient:
    return MlflowClient(f"sqlite:///{registry.database}", f"sqlite:///{registry.database}")


def some_rows(trained: Trained) -> np.ndarray:
    return trained.evidence.rows.matrix[:50].astype(np.float64)


def folder_of(registry: Registry, version: str) -> Path:
    """The folder in which MLflow keeps a version."""
    with sqlite3.connect(registry.database) as database:
        source = database.execute("SELECT source FROM model_versions WHERE version = ?", (version,)).fetchone()[0]
    return registry.artifacts.joinpath(*Path(source).parts[-4:])


def test_two_processes_that_log_at_once_leave_a_champion_and_a_challenger(logged_at_once):
    registry = Registry(logged_at_once[0] / "mlruns")
    assert registry.versions("champion") == {"hypertension": "1"}
    assert registry.versions("challenger") == {"hypertension": "2"}
    client = MlflowClient(f"sqlite:///{registry.database}")
    runs = client.search_runs([client.get_experiment_by_name("weibing/hypertension").experiment_id])
    assert sorted(run.data.params["written_by"] for run in runs) == ["one", "two"]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_logging_says_nothing_and_calls_nobody(logged_at_once):
    assert logged_at_once[1] == ["exit 0", "exit 0"]


def test_logging_leaves_nothing_but_its_folder(logged_at_once):
    assert [path.name for path in logged_at_once[0].iterdir()] == ["mlruns"]
    assert sorted(path.name for path in (logged_at_once[0] / "mlruns").iterdir()) == [".lock", "artifacts", "mlflow.db"]


def test_a_champion_gives_the_risks_and_reasons_of_the_model_that_was_trained(registry, small_trained):
    champion, rows = registry.champion("hypertension"), some_rows(small_trained)
    assert np.array_equal(champion.probability(rows), small_trained.model.probability(rows))
    assert np.array_equal(champion.contributions(rows), small_trained.model.contributions(rows))
    assert champion == small_trained.model.with_version("1")


def test_a_model_is_loaded_by_alias_version_or_run(registry, client):
    run = client.get_model_version("hypertension", "2").run_id
    for uri, version in {
        "models:/hypertension@champion": "1",
        "models:/hypertension@challenger": "2",
        "models:/hypertension/1": "1",
        "models:/hypertension/2": "2",
        f"runs:/{run}": "2",
        f"runs:/{run}/model": "2",
    }.items():
        assert registry.load(uri).card.version == version, uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/hypertension/9", "The target hypertension has version 1, 2. Train one with"),
        ("models:/hypertension@winner", "has no model models:/hypertension@winner"),
        ("models:/hypertensoin@champion", 'Did you mean "hypertension"? Train one with: weibing train STORE hypertens'),
        ("models:/fall@champion", "has no model models:/fall@champion. Train one with: weibing train STORE fall"),
        ("runs:/0123456789abcdef", "has no model runs:/0123456789abcdef"),
        ("hypertension", '"hypertension" is not the address of a model. Write models:/TARGET@champion'),
        ("models:/a'b/1", "is not the address of a model"),
    ],
)
def test_an_address_without_a_model_is_refused_with_the_remedy(registry, uri, said):
    with pytest.raises(WeibingError) as error:
        registry.load(uri)
    assert said in str(error.value)


def test_without_a_registry_there_is_no_champion_and_none_is_made(tmp_path):
    registry = Registry(tmp_path / "mlruns")
    with pytest.raises(WeibingError, match="Train one with: weibing train STORE fall"):
        registry.champion("fall")
    assert registry.champions() == {}
    assert not registry.folder.exists()


def test_champions_are_those_of_our_targets_alone(registry, client):
    client.create_registered_model("somebody's own")
    version = client.create_model_version("somebody's own", str(registry.folder / "nowhere"))
    client.set_registered_model_alias("somebody's own", "champion", version.version)
    assert {target: model.card.version for target, model in registry.champions().items()} == {"hypertension": "1"}


def test_promoting_moves_the_champion_and_leaves_no_challenger(registry):
    registry.promote("hypertension", "2")
    assert registry.champion("hypertension").card.version == "2"
    assert registry.versions("challenger") == {}
    registry.promote("hypertension", "1")
    assert registry.champion("hypertension").card.version == "1"


def test_after_promoting_mlflow_itself_finds_a_model_of_a_folder_that_was_moved(registry, client):
    assert not Path(client.get_model_version_download_uri("hypertension", "1")).is_relative_to(registry.folder)
    registry.promote("hypertension", "2")
    assert Path(client.get_model_version_download_uri("hypertension", "1")) == folder_of(registry, "1")


def test_an_unknown_version_is_not_promoted(registry):
    with pytest.raises(WeibingError, match="has version 1, 2"):
        registry.promote("hypertension", "3")
    assert registry.versions() == {"hypertension": "1"}


def test_a_run_keeps_what_went_in_and_what_came_out(registry, client, small_trained):
    run = client.get_run(client.get_model_version("hypertension", "1").run_id)
    assert (
        run.data.params.items()
        >= {
            "target": "hypertension",
            "horizon": "5y",
            "index": "first examination; offset 1d",
            "outcome": "hypertension",
            "age": "[18, inf)",
            "seed": "0",
            "folds": "5",
            "rounds": str(small_trained.evidence.grown.rounds),
            "num_leaves": str(small_trained.evidence.grown.trees.num_leaves),
            "profile_version": small_trained.model.card.profile_version,
            "vocabulary_version": small_trained.model.card.vocabulary_version,
            "weibing_version": "0.1.0",
        }.items()
    )
    assert run.data.metrics == metrics_of(small_trained.evidence)
    assert (
        run.data.tags.items()
        >= {
            "target": "hypertension",
            "fingerprint": small_trained.model.card.fingerprint,
            "synthetic": "true",
        }.items()
    )


def test_a_run_keeps_its_evidence_and_plots(registry, client, small_trained):
    run = client.get_run(client.get_model_version("hypertension", "1").run_id).info.run_id
    folder = registry.artifacts / "hypertension" / run / "artifacts"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    plots = [f"plots/{name}.png" for name in ("beeswarm", "calibration", "roc")]
    assert files == ["cohort.json", "features.json", *plots, "validation.json"]
    features, cohort, validation = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("features", "cohort", "validation")
    )
    assert [used["feature"] for used in features["used"]] == list(small_trained.model.card.features)
    assert features["dropped"] == small_trained.evidence.dropped
    assert cohort["flow"] == small_trained.evidence.cohort.flow
    assert cohort["censoring"]["censored"] == small_trained.evidence.censoring.censored
    assert validation["out_of_fold"] == small_trained.evidence.validation.as_dict()
    assert validation["temporal"] == small_trained.evidence.temporal


def test_metrics_have_their_intervals_and_leave_out_what_is_not_defined(small_trained):
    evidence = small_trained.evidence
    numbers = metrics_of(evidence)
    auroc = evidence.validation.metrics["auroc"]
    assert [numbers[f"auroc{end}"] for end in ("_lower", "", "_upper")] == [auroc.lower, auroc.estimate, auroc.upper]
    assert {f"logistic_{name}{end}" for name in METRICS for end in ("", "_lower", "_upper")} <= numbers.keys()
    assert numbers["events"] == evidence.rows.outcome.sum()
    assert not [name for name in numbers if name.startswith("temporal_")]
    later = replace(evidence.validation, metrics={"auroc": Estimate(0.7, nan, nan)})
    assert {
        name: number
        for name, number in metrics_of(replace(evidence, temporal=later)).items()
        if name.startswith("temporal_")
    } == {"temporal_auroc": 0.7}


def test_a_run_follows_the_folder_to_where_it_was_moved(registry, client, small_trained, tmp_path):
    third = registry.log(small_trained, parameters={"seed": 5})
    assert third == Registered(third.run_id, "hypertension", "3", "challenger")
    assert (registry.artifacts / "hypertension" / third.run_id / "artifacts" / "plots" / "roc.png").exists()
    for version in ("1", "2", "3"):
        assert client.get_model_version_download_uri("hypertension", version).startswith(str(tmp_path))
        assert client.list_artifacts(client.get_model_version("hypertension", version).run_id, "plots")
    assert client.get_run(third.run_id).data.params["seed"] == "5"


def test_a_run_restores_an_experiment_that_was_deleted(registry, client, small_trained):
    client.delete_experiment(client.get_experiment_by_name("weibing/hypertension").experiment_id)
    assert client.get_run(registry.log(small_trained).run_id).info.status == "FINISHED"


def test_a_run_that_cannot_be_kept_is_marked_as_failed_and_registers_nothing(registry, client, small_trained):
    shutil.rmtree(registry.artifacts)
    registry.artifacts.write_text("a file where the folder should be")
    with pytest.raises(NotADirectoryError):
        registry.log(small_trained)
    runs = client.search_runs([client.get_experiment_by_name("weibing/hypertension").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED", "FINISHED"]
    assert registry.versions("challenger") == {"hypertension": "2"}


def test_mlflows_own_settings_are_left_alone(registry, small_trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    registry.log(small_trained)
    registry.champion("hypertension")
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
    assert mlflow.active_run() is None
    assert [path.name for path in tmp_path.iterdir()] == ["somewhere else"]


def damage_a_digit(folder: Path) -> None:
    booster = folder / "booster.txt"
    text = booster.read_text()
    place = text.index("leaf_value=") + len("leaf_value=") + 4
    booster.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def cut_short(folder: Path) -> None:
    (folder / "folds" / "0.txt").write_text((folder / "folds" / "0.txt").read_text()[:1000])


@pytest.mark.parametrize(
    "damage",
    [damage_a_digit, cut_short, shutil.rmtree, lambda folder: (folder / "background.json").unlink()],
    ids=["a digit of a leaf", "a fold cut short", "the folder gone", "a file gone"],
)
def test_a_model_whose_files_are_damaged_is_not_loaded(registry, damage):
    damage(folder_of(registry, "1") / "artifacts" / "model")
    with pytest.raises(WeibingError, match=r"The files of version 1 of hypertension in .* Restore them from a backup"):
        registry.champion("hypertension")
    assert registry.load("models:/hypertension/2").card.version == "2"


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be taken for one" * 20])
def test_a_database_that_is_none_is_refused_at_once(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(WeibingError, match="is not a readable MLflow database"):
        Registry(tmp_path).champion("fall")


def test_a_database_of_another_mlflow_is_refused_with_the_command_that_upgrades_it(registry):
    with sqlite3.connect(registry.database) as database:
        database.execute("UPDATE alembic_version SET version_num = '0a8213491aaa'")
    with pytest.raises(WeibingError, match="mlflow db upgrade sqlite:///"):
        registry.champion("hypertension")


def test_mlflow_serves_the_same_risks_and_reasons_that_add_up(registry, client, small_trained):
    served, model = mlflow.pyfunc.load_model(str(folder_of(registry, "1"))), small_trained.model
    rows = served.input_example.sample(frac=1, random_state=0)
    matrix = rows[list(model.card.features)].to_numpy(np.float64)
    assert np.array_equal(served.predict(rows), model.probability(matrix))
    assert np.array_equal(served.predict(rows.astype(np.float32)), model.probability(np.float32(matrix).astype(float)))
    explained = served.predict(rows, params={"explain": True})
    assert list(explained.columns) == ["base", *model.card.features]
    assert np.abs(explained.sum(axis=1) - model.logit(matrix)).max() < 1e-9


def test_mlflow_refuses_rows_without_a_feature(registry):
    served = mlflow.pyfunc.load_model(str(folder_of(registry, "1")))
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs \\['age'\\]"):
        served.predict(served.input_example.drop(columns="age"))


def test_a_kept_model_holds_no_pickle_and_nobody_s_row(registry, small_trained):
    folder = folder_of(registry, "1")
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {"", ".txt", ".json", ".yaml", ".py"}
    known = np.nan_to_num(small_trained.evidence.rows.matrix, nan=-1)
    example = mlflow.pyfunc.load_model(str(folder)).input_example[list(small_trained.model.card.features)]
    shown = np.nan_to_num(example.to_numpy(np.float32), nan=-1)
    assert not (shown[:, None, :] == known[None, :, :]).all(axis=2).any()


def test_parameters_say_every_condition_of_a_target(small_trained):
    card = small_trained.model.card
    target = replace(card.target, limits=(Limit("sbp", below=140), Limit("egfr", 30, 90)), present=("diabetes", "ckd"))
    said = parameters_of(replace(small_trained, model=replace(small_trained.model, card=replace(card, target=target))))
    assert said["latest"] == "sbp [-inf, 140); egfr [30, 90)"
    assert said["present"] == "diabetes, ckd"
