"""Failures that look like failures: problem details, and the gate that makes sure of them."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from serving.api.gate import Gate
from serving.api.problems import Fault, ProblemError, unprocessable

SECRET = "/srv/models/secret.txt"


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def slow(_: Request) -> Response:
    await asyncio.sleep(60)
    return Response()


async def broken(_: Request) -> Response:
    raise RuntimeError(SECRET)


async def refused(request: Request) -> Response:
    status = int(request.query_params["status"])
    raise HTTPException(status, SECRET if status == 500 else "It is short and stout.", headers={"Retry-After": "7"})


async def framework(_: Request) -> Response:
    return JSONResponse({"error": SECRET}, 400)


async def breaks_off(_: Request) -> Response:
    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError(SECRET)

    return StreamingResponse(half())


async def telling(_: Request) -> Response:
    return ProblemError(HTTPStatus.CONFLICT, "Somebody was faster.").response()


async def fine(_: Request) -> Response:
    return PlainTextResponse("fine", headers={"Cache-Control": "max-age=60"})


ROUTES = [
    Route(f"/{each.__name__}", each, methods=["GET", "POST"])
    for each in (echo, slow, broken, refused, framework, breaks_off, telling, fine)
]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    for name, value in {"MOST_BYTES": 10, "ANSWER_SECONDS": 0.2, "MOST_AT_ONCE": 2}.items():
        monkeypatch.setenv(f"WEIBING_{name}", str(value))
    return Gate(Starlette(routes=[*ROUTES, Route("/livez", fine)]))


def ask(gate: ASGIApp, *paths: str, content: bytes | None = None) -> list[httpx.Response]:
    """Ask for several addresses at once; what breaks in the service breaks the connection."""

    async def together() -> list[httpx.Response]:
        transport = httpx.ASGITransport(gate, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            method = "GET" if content is None else "POST"
            return await asyncio.gather(*(client.request(method, path, content=content) for path in paths))

    return asyncio.run(together())


def problem(answer: httpx.Response) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert SECRET not in answer.text
    return told


def test_an_answer_passes_with_headers_that_keep_it_private(gate: ASGIApp) -> None:
    [answer] = ask(gate, "/echo", content=b"0123456789")
    assert answer.content == b"0123456789"
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_an_answer_that_may_be_kept_says_so_itself(gate: ASGIApp) -> None:
    assert ask(gate, "/fine")[0].headers["cache-control"] == "max-age=60"


def test_more_bytes_than_allowed_are_413(gate: ASGIApp) -> None:
    [answer] = ask(gate, "/echo", content=b"0123456789+")
    assert problem(answer)["detail"] == "The request is larger than 10 bytes. Send it in parts."


def test_an_answer_that_takes_too_long_is_503(gate: ASGIApp) -> None:
    started = time.monotonic()
    [answer] = ask(gate, "/slow")
    assert time.monotonic() - started < 2
    assert answer.status_code == 503
    assert problem(answer)["detail"] == "No answer within 0.2 seconds. Ask for less."


def test_what_breaks_is_500_and_says_nothing_of_why(gate: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        [answer] = ask(gate, "/broken")
    assert answer.status_code == 500
    assert problem(answer)["detail"] == "Something broke in the service. Its log says what."
    assert SECRET in caplog.text


def test_what_breaks_half_way_breaks_the_connection(gate: ASGIApp) -> None:
    with pytest.raises(ProblemError):
        ask(gate, "/breaks_off")


def test_more_calls_than_allowed_at_once_are_503_but_the_service_stays_alive(gate: ASGIApp) -> None:
    answers = ask(gate, "/slow", "/slow", "/fine", "/livez")
    assert [answer.status_code for answer in answers] == [503, 503, 503, 200]
    assert problem(answers[2])["detail"] == "The service is busy. Try again in a moment."
    assert answers[2].headers["retry-after"] == "5"


def test_after_too_many_calls_the_next_is_answered(gate: ASGIApp) -> None:
    ask(gate, "/slow", "/slow", "/fine")
    assert ask(gate, "/fine")[0].status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "title", "detail"),
    [
        ("/nowhere", 404, "Not Found", "There is nothing at this address."),
        ("/refused?status=418", 418, "I'm a Teapot", "It is short and stout."),
        ("/refused?status=500", 500, "Internal Server Error", "Something broke in the service. Its log says what."),
        ("/framework", 400, "Bad Request", "Bad request syntax or unsupported method"),
        ("/telling", 409, "Conflict", "Somebody was faster."),
    ],
)
def test_a_failure_beneath_becomes_problem_details(
    gate: ASGIApp, path: str, status: int, title: str, detail: str
) -> None:
    told = problem(ask(gate, path)[0])
    assert told == {"type": "about:blank", "title": title, "status": status, "detail": detail}


def test_headers_that_help_the_caller_stay(gate: ASGIApp) -> None:
    assert ask(gate, "/refused?status=418")[0].headers["retry-after"] == "7"
    [answer] = ask(gate, "/livez", content=b"")
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


@pytest.mark.parametrize(
    ("place", "path", "pointer"),
    [
        (("residents", 0, "events", 3, "value"), "residents[0].events[3].value", "#/residents/0/events/3/value"),
        ((), "", "#"),
        ((0, "a/b~c"), "[0].a/b~c", "#/0/a~1b~0c"),
    ],
)
def test_a_place_is_written_for_people_and_as_a_json_pointer(
    place: tuple[str | int, ...], path: str, pointer: str
) -> None:
    fault = Fault(place, "is wrong")
    assert (fault.path, fault.pointer) == (path, pointer)


def test_every_fault_of_a_request_is_told() -> None:
    told = json.loads(unprocessable(Fault(("a", 1), "is odd"), Fault((), "it is late")).response().body)
    assert told["detail"] == "a[1]: is odd; it is late."
    assert told["errors"] == [{"pointer": "#/a/1", "detail": "is odd"}, {"pointer": "#", "detail": "it is late"}]
