"""What the whole service says of itself (OpenAPI 3.1): BentoML's endpoints and the mounted application's as one."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.api.calls import EXAMPLES, Call
from serving.api.problems import MEDIA_TYPE
from serving.api.scores import ScoreAnswer

Json = dict[str, object]

REFERENCE = "#/components/schemas/{model}"

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
    _, described = models_json_schema(
        [(Call, "validation"), (ScoreAnswer, "serialization"), (ProblemDetails, "serialization")],
        ref_template=REFERENCE,
    )
    schemas = {**mounted.get("components", {}).get("schemas", {}), **described["$defs"]}
    paths = {
        "/v1/score": {"post": SCORE},
        "/livez": {"get": _told("Whether the service runs", {"200": "It does."})},
        "/readyz": {
            "get": _told("Whether the service is ready", {"200": "It is.", "503": "It is not; says what is missing."})
        },
        **mounted["paths"],
    }
    return {**mounted, "paths": paths, "components": {"schemas": schemas}}


def _told(summary: str, responses: Mapping[str, str]) -> Json:
    told = {status: {"description": description} for status, description in responses.items()}
    return {"summary": summary, "responses": told}
