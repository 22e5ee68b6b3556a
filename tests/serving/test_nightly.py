"""The nightly run, kept in a file, in SQLite and in PostgreSQL."""

import multiprocessing
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.errors import WeibingError
from features.events import EventStore
from serving.scoring.nightly import IncompleteError, Night, Options, in_this_process, night
from serving.scoring.parquet import FileLedger
from serving.scoring.pieces import Piece, pieces_of
from serving.scoring.run import Failure, Ledger, Tally
from serving.scoring.shard import MOVED, Job
from serving.store.ledger import DatabaseLedger
from serving.store.queries import current_scores
from tests.postgres import new_database, postgres_server
from tests.serving.nights import INDEX, NOW, OF_THE_SCORE, SHARDS, appended, killed_after, sharded_copy, told_of
from tests.tables import events_from
from training.calibrate import logit
from training.fitted import Fitted
from training.model import RiskModel
from training.train import Trained

KINDS = ("file", "sqlite", "postgresql")
NEXT_NIGHT = INDEX + timedelta(days=1)


@pytest.fixture(scope="module")
def models(small_trained: Trained) -> dict[str, RiskModel]:
    """Two targets, with trees alone: a linear partner sees every day that passes.

    Of falls, everybody who is old enough is at risk.
    """
    model = trees_alone(small_trained.model.with_version("3"))
    fall = replace(
        model,
        card=replace(
            model.card, target=replace(model.card.target, name="fall", absent=(), outcome=("fall",), recurrent=True)
        ),
    )
    return {"fall": fall, "hypertension": model}


def trees_alone(model: RiskModel) -> RiskModel:
    whole, *folds = (Fitted(fitted.booster_text) for fitted in (model.whole, *model.folds))
    card = replace(model.card, recipe=replace(model.card.recipe, partner=0.0))
    return replace(model, card=card, whole=whole, folds=tuple(folds))


@pytest.fixture
def store(small_store: EventStore, tmp_path: Path) -> EventStore:
    return sharded_copy(small_store, tmp_path / "county")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("pg")) as url:
        yield url


@pytest.fixture(params=KINDS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return ledger_of(request, tmp_path, "scores")


def ledger_of(request: pytest.FixtureRequest, tmp_path: Path, name: str, kind: str | None = None) -> Ledger:
    kind = kind or request.param
    if kind == "file":
        return FileLedger(tmp_path / f"{name}.parquet")
    if kind == "sqlite":
        return DatabaseLedger.open(f"sqlite:///{tmp_path / name}.db")
    return DatabaseLedger.open(new_database(request.getfixturevalue("server")))


def current(ledger: Ledger) -> pl.DataFrame:
    """What readers see, a row a score, the drivers as a list."""
    if isinstance(ledger, FileLedger):
        return pl.read_parquet(ledger.path)
    return current_scores(ledger.database.engine, ledger.residents()["subject_id"])


def scores(table: pl.DataFrame) -> pl.DataFrame:
    """What holds of each score, whenever it was made."""
    return table.select(OF_THE_SCORE).sort("subject_id", "target")


def ran(
    store: EventStore, ledger: Ledger, models: dict[str, RiskModel], at: datetime = INDEX, **options: object
) -> Night:
    return night(store, [ledger], models, NOW, Options(index_time=at, **options))


def records(subject_id: int, table: str) -> pl.DataFrame:
    return events_from(f"time | code | value\n{table}", subject_id=subject_id)


def at_risk(table: pl.DataFrame, target: str = "hypertension") -> int:
    """The one at risk whose risk is the least."""
    return int(table.filter(target=target).sort("probability")["subject_id"][0])


def the_score(ledger: Ledger, subject_id: int, target: str = "hypertension") -> dict[str, object]:
    [row] = current(ledger).filter(subject_id=subject_id, target=target).to_dicts()
    return row


def test_everybody_at_risk_has_one_score_a_target(store, ledger, models):
    found = ran(store, ledger, models)
    table = current(ledger)
    assert table.select("subject_id", "target").is_unique().all()
    assert len(table) == found.counts["scored"] > 250
    outside = sum(sum(reasons.values()) for reasons in found.not_at_risk.values())
    assert len(table) + outside == 2 * (found.residents - found.counts.get("without records before it", 0))
    assert sum(sum(tiers.values()) for tiers in found.tiers.values()) == len(table)
    assert (table["percentile"].is_between(0, 100)).all()


def test_the_reasons_that_are_kept_add_up(store, ledger, models):
    ran(store, ledger, models)
    table = current(ledger)
    named = table["drivers"].list.eval(pl.element().struct.field("contribution")).list.sum()
    off = table["base"] + named + table["other"] - pl.Series(logit(table["probability"].to_numpy()))
    assert off.abs().max() < 1e-9


def test_a_run_of_what_has_changed_ends_where_a_run_of_everyone_ends(store, ledger, models, tmp_path):
    ran(store, ledger, models)
    table = current(ledger)
    ill, measured = table["subject_id"].unique().sort()[:2].to_list()
    more = [records(ill, "2018-01-01 08:00:00 | hypertension |"), records(measured, "2017-12-31 | sbp | 171")]
    store = appended(store, pl.concat(more))
    some = ran(store, ledger, models, NEXT_NIGHT)
    everyone = FileLedger(tmp_path / "everyone.parquet")
    ran(store, everyone, models, NEXT_NIGHT, everyone=True)
    assert scores(current(ledger)).equals(scores(current(everyone)))
    assert some.counts["kept"] > 50
    assert some.counts["scored"] + some.counts["kept"] == len(current(ledger))
    assert some.counts["ended"] == 1


def test_all_scores_everyone_again(store, ledger, models):
    first = ran(store, ledger, models)
    second = ran(store, ledger, models, everyone=True)
    assert second.counts["scored"] == second.counts["again"] == first.counts["scored"]
    assert (current(ledger)["previous"] == current(ledger)["probability"]).all()


def test_nothing_is_scored_again_where_nothing_has_changed(store, ledger, models):
    ran(store, ledger, models)
    before = current(ledger)
    again = ran(store, ledger, models)
    assert again.counts.get("scored", 0) == 0
    assert scores(current(ledger)).equals(scores(before))


def test_another_model_scores_everyone_again(store, ledger, models):
    first = ran(store, ledger, models)
    line = models["fall"].card.recalibration
    shifted = replace(models["fall"].card, recalibration=replace(line, intercept=line.intercept + 0.5), version="4")
    second = ran(store, ledger, {**models, "fall": replace(models["fall"], card=shifted)})
    falls = sum(first.tiers["fall"].values())
    assert (second.counts["scored"], second.counts["kept"]) == (falls, first.counts["scored"] - falls)
    assert set(current(ledger).filter(target="fall")["model_version"]) == {"4"}


def test_a_new_value_moves_the_score_and_is_named_as_what_moved_it(store, ledger, models):
    ran(store, ledger, models)
    who = at_risk(current(ledger))
    before = current(ledger).row(
        by_predicate=(pl.col("subject_id") == who) & (pl.col("target") == "hypertension"), named=True
    )
    store = appended(store, records(who, "2017-12-31 | sbp | 171"))
    found = ran(store, ledger, models, NEXT_NIGHT)
    after = current(ledger).row(
        by_predicate=(pl.col("subject_id") == who) & (pl.col("target") == "hypertension"), named=True
    )
    assert after["previous"] == before["probability"] < after["probability"]
    [sbp] = [driver for driver in after["drivers"] if driver["concept"] == "sbp"]
    assert sbp["change"] > MOVED
    assert (sbp["value"], sbp["date"]) == (171, datetime(2017, 12, 31))
    assert found.counts["up"] >= 1


def test_who_is_no_longer_at_risk_or_has_left_the_store_has_no_score_any_more(
    store, ledger, models, small_store, tmp_path
):
    ran(store, ledger, models)
    ill, left = (current(ledger).filter(target="hypertension")["subject_id"].to_list())[:2]
    events = pl.concat([store.read(shard) for shard in store.shards]).filter(pl.col("subject_id") != left)
    smaller = EventStore.create(tmp_path / "smaller", timezone=store.timezone)
    smaller.append([events, records(ill, "2017-12-31 | hypertension |")])
    found = ran(EventStore.open(tmp_path / "smaller"), ledger, models, NEXT_NIGHT)
    table = current(ledger)
    assert left not in table["subject_id"]
    assert table.filter(subject_id=ill)["target"].to_list() == ["fall"]
    assert found.ended >= 3


def test_a_target_that_is_new_is_scored_beside_what_has_not_changed(store, ledger, models):
    first = ran(store, ledger, {"fall": models["fall"]})
    second = ran(store, ledger, models)
    assert second.counts["kept"] == first.counts["scored"]
    assert second.counts["scored"] == sum(second.tiers["hypertension"].values()) > 0
    assert set(current(ledger)["target"]) == {"fall", "hypertension"}


def test_a_target_that_is_not_scored_any_more_has_no_scores_any_more(store, ledger, models):
    first = ran(store, ledger, models)
    second = ran(store, ledger, {"fall": models["fall"]})
    assert set(current(ledger)["target"]) == {"fall"}
    assert second.ended == sum(first.tiers["hypertension"].values())


def test_readers_see_the_run_before_until_the_next_is_complete(store, ledger, models):
    ran(store, ledger, models)
    before = current(ledger)
    seen = []

    def watched(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        for told in in_this_process(job, pieces):
            seen.append(current(ledger))
            yield told

    ran(store, ledger, models, INDEX + timedelta(days=200), everyone=True, walk=watched)
    assert len(seen) == SHARDS
    assert all(each.equals(before) for each in seen)
    assert not scores(current(ledger)).equals(scores(before))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_and_run_again_it_ends_where_an_undisturbed_run_ends(
    store, models, request, tmp_path, kind
):
    ledger, undisturbed = (ledger_of(request, tmp_path, name, kind) for name in ("killed", "undisturbed"))
    for each in (ledger, undisturbed):
        ran(store, each, models)
    who = at_risk(current(ledger))
    store = appended(store, records(who, "2017-12-31 | sbp | 171"))
    before, options = current(ledger), Options(index_time=NEXT_NIGHT, everyone=True)
    begun = time.monotonic()
    ran(store, undisturbed, models, NEXT_NIGHT, everyone=True)
    took, lots = time.monotonic() - begun, random.Random(5)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.serving.nights", "serving.store.ledger"])
    killed, first = 0, ledger.last()
    while ledger.last() == first and killed < 12:
        # The first ones early, so that there is something left to kill; the later ones later, so that it ends.
        delay = lots.uniform(0.0, 0.3 + 0.1 * killed) * took
        child = processes.Process(target=killed_after, args=(delay, store, ledger, models, options))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        killed += child.exitcode == -signal.SIGKILL
        assert ledger.last() != first or current(ledger).equals(before)
    assert killed >= 2
    if ledger.last() == first:
        ran(store, ledger, models, NEXT_NIGHT, everyone=True)
    found = current(ledger)
    assert scores(found).equals(scores(current(undisturbed)))
    assert found.select("subject_id", "target").is_unique().all()


def break_off_after_three(store: EventStore, ledger: Ledger, models: dict[str, RiskModel]) -> None:
    def broken_off(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        yield from in_this_process(job, pieces[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(store, ledger, models, walk=broken_off)


def test_a_run_that_was_broken_off_goes_on_where_it_ended(store, ledger, models):
    break_off_after_three(store, ledger, models)
    told: list[str] = []
    found = night(store, [ledger], models, NOW + timedelta(hours=1), progress=told.append)
    assert (found.resumed, found.pieces, found.run.index_time) == (3, SHARDS, INDEX)
    assert "3 pieces are done" in told[0]
    assert len(current(ledger)) == found.counts["scored"]


def test_a_run_over_records_that_have_changed_begins_anew(store, ledger, models):
    break_off_after_three(store, ledger, models)
    store = appended(store, records(1, "2017-12-31 | sbp | 171"))
    found = ran(store, ledger, models)
    assert found.resumed == 0
    assert current(ledger).select("subject_id", "target").is_unique().all()


def test_a_shard_that_cannot_be_read_fails_the_run_and_is_all_that_is_left_to_do(store, ledger, models):
    ran(store, ledger, models)
    before, shard = current(ledger), store.shards[2]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    said: list[dict[str, object]] = []
    sentence = rf"1 of {SHARDS} pieces could not be scored: .*{shard.name} cannot be read"
    with pytest.raises(IncompleteError, match=sentence) as caught:
        night(store, [ledger], models, NOW, Options(index_time=NEXT_NIGHT), log=said.append)
    assert [line["shard"] for line in told_of(said, "failure")] == [f"data/{shard.name}"]
    assert len(told_of(said, "shard")) == SHARDS - 1
    found = caught.value.night
    assert list(found.failures.values()) == [1]
    assert found.counts["scored"] + found.counts["kept"] > 0
    assert current(ledger).equals(before)


def test_a_line_is_logged_of_every_shard_and_one_of_the_run(store, ledger, models):
    said: list[dict[str, object]] = []
    found = night(store, [ledger], models, NOW, Options(index_time=INDEX), log=said.append)
    shards = told_of(said, "shard")
    assert len({line["shard"] for line in shards}) == SHARDS
    assert sum(line["counts"]["scored"] for line in shards) == found.counts["scored"]
    assert [line["scored"] for line in told_of(said, "run")] == [found.counts["scored"]]


def test_progress_tells_the_rate_and_the_time_left(store, ledger, models):
    told: list[str] = []
    night(store, [ledger], models, NOW, Options(index_time=INDEX), progress=told.append)
    assert len(told) == SHARDS
    assert told[-1].startswith(f"scored {SHARDS} of {SHARDS} pieces, 240 residents, ")
    assert told[-1].endswith("a second, 0 s left")


def test_a_file_and_a_database_are_kept_side_by_side(store, models, tmp_path):
    file, database = FileLedger(tmp_path / "scores.parquet"), DatabaseLedger.open(f"sqlite:///{tmp_path}/scores.db")
    night(store, [database, file], models, NOW, Options(index_time=INDEX))
    assert scores(current(file)).equals(scores(current(database)))


def test_a_large_shard_is_scored_in_parts(small_store, models, tmp_path, monkeypatch):
    whole, parts = FileLedger(tmp_path / "whole.parquet"), FileLedger(tmp_path / "parts.parquet")
    ran(small_store, whole, models)
    monkeypatch.setattr("serving.scoring.pieces.FEWEST_EVENTS", 1)
    monkeypatch.setattr("serving.scoring.pieces.BYTES_AN_EVENT", 100_000)
    found = ran(small_store, parts, models)
    assert found.pieces > 3
    assert scores(current(parts)).equals(scores(current(whole)))


def test_too_little_memory_is_said(small_store):
    with pytest.raises(WeibingError, match=r"0.5 GB are too little for 1 worker\. Give it .* with --memory"):
        pieces_of(small_store, 500_000_000)


def test_nobody_at_risk_is_a_mistake_and_readers_go_on_seeing_what_they_saw(store, ledger, models):
    ran(store, ledger, models)
    before = current(ledger)
    with pytest.raises(WeibingError, match=r"Nobody in .* at 2050-01-01"):
        ran(store, ledger, models, datetime(2050, 1, 1))
    assert current(ledger).equals(before)
    assert ledger.unfinished() is None


def test_a_file_that_cannot_be_written_is_named(store, models, tmp_path):
    with pytest.raises(WeibingError, match=r"cannot be kept in .*nowhere"):
        ran(store, FileLedger(tmp_path / "nowhere" / "scores.parquet"), models)


def test_a_damaged_file_is_named(store, models, tmp_path):
    (tmp_path / "scores.parquet").write_text("no scores")
    with pytest.raises(WeibingError, match=r"scores\.parquet, or the run beside it, is damaged"):
        ran(store, FileLedger(tmp_path / "scores.parquet"), models)


def test_a_run_leaves_the_file_alone_beside_nothing(store, models, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    ran(store, FileLedger(folder / "scores.parquet"), models)
    assert [each.name for each in folder.iterdir()] == ["scores.parquet"]
    assert np.isfinite(pl.read_parquet(folder / "scores.parquet")["probability"].to_numpy()).all()
