"""A clinic with residents, panels and accounts, and the service in front of it, in this process."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from serving.api.application import application
from serving.api.clinic import Clinic
from serving.api.door import Door, utc_now
from serving.api.gate import Gate
from serving.security.accounts import Accounts
from serving.security.login import Login
from serving.security.passwords import Passwords, Waits
from serving.security.roles import SCOPES
from serving.security.sessions import Sessions
from serving.settings import Settings
from serving.store.identity import Identity
from serving.store.people import Person

SECRET = "a key that only tests use, 32 long or more"
GOOD = "Sieben-Birken-am-Fluss-7"
HOST = "https://weibing.example.cn"
# The least work that argon2 knows.
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Visit:
    """A browser or a system."""

    client: TestClient = field(repr=False)
    csrf: str = field(default="", repr=False)

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.client.get(path, params=parameters or None)

    def send(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """Send JSON as a page of the service does, with what its forms bear."""
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        told = {"content-type": "application/json", "x-csrf-token": self.csrf} | headers
        answer = self.client.request(method, path, content=content, headers=told)
        if path.startswith("/v1/session") and "csrf" in answer.text:
            self.csrf = answer.json()["csrf"]
        return answer


@dataclass
class Front:
    """The service as its callers meet it."""

    clinic: Clinic = field(repr=False)
    client: TestClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        app = Gate(Door(application(self.clinic), self.clinic))
        self.client = TestClient(app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False)

    def anybody(self) -> Visit:
        """Return a browser of its own, logged in as nobody."""
        return Visit(TestClient(self.client.app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False))

    def person(self, name: str, role: str = "doctor") -> Visit:
        """Add an account and return a browser that has gone through its first login."""
        _, initial = self.clinic.login.accounts.add(name, role, utc_now())
        visit = self.anybody()
        visit.send("POST", "/v1/session", {"name": name, "password": initial})
        visit.send("POST", "/v1/session/password", {"before": initial, "password": GOOD})
        return visit

    def system(self, *scopes: str, name: str = "lab") -> Visit:
        """Return a system with a token."""
        accounts = self.clinic.login.accounts
        account = accounts.find(name) or accounts.add(name, "system", utc_now())[0]
        _, secret = self.clinic.tokens.make(account, scopes or SCOPES, 30, utc_now())
        visit = self.anybody()
        visit.client.headers["authorization"] = f"Bearer {secret}"
        return visit


def clinic_behind(patch: Any, **settings: object) -> Clinic:
    """Open a clinic whose passwords are quickly hashed."""
    patch.setenv("WEIBING_KEY", SECRET)
    found = Clinic.of(Settings.from_environment(**settings))
    found.open()
    accounts = Accounts(found.database, Passwords(QUICK))
    login = Login(accounts, Sessions(found.database), Waits(found.database), found.key)
    return Clinic(**{**vars(found), "login": login})


def people_of(clinic: Clinic, subjects: Collection[int], townships: Collection[str] = ("柿西",)) -> None:
    """Register residents under made-up names."""
    places = list(townships)
    clinic.people.register(
        [
            Person(
                subject,
                Identity(f"王{subject}号", f"110101{19500101 + subject:08}123"),
                places[at % len(places)],
                "male",
            )
            for at, subject in enumerate(subjects)
        ],
        utc_now(),
    )


def panel_of(clinic: Clinic, doctor: str | None, subjects: Collection[int], name: str = "第一组") -> int:
    """Sign a panel of residents with a doctor."""
    account = clinic.login.accounts.named(doctor) if doctor else None
    panel = clinic.panels.make(name, account.id if account else None)
    clinic.panels.sign(panel.id, subjects, utc_now() - timedelta(days=1))
    return panel.id
