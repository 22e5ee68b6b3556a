"""The routes of the FHIR server. What they read, and who may read it, are given to them."""

import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain, islice
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from features.times import zone
from serving.api.assessments import Assessment
from serving.api.fhir.capability import capability_statement
from serving.api.fhir.outcomes import JSON, NDJSON, answer, failure, written
from serving.api.fhir.resources import KIND, moment, risk_assessment
from serving.api.fhir.search import Pairs, RiskQuery, bundle, read_search
from serving.api.problems import OTHER_METHOD, ProblemError
from serving.api.wording import Words, wanted
from serving.settings import Settings

BASE = "/fhir/R4"
FORM = "application/x-www-form-urlencoded"
# Few messages of many lines go faster than many of one.
LINES = 200

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ANSWERED = re.compile(rf"metadata|{KIND}|{KIND}/(?:(?P<search>_search)|[^/]+)")
_ACCEPTED = re.compile(r"\*/\*|application/(\*|json|fhir\+json)")

Action = Literal["read", "search", "export"]


@dataclass(frozen=True)
class Gone:
    """A score that is no more: another took its place, or the resident is not at risk any more, or erased."""

    why: str = "There is a later score, or none any more."


@dataclass(frozen=True)
class RiskPage:
    """A page of scores: `following` is after what the next begins, None where there is none."""

    assessments: tuple[Assessment, ...]
    following: str | None = None
    total: int | None = None


class RiskBook(Protocol):
    """The scores that one caller may see. Its methods are called beside the loop, on any thread."""

    def read(self, name: str) -> Assessment | Gone | None:
        """Return a score by its id; None where there never was one that this caller may know of."""

    def search(self, query: RiskQuery, count: int, after: str | None) -> RiskPage:
        """Return a page of the live scores, in an order that stays the same.

        Raises
        ------
        ProblemError
            400 where `after` is not what a page gave.
        """

    def export(self, run: int | None) -> Iterable[Assessment]:
        """Yield all scores of a complete run, of the last one where None.

        Raises
        ------
        ProblemError
            404 where there is no such run.
        """


class Open(Protocol):
    """Opens the book for a caller, to whom it is open."""

    def __call__(self, request: Request, action: Action) -> RiskBook:
        """Return what the caller of a request may see.

        Raises
        ------
        ProblemError
            401 where nobody knows the caller, 403 where the caller may not.
        """


class _Route(APIRoute):
    """A route whose failures are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except ProblemError as problem:
                return failure(problem)

        return answered


def fhir_router(open_book: Open, settings: Settings) -> APIRouter:
    """Return the routes of the FHIR server.

    Parameters
    ----------
    open_book
        Says who may do what: every route but that of the CapabilityStatement asks it first.
    """
    router, desk = APIRouter(prefix=BASE, route_class=_Route), _Desk(open_book, settings, datetime.now(UTC))
    router.add_api_route("/metadata", desk.metadata, summary="What the FHIR server can do")
    # Before the route of one score, for which it could be taken.
    router.add_api_route(f"/{KIND}/$export", desk.export, summary="All scores of a run, as NDJSON")
    router.add_api_route(f"/{KIND}/_search", desk.search, methods=["POST"], summary="Search scores, as a form")
    router.add_api_route(f"/{KIND}", desk.search, summary="Search scores by subject, date and method")
    router.add_api_route(f"/{KIND}/{{id}}", desk.read, summary="Read a score")
    router.add_api_route(
        "/{elsewhere:path}",
        desk.nothing,
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    return router


@dataclass(frozen=True)
class _Desk:
    """Answers requests."""

    open_book: Open
    settings: Settings
    begun: datetime

    async def metadata(self, request: Request) -> Response:
        """Say what the server can do."""
        _require_json(request)
        return answer(capability_statement(self._address(request), self.begun))

    async def read(self, request: Request) -> Response:
        """Return a score."""
        _require_json(request)
        book, wanted_id = await self._book(request, "read"), request.path_params["id"]
        found = await run_in_threadpool(book.read, wanted_id) if _ID.fullmatch(wanted_id) else None
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such RiskAssessment.")
        if isinstance(found, Gone):
            raise ProblemError(HTTPStatus.GONE, found.why)
        resource = risk_assessment(found, self._words(request))
        return answer(resource, headers={"ETag": f'W/"{moment(found.score.scored_at)}"'})

    async def search(self, request: Request) -> Response:
        """Return a page of scores."""
        _require_json(request)
        book, settings = await self._book(request, "search"), self.settings
        lenient = "handling=lenient" in request.headers.get("prefer", "")
        pairs = await _parameters(request)
        page, most = min(settings.fhir_page, settings.fhir_most), settings.fhir_most
        search = read_search(pairs, zone(settings.timezone), page, most, lenient=lenient)
        found = await run_in_threadpool(book.search, search.query, search.count, search.after)
        words = self._words(request)
        resources = [risk_assessment(each, words) for each in found.assessments]
        following = found.following if search.count else None
        return answer(bundle(search, f"{self._address(request)}/{KIND}", resources, following, found.total))

    async def export(self, request: Request) -> Response:
        """Stream all scores of a run, a resource a line."""
        book, run = await self._book(request, "export"), request.query_params.get("run")
        if run is not None and not re.fullmatch(r"\d{1,18}", run):
            raise ProblemError(HTTPStatus.BAD_REQUEST, "The parameter run should be the number of a run.")
        lines = _lines(book, None if run is None else int(run), self._words(request))
        # What fails before the first line is an answer; what fails later breaks the connection.
        first = await run_in_threadpool(lambda: list(islice(lines, 1)))
        return StreamingResponse(chain(first, lines), media_type=NDJSON)

    async def nothing(self, request: Request) -> Response:
        """Say that there is nothing, to callers who may know; or that there is, for another method."""
        if found := _ANSWERED.fullmatch(request.path_params["elsewhere"]):
            allowed = {"Allow": "POST" if found["search"] else "GET"}
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, OTHER_METHOD, headers=allowed)
        await self._book(request, "search")
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is metadata and {KIND} here, to read and to search.")

    async def _book(self, request: Request, action: Action) -> RiskBook:
        return await run_in_threadpool(self.open_book, request, action)

    def _address(self, request: Request) -> str:
        """Return where the server is met: a caller's Host says so only where the operator does not."""
        return f"{self.settings.public_url or str(request.base_url).rstrip('/')}{BASE}"

    def _words(self, request: Request) -> Words:
        language = wanted(request.headers.get("accept-language", ""), self.settings.language)
        return Words(language, self.settings.timezone)


def _lines(book: RiskBook, run: int | None, words: Words) -> Iterator[bytes]:
    """Yield the scores of a run, some lines at a time."""
    scores = iter(book.export(run))
    while some := list(islice(scores, LINES)):
        yield b"".join(written(risk_assessment(each, words)) + b"\n" for each in some)


async def _parameters(request: Request) -> Pairs:
    """Return the parameters of a search, of the address and of a form."""
    pairs = list(request.query_params.multi_items())
    if request.method != "POST":
        return pairs
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send a form: Content-Type: {FORM}.")
    try:
        return pairs + parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from None


def _require_json(request: Request) -> None:
    """Refuse who would have another format."""
    accepted = request.headers.get("accept", "*/*").split(",")
    if not any(_ACCEPTED.fullmatch(each.partition(";")[0].strip().lower()) for each in accepted):
        raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, f"There is FHIR in JSON here: {JSON}.")
