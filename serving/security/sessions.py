"""Sessions: who is logged in, kept on the server; the browser has a secret that says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sql

from serving.security.accounts import Account
from serving.security.caller import Caller, RefusedError
from serving.security.passwords import Policy
from serving.security.secrets import digest, new_secret
from serving.store.accounts import accounts, sessions
from serving.store.database import Database

# A browser takes a cookie of this name from this very host alone, over TLS, and for all its pages (RFC 6265bis).
COOKIE = "__Host-weibing"
# So many seconds may pass before it is written down that a session is still in use.
SEEN_SECONDS = 60

# What stands between a login and being let in.
Step = Literal["give code", "change password", "set up code"]


@dataclass(frozen=True)
class Session:
    """A login, and what it still lacks."""

    account: Account
    begun_at: datetime
    step: Step | None

    def caller(self, panels: frozenset[int] = frozenset()) -> Caller:
        """Return who asks, with the panels of which the account is the doctor.

        Raises
        ------
        RefusedError
            If the login is not complete.
        """
        if self.step is not None:
            raise RefusedError(self.step)
        account = self.account
        return Caller(account.id, account.name, account.role, panels, frozenset(), "session")


@dataclass(frozen=True)
class Sessions:
    """The sessions of a database.

    Attributes
    ----------
    idle, absolute : how long one lasts without a request, and in all
    """

    database: Database
    policy: Policy = field(default_factory=Policy)
    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)

    def begin(self, account: Account, now: datetime, *, whole: bool) -> str:
        """Begin a session; return the secret for the cookie. `whole` says that a one-time code was given too."""
        secret = new_secret()
        row = {
            "digest": digest(secret), "account_id": account.id, "whole": whole, "begun_at": now, "seen_at": now,
        }  # fmt: skip
        with self.database.writing() as connection:
            connection.execute(sessions.insert().values(row))
        return secret

    def find(self, secret: str, now: datetime) -> Session | None:
        """Return the session of a cookie; None if there is none, it has ended, or the account may not come in."""
        query = sql.select(accounts, sessions.c.whole, sessions.c.begun_at, sessions.c.seen_at)
        mine = sessions.c.digest == digest(secret)
        with self.database.reading() as connection:
            row = connection.execute(query.join(sessions).where(mine, accounts.c.disabled_at.is_(None))).one_or_none()
        if row is None:
            return None
        if self._has_ended(row.begun_at, row.seen_at, now):
            self.end(secret)
            return None
        if abs((now - row.seen_at).total_seconds()) >= SEEN_SECONDS:
            self._see(mine, now)
        account = Account(**{column.name: row._mapping[column] for column in accounts.columns})
        return Session(account, row.begun_at, self._step(account, row.whole, now))

    def rotate(self, secret: str, now: datetime, *, whole: bool) -> str | None:
        """Give a session another secret, as its rights have changed; None if it is gone."""
        fresh = new_secret()
        change = {"digest": digest(fresh), "whole": whole, "seen_at": now}
        with self.database.writing() as connection:
            mine = sessions.update().where(sessions.c.digest == digest(secret))
            return fresh if connection.execute(mine.values(change)).rowcount == 1 else None

    def end(self, secret: str) -> None:
        """End a session: log out."""
        with self.database.writing() as connection:
            connection.execute(sessions.delete().where(sessions.c.digest == digest(secret)))

    def end_all(self, account: Account) -> None:
        """End all sessions of an account."""
        with self.database.writing() as connection:
            connection.execute(sessions.delete().where(sessions.c.account_id == account.id))

    def sweep(self, now: datetime) -> None:
        """Forget those that have ended by themselves."""
        over = sql.or_(sessions.c.begun_at < now - self.absolute, sessions.c.seen_at < now - self.idle)
        with self.database.writing() as connection:
            connection.execute(sessions.delete().where(over))

    def _has_ended(self, begun_at: datetime, seen_at: datetime, now: datetime) -> bool:
        return now >= begun_at + self.absolute or now >= seen_at + self.idle

    def _see(self, mine: sql.ColumnElement[bool], now: datetime) -> None:
        with self.database.writing() as connection:
            connection.execute(sessions.update().where(mine).values(seen_at=now))

    def _step(self, account: Account, whole: bool, now: datetime) -> Step | None:
        if account.code_confirmed and not whole:
            return "give code"
        if account.local and self._must_change(account, now):
            return "change password"
        if account.with_code and not account.code_confirmed:
            return "set up code"
        return None

    def _must_change(self, account: Account, now: datetime) -> bool:
        since = account.password_at or account.created_at
        return account.must_change or self.policy.has_expired(since, now, initial=False)


def cookie(secret: str | None) -> Mapping[str, object]:
    """Return what to tell a browser (the arguments of ``Response.set_cookie``): keep the secret, or forget it.

    No script reads it, no plain connection carries it, and no other site's form sends it; a link from one does, so
    that a hospital's system can lead to a page. It ends with the browser.
    """
    return {
        "key": COOKIE, "value": secret or "", "max_age": None if secret else 0, "path": "/", "secure": True,
        "httponly": True, "samesite": "lax",
    }  # fmt: skip
