"""What is wrong with the values of an Observation.

What is left out of a hospital's export is refused here: whoever sends it can still mend it.
"""

from collections.abc import Iterator
from math import isfinite

from features.sources.fhir.elements import LARGEST, Element, elements
from serving.api.bodies import TWICE
from serving.api.problems import Fault

Place = tuple[str | int, ...]

# What a value of each kind is in JSON.
KINDS: dict[str, tuple[type, str]] = {
    "valueQuantity": (dict, "an object with a value"),
    "valueCodeableConcept": (dict, "an object"),
    "valueString": (str, "a text"),
    "valueBoolean": (bool, "true or false"),
    "valueInteger": (int, "a whole number"),
}
QUANTITY = "valueQuantity"


def unreadable(said: object) -> Iterator[Fault]:
    """Yield where JSON says what no other program would read alike, or no database keep."""
    waiting: list[tuple[Place, object]] = [((), said)]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, dict):
            twice = [name for name in part if name.startswith(TWICE)]
            yield from (Fault((*place, name[1:]), "this name is given twice in one object") for name in twice)
            waiting += [((*place, name), value) for name, value in part.items() if name not in twice]
        elif isinstance(part, list):
            waiting += [((*place, number), value) for number, value in enumerate(part)]
        elif isinstance(part, float) and not isfinite(part):
            yield Fault(place, "this is no number that JSON knows")
        elif isinstance(part, str) and "\0" in part:
            yield Fault(place, "this holds a character that no text has")


def wrong_values(observation: Element) -> Iterator[Fault]:
    """Yield what is wrong with the values of an Observation and its components."""
    yield from _wrong(observation, ())
    for number, component in enumerate(elements(observation, "component")):
        yield from _wrong(component, ("component", number))


def _wrong(part: Element, place: Place) -> Iterator[Fault]:
    given = [name for name in part if name.startswith("value")]
    if len(given) > 1:
        yield Fault((*place, given[1]), f"there is {given[0]} already: an Observation has one value")
    for name in given:
        if fault := _fault(name, part[name]):
            yield Fault((*place, name), fault)


def _fault(name: str, value: object) -> str:
    if name not in KINDS:
        return f"this is not taken; there are {', '.join(KINDS)}"
    kind, what = KINDS[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return f"there should be {what} here"
    number = value.get("value") if isinstance(value, dict) else value
    if name == QUANTITY and (isinstance(number, bool) or not isinstance(number, int | float)):
        return "its value should be a number"
    if isinstance(number, int | float) and abs(number) > LARGEST:
        return "this number is too large"
    return ""
