"""What a resident may ask for: all that is held, erasure, not to be scored; and the panels; on the command line."""

import json
from datetime import datetime
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from features.errors import WeibingError
from features.events import EventStore
from serving.audit import Audit, Entry
from serving.rights import erase, held_of, training_files_of
from serving.security.accounts import Accounts
from serving.store.database import Database
from serving.store.identity import Identity
from serving.store.panels import Panels
from serving.store.people import People, Person, opted_out
from serving.store.registers import read_people, read_residents
from tests.serving.furnished import KEY, NAME, NOW, NUMBER, furnish, person, rows_of
from tests.tables import events_from
from weibing import app

SECRET = "a secret of the tests, long enough"
RECORDS = """
    subject_id | time       | code       | value | text
    1          | 2020-01-01 | sbp        | 131.1 |
    1          | 2021-01-01 | LOCAL//注  |       | 头晕
    2          | 2020-01-01 | sbp        | 120   |
"""


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    made = EventStore.create(tmp_path / "county", timezone="Asia/Shanghai")
    made.append([events_from(RECORDS)])
    return made


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A SQLite database with something in every table, and its key in the environment."""
    monkeypatch.setenv("WEIBING_KEY", SECRET)
    database = Database.open(str(tmp_path / "weibing.db"))
    furnish(database)
    return database


def run(database: Database, *words: str, fails: bool = False) -> str:
    """Run a command; return what it says, messages included."""
    done = CliRunner().invoke(app, [*words, "--db", str(database.file)])
    assert bool(done.exit_code) is fails, done.output
    return str(done.exception) if fails else done.output


def last_entry(database: Database) -> dict[str, object]:
    [*_, last] = list_of(database)
    return last


def list_of(database: Database) -> list[dict[str, object]]:
    written = StringIO()
    Audit(database).export(written)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_everything_that_is_held_of_a_resident_is_told(database, store):
    furnish(database)
    Audit(database).write(Entry(NOW, "see resident", whose=1), Entry(NOW, "see resident", whose=2))
    told = held_of(database, KEY, store, 1)
    assert told["identity"] == vars(person(1).identity)
    assert told["resident"]["birth_year"] == 1950
    assert told["contracts"] == [{"panel": "第一组", "since": "2026-01-01T00:00:00", "until": None}]
    assert [(each["code"], each["numeric_value"], each["text_value"]) for each in told["events"]["event_store"]] == [
        ("sbp", 131.1, None),
        ("LOCAL//注", None, "头晕"),
    ]
    assert [each["numeric_value"] for each in told["events"]["database"]] == [190.5]
    assert [each["identifier"] for each in told["records"]] == ["obs-1"]
    [score] = told["scores"]
    assert (score["probability"], [driver["concept"] for driver in score["drivers"]]) == (0.25, ["sbp", "跌倒"])
    assert [duty["rule"] for duty in told["duties"]] == ["bp.yearly"]
    assert [visit["note"] for visit in told["visits"]] == [f"{NAME} 说头晕"]
    assert [alert["cause"] for alert in told["alerts"]] == ["obs-1"]
    assert [entry["whose"] for entry in told["audit"]] == [1]
    json.dumps(told, allow_nan=False)


def test_who_is_in_the_store_alone_is_told_of_too_and_who_is_nowhere_is_unknown(database, store):
    told = held_of(database, KEY, store, 2)
    assert (told["identity"], [each["numeric_value"] for each in told["events"]["event_store"]]) == (None, [120.0])
    with pytest.raises(WeibingError, match="There is no resident 3 in the database or in"):
        held_of(database, KEY, store, 3)


def test_an_erased_resident_is_in_no_table_and_not_in_the_store(database, store):
    before = {name: len(rows) for name, rows in rows_of(database).items()}
    furnish(database)
    number = People(database, KEY).resident(1).id
    gone = erase(database, store, 1)
    assert gone.events == 2
    of_one = {"residents", "scores", "duties", "visits", "alerts", "records", "panel_residents"}
    assert {table for table, rows in gone.rows.items() if rows} == of_one | {"events", "drivers"}
    after = rows_of(database)
    assert {name: len(after[name]) for name in of_one} == {name: before[name] + 1 for name in of_one}
    assert People(database, KEY).resident(1) is None
    assert number not in [row[1] for row in after["scores"]]
    assert store.residents().tolist() == [2]


def test_an_erasure_that_was_broken_off_is_finished_by_the_next(database, store):
    furnish(database)
    store.erase(1)
    assert erase(database, store, 1).rows["residents"] == 1
    assert erase(database, store, 1).rows == {}
    with pytest.raises(WeibingError, match="There is no resident 3"):
        erase(database, store, 3)
    assert store.erased == {1}


def test_an_erasure_says_what_remains_and_is_written_down(small, store, tmp_path):
    held = tmp_path / "mlruns" / "artifacts" / "fall" / "run" / "artifacts"
    for name, whose in (("a", [1, 5]), ("b", [2, 5])):
        (held / name).mkdir(parents=True)
        pl.DataFrame({"subject_id": whose}).write_parquet(held / name / "out_of_fold.parquet")
    assert training_files_of(tmp_path / "mlruns", 1) == [held / "a" / "out_of_fold.parquet"]
    words = ("resident", "erase", "1", "--reason", "by letter", "--mlruns", str(tmp_path / "mlruns"))
    said = run(small, *words, "--store", str(store.path)).replace("\n", "")
    assert "Resident 1 is erased: 2 events of the event store; of the database 2 of drivers, 1 of events" in said
    for sentence in ("Models that were trained", str(held / "a"), "The audit keeps", "Backups", "keeps the number 1"):
        assert sentence in said
    assert str(held / "b") not in said
    entry = last_entry(small)
    assert (entry["action"], entry["whose"], entry["why"], entry["via"]) == (
        "erase resident",
        1,
        "by letter",
        "command",
    )
    assert "No event store was named" in run(small, "resident", "erase", "2", "--reason", "x").replace("\n", " ")
    run(small, "resident", "readmit", "1", str(store.path), "--reason", "is back")
    assert store.erased == frozenset()
    assert "was not erased" in run(small, "resident", "readmit", "1", str(store.path), "--reason", "x", fails=True)


def test_a_resident_is_exported_to_a_file_and_that_is_written_down(small, store, tmp_path):
    run(small, "resident", "export", "1", "--store", str(store.path), "--out", str(tmp_path / "one.json"))
    told = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert told["identity"]["name"] == f"{NAME}1"
    assert [entry["action"] for entry in told["audit"]] == ["export resident"]
    assert "There is no resident 3" in run(small, "resident", "export", "3", fails=True)


def test_a_resident_opts_out_and_in(small):
    run(small, "resident", "opt-out", "1", "--reason", "by letter")
    assert opted_out(small) == {1}
    assert (last_entry(small)["action"], last_entry(small)["whose"]) == ("opt out", 1)
    run(small, "resident", "opt-in", "1")
    assert (opted_out(small), last_entry(small)["action"]) == (frozenset(), "opt in")
    assert "There is no resident 3" in run(small, "resident", "opt-out", "3", fails=True)


def test_panels_are_made_given_signed_and_listed(small, tmp_path):
    accounts = Accounts(small)
    for name, role in (("li", "doctor"), ("zhang", "doctor"), ("chen", "manager")):
        accounts.add(name, role, NOW)
    (tmp_path / "two.csv").write_text("resident\n2\n7\n", encoding="utf-8")
    run(small, "panel", "make", "柿西二组", "--doctor", "li")
    run(small, "panel", "sign", "柿西二组", str(tmp_path / "two.csv"))
    run(small, "panel", "sign", "柿西二组", "--resident", "8", "--resident", "9", "--since", "2026-02-01")
    run(small, "panel", "give", "柿西二组", "zhang")
    listed = json.loads(run(small, "panel", "list", "--json", "-"))["panels"]
    assert [(one["name"], one["doctor"], one["residents"]) for one in listed] == [
        ("柿西二组", "zhang", 4),
        ("第一组", None, 1),
    ]
    assert [one["action"] for one in list_of(small)][-4:] == ["make panel", "sign panel", "sign panel", "give panel"]
    assert Panels(small).of(8, datetime(2026, 1, 31)) is None
    assert 'no panel "柿西三组". Did you mean "柿西二组"?' in run(small, "panel", "give", "柿西三组", "li", fails=True)
    assert '"chen" is no doctor' in run(small, "panel", "give", "柿西二组", "chen", fails=True)
    assert CliRunner().invoke(app, ["panel", "sign", "柿西二组", "--db", str(small.file)]).exit_code == 2


PEOPLE = """resident,name,number,sex,birth_year,township
 7,王芳,110101195001011237,女,1950,柿西
8,李明,,1,,
9,,,未知,1960,
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_people_are_read_as_the_office_writes_them(tmp_path, encoding):
    file = tmp_path / "people.csv"
    file.write_text(PEOPLE, encoding=encoding)
    assert list(read_people(file)) == [
        Person(7, Identity("王芳", NUMBER), "柿西", "female", 1950),
        Person(8, Identity("李明"), None, "male", None),
        Person(9, None, None, None, 1960),
    ]
    assert read_residents(file) == [7, 8, 9]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("id,name\n7,王芳", 'there is no column "resident". The columns are: id, name'),
        ("resident,nmae\n7,王芳", 'the column "nmae" is not known. .* Did you mean "name"'),
        ("resident,name\n7,王芳\nx7,李明", "line 3: the resident is no number"),
        ("resident,name\n7,王芳\n,李明", "line 3: the resident is no number"),
        ("resident,name\n7,王芳\n8,李明\n7,王芳", "line 4: this resident is in the file before"),
        ("resident,sex\n7,woman", "line 2: the sex must be female or male"),
        ("resident,birth_year\n7,50", "line 2: the birth_year must be a year"),
        ("resident,name,number\n7,,110101195001011237", "line 2: there is a number, a telephone or an address, and no"),
        ("resident,name\n110101195001011239,王芳", "residents are identity numbers"),
    ],
)
def test_a_register_that_cannot_be_right_is_refused_by_its_line_without_a_name(tmp_path, table, sentence):
    file = tmp_path / "people.csv"
    file.write_text(table, encoding="utf-8")
    with pytest.raises(WeibingError, match=sentence) as error:
        list(read_people(file))
    assert not {"王芳", "李明", NUMBER} & set(str(error.value).split())


def test_a_register_is_kept_encrypted_and_whole_or_not_at_all(small, tmp_path):
    file = tmp_path / "people.csv"
    file.write_text(PEOPLE + "x,张三,,,,\n", encoding="gb18030")
    assert "line 5: the resident is no number" in run(small, "resident", "register", str(file), fails=True)
    assert People(small, KEY).resident(7) is None
    file.write_text(PEOPLE, encoding="gb18030")
    assert "3 residents" in run(small, "resident", "register", str(file))
    assert People(small, KEY).identities([7])[7].name == "王芳"
    assert "王芳".encode() not in Path(str(small.file)).read_bytes()
    assert People(small, KEY).resident(9).birth_year == 1960


def test_an_empty_register_is_refused(tmp_path):
    (tmp_path / "none.csv").write_text("resident\n", encoding="utf-8")
    with pytest.raises(WeibingError, match=r"none\.csv lists nobody"):
        read_residents(tmp_path / "none.csv")
