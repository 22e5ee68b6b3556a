"""The routes of the CDS Hooks services. What answers, and what remembers, is given to them."""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from features.errors import WeibingError
from serving.api.assessments import Answered
from serving.api.cds_hooks.calls import Feedback, FeedbackCall, HookCall, read, read_context
from serving.api.cds_hooks.cards import Json, Shown, cards
from serving.api.cds_hooks.clients import Client
from serving.api.cds_hooks.prefetch import TEMPLATES, gathered
from serving.api.cds_hooks.tokens import Doorkeeper, ReplayBook
from serving.api.cds_hooks.told import OtherPatientError, Told, told_of
from serving.api.problems import ProblemError
from serving.api.wording import Words, wanted
from serving.settings import Settings

BASE = "/cds-services"
PREFLIGHT_SECONDS = 600


class Assessor(Protocol):
    """Says what the models and the service rules say of a resident. Called beside the loop, on any thread."""

    def __call__(self, told: Told, now: datetime) -> Answered:
        """Return scores and duties at a UTC time, of what is told and of what is known besides.

        Raises
        ------
        ProblemError
            503 where no model is loaded: never an answer without its scores.
        """


class FeedbackBook(Protocol):
    """Keeps what became of cards. Its method is called beside the loop, on any thread."""

    def add(self, issuer: str, service: str, feedback: Sequence[Feedback]) -> None:
        """Keep all of it or, if anything fails, none; the same outcome of a card at the same time counts once."""


@dataclass(frozen=True)
class Service:
    """A service, and when it is called."""

    id: str
    hook: str
    title: str
    description: str
    every_duty: bool

    def described(self) -> Json:
        """Return what the service says of itself."""
        told: Json = {"hook": self.hook, "title": self.title, "description": self.description, "id": self.id}
        return {**told, "prefetch": dict(TEMPLATES)}


SERVICES = (
    Service(
        "weibing-patient-view",
        "patient-view",
        "Weibing: risks 未病：风险",
        "High risks of hypertension, a complication of diabetes and falls, with reasons; and what cannot wait.",
        every_duty=False,
    ),
    Service(
        "weibing-encounter-start",
        "encounter-start",
        "Weibing: due today 未病：今日应做",
        "What the service rules say is due, to be planned in this encounter; and high risks, with reasons.",
        every_duty=True,
    ),
)


def cds_hooks_router(
    clients: Sequence[Client],
    assess: Assessor,
    feedback: FeedbackBook,
    replays: ReplayBook,
    settings: Settings,
) -> APIRouter:
    """Return the routes of the CDS Hooks services.

    Raises
    ------
    WeibingError
        If the settings do not say where others reach the service: tokens are for that address.
    """
    if not settings.public_url:
        raise WeibingError("CDS Hooks needs WEIBING_PUBLIC_URL, such as https://weibing.example.cn: tokens are for it.")
    desk = _Desk(Doorkeeper(clients, replays, settings), assess, feedback, settings)
    origins = frozenset(origin for client in clients for origin in client.origins)
    router = APIRouter(prefix=BASE, route_class=_route_class(origins))
    router.add_api_route("", desk.discovery, summary="Which CDS Hooks services there are")
    router.add_api_route("/{id}", desk.call, methods=["POST"], summary="Call a CDS Hooks service")
    router.add_api_route("/{id}/feedback", desk.take, methods=["POST"], summary="Say what became of cards")
    for path in ("", "/{id}", "/{id}/feedback"):
        router.add_api_route(path, _preflight, methods=["OPTIONS"], include_in_schema=False)
    return router


@dataclass(frozen=True)
class _Desk:
    """Answers requests."""

    doorkeeper: Doorkeeper
    assess: Assessor
    feedback: FeedbackBook
    settings: Settings

    async def discovery(self, request: Request) -> Response:
        """Say which services there are."""
        if not self.settings.cds_open_discovery:
            await self._client(request, "")
        return _json({"services": [service.described() for service in SERVICES]})

    async def call(self, request: Request) -> Response:
        """Answer the call of a hook with cards."""
        service = _service(request)
        client = await self._client(request, f"/{service.id}")
        call = read(HookCall, await request.body(), request.headers.get("content-type", ""))
        if call.hook != service.hook:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{service.id} is for the hook {service.hook}.")
        context = read_context(call)
        found = await gathered(call, context, client, self.settings)
        answered = await run_in_threadpool(self._answered, client, context.patientId, found)
        shown = Shown(self.settings.cds_least_tier, service.every_duty)
        return _json({"cards": cards(answered, context.patientId, shown, self._words(request))})

    async def take(self, request: Request) -> Response:
        """Keep what became of cards."""
        service = _service(request)
        client = await self._client(request, f"/{service.id}/feedback", f"/{service.id}")
        sent = read(FeedbackCall, await request.body(), request.headers.get("content-type", ""))
        await run_in_threadpool(self.feedback.add, client.issuer, service.id, sent.feedback)
        return Response(status_code=HTTPStatus.OK)

    def _answered(self, client: Client, patient: str, found: Sequence[dict[str, object]]) -> Answered:
        try:
            told = told_of(client.issuer, patient, found, self.settings.timezone)
        except OtherPatientError as error:
            detail = f"A resource is of another Patient than the context: {error}."
            raise ProblemError(HTTPStatus.PRECONDITION_FAILED, detail) from None
        return self.assess(told, datetime.now(UTC).replace(tzinfo=None))

    async def _client(self, request: Request, *paths: str) -> Client:
        """Return who calls; the token is for one of these addresses."""
        addresses = [f"{self.settings.public_url}{BASE}{path}" for path in paths]
        return await self.doorkeeper.admit(request.headers.get("authorization"), *addresses)

    def _words(self, request: Request) -> Words:
        language = wanted(request.headers.get("accept-language", ""), self.settings.language)
        return Words(language, self.settings.timezone)


def _service(request: Request) -> Service:
    found = next((service for service in SERVICES if service.id == request.path_params["id"]), None)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no such service; there are those of {BASE}.")
    return found


def _json(content: Mapping[str, object]) -> Response:
    written = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(written.encode(), media_type="application/json")


async def _preflight() -> Response:
    """Answer what a browser asks before it calls; whether its page may is said by the route."""
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _route_class(origins: frozenset[str]) -> type[APIRoute]:
    """Return routes that say failures in problem details, and let the pages of listed origins read them."""

    class Route(APIRoute):
        """A route of a CDS Hooks service."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """Return what answers a request."""
            handler = super().get_route_handler()

            async def answered(request: Request) -> Response:
                origin = request.headers.get("origin", "")
                try:
                    response = await handler(request)
                except ProblemError as problem:
                    response = problem.response()
                response.headers["Vary"] = "Origin"
                if origin in origins:
                    response.headers.update(_allowed(origin, preflight=request.method == "OPTIONS"))
                return response

            return answered

    return Route


def _allowed(origin: str, *, preflight: bool) -> dict[str, str]:
    """Return what lets a page of an origin read the answer; with no cookies, as there are none here."""
    allowed = {"Access-Control-Allow-Origin": origin}
    if not preflight:
        return allowed
    return {
        **allowed,
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept-Language",
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
