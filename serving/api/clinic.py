"""What the service works with, opened once a process."""

from dataclasses import dataclass, replace
from functools import cache

from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore
from features.profile import declared
from serving.api.champions import Champions
from serving.audit import Audit
from serving.duties.duty import DutyRules
from serving.duties.rules import rulebook
from serving.live import Live
from serving.security.login import Login
from serving.security.oidc import LoginServer, Provider
from serving.security.tokens import Tokens
from serving.settings import Settings
from serving.store.database import Database
from serving.store.identity import Key, need_right_key
from serving.store.panels import Panels
from serving.store.people import People

# Whoever has read this program knows it: it is taken for made-up residents alone.
DEMO_SECRET = "weibing-demo-key-known-to-everybody"


@dataclass(frozen=True)
class Clinic:
    """The database and its key, who may come in, the models, and what they say of a resident."""

    settings: Settings
    database: Database
    key: Key
    login: Login
    login_server: LoginServer | None
    champions: Champions
    rules: DutyRules
    live: Live

    @classmethod
    def of(cls, settings: Settings) -> "Clinic":
        """Put together what the settings name; nothing is connected to yet.

        Raises
        ------
        WeibingError
            If no database or no key is named, or what is named cannot serve.
        """
        if not settings.db:
            raise WeibingError("Say where the operational database is: --db, or WEIBING_DB, such as weibing.db.")
        database, key = replace(Database.at(settings.db), pooled=True), key_of(settings)
        _need_one_zone(settings)
        champions = Champions(settings, Engine(declared(), timezone=settings.timezone), database)
        rules = DutyRules(rulebook(settings.duty_targets), timezone=settings.timezone)
        login = Login.of(database, key)
        return cls(
            settings=settings,
            database=database,
            key=key,
            login=login,
            login_server=_login_server(settings, login),
            champions=champions,
            rules=rules,
            live=Live(settings.store, database, champions, rules),
        )

    @property
    def people(self) -> People:
        """The residents."""
        return People(self.database, self.key)

    @property
    def panels(self) -> Panels:
        """Who is under contract with whom."""
        return Panels(self.database)

    @property
    def audit(self) -> Audit:
        """What was done, by whom."""
        return Audit(self.database)

    @property
    def tokens(self) -> Tokens:
        """What other systems call with."""
        return Tokens(self.database)

    def open(self) -> None:
        """Bring the database to the present form, and see that the key is its own.

        Raises
        ------
        WeibingError
            If it cannot be used, or the key is another one.
        """
        Database.open(self.database.address)
        with self.database.reading() as connection:
            need_right_key(connection, self.key)


@cache
def opened() -> Clinic:
    """Return what this process works with, as the environment says."""
    return Clinic.of(Settings.from_environment())


def key_of(settings: Settings) -> Key:
    """Return the key of the environment.

    Raises
    ------
    WeibingError
        If there is none, or it is the one that everybody knows and this is no demonstration.
    """
    key = Key.from_environment()
    if key == Key.of(DEMO_SECRET) and not settings.demo:
        raise WeibingError(
            "The key is the one of the demonstration, which everybody knows. Make one of your own with: "
            "openssl rand -base64 32"
        )
    return key


def _need_one_zone(settings: Settings) -> None:
    if settings.store is None:
        return
    of_store = EventStore.open(settings.store).timezone
    if of_store != settings.timezone:
        raise WeibingError(
            f"The store {settings.store} keeps the days of {of_store}, the service is set to {settings.timezone}. "
            f"Set WEIBING_TIMEZONE={of_store}."
        )


def _login_server(settings: Settings, login: Login) -> LoginServer | None:
    if settings.login_server is None:
        return None
    provider = Provider.in_file(settings.login_server, settings.public_url)
    return LoginServer(provider, login.accounts, login.sessions)
