"""What every source shares: events are admitted to the store here, and what was wrong with them is counted.

Nothing is lost in silence: ``events_read`` is the sum of the events written, the duplicates, those of outdated versions
of records, and those left out for a reason that the report names.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import numpy as np
import polars as pl
from meds import schema as meds
from numpy.typing import NDArray

from features.events import EventStore, normalised
from features.records import (
    NONE,
    PAIRS,
    RECORD,
    ROW,
    announcements,
    latest_tellings,
    pairs_of,
    read_pairs,
    record_of,
)
from features.sources.texts import with_mentions
from features.times import instant
from features.vocabulary import Meaning, Vocabulary, builtin

BIRTH: str = meds.birth_code
DEATH: str = meds.death_code
OBSERVATION_END = "OBSERVATION_END"
FEMALE = "female"

# What a report lists of each reason: on paper, and in JSON. The rest is summed up in one line.
SHOWN = 10
REMEMBERED = 10_000
OTHERS = "all others"


class Fate(Enum):
    """What became of what a reason speaks of."""

    LEFT_OUT = "Left out"
    NOT_USED = "In the store, but of no use to a profile"
    CHANGED = "Taken, with a change"


class Reason(Enum):
    """Why something did not go into the store, or not as it came."""

    NOT_READ = "resources of a kind that is not read", Fate.LEFT_OUT
    RETRACTED = "resources entered in error, or refuted", Fate.LEFT_OUT
    NOT_DONE = "resources of what was not done, or not yet", Fate.LEFT_OUT
    NO_SUBJECT = "resources that do not tell whose they are", Fate.LEFT_OUT
    NOT_CODED = "resources without a code", Fate.LEFT_OUT
    NO_TIME = "resources without a time", Fate.LEFT_OUT
    SAYS_NOTHING = "resources without a value that can be used", Fate.LEFT_OUT
    PART = "parts of resources that cannot be used", Fate.LEFT_OUT
    FILTERED = "rows that a filter leaves out", Fate.LEFT_OUT
    NO_RESIDENT = "rows without a resident", Fate.LEFT_OUT
    NOT_LISTED = "ids that the crosswalk does not list", Fate.LEFT_OUT
    NOT_A_NUMBER = "cells that are not a number", Fate.LEFT_OUT
    NOT_A_DATE = "cells that are not a date", Fate.LEFT_OUT
    NOT_AN_AGE = "cells that are not an age", Fate.LEFT_OUT
    UNDATED = "events without a time", Fate.LEFT_OUT
    NOT_AN_ANSWER = "answers that the mapping does not list", Fate.LEFT_OUT
    DROPPED = "names that the mapping drops", Fate.LEFT_OUT
    AFTER_TODAY = "events after today", Fate.LEFT_OUT
    BEFORE_BIRTH = "events before birth", Fate.LEFT_OUT
    ANOTHER_BIRTH = "births other than the first one told", Fate.LEFT_OUT
    ANOTHER_SEX = "sexes other than the first one told", Fate.LEFT_OUT
    UNKNOWN_CODE = "codes that the vocabulary does not know", Fate.NOT_USED
    UNKNOWN_UNIT = "units that the vocabulary does not know", Fate.NOT_USED
    IMPLAUSIBLE = "values outside the plausible range", Fate.NOT_USED
    NO_VALUE = "measurements without a number", Fate.NOT_USED
    BOUND = 'bounds such as "<0.5", taken as the number', Fate.CHANGED
    STRUCK_OUT = "identity and telephone numbers struck out of texts", Fate.CHANGED
    MENTIONED = "events that free texts tell, added", Fate.CHANGED

    def __init__(self, title: str, fate: Fate) -> None:
        self.title = title
        self.fate = fate


@dataclass
class Tally:
    """How often something came, with the first example; for values, their span."""

    count: int = 0
    example: str | None = None
    smallest: float | None = None
    largest: float | None = None

    def add(self, count: int, example: str | None, span: tuple[float, float] | None) -> None:
        """Count some more."""
        self.count += count
        self.example = self.example or example
        if span:
            self.smallest = span[0] if self.smallest is None else min(self.smallest, span[0])
            self.largest = span[1] if self.largest is None else max(self.largest, span[1])

    @property
    def detail(self) -> str:
        """What is worth knowing beside the count."""
        if self.smallest is None:
            return self.example or ""
        return f"{self.smallest:g}" if self.smallest == self.largest else f"{self.smallest:g} to {self.largest:g}"


@dataclass
class IngestReport:
    """What an ingest read, what it wrote, and why something did not go in.

    `rows` counts the rows by table, or whatever else a source consists of and `rows_are` calls it; where each of them
    becomes events or is left out as a whole, `rows_taken` counts the former. `outdated` are events of records of which
    a later version is known. Of the records that the store knew, `records_replaced` tell otherwise now, and
    `events_removed` events went with that. `events_erased` were left out, as their residents were erased. `remarks`
    counts, by reason, the things (a column, a code, a concept) that it was about.
    """

    rows: dict[str, int] = field(default_factory=dict)
    rows_are: str = "rows"
    rows_taken: int | None = None
    events_read: int = 0
    events_written: int = 0
    duplicates: int = 0
    outdated: int = 0
    records_replaced: int = 0
    events_removed: int = 0
    events_erased: int = 0
    residents_new: int = 0
    residents_known: int = 0
    remarks: dict[Reason, dict[str, Tally]] = field(default_factory=dict)

    def add_rows(self, table: str, rows: int) -> None:
        """Count rows read of a table."""
        self.rows[table] = self.rows.get(table, 0) + rows

    def remark(
        self,
        reason: Reason,
        thing: str,
        count: int = 1,
        *,
        example: str | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        """Count something under a reason; nothing where `count` is 0."""
        if not count:
            return
        tallies = self.remarks.setdefault(reason, {})
        if thing not in tallies and len(tallies) >= REMEMBERED:
            thing = OTHERS
        tallies.setdefault(thing, Tally()).add(count, example, span)

    def has_example(self, reason: Reason, thing: str) -> bool:
        """Whether an example is remembered; to find the line of another would be a waste."""
        tally = self.remarks.get(reason, {}).get(thing)
        return tally is not None and tally.example is not None

    def counted(self, reason: Reason) -> dict[str, int]:
        """Return the counts of a reason, the most frequent first."""
        tallies = self.remarks.get(reason, {})
        return {thing: tally.count for thing, tally in sorted(tallies.items(), key=lambda it: (-it[1].count, it[0]))}

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "rows": self.rows,
            **({} if self.rows_taken is None else {"rows_taken": self.rows_taken}),
            "events": {
                "read": self.events_read,
                "written": self.events_written,
                "duplicates": self.duplicates,
                "outdated": self.outdated,
                "removed": self.events_removed,
                "erased": self.events_erased,
            },
            "records": {"replaced": self.records_replaced},
            "residents": {"new": self.residents_new, "known": self.residents_known},
            "remarks": {reason.name.lower(): self._listed(reason) for reason in Reason if reason in self.remarks},
        }

    def _listed(self, reason: Reason) -> list[dict[str, Any]]:
        tallies = self.remarks[reason]
        return [{"of": thing, **_without_nulls(tallies[thing])} for thing in self.counted(reason)]

    def text(self) -> str:
        """Return the report as a terminal shows it."""
        lines = [
            _Line("Read"),
            *(_Line(f"  {table}", rows, self.rows_are) for table, rows in self.rows.items()),
            *([] if self.rows_taken is None else [_Line("  became events", self.rows_taken)]),
            _Line("Events"),
            _Line("  read", self.events_read),
            _Line("  written", self.events_written),
            _Line("  told twice, or in the store already", self.duplicates),
            *self._lines_of_records(),
            _Line("Residents"),
            _Line("  new", self.residents_new),
            _Line("  known", self.residents_known),
        ]
        for fate in Fate:
            lines += self._lines_of(fate)
        return _aligned(lines)

    def _lines_of_records(self) -> "Iterator[_Line]":
        if self.outdated:
            yield _Line("  of a record whose later version is known", self.outdated)
        if self.events_erased:
            yield _Line("  left out, as their residents were erased", self.events_erased)
        if self.records_replaced or self.events_removed:
            yield _Line("Records")
            yield _Line("  replaced by what they tell now", self.records_replaced)
            yield _Line("  events that went with it", self.events_removed)

    def _lines_of(self, fate: Fate) -> "Iterator[_Line]":
        reasons = [reason for reason in Reason if reason.fate is fate and reason in self.remarks]
        if reasons:
            yield _Line(fate.value)
        for reason in reasons:
            things = self.counted(reason)
            yield _Line(f"  {reason.title}", sum(things.values()))
            for thing in list(things)[:SHOWN]:
                yield _Line(f"    {thing}", things[thing], self.remarks[reason][thing].detail)
            if len(things) > SHOWN:
                rest = list(things.values())[SHOWN:]
                yield _Line(f"    and {len(rest):,} more", sum(rest))


def admit(frames: Iterable[pl.DataFrame], store: EventStore, report: IngestReport, today: date) -> None:
    """Write events into the store: all of them or, if anything goes wrong before the end, none.

    What the vocabulary does not know, and values outside its ranges, are counted and written. Events after the end
    of today, or before their resident's birth, are counted and left out. A birth must come before the events that it
    is to be held against, in the store or in `frames`; a second, different birth or sex of a resident is left out.

    Parameters
    ----------
    frames : events with at least `subject_id`, `time` and `code`
        And of which record they are, where the source says: see `features/records.py`.
    store : written to
    report : what was found is added to it
    today : a day of the store's time zone

    Raises
    ------
    WeibingError
        If the store was made elsewhere, or another ingest is writing to it.
    """
    births, sexes = _FirstTold(), _FirstTold()
    for shard in store.shards:
        births.read(shard, BIRTH, pl.col("time").cast(pl.Int64))
        sexes.read(shard, FEMALE, pl.col("numeric_value").cast(pl.Int64))
    end = instant(today + timedelta(days=1), store.timezone)
    admission = _Admission(report, builtin(), end, store.timezone, births, sexes)
    done = store.append(map(admission.judge, frames))
    report.events_written += done.events_new
    report.duplicates += done.events_duplicate
    report.residents_new += done.residents_new
    report.residents_known += done.residents_known
    report.outdated += done.events_outdated
    report.records_replaced += done.records_replaced
    report.events_removed += done.events_removed
    report.events_erased += done.events_erased


@contextmanager
def opened_store(
    path: Path, *, timezone: str, name: str = "", description: dict[str, Any] | None = None
) -> Iterator[EventStore]:
    """Open a store or lay out a new one; a new one is removed again if what follows fails.

    Raises
    ------
    WeibingError
        If a store is there and its time zone is another one.
    """
    new_folder, new = not path.exists(), not any((path / part).exists() for part in ("data", "data.ready", "data.old"))
    try:
        yield EventStore.create(path, timezone=timezone, name=name, description=description)
    except BaseException:
        if new:
            _remove_empty_store(path, and_folder=new_folder)
        raise


def _remove_empty_store(path: Path, *, and_folder: bool) -> None:
    if any((path / "data").rglob("*.parquet")):
        return
    for part in ("data", "metadata"):
        shutil.rmtree(path / part, ignore_errors=True)
    (path / ".lock").unlink(missing_ok=True)
    if and_folder and path.is_dir():
        path.rmdir()


@dataclass
class _Tellers:
    """Which records told something of which residents; a record that comes again is taken back what it told."""

    records: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    residents: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, records: NDArray[np.int64], residents: NDArray[np.int64]) -> None:
        """Remember who told of whom."""
        new = records != NONE
        at = np.searchsorted(self.records, records[new])
        order = np.argsort(records[new], kind="stable")
        self.records = np.insert(self.records, at[order], records[new][order])
        self.residents = np.insert(self.residents, at[order], residents[new][order])

    def take_back(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget what some records told; return the residents of whom no record tells any more."""
        going = np.isin(self.records, records)
        if not going.any():
            return np.empty(0, np.int64)
        left = np.unique(self.residents[going])
        self.records, self.residents = self.records[~going], self.residents[~going]
        return np.setdiff1d(left, self.residents)


@dataclass
class _FirstTold:
    """The first value told of each resident, such as the birth, and whether this ingest has written it."""

    residents: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    written: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    tellers: _Tellers = field(default_factory=_Tellers)

    def read(self, shard: Path, code: str, value: pl.Expr) -> None:
        """Learn what a shard of the store tells by a code, and who told it."""
        scan = pl.scan_parquet(shard, row_index_name=ROW)
        rows = scan.filter(pl.col("code") == code).select(pl.col(ROW).cast(PAIRS[ROW]), "subject_id", value=value)
        told = rows.collect().drop_nulls().sort("subject_id", "value")
        self._learn(told["subject_id"].to_numpy(), told["value"].to_numpy())
        by = told.join(read_pairs(pairs_of(shard)), on=ROW)
        self.tellers.add(by[RECORD].to_numpy(), by["subject_id"].to_numpy())

    def take_back(self, records: NDArray[np.int64]) -> None:
        """Forget what only these records told, since they are about to tell it anew."""
        gone = np.searchsorted(self.residents, self.tellers.take_back(records))
        self.residents, self.values = np.delete(self.residents, gone), np.delete(self.values, gone)
        self.written = np.delete(self.written, gone)

    def of(self, residents: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return whether something is known of each resident, and what (anything where nothing is)."""
        if not len(self.residents):
            return np.zeros(len(residents), bool), np.zeros(len(residents), np.int64)
        at = np.searchsorted(self.residents, residents).clip(max=len(self.residents) - 1)
        return self.residents[at] == residents, self.values[at]

    def hear(
        self, residents: NDArray[np.int64], values: NDArray[np.int64], records: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Learn from what is told; return which rows agree with what was told first, and which of them to write.

        Each record that agrees is written, so that one of them may be taken back without the others.
        """
        self._learn(residents, values)
        at = np.searchsorted(self.residents, residents)
        agrees = self.values[at] == values
        write = agrees & (records != NONE)
        self.written[at[write]] = True
        unwritten = np.flatnonzero(agrees & ~self.written[at])
        write[unwritten[_first_of_each(residents[unwritten])]] = True
        self.written[at[write]] = True
        self.tellers.add(records[write], residents[write])
        return agrees, write

    def _learn(self, residents: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        unknown = np.flatnonzero(~self.of(residents)[0])
        new = unknown[_first_of_each(residents[unknown])]
        at = np.searchsorted(self.residents, residents[new])
        self.residents = np.insert(self.residents, at, residents[new])
        self.values = np.insert(self.values, at, values[new])
        self.written = np.insert(self.written, at, values=False)


@dataclass
class _Admission:
    """Judges events frame by frame."""

    report: IngestReport
    vocabulary: Vocabulary
    end_of_today: datetime
    timezone: str
    births: _FirstTold
    sexes: _FirstTold

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Count what is wrong with the events; return those that go in, and every record that was told."""
        if RECORD not in frame.columns:
            return self._judged(frame)
        frame, records = normalised(frame), announcements(frame)
        latest = latest_tellings(frame, records)
        events = latest.filter(pl.col("code").is_not_null())
        outdated = int(frame["code"].count()) - len(events)
        self.report.events_read += outdated
        self.report.outdated += outdated
        for first in (self.births, self.sexes):
            first.take_back(records[RECORD].to_numpy())
        return pl.concat([self._judged(events), records], how="diagonal_relaxed")

    def _judged(self, frame: pl.DataFrame) -> pl.DataFrame:
        self.report.events_read += len(frame)
        events = self._up_to_today(normalised(frame))
        events = self._told_once(events, BIRTH, events["time"].cast(pl.Int64), self.births, Reason.ANOTHER_BIRTH)
        sex = events["numeric_value"].cast(pl.Int64)
        events = self._told_once(events, FEMALE, sex, self.sexes, Reason.ANOTHER_SEX)
        events = self._from_birth(events)
        events = self._with_mentions(events)
        self._count_meanings(events)
        return events

    def _with_mentions(self, events: pl.DataFrame) -> pl.DataFrame:
        told = with_mentions(events)
        for code, count in told[len(events) :].group_by("code").len().iter_rows():
            self.report.remark(Reason.MENTIONED, code, count)
        return told

    def _up_to_today(self, events: pl.DataFrame) -> pl.DataFrame:
        late = events["time"] >= self.end_of_today
        return self._without(events, late.fill_null(value=False), Reason.AFTER_TODAY)

    def _from_birth(self, events: pl.DataFrame) -> pl.DataFrame:
        known, birth = self.births.of(events["subject_id"].to_numpy())
        early = (events["time"].cast(pl.Int64) < pl.Series(birth)).fill_null(value=False)
        return self._without(events, early & pl.Series(known), Reason.BEFORE_BIRTH)

    def _without(self, events: pl.DataFrame, wrong: pl.Series, reason: Reason) -> pl.DataFrame:
        if not wrong.any():
            return events
        local = pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone(self.timezone).dt.date()
        for code, count, day in events.filter(wrong).group_by("code").agg(pl.len(), local.first()).iter_rows():
            self.report.remark(reason, code, count, example=str(day))
        return events.filter(~wrong)

    def _told_once(
        self, events: pl.DataFrame, code: str, values: pl.Series, first: _FirstTold, reason: Reason
    ) -> pl.DataFrame:
        """Leave out what repeats or contradicts the first birth or sex told of a resident."""
        about = ((events["code"] == code) & values.is_not_null()).arg_true()
        if not len(about):
            return events
        records = record_of(events)[about.to_numpy()]
        agrees, write = first.hear(events["subject_id"][about].to_numpy(), values[about].to_numpy(), records)
        self.report.duplicates += int((agrees & ~write).sum())
        self.report.remark(reason, code, int((~agrees).sum()))
        keep = np.ones(len(events), bool)
        keep[about.to_numpy()[~write]] = False
        return events.filter(keep)

    def _count_meanings(self, events: pl.DataFrame) -> None:
        number = pl.col("numeric_value")
        found = events.group_by("code", "unit").agg(
            pl.len(), number.count(), number.min().alias("low"), high=number.max()
        )
        for code, unit, events_of, numbers, low, high in found.iter_rows():
            meanings = self.vocabulary.meanings(code, unit)
            self.report.remark(Reason.UNKNOWN_CODE, code, 0 if meanings else events_of)
            for meaning in meanings:
                if meaning.value is None and self.vocabulary.concepts[meaning.concept].numeric:
                    self.report.remark(Reason.NO_VALUE, meaning.concept, events_of - numbers)
                if not meaning.known_unit:
                    self.report.remark(Reason.UNKNOWN_UNIT, f"{meaning.concept} in {unit}", numbers)
                elif numbers and meaning.value is None and not self._plausible(meaning, low, high):
                    self._count_implausible(meaning, _numbers_of(events, code, unit))

    def _plausible(self, meaning: Meaning, low: float, high: float) -> bool:
        concept = self.vocabulary.concepts[meaning.concept]
        in_unit = (low * meaning.factor + meaning.offset, high * meaning.factor + meaning.offset)
        return concept.low <= min(in_unit) and max(in_unit) <= concept.high

    def _count_implausible(self, meaning: Meaning, numbers: pl.Series) -> None:
        concept = self.vocabulary.concepts[meaning.concept]
        canonical = numbers * meaning.factor + meaning.offset
        wrong = canonical.filter((canonical < concept.low) | (canonical > concept.high))
        if span := _span(wrong):
            title = f"{concept.name} ({concept.low:g} to {concept.high:g}{' ' + concept.unit if concept.unit else ''})"
            self.report.remark(Reason.IMPLAUSIBLE, title, len(wrong), span=span)


def _numbers_of(events: pl.DataFrame, code: str, unit: str | None) -> pl.Series:
    alike = (pl.col("code") == code) & pl.col("unit").eq_missing(pl.lit(unit, pl.String))
    return events.filter(alike, pl.col("numeric_value").is_not_null())["numeric_value"].cast(pl.Float64)


def _span(numbers: pl.Series) -> tuple[float, float] | None:
    values = numbers.to_numpy()
    return (float(values.min()), float(values.max())) if len(values) else None


def _first_of_each(residents: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the position of each resident's first row, in order of the residents."""
    return np.unique(residents, return_index=True)[1]


def _without_nulls(tally: Tally) -> dict[str, Any]:
    return {name: value for name, value in vars(tally).items() if value is not None}


@dataclass(frozen=True)
class _Line:
    label: str
    count: int | None = None
    detail: str = ""


def _aligned(lines: list[_Line]) -> str:
    counted = [line for line in lines if line.count is not None]
    width = max(_width(line.label) for line in counted)
    digits = max(len(f"{line.count:,}") for line in counted)
    return "\n".join(_laid_out(line, width, digits) for line in lines)


def _laid_out(line: _Line, width: int, digits: int) -> str:
    if line.count is None:
        return line.label
    gap = " " * (width - _width(line.label))
    return f"{line.label}{gap}  {line.count:>{digits},}  {line.detail}".rstrip()


def _width(text: str) -> int:
    """Return the columns that a text takes on a terminal: a Chinese character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
