"""What the resources of each type become: events. One function for each type.

A resource becomes events, or is left out as a whole for one reason: it raises LeftOutError. What cannot be used of a
resource that becomes events otherwise is counted as a part.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from features.sources.fhir.coding import codes_of, rows, written
from features.sources.fhir.definitions import KINDS, Definitions, Question, drug_codes
from features.sources.fhir.elements import (
    FIRST_DAY,
    MIDDLE,
    NOTHING,
    Element,
    at,
    element,
    elements,
    moment,
    referred,
    text,
)
from features.sources.fhir.home import at_home, taken_at_home
from features.sources.fhir.reading import Resource
from features.sources.fhir.values import Value, given, is_a_fact, worth
from features.sources.report import BIRTH, DEATH, FEMALE, IngestReport, Reason
from features.sources.table.rows import shown
from features.times import local_day

UNTYPED = "without a resourceType"
SEX = {"female": 1.0, "male": 0.0}
FORM = "QuestionnaireResponse"
STAY, STAY_LENGTH = "hospital_stay", "length_of_stay"

# Where the time of each type stands; the first that is told counts. What holds over a period is known at its end, what
# begins is known when it does.
TIMES: Mapping[str, tuple[str, ...]] = {
    "Observation": ("effectiveDateTime", "effectiveInstant", "effectivePeriod.end", "effectivePeriod.start", "issued"),
    "Condition": ("onsetDateTime", "onsetPeriod.start", "recordedDate"),
    "MedicationRequest": ("authoredOn",),
    "MedicationStatement": ("effectiveDateTime", "effectivePeriod.start", "dateAsserted"),
    "MedicationDispense": ("whenHandedOver", "whenPrepared"),
    "Encounter": ("period.start",),
    "Procedure": ("performedDateTime", "performedPeriod.start"),
    FORM: ("authored",),
}


class Event(NamedTuple):
    """An event of the resident whom the resource is about; without a time it is always true."""

    code: str
    time: datetime | None
    value: float | None = None
    text: str | None = None
    unit: str | None = None


class LeftOutError(Exception):
    """A resource becomes no event; says why, of what kind of thing that is said, and an example where that helps."""

    def __init__(self, reason: Reason, thing: str, example: str | None = None) -> None:
        super().__init__(reason, thing, example)
        self.reason = reason
        self.thing = thing
        self.example = example


@dataclass(frozen=True)
class Context:
    """What resources are read with: the zone of dates, what others define, and the report of what cannot be used."""

    zone: ZoneInfo
    report: IngestReport
    definitions: Definitions = field(default_factory=Definitions)

    def part(self, resource: Resource, thing: str) -> None:
        """Count a part of a resource that cannot be used, the first with its place."""
        thing = f"{resource.kind}, {thing}"
        example = None if self.report.has_example(Reason.PART, thing) else resource.place
        self.report.remark(Reason.PART, thing, example=example)

    def note(self, reason: Reason, resource: Resource) -> None:
        """Count a value of a resource under a reason."""
        self.report.remark(reason, resource.kind, example=resource.place)


def events_of(resource: Resource, context: Context) -> list[Event]:
    """Return the events that a resource becomes, one or more.

    Raises
    ------
    LeftOutError
        If it becomes none.
    """
    if resource.kind not in _READERS:
        kind = resource.kind or UNTYPED
        raise LeftOutError(Reason.NOT_READ, f"{kind}, but for what refers to it" if kind in KINDS else kind)
    _require_done(resource)
    events = list(_READERS[resource.kind](resource, context))
    if not events:
        raise LeftOutError(Reason.SAYS_NOTHING, resource.kind, resource.place)
    return events


def patient_of(resource: Resource) -> str:
    """Return the id of the Patient whom a resource is about.

    Raises
    ------
    LeftOutError
        If that cannot be told.
    """
    if resource.kind == "Patient":
        found: str | None = resource.id and f"Patient/{resource.id}"
    else:
        found = referred(text(element(resource.content, "subject"), "reference"), resource.names)
    if not found or not found.startswith("Patient/"):
        raise LeftOutError(Reason.NO_SUBJECT, resource.kind, resource.place)
    return found.removeprefix("Patient/")


def _patient(resource: Resource, context: Context) -> Iterator[Event]:
    sex = text(resource.content, "gender")
    if sex in SEX:
        yield Event(FEMALE, None, SEX[sex])
    elif sex:
        context.part(resource, f"gender {shown(sex)}")
    for name, code in (("birthDate", BIRTH), ("deceasedDateTime", DEATH)):
        if told := text(resource.content, name):
            when = moment(told, context.zone, MIDDLE)
            if when:
                yield Event(code, when)
            else:
                context.part(resource, f"{name} that is not a date")
    if resource.content.get("deceasedBoolean") is True:
        context.part(resource, "death without a date")


def _observation(resource: Resource, context: Context) -> Iterator[Event]:
    when = _time(resource, context)
    parts = [resource.content, *elements(resource.content, "component")]
    coded = [(part, codes_of([element(part, "code")], resource.kind)) for part in parts]
    if taken_at_home(resource.content):
        coded = [(part, tuple(map(at_home, codes))) for part, codes in coded]
    if not any(codes for _, codes in coded):
        raise LeftOutError(Reason.NOT_CODED, resource.kind, resource.place)
    for part, codes in coded:
        yield from _said(part, Question(codes), when, resource, context)


def _coded(resource: Resource, context: Context) -> Iterator[Event]:
    """Yield what a code and a time tell: that of a disease, that of an operation."""
    when = _time(resource, context)
    codes = codes_of([element(resource.content, "code")], resource.kind)
    yield from (Event(code, when) for code in _required(codes, resource))


def _medication(resource: Resource, context: Context) -> Iterator[Event]:
    codes = _drug(resource, context.definitions)
    if not codes and "medicationReference" in resource.content:
        raise LeftOutError(Reason.NOT_CODED, f"{resource.kind}, whose Medication is not there", resource.place)
    for when in dict.fromkeys([_time(resource, context), *_asserted(resource, context)]):
        yield from (Event(code, when) for code in _required(codes, resource))


def _encounter(resource: Resource, context: Context) -> Iterator[Event]:
    begin = _time(resource, context)
    coding = element(resource.content, "class")
    concept = _classes().get((text(coding, "code") or "").upper())
    code = concept or written(coding, resource.kind)
    yield from (Event(code, begin) for code in _required((code,) if code else (), resource))
    end = moment(at(resource.content, "period.end") or "", context.zone)
    if concept == STAY and end and end >= begin:
        yield Event(STAY_LENGTH, end, _days(begin, end, context.zone.key), unit="d")


def _answers(resource: Resource, context: Context) -> Iterator[Event]:
    when = _time(resource, context)
    form = text(resource.content, "questionnaire")
    for item in _items(resource.content):
        question = context.definitions.question(form, text(item, "linkId"))
        for answer in elements(item, "answer"):
            yield from _said(answer, question, when, resource, context)


def _said(part: Element, question: Question, when: datetime, resource: Resource, context: Context) -> Iterator[Event]:
    """Yield an event for each code that a part says something about."""
    told = list(given(part))
    if told and not question.codes:
        context.part(resource, "a value without a code")
    if told:
        for value in _taken(told, resource, context):
            for code in question.codes:
                yield from _measured(code, value, question.score(value.answers), when, resource, context)
    elif part is not resource.content:
        context.part(resource, "a part without a value")
    elif not any(name in part for name in ("dataAbsentReason", "component", "hasMember")):
        yield from (Event(code, when) for code in question.codes if is_a_fact(code))


def _taken(told: list[tuple[str, Value | None]], resource: Resource, context: Context) -> Iterator[Value]:
    """Yield the values that are taken; people's own words in a form are not, since names may stand in them."""
    for name, value in told:
        if value is None or (resource.kind == FORM and name == "valueString"):
            context.part(resource, f"{name} that is not taken")
            continue
        if value.bound:
            context.note(Reason.BOUND, resource)
        if value.struck_out:
            context.note(Reason.STRUCK_OUT, resource)
        yield value


def _measured(
    code: str, value: Value, score: float | None, when: datetime, resource: Resource, context: Context
) -> Iterator[Event]:
    """Yield an event of a code with a value; none where it says that something is not so."""
    numbers = (value.number, score, worth(value.answers, code))
    number = next((it for it in numbers if it is not None), None)
    if is_a_fact(code) and not (number or 0) > 0:
        context.part(resource, f"answers other than yes to {code}")
    else:
        yield Event(code, when, number, value.text, value.unit)


def _items(of: Element) -> Iterator[Element]:
    """Yield the items of a form, also those within others and under answers."""
    waiting = [of]
    while waiting:
        part = waiting.pop()
        waiting += elements(part, "answer")
        for item in elements(part, "item"):
            yield item
            waiting.append(item)


def _drug(resource: Resource, definitions: Definitions) -> tuple[str, ...]:
    """Return the codes of the drug that is named, or referred to: within the resource, or elsewhere."""
    named = codes_of([element(resource.content, "medicationCodeableConcept")], resource.kind)
    reference = text(element(resource.content, "medicationReference"), "reference")
    if named or not reference:
        return named
    if reference.startswith("#"):
        contained = (it for it in elements(resource.content, "contained") if text(it, "id") == reference[1:])
        return drug_codes(next(contained, NOTHING))
    return definitions.drugs.get(referred(reference, resource.names) or "", ())


def _asserted(resource: Resource, context: Context) -> Iterator[datetime]:
    """Yield the time at which a drug is said to be taken still."""
    if resource.kind == "MedicationStatement" and text(resource.content, "status") == "active":
        when = moment(text(resource.content, "dateAsserted") or "", context.zone)
        if when:
            yield when


def _required(codes: tuple[str, ...], resource: Resource) -> tuple[str, ...]:
    if not codes:
        raise LeftOutError(Reason.NOT_CODED, resource.kind, resource.place)
    return codes


def _require_done(resource: Resource) -> None:
    """Require that what a resource tells was done, and still holds."""
    for name, reasons in _statuses().get(resource.kind, {}).items():
        for code in _status(resource.content, name):
            if code in reasons:
                raise LeftOutError(reasons[code], f"{resource.kind}, {name} {code}")


def _status(content: Element, name: str) -> list[str | None]:
    if content.get(name) is True:
        return ["true"]
    return [text(content, name), *(text(coding, "code") for coding in elements(element(content, name), "coding"))]


def _time(resource: Resource, context: Context) -> datetime:
    """Return the time of a resource: the first that is told and can be read."""
    told = (written for path in TIMES[resource.kind] if (written := at(resource.content, path)))
    unread = None
    for written in told:
        if when := moment(_exact(written, resource), context.zone):
            return when
        unread = unread or f"{shown(written)} in {resource.place}"
    raise LeftOutError(Reason.NO_TIME, resource.kind, unread or resource.place)


def _exact(written: str, resource: Resource) -> str:
    """Return a date of which only the year or month is told as the resource tells it elsewhere, if it does."""
    if len(written) not in FIRST_DAY:
        return written
    others = (at(resource.content, path) or "" for path in TIMES[resource.kind])
    return next((it for it in others if len(it) > len(written) and it.startswith(written)), written)


def _days(begin: datetime, end: datetime, timezone: str) -> float:
    """Return the days of a stay: the nights, and at least one day."""
    return float(max(1, (local_day(end, timezone) - local_day(begin, timezone)).days))


@cache
def _classes() -> dict[str, str]:
    return {row["class"]: row["concept"] for row in rows("classes")}


@cache
def _statuses() -> dict[str, dict[str, dict[str | None, Reason]]]:
    found: dict[str, dict[str, dict[str | None, Reason]]] = {}
    for row in rows("statuses"):
        found.setdefault(row["resource"], {}).setdefault(row["element"], {})[row["code"]] = Reason[row["reason"]]
    return found


_READERS: Mapping[str, Callable[[Resource, Context], Iterator[Event]]] = {
    "Patient": _patient,
    "Observation": _observation,
    "Condition": _coded,
    "MedicationRequest": _medication,
    "MedicationStatement": _medication,
    "MedicationDispense": _medication,
    "Encounter": _encounter,
    "Procedure": _coded,
    FORM: _answers,
}
# The types that are read.
READ = frozenset(_READERS)
