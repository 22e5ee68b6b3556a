"""Bodies of requests, read strictly: JSON in UTF-8, no name twice, nothing that nobody knows."""

import json
from functools import cache
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from serving.api.problems import Fault, ProblemError, unprocessable

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
MOST_FAULTS = 20
# No database keeps the character without a shape.
PLAIN = r"^[^\x00]*$"
# What marks a name that is given twice.
TWICE = "\0"
JSON_TYPES = ("application/json", "application/fhir+json")

M = TypeVar("M", bound=BaseModel)


def read_body(model: type[M], body: bytes, content_type: str) -> M:
    """Read a body.

    Raises
    ------
    ProblemError
        415 where it is not JSON by its own account, 422 where it is not JSON in UTF-8, gives a name twice or holds what
        may not be there; says where.
    """
    return validated(model, read_json(body, content_type))


def read_json(body: bytes, content_type: str) -> object:
    """Read JSON; a name that is given twice leaves a key that no model lets pass.

    Raises
    ------
    ProblemError
        415 where it is not JSON by its own account, 422 where it is not JSON in UTF-8.
    """
    require_json(content_type)
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


def validated(model: type[M], said: object) -> M:
    """Return what was said as a model.

    Raises
    ------
    ProblemError
        422 where it holds what may not be there; says where.
    """
    try:
        return model.model_validate(said)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        names = _names(model)
        raise unprocessable(*(_fault(fault, names) for fault in faults[:MOST_FAULTS])) from None


def require_json(content_type: str) -> None:
    """Refuse what is not JSON by its own account.

    Raises
    ------
    ProblemError
        415.
    """
    kind, _, parameters = content_type.lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() not in JSON_TYPES or (charset and charset not in ("utf-8", "utf8")):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON in UTF-8, with the header Content-Type: application/json."
        )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; a name given twice leaves a key that no model lets pass."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        content[TWICE + next(name for name in names if names.count(name) > 1)] = None
    return content


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _fault(fault: ErrorDetails, names: frozenset[str]) -> Fault:
    """Say what pydantic found, without its names for the branches of a union."""
    *place, last = fault["loc"] or ("",)
    if fault["type"] == "extra_forbidden" and str(last).startswith(TWICE):
        return Fault((*place, str(last).removeprefix(TWICE)), "this name is given twice in one object")
    if fault["type"] == "extra_forbidden":
        return Fault((*place, last), "there is no such name here")
    if fault["type"] == "model_type":
        return Fault(fault["loc"], "there should be an object here")
    where = tuple(part for part in fault["loc"] if isinstance(part, int) or part in names)
    return Fault(where, _small(fault["msg"].removeprefix("Value error, ")))


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of a model's fields, and of those within it."""
    schema = model.model_json_schema()
    of = (schema, *schema.get("$defs", {}).values())
    return frozenset(name for each in of for name in each.get("properties", {}))


def _small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
