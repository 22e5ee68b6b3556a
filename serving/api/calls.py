"""What may be asked of ``POST /v1/score``, read strictly: a call that says what cannot be is refused whole."""

import json
from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from serving.api.problems import Fault, ProblemError, too_large, unprocessable
from serving.settings import Settings

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
MOST_FAULTS = 20
# Values are stored as singles.
MOST_VALUE = 1e38
# What marks a name that is given twice.
TWICE = "\0"
JSON_TYPES = ("application/json", "application/fhir+json")

EXAMPLE_EVENTS = [
    {"time": "1958-03-14", "code": "MEDS_BIRTH"},
    {"time": None, "code": "female", "value": 1},
    {"time": "2023-04-02", "code": "LOINC//8480-6", "value": 138, "unit": "mm[Hg]"},
    {"time": "2024-04-11", "code": "sbp", "value": 18.4, "unit": "kPa"},
    {"time": "2024-04-11", "code": "bmi", "value": 26.1},
    {"time": "2024-06-30", "code": "ICD10//W19"},
]
EXAMPLES = {
    "one resident": {"residents": [{"id": "A-17", "index_time": "2025-01-01", "events": EXAMPLE_EVENTS}]},
    "two residents, the strongest driver": {
        "residents": [
            {"id": "A-17", "index_time": "2025-01-01", "events": EXAMPLE_EVENTS},
            {"id": 18, "index_time": "2025-01-01T08:30:00+08:00", "events": EXAMPLE_EVENTS[:1]},
        ],
        "drivers": 1,
    },
}


class Event(BaseModel):
    """One dated fact of a resident."""

    model_config = STRICT

    time: Annotated[
        str | None,
        Field(
            description="ISO 8601 date or time; without an offset, in the county's time zone. Null: always true of the"
            " resident. What lies at or after the index time is not looked at.",
            max_length=40,
            examples=["2024-05-01"],
        ),
    ] = None
    code: Annotated[
        str,
        Field(
            description="The name of a concept, or SYSTEM//code (LOINC, ICD10, ATC, OMOP, WS, …). Birth is MEDS_BIRTH,"
            " death MEDS_DEATH, the end of observation OBSERVATION_END.",
            min_length=1,
            max_length=200,
            examples=["sbp", "LOINC//8480-6", "ICD10//E11.9"],
        ),
    ]
    value: Annotated[
        float | None,
        Field(description="The number, where there is one.", ge=-MOST_VALUE, le=MOST_VALUE, examples=[152]),
    ] = None
    unit: Annotated[
        str | None,
        Field(
            description="The unit of the value (UCUM); absent: the concept's own.", max_length=60, examples=["mm[Hg]"]
        ),
    ] = None
    text: Annotated[str | None, Field(description="A remark; not used by any model.", max_length=4_000)] = None


class Resident(BaseModel):
    """A resident, and what is known of the resident."""

    model_config = STRICT

    id: Annotated[
        Annotated[str, Field(max_length=200)] | int,
        Field(description="Whatever the caller knows the resident by; comes back as it is.", examples=["A-17"]),
    ]
    index_time: Annotated[
        str | None,
        Field(description="The moment from which to predict; absent: now.", max_length=40, examples=["2025-01-01"]),
    ] = None
    events: list[Event]


class Call(BaseModel):
    """A call for scores."""

    model_config = STRICT

    residents: Annotated[list[Resident], Field(min_length=1)]
    targets: Annotated[
        list[str] | None,
        Field(description="What to predict; absent: all that is served.", min_length=1, examples=[["hypertension"]]),
    ] = None
    drivers: Annotated[int, Field(description="How many drivers to name in each score.", ge=0, le=200)] = 5


def read_call(body: bytes, content_type: str, settings: Settings) -> Call:
    """Read a call.

    Raises
    ------
    ProblemError
        415 where the body is not JSON by its own account, 413 where it asks for too much at once, 422 where it is not
        JSON in UTF-8, gives a name twice or holds what may not be there; says where.
    """
    _require_json(content_type)
    said = _decoded(body)
    _require_within_limits(said, settings)
    try:
        return Call.model_validate(said)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise unprocessable(*map(_fault, faults[:MOST_FAULTS])) from None


def _require_json(content_type: str) -> None:
    kind, _, parameters = content_type.lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() not in JSON_TYPES or (charset and charset not in ("utf-8", "utf8")):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON in UTF-8, with the header Content-Type: application/json."
        )


def _decoded(body: bytes) -> object:
    try:
        return _DECODER.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        wrong = f"the body is not UTF-8: look at byte {error.start + 1:,}"
    except json.JSONDecodeError as error:
        wrong = f"the body is not JSON: {_small(error.msg)} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        wrong = "the body is nested too deeply"
    except ValueError:
        wrong = "the body holds a number of too many digits"
    raise unprocessable(Fault((), wrong))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; a name given twice leaves a key that no model lets pass."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        content[TWICE + next(name for name in names if names.count(name) > 1)] = None
    return content


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _require_within_limits(said: object, settings: Settings) -> None:
    residents = said.get("residents") if isinstance(said, dict) else None
    if not isinstance(residents, list):
        return
    if len(residents) > settings.most_residents:
        raise too_large(f"{len(residents):,} residents in one call; at most {settings.most_residents:,}.")
    each = [resident.get("events") for resident in residents if isinstance(resident, dict)]
    events = sum(len(of) for of in each if isinstance(of, list))
    if events > settings.most_events:
        raise too_large(f"{events:,} events in one call; at most {settings.most_events:,}.")


def _fault(fault: ErrorDetails) -> Fault:
    """Say what pydantic found, without its names for the branches of a union."""
    *place, last = fault["loc"] or ("",)
    if fault["type"] == "extra_forbidden" and str(last).startswith(TWICE):
        return Fault((*place, str(last).removeprefix(TWICE)), "this name is given twice in one object")
    if fault["type"] == "extra_forbidden":
        return Fault((*place, last), "there is no such name here")
    if fault["type"] == "model_type":
        return Fault(fault["loc"], "there should be an object here")
    return Fault(tuple(part for part in fault["loc"] if isinstance(part, int) or part in _NAMES), _small(fault["msg"]))


def _small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


_NAMES = {name for model in (Event, Resident, Call) for name in model.model_fields}
