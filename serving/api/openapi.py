"""What the whole service says of itself (OpenAPI 3.1): BentoML's endpoints and the mounted application's as one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.api.calls import EXAMPLES, Call
from serving.api.cds_hooks.calls import FeedbackCall, HookCall
from serving.api.door import is_open
from serving.api.fhir.router import BASE as FHIR
from serving.api.problems import MEDIA_TYPE
from serving.api.scores import ScoreAnswer
from serving.api.standards import KNOWN, OPERATIONS, OUTCOME, REFERENCE, SCHEMES, Json, outcomes, problems

# A shape, as it is sent or as it is answered.
Shape = tuple[type[BaseModel], Literal["validation", "serialization"]]

REFUSALS = {
    "408": "The request was not sent in time.",
    "413": "The request is too large, or holds too many residents or events.",
    "415": "The request is not JSON in UTF-8.",
    "422": "The request says what cannot be; the problem names the place.",
    "503": "No model is loaded, or no answer was found in time.",
}


class FaultDetails(BaseModel):
    """One thing wrong in a request."""

    pointer: Annotated[str, Field(description="Where, as a JSON pointer.", examples=["#/residents/0/events/3/value"])]
    detail: str


class ProblemDetails(BaseModel):
    """A failure (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FaultDetails] = []


# What callers are told by a status of failure.
TOLD = {
    **REFUSALS,
    "400": "The request is not well made.",
    "401": "Nobody is logged in, or the token is not valid.",
    "403": "The caller may not.",
    "404": "There is no such thing.",
    "409": "It cannot be done any more, or is not what was told before.",
    "414": "The address is too long.",
    "422": "The request says what cannot be; the problem names the place.",
    "429": "Too many requests, or failed logins; Retry-After says how long to wait.",
    "431": "The headers are too large.",
    "503": "The database or the models cannot be used now.",
}
# What may come of any request, of one that bears a body, and of one whose caller is to be known.
OF_ANY = ("400", "414", "429", "431", "503")
OF_BODIES = ("408", "413")
OF_STRANGERS = ("401", "403")
WITH_BODY = ("post", "put", "patch", "delete")


def refusals(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Describe the failures that a route answers with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=ProblemDetails.__name__)}}}
    return {status: {"description": TOLD[str(status)], "content": content} for status in statuses}


def takes(body: type[BaseModel]) -> dict[str, Any]:
    """Describe the body of a route that reads it itself."""
    # OpenAPI has one place for shapes; those of a body that is read strictly are written where it is.
    schema = body.model_json_schema(ref_template=REFERENCE)
    return {"openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}}


SCORE: Json = {
    "summary": "Score residents by what is known of them; nothing is kept",
    "description": (
        "A resident who is not at risk by a target's own rule gets the reason instead of a score. Events at or after"
        " the index time are not looked at. Codes, values and events that were not used come back."
    ),
    "operationId": "score",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": REFERENCE.format(model=Call.__name__)},
                "examples": {name: {"value": call} for name, call in EXAMPLES.items()},
            }
        },
    },
    "responses": {
        "200": {
            "description": "Scores, in the order of the call",
            "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model=ScoreAnswer.__name__)}}},
        },
        **{
            status: {
                "description": refusal,
                "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=ProblemDetails.__name__)}}},
            }
            for status, refusal in REFUSALS.items()
        },
    },
}


def specification(application: FastAPI) -> Json:
    """Return the description of the service."""
    mounted = application.openapi()
    taken: list[Shape] = [(model, "validation") for model in (Call, HookCall, FeedbackCall)]
    said: list[Shape] = [(model, "serialization") for model in (ScoreAnswer, ProblemDetails)]
    _, described = models_json_schema([*taken, *said], ref_template=REFERENCE)
    schemas = {**mounted.get("components", {}).get("schemas", {}), **described["$defs"], "OperationOutcome": OUTCOME}
    paths: dict[str, dict[str, Json]] = {
        "/v1/score": {"post": SCORE},
        "/livez": {"get": _told("Whether the service runs", {"200": "It does."})},
        "/readyz": {
            "get": _told("Whether the service is ready", {"200": "It is.", "503": "It is not; says what is missing."})
        },
        **mounted["paths"],
    }
    whole = {
        path: {method: _whole(path, method, operation) for method, operation in methods.items()}
        for path, methods in paths.items()
    }
    return {**mounted, "paths": whole, "components": {"schemas": schemas, "securitySchemes": SCHEMES}}


def _whole(path: str, method: str, operation: Json) -> Json:
    """Return the description of an operation, with what answers before its route does: the gate and the door."""
    operation = {**operation, **OPERATIONS.get((path, method), {})}
    opened = is_open(path)
    statuses = (*OF_ANY, *(OF_BODIES if method in WITH_BODY else ()), *(() if opened else OF_STRANGERS))
    of_all = (outcomes if path.startswith(FHIR) else problems)({status: TOLD[status] for status in statuses})
    responses = {**of_all, **cast(Mapping[str, Json], operation["responses"])}
    known = {} if opened else {"security": KNOWN}
    return {**known, **operation, "responses": dict(sorted(responses.items()))}


def _told(summary: str, responses: Mapping[str, str]) -> Json:
    told = {status: {"description": description} for status, description in responses.items()}
    return {"summary": summary, "responses": told}
