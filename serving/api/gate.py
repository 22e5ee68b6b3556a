"""The gate: what every request passes, whichever part of the service answers it.

It gives each request a name, by which it is found in the log; lets nobody ask too often, too much or too long; reads
what is sent, up to a size and for a time; gives the answer a time as well, and headers that keep it safe in a browser;
turns every failure into problem details, also those of the frameworks beneath; counts, and writes a line in the log.
"""

import asyncio
import logging
import math
import re
import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from http import HTTPStatus
from time import perf_counter

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.cds_hooks import read_clients
from serving.api.fhir.outcomes import JSON as FHIR_JSON
from serving.api.fhir.outcomes import failure
from serving.api.metrics import REQUESTS, SECONDS, TURNED_AWAY, UNDER_WAY
from serving.api.problems import (
    BROKEN,
    MEDIA_TYPE,
    OTHER_METHOD,
    ProblemError,
    bad_request,
    too_large,
    too_often,
    unavailable,
)
from serving.api.throttle import Throttle, place_of
from serving.logs import REQUEST_ID
from serving.settings import Settings

log = logging.getLogger(__name__)

HEALTH = frozenset({"/livez", "/healthz", "/readyz"})
# What tells an operator how the service fares is answered however busy it is.
ALWAYS_OPEN = HEALTH | {"/metrics"}
# Only these and the mounted application's own become labels, so that no address a caller makes up is kept.
ROUTES = ALWAYS_OPEN | {"/v1/score"}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
FHIR, CDS_HOOKS = "/fhir/", "/cds-services"
# As nginx counts a caller who left before the answer.
LEFT = 499

SAID = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: OTHER_METHOD,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The request is of a kind that is not understood here.",
}
KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")
MOST_DETAIL = 1_000
LONGEST_PATH, LONGEST_QUERY, MOST_HEADER_BYTES = 2_048, 8_192, 32_768

Pairs = tuple[tuple[bytes, bytes], ...]
# An answer that is made to be shown, or kept, says so itself; these are for all others.
SAFE: Pairs = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# A year: browsers come by HTTPS alone.
HTTPS_ALONE = (b"strict-transport-security", b"max-age=31536000")


class Gate:
    """An ASGI middleware around the whole service.

    Raises
    ------
    WeibingError
        If a setting cannot be what it is set to, or the file of the CDS Hooks clients cannot be read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.settings = Settings.from_environment()
        self._throttle = Throttle(self.settings.rate_per_second, self.settings.rate_burst)
        self._safe = (*SAFE, HTTPS_ALONE) if self.settings.public_url.startswith("https:") else SAFE
        listed = read_clients(self.settings.cds_clients) if self.settings.cds_clients else ()
        self._origins = frozenset(origin.encode() for client in listed for origin in client.origins)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and its answer back; nothing but HTTP comes in."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, head = perf_counter(), Head.of(scope)
        REQUEST_ID.set(head.request_id)
        answer = Answer(scope, receive, send, self._always(scope, head))
        self._under_way += 1
        UNDER_WAY.inc()
        try:
            await self._pass(scope, head, receive, answer)
            await answer.need_an_end()
        except ProblemError as problem:
            await answer.fail(problem)
        except ClientDisconnect:
            answer.left = True
        except Exception:
            log.exception("The answer of %s broke.", _route(scope))
            await answer.fail(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, BROKEN))
        finally:
            self._under_way -= 1
            UNDER_WAY.dec()
            _note(scope, LEFT if answer.left else answer.status or LEFT, perf_counter() - started)

    def _always(self, scope: Scope, head: "Head") -> Pairs:
        """Return the headers of every answer to a request."""
        always = ((b"x-request-id", head.request_id.encode()), *self._safe)
        if not scope["path"].startswith(CDS_HOOKS):
            return always
        allowed = ((b"access-control-allow-origin", head.origin),) if head.origin in self._origins else ()
        return (*always, *allowed, (b"vary", b"Origin"))

    async def _pass(self, scope: Scope, head: "Head", receive: Receive, answer: "Answer") -> None:
        self._admit(scope, head)
        if scope["method"] in WITH_BODY:
            body = await self._body(head, receive)
            if body is None:
                answer.left = True
                return
            receive = _replayed(body, receive)
        try:
            async with asyncio.timeout(self.settings.answer_seconds) as limit:
                answer.lasts(limit, self.settings.answer_seconds)
                await self.app(scope, receive, answer.send)
        except TimeoutError:
            if not limit.expired():
                raise
            raise unavailable(f"No answer within {self.settings.answer_seconds:g} seconds. Ask for less.") from None

    def _admit(self, scope: Scope, head: "Head") -> None:
        """Refuse what need not be looked at any further."""
        if len(scope["path"]) > LONGEST_PATH or len(scope["query_string"]) > LONGEST_QUERY:
            raise too_large("The address of the request is too long.", HTTPStatus.REQUEST_URI_TOO_LONG)
        if head.size > MOST_HEADER_BYTES:
            raise too_large("The headers of the request are too large.", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        # Two readers may differ on where such a request ends, and a second one hide in it (RFC 9112, 6.1).
        if head.length is not None and (head.chunked or not head.length.isdigit()):
            raise bad_request("The request does not say in one way how long it is.")
        if wait := self._throttle.wait(head.callers(scope)):
            TURNED_AWAY.labels("rate").inc()
            raise too_often(math.ceil(wait))
        if self._under_way > self.settings.most_at_once and scope["path"] not in ALWAYS_OPEN:
            TURNED_AWAY.labels("busy").inc()
            raise unavailable("The service is busy. Try again in a moment.")

    async def _body(self, head: "Head", receive: Receive) -> bytes | None:
        """Read what is sent; None where the caller left."""
        most = self.settings.most_bytes
        refusal = too_large(f"The request is larger than {most:,} bytes. Send it in parts.")
        if int(head.length or 0) > most:
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


@dataclass(slots=True)
class Head:
    """What the gate looks at of a request's headers; `size` is in bytes."""

    request_id: str
    origin: bytes = b""
    authorization: bytes = b""
    length: bytes | None = None
    chunked: bool = False
    size: int = 0

    @classmethod
    def of(cls, scope: Scope) -> "Head":
        """Read the headers of a request."""
        found: dict[bytes, bytes] = {}
        size = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value) + 4
            if name in LOOKED_AT:
                found[name] = value
        given = found.get(b"x-request-id", b"")
        return cls(
            request_id=given.decode() if PLAIN_TOKEN(given) else secrets.token_hex(8),
            origin=found.get(b"origin", b""),
            authorization=found.get(b"authorization", b""),
            length=found.get(b"content-length"),
            chunked=b"transfer-encoding" in found,
            size=size,
        )

    def callers(self, scope: Scope) -> list[object]:
        """Return as whom a request counts; one for the operator counts apart, or as nobody's."""
        if scope["path"] in HEALTH:
            return []
        client = scope.get("client")
        place = place_of(client[0]) if client else ""
        if scope["path"] in ALWAYS_OPEN:
            return [(scope["path"], place)]
        return [place, blake2b(self.authorization, digest_size=16).digest()] if self.authorization else [place]


LOOKED_AT = frozenset({b"x-request-id", b"origin", b"authorization", b"content-length", b"transfer-encoding"})
PLAIN_TOKEN = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


@dataclass
class Answer:
    """What goes back: an answer as it comes; a failure held back until it is said in problem details.

    Attributes
    ----------
    status : 0 until the answer has begun
    left : whether the caller has left
    """

    scope: Scope
    receive: Receive
    channel: Send
    always: Pairs
    status: int = 0
    left: bool = False
    _ended: bool = False
    _held: Message | None = None
    _said: bytearray = field(default_factory=bytearray)
    _limit: asyncio.Timeout | None = None
    _seconds: float = math.inf

    def lasts(self, limit: asyncio.Timeout, seconds: float) -> None:
        """Begin anew, with each part of an answer in parts, the time that the next may take."""
        self._limit, self._seconds = limit, seconds

    async def send(self, message: Message) -> None:
        """Pass a message on, or keep it as part of a failure."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower(): value for name, value in headers}
            if message["status"] >= HTTPStatus.BAD_REQUEST and not _is_ours(present.get(b"content-type", b"")):
                self._held = message
                return
            self.status = message["status"]
            added = [pair for pair in self.always if pair[0] not in present]
            message = {**message, "headers": headers + added}
        elif self._held is not None:
            self._said += message.get("body", b"")[:MOST_DETAIL]
            if not message.get("more_body", False):
                await self.fail(_in_problem_details(self._held, bytes(self._said)))
            return
        await self.channel(message)
        self._note_end(message)

    def _note_end(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            return
        if not message.get("more_body", False):
            self._ended = True
        elif self._limit and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def fail(self, problem: ProblemError) -> None:
        """Send a failure, where nothing else was sent; in the middle of an answer, break the connection."""
        if self._ended:
            return
        if self.status:
            raise problem
        self._held = None
        in_fhir = self.scope["path"].startswith(FHIR)
        response = failure(problem) if in_fhir else problem.response()
        await response(self.scope, self.receive, self.send)

    async def need_an_end(self) -> None:
        """Fail, where whoever should have answered did not; unless nobody waits for it."""
        if not self.status and not self.left:
            await self.fail(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, BROKEN))


def _is_ours(kind: bytes) -> bool:
    return kind.startswith((MEDIA_TYPE.encode(), FHIR_JSON.encode()))


def _in_problem_details(start: Message, said: bytes) -> ProblemError:
    """Say what a framework said; its words count only where they are plain."""
    headers, status = Headers(raw=start["headers"]), HTTPStatus(start["status"])
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


def _note(scope: Scope, status: int, seconds: float) -> None:
    """Count a request, and write a line about it."""
    route, method = _route(scope), scope["method"] if scope["method"] in METHODS else "other"
    REQUESTS.labels(route, method, str(status)).inc()
    SECONDS.labels(route).observe(seconds)
    if log.isEnabledFor(logging.INFO):
        told = {"route": route, "method": method, "status": status, "seconds": round(seconds, 6)}
        # The number of an account, where the door knew one.
        caller = getattr(getattr(scope.get("weibing.visitor"), "caller", None), "user_id", None)
        log.info("%s %s %d", method, route, status, extra=told if caller is None else {**told, "caller": caller})


def _route(scope: Scope) -> str:
    """Return the route's pattern, which holds nothing of a resident."""
    found = scope.get("route")
    pattern = getattr(found, "path", None) or scope["path"]
    return str(pattern) if found or pattern in ROUTES else "other"
