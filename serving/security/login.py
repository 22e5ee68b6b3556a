"""The way in: a name and a password, then, for some, a one-time code."""

import re
from base64 import b32decode, b32encode
from dataclasses import dataclass
from datetime import datetime

from features.errors import WeibingError
from serving.security import totp
from serving.security.accounts import Account, Accounts
from serving.security.passwords import Waits, one_way
from serving.security.sessions import Session, Sessions, Step
from serving.store.accounts import accounts
from serving.store.database import Database
from serving.store.identity import CODE, Key


class LoginError(Exception):
    """That is not who may come in. It does not say whether it was the name, the password or the code."""

    def __init__(self) -> None:
        super().__init__("The name, the password or the code is wrong.")


@dataclass(frozen=True)
class Login:
    """Lets people in.

    Attributes
    ----------
    key : with which the secrets of one-time codes are encrypted
    """

    accounts: Accounts
    sessions: Sessions
    waits: Waits
    key: Key

    @classmethod
    def of(cls, database: Database, key: Key) -> "Login":
        """Return the way into a database's service, with the rules as they are by default."""
        return cls(Accounts(database), Sessions(database), Waits(database), key)

    def by_password(self, name: str, password: str, address: str, now: datetime) -> tuple[str, Account]:
        """Begin a session; return its secret, and whose it is. What it still lacks, the session says.

        Raises
        ------
        LoginError
            If the name or the password is wrong, or the account may not come in.
        TooManyError
            If one must wait after failed logins.
        """
        account, known_as = self.accounts.find(name), one_way(name).strip().casefold()
        self.waits.begin("address", address, now)
        self.waits.begin("account", known_as, now)
        matches = self.accounts.passwords.match(account.password if account else None, password)
        if not matches or account is None or not self._may_come_in(account, now):
            raise LoginError
        self.waits.succeed("account", known_as)
        self.waits.succeed("address", address)
        return self.sessions.begin(account, now, whole=False), account

    def give_code(self, secret: str, code: str, now: datetime) -> str:
        """Complete a login with a one-time code; return the session's new secret.

        Raises
        ------
        LoginError
            If the code is wrong or was taken before, or no code is asked for now.
        TooManyError
            If one must wait after wrong codes.
        """
        account = self._at(secret, "give code", now).account
        self._take(account, code, now)
        return self._rotated(secret, now, whole=True)

    def set_up_code(self, secret: str, now: datetime) -> str:
        """Make the secret of somebody's one-time codes; return what an authenticator app reads from a QR code.

        Raises
        ------
        LoginError
            If it is not the time for it: a code that works is only replaced after a reset by an administrator.
        """
        account = self._at(secret, "set up code", now).account
        key = totp.new_key()
        sealed = self.key.seal(b32encode(key).decode(), CODE, account.id)
        waiting = (accounts.c.id == account.id, accounts.c.code_confirmed.is_(False))
        with self.accounts.database.writing() as connection:
            connection.execute(accounts.update().where(*waiting).values(code_secret=sealed, code_step=None))
        return totp.address_for_app(key, account.name)

    def confirm_code(self, secret: str, code: str, now: datetime) -> str:
        """End the setting up with a code that the app shows; return the session's new secret.

        Raises
        ------
        LoginError
            If the code is wrong, or it is not the time for it.
        TooManyError
            If one must wait after wrong codes.
        """
        account = self._at(secret, "set up code", now).account
        self._take(account, code, now)
        with self.accounts.database.writing() as connection:
            connection.execute(accounts.update().where(accounts.c.id == account.id).values(code_confirmed=True))
        return self._rotated(secret, now, whole=True)

    def change_password(self, secret: str, before: str, password: str, now: datetime) -> str:
        """Set another password; all sessions of the account end, and the secret of a new one is returned.

        Raises
        ------
        LoginError
            If nobody is logged in, a code is still to be given, or the present password is wrong.
        TooManyError
            If one must wait after wrong ones.
        WeibingError
            If the new one is not good enough.
        """
        session = self.sessions.find(secret, now)
        if session is None or session.step == "give code":
            raise LoginError
        account = session.account
        self.waits.begin("account", account.name, now)
        if not self.accounts.passwords.match(account.password, before):
            raise LoginError
        self.waits.succeed("account", account.name)
        self.accounts.change_password(account, password, before, now)
        return self.sessions.begin(account, now, whole=account.code_confirmed)

    def _may_come_in(self, account: Account, now: datetime) -> bool:
        if account.disabled_at is not None or account.role == "system" or not account.local:
            return False
        policy, since = self.accounts.policy, account.password_at or account.created_at
        return not (account.must_change and policy.has_expired(since, now, initial=True))

    def _at(self, secret: str, step: Step, now: datetime) -> Session:
        session = self.sessions.find(secret, now)
        if session is None or session.step != step:
            raise LoginError
        return session

    def _take(self, account: Account, code: str, now: datetime) -> None:
        """Take a one-time code, once."""
        self.waits.begin("code", str(account.id), now)
        step = self._step(account, code, now)
        if step is None:
            raise LoginError
        fresh = accounts.c.code_step.is_(None) | (accounts.c.code_step < step)
        taken = accounts.update().where(accounts.c.id == account.id, fresh).values(code_step=step)
        with self.accounts.database.writing() as connection:
            if connection.execute(taken).rowcount != 1:
                raise LoginError
        self.waits.succeed("code", str(account.id))

    def _step(self, account: Account, code: str, now: datetime) -> int | None:
        if account.code_secret is None or not re.fullmatch(r"[0-9 ]{6,12}", code):
            return None
        key = b32decode(self._unsealed(account.code_secret, account.id))
        return totp.matching_step(key, code, now, account.code_step)

    def _unsealed(self, sealed: bytes, account: int) -> str:
        try:
            return self.key.unseal(sealed, CODE, account)
        except WeibingError as error:
            raise WeibingError(
                "The secrets of one-time codes cannot be read: the key is another one. Start with the right one, or "
                "reset the account: weibing users reset NAME"
            ) from error

    def _rotated(self, secret: str, now: datetime, *, whole: bool) -> str:
        fresh = self.sessions.rotate(secret, now, whole=whole)
        if fresh is None:
            raise LoginError
        return fresh
