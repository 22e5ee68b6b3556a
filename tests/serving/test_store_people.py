"""Who residents are: encrypted, found by a keyed hash; their panels; on both databases."""

import sqlite3
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from features.errors import WeibingError
from serving.store.database import Database
from serving.store.identity import Identity, Key, rotate
from serving.store.panels import Panels
from serving.store.people import People, Person
from serving.store.tables import residents
from serving.store.visits import Visit, Visits
from tests.serving.furnished import KEY, NAME, NOW, NUMBER, furnish, person, rows_of

OTHER = Key.of("another secret of the tests, long enough")
WHO = Identity(NAME, NUMBER, "13800138000", None)


@pytest.fixture
def people(database: Database) -> People:
    return People(database, KEY)


def test_a_resident_is_kept_and_comes_back(people):
    people.register([Person(7, WHO, "柿西", "female", 1950), Person(9)], NOW)
    assert people.identities([7, 9, 11]) == {7: WHO}
    known = people.resident(7)
    assert known is not None
    assert (known.subject_id, known.township, known.sex, known.birth_year) == (7, "柿西", "female", 1950)
    assert people.resident(11) is None


@pytest.mark.parametrize("written", [NUMBER, f" {NUMBER} ", "１１０１０１１９５００１０１１２３７"])
def test_a_resident_is_found_by_the_identity_number_however_it_is_written(people, written):
    people.register([Person(7, WHO), Person(8, Identity("李", "11010119500101123X"))], NOW)
    found = people.find(written)
    assert found is not None
    assert found.subject_id == 7
    lower = people.find("11010119500101123x")
    assert lower is not None
    assert lower.subject_id == 8
    assert people.find("110101195001011238") is None


def test_what_is_told_anew_takes_the_place_of_what_was_known(people):
    people.register([Person(7, WHO)], NOW)
    before = people.resident(7)
    people.register([Person(7, Identity("王芳", "330101195001011237"), "南乡")], NOW)
    after = people.resident(7)
    assert before is not None
    assert after is not None
    assert (after.id, after.township) == (before.id, "南乡")
    assert people.find(NUMBER) is None
    assert people.identities([7])[7].name == "王芳"


@pytest.mark.parametrize("at_once", [True, False])
def test_two_residents_with_one_identity_number_are_refused_and_nothing_is_kept(people, at_once):
    if not at_once:
        people.register([Person(7, WHO)], NOW)
    with pytest.raises(WeibingError, match=r"Another resident has the identity number of resident [78]"):
        people.register([Person(6), *([Person(7, WHO)] if at_once else []), Person(8, WHO)], NOW)
    assert people.resident(6) is None


def test_the_same_identity_looks_otherwise_each_time_it_is_encrypted():
    sealed = {KEY.seal_identity(WHO, 7) for _ in range(50)}
    assert len(sealed) == 50
    assert {KEY.unseal_identity(each, 7) for each in sealed} == {WHO}


def test_an_identity_cannot_be_put_into_another_residents_row_or_changed():
    sealed = KEY.seal_identity(WHO, 7)
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for wrong, subject in ((sealed, 8), (changed, 7)):
        with pytest.raises(WeibingError, match="cannot be read: the key is another one, or the database is damaged"):
            KEY.unseal_identity(wrong, subject)
    with pytest.raises(WeibingError, match="cannot be read"):
        KEY.unseal(sealed, "note", 7)


def test_nothing_of_an_identity_lies_in_the_file_in_plain_text(tmp_path):
    database = Database.open(str(tmp_path / "county.db"))
    furnish(database)
    lying = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for secret in (NAME, NUMBER[:-3], "13800138000", "头晕"):
        assert secret.encode() not in lying
    # What is not secret does lie there: one has looked in the right place.
    assert "柿西".encode() in lying


def test_nothing_of_an_identity_lies_in_a_dump_of_postgresql_in_plain_text(database):
    if database.file:
        pytest.skip("the file of SQLite is looked through above")
    furnish(database)
    dumped = repr(rows_of(database)).encode()
    address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        for table in rows_of(database):
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                dumped += b"".join(bytes(block) for block in copy)
    for secret in (NAME, NUMBER[:-3], "13800138000", "头晕"):
        assert secret.encode() not in dumped
        assert secret.encode().hex().encode() not in dumped
    assert "柿西".encode() in dumped


def test_a_wrong_key_is_refused_by_everything_that_uses_it(database, people):
    people.register([Person(7, WHO)], NOW)
    wrong, visits = People(database, OTHER), Visits(database, OTHER)
    for attempt in (
        lambda: wrong.register([Person(8, WHO)], NOW),
        lambda: wrong.find(NUMBER),
        lambda: wrong.identities([7]),
        lambda: visits.record(Visit(7, 1, NOW, "home"), NOW),
        lambda: visits.of(7),
        lambda: rotate(database, OTHER, KEY, NOW),
    ):
        with pytest.raises(WeibingError, match="The key is not the one that this database's identities are encrypted"):
            attempt()
    assert people.resident(8) is None


def test_the_key_is_changed_for_everything_at_once(database, monkeypatch):
    monkeypatch.setattr("serving.store.identity.ROWS_AT_ONCE", 2)
    furnish(database, tuple(range(1, 8)))
    before = rows_of(database)["residents"]
    assert rotate(database, KEY, OTHER, NOW) == 7
    people = People(database, OTHER)
    assert people.identities(range(9)) == {each: person(each).identity for each in range(1, 8)}
    found = people.find(f"{NUMBER[:-3]}003")
    assert found is not None
    assert found.subject_id == 3
    assert Visits(database, OTHER).of(5)[0].note == f"{NAME} 说头晕"
    with pytest.raises(WeibingError, match="The key is not the one"):
        People(database, KEY).find(NUMBER)
    assert not {row[2] for row in before} & {row[2] for row in rows_of(database)["residents"]}


def test_a_change_of_the_key_that_fails_half_way_changes_nothing(database):
    furnish(database)
    with database.writing() as connection:
        connection.execute(residents.update().where(residents.c.subject_id == 2).values(identity=b"\x01" + bytes(60)))
    before = rows_of(database)
    with pytest.raises(WeibingError, match="What is encrypted of resident 2 cannot be read"):
        rotate(database, KEY, OTHER, NOW)
    assert rows_of(database) == before


def test_the_key_comes_from_the_environment_or_a_file(tmp_path):
    secret = "k" * 32
    (tmp_path / "key").write_text(f"{secret}\n")
    assert Key.from_environment({"WEIBING_KEY": secret}) == Key.of(secret)
    assert Key.from_environment({"WEIBING_KEY_FILE": str(tmp_path / "key")}) == Key.of(secret)
    assert secret not in repr(Key.of(secret))
    assert Key.of(secret).encrypting.hex() not in repr(Key.of(secret))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "There is no key for identities. Put one of 32 characters or more into WEIBING_KEY"),
        ({"WEIBING_KEY": "k" * 40, "WEIBING_KEY_FILE": "key"}, "are both set"),
        ({"WEIBING_KEY": "k" * 31}, "WEIBING_KEY is too short: it needs 32 characters"),
        ({"WEIBING_KEY": " "}, "WEIBING_KEY is empty"),
        ({"WEIBING_KEY_FILE": "none"}, "The file of the key, none, cannot be read: No such file"),
    ],
)
def test_no_key_or_a_bad_one_is_refused_in_a_sentence(environment, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeibingError, match=sentence) as error:
        Key.from_environment(environment)
    assert "kkk" not in str(error.value)


def test_a_file_of_the_key_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(b"\xff" * 40)
    with pytest.raises(WeibingError, match="it is not text in UTF-8"):
        Key.in_file(Path(tmp_path / "key"))


def test_who_opts_out_is_known_until_opting_in(people):
    people.register([Person(7), Person(8)], NOW)
    people.opt_out(7, NOW)
    people.opt_out(7, datetime(2027, 1, 1))
    known = people.resident(7)
    assert known is not None
    assert known.opted_out_at == NOW
    assert people.opted_out() == {7}
    people.register([person(7)], NOW)
    assert people.opted_out() == {7}
    people.opt_in(7)
    assert people.opted_out() == frozenset()
    with pytest.raises(WeibingError, match="There is no resident 9"):
        people.opt_out(9, NOW)


def test_a_resident_belongs_to_one_panel_at_a_time(database):
    panels = Panels(database)
    one, two = panels.make("one", doctor_id=7), panels.make("two", doctor_id=7)
    panels.sign(one.id, [1, 2, 3], datetime(2026, 1, 1))
    panels.sign(two.id, [2, 3, 4], datetime(2026, 2, 1))
    panels.leave(3, datetime(2026, 3, 1))
    january, february, march = (datetime(2026, month, 1) for month in (1, 2, 3))
    assert [panels.members(one.id, at) for at in (january, february, march)] == [[1, 2, 3], [1], [1]]
    assert [panels.members(two.id, at) for at in (january, february, march)] == [[], [2, 3, 4], [2, 4]]
    assert [panels.of(3, at) for at in (january, february, march)] == [one.id, two.id, None]
    assert panels.of(3, datetime(2025, 12, 31)) is None
    assert panels.of_doctor(7) == [one, two]


def test_to_sign_again_changes_nothing_and_to_come_back_in_the_same_moment_goes_on(database):
    panels = Panels(database)
    one = panels.make("one")
    panels.sign(one.id, [1], datetime(2026, 1, 1))
    before = rows_of(database)
    panels.sign(one.id, [1], datetime(2026, 2, 1))
    assert rows_of(database) == before
    panels.leave(1, datetime(2026, 3, 1))
    panels.sign(one.id, [1], datetime(2026, 3, 1))
    assert panels.of(1, datetime(2026, 3, 1)) == one.id


def test_a_contract_cannot_end_before_it_begins(database):
    panels = Panels(database)
    one, two = panels.make("one"), panels.make("two")
    panels.sign(one.id, [1], datetime(2026, 1, 1))
    with pytest.raises(WeibingError, match="A contract that begins at 2026-01-01 00:00:00 cannot end at 2025"):
        panels.leave(1, datetime(2025, 1, 1))
    with pytest.raises(WeibingError, match="cannot end at 2026-01-01"):
        panels.sign(two.id, [2, 1], datetime(2026, 1, 1))
    assert panels.members(two.id, NOW) == []


def test_a_panel_has_a_name_of_its_own_and_passes_from_doctor_to_doctor(database):
    panels = Panels(database)
    one = panels.make("one", doctor_id=7)
    with pytest.raises(WeibingError, match='There is a panel "one" already'):
        panels.make("one")
    panels.give(one.id, 8)
    assert panels.of_doctor(7) == []
    assert [panel.id for panel in panels.of_doctor(8)] == [one.id]
    assert [panel.doctor_id for panel in panels.all()] == [8]
    with pytest.raises(WeibingError, match="There is no panel 99"):
        panels.sign(99, [1], NOW)


def test_a_contract_of_nobody_is_refused_by_the_database(database):
    insert = "INSERT INTO panel_residents (panel_id, resident_id, since) VALUES (1, 1, '2026-01-01')"
    with pytest.raises(Exception, match=r"(?i)foreign key") as error, database.engine.begin() as connection:
        connection.exec_driver_sql(insert)
    assert isinstance(error.value.__cause__, (sqlite3.IntegrityError, psycopg.errors.ForeignKeyViolation))
