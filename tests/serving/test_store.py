"""The ledger in the operational database: what a run leaves in it, and when readers see it; on both databases."""

import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import psycopg
import pytest
import sqlalchemy as sql
from adbc_driver_manager import Error as AdbcError
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from features.errors import WeibingError
from serving.scoring.run import BEFORE, DRIVERS, FRESH, KEYS, Run, Scored, ShardScores, Tally
from serving.store import bulk, queries, tables
from serving.store.database import VERSION_TABLE, Database, migrate
from serving.store.ledger import DatabaseLedger
from serving.store.queries import current_scores
from tests.postgres import drop, new_database

NIGHT = datetime(2026, 3, 1)
MODELS = {"fall": Scored("7", "00ff", ("age", "跌倒")), "hypertension": Scored("3", "ab12", ("sbp",))}
NOTHING = pl.DataFrame(schema=KEYS)


@pytest.fixture
def postgres(database_server) -> Iterator[str]:
    """The address of an empty database, as an operator writes it."""
    url = new_database(database_server)
    yield sql.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    drop(database_server, url)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path) -> str:
    """The address of an empty database of either kind."""
    return str(tmp_path / "county.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def ledger(database) -> DatabaseLedger:
    return DatabaseLedger.open(database.address)


def run_of(night: int = 1, **changed: object) -> Run:
    return replace(Run(0, datetime(2026, 3, night), datetime(2026, 3, night, 1), "some state", MODELS), **changed)


def shard_of(scored: str, ended: str = "", place: int = 0) -> ShardScores:
    """Draw a shard: ``resident target probability`` a score, with two drivers; ``resident target`` an ended one."""
    cells = [line.split() for line in scored.split(",") if line]
    fresh = pl.DataFrame(
        {
            "subject_id": [int(cell[0]) for cell in cells],
            "target": [cell[1] for cell in cells],
            "probability": [float(cell[2]) for cell in cells],
        },
        {name: FRESH[name] for name in ("subject_id", "target", "probability")},
    )
    rows = len(fresh)
    told = {
        "index_time": NIGHT, "lower": 0.01, "upper": 0.9, "tier": "very high", "percentile": 99.5, "previous": None,
        "base": -2.0, "other": 0.25, "completeness": "low", "model_version": "7", "synthetic": False,
        "scored_at": NIGHT, "seen": -(2**63), "contributions": b"\x00\xff",
    }  # fmt: skip
    drivers = pl.DataFrame(
        {
            "score": np.repeat(np.arange(rows), 2), "position": [0, 1] * rows, "concept": ["跌倒", "sbp"] * rows,
            "contribution": [0.5, 0.1] * rows, "change": [0.2, None] * rows, "value": [None, 5.3] * rows,
            "unit": ["", "mm[Hg]"] * rows, "date": [datetime(2025, 12, 31, 23, 59, 59, 999_999), None] * rows,
        },
        DRIVERS,
    )  # fmt: skip
    gone = [line.split() for line in ended.split(",") if line]
    keys = pl.DataFrame([(int(resident), target) for resident, target in gone], KEYS, orient="row")
    tally = Tally(f"shard-{place}", rows, 1.5, {"scored": rows, "not at risk: 已迁出": 2})
    fresh = fresh.with_columns(pl.lit(value, FRESH[name]).alias(name) for name, value in told.items())
    return ShardScores(place, fresh.select(FRESH.names()), drivers, NOTHING, keys, tally)


def night(ledger: DatabaseLedger, number: int, *shards: ShardScores) -> Run:
    """Do a whole run."""
    run = ledger.begin(run_of(number))
    for shard in shards:
        ledger.write(run, shard)
    ledger.complete(run)
    return run


def seen(ledger: DatabaseLedger, *residents: int) -> list[tuple[int, str, float]]:
    """Return what a reader sees of some residents, or of residents 1 to 9."""
    found = current_scores(ledger.database.engine, residents or range(1, 10))
    return found.select("subject_id", "target", "probability").rows()


def rows_in(ledger: DatabaseLedger) -> dict[str, int]:
    """Count the rows of the tables that a ledger writes."""
    with ledger.database.engine.connect() as connection:
        return {
            name: connection.execute(
                sql.select(sql.func.count()).select_from(tables.METADATA.tables[name])
            ).scalar_one()
            for name in ("residents", "runs", "run_shards", "scores", "drivers")
        }


def child(script: str, *told: object) -> "subprocess.Popen[bytes]":
    """Run a script in a process of its own, and give it what it reads with ``pickle.load(sys.stdin.buffer)``."""
    begun = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert begun.stdin is not None
    begun.stdin.write(pickle.dumps(told))
    begun.stdin.close()
    return begun


# A write that stays, when all rows are there, before they are committed.
STAYS_IN_THE_MIDDLE = """
import pickle, sys, time
from serving.store import ledger as of
ledger, run, shard, seconds = pickle.load(sys.stdin.buffer)
def stay(*_):
    print("in the middle", flush=True)
    time.sleep(seconds)
of._forget = stay
ledger.write(run, shard)
"""
OPENS = """
import pickle, sys
from serving.store.database import Database
Database.open(*pickle.load(sys.stdin.buffer))
"""
HOLDS = """
import pickle, sqlite3, sys, time
connection = sqlite3.connect(*pickle.load(sys.stdin.buffer), isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(0.5)
connection.execute("COMMIT")
"""


def test_a_run_is_invisible_until_it_is_complete(ledger):
    run = ledger.begin(run_of())
    ledger.write(run, shard_of("1 fall 0.2, 2 fall 0.3"))
    assert ledger.last() is None
    assert seen(ledger) == []
    ledger.complete(run)
    assert ledger.last() == run
    assert seen(ledger) == [(1, "fall", 0.2), (2, "fall", 0.3)]


def test_readers_see_the_last_complete_run_while_the_next_is_written(ledger):
    first = night(ledger, 1, shard_of("1 fall 0.2, 2 fall 0.3, 3 fall 0.4"))
    second = ledger.begin(run_of(2))
    ledger.write(second, shard_of("1 fall 0.9", ended="2 fall"))
    assert seen(ledger) == [(1, "fall", 0.2), (2, "fall", 0.3), (3, "fall", 0.4)]
    assert ledger.last() == first
    assert ledger.unfinished() == second


def test_over_three_runs_the_view_shows_what_is_fresh_kept_and_ended(ledger):
    night(ledger, 1, shard_of("1 fall 0.1, 1 hypertension 0.2, 2 fall 0.3, 3 fall 0.4"))
    night(ledger, 2, shard_of("1 fall 0.5", ended="2 fall"))
    assert seen(ledger) == [(1, "fall", 0.5), (1, "hypertension", 0.2), (3, "fall", 0.4)]
    night(ledger, 3, shard_of("2 fall 0.6, 4 fall 0.7", ended="1 fall, 3 fall"))
    assert seen(ledger) == [(1, "hypertension", 0.2), (2, "fall", 0.6), (4, "fall", 0.7)]


def test_before_gives_the_live_scores_of_those_asked_for_and_no_others(ledger):
    night(ledger, 1, shard_of("1 fall 0.1, 1 hypertension 0.2, 2 fall 0.3, 3 fall 0.4"))
    night(ledger, 2, shard_of("1 fall 0.5", ended="2 fall"))
    unfinished = ledger.begin(run_of(3))
    ledger.write(unfinished, shard_of("1 fall 0.9, 3 fall 0.9"))
    found = ledger.before(pl.Series([2, 1, 77, 1]))
    assert found.schema == BEFORE
    assert found.rows() == [(1, "fall", 0.5, -(2**63), b"\x00\xff"), (1, "hypertension", 0.2, -(2**63), b"\x00\xff")]


def test_before_the_first_run_nobody_has_a_score(ledger):
    assert ledger.last() is None
    assert ledger.unfinished() is None
    assert ledger.before(pl.Series([1, 2])).equals(pl.DataFrame(schema=BEFORE))
    assert current_scores(ledger.database.engine, []).is_empty()


def test_a_write_that_fails_in_the_middle_leaves_nothing(ledger):
    run = ledger.begin(run_of())
    shard = shard_of("1 fall 0.2")
    twice = replace(shard, drivers=pl.concat([shard.drivers, shard.drivers]))
    with pytest.raises((psycopg.errors.UniqueViolation, AdbcError), match=r"(?i)unique"):
        ledger.write(run, twice)
    assert rows_in(ledger) == {"residents": 0, "runs": 1, "run_shards": 0, "scores": 0, "drivers": 0}
    assert ledger.done(run) == {}
    ledger.write(run, shard)
    assert rows_in(ledger) == {"residents": 1, "runs": 1, "run_shards": 1, "scores": 1, "drivers": 2}


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_database_as_it_was(ledger):
    night(ledger, 1, shard_of("1 fall 0.1"))
    run = ledger.begin(run_of(2))
    before, shard = rows_in(ledger), shard_of("1 fall 0.2, 2 fall 0.3", place=4)
    writer = child(STAYS_IN_THE_MIDDLE, ledger, run, shard, 60)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"in the middle\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    assert rows_in(ledger) == before
    ledger.write(run, shard)
    ledger.complete(run)
    assert seen(ledger) == [(1, "fall", 0.2), (2, "fall", 0.3)]


def test_a_connection_cut_in_the_middle_of_a_write_leaves_nothing_and_is_told_in_a_sentence(postgres):
    ledger = DatabaseLedger.open(postgres)
    run, failed = ledger.begin(run_of()), []

    def write() -> None:
        with pytest.raises(
            WeibingError, match=r"cannot be used: .*(terminating connection|connection is lost)"
        ) as error:
            ledger.write(run, shard_of("1 fall 0.2"))
        failed.append(error)

    with ledger.database.engine.begin() as other:
        # The writer has written the scores, and waits to write their drivers.
        other.execute(sql.text("LOCK TABLE drivers IN EXCLUSIVE MODE"))
        writer = threading.Thread(target=write)
        writer.start()
        waiting = sql.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        while not other.execute(waiting).all():
            time.sleep(0.01)
        writer.join()
    assert failed
    assert rows_in(ledger) == {"residents": 0, "runs": 1, "run_shards": 0, "scores": 0, "drivers": 0}


def test_a_shard_that_is_written_twice_is_there_once(ledger):
    run = ledger.begin(run_of())
    ledger.write(run, shard_of("1 fall 0.2"))
    before = rows_in(ledger)
    ledger.write(run, shard_of("1 fall 0.8, 2 fall 0.9"))
    assert rows_in(ledger) == before
    ledger.complete(run)
    ledger.write(run, shard_of("1 fall 0.8"))
    assert seen(ledger) == [(1, "fall", 0.2)]


def test_two_shards_do_not_share_a_place(ledger):
    run = ledger.begin(run_of())
    ledger.write(run, shard_of("1 fall 0.2"))
    other = replace(shard_of("2 fall 0.3"), tally=Tally("another", 1, 1.0, {}))
    with pytest.raises((sql.exc.IntegrityError, AdbcError), match=r"(?i)unique"):
        ledger.write(run, other)


def test_to_begin_a_run_abandons_the_unfinished_one_and_its_rows_go(ledger):
    night(ledger, 1, shard_of("1 fall 0.1"))
    before = rows_in(ledger)
    left = ledger.begin(run_of(2))
    ledger.write(left, shard_of("1 fall 0.9, 2 fall 0.9", place=3))
    begun = ledger.begin(run_of(3))
    assert begun.number > left.number
    assert ledger.unfinished() == begun
    assert rows_in(ledger) == before | {"runs": 3, "residents": 2}
    assert ledger.done(left) == {}
    ledger.complete(begun)
    assert seen(ledger) == [(1, "fall", 0.1)]


def test_of_runs_that_are_begun_at_once_one_remains(ledger):
    begun: list[Run] = []
    at_once = threading.Barrier(6)

    def begin() -> None:
        at_once.wait()
        begun.append(ledger.begin(run_of()))

    beginners = [threading.Thread(target=begin) for _ in range(6)]
    for beginner in beginners:
        beginner.start()
    for beginner in beginners:
        beginner.join()
    assert sorted(run.number for run in begun) == [1, 2, 3, 4, 5, 6]
    assert ledger.unfinished() == run_of(number=6)


def test_an_abandoned_run_takes_no_more_and_never_completes(ledger):
    left = ledger.begin(run_of(1))
    ledger.begin(run_of(2))
    with pytest.raises(WeibingError, match="Run 1 takes no more scores"):
        ledger.write(left, shard_of("1 fall 0.2"))
    with pytest.raises(WeibingError, match="Run 1 takes no more scores"):
        ledger.complete(left)
    assert rows_in(ledger)["scores"] == 0


def test_a_run_may_be_completed_again(ledger):
    run = night(ledger, 1, shard_of("1 fall 0.2"))
    with ledger.database.engine.connect() as connection:
        completed = connection.execute(sql.select(tables.runs.c.completed_at)).scalar_one()
    ledger.complete(run)
    with ledger.database.engine.connect() as connection:
        assert connection.execute(sql.select(tables.runs.c.completed_at)).scalar_one() == completed


def test_what_was_done_of_a_run_comes_back_equal(ledger):
    run = ledger.begin(run_of(everyone=True, store="it's 100% 未病"))
    shards = [shard_of("1 fall 0.2", place=0), shard_of("", place=1)]
    for shard in shards:
        ledger.write(run, shard)
    assert ledger.done(run) == {shard.tally.shard: shard.tally for shard in shards}
    assert ledger.unfinished() == run


def test_only_the_live_version_of_a_score_and_the_next_remain(ledger):
    for number in range(1, 5):
        night(ledger, number, shard_of(f"1 fall 0.{number}, 2 fall 0.5"))
    night(ledger, 5, shard_of("", ended="2 fall"))
    with ledger.database.engine.connect() as connection:
        versions = sql.select(tables.scores.c.target, tables.residents.c.subject_id, tables.scores.c.run_id)
        joined = versions.join(tables.residents, tables.residents.c.id == tables.scores.c.resident_id)
        assert sorted(row[1:] for row in connection.execute(joined)) == [(1, 3), (1, 4), (2, 4), (2, 5)]
    # Two of resident 1, one of resident 2, who has none in the end.
    assert rows_in(ledger)["drivers"] == 2 * 3
    assert seen(ledger) == [(1, "fall", 0.4)]


def test_two_processes_may_write_shards_at_once(ledger):
    run = ledger.begin(run_of())
    writer = child(STAYS_IN_THE_MIDDLE, ledger, run, shard_of("1 fall 0.5, 1 hypertension 0.1"), 0.3)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"in the middle\n"
    ledger.write(run, shard_of("2 fall 0.5, 2 hypertension 0.1", place=1))
    assert writer.wait() == 0
    ledger.complete(run)
    assert [row[:2] for row in seen(ledger)] == [(1, "fall"), (1, "hypertension"), (2, "fall"), (2, "hypertension")]


def test_many_threads_may_write_and_ask_at_once(ledger):
    night(ledger, 1, *(shard_of(f"{place} fall 0.1", place=place) for place in range(1, 9)))
    run, asked = ledger.begin(run_of(2)), []

    def work(place: int) -> None:
        asked.append(ledger.before(pl.Series([place]))["probability"].item())
        ledger.write(run, shard_of(f"{place} fall 0.2", place=place))

    workers = [threading.Thread(target=work, args=[place]) for place in range(1, 9)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger.complete(run)
    assert asked == [0.1] * 8
    assert [row[2] for row in seen(ledger)] == [0.2] * 8


def test_the_types_read_back_through_sqlalchemy_and_not_a_number_is_null(ledger):
    shard = shard_of("5 fall 0.25")
    nan = pl.lit(float("nan"))
    fresh = shard.fresh.with_columns(
        percentile=nan, previous=nan, synthetic=True, model_version=pl.lit('第7版, "x"\n\'')
    )
    night(ledger, 1, replace(shard, fresh=fresh, drivers=shard.drivers.with_columns(change=nan)))
    with ledger.database.engine.connect() as connection:
        score = connection.execute(sql.select(tables.scores)).mappings().one()
        drivers = connection.execute(sql.select(tables.drivers).order_by("position")).mappings().all()
    assert score["percentile"] is score["previous"] is None
    assert score["synthetic"] is True
    assert score["model_version"] == '第7版, "x"\n\''
    assert (score["index_time"], score["scored_at"]) == (NIGHT, NIGHT)
    assert (score["seen"], bytes(score["contributions"]), score["probability"]) == (-(2**63), b"\x00\xff", 0.25)
    assert [driver["change"] for driver in drivers] == [None, None]
    assert [(driver["concept"], driver["value"], driver["unit"], driver["date"]) for driver in drivers] == [
        ("跌倒", None, "", datetime(2025, 12, 31, 23, 59, 59, 999_999)),
        ("sbp", 5.3, "mm[Hg]", None),
    ]


def test_readers_get_the_drivers_in_their_places(ledger, monkeypatch):
    monkeypatch.setattr(queries, "NUMBERS_A_QUERY", 2)
    night(ledger, 1, shard_of("1 fall 0.2, 2 fall 0.3, 3 fall 0.4"))
    with ledger.database.engine.connect() as connection:
        found = current_scores(connection, [3, 2, 1, 3])
    assert found["subject_id"].to_list() == [1, 2, 3]
    drivers = [[driver["concept"] for driver in of] for of in found["drivers"].to_list()]
    assert drivers == [["跌倒", "sbp"]] * 3


def test_a_score_without_drivers_has_an_empty_list_of_them(ledger):
    night(ledger, 1, replace(shard_of("1 fall 0.2"), drivers=pl.DataFrame(schema=DRIVERS)))
    assert current_scores(ledger.database.engine, [1])["drivers"].to_list() == [[]]


def test_more_shards_than_can_be_numbered_are_refused(ledger):
    run = ledger.begin(run_of())
    with pytest.raises(WeibingError, match="at most 1,048,576 shards"):
        ledger.write(run, shard_of("1 fall 0.2", place=tables.PLACES))
    ledger.write(run, shard_of("1 fall 0.2", place=tables.PLACES - 1))


def test_the_metadata_is_what_the_migrations_make(ledger):
    with ledger.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, tables.METADATA) == []
        view = [column["name"] for column in sql.inspect(connection).get_columns("current_scores")]
    assert view == [column.name for column in tables.current_scores.columns]


def test_the_database_goes_down_and_up_again_with_rows_in_it(ledger):
    night(ledger, 1, shard_of("1 fall 0.2"))
    with ledger.database.engine.begin() as connection:
        migrate(connection, command.downgrade, "base")
    with ledger.database.engine.connect() as connection:
        assert sql.inspect(connection).get_table_names() == [VERSION_TABLE]
        assert sql.inspect(connection).get_view_names() == []
    again = DatabaseLedger.open(ledger.database.address)
    assert again.last() is None
    night(again, 1, shard_of("1 fall 0.2"))
    assert DatabaseLedger.open(ledger.database.address).last() is not None


def test_several_processes_may_open_an_empty_database_at_once(address):
    openers = [child(OPENS, address) for _ in range(2)]
    assert [opener.wait() for opener in openers] == [0, 0]
    assert DatabaseLedger.open(address).last() is None


def test_a_newer_database_is_refused(ledger):
    with ledger.database.engine.begin() as connection:
        connection.execute(sql.text(f"UPDATE {VERSION_TABLE} SET version_num = 'later'"))
    for attempt in (lambda: Database.open(ledger.database.address), ledger.last):
        with pytest.raises(WeibingError, match=r"is of a newer version of Weibing \(form later"):
            attempt()


def test_a_worker_does_not_touch_an_older_database(ledger):
    with ledger.database.engine.begin() as connection:
        migrate(connection, command.downgrade, "base")
    for attempt in (lambda: Database.open(ledger.database.address, upgrade=False), ledger.last):
        with pytest.raises(WeibingError, match="is of an older version of Weibing, or empty"):
            attempt()
    assert sorted(DatabaseLedger.open(ledger.database.address).done(run_of())) == []
    assert DatabaseLedger.open(ledger.database.address, upgrade=False).last() is None


def test_another_programs_database_is_left_alone(address):
    engine = sql.create_engine(
        address.replace("postgresql://", "postgresql+psycopg://") if "://" in address else f"sqlite:///{address}"
    )
    with engine.begin() as connection:
        connection.execute(sql.text("CREATE TABLE runs (experiment TEXT)"))
    with pytest.raises(WeibingError, match="is another program's: Weibing did not make its table runs"):
        DatabaseLedger.open(address)
    assert sql.inspect(engine).get_table_names() == ["runs"]
    engine.dispose()


def test_a_file_may_be_named_by_its_path_or_its_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("a b%20.db", "scores.sqlite", "sqlite:///c.db", f"sqlite:///{tmp_path}/未.anything"):
        ledger = DatabaseLedger.open(address)
        night(ledger, 1, shard_of("1 fall 0.2"))
        assert seen(ledger) == [(1, "fall", 0.2)]
    assert {file.name for file in tmp_path.iterdir()} == {"a b%20.db", "scores.sqlite", "c.db", "未.anything"}


@pytest.mark.parametrize(
    "address", ["mysql://me:secret@host/db", "sqlite://", "scores.parquet", "postgresql://u:secret@x@h/d"]
)
def test_what_is_no_address_of_a_database_is_refused(address):
    with pytest.raises(WeibingError) as error:
        DatabaseLedger.open(address)
    assert "secret" not in str(error.value)


def test_a_server_that_cannot_be_reached_is_told_in_a_sentence_without_the_password():
    with pytest.raises(WeibingError, match=r"The database county at 127\.0\.0\.1 cannot be used: .*refused") as error:
        DatabaseLedger.open("postgresql://me:secret@127.0.0.1:1/county")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_password_is_not_shown(postgres):
    address = sql.make_url(postgres).set(password="secret").render_as_string(hide_password=False)
    assert "secret" not in repr(DatabaseLedger.open(address))


def test_a_password_that_the_server_repeats_is_not_shown(postgres):
    address = sql.make_url(postgres).set(username="secret", password="secret")
    with pytest.raises(WeibingError, match='role "…" does not exist'):
        DatabaseLedger.open(address.render_as_string(hide_password=False))


def test_a_database_that_is_not_there_is_told_by_name(postgres):
    with pytest.raises(WeibingError, match='database "nowhere" does not exist'):
        DatabaseLedger.open(sql.make_url(postgres).set(database="nowhere").render_as_string(hide_password=False))


def test_a_file_that_cannot_be_made_or_read_is_told_by_name(tmp_path):
    with pytest.raises(WeibingError, match=f"There is no folder {tmp_path}/none"):
        DatabaseLedger.open(f"{tmp_path}/none/county.db")
    with pytest.raises(WeibingError, match=r"There is no database .*county\.db\. It must lie on a disk"):
        DatabaseLedger.open(f"{tmp_path}/county.db", upgrade=False)
    (tmp_path / "letter.db").write_text("Dear Sir, " * 1000)
    with pytest.raises(WeibingError, match=r"letter\.db cannot be used: file is not a database"):
        DatabaseLedger.open(f"{tmp_path}/letter.db")


def test_a_file_that_goes_away_is_not_made_anew(tmp_path):
    ledger = DatabaseLedger.open(str(tmp_path / "county.db"))
    (tmp_path / "county.db").unlink()
    with pytest.raises(WeibingError, match=r"county\.db cannot be used: .*Check that the file is there"):
        ledger.last()
    assert not (tmp_path / "county.db").exists()


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    ledger = DatabaseLedger.open(str(tmp_path / "county.db"))
    run = ledger.begin(run_of())
    before = rows_in(ledger)
    with monkeypatch.context() as small:
        small.setattr(bulk, "PRAGMAS", (*bulk.PRAGMAS, "max_page_count = 20"))
        with pytest.raises(WeibingError, match=r"disk is full\. Make room"):
            ledger.write(run, shard_of(",".join(f"{resident} fall 0.2" for resident in range(1, 2000))))
    assert rows_in(ledger) == before
    ledger.write(run, shard_of("1 fall 0.2"))


def test_a_file_that_another_program_holds_is_waited_for(tmp_path):
    ledger = DatabaseLedger.open(str(tmp_path / "county.db"))
    run = ledger.begin(run_of())
    holder = child(HOLDS, str(tmp_path / "county.db"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    ledger.write(run, shard_of("1 fall 0.2"))
    assert holder.wait() == 0
    assert list(ledger.done(run)) == ["shard-0"]
