"""The door: nobody comes past who is not known, and each look at a resident is written down before it is granted.

Behind the gate and before everything else. It finds who calls: by the cookie of a session, or the token of a system.
Who has neither gets no further than the few addresses that are open. Whether the caller may do what is asked, each
route asks by :func:`admit`; the decision itself is made in :mod:`serving.security.caller`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.clinic import Clinic
from serving.api.problems import ProblemError, unavailable
from serving.audit import entry_of
from serving.security import csrf
from serving.security.caller import Caller, Panel, RefusedError, Resident, Subject, may
from serving.security.roles import Action
from serving.security.secrets import digest
from serving.security.sessions import COOKIE
from serving.security.tokens import bearer
from serving.store.database import AwayError

# What tells nothing of anybody, or lets people in; the CDS Hooks services know their callers by signed tokens.
OPEN = frozenset(
    {"/", "/livez", "/healthz", "/readyz", "/openapi.json", "/docs.json", "/fhir/R4/metadata"}
    | {"/login/server", "/login/arrived"}
)
OPEN_BELOW = ("/cds-services", "/v1/session")
# What is answered elsewhere than in a route that asks.
ASKED_HERE: dict[str, Action] = {"/v1/score": "score", "/metrics": "see metrics"}
# So long a token is taken for good without asking again: a revoked one works this long at most.
TRUSTED_SECONDS = 5.0
MOST_TRUSTED = 1_000
FORM_HEADER = "x-csrf-token"
CALL_AGAIN = "Log in, or send the token of a system: Authorization: Bearer …"
NOT_OURS = "The request does not come from a page of this service. Send the header X-CSRF-Token that /v1/session gives."


@dataclass(frozen=True)
class Visitor:
    """Who calls, and from where."""

    clinic: Clinic
    caller: Caller
    address: str

    def admit(self, action: Action, residents: Collection[int], panel: int | None, why: str) -> None:
        """Let the caller do something, all of it or nothing, and write it down: on whichever thread.

        Raises
        ------
        RefusedError
            If the caller may not.
        AwayError
            If it cannot be written down; then it is not allowed either.
        """
        now = utc_now()
        of = list(self._subjects(residents, panel, now))
        refused = [each for each in of if not may(self.caller, action, each)]
        entries = [
            entry_of(self.caller, action, now, each, allowed=not refused, address=self.address, why=why)
            for each in refused or of
        ]
        self.clinic.audit.write(*entries)
        if refused:
            raise RefusedError(action)

    def _subjects(self, residents: Collection[int], panel: int | None, now: datetime) -> Iterable[Subject]:
        if panel is not None:
            yield Panel(panel)
        elif residents:
            belongs = self.clinic.panels.whose(residents, now)
            for resident in sorted(set(residents)):
                of = belongs.get(resident)
                yield Resident(resident, frozenset() if of is None else frozenset({of}))
        else:
            yield None


async def admit(
    request: Request, action: Action, *, residents: Collection[int] = (), panel: int | None = None, why: str = ""
) -> Caller:
    """Let whoever sent a request do something to residents, to a panel, or at all; say who it is.

    A resident whom nobody knows is refused to those who see some residents only, so that they cannot tell.

    Raises
    ------
    ProblemError
        403 if the caller may not, 503 if it cannot be written down.
    """
    visitor = visitor_of(request)
    try:
        await run_in_threadpool(visitor.admit, action, residents, panel, why)
    except RefusedError as refused:
        raise forbidden(refused) from None
    except AwayError:
        raise away() from None
    return visitor.caller


def visitor_of(request: Request) -> Visitor:
    """Return who sent a request.

    Raises
    ------
    ProblemError
        401 if the door let it pass without knowing.
    """
    found = request.scope.get("weibing.visitor")
    if not isinstance(found, Visitor):
        raise unknown()
    return found


def utc_now() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def away() -> ProblemError:
    """Return the problem of a database that cannot be used now."""
    return unavailable("The database cannot be used now. Nothing was kept; try again in a moment.")


def unknown() -> ProblemError:
    """Return the problem of a caller whom nobody knows."""
    return ProblemError(HTTPStatus.UNAUTHORIZED, CALL_AGAIN, headers={"WWW-Authenticate": 'Bearer realm="weibing"'})


def forbidden(refused: RefusedError) -> ProblemError:
    """Return the problem of a caller who may not."""
    return ProblemError(HTTPStatus.FORBIDDEN, str(refused))


def address_of(scope: Scope) -> str:
    """Return where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


@dataclass
class Door:
    """An ASGI middleware, inside the gate."""

    app: ASGIApp
    clinic: Clinic
    _trusted: dict[str, tuple[float, Caller]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass that is for everybody, or whose caller is known."""
        if scope["type"] == "http" and not is_open(scope["path"]):
            try:
                caller = await self._caller(scope)
            except AwayError:
                raise away() from None
            _need_right(caller, ASKED_HERE.get(scope["path"]))
            scope["weibing.visitor"] = Visitor(self.clinic, caller, address_of(scope))
        await self.app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if "authorization" in headers:
            found = await self._by_token(bearer(headers["authorization"]))
        else:
            found = await self._by_session(scope, headers)
        if found is None:
            raise unknown()
        return found

    async def _by_token(self, secret: str | None) -> Caller | None:
        if secret is None:
            return None
        key, now = digest(secret), monotonic()
        since, caller = self._trusted.get(key, (-TRUSTED_SECONDS, None))
        if caller is None or now - since >= TRUSTED_SECONDS:
            caller = await run_in_threadpool(self.clinic.tokens.caller, secret, utc_now())
            self._remember(key, now, caller)
        return caller

    def _remember(self, key: str, now: float, caller: Caller | None) -> None:
        self._trusted.pop(key, None)
        if caller is not None:
            if len(self._trusted) >= MOST_TRUSTED:
                self._trusted.clear()
            self._trusted[key] = (now, caller)

    async def _by_session(self, scope: Scope, headers: Headers) -> Caller | None:
        secret = cookie_of(headers)
        if secret is None:
            return None
        need_our_page(scope, headers, secret)
        return await run_in_threadpool(self._session_caller, secret)

    def _session_caller(self, secret: str) -> Caller | None:
        session = self.clinic.login.sessions.find(secret, utc_now())
        if session is None:
            return None
        if session.step is not None:
            raise ProblemError(HTTPStatus.FORBIDDEN, f"The login is not complete: {session.step}. See /v1/session.")
        panels = self.clinic.panels.of_doctor(session.account.id)
        return session.caller(frozenset(panel.id for panel in panels))


def cookie_of(headers: Headers) -> str | None:
    """Return the secret of the session's cookie."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


def need_our_page(scope: Scope, headers: Headers, secret: str) -> None:
    """Refuse what another site made a browser send.

    Raises
    ------
    ProblemError
        403 if it changes something and bears no token of our forms, or names another origin.
    """
    given, origin, host = headers.get(FORM_HEADER), headers.get("origin"), headers.get("host", "")
    if not csrf.is_ours(scope["method"], secret, given, origin=origin, host=host):
        raise ProblemError(HTTPStatus.FORBIDDEN, NOT_OURS)


def _need_right(caller: Caller, action: Action | None) -> None:
    if action is not None and not may(caller, action):
        raise forbidden(RefusedError(action))


def is_open(path: str) -> bool:
    """Whether an address is for everybody, or lets people in."""
    return path in OPEN or any(path == start or path.startswith(f"{start}/") for start in OPEN_BELOW)
