"""A client of CDS Hooks: it asks the service under test as a hospital's system would."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import uuid4

import httpx
from joserfc import jwk, jwt

Json = dict[str, object]

PATIENT = "conformance-1"
USER = "Practitioner/conformance-2"
ENCOUNTER = "conformance-3"
# What a client sends with a hook, where nothing else is given.
CONTEXTS: Mapping[str, Json] = {
    hook: {"userId": USER, "patientId": PATIENT, "encounterId": ENCOUNTER}
    for hook in ("patient-view", "encounter-start", "encounter-discharge")
} | {
    "order-select": {
        "userId": USER,
        "patientId": PATIENT,
        "selections": ["ServiceRequest/conformance-4"],
        "draftOrders": {"resourceType": "Bundle", "type": "collection"},
    },
    "order-sign": {
        "userId": USER,
        "patientId": PATIENT,
        "draftOrders": {"resourceType": "Bundle", "type": "collection"},
    },
}
# Which fields of a context a client must send.
REQUIRED = {
    "patient-view": ("userId", "patientId"),
    "encounter-start": ("userId", "patientId", "encounterId"),
    "encounter-discharge": ("userId", "patientId", "encounterId"),
    "order-select": ("userId", "patientId", "selections", "draftOrders"),
    "order-sign": ("userId", "patientId", "draftOrders"),
}


@dataclass(frozen=True)
class Signer:
    """Signs tokens with a private key, a JWK."""

    key: jwk.Key
    issuer: str
    algorithm: str = "ES384"

    def token(self, audience: str, header: Json | None = None, without: tuple[str, ...] = (), **claims: object) -> str:
        """Return a token for an address; `claims` and `header` take the place of what they name."""
        now = int(time.time())
        told = {"iss": self.issuer, "aud": audience, "iat": now, "exp": now + 300, "jti": str(uuid4()), **claims}
        said = {"alg": self.algorithm, "typ": "JWT", "kid": self.key.kid, **(header or {})}
        kept = {name: value for name, value in told.items() if name not in without}
        return jwt.encode(said, kept, self.key, algorithms=[str(said["alg"])])


@dataclass(frozen=True)
class Target:
    """The service under test.

    Attributes
    ----------
    url : with nothing of ``/cds-services``
    audience : what tokens call that address, where it is another from outside
    cases : calls that are to be answered, by the id of a service: any of `context`, `prefetch`, `fhirServer` and
        `fhirAuthorization`
    origin : of a page that may call; empty where none may
    """

    url: str
    audience: str
    signer: Signer | None = None
    cases: Mapping[str, Json] = field(default_factory=dict)
    origin: str = ""
    seconds: float = 10.0
    transport: httpx.BaseTransport | None = None

    @cached_property
    def http(self) -> httpx.Client:
        """What connects."""
        return httpx.Client(timeout=self.seconds, trust_env=False, transport=self.transport)

    @cached_property
    def services(self) -> list[Json]:
        """The services that discovery tells of."""
        answer = self.ask("GET", "")
        assert answer.status_code == 200, f"discovery answered {answer.status_code}: {answer.text[:200]}"
        found = answer.json()
        assert isinstance(found, dict), "discovery is no object"
        assert isinstance(found.get("services"), list), "discovery has no list of services"
        assert all(isinstance(service, dict) for service in found["services"]), "a service is no object"
        return found["services"]

    def path(self, service: Json, end: str = "") -> str:
        """Return where a service is, below ``/cds-services``."""
        return f"/{service.get('id')}{end}"

    def token(self, path: str, **said: object) -> str:
        """Return a token for an address below ``/cds-services``."""
        assert self.signer is not None
        return self.signer.token(f"{self.audience}/cds-services{path}", **said)

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **options: object
    ) -> httpx.Response:
        """Send a request; with a good token where there is a key, or with the one that is given, none where empty."""
        headers = dict(options.pop("headers", {}))
        if token is None and self.signer is not None and method != "OPTIONS":
            token = self.token(path)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            options["json"] = body
        return self.http.request(method, f"{self.url}/cds-services{path}", headers=headers, **options)

    def body(self, service: Json, **other: object) -> Json:
        """Return a call of a service that it can answer; `other` takes the place of what it names."""
        hook, case = str(service.get("hook")), self.cases.get(str(service.get("id")), {})
        body: Json = {"hook": hook, "hookInstance": str(uuid4()), "context": CONTEXTS.get(hook, {})}
        prefetch = service.get("prefetch")
        if isinstance(prefetch, dict):
            body["prefetch"] = {name: _made_up(str(template)) for name, template in prefetch.items()}
        return {**body, **case, **other}

    def call(self, service: Json, **other: object) -> httpx.Response:
        """Call a service."""
        return self.ask("POST", self.path(service), self.body(service, **other))

    @cached_property
    def answers(self) -> list[Json]:
        """What the services answer to calls that they can answer."""
        found = []
        for service in self.services:
            answer = self.call(service)
            assert answer.status_code == 200, f"{service.get('id')} answered {answer.status_code}: {answer.text[:200]}"
            content = answer.json()
            assert isinstance(content, dict), "the answer is no object"
            assert isinstance(content.get("cards"), list), "the answer has no list of cards"
            assert all(isinstance(card, dict) for card in content["cards"]), "a card is no object"
            found.append(content)
        return found

    @cached_property
    def cards(self) -> list[Json]:
        """All cards that came."""
        cards = [card for answer in self.answers for card in answer["cards"]]
        assert cards, "no call brought a card, so nothing of cards is shown; give calls that do with --cds-hooks-cases"
        return cards


class Listener:
    """A server on this machine that nobody listed; keeps what it is asked for."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/fhir"

    def __enter__(self) -> "Listener":
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _made_up(template: str) -> Json:
    """Return what a client would send for a template of a patient of whom little is known."""
    kind = re.split(r"[/?]", template)[0]
    if "?" in template:
        return {"resourceType": "Bundle", "type": "searchset", "total": 0}
    if kind == "Patient":
        return {"resourceType": "Patient", "id": PATIENT, "gender": "female", "birthDate": "1950-03-14"}
    name = {"Encounter": ENCOUNTER}.get(kind, USER.partition("/")[2])
    return {"resourceType": "Practitioner" if kind.startswith("{{") else kind, "id": name}
