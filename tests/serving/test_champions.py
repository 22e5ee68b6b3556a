"""Champions are proved before they serve, exchanged while calls are under way, and served from a copy if need be."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from mlflow import MlflowClient

from features.engine import Engine
from features.errors import WeibingError
from serving.api.champions import Champions
from serving.api.metrics import CHAMPION, REFUSED, REGISTRY_READABLE
from serving.api.scores import Desk
from serving.settings import Settings
from serving.store.champions import ChampionsKept, KeptChampion, packed
from serving.store.database import Database
from serving.store.tables import champions as table
from training.calibrate import Recalibration
from training.model import RiskModel
from training.shapley import write_tables
from training.targets import FALL
from training.tracking import Registry, digest_of
from training.train import Trained

CALL = json.dumps(
    {
        "targets": ["hypertension"],
        "residents": [
            {
                "id": "r",
                "index_time": "2018-01-01",
                "events": [
                    {"code": "MEDS_BIRTH", "time": "1950-01-01"},
                    {"code": "sbp", "time": "2017-05-01", "value": 135, "unit": "mm[Hg]"},
                ],
            }
        ],
    }
).encode()
NEVER_SECONDS = 60


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def made(small_trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions of hypertension, the second with higher risks, and one of falls."""
    folder = tmp_path_factory.mktemp("made") / "mlruns"
    model = small_trained.model
    line = model.card.recalibration
    higher = replace(model.card, recalibration=Recalibration(line.intercept + 0.5, line.slope))
    for card in (model.card, higher, replace(model.card, target=FALL)):
        Registry(folder).log(replace(small_trained, model=replace(model, card=card)))
    return folder


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Registry:
    """A copy of it, in which the first versions are the champions."""
    shutil.copytree(made, tmp_path / "mlruns")
    return Registry(tmp_path / "mlruns")


@pytest.fixture
def kept(tmp_path: Path) -> Database:
    """A database that keeps copies."""
    return Database.open(str(tmp_path / "clinic.db"))


def begun(registry: Registry, engine: Engine, database: Database | None = None, **settings: object) -> Champions:
    """Return what a service has that was just started."""
    champions = Champions(Settings(mlruns=registry.folder, **settings), engine, database)
    champions.look()
    return champions


def serving(champions: Champions) -> dict[str, str]:
    questions = champions.scorer.questions if champions.scorer else {}
    return {target: question.model.card.version for target, question in questions.items()}


def risk(champions: Champions) -> float:
    """Call as others call, and return the risk."""
    desk = Desk(champions, champions.settings)
    answer = asyncio.run(desk.answer(CALL, "application/json"))
    assert answer.status_code == 200, answer.body
    return float(json.loads(answer.body)["residents"][0]["scores"][0]["probability"])


def gauge(target: str, version: str, source: str) -> float:
    return float(CHAMPION.labels(target, version, source)._value.get())


def refused(target: str = "hypertension") -> float:
    return float(REFUSED.labels(target)._value.get())


def change_a_leaf(folder: Path) -> None:
    trees = folder / "booster.txt"
    text = trees.read_text(encoding="utf-8")
    before, found, after = text.partition("leaf_value=")
    point = after.index(".") + 1
    other = str((int(after[point]) + 5) % 10)
    trees.write_text(f"{before}{found}{after[:point]}{other}{after[point + 1 :]}", encoding="utf-8")


def change_the_calibration(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    card["recalibration"]["slope"] *= 1.001
    (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")


def change_the_tables(folder: Path) -> None:
    """Write tables that fit the trees by their own account, and are others by a millionth."""
    model = RiskModel.load(folder)
    write_tables(
        folder / "explainer.npz",
        replace(model._explainer, base=model._explainer.base + 1e-6),
        model._texts,
        model._group,
    )


DAMAGES = [change_a_leaf, change_the_calibration, change_the_tables]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_champion_is_refused_the_old_one_goes_on_and_a_mended_one_swaps_in(
    registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    champions = begun(registry, engine)
    before, refusals = risk(champions), refused()
    folder, _ = registry.files("models:/hypertension/2")
    shutil.copytree(folder, whole := registry.folder.parent / "whole")
    registry.promote("hypertension", "2")
    damage(folder)

    champions.look()
    champions.look()
    assert serving(champions) == {"fall": "1", "hypertension": "1"}
    assert (risk(champions), champions.ready) == (before, True)
    assert caplog.text.count("Version 2 of hypertension cannot serve") == 1
    assert refused() - refusals == 1

    shutil.copytree(whole, folder, dirs_exist_ok=True)
    champions.look()
    assert serving(champions) == {"fall": "1", "hypertension": "2"}
    assert risk(champions) > before


@pytest.mark.parametrize("damage", [change_a_leaf, change_the_calibration])
def test_a_model_that_says_something_else_than_when_it_was_made_is_refused_whatever_its_files_are_registered_as(
    registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    folder, _ = registry.files("models:/hypertension/1")
    damage(folder)
    client = MlflowClient(f"sqlite:///{registry.database}", f"sqlite:///{registry.database}")
    client.set_model_version_tag("hypertension", "1", "sha256", digest_of(folder))
    assert serving(begun(registry, engine)) == {"fall": "1"}
    assert "something else than when it was made" in caplog.text


def test_a_model_made_before_there_were_examples_is_checked_against_lightgbm(
    small_trained: Trained, tmp_path: Path
) -> None:
    small_trained.model.save(tmp_path)
    (tmp_path / "example.json").unlink()
    assert RiskModel.load(tmp_path) == small_trained.model
    change_the_tables(tmp_path)
    with pytest.raises(WeibingError, match="cannot be loaded"):
        RiskModel.load(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_trees_that_are_cut_short_are_refused_and_not_given_to_lightgbm_which_would_end_the_process(
    small_trained: Trained, tmp_path: Path, share: float
) -> None:
    small_trained.model.save(tmp_path)
    text = (tmp_path / "booster.txt").read_text(encoding="utf-8")
    (tmp_path / "booster.txt").write_text(text[: int(share * text.index("end of trees"))], encoding="utf-8")
    with pytest.raises(WeibingError, match="cut short"):
        RiskModel.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"rows": []}', "null", '{"rows": [[NaN]]}'])
def test_a_damaged_example_is_refused(small_trained: Trained, tmp_path: Path, content: str) -> None:
    small_trained.model.save(tmp_path)
    (tmp_path / "example.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeibingError, match="cannot be loaded"):
        RiskModel.load(tmp_path)


def test_the_example_is_of_nobody_and_has_known_and_unknown_features(small_trained: Trained) -> None:
    example, model = small_trained.model.example(), small_trained.model
    unknown = np.isnan(example.rows)
    assert unknown[-1].all()
    assert 0.2 < unknown[:-1][:, [bool(model.background[name].quantiles) for name in model.card.features]].mean() < 0.4
    assert len(set(example.probability)) > 6


def test_a_new_champion_is_swapped_in_without_a_call_that_fails_or_is_of_two_models(
    registry: Registry, engine: Engine
) -> None:
    champions = begun(registry, engine, refresh_seconds=0.05)
    old, stop, told = risk(champions), Event(), [list[float](), list[float]()]

    def call(into: list[float]) -> None:
        while not stop.is_set():
            into.append(risk(champions))

    with ThreadPoolExecutor(3) as pool:
        watcher, *callers = pool.submit(champions.watch, stop), *(pool.submit(call, into) for into in told)
        try:
            registry.promote("hypertension", "2")
            deadline = time.monotonic() + NEVER_SECONDS
            while not all(each[-1:] > [old] for each in told) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            stop.set()
    for each in (watcher, *callers):
        each.result()
    assert all(set(each) == {old, risk(champions)} and each == sorted(each) for each in told)
    assert risk(champions) > old


def test_with_the_registry_gone_the_copy_serves_and_when_it_is_back_it_does(
    registry: Registry, engine: Engine, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    registered = begun(registry, engine, database)
    expected = risk(registered)
    registry.folder.rename(away := registry.folder.with_name("away"))

    started = begun(registry, engine, database)
    assert (serving(started), started.ready) == ({"fall": "1", "hypertension": "1"}, True)
    assert risk(started) == expected
    assert "Version 1 of hypertension is served from the database's copy." in caplog.text
    assert (gauge("hypertension", "1", "copy"), REGISTRY_READABLE._value.get()) == (1, 0)

    away.rename(registry.folder)
    started.look()
    assert risk(started) == expected
    assert (gauge("hypertension", "1", "copy"), gauge("hypertension", "1", "registry")) == (0, 1)
    assert REGISTRY_READABLE._value.get() == 1


def test_with_a_registry_that_is_no_database_the_copy_serves_only_what_is_asked_for(
    registry: Registry, engine: Engine, kept: Database
) -> None:
    begun(registry, engine, kept)
    registry.database.write_bytes(b"worn out")
    assert serving(begun(registry, engine, kept, targets=("fall",))) == {"fall": "1"}
    unknown = begun(registry, engine, kept, targets=("fall", "gout"))
    assert (serving(unknown), unknown.missing) == ({"fall": "1"}, ("No model of gout is loaded.",))


def test_a_champion_that_is_damaged_before_a_restart_is_served_from_its_copy(
    registry: Registry, engine: Engine, kept: Database
) -> None:
    expected = risk(begun(registry, engine, kept))
    change_a_leaf(registry.files("models:/hypertension/1")[0])
    again = begun(registry, engine, kept)
    assert (risk(again), again.ready) == (expected, True)


def test_a_damaged_copy_does_not_serve(
    registry: Registry, engine: Engine, kept: Database, caplog: pytest.LogCaptureFixture
) -> None:
    begun(registry, engine, kept)
    champion = ChampionsKept(kept).find("hypertension")
    with kept.writing() as connection:
        damaged = champion.artifact[:-9] + bytes(9)
        ours = table.c.target == "hypertension"
        connection.execute(table.update().where(ours).values(artifact=damaged))
    shutil.rmtree(registry.folder)
    started = begun(registry, engine, kept)
    assert (serving(started), started.missing) == ({"fall": "1"}, ("No model of hypertension is loaded.",))
    assert "The database's copy of version 1 of hypertension is damaged." in caplog.text


def test_a_database_that_is_away_does_not_keep_the_registrys_champions_from_serving(
    registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    away = Database.at("postgresql://nobody@127.0.0.1:9/nothing")
    assert begun(registry, engine, away).ready
    assert "The database keeps no copy of the champions" in caplog.text
    shutil.rmtree(registry.folder)
    neither = begun(registry, engine, away)
    assert (neither.scorer, neither.ready) == (None, False)


def test_a_copy_is_written_once_and_goes_when_the_target_has_no_champion(
    registry: Registry, engine: Engine, kept: Database
) -> None:
    copies = ChampionsKept(kept)
    begun(registry, engine, kept)
    since = copies.find("hypertension").kept_at
    champions = begun(registry, engine, kept)
    assert copies.find("hypertension").kept_at == since

    client = MlflowClient(f"sqlite:///{registry.database}", f"sqlite:///{registry.database}")
    client.delete_registered_model_alias("fall", "champion")
    registry.promote("hypertension", "2")
    champions.look()
    assert copies.versions() == {"hypertension": "2"} == serving(champions)


def test_an_archive_of_the_same_files_is_the_same_and_gives_the_model_back(
    small_trained: Trained, tmp_path: Path
) -> None:
    small_trained.model.save(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    assert packed(tmp_path / "one") == packed(tmp_path / "two")
    champion = KeptChampion.of("hypertension", "7", tmp_path / "two", datetime(2026, 1, 1))
    assert champion.model() == small_trained.model.with_version("7")
    assert len(champion.artifact) < sum(path.stat().st_size for path in (tmp_path / "two").rglob("*.*"))
