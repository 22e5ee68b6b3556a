"""Backup and restore, erasure, and migrations with rows in the tables; on both databases."""

import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from zipfile import ZipFile

import pytest
import sqlalchemy as sql
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from typer.testing import CliRunner

from features.errors import WeibingError
from serving.store.backup import backup, restore
from serving.store.database import VERSION_TABLE, Database, migrate
from serving.store.erasure import erase
from serving.store.observations import Observations
from serving.store.panels import Panels
from serving.store.people import People
from serving.store.tables import METADATA, scores
from tests.postgres import new_database
from tests.serving.furnished import KEY, NAME, NOW, NUMBER, furnish, night, person, records_from, rows_of, score
from weibing import app

# A process that takes observations as fast as it can, each with an identifier of its own, until it is told to end.
WRITES = """
import sys, pickle
from datetime import datetime
import polars as pl
from serving.store.observations import Observations
observations = pickle.load(sys.stdin.buffer)
for number in range(100_000):
    rows = pl.DataFrame({"identifier": [f"o{number}"] * 3, "subject_id": number % 50, "time": datetime(2026, 1, 1),
                         "code": ["a", "b", "c"]})
    observations.append(rows, datetime(2026, 1, 1))
    print(number, flush=True)
"""


@pytest.fixture
def furnished(database: Database) -> Database:
    furnish(database)
    return database


def test_a_backup_restored_is_the_same_row_for_row(furnished, another, tmp_path):
    before = rows_of(furnished)
    kept = backup(furnished, tmp_path / "kept")
    erase(furnished, 1)
    found = restore(tmp_path / "kept", another)
    assert rows_of(another) == before
    assert found == kept
    assert found.rows == {name: len(rows) for name, rows in before.items() if name != VERSION_TABLE}
    # Every table that this package fills has rows to lose.
    filled = {"residents", "keys", "panels", "panel_residents", "records", "events", "duties", "visits", "alerts",
              "champions", "runs", "run_shards", "scores", "drivers"}  # fmt: skip
    assert all(found.rows[name] for name in filled)


def test_a_restored_database_goes_on_where_the_other_was(furnished, another, tmp_path):
    backup(furnished, tmp_path / "kept")
    restore(tmp_path / "kept", another)
    Panels(another).make("a second one")
    People(another, KEY).register([person(3)], NOW)
    told = records_from("identifier | time | code | value\nobs-1 | 2026-03-01 | sbp | 1\nnew | 2026-03-01 | sbp | 120")
    assert Observations(another).append(told, NOW).new == {"new"}
    assert Database.open(another.address).revision() == furnished.revision()


def test_a_backup_is_of_one_moment_while_others_write(database, another, tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(pickle.dumps(Observations(database)))
    writer.stdin.close()
    for _ in range(5):
        assert writer.stdout.readline()
    kept = backup(database, tmp_path / "kept")
    assert writer.stdout.readline()
    assert writer.poll() is None
    writer.kill()
    writer.wait()
    assert kept.rows["records"] >= 5
    # A record and its three events are written in one transaction: a moment has all of them or none.
    assert kept.rows["events"] == 3 * kept.rows["records"]
    restore(tmp_path / "kept", another)
    assert Observations(another).waiting() == kept.rows["events"]


def test_identities_stay_encrypted_in_a_backup_and_the_key_is_not_in_it(furnished, tmp_path):
    backup(furnished, tmp_path / "kept")
    lying = (tmp_path / "kept").read_bytes()
    if not furnished.file:
        with ZipFile(tmp_path / "kept") as archive:
            lying = b"".join(archive.read(name) for name in archive.namelist())
    for secret in (NAME, NUMBER[:-3], "13800138000", "头晕"):
        assert secret.encode() not in lying
        assert secret.encode().hex().encode() not in lying
    for part in (KEY.encrypting, KEY.hashing):
        assert part not in lying
        assert part.hex().encode() not in lying
    assert "柿西".encode() in lying


def test_a_backup_is_for_its_owner_alone_and_never_written_over(furnished, tmp_path):
    backup(furnished, tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "kept").read_bytes()
    with pytest.raises(WeibingError, match=r"There is a file .*kept already"):
        backup(furnished, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == before
    with pytest.raises(WeibingError, match="cannot be written: No such file"):
        backup(furnished, tmp_path / "none" / "kept")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".kept")]


def test_a_backup_of_an_older_form_is_brought_to_the_present_one(furnished, another, tmp_path):
    before = rows_of(furnished)
    with furnished.engine.begin() as connection:
        migrate(connection, command.downgrade, "1")
    assert backup(furnished, tmp_path / "kept").revision == "1"
    assert restore(tmp_path / "kept", another).revision == "1"
    after = rows_of(another)
    assert another.revision() == Database.open(another.address).revision() != "1"
    for table in ("scores", "drivers", "runs", "run_shards"):
        assert after[table] == before[table]
    assert [row[:2] for row in after["residents"]] == [row[:2] for row in before["residents"]]


def test_a_backup_of_a_newer_form_is_refused_and_leaves_nothing(furnished, another, tmp_path):
    backup(furnished, tmp_path / "kept")
    newer = tmp_path / "newer"
    if furnished.file:
        newer.write_bytes((tmp_path / "kept").read_bytes())
        engine = sql.create_engine(f"sqlite:///{newer}")
        with engine.begin() as connection:
            connection.execute(sql.text(f"UPDATE {VERSION_TABLE} SET version_num = 'later'"))
        engine.dispose()
    else:
        with ZipFile(tmp_path / "kept") as archive, ZipFile(newer, "w") as changed:
            for name in archive.namelist():
                content = archive.read(name)
                changed.writestr(name, content.replace(b'"revision": "', b'"revision": "later'))
    with pytest.raises(WeibingError, match=r"newer is of a newer version of Weibing \(form later"):
        restore(newer, another)
    assert not another.file or not another.file.exists()
    assert another.file or sql.inspect(another.engine).get_table_names() == []


def test_a_database_with_something_in_it_is_not_restored_into(furnished, another, tmp_path):
    backup(furnished, tmp_path / "kept")
    Database.open(another.address)
    before = rows_of(another)
    with pytest.raises(WeibingError, match="is not empty"):
        restore(tmp_path / "kept", another)
    assert rows_of(another) == before


@pytest.mark.parametrize("fault", ["short", "changed", "a letter", "missing"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(furnished, another, tmp_path, fault):
    kept = tmp_path / "kept"
    backup(furnished, kept)
    whole = kept.read_bytes()
    if fault == "short":
        kept.write_bytes(whole[: len(whole) // 2])
    elif fault == "changed":
        # Of SQLite's file, where a page begins that something is written on.
        at = whole.index("第一组".encode()) // 4096 * 4096 if furnished.file else len(whole) // 3
        kept.write_bytes(whole[:at] + bytes(2000) + whole[at + 2000 :])
    elif fault == "a letter":
        kept.write_text("Dear Sir, " * 100)
    else:
        kept.unlink()
    with pytest.raises(WeibingError, match=r"is damaged|is no backup|cannot be read"):
        restore(kept, another)
    assert not another.file or not another.file.exists()
    assert another.file or sql.inspect(another.engine).get_table_names() == []


def test_a_backup_goes_back_into_its_own_kind_of_database(furnished, tmp_path, database_server):
    backup(furnished, tmp_path / "kept")
    other = Database(new_database(database_server) if furnished.file else f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(WeibingError, match=r"is a backup of \w+: it cannot be restored into"):
        restore(tmp_path / "kept", other)


def test_nothing_is_kept_of_what_is_no_database_of_weibing(another, tmp_path):
    with pytest.raises(WeibingError, match=r"There is no database|is empty, or another program's"):
        backup(another, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_of_an_erased_resident_no_table_holds_anything(furnished):
    known = People(furnished, KEY).resident(1)
    assert known is not None
    night(furnished, 2, complete=False)
    score(furnished, known.id, target="hypertension", run=2)
    ours = scores.c.resident_id == known.id
    with furnished.reading() as connection:
        numbers = set(connection.execute(sql.select(scores.c.id).where(ours)).scalars())
    before = rows_of(furnished)
    gone = erase(furnished, 1)
    assert gone["drivers"] == 4
    assert all(gone[name] for name in ("residents", "scores", "events", "records", "visits", "alerts", "duties"))
    with furnished.reading() as connection:
        for table in METADATA.tables.values():
            for column, theirs in (("resident_id", [known.id]), ("subject_id", [1]), ("score_id", sorted(numbers))):
                if column in table.columns:
                    assert not connection.execute(sql.select(table).where(table.c[column].in_(theirs))).all()
    # Of the other one nothing is gone.
    after = rows_of(furnished)
    for name in ("events", "visits", "alerts", "duties", "panel_residents", "drivers", "scores"):
        assert len(before[name]) - len(after[name]) == gone[name]
        assert len(after[name]) >= 1
    assert People(furnished, KEY).identities([1, 2]).keys() == {2}
    with pytest.raises(WeibingError, match="There is no resident 1"):
        erase(furnished, 1)


def test_of_an_erased_resident_nothing_lies_in_the_file(tmp_path):
    database = Database.open(str(tmp_path / "county.db"))
    furnish(database)
    People(database, KEY).register([replace(person(1), township="a township of its own")], NOW)
    erase(database, 1)
    lying = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    told = (b"a township of its own", b"obs-1", b"obs-2")
    assert [word in lying for word in told] == [False, False, True]


def test_the_tables_are_what_the_migrations_make(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
        made = set(sql.inspect(connection).get_table_names())
        indexes = {index["name"] for table in made for index in sql.inspect(connection).get_indexes(table)}
    assert made == {*METADATA.tables, VERSION_TABLE}
    assert {"ix_residents_number_hash", "ix_panel_residents_open", "ix_alerts_open"} <= indexes


def test_rows_outlive_the_step_up_and_the_step_down_keeps_what_there_was_before(database):
    with database.engine.begin() as connection:
        migrate(connection, command.downgrade, "1")
        connection.exec_driver_sql("INSERT INTO residents (id, subject_id) VALUES (5, 77)")
    night(database)
    score(database, 5)
    kept = {name: rows for name, rows in rows_of(database).items() if name != VERSION_TABLE}
    with database.engine.begin() as connection:
        migrate(connection, command.upgrade, "2")
    known = People(database, KEY).resident(77)
    assert known is not None
    assert (known.id, known.township, known.opted_out_at) == (5, None, None)
    furnish_more(database)
    with database.engine.begin() as connection:
        migrate(connection, command.downgrade, "1")
    after = rows_of(database)
    assert after.pop(VERSION_TABLE) == [("1",)]
    assert after.keys() == kept.keys()
    assert after["scores"] == kept["scores"]
    assert [row for row in after["residents"] if row[1] == 77] == kept["residents"]


def furnish_more(database: Database) -> None:
    People(database, KEY).register([person(77), person(78)], NOW)
    panel = Panels(database).make("one")
    Panels(database).sign(panel.id, [77, 78], datetime(2026, 1, 1))
    Observations(database).append(records_from("identifier | time | code\nx | 2026-01-01 | sbp", 77), NOW)


def test_the_commands_keep_and_put_back_and_say_that_the_key_is_elsewhere(furnished, another, tmp_path):
    runner, before = CliRunner(), rows_of(furnished)
    kept = runner.invoke(app, ["backup", str(tmp_path / "kept"), "--db", furnished.address])
    assert kept.exit_code == 0, kept.output
    assert "The key is not in it: keep WEIBING_KEY in another place" in " ".join(kept.stderr.split())
    back = runner.invoke(app, ["restore", str(tmp_path / "kept"), "--db", another.address])
    assert back.exit_code == 0, back.output
    assert rows_of(another) == before
    again = runner.invoke(app, ["restore", str(tmp_path / "kept"), "--db", another.address])
    assert isinstance(again.exception, WeibingError)
