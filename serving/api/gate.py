"""The gate: what every request passes, whichever part of the service answers it.

It reads what is sent, up to a size and for a time; gives the answer a time as well; turns every failure into problem
details, also those of the frameworks beneath; and counts.
"""

import asyncio
import logging
from http import HTTPStatus
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.metrics import REQUESTS, SECONDS
from serving.api.problems import BROKEN, MEDIA_TYPE, ProblemError, too_large, unavailable
from serving.settings import Settings

log = logging.getLogger(__name__)

# What tells an operator how the service fares is answered however busy it is.
ALWAYS_OPEN = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})
# Only these and the mounted application's own become labels, so that no address a caller makes up is kept.
ROUTES = ALWAYS_OPEN | {"/v1/score"}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

SAID = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not answer this method.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The request is of a kind that is not understood here.",
}
KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")
MOST_DETAIL = 1_000


class Gate:
    """An ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.settings = Settings.from_environment()
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and its answer back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, answer = perf_counter(), Answer(scope, receive, send)
        self._under_way += 1
        try:
            await self._pass(scope, receive, answer)
        except ProblemError as problem:
            await answer.fail(problem)
        except Exception:
            log.exception("The answer of %s broke.", _route(scope))
            await answer.fail(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, BROKEN))
        finally:
            self._under_way -= 1
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(_route(scope), method, str(answer.status)).inc()
            SECONDS.labels(_route(scope)).observe(perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        if self._under_way > self.settings.most_at_once and scope["path"] not in ALWAYS_OPEN:
            raise unavailable("The service is busy. Try again in a moment.")
        if scope["method"] in WITH_BODY:
            body = await self._body(scope, receive)
            if body is None:
                return
            receive = _replayed(body, receive)
        try:
            async with asyncio.timeout(self.settings.answer_seconds) as limit:
                await self.app(scope, receive, answer.send)
        except TimeoutError:
            if not limit.expired():
                raise
            raise unavailable(f"No answer within {self.settings.answer_seconds:g} seconds. Ask for less.") from None

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read what is sent; None where the caller left."""
        most = self.settings.most_bytes
        refusal = too_large(f"The request is larger than {most:,} bytes. Send it in parts.")
        if int(Headers(scope=scope).get("content-length", "0")) > most:
            raise refusal
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.receive_seconds):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise refusal
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            late = f"The request was not sent within {self.settings.receive_seconds:g} seconds."
            raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, late, headers={"Connection": "close"}) from None
        return None


class Answer:
    """What goes back: an answer as it comes; a failure held back until it is said in problem details."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = 0
        self._ended = False
        self._scope, self._receive, self._send = scope, receive, send
        self._held: Message | None = None
        self._said = bytearray()

    async def send(self, message: Message) -> None:
        """Pass a message on, or keep it as part of a failure."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            failed = message["status"] >= HTTPStatus.BAD_REQUEST
            if failed and not headers.get("content-type", "").startswith(MEDIA_TYPE):
                self._held = message
                return
            self.status = message["status"]
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("x-content-type-options", "nosniff")
        elif self._held is not None:
            self._said += message.get("body", b"")[:MOST_DETAIL]
            if not message.get("more_body", False):
                await self.fail(_in_problem_details(self._held, bytes(self._said)))
            return
        await self._send(message)
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def fail(self, problem: ProblemError) -> None:
        """Send a failure, where nothing else was sent; in the middle of an answer, break the connection."""
        if self._ended:
            return
        if self.status:
            raise problem
        self._held = None
        await problem.response()(self._scope, self._receive, self.send)


def _in_problem_details(start: Message, said: bytes) -> ProblemError:
    """Say what a framework said; its words count only where they are plain."""
    headers, status = Headers(scope=start), HTTPStatus(start["status"])
    detail = SAID.get(status, BROKEN if status >= HTTPStatus.INTERNAL_SERVER_ERROR else status.description)
    if status not in SAID and status != HTTPStatus.INTERNAL_SERVER_ERROR and _plain(headers):
        detail = said.decode("utf-8", "replace")[:MOST_DETAIL]
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    return ProblemError(status, detail, headers=kept)


def _plain(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("text/plain")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel on which the body comes at once, and then what else comes."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _route(scope: Scope) -> str:
    """Return the route's pattern, which holds nothing of a resident."""
    found = scope.get("route")
    pattern = getattr(found, "path", None) or scope["path"]
    return str(pattern) if found or pattern in ROUTES else "other"
