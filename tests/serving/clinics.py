"""A clinic without its doors: real store, database, models and rules, behind the routes of one test."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from features.engine import Engine
from features.events import EventStore
from serving.api.clinic import Clinic
from serving.api.door import Visitor
from serving.api.problems import ProblemError
from serving.duties.duty import DutyRules
from serving.duties.rules import rulebook
from serving.live import Live
from serving.scoring import Scorer
from serving.security.caller import Caller
from serving.security.login import Login
from serving.settings import Settings
from serving.store.database import Database
from tests.serving.furnished import KEY
from tests.tables import events_from

ZONE = "Asia/Shanghai"
BEGIN = datetime(2020, 1, 1)
SYSTEM = Caller(9, "gateway", "system", frozenset(), frozenset({"record-observation", "see-resident"}), "token")

# Resident 1 has neither hypertension nor a reason not to be at risk of it; 2 lives next door.
RECORDS = """
    subject_id | time             | code        | value
    1          | 1960-03-13T16:00 | MEDS_BIRTH  |
    1          |                  | female      | 1
    1          | 2024-04-11       | examination |
    1          | 2024-04-11       | sbp         | 128
    1          | 2024-04-11       | bmi         | 25.1
    2          | 1955-01-31T16:00 | MEDS_BIRTH  |
    2          |                  | female      | 0
    2          | 2024-05-02       | sbp         | 131
"""


@dataclass
class Models:
    """What the champions of a registry look like from outside."""

    engine: Engine
    scorer: Scorer | None
    missing: tuple[str, ...] = ()


@dataclass
class Line:
    """A line to the routes of a clinic, on which somebody calls."""

    clinic: Clinic
    caller: Caller
    routers: tuple[APIRouter, ...]
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, method: str = "GET", **options: object) -> httpx.Response:
        """Send a request."""
        app = FastAPI()
        app.add_exception_handler(ProblemError, _problem)
        for router in self.routers:
            app.include_router(router)

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            scope["weibing.visitor"] = Visitor(self.clinic, self.caller, "10.0.0.1")
            await app(scope, receive, send)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(known)
            async with httpx.AsyncClient(transport=transport, base_url="http://weibing") as client:
                return await client.request(method, path, headers=self.headers, **options)

        return asyncio.run(send())


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ProblemError)
    return problem.response()


def county(folder: Path, records: str = RECORDS) -> EventStore:
    """Lay out a store of two residents."""
    store = EventStore.create(folder, timezone=ZONE)
    store.append([events_from(records)])
    return EventStore.open(folder)


def clinic_of(database: Database, store: EventStore | None, models: Models, **settings: object) -> Clinic:
    """Put a clinic together."""
    chosen = Settings(
        public_url="https://weibing.example.cn", language="en", store=store and store.path, timezone=ZONE, **settings
    )
    rules = DutyRules(rulebook("2017"), timezone=ZONE)
    live = Live(chosen.store, database, models, rules)
    return Clinic(chosen, database, KEY, Login.of(database, KEY), None, models, rules, live)


def doctor_of(panels: Iterable[int]) -> Caller:
    """Return a doctor who has logged in."""
    return Caller(7, "wang", "doctor", frozenset(panels), frozenset(), "session")
