"""The CDS Hooks services, on a real server: against the conformance suite, and against those who mean harm."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread

import aiohttp
import httpx
import polars as pl
import pytest
from fastapi import FastAPI
from joserfc import jwk

from features.errors import WeibingError
from features.events import EventStore
from features.sources.fhir import ingest_fhir
from serving.api.assessments import Answered
from serving.api.cds_hooks import Assessor, Client, MemoryReplays, cds_hooks_router, read_clients
from serving.api.cds_hooks.cards import Shown, cards
from serving.api.cds_hooks.outward import OutwardError, _Resolver, may_be_asked, outward
from serving.api.cds_hooks.tokens import Doorkeeper, key_set
from serving.api.cds_hooks.told import told_of
from serving.api.problems import ProblemError, unavailable
from serving.api.wording import Words, shortened
from serving.settings import Settings
from tests.conformance.cds_hooks.checks import CHECKS
from tests.conformance.cds_hooks.client import PATIENT, Json, Signer, Target
from tests.conformance.cds_hooks.rules import OF_A_CARD
from tests.serving.hooks import Book, assess, score_of

ROOT = Path(__file__).parents[2]
ISSUER, ORIGIN = "https://ehr.example.cn", "https://ehr.example.cn"
PRESSURE = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
    "subject": {"reference": f"Patient/{PATIENT}"},
    "effectiveDateTime": "2024-05-01",
    "valueQuantity": {"value": 164, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
}
BORN = {"resourceType": "Patient", "id": PATIENT, "gender": "female", "birthDate": "1950-03-14"}
TOKEN = {
    "access_token": "secret-7",
    "token_type": "Bearer",
    "expires_in": 60,
    "scope": "patient/*.read",
    "subject": "w",
}
NUMBERS = count()


@dataclass
class Hospital:
    """A FHIR server of a hospital, that answers as it is told."""

    url: str
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]]
    asked: list[tuple[str, str | None]]


def says(content: Json) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(content).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def bundle(*resources: Json, following: str = "") -> Json:
    links = {"link": [{"relation": "next", "url": following}]} if following else {}
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": it} for it in resources], **links}


@pytest.fixture(scope="module")
def hospital() -> Iterator[Hospital]:
    asked: list[tuple[str, str | None]] = []
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # What an earlier test gave up may still arrive.
            if self.headers.get("Authorization") in (None, f"Bearer {TOKEN['access_token']}"):
                asked.append((self.path, self.headers.get("Authorization")))
            kind = self.path.removeprefix("/fhir/").split("?")[0].split("/")[0]
            answers.get(kind, says(bundle()))(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Whoever was answered with too much has left.
    server.handle_error = lambda *_: None
    Thread(target=server.serve_forever, daemon=True).start()
    yield Hospital(f"http://127.0.0.1:{server.server_port}/fhir", answers, asked)
    server.shutdown()


@pytest.fixture(autouse=True)
def in_order(hospital: Hospital) -> None:
    TOKEN["access_token"] = f"secret-7-{next(NUMBERS)}"
    hospital.answers.clear()
    hospital.asked.clear()
    hospital.answers |= {"Patient": says(BORN), "Observation": says(bundle(PRESSURE))}


@pytest.fixture(scope="module")
def key() -> jwk.Key:
    return jwk.ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"})


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, hospital: Hospital, key: jwk.Key) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("cds")
    (folder / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    (folder / "clients.toml").write_text(
        f'[[client]]\nissuer = "{ISSUER}"\nkeys_file = "keys.json"\n'
        f'fhir_servers = ["{hospital.url}"]\norigins = ["{ORIGIN}"]\n'
    )
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "WEIBING_PUBLIC_URL": url,
        "WEIBING_CDS_CLIENTS": str(folder / "clients.toml"),
        "WEIBING_CDS_FETCH_SECONDS": "1.0",
        "WEIBING_CDS_FETCH_BYTES": "100000",
        "WEIBING_LANGUAGE": "en",
    }
    server = [sys.executable, "-m", "uvicorn", "tests.serving.hooks:served", "--factory", "--port", str(port)]
    with subprocess.Popen([*server, "--log-level", "warning"], cwd=ROOT, env={**os.environ, **settings}) as process:
        try:
            _wait_for(url)
            yield Target(url, url, Signer(key, ISSUER), origin=ORIGIN)
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    for _ in range(300):
        try:
            httpx.get(f"{url}/cds-services", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.fixture(scope="module")
def view(target: Target) -> Json:
    return target.services[0]


def fetching(target: Target, view: Json, server: str, **other: object) -> httpx.Response:
    """Call a service with nothing sent along."""
    return target.call(view, prefetch={}, fhirServer=server, fhirAuthorization=TOKEN, **other)


@pytest.mark.parametrize("name", CHECKS)
def test_the_services_conform(name: str, target: Target) -> None:
    CHECKS[name](target)


class Sabotage(httpx.BaseTransport):
    """The service with one thing broken, as a client sees it."""

    def __init__(self, breaks: Callable[[httpx.Request, httpx.Response], httpx.Response | None]) -> None:
        self.breaks, self.service = breaks, httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.service.handle_request(request)
        response.read()
        return self.breaks(request, response) or response


def forgiving(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    """Answer every failure with no cards."""
    return httpx.Response(200, json={"cards": []}) if response.status_code >= 400 else None


def failing(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return httpx.Response(500, text="broken")


def failing_on_feedback(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    return httpx.Response(500) if request.url.path.endswith("/feedback") else None


def as_text(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return httpx.Response(response.status_code, text=response.text)


def closed_to_pages(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return httpx.Response(response.status_code, content=response.content)


def open_to_pages(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return httpx.Response(204, headers={"Access-Control-Allow-Origin": "*"})


def strict(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    return httpx.Response(400) if b'"extension"' in request.content else None


def with_cards_in_failures(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    return httpx.Response(400, json={"cards": []}) if response.status_code >= 400 else None


def asking_anybody(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    server = json.loads(request.content or b"{}").get("fhirServer")
    if server:
        httpx.get(f"{server}/Patient/1", trust_env=False)
    return None


def changed(
    change: Callable[[Json], object], part: str
) -> Callable[[httpx.Request, httpx.Response], httpx.Response | None]:
    """Change each service, or each card, that comes."""

    def breaks(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
        if response.status_code != 200 or not response.content or part not in response.json():
            return None
        content = response.json()
        for found in content[part]:
            change(found)
        return httpx.Response(200, json=content)

    return breaks


def no_services(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return httpx.Response(200, json={"services": []})


def null_actions(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
    cards = response.status_code == 200 and response.content and "cards" in response.json()
    return httpx.Response(200, json={**response.json(), "systemActions": None}) if cards else None


def service(**fields: object) -> Callable[[httpx.Request, httpx.Response], httpx.Response | None]:
    return changed(lambda found: found.update(fields), "services")


def card(**fields: object) -> Callable[[httpx.Request, httpx.Response], httpx.Response | None]:
    return changed(lambda found: found.update(fields), "cards")


def suggested(**fields: object) -> Callable[[httpx.Request, httpx.Response], httpx.Response | None]:
    return card(suggestions=[{"label": "x", **fields}], selectionBehavior="any")


def acted(**action: object) -> Callable[[httpx.Request, httpx.Response], httpx.Response | None]:
    return suggested(actions=[action])


# For each check, a service that it must not let pass.
BROKEN = {
    **dict.fromkeys((name for name in CHECKS if "refused" in name), forgiving),
    **dict.fromkeys((name for name in CHECKS if "_is_taken" in name), failing_on_feedback),
    "discovery_answers_with_services": no_services,
    "discovery_is_json": as_text,
    "nothing_in_discovery_is_null_or_empty": service(title=None),
    "service_ids_are_distinct": service(id="one", hook="patient-view"),
    "a_call_is_answered_with_cards": failing,
    "an_answer_is_json": as_text,
    "system_actions_are_actions": null_actions,
    "card_uuids_are_distinct": card(uuid="4e0a3a1e-3283-4575-ab82-028d55fe2719"),
    "what_the_standard_does_not_name_is_let_pass": strict,
    "what_cannot_be_had_is_answered_with_412": forgiving,
    "a_server_that_nobody_listed_is_not_asked": asking_anybody,
    "an_unknown_service_is_not_found": forgiving,
    "a_failure_has_no_cards": with_cards_in_failures,
    "feedback_on_an_unknown_service_is_not_found": forgiving,
    "a_listed_page_may_call": closed_to_pages,
    "a_listed_page_may_read_the_answer": closed_to_pages,
    "a_page_that_nobody_listed_may_not_call": open_to_pages,
    "a_token_is_good_for_one_call": forgiving,
    "service: a_service_has_hook_id_and_description": service(description=""),
    "service: a_service_may_have_a_title": service(title=7),
    "service: a_service_id_can_stand_in_an_address": service(id="a/b"),
    "service: prefetch_templates_are_named_texts": service(prefetch={"a": 1}),
    "service: prefetch_templates_are_relative": service(prefetch={"a": "https://x.example/Patient/1"}),
    "service: prefetch_templates_read_or_search": service(prefetch={"a": "patients"}),
    "service: prefetch_tokens_are_of_the_context": service(prefetch={"a": "Patient/{{context.patient.id}}"}),
    "service: prefetch_modifiers_are_the_simple_ones": service(prefetch={"a": "Observation?code:text=x"}),
    "card: nothing_is_null_or_empty": card(links=[]),
    "card: a_summary_is_one_line_below_140_characters": card(summary="x" * 140),
    "card: an_indicator_is_one_of_three": card(indicator="hard-stop"),
    "card: a_source_has_a_label": card(source={"url": "https://x.example"}),
    "card: a_source_has_absolute_addresses": card(source={"label": "x", "url": "/here"}),
    "card: a_detail_is_a_text": card(detail=["x"]),
    "card: uuids_are_texts_of_enough_length": card(uuid="1"),
    "card: suggestions_have_labels": suggested(label=""),
    "card: suggestions_come_with_a_selection_behavior": card(suggestions=[{"label": "x"}], selectionBehavior="all"),
    "card: at_most_one_recommends_at_most_one": card(
        suggestions=[{"label": "x", "isRecommended": True}] * 2, selectionBehavior="at-most-one"
    ),
    "card: recommendations_are_booleans": suggested(isRecommended="yes"),
    "card: actions_have_a_type": acted(type="do", description="x"),
    "card: actions_have_a_description": acted(type="delete", resourceId="A/1"),
    "card: created_and_updated_resources_are_there": acted(type="create", description="x"),
    "card: deleted_resources_are_named": acted(type="delete", description="x"),
    "card: override_reasons_have_code_and_display": card(overrideReasons=[{"code": "x"}]),
    "card: links_have_label_address_and_type": card(links=[{"label": "x", "url": "here", "type": "absolute"}]),
    "card: only_smart_links_have_an_app_context": card(
        links=[{"label": "x", "url": "https://x.example", "type": "absolute", "appContext": "x"}]
    ),
}


def test_every_check_has_a_service_that_it_must_not_let_pass() -> None:
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_the_check_fails_on_a_broken_service(name: str, target: Target) -> None:
    broken = replace(target, transport=Sabotage(BROKEN[name]))
    with pytest.raises(AssertionError):
        CHECKS[name](broken)


def test_the_suite_runs_as_a_plugin_on_any_address(target: Target, tmp_path: Path, key: jwk.Key) -> None:
    (tmp_path / "key.json").write_text(json.dumps(key.as_dict(private=True)))
    plugin = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conformance.cds_hooks.plugin", "--noconftest"]
    plugin += ["-p", "no:cacheprovider", "--cds-hooks-url", target.url]
    signed = ["--jwt-key", str(tmp_path / "key.json"), "--jwt-issuer", ISSUER, "--cds-hooks-origin", ORIGIN]
    # With no key, every call is refused.
    good, bad = (
        subprocess.Popen([*plugin, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True) for more in (signed, [])
    )
    told = good.communicate()[0]
    assert good.returncode == 0, told
    assert f"{len(CHECKS)} passed" in told
    assert "discovery answered 401" in bad.communicate()[0]
    assert bad.returncode == 1


def test_what_was_not_sent_along_is_fetched_with_the_callers_token(
    target: Target, view: Json, hospital: Hospital
) -> None:
    answer = fetching(target, view, hospital.url)
    assert answer.status_code == 200, answer.text
    assert "164 mm[Hg]" in answer.text
    assert sorted(path.partition("?")[0] for path, _ in hospital.asked) == [
        "/fhir/Condition",
        "/fhir/Encounter",
        "/fhir/MedicationRequest",
        "/fhir/Observation",
        f"/fhir/Patient/{PATIENT}",
    ]
    assert {token for _, token in hospital.asked} == {f"Bearer {TOKEN['access_token']}"}


def test_what_was_sent_along_is_not_fetched(target: Target, view: Json, hospital: Hospital) -> None:
    sent = {"patient": BORN, "observations": bundle(PRESSURE), "conditions": None, "medications": None}
    answer = target.call(view, prefetch=sent, fhirServer=hospital.url, fhirAuthorization=TOKEN)
    assert answer.status_code == 200, answer.text
    assert [path for path, _ in hospital.asked] == [f"/fhir/Encounter?patient={PATIENT}"]


def test_a_bundle_that_goes_on_is_not_made_do_with(target: Target, view: Json) -> None:
    sent = dict.fromkeys(("conditions", "medications", "encounters")) | {"patient": BORN}
    sent["observations"] = bundle(PRESSURE, following="https://ehr.example.cn/fhir?page=2")
    assert target.call(view, prefetch=sent).status_code == 412


def test_pages_of_the_same_server_are_fetched(target: Target, view: Json, hospital: Hospital) -> None:
    later = {
        **PRESSURE,
        "id": "o2",
        "valueQuantity": {"value": 171, "code": "mm[Hg]"},
        "effectiveDateTime": "2024-06-01",
    }
    hospital.answers["Observation"] = says(bundle(PRESSURE, following=f"{hospital.url}/More?page=2"))
    hospital.answers["More"] = says(bundle(later))
    assert "171 mm[Hg]" in fetching(target, view, hospital.url).text


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:1/fhir/x", "{url}.evil.example/x", "{url}/../admin", "/x"])
def test_a_next_page_elsewhere_is_not_followed(elsewhere: str, target: Target, view: Json, hospital: Hospital) -> None:
    hospital.answers["Observation"] = says(bundle(PRESSURE, following=elsewhere.format(url=hospital.url)))
    answer = fetching(target, view, hospital.url)
    assert answer.status_code == 412
    assert "another server" in answer.json()["detail"]


def test_pages_without_end_are_given_up(target: Target, view: Json, hospital: Hospital) -> None:
    hospital.answers["Observation"] = says(bundle(following=f"{hospital.url}/Observation?page=2"))
    assert fetching(target, view, hospital.url).status_code == 412
    assert len(hospital.asked) < 30


@pytest.mark.parametrize(
    "server",
    [
        "http://169.254.169.254/latest",
        "http://localhost:22",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "{url}@evil.example",
        "{url}/../..",
        "{url}?x=",
        "{url}#",
        "{url}//",
        "{upper}",
        "http://0x7f.1/fhir",
        "",
    ],
)
def test_no_request_goes_where_a_caller_points(server: str, target: Target, view: Json, hospital: Hospital) -> None:
    answer = fetching(target, view, server.format(url=hospital.url, upper=hospital.url.upper()))
    assert answer.status_code == 412
    assert "not one that is listed" in answer.json()["detail"]
    assert not hospital.asked


@pytest.mark.parametrize("patient", ["../../admin", "1?x=2", "1/../2", "1&_count=1", "", "é", "a" * 65])
def test_an_id_that_would_change_the_address_is_refused(
    patient: str, target: Target, view: Json, hospital: Hospital
) -> None:
    answer = fetching(target, view, hospital.url, context={"userId": "Practitioner/1", "patientId": patient})
    assert answer.status_code == 422
    assert not hospital.asked


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a b", "", "é"])
def test_a_token_that_would_change_the_headers_is_refused(
    token: str, target: Target, view: Json, hospital: Hospital
) -> None:
    body = target.body(view, prefetch={}, fhirServer=hospital.url, fhirAuthorization={**TOKEN, "access_token": token})
    assert target.ask("POST", target.path(view), body).status_code == 422


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/fhir/Elsewhere")
    handler.end_headers()


def huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(1_000):
            handler.wfile.write(b" " * 10_000)
    except OSError:
        pass


def slow(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(30):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass


def zipped(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()


def deep(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"[" * 90_000)


def secret(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(403, "token secret-7 is not known")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (redirect, "status 302"),
        (huge, "more than may be fetched"),
        (slow, "in time"),
        (zipped, "compressed"),
        (deep, "JSON"),
        (secret, "status 403"),
        (says({"resourceType": "OperationOutcome"}), "something else"),
    ],
)
def test_a_server_that_does_not_answer_as_it_should_is_412(
    answer: Callable[[BaseHTTPRequestHandler], None], why: str, target: Target, view: Json, hospital: Hospital
) -> None:
    hospital.answers["Observation"] = answer
    begun = time.monotonic()
    got = fetching(target, view, hospital.url)
    assert got.status_code == 412
    assert why in got.json()["detail"]
    assert "secret-7" not in got.text
    assert time.monotonic() - begun < 3
    assert not any("Elsewhere" in path for path, _ in hospital.asked)


def test_a_resource_of_another_patient_is_not_scored(target: Target, view: Json, hospital: Hospital) -> None:
    hospital.answers["Observation"] = says(bundle({**PRESSURE, "subject": {"reference": "Patient/another"}}))
    answer = fetching(target, view, hospital.url)
    assert answer.status_code == 412
    assert "another Patient" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("10.1.2.3", True),
        ("8.8.8.8", True),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("fd00::5", True),
    ],
)
def test_a_name_may_not_lead_to_this_machine_or_its_link(address: str, asked: bool) -> None:
    assert may_be_asked(address) is asked


def test_a_listed_name_that_leads_to_this_machine_is_not_asked(hospital: Hospital) -> None:
    async def ask() -> None:
        async with outward(1.0, 1_000) as way:
            await way.get(hospital.url.replace("127.0.0.1", "localhost"))

    with pytest.raises(OutwardError, match="cannot be reached"):
        asyncio.run(ask())
    assert not hospital.asked


def test_one_bad_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object) -> list[dict[str, str]]:
        return [{"host": "10.0.0.1"}, {"host": "169.254.169.254"}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", two)
    monkeypatch.setattr(aiohttp.ThreadedResolver, "__init__", lambda self: None)
    with pytest.raises(OSError, match="must not be asked"):
        asyncio.run(_Resolver().resolve("ehr.example.cn"))


def test_cards_hold_no_more_than_the_hook_is_for(target: Target) -> None:
    view, start = (target.call(service).json()["cards"] for service in target.services)
    assert [each["indicator"] for each in view] == ["critical", "warning"]
    assert [each["indicator"] for each in start] == ["critical", "warning", "warning"]
    assert view[1]["summary"] == "Very high risk of hypertension within 4 years: 31 %"
    assert start[2]["suggestions"][0]["actions"][0]["resource"]["subject"] == {"reference": f"Patient/{PATIENT}"}


def test_cards_are_in_the_language_that_is_asked_for(target: Target, view: Json) -> None:
    path = target.path(view)
    answer = target.ask("POST", path, target.body(view), headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.1"})
    assert answer.json()["cards"][1]["summary"] == "4 年内新发高血压风险极高：31 %"


def test_a_long_summary_keeps_below_140_characters() -> None:
    assert len(shortened("word " * 100, 139)) == 139


def test_a_resident_at_low_risk_with_nothing_due_gets_no_card() -> None:
    answered = replace(assess(told_of("x", PATIENT, [BORN], "UTC"), score_of().index_time), duties=(), scores=())
    assert cards(answered, PATIENT, Shown("high", True), Words("en", "UTC")) == []


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("tier", ["low", "moderate", "high", "very high"])
@pytest.mark.parametrize("bare", [False, True])
def test_cards_of_any_score_keep_the_rules(language: str, tier: str, bare: bool) -> None:
    less = {"drivers": (), "percentile": None, "synthetic": True} if bare else {}
    answered = assess(told_of("x", PATIENT, [BORN], "UTC"), score_of().index_time)
    answered = replace(answered, scores=(score_of(tier=tier, **less),), page="" if bare else answered.page)
    found = cards(answered, PATIENT, Shown("low", True), Words(language, "UTC"))
    assert len(found) == 3
    assert [fault for rule in OF_A_CARD for each in found for fault in rule(each)] == []


def beside(
    tmp_path: Path, key: jwk.Key, said: Json, path: str, assessor: Assessor = assess
) -> tuple[httpx.Response, Book]:
    """Send a call to an application in this process, whose book can be looked at."""
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    (tmp_path / "clients.toml").write_text(f'[[client]]\nissuer = "{ISSUER}"\nkeys_file = "keys.json"\n')
    settings = Settings(public_url="https://w.example.cn", cds_clients=tmp_path / "clients.toml", language="en")
    app, book = FastAPI(), Book()
    app.include_router(cds_hooks_router(read_clients(settings.cds_clients), assessor, book, MemoryReplays(), settings))
    token = Signer(key, ISSUER).token(f"https://w.example.cn{path}")

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, json=said, headers={"Authorization": f"Bearer {token}"})

    return asyncio.run(post()), book


def test_feedback_is_kept(tmp_path: Path, key: jwk.Key) -> None:
    said = {"card": "c1", "outcome": "overridden", "outcomeTimestamp": "2025-01-01T00:00:00Z"}
    said |= {"overrideReason": {"reason": {"code": "declined"}, "userComment": "not now"}}
    answer, book = beside(tmp_path, key, {"feedback": [said]}, "/cds-services/weibing-patient-view/feedback")
    assert answer.status_code == 200
    ((issuer, service, (feedback,)),) = book.kept
    assert (issuer, service, feedback.outcome) == (ISSUER, "weibing-patient-view", "overridden")
    assert feedback.overrideReason.userComment == "not now"


def without_a_model(*_: object) -> Answered:
    raise unavailable("No model is loaded.")


def broken(*_: object) -> Answered:
    raise KeyError("a bug")


@pytest.mark.parametrize(("assessor", "status"), [(without_a_model, 503), (broken, 500)])
def test_a_failure_is_never_an_answer_without_cards(
    assessor: Assessor, status: int, tmp_path: Path, key: jwk.Key, target: Target, view: Json
) -> None:
    answer, _ = beside(tmp_path, key, target.body(view), "/cds-services/weibing-patient-view", assessor)
    assert answer.status_code == status
    assert "cards" not in answer.text


@dataclass
class KeyServer:
    """Keys at an address, and a doorkeeper that asks for them, with a clock that is set by hand."""

    hospital: Hospital
    key: jwk.Key
    now: float

    def __post_init__(self) -> None:
        client = Client(issuer=ISSUER, keys=f"{self.hospital.url}/Keys")
        settings = Settings(public_url="https://w.example.cn", cds_fetch_seconds=1)
        self.doorkeeper = Doorkeeper([client], MemoryReplays(lambda: self.now), settings, lambda: self.now)

    def serve(self, *keys: jwk.Key) -> None:
        self.hospital.answers["Keys"] = says({"keys": [key.as_dict(private=False) for key in keys]})

    def admits(self, key: jwk.Key | None = None) -> int:
        """Return the status of a call that is signed by a key."""
        now = int(self.now)
        token = Signer(key or self.key, ISSUER).token("https://w.example.cn", iat=now, exp=now + 60)
        try:
            asyncio.run(self.doorkeeper.admit(f"Bearer {token}", "https://w.example.cn"))
        except ProblemError as problem:
            return int(problem.status)
        return 200


@pytest.fixture
def key_server(hospital: Hospital, key: jwk.Key) -> KeyServer:
    return KeyServer(hospital, key, 1_750_000_000.0)


def test_keys_are_fetched_once_and_renewed_when_another_is_named(key_server: KeyServer, hospital: Hospital) -> None:
    other = jwk.ECKey.generate_key("P-384", {"kid": "k2", "use": "sig"})
    key_server.serve(key_server.key)
    assert [key_server.admits(), key_server.admits()] == [200, 200]
    assert len(hospital.asked) == 1
    key_server.now += 31
    assert key_server.admits(other) == 401
    # Whoever names keys that are not there does not make us ask each time.
    assert key_server.admits(other) == 401
    assert len(hospital.asked) == 2


def test_keys_that_cannot_be_had_are_no_refusal(key_server: KeyServer, hospital: Hospital) -> None:
    hospital.answers["Keys"] = secret
    assert key_server.admits() == 503
    key_server.serve(key_server.key)
    key_server.now += 31
    assert key_server.admits() == 200
    # Known keys go on while their server is away.
    hospital.answers["Keys"] = redirect
    key_server.now += 3_600
    assert key_server.admits() == 200
    key_server.now += 86_400
    assert key_server.admits() == 503


def test_a_withdrawn_key_opens_no_more(key_server: KeyServer) -> None:
    other = jwk.ECKey.generate_key("P-384", {"kid": "k2", "use": "sig"})
    key_server.serve(key_server.key)
    assert key_server.admits() == 200
    key_server.serve(other)
    key_server.now += 700
    assert key_server.admits() == 401


@pytest.mark.parametrize(
    "listed",
    [
        jwk.OctKey.generate_key(256, {"kid": "k1"}).as_dict(private=True),
        # 1,024 bits.
        {"kty": "RSA", "kid": "k1", "n": "A" * 171, "e": "AQAB"},
        jwk.ECKey.generate_key("P-384", {"kid": "k1"}).as_dict(private=True),
        jwk.ECKey.generate_key("P-384", {"kid": "k1", "use": "enc"}).as_dict(private=False),
    ],
    ids=["shared", "short", "private", "for encryption"],
)
def test_a_key_that_is_not_good_is_not_taken(listed: Json) -> None:
    with pytest.raises(ValueError, match="no public key"):
        key_set({"keys": [listed]})


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"header": {"typ": "at+jwt"}}, "type JWT"),
        ({"header": {"kid": "another"}}, "not among those"),
        ({"header": {"jku": "http://169.254.169.254/keys"}}, "where those of its issuer"),
        ({"iat": 32_503_680_000, "exp": 32_503_680_100}, "time to come"),
        ({"exp": 32_503_680_000}, "at most"),
        ({"nbf": 32_503_680_000}, "time to come"),
        ({"exp": "soon"}, "exp is not a time"),
        ({"iat": True}, "iat is not a time"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 300}, "jti"),
        ({"jti": 7}, "jti"),
    ],
)
def test_a_token_that_is_not_good_says_why(said: Json, fault: str, target: Target, view: Json) -> None:
    answer = target.ask("POST", target.path(view), target.body(view), token=target.token(target.path(view), **said))
    assert answer.status_code == 401
    assert fault in answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"hook": NaN}',
        b'{"hook": 7}',
        b'{"hook": "\\ud800"}',
        b"1e999",
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, target: Target, view: Json) -> None:
    answer = target.ask("POST", target.path(view), content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_another_kind_of_body_is_refused(target: Target, view: Json) -> None:
    headers = {"Content-Type": "text/plain"}
    assert target.ask("POST", target.path(view), content=b"{}", headers=headers).status_code == 415


def test_malformed_resources_are_left_out_and_nothing_breaks(target: Target, view: Json) -> None:
    odd = [{}, {"resourceType": 7}, {**PRESSURE, "valueQuantity": {"value": 1e999}}, {**PRESSURE, "subject": None}]
    odd += [{**PRESSURE, "id": "o3", "effectiveDateTime": "9999-12-31"}, {**PRESSURE, "id": "o4", "code": [[]]}]
    sent = dict.fromkeys(("conditions", "medications", "encounters")) | {"patient": BORN}
    body = target.body(view, prefetch={**sent, "observations": bundle(*odd)})
    answer = target.ask(
        "POST", target.path(view), content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200
    assert "systolic" not in answer.text


def test_settings_say_where_the_service_is() -> None:
    assert Settings(public_url="https://w.example.cn/").public_url == "https://w.example.cn"
    with pytest.raises(WeibingError, match="WEIBING_PUBLIC_URL"):
        Settings.from_environment(public_url="w.example.cn")


def test_settings_that_are_not_made_are_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    Settings(public_url="https://w.example.cn").export()
    assert os.environ["WEIBING_PUBLIC_URL"] == "https://w.example.cn"
    assert "WEIBING_CDS_CLIENTS" not in os.environ


def test_a_token_is_remembered_until_it_expires() -> None:
    now = [100.0]
    replays = MemoryReplays(lambda: now[0])
    assert replays.first_use("a", "1", 200.0)
    assert not replays.first_use("a", "1", 200.0)
    assert replays.first_use("b", "1", 200.0)
    now[0] = 201.0
    assert replays.first_use("a", "1", 300.0)


def test_resources_become_the_events_that_an_export_of_them_becomes(tmp_path: Path) -> None:
    fall = {
        "resourceType": "Condition",
        "id": "c1",
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "W19"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "onsetDateTime": "2023-02-03",
    }
    resources = [BORN, PRESSURE, fall, PRESSURE]
    (tmp_path / "all.ndjson").write_text("".join(json.dumps(it) + "\n" for it in resources))
    ingest_fhir([tmp_path], tmp_path / "store")
    stored = pl.concat([EventStore.open(tmp_path / "store").read(shard) for shard in _shards(tmp_path / "store")])
    told = told_of(ISSUER, PATIENT, resources, "Asia/Shanghai").events
    columns = ["time", "code", "numeric_value", "text_value", "unit"]
    assert told.select(columns).sort(columns).equals(stored.select(columns).sort(columns))


def _shards(store: Path) -> list[str]:
    return list(EventStore.open(store).shards)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('keys = "http://ehr.example.cn/keys"', "https://"),
        ('keys = "https://u:p@ehr.example.cn/keys"', "without user"),
        ('keys_file = "k"\nfhir_servers = ["https://ehr.example.cn/fhir?x=1"]', "without user"),
        ('keys = "https://a.example"\nkeys_file = "k"', "either keys or keys_file"),
        ('keys_file = "k"\nserver = "x"', "server"),
    ],
)
def test_a_list_of_clients_that_is_not_safe_is_refused(line: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "clients.toml").write_text(f'[[client]]\nissuer = "{ISSUER}"\n{line}\n')
    with pytest.raises(WeibingError, match=fault):
        read_clients(tmp_path / "clients.toml")


def test_the_services_need_to_know_their_own_address() -> None:
    with pytest.raises(WeibingError, match="WEIBING_PUBLIC_URL"):
        cds_hooks_router((), assess, Book(), MemoryReplays(), Settings())
