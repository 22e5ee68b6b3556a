"""A clinic with everything in it, and a caller of every kind: what a test needs that sends anything to anywhere."""

import json
from base64 import b32decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from joserfc import jwk
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.application import application
from serving.api.clinic import Clinic
from serving.api.door import Door, utc_now
from serving.api.gate import Gate
from serving.api.scores import Desk
from serving.live import Live
from serving.security import totp
from serving.store.alerts import Alerts
from serving.store.visits import Visit as Recorded
from serving.store.visits import Visits
from tests.conformance.cds_hooks.client import Signer
from tests.serving.clinics import ZONE, Models, county
from tests.serving.fronts import HOST, Front, Visit, clinic_behind, panel_of, people_of
from tests.serving.furnished import alert, night, score

ISSUER = "https://ehr.example.cn"
# No limit is in the way; a body that is too large need not be a large one.
LIMITS: Mapping[str, object] = {
    "rate_per_second": 0,
    "most_bytes": 2 * 2**20,
    "most_residents": 50,
    "most_events": 2_000,
    "receive_seconds": 5,
}
# The first is whom the description's examples are about.
OURS, THEIRS = 7, 8
RECORDS = """
    subject_id | time             | code        | value
    7          | 1960-03-13T16:00 | MEDS_BIRTH  |
    7          |                  | female      | 1
    7          | 2024-04-11       | sbp         | 128
    8          | 1955-01-31T16:00 | MEDS_BIRTH  |
    8          | 2024-05-02       | sbp         | 131
"""


@dataclass
class Staffed:
    """The service, its callers by what they are, and the system that calls CDS Hooks."""

    front: Front
    callers: dict[str, Visit]
    signer: Signer

    def ask(self, who: str, method: str, path: str, body: bytes | None = None, **headers: str) -> httpx.Response:
        """Send what is given as it is, known as somebody."""
        visit = self.callers[who]
        told = {"x-csrf-token": visit.csrf} | ({} if body is None else {"content-type": "application/json"})
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        if path.startswith("/cds-services") and who == "signed":
            told["authorization"] = f"Bearer {self.token(path)}"
        return visit.client.request(method, path, content=body, headers=told)

    def token(self, path: str) -> str:
        """Return a token for one call of an address."""
        return self.signer.token(f"{HOST}{path}")


@contextmanager
def staffed(folder: Path, models: Models, db: str) -> Iterator[Staffed]:
    """Furnish a clinic: two panels with a resident each, scores, visits, an alert, a store, and models."""
    key = jwk.ECKey.generate_key("P-256", {"kid": "k1", "use": "sig"})
    (folder / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    clients = folder / "clients.toml"
    clients.write_text(f'[[client]]\nissuer = "{ISSUER}"\nkeys_file = "keys.json"\norigins = ["{ISSUER}"]\n')
    store = county(folder / "store", RECORDS)
    with pytest.MonkeyPatch.context() as patch:
        settings = {**LIMITS, "db": db, "store": store.path, "timezone": ZONE, "public_url": HOST}
        # The gate reads its own.
        for name, value in (settings | {"cds_clients": clients}).items():
            patch.setenv(f"WEIBING_{name.upper()}", str(value))
        clinic = clinic_behind(patch)
        live = Live(store.path, clinic.database, models, clinic.rules)
        clinic = replace(clinic, champions=models, live=live)
        front = Scored(clinic)
        _furnish(clinic)
        yield Staffed(front, _callers(front), Signer(key, ISSUER, "ES256"))


class Scored(Front):
    """The service with what BentoML answers of it beside what is mounted."""

    def __post_init__(self) -> None:
        app, desk = application(self.clinic), Desk(self.clinic.champions, self.clinic.settings)

        async def score(request: Request) -> Response:
            return await desk.answer(await request.body(), request.headers.get("content-type", "application/json"))

        app.router.routes.insert(0, Route("/v1/score", score, methods=["POST"]))
        gate = Gate(Door(app, self.clinic))
        self.client = TestClient(gate, base_url=HOST, raise_server_exceptions=False, follow_redirects=False)


def _furnish(clinic: Clinic) -> None:
    database = clinic.database
    people_of(clinic, (OURS, THEIRS))
    night(database)
    for subject in (OURS, THEIRS):
        score(database, clinic.people.resident(subject).id)
    Alerts(database).raise_all([alert(subject, f"seen-{subject}") for subject in (OURS, THEIRS)])
    recorded = Recorded(OURS, 1, utc_now() - timedelta(days=9), "home", (), "头晕")
    Visits(database, clinic.key).record(recorded, utc_now())


def _callers(front: Front) -> dict[str, Visit]:
    people = {role: front.person(f"a.{role}", role) for role in ("doctor", "manager", "scientist", "administrator")}
    panel_of(front.clinic, "a.doctor", [OURS])
    panel_of(front.clinic, None, [THEIRS], "第二组")
    _with_code(people["administrator"])
    for who, visit in people.items():
        assert visit.client.get("/v1/panels").status_code == 200, who
    return people | {"system": front.system(), "nobody": front.anybody(), "signed": front.anybody()}


def _with_code(visit: Visit) -> None:
    address = visit.send("POST", "/v1/session/code/secret").json()["address"]
    shown = httpx.URL(address).params["secret"]
    key = b32decode(shown + "=" * (-len(shown) % 8))
    visit.send("POST", "/v1/session/code/first", {"code": totp.code(key, totp.step_of(utc_now()))})
