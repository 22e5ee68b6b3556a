"""The audit: what is written stays, and whatever is done to it shows; on both databases."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sql
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from features.errors import WeibingError
from serving.audit import BEGINNING, Audit, Entry, Head, head_of_export
from serving.security.caller import Caller, Panel, RefusedError, Resident
from serving.store import accounts as tables
from serving.store.database import Database
from tests.serving.accounts import HERE, NOW

DOCTOR = Caller(7, "li", "doctor", frozenset({2}), frozenset(), "session")
DAY = timedelta(days=1)


@pytest.fixture
def audit(database) -> Audit:
    return Audit(database)


def entry(number: int, **changed: object) -> Entry:
    return replace(Entry(NOW + number * DAY, "see resident", who=7, whose=number, why=f"看 {number}"), **changed)


def fill(audit: Audit, rows: int) -> None:
    audit.write(*map(entry, range(1, rows + 1)))


def without_triggers(audit: Audit, statement: str) -> None:
    """Do what one can who commands the database: take the triggers away, and change what one likes."""
    with audit.database.writing() as connection:
        for name, table in (("audit_unchanged", "audit"), ("audit_kept", "audit")):
            on = "" if audit.database.file else f" ON {table}"
            connection.execute(sql.text(f"DROP TRIGGER {name}{on}"))
        connection.execute(sql.text(statement))


def test_what_is_written_is_read_and_holds_together(audit):
    fill(audit, 3)
    found = audit.verify()
    assert (found.start, found.head.id, found.rows) == (Head(0, BEGINNING), 3, 3)
    lines = io.StringIO()
    assert audit.export(lines) == 3
    told = json.loads(lines.getvalue().splitlines()[1])
    assert (told["who"], told["action"], told["whose"], told["at"], told["why"]) == (
        7, "see resident", 2, "2026-03-03T08:00:00", "看 2",
    )  # fmt: skip


def test_an_empty_audit_holds_together(audit):
    assert audit.verify().head == Head(0, BEGINNING)


def test_the_export_can_be_verified_without_the_database(audit):
    fill(audit, 3)
    lines = io.StringIO()
    audit.export(lines)
    head = Head(0, BEGINNING)
    for line in map(json.loads, lines.getvalue().splitlines()):
        kept = Head(line.pop("id"), line.pop("digest"))
        head = head.next(Entry(**{**line, "at": NOW.fromisoformat(line["at"])}))
        assert head == kept


def test_looking_is_written_down_and_so_is_a_refusal(audit):
    mine, other = Resident(11, frozenset({2})), Resident(12, frozenset({3}))
    audit.admit(DOCTOR, "see resident", NOW, mine, address=HERE, why="visit")
    audit.admit(DOCTOR, "see list", NOW, Panel(2), address=HERE)
    with pytest.raises(RefusedError):
        audit.admit(DOCTOR, "see resident", NOW, other, address=HERE)
    with audit.database.reading() as connection:
        rows = connection.execute(sql.select(tables.audit).order_by(tables.audit.c.id)).all()
    told = [(row.who, row.name, row.action, row.allowed, row.whose, row.panel, row.address, row.why) for row in rows]
    assert told == [
        (7, "li", "see resident", True, 11, None, HERE, "visit"),
        (7, "li", "see list", True, None, 2, HERE, ""),
        (7, "li", "see resident", False, 12, None, HERE, ""),
    ]


def test_what_cannot_be_written_down_is_not_allowed(audit):
    with audit.database.writing() as connection:
        connection.execute(sql.text("ALTER TABLE audit RENAME TO elsewhere"))
    with pytest.raises((WeibingError, DBAPIError)):
        audit.admit(DOCTOR, "see resident", NOW, Resident(11, frozenset({2})))


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET who = 8", "DELETE FROM audit", "DELETE FROM audit WHERE id = 2", "UPDATE audit SET whose = NULL",
])  # fmt: skip
def test_the_database_itself_refuses_to_change_or_delete(audit, statement):
    fill(audit, 3)
    with pytest.raises(DBAPIError, match="rows of the audit are"), audit.database.writing() as connection:
        connection.execute(sql.text(statement))
    assert audit.verify().rows == 3


@pytest.mark.parametrize(("statement", "row"), [
    ("UPDATE audit SET who = 8 WHERE id = 2", "row 2"),
    ("UPDATE audit SET whose = NULL WHERE id = 3", "row 3"),
    ("UPDATE audit SET why = why || ' ' WHERE id = 1", "row 1"),
    ("UPDATE audit SET allowed = NOT allowed WHERE id = 4", "row 4"),
    ("UPDATE audit SET at = (SELECT at FROM audit WHERE id = 1) WHERE id = 4", "row 4"),
    ("DELETE FROM audit WHERE id = 2", "after row 1 comes 3"),
    ("DELETE FROM audit WHERE id < 3", "after row 0 comes 3"),
])  # fmt: skip
def test_whoever_commands_the_database_cannot_hide_a_change(audit, statement, row):
    fill(audit, 5)
    without_triggers(audit, statement)
    with pytest.raises(WeibingError, match=row):
        audit.verify()


def test_an_end_that_was_taken_off_shows_beside_an_export(audit, tmp_path):
    fill(audit, 5)
    file = tmp_path / "audit.jsonl"
    with file.open("w", encoding="utf-8") as to:
        audit.export(to)
    without_triggers(audit, "DELETE FROM audit WHERE id > 3")
    assert audit.verify().rows == 3
    with pytest.raises(WeibingError, match="ends at row 3, once it had 5"):
        audit.verify(head_of_export(file))
    audit.write(entry(4, who=99), entry(5, who=99))
    with pytest.raises(WeibingError, match="row 5 is not what was written"):
        audit.verify(head_of_export(file))


def test_an_audit_that_grew_agrees_with_an_earlier_export(audit, tmp_path):
    fill(audit, 3)
    file = tmp_path / "audit.jsonl"
    with file.open("w", encoding="utf-8") as to:
        audit.export(to)
    audit.write(entry(9))
    assert audit.verify(head_of_export(file)).rows == 4


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"id": 3}', "\n"])
def test_what_is_no_export_is_refused(tmp_path, text):
    file = tmp_path / "audit.jsonl"
    file.write_text(text)
    with pytest.raises(WeibingError, match="is not an export of the audit"):
        head_of_export(file)


def test_what_is_old_is_cut_off_and_the_rest_holds_together(audit):
    fill(audit, 10)
    later = NOW + 400 * DAY
    assert audit.forget(NOW + 5 * DAY, later) == 4
    found = audit.verify()
    # 5 to 10, and that it was cut off.
    assert (found.start.id, found.head.id, found.rows) == (4, 11, 7)
    assert audit.forget(NOW + 5 * DAY, later) == 0
    assert audit.forget(NOW + 8 * DAY, later) == 3
    assert audit.verify().start.id == 7


def test_an_audit_of_which_nothing_was_kept_goes_on(audit):
    fill(audit, 3)
    assert audit.forget(NOW + 100 * DAY, NOW + 400 * DAY) == 3
    assert audit.verify().head.id == 4


def test_an_export_from_before_the_cut_is_told_from_a_broken_audit(audit, tmp_path):
    fill(audit, 3)
    head = audit.verify().head
    audit.forget(NOW + 100 * DAY, NOW + 400 * DAY)
    audit.verify(head)
    with pytest.raises(WeibingError, match="Compare with a later one"):
        audit.verify(Head(2, "0" * 64))


def test_half_a_year_is_always_kept(audit):
    with pytest.raises(WeibingError, match="the law asks for six months"):
        audit.forget(NOW, NOW + 183 * DAY)


def test_a_cut_alone_does_not_let_later_rows_go(audit):
    fill(audit, 10)
    audit.forget(NOW + 5 * DAY, NOW + 400 * DAY)
    with pytest.raises(DBAPIError, match="rows of the audit are"), audit.database.writing() as connection:
        connection.execute(sql.text("DELETE FROM audit WHERE id = 6"))
    with pytest.raises(DBAPIError, match="rows of the audit are"), audit.database.writing() as connection:
        connection.execute(sql.text("DELETE FROM audit_cuts"))


def test_many_who_write_at_once_make_one_chain(audit):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: audit.write(entry(number), entry(number + 100)), range(16)))
    assert audit.verify().rows == 32


def test_what_is_done_with_one_residents_record_can_be_told(audit):
    fill(audit, 5)
    lines = io.StringIO()
    assert audit.export(lines, whose=3) == 1
    assert audit.export(lines, since=NOW + 4 * DAY) == 2


texts = st.text(max_size=60)


@pytest.fixture(scope="module")
def anything(tmp_path_factory) -> Audit:
    return Audit(Database.open(str(tmp_path_factory.mktemp("audit") / "county.db")))


@given(texts, texts, texts, st.booleans(), st.none() | st.integers(-(2**63), 2**63 - 1))
def test_whatever_callers_send_the_chain_holds(anything, action, address, why, allowed, whose):
    anything.write(Entry(NOW, action, allowed, None, "", "", "", whose, None, address, why + "\0" + "x" * 600))
    assert anything.verify().rows >= 1
