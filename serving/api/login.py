"""``/v1/session``: how people log in, step by step, and out; and the way by the county's login server.

The cookie is the session's; what a form needs besides, ``csrf``, each answer gives.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from features.errors import WeibingError
from serving.api.bodies import PLAIN, STRICT, read_body
from serving.api.clinic import Clinic
from serving.api.door import NOT_OURS, address_of, away, cookie_of, need_our_page, unknown, utc_now
from serving.api.openapi import refusals, takes
from serving.api.problems import Fault, ProblemError, unavailable, unprocessable
from serving.audit import Entry
from serving.security import csrf
from serving.security.accounts import Account
from serving.security.login import LoginError
from serving.security.oidc import ARRIVAL
from serving.security.passwords import TooManyError
from serving.security.roles import Role
from serving.security.sessions import Step, cookie
from serving.store.database import AwayError

P = ParamSpec("P")
T = TypeVar("T")

SESSION = "/v1/session"
DEPARTURE = "/login/server"
# Holds what a browser that left for the login server is known by when it comes back; the session's comes after.
DEPARTED = "__Host-weibing-away"
# Argon2 takes 64 MiB and a twentieth of a second each: a crowd waits here, and not in the machine's memory.
LOGINS_AT_ONCE = 2


class Credentials(BaseModel):
    """A name and a password."""

    model_config = STRICT

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
    password: Annotated[str, Field(min_length=1, max_length=1_000)]


class Code(BaseModel):
    """A one-time code."""

    model_config = STRICT

    code: Annotated[str, Field(min_length=1, max_length=20)]


class NewPassword(BaseModel):
    """The present password, and the one to come."""

    model_config = STRICT

    before: Annotated[str, Field(min_length=1, max_length=1_000)]
    password: Annotated[str, Field(min_length=1, max_length=1_000)]


class SessionSaid(BaseModel):
    """Who is logged in, and what the login still lacks."""

    name: str
    label: str
    role: Role
    step: Annotated[
        Step | None, Field(description="What is to be done before anything else; null: the login is complete.")
    ]
    csrf: Annotated[str, Field(description="Send it as the header X-CSRF-Token with whatever changes something.")]


class CodeSetUp(BaseModel):
    """What an authenticator app reads, from a QR code or as it is."""

    address: str


Logged = Literal["log in", "log out", "give code", "set up code", "change password"]


def login_router(clinic: Clinic) -> APIRouter:
    """Return the routes by which people log in and out."""
    router, desk = APIRouter(tags=["session"]), _Desk(clinic)
    add = router.add_api_route
    said: dict[str, Any] = {"response_model": SessionSaid}
    add(SESSION, desk.told, summary="Who is logged in", responses=refusals(401, 503), **said)
    add(SESSION, desk.log_in, methods=["POST"], summary="Log in", **said, **_takes(Credentials, 401, 429))
    add(SESSION, desk.log_out, methods=["DELETE"], summary="Log out", status_code=204, responses=refusals(403, 503))
    step: dict[str, Any] = {"methods": ["POST"], **said}
    add(f"{SESSION}/code", desk.give_code, summary="Give the one-time code", **step, **_takes(Code, 401, 429))
    add(
        f"{SESSION}/code/secret",
        desk.set_up,
        methods=["POST"],
        summary="Begin with one-time codes",
        response_model=CodeSetUp,
        responses=refusals(401, 403, 503),
    )
    add(
        f"{SESSION}/code/first",
        desk.confirm,
        summary="Give the first code of the app",
        **step,
        **_takes(Code, 401, 429),
    )
    add(f"{SESSION}/password", desk.change, summary="Change the password", **step, **_takes(NewPassword, 401, 429))
    if clinic.login_server:
        add(DEPARTURE, desk.depart, summary="Log in at the county's login server", include_in_schema=False)
        add(ARRIVAL, desk.arrive, summary="Come back from it", include_in_schema=False)
    return router


class _Desk:
    """Answers requests; whatever takes the database or a hash's time is done beside the loop."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.login = clinic.login
        self._few = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def told(self, request: Request) -> Response:
        """Say who is logged in."""
        secret = _need_secret(request)
        return _kept(secret, await self._done(self._said, secret))

    async def log_in(self, request: Request) -> Response:
        """Begin a session."""
        _need_our_origin(request)
        sent = read_body(Credentials, await request.body(), request.headers.get("content-type", ""))
        address = address_of(request.scope)
        async with self._few:
            secret, account = await self._tried(
                "log in", address, self.login.by_password, sent.name, sent.password, address, utc_now()
            )
        await self._written("log in", account, address)
        return _kept(secret, await self._done(self._said, secret))

    async def log_out(self, request: Request) -> Response:
        """End the session, if there is one."""
        secret = cookie_of(request.headers)
        if secret is not None:
            need_our_page(request.scope, request.headers, secret)
            session = await self._done(self.login.sessions.find, secret, utc_now())
            await self._done(self.login.sessions.end, secret)
            if session is not None:
                await self._written("log out", session.account, address_of(request.scope))
        answer = Response(status_code=HTTPStatus.NO_CONTENT)
        answer.set_cookie(**cookie(None))  # type: ignore[arg-type]  # a mapping of what it takes
        return answer

    async def give_code(self, request: Request) -> Response:
        """Complete a login with a one-time code."""
        return await self._coded(request, "give code", self.login.give_code)

    async def confirm(self, request: Request) -> Response:
        """Complete the setting up of one-time codes."""
        return await self._coded(request, "set up code", self.login.confirm_code)

    async def set_up(self, request: Request) -> Response:
        """Give the secret of the one-time codes to come."""
        secret, address = _need_our_secret(request), address_of(request.scope)
        made = await self._tried("set up code", address, self.login.set_up_code, secret, utc_now())
        return JSONResponse({"address": made})

    async def change(self, request: Request) -> Response:
        """Change the password."""
        secret, address = _need_our_secret(request), address_of(request.scope)
        sent = read_body(NewPassword, await request.body(), request.headers.get("content-type", ""))
        async with self._few:
            fresh = await self._tried(
                "change password", address, self.login.change_password, secret, sent.before, sent.password, utc_now()
            )
        return await self._stepped("change password", fresh, address)

    async def depart(self) -> Response:
        """Send the browser to the login server."""
        server = self.clinic.login_server
        assert server is not None
        try:
            where, secret = await run_in_threadpool(server.depart, utc_now())
        except AwayError:
            raise away() from None
        except WeibingError as error:
            raise unavailable(str(error)) from None
        answer = RedirectResponse(where, HTTPStatus.SEE_OTHER)
        answer.set_cookie(DEPARTED, secret, max_age=600, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    async def arrive(self, request: Request) -> Response:
        """Let in who comes back from the login server."""
        server, address = self.clinic.login_server, address_of(request.scope)
        assert server is not None
        said, departed = dict(request.query_params), request.cookies.get(DEPARTED)
        secret, account = await self._tried("log in", address, server.arrive, said, departed, utc_now())
        await self._written("log in", account, address)
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        answer.set_cookie(**cookie(secret))  # type: ignore[arg-type]  # a mapping of what it takes
        answer.delete_cookie(DEPARTED, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    async def _coded(self, request: Request, action: Logged, take: Callable[..., str]) -> Response:
        secret, address = _need_our_secret(request), address_of(request.scope)
        sent = read_body(Code, await request.body(), request.headers.get("content-type", ""))
        fresh = await self._tried(action, address, take, secret, sent.code, utc_now())
        return await self._stepped(action, fresh, address)

    async def _stepped(self, action: Logged, fresh: str, address: str) -> Response:
        session = await self._done(self.login.sessions.find, fresh, utc_now())
        if session is not None:
            await self._written(action, session.account, address)
        return _kept(fresh, await self._done(self._said, fresh))

    def _said(self, secret: str) -> SessionSaid:
        session = self.login.sessions.find(secret, utc_now())
        if session is None:
            raise unknown()
        account = session.account
        token = csrf.form_token(secret)
        return SessionSaid(name=account.name, label=account.label, role=account.role, step=session.step, csrf=token)

    async def _tried(
        self, action: Logged, address: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Do a step of a login; write down where it fails, and say no more than that."""
        try:
            return await self._done(work, *arguments, **named)
        except LoginError as error:
            await self._done(self.clinic.audit.write, Entry(utc_now(), action, allowed=False, address=address))
            raise ProblemError(HTTPStatus.UNAUTHORIZED, str(error)) from None
        except TooManyError as error:
            await self._done(
                self.clinic.audit.write, Entry(utc_now(), action, allowed=False, address=address, why="must wait")
            )
            wait = {"Retry-After": str(error.seconds)}
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=wait) from None
        except WeibingError as error:
            raise unprocessable(Fault((), str(error).rstrip("."))) from None

    async def _written(self, action: Logged, account: Account, address: str) -> None:
        who, name, role = account.id, account.name, account.role
        entry = Entry(utc_now(), action, who=who, name=name, role=role, via="session", address=address)
        await self._done(self.clinic.audit.write, entry)

    async def _done(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await run_in_threadpool(work, *arguments, **named)
        except AwayError:
            raise away() from None


def _takes(body: type[BaseModel], *refused: int) -> dict[str, Any]:
    return {"responses": refusals(*refused, 403, 413, 415, 422, 503), **takes(body)}


def _need_secret(request: Request) -> str:
    secret = cookie_of(request.headers)
    if secret is None:
        raise unknown()
    return secret


def _need_our_secret(request: Request) -> str:
    secret = _need_secret(request)
    need_our_page(request.scope, request.headers, secret)
    return secret


def _need_our_origin(request: Request) -> None:
    """Refuse a login that the page of another site began; no browser sends JSON to another origin unasked."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is not None and csrf.host_of(origin) != host.lower():
        raise ProblemError(HTTPStatus.FORBIDDEN, NOT_OURS)


def _kept(secret: str, said: SessionSaid) -> Response:
    answer = JSONResponse(said.model_dump())
    answer.set_cookie(**cookie(secret))  # type: ignore[arg-type]  # a mapping of what it takes
    return answer
