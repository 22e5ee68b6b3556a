"""Resources of a Patient, as events: by the same rules as a hospital's export."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from features.events import SCHEMA, normalised
from features.sources.fhir.definitions import KINDS
from features.sources.fhir.elements import Element, elements, text
from features.sources.fhir.reading import Resource
from features.sources.fhir.resources import Context, Event, LeftOutError, events_of, patient_of
from features.sources.report import BIRTH, IngestReport
from features.times import zone

COLUMNS = ("code", "time", "numeric_value", "text_value", "unit")


@dataclass(frozen=True)
class Told:
    """What a system tells of a Patient.

    Attributes
    ----------
    issuer : the system
    patient : the id of the Patient there
    identifiers : systems and values, by which a resident may be found here
    events : columns of the event store, of subject 0
    """

    issuer: str
    patient: str
    identifiers: tuple[tuple[str, str], ...]
    events: pl.DataFrame


class OtherPatientError(Exception):
    """A resource is about somebody else; names its type."""


def told_of(issuer: str, patient: str, found: Iterable[Element], timezone: str) -> Told:
    """Return what resources tell of a Patient; what they cannot tell is left out.

    Raises
    ------
    OtherPatientError
        If one is about another Patient.
    """
    context = Context(zone(timezone), IngestReport(rows_are="resources", rows_taken=0))
    resources = list(_distinct(found))
    for resource in resources:
        if resource.kind in KINDS:
            context.definitions.add(resource)
    events: list[Event] = []
    for resource in resources:
        if _is_of(resource, patient):
            events += _events(resource, context)
    return Told(issuer, patient, _identifiers(resources), _frame(events))


def _distinct(found: Iterable[Element]) -> Iterable[Resource]:
    """Return each resource once, though two searches found it."""
    by_name: dict[object, Resource] = {}
    for number, content in enumerate(found):
        kind, name = text(content, "resourceType") or "", text(content, "id")
        by_name.setdefault((kind, name) if name else number, Resource(content, kind, name, f"resource {number}"))
    return by_name.values()


def _is_of(resource: Resource, patient: str) -> bool:
    """Whether a resource is about the Patient; what is about nobody is not."""
    try:
        whose = patient_of(resource)
    except LeftOutError:
        return False
    if whose != patient:
        raise OtherPatientError(resource.kind)
    return True


def _events(resource: Resource, context: Context) -> list[Event]:
    try:
        return events_of(resource, context)
    except LeftOutError:
        return []


def _identifiers(resources: Iterable[Resource]) -> tuple[tuple[str, str], ...]:
    told = (each for it in resources if it.kind == "Patient" for each in elements(it.content, "identifier"))
    return tuple((text(each, "system") or "", value) for each in told if (value := text(each, "value")))


def _frame(events: Iterable[Event]) -> pl.DataFrame:
    """Return events without those of before birth, which are of somebody else or misdated."""
    listed = list(events)
    birth = max((event.time for event in listed if event.code == BIRTH and event.time), default=None)
    kept = [it for it in listed if birth is None or it.time is None or it.time >= birth]
    columns: Mapping[str, list[object]] = {name: [event[place] for event in kept] for place, name in enumerate(COLUMNS)}
    frame = pl.DataFrame({name: pl.Series(name, cells, SCHEMA[name], strict=False) for name, cells in columns.items()})
    return normalised(frame.with_columns(subject_id=pl.lit(0, pl.Int64)))
