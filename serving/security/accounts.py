"""Accounts: who there is, with which role."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sql

from features.errors import WeibingError, did_you_mean
from serving.security.passwords import Passwords, Policy, initial_password
from serving.security.roles import ROLES, WITH_CODE, Role
from serving.security.secrets import digest
from serving.store.accounts import accounts, sessions, tokens
from serving.store.database import Database, insert

LONGEST_NAME = 60


@dataclass(frozen=True)
class Account:
    """Somebody, or a system, that may come in."""

    id: int
    name: str
    label: str
    role: Role
    password: str | None = field(repr=False)
    password_at: datetime | None
    must_change: bool
    code_secret: bytes | None = field(repr=False)
    code_confirmed: bool
    code_step: int | None
    issuer: str | None
    subject: str | None
    created_at: datetime
    disabled_at: datetime | None

    @property
    def local(self) -> bool:
        """Whether it logs in here, by a password, and not at the county's login server."""
        return self.issuer is None

    @property
    def with_code(self) -> bool:
        """Whether it logs in with a one-time code as well."""
        return self.role in WITH_CODE or self.code_confirmed


@dataclass(frozen=True)
class Accounts:
    """The accounts of a database."""

    database: Database
    passwords: Passwords = field(default_factory=Passwords)
    policy: Policy = field(default_factory=Policy)

    def add(self, name: str, role: str, now: datetime, label: str = "") -> tuple[Account, str | None]:
        """Add an account; return it with the password for its first login, which is kept nowhere. A system has none.

        Raises
        ------
        WeibingError
            If the name cannot be one or is taken, or there is no such role.
        """
        chosen, known = _name(name), _role(role)
        initial = None if known == "system" else initial_password()
        row = {
            "name": chosen,
            "label": label or name.strip(),
            "role": known,
            "password": initial and self.passwords.hashed(initial),
            "password_at": now if initial else None,
            "must_change": initial is not None,
            "code_confirmed": False,
            "created_at": now,
        }
        if not self._insert(row):
            raise WeibingError(f'There is an account "{chosen}" already. Choose another name.')
        return self.named(chosen), initial

    def all(self) -> list[Account]:
        """Return all accounts, by name."""
        with self.database.reading() as connection:
            return list(map(_account, connection.execute(sql.select(accounts).order_by(accounts.c.name))))

    def find(self, name: str) -> Account | None:
        """Return the account of a name, if there is one."""
        return self._one(accounts.c.name == _one_way(name))

    def named(self, name: str) -> Account:
        """Return the account of a name.

        Raises
        ------
        WeibingError
            If there is none.
        """
        found = self.find(name)
        if found is None:
            close = did_you_mean(_one_way(name), [account.name for account in self.all()])
            raise WeibingError(f'There is no account "{name}".{close}')
        return found

    def doctor(self, name: str) -> Account:
        """Return the account of a doctor.

        Raises
        ------
        WeibingError
            If there is none of that name, or it is not a doctor's.
        """
        found = self.named(name)
        if found.role != "doctor":
            raise WeibingError(f'"{found.name}" is no doctor, but {found.role}. A panel is a doctor\'s.')
        return found

    def numbered(self, number: int) -> Account | None:
        """Return the account of a number, if there is one."""
        return self._one(accounts.c.id == number)

    def from_issuer(self, issuer: str, subject: str, role: Role, name: str, label: str, now: datetime) -> Account:
        """Return the account of somebody whom a login server names, with the role that it gives; add it if it is new.

        A role that has changed ends the sessions that were begun with the other one.
        """
        # Two people may call themselves the same there; who is who says the subject.
        apart = f"{name}-{digest(f'{issuer} {subject}')[:8]}"
        row = {
            "label": label, "role": role, "must_change": False, "code_confirmed": False, "issuer": issuer,
            "subject": subject, "created_at": now,
        }  # fmt: skip
        if self._one(accounts.c.issuer == issuer, accounts.c.subject == subject) is None:
            self._insert(row | {"name": _one_way(name)}) or self._insert(row | {"name": _one_way(apart)})
        mine = (accounts.c.issuer == issuer, accounts.c.subject == subject)
        with self.database.writing() as connection:
            found = _account(connection.execute(sql.select(accounts).where(*mine).with_for_update()).one())
            if found.role != role:
                connection.execute(accounts.update().where(*mine).values(role=role))
                connection.execute(sessions.delete().where(sessions.c.account_id == found.id))
            return _account(connection.execute(sql.select(accounts).where(*mine)).one())

    def disable(self, name: str, now: datetime) -> Account:
        """Let nobody come in by an account any more; its sessions and tokens end at once.

        Raises
        ------
        WeibingError
            If there is no such account, or nobody would be left to manage users.
        """
        account = self.named(name)
        with self.database.writing() as connection:
            self._need_another_administrator(connection, account)
            gone = sql.func.coalesce(accounts.c.disabled_at, now)
            connection.execute(accounts.update().where(accounts.c.id == account.id).values(disabled_at=gone))
            connection.execute(sessions.delete().where(sessions.c.account_id == account.id))
            mine = (tokens.c.account_id == account.id, tokens.c.revoked_at.is_(None))
            connection.execute(tokens.update().where(*mine).values(revoked_at=now))
        return self.named(name)

    def reset(self, name: str, now: datetime) -> str | None:
        """Let somebody begin anew who has lost the password, or the telephone with the one-time codes.

        Returns the password for the next login, which is kept nowhere; None where the login server asks for it. All
        sessions of the account end; a disabled account may come in again.

        Raises
        ------
        WeibingError
            If there is no such account, or it is a system's.
        """
        account = self.named(name)
        if account.role == "system":
            raise WeibingError(f'"{account.name}" is a system: it has tokens, no password. See: weibing users token')
        initial = initial_password() if account.local else None
        fresh = {"password": self.passwords.hashed(initial), "password_at": now} if initial else {}
        without_code = {"code_secret": None, "code_confirmed": False, "code_step": None}
        change = {**fresh, **without_code, "must_change": account.local, "disabled_at": None}
        with self.database.writing() as connection:
            connection.execute(accounts.update().where(accounts.c.id == account.id).values(change))
            connection.execute(sessions.delete().where(sessions.c.account_id == account.id))
        return initial

    def change_password(self, account: Account, password: str, before: str, now: datetime) -> None:
        """Set the password that somebody has chosen; all sessions of the account end.

        Raises
        ------
        WeibingError
            If it is not good enough, or the account has none here.
        """
        if not account.local or account.password is None:
            raise WeibingError("This account has its password on the login server. Change it there.")
        self.policy.check(password, account.name, before)
        change = {"password": self.passwords.hashed(password), "password_at": now, "must_change": False}
        with self.database.writing() as connection:
            connection.execute(accounts.update().where(accounts.c.id == account.id).values(change))
            connection.execute(sessions.delete().where(sessions.c.account_id == account.id))

    def _insert(self, row: Mapping[str, object]) -> bool:
        """Add a row, unless there is one of the same name, or of the same person."""
        with self.database.writing() as connection:
            new = insert(connection, accounts).values(row).on_conflict_do_nothing()
            return connection.execute(new.returning(accounts.c.id)).one_or_none() is not None

    def _one(self, *conditions: sql.ColumnElement[bool]) -> Account | None:
        with self.database.reading() as connection:
            found = connection.execute(sql.select(accounts).where(*conditions)).one_or_none()
        return None if found is None else _account(found)

    def _need_another_administrator(self, connection: sql.Connection, account: Account) -> None:
        able = (accounts.c.role == "administrator", accounts.c.disabled_at.is_(None))
        # Two who disable each other at the same time: one waits for the other.
        left = connection.execute(sql.select(accounts.c.id).where(*able).with_for_update()).scalars().all()
        if list(left) == [account.id]:
            raise WeibingError(f'"{account.name}" is the last who can manage users. Add another administrator first.')


def _account(row: sql.Row[*tuple[object, ...]]) -> Account:
    return Account(**row._mapping)


def _one_way(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _name(name: str) -> str:
    """Return the name of an account that logs in here: never one that the login server's accounts could have."""
    chosen = _one_way(name)
    fits = all(one.isalnum() or one in "._-" for one in chosen)
    if not (0 < len(chosen) <= LONGEST_NAME and fits):
        raise WeibingError(
            f'"{name}" cannot be the name of an account. Use letters, digits, . and -, at most {LONGEST_NAME}.'
        )
    return chosen


def _role(role: str) -> Role:
    for known in ROLES:
        if known == role:
            return known
    raise WeibingError(f'There is no role "{role}". The roles are {", ".join(ROLES)}.{did_you_mean(role, list(ROLES))}')
