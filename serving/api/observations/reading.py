"""What was sent to ``/v1/observations``, as records: by the rules of the FHIR source, but strictly, place by place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from features.sources.fhir.elements import Element, at, element, elements, text
from features.sources.fhir.reading import Resource
from features.sources.fhir.resources import TIMES, Context, Event, LeftOutError, events_of
from features.sources.report import IngestReport, Reason
from features.times import zone
from serving.api.bodies import MOST_FAULTS, read_json
from serving.api.fhir.router import BASE
from serving.api.observations.values import Place, unreadable, wrong_values
from serving.api.problems import Fault, too_large, unprocessable
from serving.settings import Settings

KIND = "Observation"
BUNDLES = ("transaction", "batch", "collection")
METHODS = (None, "POST", "PUT")
# The system of our own numbers, and those of identity numbers: our own name, and that of Chinese shared documents.
RESIDENT = "urn:weibing:resident"
IDENTITY_NUMBERS = ("urn:weibing:identity-number", "urn:oid:2.16.156.10011.1.3")
LONGEST_IDENTIFIER = 500
LONGEST_NUMBER = 100
# How far the clocks of two systems may be apart.
AHEAD = timedelta(minutes=5)

_NUMBER = re.compile(r"0|[1-9]\d{0,17}")


@dataclass(frozen=True)
class Subject:
    """Whom an Observation is about: the number in the store, or an identity number; and where that is said."""

    number: int | None
    identity: str | None
    place: Place


@dataclass(frozen=True)
class Record:
    """An Observation that can be taken.

    Attributes
    ----------
    place : where it stands in what was sent
    left_out : what of it is not used
    """

    place: Place
    identifier: str
    subject: Subject
    time: datetime
    time_place: Place
    events: tuple[Event, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """What was sent: records, what is wrong with the others, and whether some may be taken without the others."""

    records: tuple[Record, ...]
    faults: tuple[Fault, ...]
    each_alone: bool


class _WrongError(Exception):
    """An Observation cannot be taken."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults


@dataclass(frozen=True)
class Reader:
    """Reads Observations.

    Attributes
    ----------
    caller : who sends them: the system of identifiers that name none
    now : UTC; nothing lies after it
    """

    settings: Settings
    caller: str
    now: datetime
    _prefixes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = f"{self.settings.public_url}{BASE}/Patient/" if self.settings.public_url else ""
        object.__setattr__(self, "_prefixes", tuple(filter(None, ("Patient/", own))))

    def read(self, body: bytes, content_type: str) -> Sent:
        """Read what was sent.

        Raises
        ------
        ProblemError
            413 where it is too much, 415 where it is not JSON by its own account, 422 where it is neither an
            Observation nor a Bundle of such that can be read.
        """
        said = read_json(body, content_type)
        if faults := list(unreadable(said)):
            raise unprocessable(*faults[:MOST_FAULTS])
        if not isinstance(said, dict) or said.get("resourceType") not in (KIND, "Bundle"):
            raise unprocessable(Fault(("resourceType",), "there should be an Observation or a Bundle here"))
        if said["resourceType"] == KIND:
            return self._sent([((), {"resource": said})], each_alone=False)
        return self._sent(_entries(said, self.settings), each_alone=said["type"] == "batch")

    def _sent(self, entries: Sequence[tuple[Place, object]], *, each_alone: bool) -> Sent:
        records, faults = list[Record](), list[Fault]()
        for place, entry in entries:
            try:
                records.append(self._record(entry, place))
            except _WrongError as wrong:
                faults += wrong.faults
        return Sent(tuple(records), tuple(faults), each_alone)

    def _record(self, entry: object, place: Place) -> Record:
        content = _resource(entry, place)
        where = (*place, "resource") if place else ()
        if wrong := list(wrong_values(content)):
            raise _WrongError(*(Fault((*where, *fault.place), fault.detail) for fault in wrong))
        if text(content, "status") is None:
            raise _WrongError(Fault((*where, "status"), "there should be a status, such as final"))
        report = IngestReport(rows_are="resources", rows_taken=0)
        time_place = (*where, *_time_place(content))
        events = _events(content, where, Context(zone(self.settings.timezone), report))
        time = events[0].time
        if time is None or time > self.now + AHEAD:
            raise _WrongError(Fault(time_place, "this lies ahead"))
        return Record(
            place=where,
            identifier=self._identifier(entry, content, where),
            subject=self._subject(content, where),
            time=time,
            time_place=time_place,
            events=events,
            left_out=tuple(report.remarks.get(Reason.PART, {})),
        )

    def _identifier(self, entry: object, content: Element, where: Place) -> str:
        """Return by what an Observation is known when it comes again."""
        named = ((text(it, "system"), text(it, "value")) for it in elements(content, "identifier"))
        own = text(entry, "fullUrl") if isinstance(entry, dict) else None
        each = [*((system, value) for system, value in named if value), (None, own), (None, text(content, "id"))]
        system, value = next(((system, value) for system, value in each if value), (None, None))
        if value is None:
            raise _WrongError(Fault((*where, "identifier"), "it needs one, to be known when it comes again"))
        told = f"{system or self.caller}|{value}"
        if len(told) > LONGEST_IDENTIFIER:
            raise _WrongError(Fault((*where, "identifier"), f"it is longer than {LONGEST_IDENTIFIER} characters"))
        return told

    def _subject(self, content: Element, where: Place) -> Subject:
        """Return whom an Observation is about."""
        subject, place = element(content, "subject"), (*where, "subject")
        reference, named = text(subject, "reference"), element(subject, "identifier")
        if reference is not None:
            number = self._number(reference)
            if number is None:
                raise _WrongError(Fault((*place, "reference"), "write Patient/ and the resident's number here"))
            return Subject(number, None, (*place, "reference"))
        system, value = text(named, "system"), text(named, "value")
        if system == RESIDENT and value and _NUMBER.fullmatch(value):
            return Subject(int(value), None, (*place, "identifier"))
        if system in IDENTITY_NUMBERS and value and len(value) <= LONGEST_NUMBER:
            return Subject(None, value, (*place, "identifier"))
        systems = " or ".join((RESIDENT, *IDENTITY_NUMBERS))
        raise _WrongError(Fault(place, f"there should be a reference Patient/…, or an identifier of {systems}"))

    def _number(self, reference: str) -> int | None:
        """Return the number that a reference of our own names: another server's Patient is another person."""
        rest = next((reference[len(it) :] for it in self._prefixes if reference.startswith(it)), "")
        return int(rest) if _NUMBER.fullmatch(rest) else None


def _entries(bundle: Element, settings: Settings) -> list[tuple[Place, object]]:
    if bundle.get("type") not in BUNDLES:
        raise unprocessable(Fault(("type",), f"there should be {', '.join(BUNDLES)} here"))
    entries = bundle.get("entry")
    if not isinstance(entries, list) or not entries:
        raise unprocessable(Fault(("entry",), "there should be one entry or more here"))
    if len(entries) > settings.most_events:
        raise too_large(f"{len(entries):,} Observations in one call; at most {settings.most_events:,}.")
    return [(("entry", number), entry) for number, entry in enumerate(entries)]


def _resource(entry: object, place: Place) -> Element:
    content = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(content, dict) or content.get("resourceType") != KIND:
        raise _WrongError(Fault((*place, "resource", "resourceType"), f"there should be an {KIND} here"))
    method = element(entry, "request").get("method") if isinstance(entry, dict) else None
    if method not in METHODS:
        raise _WrongError(Fault((*place, "request", "method"), "Observations are taken: POST or PUT"))
    return content


def _events(content: Element, where: Place, context: Context) -> tuple[Event, ...]:
    try:
        return tuple(events_of(Resource(content, KIND, text(content, "id"), KIND), context))
    except LeftOutError as left:
        raise _WrongError(_left_out(left, content, where)) from None


def _time_place(content: Element) -> Place:
    """Return where the time of an Observation is told."""
    told = next((path for path in TIMES[KIND] if at(content, path)), TIMES[KIND][0])
    return tuple(told.split("."))


def _left_out(left: LeftOutError, content: Element, where: Place) -> Fault:
    """Say why an Observation becomes no event."""
    value = next((name for name in content if name.startswith("value")), "code")
    told: dict[Reason, tuple[Place, str]] = {
        Reason.NO_TIME: (_time_place(content), "there should be a time here, such as 2025-01-31T08:00:00+08:00"),
        Reason.NOT_CODED: (("code",), "there should be a code here"),
        Reason.SAYS_NOTHING: ((value,), "there is nothing here that can be used"),
        Reason.RETRACTED: (("status",), "what was entered in error is not taken"),
        Reason.NOT_DONE: (("status",), "what was not done, or not yet, is not taken"),
    }
    place, detail = told.get(left.reason, ((), left.reason.title))
    return Fault((*where, *place), detail)
