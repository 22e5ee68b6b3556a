"""What the tests of logins share: a clock that stands, and passwords that are quickly hashed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from argon2 import PasswordHasher
from sqlalchemy import make_url

from serving.security.accounts import Accounts
from serving.security.login import Login
from serving.security.passwords import Passwords, Waits
from serving.security.sessions import Sessions
from serving.store.database import Database
from serving.store.identity import Key
from tests.postgres import drop, new_database

NOW = datetime(2026, 3, 1, 8, 0, 0)
GOOD = "Sieben-Birken-am-Fluss-7"
OTHER = "Acht-Weiden-am-See-88"
HERE = "10.1.2.3"
KEY = Key.of("a key that only tests use, 32 long or more")
# The least work that argon2 knows.
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def quick_login(database: Database) -> Login:
    """Return the way in, as it is by default but for the work of hashing."""
    accounts = Accounts(database, Passwords(QUICK))
    return Login(accounts, Sessions(database), Waits(database), KEY)


def let_in(login: Login, name: str, role: str = "doctor", now: datetime = NOW) -> str:
    """Add an account, go through its first login, and return the secret of the session."""
    _, initial = login.accounts.add(name, role, now)
    assert initial is not None
    secret, _ = login.by_password(name, initial, HERE, now)
    return login.change_password(secret, initial, GOOD, now)


@contextmanager
def copied(template: str, file: Path) -> Iterator[Database]:
    """Give a new database like one that is there: quicker than to migrate each anew."""
    url = make_url(template)
    if url.get_backend_name() == "sqlite":
        shutil.copy(str(url.database), file)
        yield Database.open(str(file))
        return
    server = url.set(database="postgres").render_as_string(hide_password=False)
    copy = new_database(server, like=str(url.database))
    try:
        yield Database.open(copy)
    finally:
        drop(server, copy)
