"""What is sent to break the service: refused as problem details; nothing leaks, in or out."""

import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.calls import Call
from serving.api.cds_hooks.calls import FeedbackCall, HookCall
from serving.api.login import Code, Credentials, NewPassword
from serving.api.observations.router import EXAMPLE
from serving.api.residents import Asked
from serving.api.visits import NewVisit
from tests.serving.accounts import copied
from tests.serving.clinics import Models
from tests.serving.staffed import LIMITS, OURS, Staffed, staffed

VIEW = "/cds-services/weibing-patient-view"
# A caller who may, each route that takes a body, and what it takes.
ROUTES = {
    "/v1/session": ("nobody", Credentials),
    "/v1/session/code": ("doctor", Code),
    "/v1/session/code/first": ("doctor", Code),
    "/v1/session/password": ("doctor", NewPassword),
    "/v1/score": ("system", Call),
    "/v1/observations": ("system", None),
    "/v1/residents/find": ("doctor", Asked),
    f"/v1/residents/{OURS}/visits": ("doctor", NewVisit),
    VIEW: ("signed", HookCall),
    f"{VIEW}/feedback": ("signed", FeedbackCall),
}
# What a person is known by, and must be nowhere but in what was asked for.
MARK = "110101199001011237"
DEEP = 100_000
# What no answer and no line of a log may hold: the inside of the program, and what was sent.
INSIDE = ("Traceback", "site-packages", ".py", "SELECT", "INSERT", "sqlite", "psycopg", "sqlalchemy", "pydantic", MARK)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def clinic(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models: Models
) -> Iterator[Staffed]:
    folder = tmp_path_factory.mktemp("hostile")
    copy = copied(request.getfixturevalue(request.param), folder / "county.db")
    with copy as database, staffed(folder, models, database.address) as found:
        yield found


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that is sent breaks anything, or gets into the log."""
    with caplog.at_level(logging.INFO):
        yield
    assert MARK not in caplog.text
    assert not [record for record in caplog.records if record.exc_info or "broke" in record.getMessage()]


def refused(answer: httpx.Response, *statuses: int) -> None:
    """Require a refusal in problem details that tells nothing."""
    assert answer.status_code in (statuses or range(400, 500)), answer.text[:300]
    told = answer.json()
    if answer.headers["content-type"] == "application/fhir+json":
        assert told["resourceType"] == "OperationOutcome"
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert told["status"] == answer.status_code
        assert told["detail"]
    assert not [word for word in INSIDE if word in answer.text], answer.text[:300]


def _spoilt(word: str) -> bytes:
    """An object of all names that any route knows, with something in the place of a value."""
    return f'{{"name":"{MARK}","number":{word},"residents":{word},"kind":{word}}}'.encode()


BODIES = {
    "nothing": b"",
    "deep lists": b"[" * DEEP,
    "deep lists that end": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "deep objects that end": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a name twice": f'{{"name":"{MARK}","name":"b","password":"c","code":"1","number":"1","number":"2"}}'.encode(),
    "not a number": _spoilt("NaN"),
    "infinity": _spoilt("-Infinity"),
    "more than a double": _spoilt("1e999"),
    "5,000 digits": _spoilt("7" * 5_000),
    "a lone surrogate": _spoilt(r'"\ud800"'),
    "half a surrogate in UTF-8": _spoilt('"x"').replace(b"x", b"\xed\xa0\x80"),
    "a zero": _spoilt(r'"a\u0000b"'),
    "UTF-16": f'{{"name":"{MARK}"}}'.encode("utf-16"),
    "UTF-32": f'{{"name":"{MARK}"}}'.encode("utf-32"),
    "GB18030": '{"name":"王小明","kind":"家访"}'.encode("gb18030"),
    "zeros": b"\0" * 100,
    "a list": b"[]",
    "null": b"null",
    "a string": f'"{MARK}"'.encode(),
    "two values": b"{}{}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_none_is_refused_everywhere(clinic: Staffed, body: bytes) -> None:
    for path, (who, _) in ROUTES.items():
        refused(clinic.ask(who, "POST", path, body), 422)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "application/json; charset=utf-16", "multipart/form-data", "a" * 500]
)
def test_only_json_is_read(clinic: Staffed, kind: str) -> None:
    for path, (who, _) in ROUTES.items():
        refused(clinic.ask(who, "POST", path, b"{}", content_type=kind), 415, 422)


def test_a_million_events_are_refused_before_they_are_read(clinic: Staffed) -> None:
    many = b'{"residents":[{"id":1,"events":[' + b'{"code":"sbp"},' * 1_000_000
    assert len(many) > LIMITS["most_bytes"]
    for path, (who, _) in ROUTES.items():
        refused(clinic.ask(who, "POST", path, many), 413)


def score(clinic: Staffed, **event: object) -> httpx.Response:
    call = {"residents": [{"id": MARK, "index_time": "2025-01-01", "events": [{"code": "sbp"} | event]}]}
    return clinic.ask("system", "POST", "/v1/score", json.dumps(call).encode())


def observe(clinic: Staffed, **told: object) -> httpx.Response:
    return clinic.ask("system", "POST", "/v1/observations", json.dumps(EXAMPLE | told).encode())


def visit(clinic: Staffed, **told: object) -> httpx.Response:
    return clinic.ask("doctor", "POST", f"/v1/residents/{OURS}/visits", json.dumps({"kind": "home"} | told).encode())


NO_TIMES = [
    *("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "0000-01-01", "2024-02-30", "99999-01-01"),
    *("2016-12-31T23:59:60Z", "2024-01-01T24:00:01", "2024-01-01T00:00:00+25:00", "2024-01-01T00:00:00+99:99"),
    *("", "now", "-1", "1e9", "٢٠٢٤-٠١-٠١", "2024-01-01T00:00:00.000000000000001Z" * 3),
]


@pytest.mark.parametrize("time", NO_TIMES)
def test_a_time_that_cannot_be_is_refused(clinic: Staffed, time: str) -> None:
    refused(score(clinic, time=time), 422)
    refused(visit(clinic, time=time), 422)
    refused(observe(clinic, effectiveDateTime=time), 422)


@pytest.mark.parametrize("time", ["2149-12-31", "9998-01-01"])
def test_what_lies_ahead_is_refused_where_it_would_be_kept(clinic: Staffed, time: str) -> None:
    refused(visit(clinic, time=time), 422)
    refused(observe(clinic, effectiveDateTime=time), 422)


@pytest.mark.parametrize("zone", ["+14:00", "-12:00"])
def test_zones_at_the_edge_are_zones(clinic: Staffed, zone: str) -> None:
    assert score(clinic, time=f"2024-01-01T00:00:00{zone}", value=130).status_code == 200
    assert visit(clinic, time=f"2024-01-01T00:00:00{zone}").status_code == 201


ZERO = "a\0b"


def test_a_zero_in_a_text_is_refused_on_either_database(clinic: Staffed) -> None:
    refused(visit(clinic, note=ZERO), 422)
    refused(visit(clinic, facts=[{"code": "sbp", "value": 130, "text": ZERO}]), 422)
    refused(visit(clinic, facts=[{"code": "home_visit", "unit": ZERO}]), 422)
    refused(visit(clinic, closes=[ZERO]), 422)
    refused(observe(clinic, identifier=[{"value": ZERO}]), 422)
    refused(observe(clinic, code={"coding": [{"system": "http://loinc.org", "code": ZERO}]}), 422)
    refused(observe(clinic, valueString=ZERO), 422)
    said = clinic.ask("nobody", "POST", "/v1/session", json.dumps({"name": ZERO, "password": "p"}).encode())
    refused(said, 422)
    refused(clinic.ask("doctor", "POST", "/v1/residents/find", json.dumps({"number": ZERO}).encode()), 403, 404, 422)


NUMBERS = ("9223372036854775808", "-9223372036854775809", "1" * 400, "1e3", "0x7", "7.5", "٧", "null", "%00", "7%00")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_is_nobodys_is_refused(clinic: Staffed, number: str) -> None:
    for path in ("", "/risk", "/risk?at=now", "/visits"):
        head, _, query = path.partition("?")
        refused(clinic.ask("system", "GET", f"/v1/residents/{number}{head}?{query}"), 404, 422)
    refused(clinic.ask("doctor", "PUT", f"/v1/residents/{number}/opt-out"), 403, 404, 422)
    refused(clinic.ask("doctor", "POST", f"/v1/alerts/{number}/acknowledge"), 403, 404, 422)
    refused(clinic.ask("system", "GET", f"/fhir/R4/RiskAssessment/{number}"), 404)
    refused(clinic.ask("system", "GET", f"/v1/lists?target=fall&panel={number}"), 422)


@pytest.mark.parametrize("who", ["system", "doctor"])
@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**63 - 1])
def test_a_number_that_nobody_has_is_refused(clinic: Staffed, number: int, who: str) -> None:
    for path in ("", "/risk", "/risk?at=now", "/visits"):
        refused(clinic.ask(who, "GET", f"/v1/residents/{number}{path}"), 403 if who == "doctor" else 404)


PATHS = ("/v1/residents/..%2f..%2fetc", "/v1/residents/7%2Fvisits%00", "/v1/%00", "/..%2f..%2f", "/fhir/R4/..%2fx%00")


@pytest.mark.parametrize("path", [*PATHS, "/v1/\ud7ff", "/v1/residents/%ff%fe", "//evil.example/v1", "/v1/panels/"])
def test_an_address_that_leads_elsewhere_leads_nowhere(clinic: Staffed, path: str) -> None:
    answer = clinic.ask("system", "GET", path)
    assert "location" not in answer.headers or answer.headers["location"].startswith("https://weibing.example.cn/v1")
    if answer.status_code != 307:
        refused(answer, 404, 422)


def test_an_address_or_headers_that_are_too_long_are_refused(clinic: Staffed) -> None:
    for who in ("nobody", "system"):
        refused(clinic.ask(who, "GET", "/v1/residents/" + "7" * 10_000), 414)
        refused(clinic.ask(who, "GET", f"/v1/lists?target={'x' * 60_000}"), 414)
        refused(clinic.ask(who, "GET", "/v1/panels", **{f"x-{n}": "y" * 40 for n in range(1_000)}), 431)


@pytest.mark.parametrize("told", ["a\tb", "x" * 65, "a b", "a;b", "<script>", MARK + "!", "é", ""])
def test_a_name_of_a_request_that_could_mean_more_is_not_taken(clinic: Staffed, told: str) -> None:
    answer = clinic.callers["nobody"].client.get("/readyz", headers={"x-request-id": told.encode()})
    assert answer.headers["x-request-id"] not in (told, "")


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "PROPFIND", "X" * 300])
def test_a_method_that_nobody_knows_is_refused(clinic: Staffed, method: str) -> None:
    for path in ("/v1/panels", "/v1/observations", "/fhir/R4/RiskAssessment", "/v1/session"):
        answer = clinic.ask("system", method, path)
        refused(answer, 405)
        assert answer.headers["allow"]


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "٣", "0x10", "5, 5"])
def test_a_length_that_is_none_is_refused(clinic: Staffed, length: str) -> None:
    sent = {"content-length": length.encode(), "content-type": "application/json"}
    refused(clinic.callers["nobody"].client.post("/v1/session", content=b"{}", headers=sent), 400)


QUERIES = ("date=9999-12-31", "date=0001-01-01", "date=9999", "date=lt0001", "_count=" + "9" * 10, "subject=%00")
QUERIES += (
    "method=%00",
    "_after=%00",
    "_after=" + "9" * 400,
    "date=2016-12-31T23:59:60Z",
    "subject=Patient/" + "9" * 60,
)


@pytest.mark.parametrize("query", QUERIES)
def test_a_search_of_what_cannot_be_is_refused_or_finds_nothing(clinic: Staffed, query: str) -> None:
    answer = clinic.ask("system", "GET", f"/fhir/R4/RiskAssessment?{query}")
    if answer.status_code == 200:
        assert not answer.json().get("entry")
    else:
        refused(answer, 400)


@pytest.mark.parametrize("query", ["due_by=9999-12-31", "due_by=0001-01-01", "target=%00", "after=%00", "after=9e9,7"])
def test_a_list_of_what_cannot_be_is_refused_or_empty(clinic: Staffed, query: str) -> None:
    answer = clinic.ask("doctor", "GET", f"/v1/lists?{query}" + ("" if "target" in query else "&target=fall"))
    if answer.status_code != 200:
        refused(answer, 422)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def like(draw: st.DrawFn, schema: dict[str, object], defined: dict[str, object]) -> object:
    """Draw JSON of a shape, in which anything may be somewhere."""
    if draw(st.integers(0, 7)) == 0:
        return draw(ANY)
    if "$ref" in schema:
        return draw(like(defined[str(schema["$ref"]).rpartition("/")[2]], defined))
    if "anyOf" in schema:
        return draw(like(draw(st.sampled_from(schema["anyOf"])), defined))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if schema.get("type") == "object" and "properties" in schema:
        needed = schema.get("required", [])
        names = [name for name in schema["properties"] if name in needed or draw(st.booleans())]
        return {name: draw(like(schema["properties"][name], defined)) for name in names}
    if schema.get("type") == "array":
        return [draw(like(schema["items"], defined)) for _ in range(draw(st.integers(0, 2)))]
    drawn = {"string": TEXTS, "integer": st.integers(), "number": st.floats(), "null": st.none()}
    return draw(drawn.get(str(schema.get("type")), ANY))


TEXTS = st.sampled_from(["sbp", "2024-01-01", "home", "7", "Bearer", "\0", "p-17", "hypertension"]) | st.text(
    max_size=9
)


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from([path for path, (_, model) in ROUTES.items() if model]), drawn=st.data())
def test_no_body_breaks_a_route(clinic: Staffed, path: str, drawn: st.DataObject) -> None:
    who, model = ROUTES[path]
    schema = model.model_json_schema()
    body = drawn.draw(like(schema, schema.get("$defs", {})))
    answer = clinic.ask(who, "POST", path, json.dumps(body).encode())
    if answer.status_code >= 400:
        refused(answer, 401, 403, 404, 412, 415, 422, 429)
