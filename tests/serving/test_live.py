"""What is said of a resident now: of store and database together, of neither in part."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta

import polars as pl
import pytest

from features.events import SCHEMA, EventStore
from serving.api.problems import ProblemError
from serving.live import Live
from serving.scoring import NotAtRisk, Score, score_one
from serving.store.alerts import Alerts
from serving.store.database import Database
from serving.store.duties import Duties
from serving.store.observations import Observations
from serving.store.people import People
from serving.store.tables import residents
from serving.store.telling import came_since
from tests.serving.clinics import Models, clinic_of, county
from tests.serving.furnished import DUTY, KEY, furnish, records_from, score
from training.train import Trained

NOW = datetime(2025, 3, 1)
CAME = """
    identifier | time                | code          | value | unit
    a          | 2025-02-01T09:00    | LOINC//8480-6 | 186   | mm[Hg]
    b          | 2025-03-01T00:00    | LOINC//8480-6 | 250   | mm[Hg]
"""


@pytest.fixture
def store(tmp_path) -> EventStore:
    return county(tmp_path / "store")


@pytest.fixture
def at_hand(tmp_path) -> Database:
    return Database.open(str(tmp_path / "clinic.db"))


@pytest.fixture
def live(at_hand: Database, store: EventStore, models: Models) -> Live:
    Observations(at_hand).append(records_from(CAME), NOW)
    return clinic_of(at_hand, store, models).live


def pressures(history: pl.DataFrame) -> list[float]:
    return history.filter(pl.col("code").is_in(["sbp", "LOINC//8480-6"]))["numeric_value"].to_list()


def test_a_history_is_the_store_and_what_came_since(live: Live) -> None:
    history = live.history(1)
    assert history.schema == pl.Schema(SCHEMA)
    assert pressures(history) == [128, 186, 250]
    assert set(history["subject_id"]) == {1}
    assert live.history(99).is_empty()
    both = live.histories([1, 2])
    assert both[1].equals(history)
    assert pressures(both[2]) == [131]


def test_what_is_in_store_and_database_at_once_counts_once(live: Live, store: EventStore, monkeypatch) -> None:
    before = live.history(1)
    # Killed in between, a compaction leaves the events in both.
    monkeypatch.setattr(Observations, "_remove", lambda *_: 0)
    Observations(live.database).compact(store, NOW)
    assert Observations(live.database).waiting() == 2
    assert live.history(1).equals(before)


def test_a_night_that_comes_between_the_two_readings_hides_nothing(live: Live, store: EventStore, monkeypatch) -> None:
    before = live.history(1)

    def at_nightfall(read: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
        def reading(*asked: object) -> pl.DataFrame:
            found = read(*asked)
            Observations(live.database).compact(store, NOW)
            return found

        return reading

    # Whichever is read first.
    monkeypatch.setattr(live, "_stored", at_nightfall(live._stored))
    monkeypatch.setattr("serving.live.came_since", at_nightfall(came_since))
    assert live.history(1).equals(before)
    assert Observations(live.database).waiting() == 0


def test_without_a_store_what_came_since_is_all_that_is_known(at_hand: Database, live: Live, models: Models) -> None:
    assert pressures(clinic_of(at_hand, None, models).live.history(1)) == [186, 250]


def test_the_scores_are_those_of_the_whole_history(live: Live, small_trained: Trained, models: Models) -> None:
    assessed = live.assess(1, NOW)
    (expected,) = score_one(
        live.history(1), NOW, {"hypertension": small_trained.model}, models.engine, NOW, most=5
    )  # fmt: skip
    assert assessed.answers == (expected,)
    assert assessed.targets["hypertension"].horizon == "5y"
    # What was recorded at the index time itself is not known yet.
    assert next(it.value for it in expected.drivers if it.concept == "sbp") == 186
    assert [duty.rule for duty in assessed.duties if duty.urgent] == ["pressure_emergency"]
    assert live.assess(1, NOW, targets=[]).answers == ()


def test_who_has_opted_out_is_not_scored_but_what_is_due_is_said(live: Live) -> None:
    People(live.database, KEY).opt_out(1, NOW)
    assessed = live.assess(1, NOW)
    assert assessed.answers == (NotAtRisk(1, "hypertension", NOW, "opted out of automated scoring"),)
    assert any(duty.urgent for duty in assessed.duties)


def status(problem: pytest.ExceptionInfo[ProblemError]) -> int:
    return int(problem.value.status)


def test_what_cannot_be_read_or_scored_is_no_answer(live: Live, store: EventStore, models: Models) -> None:
    with pytest.raises(ProblemError) as unknown_target:
        live.assess(1, NOW, targets=["fall"])
    live.champions = Models(models.engine, None, ("The models are being loaded.",))
    with pytest.raises(ProblemError, match="being loaded") as without_models:
        live.assess(1, NOW)
    live.champions = models
    shutil.move(store.path, store.path.with_name("away"))
    with pytest.raises(ProblemError) as without_store:
        live.assess(1, NOW)
    shutil.move(store.path.with_name("away"), store.path)
    live.database = Database.at(str(store.path / "no-folder" / "x.db"))
    with pytest.raises(ProblemError) as without_database:
        live.assess(1, NOW)
    assert [status(it) for it in (unknown_target, without_models, without_store, without_database)] == [503] * 4


def test_what_is_due_at_once_is_raised_once_by_whoever_finds_it(live: Live) -> None:
    for day in range(3):
        live.renew(1, NOW - timedelta(hours=1) + timedelta(minutes=day))
    (alert,) = Alerts(live.database).of(1)
    assert (alert.rule, alert.acknowledged_at) == ("pressure_emergency", None)
    assert Duties(live.database).of(1)[0].rule == "pressure_emergency"


def test_what_was_said_last_night_is_said_again(database: Database, models: Models) -> None:
    furnish(database)
    live = clinic_of(database, None, models).live
    kept = live.kept(1, datetime(2026, 3, 10))
    (answer,) = kept.answers
    assert isinstance(answer, Score)
    assert (answer.target, answer.probability, answer.drivers[0].label_en) == ("fall", 0.25, "systolic blood pressure")
    assert [(duty.rule, duty.overdue) for duty in kept.duties] == [(DUTY.rule, True)]
    assert live.kept(99, NOW) == live.kept(99, NOW)
    assert live.kept(99, NOW).at is None
    with database.reading() as connection:
        number = connection.execute(residents.select().where(residents.c.subject_id == 1)).one().id
    score(database, number, "hypertension", probability=None, id=5)
    People(database, KEY).opt_out(2, NOW)
    assert {type(it) for it in live.kept(1, NOW).answers} == {Score, NotAtRisk}
    assert {it.reason for it in live.kept(2, NOW).answers} == {"opted out of automated scoring"}
