"""What comes by day, and goes into the event store at night: taken once, never lost; on both databases."""

import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import SCHEMA, EventStore, canonical
from serving.store.alerts import Alerts
from serving.store.champions import ChampionsKept, KeptChampion
from serving.store.database import Database
from serving.store.duties import Duties
from serving.store.observations import Compacted, Observations
from serving.store.panels import Panels
from serving.store.people import People, Person
from serving.store.tables import events, records
from serving.store.visits import Visit, Visits
from tests.serving.furnished import DUTY, KEY, NOW, alert, records_from
from tests.tables import events_from

TOLD = """
    identifier | subject_id | time                | code                | value | unit   | text
    a          | 1          | 2026-02-28T09:00:01 | LOINC//8480-6       | 190.1 | mm[Hg] |
    a          | 1          | 2026-02-28T09:00:01 | LOINC//8462-4       | 110   | mm[Hg] |
    b          | 2          | 2026-02-28T10:00    | LOCAL//跌倒         |       |        | 在家, "门口"
    c          | 1          |                     | rural               | 1     |        |
"""


@pytest.fixture
def observations(database: Database) -> Observations:
    return Observations(database)


@pytest.fixture
def store(tmp_path) -> EventStore:
    made = EventStore.create(tmp_path / "store", timezone="Asia/Shanghai")
    made.append([events_from("time | code | value\n2020-01-01 | sbp | 120")])
    return made


def drawn(table: str) -> pl.DataFrame:
    return records_from(table).with_columns(pl.col("subject_id").cast(pl.Int64))


def expected(table: str, subject_id: int) -> pl.DataFrame:
    rows = drawn(table).filter(pl.col("subject_id") == subject_id).select(list(SCHEMA))
    return canonical(rows.cast(dict(SCHEMA)))


# Kills itself when the event store has been written, and the database still has the events.
DIES_IN_BETWEEN = """
import os, pickle, signal, sys
from serving.store.observations import Observations
observations, store, now = pickle.load(sys.stdin.buffer)
Observations._remove = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
observations.compact(store, now)
"""


def test_what_came_is_read_as_events_of_the_store(observations):
    taken = observations.append(drawn(TOLD), NOW)
    assert (taken.new, taken.known) == ({"a", "b", "c"}, frozenset())
    for resident in (1, 2, 3):
        found = observations.of(resident)
        assert found.schema == pl.Schema(SCHEMA)
        assert found.equals(expected(TOLD, resident))
    assert observations.waiting() == 4


def test_a_record_that_comes_again_counts_once(observations):
    observations.append(drawn(TOLD), NOW)
    again = drawn(TOLD).with_columns(numeric_value=pl.lit(5.0, pl.Float32))
    more = drawn("identifier | time | code | value\nd | 2026-03-01 | sbp | 120")
    taken = observations.append(pl.concat([again, more], how="diagonal_relaxed"), NOW)
    assert (taken.new, taken.known) == ({"d"}, {"a", "b", "c"})
    assert observations.of(2).equals(expected(TOLD, 2))
    assert observations.waiting() == 5


def test_a_record_that_comes_again_after_a_compaction_counts_once(observations, store):
    observations.append(drawn(TOLD), NOW)
    observations.compact(store, NOW)
    before = store.resident(1)
    assert observations.append(drawn(TOLD), NOW).known == {"a", "b", "c"}
    assert observations.waiting() == 0
    observations.compact(store, NOW)
    assert store.resident(1).equals(before)


def test_a_compaction_moves_everything_into_the_store_with_nothing_left_out_or_twice(observations, store, monkeypatch):
    monkeypatch.setattr("serving.store.observations.RECORDS_AT_ONCE", 2)
    observations.append(drawn(TOLD), NOW)
    assert observations.compact(store, NOW) == Compacted(records=3, events=4)
    assert observations.of(1).is_empty()
    old = events_from("time | code | value\n2020-01-01 | sbp | 120")
    assert store.resident(1).equals(canonical(pl.concat([old, expected(TOLD, 1)])))
    assert store.resident(2).equals(expected(TOLD, 2))
    assert observations.compact(store, NOW) == Compacted(0, 0)


def test_a_compaction_killed_when_the_store_is_written_and_begun_again_leaves_nothing_twice(observations, store):
    observations.append(drawn(TOLD), NOW)
    told = pickle.dumps((observations, store, NOW))
    assert subprocess.run([sys.executable, "-c", DIES_IN_BETWEEN], input=told, check=False).returncode == -9
    written = store.resident(1)
    assert len(written) == 4
    assert observations.waiting() == 4
    # A reader who puts both together sees each event once meanwhile.
    assert canonical(pl.concat([written, observations.of(1)])).equals(written)
    assert observations.compact(store, NOW) == Compacted(3, 4)
    assert store.resident(1).equals(written)


def test_what_comes_while_a_compaction_goes_on_stays_for_the_next_one(observations, store, monkeypatch):
    observations.append(drawn(TOLD), NOW)
    late = drawn("identifier | time | code | value\nlate | 2026-03-01 | sbp | 120")
    append = EventStore.append

    def busy(self, frames):
        done = append(self, frames)
        observations.append(late, NOW)
        return done

    monkeypatch.setattr(EventStore, "append", busy)
    observations.compact(store, NOW)
    assert observations.of(1).equals(canonical(late.select(list(SCHEMA))))
    assert len(store.resident(1)) == 4


def test_a_store_that_cannot_be_written_leaves_everything_in_the_database(observations, tmp_path):
    observations.append(drawn(TOLD), NOW)
    with pytest.raises(WeibingError, match="There is no event store"):
        observations.compact(EventStore(tmp_path / "none"), NOW)
    assert observations.waiting() == 4


def test_a_record_is_forgotten_a_year_after_it_went_into_the_store(observations, store, database):
    observations.append(drawn(TOLD), NOW)
    observations.compact(store, NOW)
    observations.append(drawn("identifier | time | code | value\nd | 2026-03-01 | sbp | 120"), NOW)
    observations.compact(store, NOW + timedelta(days=366))
    with database.reading() as connection:
        assert list(connection.execute(sql.select(records.c.identifier)).scalars()) == ["d"]


def test_of_many_who_tell_the_same_at_once_one_is_first(observations, database):
    ways, at_once = [], threading.Barrier(8)
    shuffled = [drawn(TOLD).sample(fraction=1, shuffle=True, seed=seed) for seed in range(8)]

    def tell(rows: pl.DataFrame, own: str) -> None:
        mine = drawn(f"identifier | subject_id | time | code | value\n{own} | 3 | 2026-03-01 | sbp | 120")
        at_once.wait()
        ways.append(observations.append(pl.concat([rows, mine], how="diagonal_relaxed"), NOW))

    tellers = [threading.Thread(target=tell, args=(rows, f"own{n}")) for n, rows in enumerate(shuffled)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    new = [name for taken in ways for name in taken.new]
    assert sorted(new) == ["a", "b", "c", *(f"own{n}" for n in range(8))]
    assert observations.of(1).equals(expected(TOLD, 1))
    with database.reading() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(events)).scalar() == 12


def test_thousands_of_events_are_taken_at_once(observations):
    rows = pl.DataFrame({"identifier": [f"o{n}" for n in range(6_000)], "subject_id": [n % 700 for n in range(6_000)]})
    rows = rows.with_columns(time=pl.lit(NOW), code=pl.lit("sbp"), numeric_value=pl.int_range(6_000) / 7)
    assert len(observations.append(rows, NOW).new) == 6_000
    seventh = [pl.Series([n / 7], dtype=pl.Float32).item() for n in range(7, 6_000, 700)]
    assert observations.of(7)["numeric_value"].to_list() == seventh


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("x | 1 | 2026-01-01 | sbp\n x | 2 | 2026-01-01 | sbp", "The record x tells of two residents"),
        ("x | 1 | 2026-01-01 | sbp\n a | 2 | 2026-01-01 | sbp", "The record a was taken before, as another resident's"),
    ],
)
def test_a_record_of_two_residents_is_refused_and_nothing_is_taken(observations, rows, sentence):
    observations.append(drawn(TOLD), NOW)
    with pytest.raises(WeibingError, match=sentence):
        observations.append(drawn(f"identifier | subject_id | time | code\n{rows}"), NOW)
    assert observations.waiting() == 4


@pytest.mark.parametrize("missing", ["identifier", "code", "subject_id"])
def test_an_event_of_nobody_of_no_record_or_without_a_code_is_a_fault(observations, missing):
    rows = drawn(TOLD).with_columns(pl.when(pl.int_range(pl.len()) > 0).then(pl.col(missing)).alias(missing))
    with pytest.raises(ValueError, match="bears no identifier, resident or code"):
        observations.append(rows, NOW)


def test_an_alert_is_raised_once_and_shown_until_it_is_acknowledged_once(database):
    alerts, panels = Alerts(database), Panels(database)
    panel = panels.make("one")
    panels.sign(panel.id, [1], datetime(2026, 1, 1))
    assert alerts.raise_all([alert(1, "a"), alert(2, "a"), alert(1, "b", raised_at=NOW + timedelta(seconds=1))]) == 3
    assert alerts.raise_all([alert(1, "a"), alert(1, "c")]) == 1
    shown = alerts.open(panel.id, NOW)
    assert [(each.subject_id, each.cause) for each in shown] == [(1, "b"), (1, "c"), (1, "a")]
    assert alerts.acknowledge(shown[0].id, user_id=9, now=NOW)
    assert not alerts.acknowledge(shown[0].id, user_id=8, now=datetime(2027, 1, 1))
    assert not alerts.acknowledge(10_000, user_id=8, now=NOW)
    assert [each.cause for each in alerts.open(panel.id, NOW)] == ["c", "a"]
    assert alerts.of(1)[0] == replace(shown[0], acknowledged_at=NOW, acknowledged_by=9)
    assert alerts.raise_all([alert(1, "b")]) == 0


RAISES_AND_DIES = """
import os, pickle, signal, sys
from serving.store.alerts import Alerts
alerts, found = pickle.load(sys.stdin.buffer)
alerts.raise_all(found)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_alert_that_was_raised_outlives_the_process_that_raised_it(database):
    panels = Panels(database)
    panel = panels.make("one")
    panels.sign(panel.id, [1], datetime(2026, 1, 1))
    told = pickle.dumps((Alerts(database), [alert(1, "a")]))
    assert subprocess.run([sys.executable, "-c", RAISES_AND_DIES], input=told, check=False).returncode == -9
    assert [each.cause for each in Alerts(Database.open(database.address)).open(panel.id, NOW)] == ["a"]


def test_a_visit_adds_events_and_closes_duties_in_one_go(database):
    People(database, KEY).register([Person(1)], NOW)
    other = replace(DUTY, rule="dm.follow-up", kind="follow-up")
    duties, visits = Duties(database), Visits(database, KEY)
    duties.keep({1: [other, DUTY], 2: [DUTY]}, NOW.date())
    facts = events_from("time | code | value\n | sbp | 150\n2026-02-01 | fall |").drop("subject_id")
    visit = Visit(1, 7, datetime(2026, 3, 2), "home", ("bp.yearly",), "张伟 头晕")
    visits.record(visit, NOW, facts)
    visits.record(Visit(1, 7, datetime(2026, 3, 1), "telephone"), NOW)
    assert visits.of(1) == [visit, Visit(1, 7, datetime(2026, 3, 1), "telephone")]
    assert duties.of(1) == (other,)
    assert duties.of(2) == (DUTY,)
    found = Observations(database).of(1)
    assert found.select("time", "code").rows() == [(datetime(2026, 2, 1), "fall"), (datetime(2026, 3, 2), "sbp")]


def test_a_visit_that_cannot_be_kept_whole_is_not_kept(database):
    People(database, KEY).register([Person(1)], NOW)
    visits = Visits(database, KEY)
    with pytest.raises(ValueError, match="bears no identifier, resident or code"):
        visits.record(Visit(1, 7, NOW, "home"), NOW, pl.DataFrame({"code": [None]}, {"code": pl.String}))
    assert visits.of(1) == []
    with pytest.raises(WeibingError, match="There is no resident 2"):
        visits.record(Visit(2, 7, NOW, "home"), NOW)


def test_duties_are_kept_in_the_place_of_those_before(database):
    duties = Duties(database)
    duties.keep({1: [DUTY, replace(DUTY, urgent=True)], 2: [DUTY]}, NOW.date())
    duties.keep({1: [], 3: [replace(DUTY, urgent=True), DUTY]}, NOW.date())
    assert [duties.of(resident) for resident in (1, 2)] == [(), (DUTY,)]
    assert [duty.urgent for duty in duties.of(3)] == [True, False]


def test_the_champions_are_kept_for_when_the_registry_is_away(database):
    kept = ChampionsKept(database)
    fall = KeptChampion("fall", "7", "00ff", bytes(range(256)), NOW)
    kept.keep(fall)
    kept.keep(replace(fall, target="hypertension"))
    newer = replace(fall, version="8", artifact=b"")
    kept.keep(newer)
    assert kept.all() == {"fall": newer, "hypertension": replace(fall, target="hypertension")}
    kept.drop_all_but(["fall"])
    assert kept.all() == {"fall": newer}
