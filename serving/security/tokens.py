"""API tokens: what other systems call with. Each names what it is for, ends by itself, and can be revoked."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sql

from features.errors import WeibingError, did_you_mean
from serving.security.accounts import Account
from serving.security.caller import Caller
from serving.security.roles import SCOPES
from serving.security.secrets import digest, new_secret
from serving.store.accounts import accounts, calls_taken, tokens
from serving.store.database import Database, insert

# By its beginning, whoever finds a token somewhere knows what it is.
PREFIX = "weibing_"
LONGEST_DAYS = 366
# Longer headers are no token of ours.
LONGEST_TEXT = 200


@dataclass(frozen=True)
class Token:
    """A token, without its secret."""

    id: int
    account: str
    scopes: frozenset[str]
    created_at: datetime
    ends_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class Tokens:
    """The tokens of a database."""

    database: Database

    def make(self, account: Account, scopes: Iterable[str], days: int, now: datetime) -> tuple[Token, str]:
        """Make a token for a system; return it with its secret, which is shown this once and kept as a digest.

        Raises
        ------
        WeibingError
            If the account is not a system's or is disabled, it names no scope or one that there is not, or it would
            last too long.
        """
        chosen = frozenset(scopes)
        _need_a_system(account)
        _need_scopes(chosen)
        if not 1 <= days <= LONGEST_DAYS:
            raise WeibingError(f"A token lasts 1 to {LONGEST_DAYS} days, not {days}. Make another one when it ends.")
        secret = PREFIX + new_secret()
        row = {
            "digest": digest(secret), "account_id": account.id, "scopes": " ".join(sorted(chosen)), "created_at": now,
            "ends_at": now + timedelta(days=days),
        }  # fmt: skip
        with self.database.writing() as connection:
            made = connection.execute(tokens.insert().values(row).returning(tokens.c.id)).scalar_one()
        return Token(made, account.name, chosen, now, now + timedelta(days=days), None), secret

    def caller(self, secret: str, now: datetime) -> Caller | None:
        """Return who calls with a token; None if there is no such token, or it has ended or was revoked."""
        if not (secret.startswith(PREFIX) and len(secret) <= LONGEST_TEXT):
            return None
        able = (tokens.c.revoked_at.is_(None), tokens.c.ends_at > now, accounts.c.disabled_at.is_(None))
        query = sql.select(accounts.c.id, accounts.c.name, accounts.c.role, tokens.c.scopes).join(tokens)
        with self.database.reading() as connection:
            row = connection.execute(query.where(tokens.c.digest == digest(secret), *able)).one_or_none()
        if row is None or row.role != "system":
            return None
        return Caller(row.id, row.name, "system", frozenset(), frozenset(row.scopes.split()), "token")

    def all(self, account: Account | None = None) -> list[Token]:
        """Return the tokens of an account, or of all, the newest first."""
        query = sql.select(tokens, accounts.c.name).join(accounts).order_by(tokens.c.id.desc())
        mine = query if account is None else query.where(tokens.c.account_id == account.id)
        with self.database.reading() as connection:
            found = connection.execute(mine).all()
        return [
            Token(row.id, row.name, frozenset(row.scopes.split()), row.created_at, row.ends_at, row.revoked_at)
            for row in found
        ]

    def revoke(self, number: int, now: datetime) -> None:
        """End a token at once.

        Raises
        ------
        WeibingError
            If there is none of that number.
        """
        gone = (
            tokens.update().where(tokens.c.id == number).values(revoked_at=sql.func.coalesce(tokens.c.revoked_at, now))
        )
        with self.database.writing() as connection:
            if not connection.execute(gone).rowcount:
                raise WeibingError(f"There is no token {number}. See: weibing users list")


@dataclass(frozen=True)
class Replays:
    """Signed calls that were taken: none is taken twice (the ``jti`` of a JSON Web Token, RFC 7519, 4.1.7)."""

    database: Database

    def is_first(self, issuer: str, jti: str, ends_at: datetime, now: datetime) -> bool:
        """Take a call; False if it was taken before. It is remembered until it is not valid any more."""
        row = {"issuer": issuer, "jti": jti, "ends_at": ends_at}
        with self.database.writing() as connection:
            connection.execute(calls_taken.delete().where(calls_taken.c.ends_at < now))
            new = insert(connection, calls_taken).values(row).on_conflict_do_nothing()
            return connection.execute(new.returning(calls_taken.c.jti)).one_or_none() is not None


def bearer(header: str | None) -> str | None:
    """Return the token of a header ``Authorization: Bearer …``, or None."""
    scheme, _, secret = (header or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _need_a_system(account: Account) -> None:
    if account.role != "system":
        raise WeibingError(
            f'"{account.name}" is a {account.role}: tokens are for systems. Add an account for the system with: '
            "weibing users add NAME --role system"
        )
    if account.disabled_at is not None:
        raise WeibingError(f'"{account.name}" is disabled. Add another account for the system.')


def _need_scopes(scopes: frozenset[str]) -> None:
    if not scopes:
        raise WeibingError(f"A token names what it is for: one or more of {', '.join(SCOPES)}.")
    for scope in sorted(scopes - SCOPES.keys()):
        close = did_you_mean(scope, list(SCOPES))
        raise WeibingError(f'There is no scope "{scope}". The scopes are {", ".join(SCOPES)}.{close}')
