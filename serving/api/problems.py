"""Failures that look like failures: problem details (RFC 9457), and nothing in them that is the service's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
OTHER_METHOD = "This address does not answer this method."
BROKEN = "Something broke in the service. Its log says what."


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a request: where, as names and positions from the outside in, and what."""

    place: tuple[str | int, ...]
    detail: str

    @property
    def path(self) -> str:
        """The place as one writes it: ``residents[0].events[3].value``."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place)
        return "".join(parts).lstrip(".")

    @property
    def pointer(self) -> str:
        """The place as a JSON pointer in a URI fragment (RFC 6901): ``#/residents/0/events/3/value``."""
        escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in self.place)
        return "#" + "".join(f"/{part}" for part in escaped)


@dataclass(eq=False)
class ProblemError(Exception):
    """A failure that the caller is told of.

    Attributes
    ----------
    detail : a sentence that says what is wrong and what to do
    faults : where in the request, as far as that is known
    """

    status: HTTPStatus
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        """Return what the caller gets."""
        content: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        if self.faults:
            content["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in self.faults]
        return JSONResponse(content, int(self.status), dict(self.headers), MEDIA_TYPE)


def unprocessable(*faults: Fault) -> ProblemError:
    """Return the problem of a request that says something that cannot be."""
    told = "; ".join(f"{fault.path}: {fault.detail}" if fault.place else fault.detail for fault in faults)
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{told}.", faults)


def bad_request(detail: str) -> ProblemError:
    """Return the problem of a request that is not well made; it ends the connection, as its end is not known."""
    return ProblemError(HTTPStatus.BAD_REQUEST, detail, headers={"Connection": "close"})


def too_large(detail: str, status: HTTPStatus = HTTPStatus.REQUEST_ENTITY_TOO_LARGE) -> ProblemError:
    """Return the problem of a request beyond a limit; it ends the connection, as the rest is not read."""
    return ProblemError(status, detail, headers={"Connection": "close"})


def too_often(retry_seconds: int) -> ProblemError:
    """Return the problem of a caller who asks more often than anybody may."""
    detail = f"These are too many requests. Try again in {retry_seconds} s."
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(retry_seconds)})


def unavailable(detail: str, retry_seconds: int = 5) -> ProblemError:
    """Return the problem of a service that cannot answer now, but will."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_seconds)})
