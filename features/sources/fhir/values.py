"""What an Observation or an answer says: a number with its unit, a coded answer, or a word."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from features.sources.fhir.coding import rows, struck_out, written
from features.sources.fhir.elements import LARGEST, Element, element, elements, number, text
from features.vocabulary import builtin

# A result is a word or two; what is longer is a note, in which a name may stand.
LONGEST_RESULT = 40
UCUM = "http://unitsofmeasure.org"
# How an answer of a scale tells what it counts.
SCORES = frozenset(
    {
        "http://hl7.org/fhir/StructureDefinition/ordinalValue",
        "http://hl7.org/fhir/StructureDefinition/itemWeight",
        "http://hl7.org/fhir/StructureDefinition/questionnaire-ordinalValue",
    }
)

_PRINTED_NUMBER = re.compile(r"([<>≤≥]=?)?\s*([+-]?\d{1,30}(?:\.\d{1,30})?)")


class Value(NamedTuple):
    """What was found: `bound` where the number is only one, such as ``<0.5``; `answers` are the codes of an answer."""

    number: float | None = None
    unit: str | None = None
    text: str | None = None
    answers: tuple[str, ...] = ()
    bound: bool = False
    struck_out: bool = False


def given(part: Element) -> Iterator[tuple[str, Value | None]]:
    """Yield the values of an Observation, a component or an answer by their names; None for one that cannot be used."""
    for name in part:
        if name.startswith("value"):
            yield name, _READERS[name](part, name) if name in _READERS else None


def score(*holders: Element) -> float | None:
    """Return what an answer counts, where one of its elements says so."""
    for holder in holders:
        for extension in elements(holder, "extension"):
            if text(extension, "url") in SCORES:
                return number(extension, "valueDecimal")
    return None


def worth(answers: tuple[str, ...], code: str) -> float | None:
    """Return the number for which a coded answer to a code stands, or None where it stands for none."""
    if not answers:
        return None
    concepts = [*(meaning.concept for meaning in builtin().meanings(code)), ""]
    told = (_answers().get((answer, concept)) for answer in answers for concept in concepts)
    return next((value for value in told if value is not None), None)


def is_a_fact(code: str) -> bool:
    """Whether a code needs no number beside it, as that of a fall does not: then a 0 says that there was none."""
    meanings = builtin().meanings(code)
    return any(it.value is None and not builtin().concepts[it.concept].numeric for it in meanings)


def _quantity(part: Element, name: str) -> Value | None:
    quantity = element(part, name)
    found = number(quantity, "value")
    if found is None:
        return None
    code, unit = text(quantity, "code"), text(quantity, "unit")
    if text(quantity, "system") not in (UCUM, None):
        code, unit = unit, code
    comparator = text(quantity, "comparator")
    bound = f"{comparator}{found:g}" if comparator else None
    return Value(found, code or unit, bound, bound=bound is not None)


def _number(part: Element, name: str) -> Value | None:
    found = number(part, name)
    return None if found is None else Value(found)


def _boolean(part: Element, name: str) -> Value | None:
    found = part.get(name)
    return Value(float(found)) if isinstance(found, bool) else None


def _coding(part: Element, name: str) -> Value | None:
    return _coded([element(part, name)], part)


def _concept(part: Element, name: str) -> Value | None:
    concept = element(part, name)
    return _coded(elements(concept, "coding")) or _words(concept, "text")


def _coded(codings: list[Element], *holders: Element) -> Value | None:
    answers = tuple(code for coding in codings if (code := written(coding, "answer")))
    return Value(score(*codings, *holders), text=answers[0], answers=answers) if answers else None


def _words(part: Element, name: str) -> Value | None:
    words = text(part, name)
    if words is None:
        return None
    plain = struck_out(words)
    match = _PRINTED_NUMBER.fullmatch(plain)
    if match and float(match[2]) <= LARGEST:
        return Value(float(match[2]), text=plain if match[1] else None, bound=bool(match[1]))
    return Value(text=plain, struck_out=plain != words) if len(plain) <= LONGEST_RESULT else None


_READERS: Mapping[str, Callable[[Element, str], Value | None]] = {
    "valueQuantity": _quantity,
    "valueInteger": _number,
    "valueDecimal": _number,
    "valueBoolean": _boolean,
    "valueCodeableConcept": _concept,
    "valueCoding": _coding,
    "valueString": _words,
}


@cache
def _answers() -> dict[tuple[str, str], float]:
    return {(row["answer"], row["concept"]): float(row["value"]) for row in rows("answers")}
