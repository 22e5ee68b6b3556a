"""Failures as FHIR says them: OperationOutcomes."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from serving.api.problems import ProblemError

JSON = "application/fhir+json"
NDJSON = "application/fhir+ndjson"

# The codes of FHIR's IssueType for what happens here; what is not listed is a transient or broken service.
ISSUES: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "invalid",
    HTTPStatus.UNAUTHORIZED: "login",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "not-supported",
    HTTPStatus.NOT_ACCEPTABLE: "not-supported",
    HTTPStatus.GONE: "deleted",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "not-supported",
    HTTPStatus.TOO_MANY_REQUESTS: "throttled",
    HTTPStatus.SERVICE_UNAVAILABLE: "transient",
}


def written(resource: Mapping[str, object]) -> bytes:
    """Return a resource as JSON on one line."""
    return json.dumps(resource, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def answer(resource: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a resource as an answer."""
    return Response(written(resource), status, dict(headers or {}), JSON)


def failure(problem: ProblemError) -> Response:
    """Return a failure as an answer."""
    return answer(operation_outcome(problem), int(problem.status), problem.headers)


def operation_outcome(problem: ProblemError) -> dict[str, object]:
    """Return a failure as a resource."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {"severity": "error", "code": ISSUES.get(problem.status, "exception"), "diagnostics": problem.detail}
        ],
    }
