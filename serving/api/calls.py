"""What may be asked of ``POST /v1/score``, read strictly: a call that says what cannot be is refused whole."""

from itertools import chain
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from serving.api.bodies import STRICT, read_json, require_json, validated
from serving.api.problems import too_large
from serving.settings import Settings

# Values are stored as singles.
MOST_VALUE = 1e38
BLANKS_BEFORE_COLON = (b" :", b"\t:", b"\n:", b"\r:")

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
    require_json(content_type)
    call = _read_at_once(body)
    if call is not None and _is_within_limits(call, settings):
        return call
    said = read_json(body, content_type)
    _require_within_limits(said, settings)
    return validated(Call, said)


def _read_at_once(body: bytes) -> Call | None:
    """Read a call in one go; None where that cannot be done, or a name may be given twice in an object.

    Where no blank comes before a colon, a quotation mark and a colon end every name, and stand nowhere else but within
    texts: there are as many of them as names only where no name is given twice.
    """
    if any(blank in body for blank in BLANKS_BEFORE_COLON):
        return None
    try:
        call = Call.model_validate_json(body)
    except ValidationError:
        return None
    objects = chain((call,), call.residents, chain.from_iterable(resident.events for resident in call.residents))
    names = sum([len(each.__pydantic_fields_set__) for each in objects])
    return call if names == body.count(b'":') else None


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


def _is_within_limits(call: Call, settings: Settings) -> bool:
    events = sum(len(resident.events) for resident in call.residents)
    return len(call.residents) <= settings.most_residents and events <= settings.most_events
