"""Passwords: which are good enough, how they are kept, and how often one may try.

GB/T 22239-2019, 8.1.4.1: identities checked by something complex and changed regularly, failed logins handled.
"""

import secrets
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from threading import BoundedSemaphore

import sqlalchemy as sql
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from features.errors import WeibingError
from serving.security.secrets import digest
from serving.store.accounts import failures
from serving.store.database import Database, insert

# No letter or digit that looks like another.
READABLE = "abcdefghjkmnpqrstuvwxyz23456789"
GROUPS, LETTERS = 5, 4

# What people choose most, small letters, without what they put around it.
COMMON = frozenset({
    "admin", "administrator", "aini", "asdfgh", "asdfghjkl", "changeme", "clinic", "default", "doctor", "dragon",
    "football", "guest", "hello", "hospital", "iloveyou", "letmein", "login", "manager", "master", "mima", "monkey",
    "nihao", "p@ssw0rd", "p@ssword", "passw0rd", "password", "princess", "qwerty", "qwertyuiop", "root", "secret",
    "sunshine", "test", "user", "weibing", "welcome", "woaini", "yisheng", "yiyuan", "zxcvbn",
})  # fmt: skip
RUNS = ("abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm", "01234567890", "1qaz2wsx3edc4rfv5tgb6yhn7ujm")


@dataclass(frozen=True)
class Policy:
    """Which passwords are good enough.

    Attributes
    ----------
    least, most : how many characters; the limit above keeps nobody from a sentence, and the hash from hours of work
    kinds : how many of small letters, capital letters, digits and other characters, unless it is a sentence
    sentence : from how many characters on it is one
    days : how long one may be used; None: for good
    initial_days : how long one that somebody else has set may be used
    """

    least: int = 12
    most: int = 128
    kinds: int = 3
    sentence: int = 20
    days: int | None = 180
    initial_days: int = 7

    def check(self, password: str, name: str, before: str | None = None) -> None:
        """Refuse a password that is too easily guessed, or the one before it.

        Raises
        ------
        WeibingError
            Says what is wrong; never the password.
        """
        fault = self._fault(one_way(password), name)
        if before is not None and one_way(before) == one_way(password):
            fault = "it is the one you have now"
        if fault:
            raise WeibingError(f"This password cannot be used: {fault}. Choose another one.")

    def has_expired(self, since: datetime, now: datetime, *, initial: bool) -> bool:
        """Whether a password may not be used any more as it is."""
        days = self.initial_days if initial else self.days
        return days is not None and now >= since + timedelta(days=days)

    def _fault(self, password: str, name: str) -> str | None:
        plain = password.casefold()
        if len(password) < self.least:
            return f"it has fewer than {self.least} characters"
        if len(password) > self.most:
            return f"it has more than {self.most} characters"
        if len(password) < self.sentence and _kinds(password) < self.kinds:
            return f"it needs {self.kinds} of small letters, capitals, digits and others, or {self.sentence} characters"
        if name and name.casefold() in plain:
            return "your name is in it"
        if len(set(plain)) < 6 or _core(plain) in COMMON or _is_run(plain):
            return "others guess it soon"
        return None


class Passwords:
    """Keeps passwords as argon2id hashes (RFC 9106), and compares.

    Hashing takes 64 MiB of memory and tens of milliseconds on purpose; two at a time, so that many logins at once
    fill neither memory nor processors.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = BoundedSemaphore(2)

    def hashed(self, password: str) -> str:
        """Return what is kept of a password."""
        with self._turns:
            return self._hasher.hash(one_way(password))

    def match(self, kept: str | None, password: str) -> bool:
        """Whether a password is the one that was kept; takes as long where nothing is kept."""
        with self._turns:
            try:
                return self._hasher.verify(kept or self._of_nobody, one_way(password)) and kept is not None
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Whether a hash was made with less work than today's."""
        return self._hasher.check_needs_rehash(kept)

    @cached_property
    def _of_nobody(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


class TooManyError(Exception):
    """One must wait before trying again.

    Attributes
    ----------
    seconds : how long
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many failed logins. Try again in {seconds} seconds.")
        self.seconds = seconds


@dataclass(frozen=True)
class Waits:
    """How long to wait after failed logins of an account, or from an address: longer each time.

    A try counts as failed from its beginning until it has succeeded, so that a hundred at once are no way around.

    Attributes
    ----------
    free : how many failures cost nothing, by kind; many people log in from the address of one clinic
    """

    database: Database
    free: dict[str, int] = field(default_factory=lambda: {"account": 4, "code": 4, "address": 30})
    first_seconds: int = 15
    longest_seconds: int = 3600
    forgotten_after: timedelta = timedelta(days=1)

    def begin(self, kind: str, of: str, now: datetime) -> None:
        """Count a try.

        Raises
        ------
        TooManyError
            If it comes too early; then it is not counted.
        """
        key = digest(f"{kind} {of}")
        with self.database.writing() as connection:
            # A time that lies ahead of the clock's is of a clock that was wrong.
            due = sql.or_(failures.c.until <= now, failures.c.last_at > now)
            again = sql.case((failures.c.last_at < now - self.forgotten_after, 1), else_=failures.c.count + 1)
            first = insert(connection, failures).values(digest=key, count=1, last_at=now, until=now)
            counted = first.on_conflict_do_update(
                index_elements=["digest"], set_={"count": again, "last_at": now}, where=due
            )
            count = connection.execute(counted.returning(failures.c.count)).scalar()
            if count is not None:
                until = now + timedelta(seconds=self.seconds_after(count, kind))
                connection.execute(failures.update().where(failures.c.digest == key).values(until=until))
                return
            until = connection.execute(sql.select(failures.c.until).where(failures.c.digest == key)).scalar_one()
        raise TooManyError(int((until - now).total_seconds()) + 1)

    def succeed(self, kind: str, of: str) -> None:
        """Take back what a try that succeeded has counted; an account's earlier failures are forgotten too.

        An address keeps its earlier ones: else whoever has one account could try the others for ever.
        """
        mine = failures.c.digest == digest(f"{kind} {of}")
        with self.database.writing() as connection:
            if kind == "address":
                less = {"count": failures.c.count - 1, "until": failures.c.last_at}
                connection.execute(failures.update().where(mine, failures.c.count > 0).values(less))
            else:
                connection.execute(failures.delete().where(mine))

    def sweep(self, now: datetime) -> None:
        """Forget what nobody has tried for long."""
        old = sql.and_(failures.c.last_at < now - self.forgotten_after, failures.c.until < now)
        with self.database.writing() as connection:
            connection.execute(failures.delete().where(old))

    def seconds_after(self, count: int, kind: str) -> int:
        """Return how long to wait after so many failures."""
        beyond = count - self.free[kind]
        return 0 if beyond <= 0 else min(self.longest_seconds, self.first_seconds * 2 ** min(beyond - 1, 20))


def one_way(password: str) -> str:
    """Return a password as it is compared: the same whatever keyboard it was typed on (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def initial_password() -> str:
    """Return a password for somebody's first login: 99 random bits, easily read aloud."""
    groups = ("".join(secrets.choice(READABLE) for _ in range(LETTERS)) for _ in range(GROUPS))
    return "-".join(groups)


def _kinds(password: str) -> int:
    tests = (str.islower, str.isupper, str.isdigit, lambda one: not one.isalnum())
    # A letter of a script without small and capital letters counts as a kind of its own.
    others = (lambda one: one.isalpha() and not one.islower() and not one.isupper(),)
    return sum(any(map(test, password)) for test in (*tests, *others))


def _core(plain: str) -> str:
    """Return what is left without the digits and signs that people put around a word."""
    return plain.strip("0123456789!@#$%^&*()-_=+.,?~ ")


def _is_run(plain: str) -> bool:
    """Whether it is keys or letters in a row, forwards or backwards."""
    return any(plain in run * 3 or plain[::-1] in run * 3 for run in RUNS)
