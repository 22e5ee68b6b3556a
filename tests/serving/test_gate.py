"""The gate: who gets in, how often, with what; which headers go back, and what is written down of it."""

import asyncio
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message

from serving.api.gate import Gate
from serving.api.metrics import count, exposition
from serving.api.problems import ProblemError
from serving.api.throttle import MOST_CALLERS, Throttle, place_of
from serving.logs import JsonLine, configuration
from serving.store.database import AwayError, Database
from tests.serving.hooks import score_of

NAME, NUMBER = "张伟", "110101195001011237"
ORIGIN = "https://ehr.example.cn"

router = APIRouter()


class Whole(BaseModel):
    number: int


@router.get("/v1/residents/{number}")
async def resident(number: str) -> dict[str, str]:
    return {"number": number}


@router.get("/breaks")
async def breaks(name: str) -> Response:
    try:
        Whole.model_validate({"number": name})
    except ValueError as error:
        raise RuntimeError(f"cannot read {name}") from error
    return Response()


@router.get("/away")
async def away() -> Response:
    raise AwayError("The database weibing.db cannot be used: disk full.")


@router.get("/counting")
async def counting(pauses: int, seconds: float) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(pauses):
            yield f"{number}\n".encode()
            await asyncio.sleep(seconds)

    return StreamingResponse(parts())


@router.get("/slow")
async def slow() -> Response:
    await asyncio.sleep(0.3)
    return Response()


@router.get("/fhir/R4/RiskAssessment/{name}")
async def outcome(name: str) -> Response:
    return JSONResponse({"resourceType": "OperationOutcome"}, 404, media_type="application/fhir+json")


@router.get("/page")
async def page() -> Response:
    return Response("<p>", media_type="text/html", headers={"Content-Security-Policy": "default-src 'self'"})


@router.get("/leaves")
async def leaves() -> Response:
    raise ClientDisconnect


@router.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body())


@router.get("/livez")
@router.get("/metrics")
@router.get("/cds-services")
async def fine() -> Response:
    return PlainTextResponse("fine")


def app() -> FastAPI:
    made = FastAPI()
    made.include_router(router)
    return made


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return gate_with(monkeypatch)


def gate_with(monkeypatch: pytest.MonkeyPatch, app: ASGIApp | None = None, **settings: object) -> Gate:
    for name, value in settings.items():
        monkeypatch.setenv(f"WEIBING_{name.upper()}", str(value))
    return Gate(app or globals()["app"]())


def ask(
    gate: ASGIApp,
    *paths: str,
    method: str = "GET",
    at_once: bool = False,
    client: str = "10.0.0.1",
    **told: object,
) -> list[httpx.Response]:
    """Ask for addresses, one after the other or at once."""

    async def together() -> list[httpx.Response]:
        transport = httpx.ASGITransport(gate, client=(client, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as line:
            if at_once:
                return await asyncio.gather(*(line.request(method, path, **told) for path in paths))
            return [await line.request(method, path, **told) for path in paths]

    return asyncio.run(together())


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service logs while a test runs."""
    said, logger = io.StringIO(), logging.getLogger("serving")
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonLine())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def told(lines: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


# Names of requests


def test_a_request_keeps_the_name_that_it_comes_with_and_else_gets_one(gate: Gate, lines: io.StringIO) -> None:
    [given] = ask(gate, "/livez", headers={"X-Request-Id": "from-nginx_1.2"})
    made, another = ask(gate, "/livez", "/nowhere")
    assert given.headers["x-request-id"] == "from-nginx_1.2"
    assert re.fullmatch("[0-9a-f]{16}", made.headers["x-request-id"])
    names = [made.headers["x-request-id"], another.headers["x-request-id"]]
    assert [each["request_id"] for each in told(lines)] == ["from-nginx_1.2", *names]
    assert len(set(names)) == 2


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", 'a"b', "张伟"])
def test_a_name_that_is_no_plain_token_is_not_taken(gate: Gate, name: str) -> None:
    [answer] = ask(gate, "/livez", headers=[(b"X-Request-Id", name.encode())])
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


# Headers


def test_every_answer_is_safe_in_a_browser_also_a_failure(gate: Gate) -> None:
    for answer in ask(gate, "/v1/residents/7", "/nowhere", "/breaks?name=x"):
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "geolocation=()" in answer.headers["permissions-policy"]
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_says_itself_what_it_may_load(gate: Gate) -> None:
    assert ask(gate, "/page")[0].headers.get_list("content-security-policy") == ["default-src 'self'"]


def test_browsers_come_back_by_https_alone_where_the_service_is_reached_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, public_url="https://weibing.example.cn")
    assert ask(gate, "/livez")[0].headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://evil.example", None)])
def test_pages_of_listed_systems_can_read_the_gates_own_refusals(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str, allowed: str | None
) -> None:
    clients = f'[[client]]\nissuer = "{ORIGIN}"\nkeys = "{ORIGIN}/jwks.json"\norigins = ["{ORIGIN}"]\n'
    (tmp_path / "clients.toml").write_text(clients, encoding="utf-8")
    gate = gate_with(monkeypatch, cds_clients=tmp_path / "clients.toml", rate_per_second=0.1, rate_burst=1)
    answers = ask(gate, "/cds-services", "/cds-services", headers={"Origin": origin})
    assert [answer.status_code for answer in answers] == [200, 429]
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers["vary"] == "Origin"


# How often


def test_a_caller_who_asks_too_often_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, rate_per_second=0.25, rate_burst=2)
    *before, refused = ask(gate, *["/v1/residents/7"] * 3)
    assert [answer.status_code for answer in before] == [200, 200]
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert refused.headers["retry-after"] == "4"
    assert [answer.status_code for answer in ask(gate, "/v1/residents/7", client="10.0.0.2")] == [200]


def test_what_the_operator_asks_for_is_answered_when_all_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, rate_per_second=0.25, rate_burst=2)
    answers = ask(gate, *["/v1/residents/7"] * 3, *["/livez"] * 5, "/metrics", "/metrics", "/metrics")
    assert [answer.status_code for answer in answers[2:]] == [429, *[200] * 5, 200, 200, 429]


def test_a_token_counts_from_wherever_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, rate_per_second=0.25, rate_burst=2)
    statuses = [
        ask(gate, "/v1/residents/7", client=f"10.0.0.{number}", headers={"Authorization": "Bearer one"})[0].status_code
        for number in range(3)
    ]
    assert statuses == [200, 200, 429]


def test_a_bucket_fills_again_and_a_refused_request_costs_nothing() -> None:
    now = [100.0]
    throttle = Throttle(2, 4, clock=lambda: now[0])
    assert [throttle.wait(["a"]) for _ in range(4)] == [0, 0, 0, 0]
    assert throttle.wait(["a"]) == throttle.wait(["a", "b"]) == 0.5
    now[0] += 0.5
    assert [throttle.wait(["b", "a"]), throttle.wait(["a"])] == [0, 0.5]
    now[0] += 3600
    assert [throttle.wait(["a"]) > 0 for _ in range(5)] == [False] * 4 + [True]


def test_no_limit_is_no_limit() -> None:
    throttle = Throttle(0, 1)
    assert not any(throttle.wait(["a"]) for _ in range(1_000))


def test_however_many_callers_come_few_are_remembered() -> None:
    throttle = Throttle(1, 5)
    for number in range(MOST_CALLERS + 100):
        throttle.wait([number])
    assert len(throttle._full_at) == MOST_CALLERS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix", "unix", True),
    ],
)
def test_an_ipv6_network_is_one_place(one: str, other: str, same: bool) -> None:
    assert (place_of(one) == place_of(other)) == same


# How much, and how long


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/{'x' * 3_000}", {}, 414),
        (f"/livez?{'x' * 9_000}", {}, 414),
        ("/livez", {"X-Long": "x" * 40_000}, 431),
        ("/livez", {"Content-Length": "-1"}, 400),
        ("/livez", {"Content-Length": "5", "Transfer-Encoding": "chunked"}, 400),
    ],
)
def test_a_request_beyond_measure_is_refused(gate: Gate, path: str, headers: dict[str, str], status: int) -> None:
    [answer] = ask(gate, path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_an_answer_in_parts_goes_on_as_long_as_parts_come(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, answer_seconds=0.25)
    [answer] = ask(gate, "/counting?pauses=6&seconds=0.1")
    assert answer.text == "0\n1\n2\n3\n4\n5\n"


def test_an_answer_in_parts_of_which_none_comes_any_more_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, started = gate_with(monkeypatch, answer_seconds=0.25), time.monotonic()
    with pytest.raises(ProblemError):
        ask(gate, "/counting?pauses=3&seconds=10")
    assert time.monotonic() - started < 5


def test_a_failure_in_fhir_stays_as_it_is_and_the_gates_own_are_said_so_there(gate: Gate) -> None:
    answer, refused = ask(gate, "/fhir/R4/RiskAssessment/7", f"/fhir/R4/RiskAssessment/7?{'x' * 9_000}")
    assert answer.json() == {"resourceType": "OperationOutcome"}
    assert (refused.status_code, refused.headers["content-type"]) == (414, "application/fhir+json")
    assert refused.json()["issue"][0]["diagnostics"] == "The address of the request is too long."


def test_a_caller_who_leaves_is_no_error(gate: Gate, lines: io.StringIO) -> None:
    ask_and_leave(gate, "GET", "/leaves")
    ask_and_leave(gate, "POST", "/echo")
    assert [(each["level"], each["status"]) for each in told(lines)] == [("INFO", 499), ("INFO", 499)]


def ask_and_leave(gate: Gate, method: str, path: str) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        """Lose it, as nobody is there."""

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], "client": None}
    asyncio.run(gate({**scope, "root_path": "", "http_version": "1.1", "scheme": "http"}, receive, send))


def test_nothing_but_http_comes_in(gate: Gate) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(gate({"type": "websocket", "path": "/v1/residents/7", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close"}]


@pytest.fixture(scope="module")
def served() -> Iterator[int]:
    """The port of a real server with a gate."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(Gate(app()), port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield port
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: abc", "x"),
        ("Content-Length: 1\r\nContent-Length: 2", "xx"),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\nGET /page HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\nGET /page HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("Content-Length : 0", "GET /page HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
)
def test_a_request_whose_end_can_be_read_in_two_ways_is_refused_and_hides_no_second_one(
    served: int, head: str, body: str
) -> None:
    with socket.create_connection(("127.0.0.1", served), timeout=5) as line:
        line.sendall(f"POST /echo HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}".encode())
        said = b""
        while part := line.recv(65_536):
            said += part
    assert re.match(rb"HTTP/1.1 (400|501) ", said), said
    assert said.count(b"HTTP/1.1 ") == 1


# What is written down


def test_a_request_is_one_line_by_its_route(gate: Gate, lines: io.StringIO) -> None:
    [answer] = ask(gate, f"/v1/residents/{NUMBER}?name={NAME}")
    assert answer.status_code == 200
    [line] = told(lines)
    assert line.pop("seconds") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(line.pop("time")))
    route = "/v1/residents/{number}"
    assert line == {
        "level": "INFO",
        "logger": "serving.api.gate",
        "message": f"GET {route} 200",
        "request_id": answer.headers["x-request-id"],
        "route": route,
        "method": "GET",
        "status": 200,
    }


def test_no_line_holds_what_was_sent(gate: Gate, lines: io.StringIO) -> None:
    ask(
        gate,
        f"/v1/residents/{NUMBER}",
        f"/breaks?name={NAME}",
        f"/nowhere/{NUMBER}?{NAME}",
        f"/fhir/R4/RiskAssessment/{NUMBER}",
        headers=[(b"Authorization", f"Bearer {NUMBER}".encode()), (b"Cookie", f"x={NUMBER}".encode())],
    )
    ask(gate, "/echo", method="POST", content=f"{NAME} {NUMBER}".encode())
    assert len(told(lines)) == 6
    for secret in (NAME, NUMBER, "%E5%BC%A0"):
        assert secret not in lines.getvalue()


def test_what_broke_is_told_with_its_place_and_kind_and_the_words_of_such_as_hold_no_values(
    gate: Gate, lines: io.StringIO
) -> None:
    ask(gate, f"/breaks?name={NAME}", "/away")
    broken, _, away, _ = told(lines)
    assert broken["message"] == "The answer of /breaks broke."
    assert broken["level"] == "ERROR"
    said = str(broken["exception"])
    assert "in breaks" in said
    assert said.index("RuntimeError") < said.index("ValidationError")
    assert "The database weibing.db cannot be used: disk full." in str(away["exception"])


def test_the_lines_of_a_process_are_json_also_those_of_other_libraries() -> None:
    script = (
        "import logging.config; from serving.logs import configuration\n"
        "logging.config.dictConfig(configuration(json=True))\n"
        "logging.getLogger('serving.x').info('started at\\n%s', 'here')\n"
        "logging.getLogger('uvicorn.error').warning('Invalid HTTP request received.')\n"
        "logging.getLogger('httpx').info('GET https://ehr.example.cn/Patient/7')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["started at\nhere", "Invalid HTTP request received."]


def test_on_a_terminal_lines_are_plain() -> None:
    formatter = configuration(json=False)["formatters"]["line"]["()"]()
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "GET %s 200", "args": ("/livez",)})
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO GET /livez 200", formatter.format(record))


# What is counted


def test_scores_are_counted_by_risk_and_by_what_was_known() -> None:
    before = exposition().body.decode()
    for probability in (0.004, 0.31):
        count([score_of(probability=probability, model_version="counted", completeness="low")])
    after = exposition().body.decode()
    labels = 'model_version="counted",target="hypertension"'
    assert labels not in before
    assert f'weibing_score_probability_bucket{{le="0.01",{labels}}} 1.0' in after
    assert f"weibing_score_probability_count{{{labels}}} 2.0" in after
    assert value(after, f"weibing_score_probability_sum{{{labels}}}") == pytest.approx(0.314)
    low = 'weibing_score_completeness_total{grade="low",target="hypertension"}'
    assert value(after, low) - value(before, low) == 2


def value(told: str, name: str) -> float:
    return next((float(line.rsplit(" ", 1)[1]) for line in told.splitlines() if line.startswith(name)), 0.0)


def test_what_the_database_holds_is_read_when_asked_and_not_told_where_it_cannot_be(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "clinic.db"))
    told = exposition(database).body.decode()
    assert "weibing_database_reachable 1.0" in told
    assert ("weibing_alerts_open 0.0" in told, "weibing_events_waiting 0.0" in told) == (True, True)

    told = exposition(Database.at("postgresql://nobody@127.0.0.1:9/nothing")).body.decode()
    assert "weibing_database_reachable 0.0" in told
    assert "weibing_alerts_open" not in told
    assert "weibing_request_seconds" in told


def test_counts_are_those_of_all_processes_and_gauges_those_of_the_living(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from serving.api.metrics import CHAMPION, REGISTRY_READABLE, TURNED_AWAY, exposition\n"
        "def work(readable):\n"
        "    TURNED_AWAY.labels('rate').inc()\n"
        "    CHAMPION.labels('fall', '3', 'registry').set(1)\n"
        "    REGISTRY_READABLE.set(readable)\n"
        "for _ in range(2):\n"
        "    if not (child := os.fork()):\n"
        "        work(0)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "work(1)\n"
        "print(exposition().body.decode())\n"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert len(list(tmp_path.glob("counter_*.db"))) == 3
    assert 'weibing_turned_away_total{limit="rate"} 3.0' in done.stdout
    assert 'weibing_champion_loaded{source="registry",target="fall",version="3"} 1.0' in done.stdout
    assert "weibing_registry_readable 1.0" in done.stdout


def test_what_is_refused_is_counted_by_limit_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_with(monkeypatch, rate_per_second=0.01, rate_burst=3, most_at_once=1)
    before = exposition().body.decode()
    ask(gate, "/slow", "/slow", at_once=True)
    ask(gate, "/slow", "/slow")
    after = exposition().body.decode()
    for name in (
        'weibing_turned_away_total{limit="busy"}',
        'weibing_turned_away_total{limit="rate"}',
        'weibing_requests_total{method="GET",route="other",status="429"}',
    ):
        assert value(after, name) - value(before, name) == 1, name
    assert "weibing_requests_under_way 0.0" in after
