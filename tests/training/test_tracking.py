"""What a training run leaves in MLflow, and which model of a target serves."""

import getpass
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow import MlflowClient

from features.cohort import Limit
from features.errors import WeibingError
from training.promotion import KEYS
from training.subgroups import Subgroup
from training.tracking import RefusedError, Registered, Registry, metrics_of, parameters_of
from training.tracking.code_version import git_commit
from training.tracking.tables import write_tables
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
    said = [process.communicate(timeout=400)[0].decode() + f"exit {process.returncode}" for process in running]
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


def kept_by(registry: Registry, client: MlflowClient, version: str) -> Path:
    """The folder of what the run of a version kept."""
    run = client.get_model_version("hypertension", version).run_id
    return registry.artifacts / "hypertension" / run / "artifacts"


def mlflow_table(client: MlflowClient, run: str, name: str) -> pd.DataFrame:
    """A table that a run lists as such, read as MLflow reads one."""
    path = f"tables/{name}.json"
    assert {"path": path, "type": "table"} in json.loads(client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    return pd.read_json(client.download_artifacts(run, path), orient="split")


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


def with_slope(trained: Trained, slope: Estimate) -> Trained:
    """The same run, had its calibration slope been this."""
    validation = trained.evidence.validation
    changed = replace(validation, metrics=validation.metrics | {"calibration_slope": slope})
    return replace(trained, evidence=replace(trained.evidence, validation=changed))


BACKWARDS = Estimate(-0.04, -0.3, 0.2)


def test_a_first_version_that_the_rule_refuses_does_not_serve(small_trained, tmp_path):
    registry = Registry(tmp_path / "mlruns")
    first = registry.log(with_slope(small_trained, BACKWARDS))
    assert (first.version, first.alias) == ("1", "challenger")
    assert [check.name for check in first.decision.refused] == ["calibration_slope"]
    assert (registry.versions(), registry.champions()) == ({}, {})
    assert registry.without_champion() == ("hypertension",)
    assert registry.history("hypertension") == ()
    second = registry.log(small_trained)
    assert (second.version, second.alias, second.decision.refused) == ("2", "champion", ())
    assert registry.versions() == {"hypertension": "2"}
    assert registry.without_champion() == ()
    assert [(change.version, change.kind) for change in registry.history("hypertension")] == [("2", "first")]


def test_a_version_that_the_rule_refuses_is_promoted_only_by_force_and_for_a_reason(registry, client, small_trained):
    registry.log(with_slope(small_trained, BACKWARDS))
    with pytest.raises(RefusedError, match=r"not promoted. On the held-out rows the calibration slope is -0.040") as no:
        registry.promote("hypertension", "3")
    assert [check.name for check in no.value.decision.refused] == ["calibration_slope"]
    assert registry.versions() == {"hypertension": "1"}
    with pytest.raises(WeibingError, match="give a reason"):
        registry.promote("hypertension", "3", force=True, reason=" ")
    registry.promote("hypertension", "3", force=True, reason="试点: for the pilot in Shixi")
    assert registry.versions() == {"hypertension": "3"}
    last = registry.history("hypertension")[-1]
    assert (last.version, last.before, last.kind, last.reason) == ("3", "1", "forced", "试点: for the pilot in Shixi")
    assert last.against == ("calibration_slope",)
    assert last.by == getpass.getuser()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(last.at)) < timedelta(minutes=5)
    tags = client.get_model_version("hypertension", "3").tags
    assert tags["promotion.000001"] == last.line()
    assert "试点: for the pilot in Shixi" in last.line()


def test_force_is_not_written_down_where_it_was_not_needed(registry):
    registry.promote("hypertension", "2", force=True, reason="to be sure")
    assert registry.history("hypertension")[-1].kind == "promoted"


def test_a_reason_too_long_for_the_tag_is_refused(registry):
    with pytest.raises(WeibingError, match="The reason has 1,001 characters; it may have 1,000"):
        registry.promote("hypertension", "2", reason="为" * 1001)
    registry.promote("hypertension", "2", reason="为" * 1000)
    assert registry.history("hypertension")[-1].reason == "为" * 1000


def test_rolling_back_returns_step_by_step_to_the_champions_before(registry, small_trained):
    registry.log(small_trained)
    for version in ("2", "3"):
        registry.promote("hypertension", version)
    assert registry.rollback("hypertension", reason="alerts doubled").version == "2"
    assert registry.rollback("hypertension").version == "1"
    assert registry.versions() == {"hypertension": "1"}
    with pytest.raises(WeibingError, match=r"Version 1 of hypertension is the first champion .* none to go back to"):
        registry.rollback("hypertension")
    told = [(change.version, change.before, change.kind) for change in registry.history("hypertension")]
    assert told == [
        ("1", None, "first"),
        ("2", "1", "promoted"),
        ("3", "2", "promoted"),
        ("2", "3", "rolled back"),
        ("1", "2", "rolled back"),
    ]
    registry.promote("hypertension", "3")
    assert registry.rollback("hypertension").version == "1"


def test_rolling_back_to_a_champion_whose_files_are_damaged_is_refused(registry):
    registry.promote("hypertension", "2")
    shutil.rmtree(folder_of(registry, "1") / "artifacts" / "model")
    with pytest.raises(WeibingError, match=r"The files of version 1 of hypertension in .* are missing"):
        registry.rollback("hypertension")
    assert registry.versions() == {"hypertension": "2"}


def test_rolling_back_a_target_without_a_champion_is_refused(registry, client):
    client.delete_registered_model_alias("hypertension", "champion")
    with pytest.raises(WeibingError, match="has no model models:/hypertension@champion"):
        registry.rollback("hypertension")


def test_a_champion_that_was_set_in_mlflow_itself_is_one_to_return_to(registry, client):
    client.set_registered_model_alias("hypertension", "champion", "2")
    assert registry.rollback("hypertension").version == "1"


@pytest.mark.parametrize("name", ["held_out.json", "out_of_fold.parquet"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_evidence_that_is_missing_or_was_changed_proves_nothing(registry, client, name, version):
    path = kept_by(registry, client, version) / name
    path.write_bytes(path.read_bytes() + b" ") if name.endswith("json") else path.unlink()
    with pytest.raises(RefusedError, match=f"The evidence of version {version} of hypertension in .* is missing, or n"):
        registry.promote("hypertension", "2")
    assert registry.versions() == {"hypertension": "1"}


def test_a_version_whose_model_is_damaged_is_not_promoted_even_by_force(registry):
    cut_short(folder_of(registry, "2") / "artifacts" / "model")
    with pytest.raises(WeibingError, match="The files of version 2 of hypertension"):
        registry.promote("hypertension", "2", force=True, reason="now")
    assert registry.versions() == {"hypertension": "1"}


def test_promoting_the_champion_changes_and_writes_nothing(registry):
    assert registry.promote("hypertension", "1").checks == ()
    assert len(registry.history("hypertension")) == 1


class Killed(BaseException):
    """What ends a process in the middle of something."""


@pytest.mark.parametrize("after", range(5))
def test_a_promotion_killed_after_any_write_leaves_the_old_or_the_new_champion(registry, monkeypatch, after):
    written = []
    for name in [name for name in dir(MlflowClient) if name.startswith(("set_", "delete_", "update_", "create_"))]:
        monkeypatch.setattr(MlflowClient, name, killed_after(after, written, getattr(MlflowClient, name)))
    with suppress(Killed):
        registry.promote("hypertension", "2", reason="first try")
    monkeypatch.undo()
    champion = registry.versions()["hypertension"]
    # Written down, the alias moved, and noted with the version; after that nothing but the old alias is left to take.
    assert champion == ("1" if after < 2 else "2")
    assert [change.version for change in registry.history("hypertension")] == (["1"] if after < 2 else ["1", "2"])
    registry.champion("hypertension")
    if champion == "1":
        registry.promote("hypertension", "2", reason="second try")
    assert [change.version for change in registry.history("hypertension")] == ["1", "2"]
    assert registry.rollback("hypertension").version == "1"


def killed_after(number: int, written: list[str], call: Callable[..., object]) -> Callable[..., object]:
    """The same call, in a process that is killed once so many were made."""

    def counted(*arguments: object, **options: object) -> object:
        if len(written) == number:
            raise Killed
        written.append(call.__name__)
        return call(*arguments, **options)

    return counted


PROMOTE = """
import sys
from itertools import cycle
from pathlib import Path
from training.tracking import Registry

registry = Registry(Path(sys.argv[1]))
for version in cycle("21"):
    registry.promote("hypertension", version)
    print(version, flush=True)
"""


def test_a_process_killed_while_promoting_leaves_a_champion_and_its_history(registry):
    command = [sys.executable, "-c", PROMOTE, registry.folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for _ in range(3):
            last = running.stdout.readline().strip()
        time.sleep(0.15)
        running.kill()
    champion = registry.versions()["hypertension"]
    assert last == "2"
    assert registry.history("hypertension")[-1].version == champion
    assert registry.champion("hypertension").card.version == champion
    registry.promote("hypertension", "2" if champion == "1" else "1")


def test_a_report_is_given_back_as_it_was_kept(registry, client):
    for language in ("en", "zh"):
        kept = (kept_by(registry, client, "2") / "report" / f"{language}.html").read_text(encoding="utf-8")
        assert registry.report("hypertension", "2", language) == (kept, "2")
    assert registry.report("hypertension")[1] == "1"
    client.delete_registered_model_alias("hypertension", "champion")
    assert registry.report("hypertension")[1] == "2"


def test_a_report_that_is_not_there_is_refused(registry, client):
    shutil.rmtree(kept_by(registry, client, "1") / "report")
    with pytest.raises(WeibingError, match="No report was kept with version 1 of hypertension"):
        registry.report("hypertension")
    with pytest.raises(WeibingError, match="has version 1, 2"):
        registry.report("hypertension", "7")


@pytest.mark.parametrize(
    "ask", [lambda of: of.history("fall"), lambda of: of.rollback("fall"), lambda of: of.report("fall")]
)
def test_a_target_without_models_has_no_history_and_no_report(registry, ask):
    with pytest.raises(WeibingError, match="Train one with: weibing train STORE fall"):
        ask(registry)


def test_champions_are_those_of_our_targets_alone(registry, client):
    client.create_registered_model("somebody's own")
    version = client.create_model_version("somebody's own", str(registry.folder / "nowhere"))
    client.set_registered_model_alias("somebody's own", "champion", version.version)
    assert {target: model.card.version for target, model in registry.champions().items()} == {"hypertension": "1"}


def test_promoting_moves_the_champion_and_leaves_no_challenger(registry):
    assert not registry.promote("hypertension", "2").refused
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
            "git_commit": git_commit() or "no checkout",
            "folds": "5",
            "rounds": str(small_trained.evidence.grown.recipe.rounds),
            "num_leaves": str(small_trained.evidence.grown.recipe.trees.num_leaves),
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


def test_a_run_keeps_its_evidence_plots_tables_and_report(registry, client, small_trained):
    folder = kept_by(registry, client, "1")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    plots = {f"plots/{name}.png" for name in ("beeswarm", "calibration", "roc")}
    curves = {"auroc_over_time", "calibration_curve", "decision_curve"}
    tables = {f"tables/{name}.json" for name in {"subgroups", "rivals", "alarms"} | curves}
    alone = {"cohort.json", "features.json", "validation.json", "held_out.json", "out_of_fold.parquet"}
    assert plots | tables | alone | {"report/en.html", "report/zh.html"} <= files
    features, cohort, validation = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("features", "cohort", "validation")
    )
    assert [used["feature"] for used in features["used"]] == list(small_trained.model.card.features)
    assert features["dropped"] == small_trained.evidence.dropped
    assert cohort["flow"] == small_trained.evidence.cohort.flow
    assert cohort["censoring"]["censored"] == small_trained.evidence.censoring.censored
    assert validation["out_of_fold"] == small_trained.evidence.validation.as_dict()
    assert validation["temporal"] == small_trained.evidence.temporal


def test_a_run_keeps_every_row_with_the_risk_of_a_model_that_did_not_see_it(registry, client, small_trained):
    evidence = small_trained.evidence
    rows = pl.read_parquet(kept_by(registry, client, "1") / "out_of_fold.parquet")
    assert rows.columns == [*KEYS, "outcome", "weight", "risk", *evidence.sample.groups.columns]
    assert rows.select(KEYS).equals(evidence.cohort.rows.select(KEYS))
    assert rows["risk"].to_list() == evidence.grown.risk.tolist()
    assert rows["outcome"].null_count() == (evidence.sample.weight == 0).sum() == (rows["weight"] == 0).sum() > 0


def test_tables_are_as_mlflow_shows_them(registry, client, small_trained):
    run = client.get_model_version("hypertension", "1").run_id
    told = mlflow_table(client, run, "subgroups")
    cells = small_trained.evidence.subgroups
    assert told["value"].tolist() == [cell.value for cell in cells]
    assert told["auroc"][0] == pytest.approx(cells[0].metrics["auroc"].estimate)
    assert told["auroc_upper"][0] == pytest.approx(cells[0].metrics["auroc"].upper)
    rivals = mlflow_table(client, run, "rivals")
    assert rivals["name"].tolist() == [rival.name for rival in small_trained.evidence.rivals]
    assert rivals["difference"][0] == pytest.approx(small_trained.evidence.gain.estimate)
    assert "risk" not in rivals.columns
    curve = mlflow_table(client, run, "decision_curve")
    assert {"threshold", "model", "model_lower", "everyone"} <= set(curve.columns)


def test_of_a_subgroup_of_fewer_than_ten_a_table_tells_no_figure(small_trained, tmp_path):
    few = Subgroup("township", "Shixi", 9, 8, 3, None, "fewer than 10 residents")
    write_tables(replace(small_trained.evidence, subgroups=(few,)), tmp_path)
    told = json.loads((tmp_path / "subgroups.json").read_text(encoding="utf-8"))
    assert told == {
        "columns": ["grouping", "value", "reason"],
        "data": [["township", "Shixi", "fewer than 10 residents"]],
    }


def test_a_run_can_be_read_in_mlflow(registry, client, small_trained):
    run = client.get_run(client.get_model_version("hypertension", "1").run_id)
    note = run.data.tags["mlflow.note.content"]
    auroc = small_trained.evidence.validation.metrics["auroc"]
    assert note.startswith("### Hypertension (新发高血压) within 5y")
    assert "**SYNTHETIC DATA**" in note
    assert f"| AUROC | {auroc} |" in note
    assert run.info.run_name.startswith("hypertension ")
    assert run.data.tags["mlflow.source.name"] == "weibing train"
    assert run.data.tags["mlflow.user"]
    experiment = client.get_experiment(run.info.experiment_id)
    assert "| horizon | 5y |" in experiment.tags["mlflow.note.content"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "| horizon | 5y |" in client.get_registered_model("hypertension").description
    assert f"| AUROC | {auroc} |" in client.get_model_version("hypertension", "1").description


def test_a_run_names_the_data_that_it_read(registry, client, small_trained):
    third = registry.log(small_trained, parameters={"store": "county"})
    run = client.get_run(third.run_id)
    (read,) = run.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("county", small_trained.model.card.fingerprint)
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "training")]
    assert json.loads(read.dataset.profile)["num_rows"] == small_trained.evidence.validation.n
    names = [column["name"] for column in json.loads(read.dataset.schema)["mlflow_colspec"]]
    assert names == list(small_trained.model.card.features)
    assert run.data.params["fingerprint"] == small_trained.model.card.fingerprint


def test_a_run_names_the_commit_of_a_checkout(tmp_path):
    assert git_commit(tmp_path) is None
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org"]
    (tmp_path / "file").write_text("one", encoding="utf-8")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    git_commit.cache_clear()
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two", encoding="utf-8")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == f"{commit}+changes"


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
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".txt", ".json", ".yaml", ".py", ".npz"}
    for path in (path for path in files if path.suffix == ".npz"):
        with np.load(path, allow_pickle=False) as tables:
            assert all(tables[name].dtype != object for name in tables.files)
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
