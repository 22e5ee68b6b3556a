"""What the routes of FHIR R4 and CDS Hooks take and answer, as the description says it."""

from collections.abc import Mapping, Sequence

from serving.api.cds_hooks.calls import FeedbackCall, HookCall
from serving.api.fhir.outcomes import JSON as FHIR_JSON
from serving.api.fhir.outcomes import NDJSON
from serving.api.fhir.router import BASE as FHIR
from serving.api.fhir.router import FORM
from serving.api.problems import MEDIA_TYPE

Json = dict[str, object]

REFERENCE = "#/components/schemas/{model}"
SCHEMES: Mapping[str, Json] = {
    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-weibing", "description": "Of who has logged in."},
    "token": {"type": "http", "scheme": "bearer", "description": "Of a system; an administrator makes it."},
    "signed": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Signed by a listed system."},
}
# What a caller is known by, unless an operation says otherwise.
KNOWN: Sequence[Mapping[str, Sequence[str]]] = ({"session": []}, {"token": []})
SIGNED: Sequence[Mapping[str, Sequence[str]]] = ({"signed": []},)


def resource(kind: str) -> Json:
    """Return the shape of a FHIR resource, as far as anybody needs it before reading the standard."""
    return {"type": "object", "properties": {"resourceType": {"const": kind}}, "required": ["resourceType"]}


OUTCOME: Json = {
    **resource("OperationOutcome"),
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code"],
                "properties": {
                    "severity": {"enum": ["error", "warning"]},
                    "code": {"type": "string"},
                    "diagnostics": {"type": "string"},
                },
            },
        },
    },
}


def _parameter(name: str, place: str, about: str, **schema: object) -> Json:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": about,
        "schema": {"type": "string", **schema},
    }


def _in_fhir(shape: Json, kind: str = FHIR_JSON) -> Json:
    return {"200": {"description": "What was asked for", "content": {kind: {"schema": shape}}}}


def _failures(media_type: str, schema: Json, told: Mapping[str, str]) -> Json:
    content = {media_type: {"schema": schema}}
    return {status: {"description": why, "content": content} for status, why in told.items()}


def outcomes(told: Mapping[str, str]) -> Json:
    """Describe the failures of FHIR's routes."""
    return _failures(FHIR_JSON, {"$ref": REFERENCE.format(model="OperationOutcome")}, told)


def problems(told: Mapping[str, str]) -> Json:
    """Describe the failures of all others."""
    return _failures(MEDIA_TYPE, {"$ref": REFERENCE.format(model="ProblemDetails")}, told)


SUBJECTS = "Patient/ and the number of a resident, or several with commas between."
DATES = "The index time: a date or time with a prefix eq, ge, gt, le or lt; may be given again."
METHODS = "A target such as fall, or a target and version such as fall@3; several with commas between."
# A number of more digits is refused rather than taken for less.
COUNT: Json = {"pattern": r"^[0-9]{1,9}$"}
SEARCHED = [
    _parameter("subject", "query", SUBJECTS, examples=["Patient/7"]),
    _parameter("date", "query", DATES, examples=["ge2025-01-01"]),
    _parameter("method", "query", METHODS, examples=["fall"]),
    _parameter("_count", "query", "How many resources a page holds; 0 for their number alone.", **COUNT),
]
FORM_BODY: Json = {
    "required": True,
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "properties": {str(each["name"]): each["schema"] for each in SEARCHED},
                "additionalProperties": False,
            }
        }
    },
}
NO_JSON = "There is JSON alone here."
REFUSED_SEARCH = {"400": "A parameter cannot be understood.", "406": NO_JSON}
RUN = _parameter("run", "query", "The number of a run; absent: the last.", pattern=r"^[0-9]{1,18}$")
ID = _parameter("id", "path", "The id of a score.", pattern=r"^[A-Za-z0-9\-.]{1,64}$")
GONE = {"404": "There is no such score.", "410": "There is a later score, or none any more."}
LINES: Json = {"type": "string", "description": "A RiskAssessment a line."}

SERVICE = _parameter("id", "path", "The id of a service.", examples=["weibing-patient-view"])
UNREAD = {
    "401": "The token is not good.",
    "404": "There is no such service.",
    "413": "The request is too large.",
    "415": "The request is not JSON.",
    "422": "The request says what cannot be.",
    "503": "No model is loaded, the database cannot be used, or the keys of the caller cannot be had.",
}
CARDS: Json = {"type": "object", "required": ["cards"], "properties": {"cards": {"type": "array"}}}
SERVICES: Json = {"type": "object", "required": ["services"], "properties": {"services": {"type": "array"}}}


def _said(shape: Json) -> Json:
    return {"200": {"description": "What was asked for", "content": {"application/json": {"schema": shape}}}}


def _json_of(model: str, **told: object) -> Json:
    schema = {"$ref": REFERENCE.format(model=model)}
    return {"required": True, "content": {"application/json": {"schema": schema, **told}}}


NONE_FOUND: Json = {"resourceType": "Bundle", "type": "searchset"}
CALL: Json = {
    "hook": "patient-view",
    "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
    "context": {"userId": "Practitioner/wang", "patientId": "p-17"},
    "prefetch": {
        "patient": {"resourceType": "Patient", "id": "p-17", "gender": "female", "birthDate": "1950-03-14"},
        **dict.fromkeys(("conditions", "observations", "medications", "encounters"), NONE_FOUND),
    },
}


# What takes the place of what the framework finds out, by path and method.
OPERATIONS: Mapping[tuple[str, str], Json] = {
    (f"{FHIR}/metadata", "get"): {"responses": _in_fhir(resource("CapabilityStatement")) | outcomes({"406": NO_JSON})},
    (f"{FHIR}/RiskAssessment", "get"): {
        "parameters": SEARCHED,
        "responses": _in_fhir(resource("Bundle")) | outcomes(REFUSED_SEARCH),
    },
    (f"{FHIR}/RiskAssessment/_search", "post"): {
        "requestBody": FORM_BODY,
        "responses": _in_fhir(resource("Bundle")) | outcomes(REFUSED_SEARCH | {"415": "The request is not a form."}),
    },
    (f"{FHIR}/RiskAssessment/$export", "get"): {
        "parameters": [RUN],
        "responses": _in_fhir(LINES, NDJSON)
        | outcomes({"400": "The number cannot be.", "404": "There is no such run."}),
    },
    (f"{FHIR}/RiskAssessment/{{id}}", "get"): {
        "parameters": [ID],
        "responses": _in_fhir(resource("RiskAssessment")) | outcomes(GONE | {"406": NO_JSON}),
    },
    ("/cds-services", "get"): {
        "security": SIGNED,
        "responses": _said(SERVICES) | problems({"401": UNREAD["401"], "503": UNREAD["503"]}),
    },
    ("/cds-services/{id}", "post"): {
        "security": SIGNED,
        "parameters": [SERVICE],
        "requestBody": _json_of(HookCall.__name__, example=CALL),
        "responses": _said(CARDS) | problems(UNREAD | {"412": "What is needed of the resident cannot be had."}),
    },
    ("/cds-services/{id}/feedback", "post"): {
        "security": SIGNED,
        "parameters": [SERVICE],
        "requestBody": _json_of(FeedbackCall.__name__),
        "responses": {"200": {"description": "It is kept."}, **problems(UNREAD)},
    },
}
