"""What is written down of a block of residents, as one frame of events."""

from typing import NamedTuple

import numpy as np
import polars as pl
from meds import schema as meds

from features.sources.county.course import Course
from features.sources.county.period import Days, Flags, Floats, Period
from features.sources.county.residents import GROWN, Residents
from features.sources.county.tables import rows
from features.times import DAY, SECOND

END = "OBSERVATION_END"
HOUR = 3600 * SECOND
# Shanghai keeps UTC+8. Entries are made at eight in the morning, which is midnight UTC of the same date.
EIGHT_HOURS = 8 * HOUR
# The time of what is always true of a resident.
ALWAYS = np.iinfo(np.int64).min


class _Entries(NamedTuple):
    """Entries of one code, unit and text; `time` in microseconds, `value` not a number where there is none."""

    code: str
    unit: str | None
    text: str | None
    who: Days
    time: Days
    value: Floats


class Ledger:
    """Entries about the residents of a block; `who` is a resident's place in it."""

    def __init__(self, residents: Residents, course: Course, period: Period) -> None:
        self.residents, self.course, self.period = residents, course, period
        self.last = np.minimum(course.left, period.end - 1)
        self.entries: list[_Entries] = []

    def enter(
        self,
        code: str,
        who: Days,
        day: Days,
        value: Floats | None = None,
        unit: str | None = None,
        text: str | None = None,
        hour: int = 8,
    ) -> None:
        """Write an entry per place in `who`, unless its resident has left by then or the record is closed."""
        there = np.flatnonzero(self.open(who, day) if hour <= 8 else day < self.last[who])
        time = day[there] * DAY + (hour - 8) * HOUR
        self._write(code, who[there], time, None if value is None else value[there], unit, text)

    def open(self, who: Days, day: Days) -> Flags:
        """Return whether the record takes an entry on a day: its resident is born and has not left."""
        return (day <= self.last[who]) & (day >= np.maximum(self.residents.born[who], self.period.start))

    def events(self) -> pl.DataFrame:
        """Return all entries, with who each resident is and how the observation begins and ends."""
        self._write_statics()
        self._write_ends()
        entries = self.entries
        place = np.repeat(np.arange(len(entries)), [len(some.who) for some in entries])
        time = pl.Series(np.concatenate([some.time for some in entries]))
        value = np.concatenate([some.value for some in entries]).astype(np.float32)
        texts = {
            name: pl.Series([getattr(some, part) for some in entries], dtype=pl.String).gather(place)
            for name, part in (("code", "code"), ("unit", "unit"), ("text_value", "text"))
        }
        return pl.DataFrame(
            {
                "subject_id": self.residents.subject_id[np.concatenate([some.who for some in entries])],
                "time": time.replace({int(ALWAYS): None}).cast(pl.Datetime("us")),
                "numeric_value": pl.Series(value, nan_to_null=True),
                **texts,
            }
        )

    def _write(
        self,
        code: str,
        who: Days,
        time: Days,
        value: Floats | None = None,
        unit: str | None = None,
        text: str | None = None,
    ) -> None:
        if len(who):
            values = np.full(len(who), np.nan) if value is None else value
            self.entries.append(_Entries(code, unit, text, who, time, values))

    def _write_statics(self) -> None:
        everyone = np.arange(len(self.residents))
        grown = np.flatnonzero(self.residents.age(self.period.end) >= GROWN)
        self._write(meds.birth_code, everyone, self.residents.born * DAY - EIGHT_HOURS)
        for code, who, value in (
            ("female", everyone, self.residents.female),
            ("rural", everyone, self.residents.habits["rural"]),
            ("education", grown, self.residents.education[grown]),
        ):
            self._write(code, who, np.full(len(who), ALWAYS), value)
        for number, row in enumerate(rows("townships")):
            there = np.flatnonzero(self.residents.township == number)
            self._write("township", there, np.full(len(there), ALWAYS), text=row["township"])

    def _write_ends(self) -> None:
        """Write a death for those who died, and the end of observation for the others."""
        death, move, end = self.course.death, self.course.move, self.period.end
        died, moved = np.flatnonzero(death < end), np.flatnonzero(move < end)
        stayed = np.flatnonzero(self.course.left >= end)
        self._write(meds.death_code, died, death[died] * DAY)
        self._write(END, moved, move[moved] * DAY)
        self._write(END, stayed, np.full(len(stayed), end * DAY - EIGHT_HOURS))
