"""BentoML's decorators, with the types that mypy sees left as they were written; and a body as it was sent."""

from collections.abc import Callable
from typing import TypeVar, cast

import bentoml
from pydantic import BaseModel, create_model
from starlette.requests import Request

F = TypeVar("F", bound=Callable[..., object])


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


def on_startup(hook: F) -> F:
    """Run a method when a process begins to serve."""
    return cast(F, bentoml.on_startup(hook))


def on_shutdown(hook: F) -> F:
    """Run a method when a process ceases to serve."""
    return cast(F, bentoml.on_shutdown(hook))
