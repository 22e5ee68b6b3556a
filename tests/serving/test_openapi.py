"""What the service answers is what its description says, whatever is sent to it, and by whom."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.residents import ResidentKnown
from serving.api.scores import ResidentSaid
from serving.security.sessions import COOKIE
from tests.serving.clinics import Models
from tests.serving.staffed import Staffed, staffed

# The same in every run: all that the description lets one derive, and some more that is drawn.
CONFIG = {
    "seed": 7,
    "generation": {"deterministic": True, "max-examples": 3, "no-shrink": True, "with-security-parameters": False},
    "phases": {"stateful": {"enabled": False}},
    # What a description cannot say, such as that a panel is one's own, is refused all the same; tokens are ours to add.
    "checks": {
        "positive_data_acceptance": {"enabled": False},
        "ignored_auth": {"enabled": False},
        "object_level_authorization": {"enabled": False},
    },
    # By another method, the same address is that of one resident, or of one score.
    "operations": [
        {"include-path": path, "checks": {"unsupported_method": {"enabled": False}}}
        for path in ("/v1/residents/find", "/fhir/R4/RiskAssessment/_search")
    ],
}
# Who may do little is asked less.
SHORT = {**CONFIG, "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": False}}}
# BentoML answers these; tests/serving/test_service.py asks the real service.
ELSEWHERE = "^/(livez|readyz)$"
NOT_CDS_HOOKS = "^/(?!cds-services)"
# What shows that a caller was known, and that what was sent could be taken.
ANSWERED = {
    "doctor": ("GET /v1/lists", "GET /v1/residents/{resident}/risk", "POST /v1/observations"),
    "system": ("POST /v1/score", "GET /fhir/R4/RiskAssessment/$export", "POST /v1/observations"),
    "signed": ("GET /cds-services", "POST /cds-services/{id}", "POST /cds-services/{id}/feedback"),
    "manager": ("GET /v1/counts", "GET /v1/session"),
    "administrator": ("GET /metrics", "GET /v1/session"),
    "nobody": ("GET /fhir/R4/metadata",),
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[Staffed]:
    folder = tmp_path_factory.mktemp("described")
    with staffed(folder, models, str(folder / "county.db")) as found:
        yield found


@dataclass
class Line:
    """The service, on a line where one caller calls; notes which route gave which status."""

    clinic: Staffed
    who: str
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        service: ASGIApp = self.clinic.front.client.app
        sent = [pair for pair in scope["headers"] if pair[0] not in self.known(scope)]
        scope = {**scope, "headers": [*sent, *self.known(scope).items()]}

        async def noted(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", scope["path"])
                self.answered[f"{scope['method']} {route}", message["status"]] += 1
            await send(message)

        await service(scope, receive, noted)

    def known(self, scope: Scope) -> dict[bytes, bytes]:
        """Return what says who calls."""
        path, visit = scope["path"], self.clinic.callers[self.who]
        if self.who == "signed" and path.startswith("/cds-services"):
            return {b"authorization": f"Bearer {self.clinic.token(path)}".encode()}
        if "authorization" in visit.client.headers:
            return {b"authorization": visit.client.headers["authorization"].encode()}
        if not visit.csrf:
            return {}
        # Nobody logs out who has still to call.
        ours = "" if (scope["method"], path) == ("DELETE", "/v1/session") else visit.csrf
        return {b"cookie": f"{COOKIE}={visit.client.cookies[COOKIE]}".encode(), b"x-csrf-token": ours.encode()}


def wrong(line: Line) -> list[str]:
    """Send all there is to send; return what was not as described."""
    config = SchemathesisConfig.from_dict(CONFIG if line.who in ("doctor", "system", "signed") else SHORT)
    schema = schemathesis.openapi.from_asgi("/openapi.json", line, config=config)
    schema = schema.exclude(path_regex=NOT_CDS_HOOKS if line.who == "signed" else ELSEWHERE)
    return [told for event in engine.from_schema(schema).execute() for told in _told(event)]


def _told(event: events.EngineEvent) -> Iterator[str]:
    if isinstance(event, events.NonFatalError | events.FatalError):
        yield repr(event)
    if isinstance(event, events.ScenarioFinished):
        for check in chain.from_iterable(event.recorder.checks.values()):
            if check.failure_info:
                yield f"{event.recorder.label}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}"


@pytest.mark.parametrize("who", ANSWERED)
def test_whatever_is_sent_the_answer_is_as_described(clinic: Staffed, who: str) -> None:
    line = Line(clinic, who)
    found = wrong(line)
    assert not found, "\n\n".join(found)
    assert {(route, 200) for route in ANSWERED[who]} <= set(line.answered)
    assert not {status for _, status in line.answered if status >= 500}


def test_no_two_shapes_share_a_name(clinic: Staffed) -> None:
    told = clinic.ask("nobody", "GET", "/openapi.json").json()["components"]["schemas"]
    assert set(told["ResidentSaid"]["properties"]) == set(ResidentSaid.model_fields)
    assert set(told["ResidentKnown"]["properties"]) == set(ResidentKnown.model_fields)
