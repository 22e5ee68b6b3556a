"""An OMOP data set, as events: table by table, births first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from features.events import SCHEMA
from features.records import RECORD, TELLING, numbered
from features.sources.omop.amounts import amounts
from features.sources.omop.concepts import ANSWER, OF_SOURCE, OMOP, SOURCE_VALUE, STANDARD, Concepts
from features.sources.omop.reading import Source
from features.sources.omop.rows import Reading, codes, concepts, dated, events, first_date, rows_of
from features.sources.omop.tables import (
    BIRTH,
    CLINICAL,
    DAY_OF_BIRTH,
    DEATH,
    GENDER,
    MONTH_OF_BIRTH,
    NOT_TAKEN,
    OBSERVATION_PERIOD,
    PERIOD_END,
    PERSON,
    YEAR_OF_BIRTH,
    Clinical,
)
from features.sources.report import BIRTH as BORN
from features.sources.report import DEATH as DIED
from features.sources.report import FEMALE, OBSERVATION_END, Reason
from features.sources.table.rows import Rows
from features.vocabulary import Vocabulary

STAY, LENGTH_OF_STAY, DAYS = "hospital_stay", "length_of_stay", "d"
# From the midnight with which a day begins.
TO_ITS_LAST_MOMENT = timedelta(days=1, microseconds=-1)

_END = "end"


@dataclass(frozen=True)
class Records:
    """An OMOP data set, and what is needed to make events of it."""

    source: Source
    concepts: Concepts
    vocabulary: Vocabulary
    reading: Reading
    progress: Callable[[str], None]

    def events(self) -> Iterator[pl.DataFrame]:
        """Yield all events.

        Raises
        ------
        WeibingError
            If a table cannot be read, or a person's id is not an integer.
        """
        for announced, rows in self._rows(PERSON, [BIRTH, YEAR_OF_BIRTH, MONTH_OF_BIRTH, DAY_OF_BIRTH, GENDER]):
            yield announced
            yield _births(rows)
            yield self._sexes(rows)
        for table in CLINICAL:
            for announced, rows in self._rows(table.name, table.columns):
                yield announced
                yield from self._happened(table, dated(rows, table.begins))
        yield self._ends_of_observation()
        for name in NOT_TAKEN:
            if name in self.source.tables() and (count := self.source.rows(name)):
                self.reading.report.add_rows(f"{name} (not taken in)", count)

    def _rows(self, table: str, wanted: Sequence[str]) -> Iterator[tuple[pl.DataFrame, Rows]]:
        for announced, rows in rows_of(self.source, table, wanted, self.reading):
            self.progress(f"{table}: {self.reading.report.rows[table]:,} rows")
            yield announced, rows

    def _sexes(self, rows: Rows) -> pl.DataFrame:
        known = {
            int(code.removeprefix(OMOP)): meaning.value
            for code, meanings in self.vocabulary.codes.items()
            for meaning in meanings
            if code.startswith(OMOP) and meaning.concept == FEMALE
        }
        sex = concepts(rows, GENDER).replace_strict(known, default=None, return_dtype=pl.Float64)
        rows.notes.names(Reason.NOT_AN_ANSWER, GENDER, rows[GENDER].fill_null("").filter(sex.is_null()))
        return events(rows, time=None, code=FEMALE, numeric_value=sex).drop_nulls("numeric_value")

    def _happened(self, table: Clinical, rows: Rows) -> Iterator[pl.DataFrame]:
        """Yield the events of a clinical table's rows, each at its time."""
        if table is DEATH:
            yield events(rows, code=DIED)
            named = (concepts(rows, table.concept) != 0) | (concepts(rows, table.source_concept) != 0)
            rows = rows.filtered(named | rows[table.source_value].is_not_null())
        coded = self.concepts.coded(self._uncoded(table, rows), by_ancestor=table.by_ancestor)
        if table.ends:
            yield self._lengths_of_stay(coded)
        yield coded.drop(_END, strict=False)

    def _uncoded(self, table: Clinical, rows: Rows) -> pl.DataFrame:
        """Return an event for each row, with its concepts in the place of a code."""
        columns = {
            STANDARD: concepts(rows, table.concept),
            OF_SOURCE: concepts(rows, table.source_concept),
            ANSWER: pl.repeat(0, len(rows), dtype=pl.Int64, eager=True),
            SOURCE_VALUE: codes(rows, table.source_value),
            **amounts(rows, table, self.concepts.units),
        }
        if table.ends:
            columns[_END] = first_date(rows, table.ends)
        return events(rows, **columns)

    def _lengths_of_stay(self, visits: pl.DataFrame) -> pl.DataFrame:
        """Return the days of each stay in hospital, which are known at its end."""
        stays = [
            code
            for code in visits["code"].unique()
            if any(meaning.concept == STAY for meaning in self.vocabulary.meanings(code))
        ]
        begin, end = (self._day(column) for column in ("time", _END))
        return visits.filter(pl.col("code").is_in(stays), pl.col(_END).is_not_null()).select(
            "subject_id",
            RECORD,
            TELLING,
            time=_END,
            code=pl.lit(LENGTH_OF_STAY),
            numeric_value=(end - begin).dt.total_days().cast(pl.Float32),
            unit=pl.lit(DAYS),
        )

    def _day(self, column: str) -> pl.Expr:
        return pl.col(column).dt.replace_time_zone("UTC").dt.convert_time_zone(self.reading.zone).dt.date()

    def _ends_of_observation(self) -> pl.DataFrame:
        """Return the last moment of each person's last period of observation."""
        periods = [
            events(dated(rows, [PERIOD_END]), code=OBSERVATION_END).group_by("subject_id", "code").agg(pl.max("time"))
            for _, rows in self._rows(OBSERVATION_PERIOD, [PERIOD_END])
        ]
        empty = pl.DataFrame(schema={name: SCHEMA[name] for name in ("subject_id", "code", "time")})
        last = pl.concat([empty, *periods]).group_by("subject_id", "code").agg(pl.max("time"))
        # The last period of a person, whichever it is, is one record.
        record = numbered(self.reading.identities.source, OBSERVATION_PERIOD, last["subject_id"])
        return last.with_columns(pl.col("time") + TO_ITS_LAST_MOMENT, record.alias(RECORD))


def _births(rows: Rows) -> pl.DataFrame:
    told = first_date(rows.having(YEAR_OF_BIRTH, _written_out(rows)), [BIRTH, YEAR_OF_BIRTH])
    rows.notes.rest(Reason.UNDATED, told.null_count(), BORN)
    return events(rows, time=told, code=BORN).drop_nulls("time")


def _written_out(rows: Rows) -> pl.Series:
    """Return dates of birth made up of years, months and days.

    Where the month is not known it is the 15th of June, where the day is not known the 1st, as OMOP's conventions are.
    """
    day = pl.when(pl.col(MONTH_OF_BIRTH).is_null()).then(pl.lit("15")).otherwise(pl.col(DAY_OF_BIRTH).fill_null("1"))
    parts = (pl.col(YEAR_OF_BIRTH), pl.col(MONTH_OF_BIRTH).fill_null("6"), day)
    whole = [part.str.replace(r"\.0+$", "").str.zfill(2) for part in parts]
    return rows.frame.select(pl.concat_str(whole, separator="-")).to_series()
