"""The real service, in processes of its own."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore
from serving.api.clinic import DEMO_SECRET
from serving.api.scores import ScoreAnswer
from serving.drivers import Driver
from serving.scoring import NotAtRisk, Score, score_one
from serving.service import serve
from serving.settings import Settings
from serving.store.database import Database
from serving.store.identity import Identity, Key
from serving.store.people import People, Person
from tests.serving.fronts import SECRET
from tests.serving.running import JSON, RUN, SERVE, Service, start, stopped_at_the_end
from training.calibrate import logit
from training.tracking import Registry

PROBLEM = "application/problem+json"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose registry does not exist."""
    folder = tmp_path_factory.mktemp("bare")
    yield from stopped_at_the_end(start(folder, RUN, mlruns=folder / "mlruns", refresh_seconds=0.1))


@pytest.fixture(scope="session")
def service(bare: Service, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as `weibing serve` starts it, with small limits; `bare` starts meanwhile."""
    limits = {"most_bytes": 300_000, "most_residents": 50, "most_events": 2_000, "receive_seconds": 2}
    for running in stopped_at_the_end(start(tmp_path_factory.mktemp("full"), SERVE, mlruns=registry, **limits)):
        running.wait(200)
        yield running


def sent(events: pl.DataFrame) -> list[dict[str, object]]:
    """Write a resident's events as a caller sends them."""
    return [
        {"time": None if time is None else f"{time.isoformat()}Z", "code": code, "value": value, "unit": unit}
        for time, code, value, unit in events.select("time", "code", "numeric_value", "unit").iter_rows()
    ]


def as_score(told: dict[str, object], like: Score) -> Score:
    """Read a score from the wire; who and when is said beside it."""
    drivers = tuple(Driver(**driver | {"date": utc(driver["date"])}) for driver in told["drivers"])
    of_score = {name: value for name, value in told.items() if name != "horizon"} | {"drivers": drivers}
    return replace(like, **of_score)


def utc(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def event(code: str, time: str | None = "2017-05-01", value: float | None = None, **more: object) -> dict[str, object]:
    return {"code": code, "time": time, "value": value, **more}


BIRTH = event("MEDS_BIRTH", "1950-01-01")
RESIDENT = {"id": "r", "index_time": "2018-01-01", "events": [BIRTH, event("sbp", value=135)]}


def test_a_call_gets_what_the_same_events_get_in_process(
    service: Service, registry: Path, small_store: EventStore
) -> None:
    index_time, models, engine, compared = datetime(2018, 1, 1), Registry(registry).champions(), Engine(), 0
    for subject in small_store.residents()[:12].tolist():
        events = small_store.resident(subject)
        said = service.resident(*sent(events), index_time="2018-01-01T00:00:00Z")
        expected = score_one(events, index_time, models, engine, datetime(2020, 1, 1), most=5)
        reasons = [{"target": each.target, "reason": each.reason} for each in expected if isinstance(each, NotAtRisk)]
        scores = [each for each in expected if isinstance(each, Score)]
        assert said["not_at_risk"] == reasons
        assert [as_score(*pair) for pair in zip(said["scores"], scores, strict=True)] == scores
        compared += len(scores)
    assert compared > 5


@pytest.mark.parametrize("drivers", [0, 3, 200])
def test_reasons_add_up_on_the_wire(service: Service, drivers: int) -> None:
    for score in service.resident(*RESIDENT["events"], drivers=drivers)["scores"]:
        told = [driver["contribution"] for driver in score["drivers"]]
        assert len(told) <= drivers
        off = logit(np.array(score["probability"])) - (score["base"] + sum(told) + score["other"])
        assert abs(off) < 1e-9


def test_residents_of_one_call_are_answered_in_order_each_as_alone(service: Service) -> None:
    residents = [
        {"id": number, "index_time": f"{2010 + number}-01-01", "events": [BIRTH, event("sbp", value=120 + number)]}
        for number in range(8)
    ]
    together = service.score({"residents": [*residents, RESIDENT, RESIDENT]}).json()["residents"]
    alone = [service.score({"residents": [each]}).json()["residents"][0] for each in (*residents, RESIDENT, RESIDENT)]
    assert together == alone
    assert [each["id"] for each in together] == [*range(8), "r", "r"]


def test_an_answer_is_what_the_description_says(service: Service) -> None:
    answer = service.score({"residents": [RESIDENT, {"id": 2, "events": [event("sbp", value=900)]}]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    read = ScoreAnswer.model_validate_json(answer.content, extra="forbid").model_dump()
    assert [each["scores"] for each in read["residents"]][1]
    assert set(answer.json()["residents"][0]) == set(read["residents"][0])


def test_a_resident_without_events_is_scored_with_low_completeness(service: Service) -> None:
    said = service.resident()
    graded = {score["target"]: score["completeness"] for score in said["scores"]}
    assert graded == {"hypertension": "low", "fall": "low"}
    assert said["not_at_risk"] == [{"target": "diabetes_complication", "reason": "without diabetes_found"}]


def test_without_an_index_time_one_predicts_from_now(service: Service) -> None:
    [said] = service.score({"residents": [{"id": 1, "events": [BIRTH]}]}).json()["residents"]
    off = datetime.now(UTC) - datetime.fromisoformat(said["index_time"])
    assert abs(off.total_seconds()) < 60


def test_only_the_targets_asked_for_are_answered_each_once(service: Service) -> None:
    said = service.resident(BIRTH, targets=["fall", "hypertension", "fall"])
    assert [score["target"] for score in said["scores"]] == ["fall", "hypertension"]
    assert [score["horizon"] for score in said["scores"]] == ["1y", "4y"]


def test_a_date_is_one_of_the_county(service: Service) -> None:
    said = service.resident(BIRTH, event("sbp", "2017-12-31", 130), event("sbp", "2018-01-01", 150), drivers=200)
    [sbp] = [driver for driver in said["scores"][0]["drivers"] if driver["concept"] == "sbp"]
    assert (sbp["value"], sbp["date"]) == (130, "2017-12-31T00:00:00+08:00")
    assert said["index_time"] == "2018-01-01T00:00:00+08:00"


def test_what_is_not_used_is_said(service: Service) -> None:
    said = service.resident(
        BIRTH,
        event("ZZ//1"),
        event("ZZ//1"),
        event("ZZ//2"),
        event("sbp", value=900),
        event("sbp", value=130, unit="furlong"),
        event("sbp"),
        event("sbp", "2019-01-01", 130),
        event("ZZ//3", "2018-01-01"),
        event("sbp", "1949-12-31", 130),
        event("hypertension", "2018-06-01"),
    )
    assert said["unknown_codes"] == {"ZZ//1": 2, "ZZ//2": 1}
    assert [(unused["event"], unused["reason"]) for unused in said["unused_values"]] == [
        (4, "sbp lies within 50 to 300 mm[Hg]"),
        (5, "sbp is not known in this unit"),
        (6, "sbp needs a number"),
    ]
    assert said["ignored_events"] == {"at or after the index time": 3, "before birth": 1}
    assert said["scores"] == service.resident(BIRTH)["scores"]


EVENTS = '{"residents": [{"id": 1, "index_time": "2018-01-01", "events": [%s]}]}'
FIRST = "#/residents/0/events/0"


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (EVENTS % '{"code": "sbp", "value": NaN}', f"{FIRST}/value", "finite number"),
        (EVENTS % '{"code": "sbp", "value": -Infinity}', f"{FIRST}/value", "finite number"),
        (EVENTS % '{"code": "sbp", "value": 1e999}', f"{FIRST}/value", "finite number"),
        (EVENTS % '{"code": "sbp", "value": 1e39}', f"{FIRST}/value", "less than or equal"),
        (EVENTS % '{"code": "sbp", "value": "152"}', f"{FIRST}/value", "valid number"),
        (EVENTS % '{"code": "sbp", "value": true}', f"{FIRST}/value", "valid number"),
        (EVENTS % ('{"code": "sbp", "value": %s}' % ("9" * 5000)), "#", "too many digits"),
        (EVENTS % '{"code": "sbp"}, {"code": "sbp", "code": "dbp"}', "#/residents/0/events/1/code", "given twice"),
        (EVENTS % '{"code": "sbp", "valeu": 1}', f"{FIRST}/valeu", "no such name"),
        (EVENTS % '{"code": "sbp", "time": "2017-02-30"}', f"{FIRST}/time", "YYYY-MM-DD"),
        (EVENTS % '{"code": "sbp", "time": "yesterday"}', f"{FIRST}/time", "YYYY-MM-DD"),
        (EVENTS % '{"code": "sbp", "time": "9999-12-31"}', f"{FIRST}/time", "after 2149"),
        (EVENTS % '{"code": "sbp", "time": "0001-01-01"}', f"{FIRST}/time", "YYYY-MM-DD"),
        (EVENTS % '{"code": "sbp", "time": 20170501}', f"{FIRST}/time", "valid string"),
        (EVENTS % '{"code": ""}', f"{FIRST}/code", "at least 1 character"),
        (EVENTS % r'{"code": "\ud800"}', f"{FIRST}/code", "unicode"),
        (EVENTS % "7", FIRST, "an object"),
        ('{"residents": [{"id": 1, "index_time": "9999-01-01", "events": []}]}', "#/residents/0/index_time", "2149"),
        ('{"residents": [{"id": 1}]}', "#/residents/0/events", "required"),
        ('{"residents": [{"id": true, "events": []}]}', "#/residents/0/id", "valid"),
        ('{"residents": []}', "#/residents", "at least 1 item"),
        ('{"residents": [{"id": 1, "events": []}], "targets": []}', "#/targets", "at least 1 item"),
        ('{"residents": [{"id": 1, "events": []}], "targets": ["gout"]}', "#/targets/0", "served are diabetes"),
        ('{"residents": [{"id": 1, "events": []}], "drivers": -1}', "#/drivers", "greater than or equal to 0"),
        ("{}", "#/residents", "required"),
        ("[]", "#", "an object"),
        ("", "#", "not JSON"),
        ('{"residents": [', "#", "line 1, column 16"),
        ("[" * 200_000, "#", "nested too deeply"),
    ],
)
def test_a_call_that_says_what_cannot_be_is_refused_with_the_place(
    service: Service, body: str, pointer: str, detail: str
) -> None:
    answer = service.score(body.encode())
    told = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert (told["type"], told["title"], told["status"]) == ("about:blank", "Unprocessable Entity", 422)
    assert pointer in [each["pointer"] for each in told["errors"]]
    assert detail in told["detail"]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_another_encoding_is_refused(service: Service, encoding: str) -> None:
    text = json.dumps({"residents": [{"id": "张三", "events": []}]}, ensure_ascii=False)
    answer = service.score(text.encode(encoding))
    assert answer.status_code == 422
    assert "not UTF-8: look at byte" in answer.json()["detail"]


def test_a_byte_order_mark_does_not_matter(service: Service) -> None:
    assert service.score(b"\xef\xbb\xbf" + json.dumps({"residents": [RESIDENT]}).encode()).status_code == 200


def test_ids_come_back_as_they_were(service: Service) -> None:
    ids = ["张三/?#\u0000", "", 0, -5, 10**25]
    answer = service.score({"residents": [{"id": each, "events": []} for each in ids]})
    assert [said["id"] for said in answer.json()["residents"]] == ids


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/vnd.bentoml+pickle",
        "application/json; charset=gbk",
    ],
)
def test_only_json_is_read(service: Service, kind: str) -> None:
    answer = service.score({"residents": [RESIDENT]}, **{"content-type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (415, PROBLEM)


@pytest.mark.parametrize(
    ("call", "detail"),
    [
        ({"residents": [{"id": 1, "events": []}] * 51}, "51 residents in one call; at most 50"),
        ({"residents": [{"id": 1, "events": [BIRTH] * 1_001}] * 2}, "2,002 events in one call; at most 2,000"),
        ({"residents": [{"id": "x" * 300_000, "events": []}]}, "larger than 300,000 bytes"),
    ],
)
def test_too_large_a_call_is_refused(service: Service, call: dict[str, object], detail: str) -> None:
    answer = service.score(call)
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
    assert detail in answer.json()["detail"]


def test_too_large_a_call_is_refused_before_all_of_it_has_come(service: Service) -> None:
    def without_length() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    answer = httpx.post(f"{service.address}/v1/score", content=without_length(), headers=JSON, timeout=30)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("length", "status"),
    [pytest.param(100, 408, id="of which the rest never comes"), pytest.param(10**9, 413, id="that is too much")],
)
def test_a_body_is_given_up_by_what_is_announced(service: Service, length: int, status: int) -> None:
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode())
        answer = connection.recv(65_536).decode()
    assert answer.startswith(f"HTTP/1.1 {status}")
    assert PROBLEM in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/score", 405), ("DELETE", "/metrics", 405), ("GET", "/nothing/here", 404), ("POST", "/", 405)],
)
def test_the_frameworks_failures_are_problem_details_too(service: Service, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{service.address}{path}", timeout=30, headers=service.known)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json()["status"] == status


def test_the_service_is_alive_and_ready(service: Service) -> None:
    assert (service.get("/livez").status_code, service.get("/readyz").status_code) == (200, 200)


def test_requests_and_scores_are_counted_by_route_and_not_by_address(service: Service) -> None:
    service.resident(BIRTH)
    service.get("/somebody/11010119900101")
    told = service.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    for counted in (
        'weibing_requests_total{method="POST",route="/v1/score",status="200"}',
        'weibing_requests_total{method="GET",route="other",status="404"}',
        'weibing_request_seconds_bucket{le="0.1",route="/v1/score"}',
        'weibing_scores_total{model_version="1",target="fall",tier=',
        'weibing_not_at_risk_total{target="diabetes_complication"}',
    ):
        [*found] = [line for line in told.text.splitlines() if line.startswith(counted)]
        assert sum(float(line.split()[-1]) for line in found) >= 1, counted
    assert "11010119900101" not in told.text


def test_the_description_covers_the_service_and_its_examples_work(service: Service) -> None:
    described = service.get("/openapi.json").json()
    assert {"/v1/score", "/readyz", "/livez", "/metrics"} <= set(described["paths"])
    examples = described["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples
    for example in examples.values():
        answer = service.score(example["value"])
        assert answer.status_code == 200, answer.text
        for resident in answer.json()["residents"]:
            assert resident["scores"]
            assert (resident["unknown_codes"], resident["unused_values"]) == ({}, [])


def test_the_description_defines_what_it_refers_to(service: Service) -> None:
    text = service.get("/openapi.json").text
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert {"Call", "ScoreAnswer", "ProblemDetails"} <= referred
    assert referred <= set(json.loads(text)["components"]["schemas"])


@pytest.mark.parametrize("path", ["/", "/docs.json", "/openapi.json"])
def test_the_service_sends_nobody_to_another_host(service: Service, path: str) -> None:
    answer = httpx.get(f"{service.address}{path}", follow_redirects=True, timeout=30)
    assert answer.headers["content-type"] == "application/json"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    # What is named in an example, of which nothing is fetched.
    named = {"http://loinc.org", "http://unitsofmeasure.org", "https://clinic.example.cn"}
    addresses = set(re.findall(r"https?://[^/\"]+", answer.text))
    assert addresses <= named


def test_calls_side_by_side_do_not_mix(service: Service) -> None:
    def call(number: int) -> dict[str, object]:
        resident = {"id": number, "index_time": "2018-01-01", "events": [BIRTH, event("sbp", value=100 + number)]}
        return {"residents": [resident] * (1 + number % 3)}

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(service.score, map(call, range(24))))
    for number, answer in enumerate(together):
        alone = service.score({"residents": call(number)["residents"][:1]}).json()["residents"]
        assert answer.json()["residents"] == alone * (1 + number % 3)


def test_the_service_gives_a_call_that_works(service: Service) -> None:
    deadline = time.monotonic() + 10
    while "curl" not in (said := service.log.read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.1)
    command = next(line for line in said.splitlines() if line.startswith("curl"))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["residents"][0]["scores"]


def test_the_log_holds_nothing_of_a_call(service: Service) -> None:
    service.score({"residents": [{"id": "secret-id", "events": [event("secret-code", "secret-time", 4711)]}]})
    service.score(b'{"secret-name": 1}')
    service.score(b'"secret-text"', **{"content-type": "application/vnd.bentoml+pickle"})
    service.get("/secret-path")
    assert "secret" not in service.log.read_text(encoding="utf-8")


def test_a_champion_that_comes_goes_or_changes_needs_no_restart(bare: Service, registry: Path) -> None:
    mlruns = bare.log.with_name("mlruns")
    bare.until(lambda: bare.wait(503).json()["detail"].startswith("No model in the registry is a champion"))
    refused = bare.score({"residents": [RESIDENT]})
    assert (refused.status_code, refused.headers["content-type"]) == (503, PROBLEM)
    assert "No model in the registry" in refused.json()["detail"]
    assert bare.get("/livez").status_code == 200

    shutil.copytree(registry, mlruns.with_name("arriving"))
    mlruns.with_name("arriving").rename(mlruns)
    bare.wait(200)
    assert versions(bare) == {"hypertension": "1", "fall": "1"}

    Registry(mlruns).promote("hypertension", "2")
    bare.until(lambda: versions(bare) == {"hypertension": "2", "fall": "1"})

    (mlruns / "mlflow.db").rename(mlruns / "away")
    (mlruns / "mlflow.db").write_bytes(b"not a database")
    bare.until(lambda: "cannot be used" in bare.log.read_text(encoding="utf-8"))
    assert bare.get("/readyz").status_code == 200
    assert versions(bare) == {"hypertension": "2", "fall": "1"}

    shutil.rmtree(mlruns)
    bare.until(lambda: "what is loaded keeps serving" in bare.log.read_text(encoding="utf-8"))
    assert versions(bare) == {"hypertension": "2", "fall": "1"}


def versions(of: Service) -> dict[str, str]:
    return {score["target"]: score["model_version"] for score in of.resident(*RESIDENT["events"])["scores"]}


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What is needed to serve besides a registry."""
    monkeypatch.setenv("WEIBING_KEY", SECRET)
    return {"db": str(tmp_path / "clinic.db")}


def test_serving_without_a_champion_is_a_mistake(keyed: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(WeibingError, match=r"has no champion of any target\. Train one with: weibing train STORE"):
        serve(Settings.from_environment(mlruns=tmp_path / "mlruns", **keyed))


def test_serving_a_target_without_a_champion_is_a_mistake(keyed: dict[str, object], registry: Path) -> None:
    with pytest.raises(WeibingError, match="has no champion of gout"):
        serve(Settings.from_environment(mlruns=registry, targets="fall,gout", **keyed))


def test_serving_on_a_port_that_is_taken_is_a_mistake(keyed: dict[str, object], registry: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(WeibingError, match=f"port {port}: Address already in use"):
            serve(Settings.from_environment(mlruns=registry, port=port, **keyed))


@pytest.mark.parametrize(
    ("environment", "settings", "said"),
    [
        ({}, {"db": ""}, "Say where the operational database is"),
        ({}, {}, "There is no key for identities"),
        ({"WEIBING_KEY": "short"}, {}, "WEIBING_KEY is too short"),
        ({"WEIBING_KEY": DEMO_SECRET}, {}, "the one of the demonstration, which everybody knows"),
        ({"WEIBING_KEY": DEMO_SECRET}, {"demo": True, "host": "0.0.0.0"}, "listens on this machine alone"),
        ({"WEIBING_KEY": SECRET}, {"db": "weibing.txt"}, "not the address of a database"),
        ({"WEIBING_KEY": "another key that only tests use, long enough"}, {}, "The key is not the one"),
    ],
)
def test_the_service_does_not_start_open_to_everybody(
    environment: dict[str, str],
    settings: dict[str, object],
    said: str,
    registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database.open(str(tmp_path / "clinic.db"))
    if DEMO_SECRET not in environment.values():
        People(database, Key.of(SECRET)).register([Person(1, Identity("王"))], datetime(2026, 1, 1))
    monkeypatch.delenv("WEIBING_KEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WeibingError, match=said):
        serve(Settings.from_environment(**{"mlruns": registry, "db": database.address} | settings))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": "http"}, "WEIBING_PORT: .* valid integer"),
        ({"host": "somewhere.example"}, "WEIBING_HOST: .* IPv4 or IPv6 address"),
        ({"timezone": "Mars"}, 'WEIBING_TIMEZONE: .* no time zone "Mars"'),
        ({"most_bytes": 0}, "WEIBING_MOST_BYTES: .* greater than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(WeibingError, match=said):
        Settings.from_environment(**given)
