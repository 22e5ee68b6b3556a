"""FHIR R4: a hospital's or a region's export, as Bulk Data or Bundles. See `docs/fhir.md`.

reading.py      files, as resources
elements.py     parts of resources: numbers, texts, times, references
coding.py       CodeableConcepts, as codes; systems.csv says what addresses mean
values.py       values and answers, as numbers; answers.csv says what coded answers stand for
home.py         which Observations were taken at home, and what their codes mean then
definitions.py  what other resources refer to: Medications, Questionnaires
resources.py    resources, as events; statuses.csv says what is left out, classes.csv what kinds of contact there are
residents.py    the ids of Patients, as residents; whom a resource is about
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain, count
from pathlib import Path

import polars as pl

from features.events import SCHEMA
from features.records import OF_A_RECORD, RECORD, identity
from features.sources.fhir.definitions import KINDS
from features.sources.fhir.elements import at, moment
from features.sources.fhir.reading import Resource, files, resources_in
from features.sources.fhir.residents import Patients
from features.sources.fhir.resources import READ, UNTYPED, Context, Event, LeftOutError, events_of
from features.sources.report import IngestReport, admit, opened_store
from features.sources.table.identities import ANYBODY, Who
from features.times import microseconds, zone

SOURCE = "fhir"
EVENTS_PER_BATCH = 100_000
RESOURCES_PER_LINE = 20_000
# The columns of the store for the fields of an Event.
COLUMNS = ("code", "time", "numeric_value", "text_value", "unit")
RECORDS = dict.fromkeys(OF_A_RECORD, pl.Int64())

# The identity of a record, its version, and which telling of it this is.
_Record = tuple[int | None, int | None, int | None]
_Said = tuple[str | None, Sequence[object], _Record]

# What a resource tells that is left out, and what it is when nobody numbers it.
NO_EVENT: Sequence[object] = (None,) * len(Event._fields)
NO_RECORD: _Record = (None, None, None)


def ingest_fhir(
    paths: Sequence[Path],
    store_path: Path,
    *,
    timezone: str = "Asia/Shanghai",
    who: Who = ANYBODY,
    today: date | None = None,
    progress: Callable[[str], None] | None = None,
) -> IngestReport:
    """Read FHIR R4 resources into an event store, new or there already: all that they tell or, if anything fails, none.

    The files are read twice: first for Patients and for what others refer to, which may come after it, then for all
    the rest. In the report, a row is a resource: it becomes events, or is left out for one reason.

    Parameters
    ----------
    paths : files of Bulk Data (.ndjson) or Bundles (.json), also gzipped (.gz), or folders of them
    store_path : the store, created where there is none
    timezone : of the store, and of dates and times that are written without an offset
    who : what is said of the ids of Patients; the source is the server, by default "fhir", and resources of two servers
        with the same id are two records
    today : the day after whose end nothing can have happened; by default, today in the time zone
    progress : called now and then with a line that says how far it is

    Raises
    ------
    WeibingError
        If a file, the secret, the crosswalk or the store is not as it must be.
    """
    found = files(paths)
    patients = Patients(who.identities(SOURCE), who.identifier)
    report = IngestReport(rows_are="resources", rows_taken=0)
    intake = _Intake(Context(zone(timezone), report), patients, progress or _in_silence)
    with opened_store(store_path, timezone=timezone) as store:
        admit(intake.events(found), store, report, today or datetime.now(zone(timezone)).date())
    return report


@dataclass
class _Intake:
    """Turns files into frames of events."""

    context: Context
    patients: Patients
    progress: Callable[[str], None]
    waiting: list[_Said] = field(default_factory=list)
    tellings: Iterator[int] = field(default_factory=count)

    def events(self, found: Sequence[Path]) -> Iterator[pl.DataFrame]:
        """Yield the events of all files, those of Patients before the rest."""
        yield from self._batches(self._defined(found))
        yield from self._batches(it for it in _all(found) if it.kind != "Patient")
        self.progress("sorting the events into the store")

    def _defined(self, found: Sequence[Path]) -> Iterator[Resource]:
        """Yield the Patients; remember what others refer to."""
        for resource in chain.from_iterable(resources_in(file, ("Patient", *KINDS)) for file in found):
            if resource.kind == "Patient":
                self.patients.add(resource)
                yield resource
            else:
                self.context.definitions.add(resource)

    def _batches(self, found: Iterable[Resource]) -> Iterator[pl.DataFrame]:
        for number, resource in enumerate(found, 1):
            self._take(resource)
            if len(self.waiting) >= EVENTS_PER_BATCH:
                yield self._frame()
            if number % RESOURCES_PER_LINE == 0:
                self.progress(f"{resource.place}: {sum(self.context.report.rows.values()):,} resources")
        yield self._frame()

    def _take(self, resource: Resource) -> None:
        report = self.context.report
        report.add_rows(resource.kind or UNTYPED, 1)
        record = self._record(resource)
        try:
            events = events_of(resource, self.context)
            patient = self.patients.id_of(resource)
        except LeftOutError as left:
            report.remark(left.reason, left.thing, example=left.example)
            self.waiting.append((None, NO_EVENT, record))
        else:
            self.waiting += [(patient, event, record) for event in events]
            report.rows_taken = (report.rows_taken or 0) + 1

    def _record(self, resource: Resource) -> _Record:
        """Return the identity of a resource with its version, and a number of this telling of it."""
        if not resource.id or resource.kind not in READ:
            return NO_RECORD
        named = identity(self.patients.identities.source, (resource.kind, resource.id))
        updated = moment(at(resource.content, "meta.lastUpdated") or "", self.context.zone)
        return named, microseconds(updated) if updated else None, next(self.tellings)

    def _frame(self) -> pl.DataFrame:
        """Return the waiting events as a frame."""
        who = pl.Series("subject_id", [patient for patient, _, _ in self.waiting], pl.String)
        told = _columns([event for _, event, _ in self.waiting], COLUMNS, SCHEMA)
        records = _columns([record for _, _, record in self.waiting], OF_A_RECORD, RECORDS)
        self.waiting = []
        return _telling(pl.DataFrame([self.patients.residents(who), *told, *records]))


def _telling(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the events, and the records that tell none."""
    return frame.filter(pl.col("code").is_not_null() | pl.col(RECORD).is_not_null())


def _columns(
    rows: Sequence[Sequence[object]], names: Sequence[str], types: Mapping[str, pl.DataType]
) -> list[pl.Series]:
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    return [pl.Series(name, cells, types[name], strict=False) for name, cells in zip(names, values, strict=True)]


def _all(found: Sequence[Path]) -> Iterator[Resource]:
    return chain.from_iterable(map(resources_in, found))


def _in_silence(line: str) -> None:
    pass
