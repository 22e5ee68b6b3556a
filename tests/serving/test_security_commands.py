"""The commands for accounts and the audit, and the tables beneath: they come and go with the migrations."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from typer.testing import CliRunner

from serving.audit import Audit, Entry
from serving.security.roles import SCOPES
from serving.security.tokens import Tokens
from serving.store.accounts import accounts, audit
from serving.store.database import VERSION_TABLE, Database, migrate
from serving.store.identity import Key, rotate
from tests.serving.accounts import HERE, KEY, NOW, let_in, quick_login
from weibing import app


@pytest.fixture
def address(tmp_path) -> str:
    return str(tmp_path / "county.db")


def run(address: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--db", address], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_tables_are_those_of_the_migrations_and_go_with_them(database):
    quick_login(database).accounts.add("li", "doctor", NOW)
    Audit(database).write(Entry(NOW, "see resident", whose=3))
    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, accounts.metadata) == []
    with database.writing() as connection:
        migrate(connection, command.downgrade, "2")
    with database.reading() as connection:
        assert "audit" not in sql.inspect(connection).get_table_names()
    database.upgrade()
    Audit(database).write(Entry(NOW, "see resident", whose=3))
    assert Audit(database).verify().rows == 1


def test_what_is_there_stays_when_the_accounts_come(database):
    with database.writing() as connection:
        migrate(connection, command.downgrade, "2")
        connection.execute(sql.text("INSERT INTO panels (id, name) VALUES (1, 'Shixi')"))
    database.upgrade()
    with database.reading() as connection:
        assert connection.execute(sql.text("SELECT name FROM panels")).scalar() == "Shixi"


def test_another_key_takes_the_secrets_of_codes_along(tmp_path):
    login = quick_login(Database.open(str(tmp_path / "county.db")))
    pending = let_in(login, "chen", "administrator")
    login.set_up_code(pending, NOW)
    new = Key.of("another key of thirty-two letters or more")
    rotate(login.accounts.database, KEY, new, NOW)
    sealed = login.accounts.named("chen").code_secret
    assert new.unseal(sealed, "one-time code", login.accounts.named("chen").id)


def test_an_account_is_added_and_its_password_works(address):
    said = run(address, "users", "add", "li", "--role", "doctor")
    password = said.split(" is ")[1].split(".")[0]
    login = quick_login(Database.open(address))
    login.by_password("li", password, HERE, datetime.now(UTC).replace(tzinfo=None))


def test_a_token_is_printed_alone_and_works_until_it_is_revoked(address):
    run(address, "users", "add", "lab", "--role", "system")
    secret = run(address, "users", "token", "lab", "--scope", "score").strip()
    tokens, now = Tokens(Database.open(address)), datetime.now(UTC).replace(tzinfo=None)
    assert tokens.caller(secret, now).scopes == {"score"} <= set(SCOPES)
    assert "until" in run(address, "users", "list")
    run(address, "users", "revoke", "1", "--reason", "seen in a screenshot")
    assert tokens.caller(secret, now) is None


def test_the_list_holds_no_secret(address):
    said = run(address, "users", "add", "chen", "--role", "administrator")
    run(address, "users", "add", "lab", "--role", "system")
    secret = run(address, "users", "token", "lab", "--scope", "score").strip()
    told = json.loads(run(address, "users", "list", "--json", "-"))
    assert [one["name"] for one in told["accounts"]] == ["chen", "lab"]
    assert [one["account"] for one in told["tokens"]] == ["lab"]
    assert secret not in str(told)
    assert said.split(" is ")[1].split(".")[0] not in str(told)


def test_whoever_is_disabled_or_reset_is_listed_so(address):
    run(address, "users", "add", "li", "--role", "doctor")
    run(address, "users", "disable", "li", "--reason", "has left")
    assert "disabled" in run(address, "users", "list")
    assert "first login" in run(address, "users", "reset", "li")
    assert "disabled" not in run(address, "users", "list")


def test_what_is_done_by_command_is_in_the_audit(address, tmp_path):
    password = run(address, "users", "add", "li", "--role", "doctor").split(" is ")[1].split(".")[0]
    file = tmp_path / "out" / "audit.jsonl"
    run(address, "audit", "export", "--out", str(file))
    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(one["action"], one["via"]) for one in told] == [("add user", "command"), ("export audit", "command")]
    assert told[0]["why"] == "li as doctor"
    assert password not in file.read_text(encoding="utf-8")
    assert "holds together: 2 rows" in run(address, "audit", "verify", "--against", str(file))
    assert "0 rows" in run(address, "audit", "forget")


def test_a_broken_audit_is_one_sentence_and_exit_1(address):
    run(address, "users", "add", "li", "--role", "doctor")
    with Database.open(address).writing() as connection:
        connection.execute(sql.text("DROP TRIGGER audit_unchanged"))
        connection.execute(audit.update().values(why="nothing"))
    weibing = Path(sys.executable).with_name("weibing")
    done = subprocess.run([weibing, "audit", "verify", "--db", address], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("weibing: The audit is broken: row 1 is not what was written.")
    assert "Traceback" not in done.stderr
