"""FHIR R4: a hospital's or a region's export, as Bulk Data or Bundles. See `docs/fhir.md`.

reading.py      files, as resources
elements.py     parts of resources: numbers, texts, times, references
coding.py       CodeableConcepts, as codes; systems.csv says what addresses mean
values.py       values and answers, as numbers; answers.csv says what coded answers stand for
definitions.py  what other resources refer to: Medications, Questionnaires
resources.py    resources, as events; statuses.csv says what is left out, classes.csv what kinds of contact there are
residents.py    the ids of Patients, as residents
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain
from pathlib import Path

import polars as pl

from features.events import SCHEMA
from features.sources.fhir.definitions import KINDS
from features.sources.fhir.reading import Resource, files, resources_in
from features.sources.fhir.residents import residents_of
from features.sources.fhir.resources import UNTYPED, Context, Event, LeftOutError, events_of, patient_of
from features.sources.report import IngestReport, admit, opened_store
from features.sources.table.residents import key_of
from features.times import zone

EVENTS_PER_BATCH = 100_000
RESOURCES_PER_LINE = 20_000
# The columns of the store for the fields of an Event.
COLUMNS = ("code", "time", "numeric_value", "text_value", "unit")


def ingest_fhir(
    paths: Sequence[Path],
    store_path: Path,
    *,
    timezone: str = "Asia/Shanghai",
    key: str | None = None,
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
    key : the name of the environment variable with the secret with which the ids of Patients are hashed
    today : the day after whose end nothing can have happened; by default, today in the time zone
    progress : called now and then with a line that says how far it is

    Raises
    ------
    WeibingError
        If a file, the secret or the store is not as it must be.
    """
    found = files(paths)
    secret = key_of(key) if key else None
    report = IngestReport(rows_are="resources", rows_taken=0)
    intake = _Intake(Context(zone(timezone), report), secret, progress or _in_silence)
    with opened_store(store_path, timezone=timezone) as store:
        admit(intake.events(found), store, report, today or datetime.now(zone(timezone)).date())
    return report


@dataclass
class _Intake:
    """Turns files into frames of events."""

    context: Context
    key: bytes | None
    progress: Callable[[str], None]
    waiting: list[tuple[str, Event]] = field(default_factory=list)

    def events(self, found: Sequence[Path]) -> Iterator[pl.DataFrame]:
        """Yield the events of all files, those of Patients before the rest."""
        yield from self._batches(self._defined(found))
        yield from self._batches(it for it in _all(found) if it.kind != "Patient")
        self.progress("sorting the events into the store")

    def _defined(self, found: Sequence[Path]) -> Iterator[Resource]:
        """Yield the Patients; remember what others refer to."""
        for resource in chain.from_iterable(resources_in(file, ("Patient", *KINDS)) for file in found):
            if resource.kind == "Patient":
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
        try:
            events = events_of(resource, self.context)
            patient = patient_of(resource)
        except LeftOutError as left:
            report.remark(left.reason, left.thing, example=left.example)
            return
        self.waiting += [(patient, event) for event in events]
        report.rows_taken = (report.rows_taken or 0) + 1

    def _frame(self) -> pl.DataFrame:
        """Return the waiting events as a frame."""
        who = pl.Series("subject_id", [patient for patient, _ in self.waiting], pl.String)
        told = list(zip(*(event for _, event in self.waiting), strict=True)) or [()] * len(Event._fields)
        self.waiting = []
        columns = [
            pl.Series(name, values, SCHEMA[name], strict=False) for name, values in zip(COLUMNS, told, strict=True)
        ]
        return pl.DataFrame([residents_of(who, self.key), *columns])


def _all(found: Sequence[Path]) -> Iterator[Resource]:
    return chain.from_iterable(map(resources_in, found))


def _in_silence(line: str) -> None:
    pass
