"""How old the records are: the last event of each concept and township, and months in which events are missing.

A month is held against the whole year before, since examinations come in campaigns.
"""

from collections import deque
from collections.abc import Iterator
from datetime import date, timedelta

import polars as pl

from features.quality.completeness import COMPUTED
from features.quality.fault import Fault, Level
from features.quality.survey import FRAMES, TOWNSHIP, Counts, Shard, Survey, Tables

MONTHS = 12
# A birth is no sign that somebody still records, and what is computed has no source of its own.
UNRECORDED = frozenset({*COMPUTED, "age"})
# A year earlier there were at least so many in the months that are now silent.
EXPECTED = 10
# A month is judged where each of the twelve before had so many events, and is a drop below half of the least.
USUAL = 100
DROP = 0.5
# A county's records are taken in at least once in three months; what is silent for less may yet come.
STALE_DAYS = 92


class Freshness:
    """How many events there are in each month, and when the last one was."""

    def __init__(self, survey: Survey) -> None:
        concepts = survey.vocabulary.concepts.values()
        self._survey = survey
        self._recorded = [each.name for each in concepts if each.kind != "phenotype" and each.name not in UNRECORDED]
        self._volume = Counts(TOWNSHIP, "month")
        self._of_concepts = Counts("concept", "month")

    def look(self, shard: Shard) -> None:
        """Count events by month."""
        counted = (pl.len().cast(pl.Int64).alias("events"), pl.col("day").max().alias("last"))
        dated = shard.recorded.filter(pl.col("time").is_not_null() & ~pl.col("code").is_in(FRAMES))
        days = dated.select(TOWNSHIP, day=self._survey.day())
        self._volume.add(days.group_by(TOWNSHIP, month=_month("day")).agg(counted))
        framed = shard.usable.filter(pl.col("day").is_not_null() & pl.col("concept").is_in(self._recorded))
        summed = framed.group_by("concept", month=_month("day")).agg(counted)
        self._of_concepts.add(summed.with_columns(pl.col("concept").cast(pl.String)))

    def tables(self) -> Tables:
        """Return the last day of concepts and townships, and the events of each month."""
        return {
            "freshness": self._last(self._of_concepts.total(), "concept"),
            "freshness_by_township": self._last(self._volume.total(), TOWNSHIP),
            "volume_by_month": _readable(self._months([])),
            "volume_by_month_and_township": _readable(self._months([TOWNSHIP])),
        }

    def faults(self) -> Iterator[Fault]:
        """Yield records that are old, months with too few events, and concepts and townships that fell silent."""
        last = self._volume.total()["last"].max()
        if self._survey.relative or not isinstance(last, date):
            return
        days = (self._survey.last_day - last).days
        if days >= STALE_DAYS:
            yield Fault(Level.SUSPICIOUS, "stale", 1.0, days, {"last": str(last), "days": days})
        yield from self._drops()
        yield from self._silent("silent_concept", self._of_concepts.total(), "concept")
        yield from self._silent("silent_township", self._volume.total().drop_nulls(TOWNSHIP), TOWNSHIP)

    def _last(self, counts: pl.DataFrame, key: str) -> pl.DataFrame:
        found = counts.group_by(key).agg(pl.col("events").sum(), pl.col("last").max())
        days = (pl.lit(self._survey.last_day) - pl.col("last")).dt.total_days()
        return found.with_columns(days=days).sort("days", key, descending=[True, False])

    def _months(self, keys: list[str]) -> pl.DataFrame:
        """Return the events of every month from the first to the last, those without any too."""
        counts = self._volume.total().group_by([*keys, "month"]).agg(pl.col("events").sum())
        last = self._last_month()
        first = min(counts["month"].to_list(), default=last)
        calendar = pl.DataFrame({"month": pl.int_range(first, last + 1, dtype=pl.Int32, eager=True)})
        every = counts.select(keys).unique().join(calendar, how="cross") if keys else calendar
        joined = every.join(counts, on=[*keys, "month"], how="left", nulls_equal=True)
        return joined.with_columns(pl.col("events").fill_null(0)).sort([*keys, "month"])

    def _drops(self) -> Iterator[Fault]:
        """Yield the months with less than half of the least of the twelve months before that were none."""
        before: deque[int] = deque(maxlen=MONTHS)
        for month, events in self._months([]).filter(pl.col("month") <= self._last_whole_month()).iter_rows():
            least = min(before, default=0) if len(before) == MONTHS else 0
            if least >= USUAL and events < DROP * least:
                figures = {"month": _written(month), "events": events, "usual": least}
                yield Fault(Level.SUSPICIOUS, "drop", 1 - events / least, least - events, figures)
            else:
                before.append(events)

    def _last_month(self) -> int:
        return self._survey.last_day.year * MONTHS + self._survey.last_day.month - 1

    def _last_whole_month(self) -> int:
        day_after = self._survey.last_day + timedelta(days=1)
        return day_after.year * MONTHS + day_after.month - 2

    def _silent(self, kind: str, counts: pl.DataFrame, key: str) -> Iterator[Fault]:
        """Yield what has had no events for months in which it had them a year earlier.

        What was not recorded the year before either, such as answers told once when a file is opened, may stay silent.
        """
        whole = self._last_whole_month()
        ended = counts.join(counts.group_by(key).agg(since=pl.col("month").max(), day=pl.col("last").max()), on=key)
        behind = pl.col("since") - pl.col("month")
        same_months = (behind < MONTHS) & (pl.col("month") <= whole - MONTHS)
        a_year_before = behind.is_between(MONTHS, 2 * MONTHS - 1)
        found = ended.group_by(key, "since", "day").agg(
            usual=pl.col("events").filter(same_months).sum(), regular=pl.col("events").filter(a_year_before).sum()
        )
        quiet = found.filter((pl.col("since") < whole) & (pl.min_horizontal("usual", "regular") >= EXPECTED))
        for row in quiet.sort(key).iter_rows(named=True):
            days = (self._survey.last_day - row["day"]).days
            figures = {key: row[key], "last": str(row["day"]), "days": days, "usual": row["usual"]}
            level = Level.SUSPICIOUS if days >= STALE_DAYS else Level.NOTE
            yield Fault(level, kind, min(days / 366, 1.0), row["usual"], figures)


def _month(column: str) -> pl.Expr:
    """The month of a day, counted from the year 0."""
    return pl.col(column).dt.year() * MONTHS + pl.col(column).dt.month().cast(pl.Int32) - 1


def _readable(months: pl.DataFrame) -> pl.DataFrame:
    written = pl.format("{}-{}", pl.col("month") // MONTHS, (pl.col("month") % MONTHS + 1).cast(pl.String).str.zfill(2))
    return months.with_columns(month=written)


def _written(month: int) -> str:
    return f"{month // MONTHS}-{month % MONTHS + 1:02d}"
