"""A clinic's whole night: taken in, scored, and what is due; who has opted out; killed and begun again."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import EventStore
from serving import night
from serving.duties import DutyRules, rulebook
from serving.night import WholeNight, whole_night
from serving.rights import erase
from serving.scoring.nightly import Options, in_this_process
from serving.scoring.parquet import FileLedger
from serving.scoring.pieces import Piece
from serving.scoring.run import Failure, Tally
from serving.scoring.shard import OPTED_OUT, Job
from serving.store.alerts import Alerts
from serving.store.database import Database
from serving.store.duties import Duties
from serving.store.erasure import erase as erase_rows
from serving.store.ledger import DatabaseLedger
from serving.store.observations import Observations
from serving.store.panels import Panels
from serving.store.people import numbers_of, opt_in, opt_out
from serving.store.queries import current_scores
from serving.store.tables import alerts, duties, records
from serving.store.telling import known_of
from tests.serving.accounts import copied
from tests.serving.nights import INDEX, NOW, OF_THE_SCORE, sharded_copy
from tests.tables import events_from
from training.model import RiskModel
from training.train import Trained

SINCE = datetime(2017, 1, 1)
TARGET = "hypertension"
# What a night says on its way, and is killed at.
MOMENTS = ("taking in", "scored 3 of", "duties of")


@pytest.fixture(scope="module")
def models(small_trained: Trained) -> dict[str, RiskModel]:
    return {TARGET: small_trained.model.with_version("3")}


@pytest.fixture(scope="module")
def rules() -> DutyRules:
    return DutyRules(rulebook("2017"), timezone="Asia/Shanghai")


@pytest.fixture
def store(small_store: EventStore, tmp_path: Path) -> EventStore:
    return sharded_copy(small_store, tmp_path / "county")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return clinic(str(tmp_path / "weibing.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same, of either kind."""
    with copied(request.getfixturevalue(request.param), tmp_path / "either.db") as copy:
        yield clinic(copy.address)


def clinic(address: str) -> Database:
    """A database in which residents 1 to 60 are under contract, and resident 300, of whom there are no records."""
    database = Database.open(address)
    panels = Panels(database)
    panels.sign(panels.make("one").id, [*range(1, 61), 300], SINCE)
    return database


def ran(store: EventStore, database: Database, models, rules, *more, **options: object) -> WholeNight:
    ledgers = [DatabaseLedger(database), *more]
    return whole_night(store, ledgers, models, rules, NOW, Options(index_time=INDEX, **options))


def told(database: Database, identifier: str, subject_id: int, sbp: float, day: str = "2017-12-30") -> None:
    rows = events_from(f"time | code | value\n{day} | sbp | {sbp}", subject_id)
    Observations(database).append(rows.with_columns(identifier=pl.lit(identifier)), NOW)


def scored(database: Database) -> pl.DataFrame:
    return current_scores(database.engine, range(1, 1_000)).select(OF_THE_SCORE)


def living(database: Database) -> int:
    """Somebody under contract with a score, and so alive and here."""
    return int(scored(database).filter(pl.col("subject_id") <= 60)["subject_id"][0])


def kept(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """What a night leaves of duties, alerts and records, in a fixed order."""
    with database.reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sql.select(table))), key=repr)
            for table in (duties, alerts, records)
        }


def test_what_came_by_day_is_in_the_store_and_scored_and_what_is_due_is_kept(store, either, models, rules):
    database = either
    ran(store, database, models, rules)
    before, who = scored(database), living(database)
    assert Alerts(database).of(who) == []
    told(database, "obs-1", who, 190)
    done = ran(store, database, models, rules)
    assert (done.compacted.records, done.compacted.events, Observations(database).waiting()) == (1, 1, 0)
    assert store.resident(who).filter(numeric_value=190)["time"].to_list() == [datetime(2017, 12, 30)]
    now = scored(database).filter(subject_id=who)["probability"][0]
    assert now != before.filter(subject_id=who)["probability"][0]
    first, *_ = Duties(database).of(who)
    assert (first.rule, first.urgent, first.since) == ("pressure_emergency", True, date(2017, 12, 30))
    [alert] = Alerts(database).of(who)
    assert (alert.rule, alert.cause) == (
        "pressure_emergency",
        "2017-12-30 systolic pressure 190 on 2017-12-30: treat and refer at once",
    )


def test_duties_are_those_of_everybody_under_contract_and_of_whom_there_were_any(store, database, models, rules):
    done = ran(store, database, models, rules)
    assert done.due.residents == 61
    with database.writing() as connection:
        numbers = numbers_of(connection, range(1, 301))
        whose = set(connection.execute(sql.select(duties.c.resident_id)).scalars())
    assert whose <= {numbers[who] for who in range(1, 61)}
    assert done.due.duties == len(kept(database)["duties"]) > 20
    events = pl.concat([store.read(shard) for shard in store.shards])
    for who in range(1, 61):
        tiers = dict(current_scores(database.engine, [who]).select("target", "tier").rows())
        due = rules.due(events.filter(subject_id=who), INDEX, tiers)
        assert [each.rule for each in Duties(database).of(who)] == [each.rule for each in due]
    who = living(database)
    Panels(database).leave(who, datetime(2018, 1, 15))
    assert who in Duties(database).whose(NOW) or not Duties(database).of(who)


def test_an_alert_is_raised_by_one_night_and_not_by_the_next(store, database, models, rules):
    ran(store, database, models, rules)
    told(database, "obs-1", living(database), 190)
    assert ran(store, database, models, rules).due.alerts == 1
    assert ran(store, database, models, rules).due.alerts == 0


def test_what_comes_while_duties_are_worked_out_counts_too(store, database, models, rules, monkeypatch):
    ran(store, database, models, rules)
    who = living(database)
    told(database, "obs-1", who, 190)
    monkeypatch.setattr("serving.night.take_in", lambda *_: WholeNight.compacted)
    assert ran(store, database, models, rules).due.urgent == 1
    assert Observations(database).waiting() == 1
    assert Duties(database).of(who)[0].rule == "pressure_emergency"


def test_who_has_opted_out_loses_the_score_everywhere_and_keeps_the_duties(store, database, models, rules, tmp_path):
    file = FileLedger(tmp_path / "scores.parquet")
    first = ran(store, database, models, rules, file)
    before, who = scored(database), living(database)
    opt_out(database, who, NOW)
    done = ran(store, database, models, rules, file)
    assert scored(database).equals(before.filter(pl.col("subject_id") != who))
    assert who not in pl.read_parquet(file.path)["subject_id"]
    assert (done.scored.ended, done.scored.not_at_risk[TARGET][OPTED_OUT]) == (1, 1)
    assert done.due.residents == first.due.residents
    opt_in(database, who)
    ran(store, database, models, rules, file)
    assert scored(database).equals(before)


def test_a_run_that_was_broken_off_begins_anew_when_somebody_has_opted_out_since(store, database, models, rules):
    def broken_off(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        yield from in_this_process(job, pieces[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(store, database, models, rules, walk=broken_off)
    opt_out(database, 1, NOW)
    assert ran(store, database, models, rules).scored.resumed == 0
    assert 1 not in scored(database)["subject_id"]


def test_an_erasure_ends_the_night_that_is_under_way(store, database, models, rules):
    def erased_meanwhile(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        erase(database, store, 7)
        yield from in_this_process(job, pieces)

    with pytest.raises(WeibingError, match=r"takes no more scores: .* or somebody was erased"):
        ran(store, database, models, rules, walk=erased_meanwhile)
    ran(store, database, models, rules)
    assert 7 not in scored(database)["subject_id"]


def test_a_run_that_begins_as_somebody_is_erased_is_given_up(store, database, models, rules, monkeypatch):
    begin = DatabaseLedger.begin

    def erased_as_it_begins(ledger: DatabaseLedger, run: object) -> object:
        store.erase(7)
        return begin(ledger, run)

    monkeypatch.setattr(DatabaseLedger, "begin", erased_as_it_begins)
    with pytest.raises(WeibingError, match="Somebody was erased from"):
        ran(store, database, models, rules)
    assert DatabaseLedger(database).unfinished() is None


def test_who_is_erased_while_duties_are_worked_out_is_not_brought_back(store, database, models, rules, monkeypatch):
    ran(store, database, models, rules)
    who, tiers_of = living(database), night.tiers_of

    def erased_meanwhile(connection: sql.Connection, whose: list[int]) -> dict[int, dict[str, str]]:
        if who in whose:
            erase_rows(database, who)
        return tiers_of(connection, whose)

    monkeypatch.setattr(night, "tiers_of", erased_meanwhile)
    ran(store, database, models, rules)
    with database.reading() as connection:
        assert who not in known_of(connection, [who])


def killed_at(moment: str, store: EventStore, database: Database, models, rules) -> None:
    """Run a night, and kill it when it says that; must be a process of its own."""

    def listen(said: str) -> None:
        if said.startswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    whole_night(store, [DatabaseLedger(database)], models, rules, NOW, Options(index_time=INDEX), progress=listen)


def test_killed_anywhere_and_begun_again_a_night_ends_where_an_undisturbed_one_ends(
    store, models, rules, tmp_path, monkeypatch, small_store
):
    undisturbed = clinic(str(tmp_path / "undisturbed.db"))
    killed = clinic(str(tmp_path / "killed.db"))
    for each in (undisturbed, killed):
        for who in range(1, 31):
            told(each, f"obs-{who}", who, 190)
    other = sharded_copy(small_store, tmp_path / "other")
    ran(other, undisturbed, models, rules)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["serving.night", "tests.serving.nights"])
    for moment in MOMENTS:
        child = processes.Process(target=killed_at, args=(moment, store, killed, models, rules))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL, moment
    ran(store, killed, models, rules)
    assert scored(killed).equals(scored(undisturbed))
    assert kept(killed) == kept(undisturbed)
    assert store.residents().tolist() == other.residents().tolist()
    assert [store.resident(who).equals(other.resident(who)) for who in range(1, 31)] == [True] * 30
