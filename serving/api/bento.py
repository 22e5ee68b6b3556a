"""BentoML's decorators, with the types that mypy sees left as they were written; and a body as it was sent."""

from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import bentoml
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from pydantic import BaseModel, create_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp

F = TypeVar("F", bound=Callable[..., object])


LEFT_OUT: frozenset[object] = frozenset({OpenTelemetryMiddleware, TimeoutMiddleware})


class Served(Protocol):
    """A service of BentoML's."""

    def to_asgi(self) -> Starlette:
        """Return what serves it."""


class AsSent:
    """Takes a body whatever it is: BentoML's own readers neither refuse nor fail as this service does."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> BaseModel:
        """Return the body and what it says it is; `serde` would have read it."""
        kind = request.headers.get("content-type", "application/json")
        return Body.model_construct(content=await request.body(), content_type=kind)


Body = create_model("Body", __base__=(AsSent, bentoml.IODescriptor), content=(bytes, ...), content_type=(str, ...))


def endpoint(route: str, answer: type[BaseModel]) -> Callable[[F], F]:
    """Make a method, of a body as it was sent, answer calls to a route."""
    return cast(Callable[[F], F], bentoml.api(route=route, input_spec=Body, output_spec=answer))


def bare_asgi(service: Served) -> ASGIApp:
    """Return a service as BentoML serves it, without what it wraps each call in for others' sake.

    The spans of its tracer go nowhere, and take longer than reading a call does; its time limit, which this service has
    of its own, leaves a timer behind with each call until the limit is over.
    """
    app = service.to_asgi()
    app.user_middleware = [each for each in app.user_middleware if each.cls not in LEFT_OUT]
    return app


def settle(instance: object, endpoint: str) -> None:
    """Bind an endpoint to its service once; BentoML otherwise does so for each call, reading its signature again."""
    vars(instance)[endpoint] = getattr(instance, endpoint)


def on_startup(hook: F) -> F:
    """Run a method when a process begins to serve."""
    return cast(F, bentoml.on_startup(hook))


def on_shutdown(hook: F) -> F:
    """Run a method when a process ceases to serve."""
    return cast(F, bentoml.on_shutdown(hook))
