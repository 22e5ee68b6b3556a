"""What the rules of a mapping make of rows: events. One function for each kind of rule, and one for each kind of time.

A rule is given the rows that meet its conditions. What it cannot take, it counts.
"""

from functools import singledispatch

import polars as pl

from features.errors import WeibingError
from features.events import SCHEMA
from features.sources.report import BIRTH, DEATH, FEMALE, OBSERVATION_END, Reason
from features.sources.table.cells import answers
from features.sources.table.mapping import (
    DROP,
    AtAge,
    Birth,
    Choice,
    Coded,
    Death,
    Elapsed,
    Event,
    Flag,
    InColumn,
    InOrder,
    Named,
    Naming,
    ObservationEnd,
    OnDate,
    Rule,
    Sex,
    Text,
    Time,
    Times,
    Unit,
    Value,
)
from features.sources.table.residents import IDENTITY_OR_MOBILE, STANDING_ALONE, are_identity_numbers
from features.sources.table.rows import CODE, RANK, RESIDENT, TIME, Rows
from features.times import YEAR, instant, length
from features.vocabulary import HIERARCHICAL

Cells = str | pl.Series | None


def times(told: Times, rows: Rows) -> pl.Series:
    """Return the time of each row: of several ways to tell it, the first that does; null where none does."""
    first, *others = (time_of(time, rows) for time in told)
    for other in others:
        first = first.fill_null(other)
    return first


@singledispatch
def time_of(time: Time, rows: Rows) -> pl.Series:
    """Return the time of each row, null where it is missing or cannot be read."""
    raise TypeError(time)


@time_of.register
def _(time: OnDate, rows: Rows) -> pl.Series:
    return pl.repeat(instant(time.date, rows.zone), len(rows), dtype=SCHEMA["time"], eager=True)


@time_of.register
def _(time: InColumn, rows: Rows) -> pl.Series:
    return rows.dates(time)


@time_of.register
def _(time: Elapsed, rows: Rows) -> pl.Series:
    elapsed = rows.numbers(time.amount).value * time.microseconds
    return rows.after(times(time.origin, rows), elapsed, time.amount)


@time_of.register
def _(time: AtAge, rows: Rows) -> pl.Series:
    return rows.after(times(time.birth, rows), rows.ages(time.age) * YEAR, time.age)


@time_of.register
def _(time: InOrder, rows: Rows) -> pl.Series:
    elapsed = rows[f"{RANK}{time.order}"].cast(pl.Int64) * length(time.step)
    return (times(time.origin, rows).cast(pl.Int64) + elapsed).cast(SCHEMA["time"])


@singledispatch
def events_of(rule: Rule, rows: Rows, place: str) -> pl.DataFrame:
    """Return the events that a rule makes of the rows that meet its conditions.

    Parameters
    ----------
    rule : a rule of the mapping
    rows : the rows, with the columns of the rule
    place : the words in which a report speaks of the rule
    """
    raise TypeError(rule)


@events_of.register
def _(rule: Birth, rows: Rows, place: str) -> pl.DataFrame:
    if rule.age is None:
        return _told(rule, rows, BIRTH)
    rows = rows.filled(rule.age)
    born = rows.after(_time(rule, rows), rows.ages(rule.age) * -YEAR, rule.age)
    return _events(rows, born, BIRTH).drop_nulls("time")


@events_of.register
def _(rule: Death, rows: Rows, place: str) -> pl.DataFrame:
    return _told(rule, rows, DEATH)


@events_of.register
def _(rule: ObservationEnd, rows: Rows, place: str) -> pl.DataFrame:
    return _told(rule, rows, OBSERVATION_END)


@events_of.register
def _(rule: Sex, rows: Rows, place: str) -> pl.DataFrame:
    female = dict.fromkeys(rule.male, 0.0) | dict.fromkeys(rule.female, 1.0)
    return _chosen(rule, rows.filled(rule.column), place, FEMALE, female)


@events_of.register
def _(rule: Event, rows: Rows, place: str) -> pl.DataFrame:
    return _dated(rule, rows, place, rule.code)


@events_of.register
def _(rule: Value, rows: Rows, place: str) -> pl.DataFrame:
    rows = rows.filled(rule.column)
    return _measured(rule, rows, place, rule.code, rule.column, _units(rule.unit, rows))


@events_of.register
def _(rule: Named, rows: Rows, place: str) -> pl.DataFrame:
    rows = _coded(rule, rows.filled(rule.name, rule.value), rule.name)
    unit = _units(rule.unit, rows)
    if rule.units:
        default = unit if unit is not None else pl.lit(None, pl.String)
        unit = rows[rule.name].replace_strict(rule.units, default=default, return_dtype=pl.String)
    return _measured(rule, rows, place, rows[CODE], rule.value, unit)


@events_of.register
def _(rule: Coded, rows: Rows, place: str) -> pl.DataFrame:
    return pl.concat([_of_code_column(rule, rows.filled(column), place, column) for column in rule.column])


@events_of.register
def _(rule: Flag, rows: Rows, place: str) -> pl.DataFrame:
    yes = [rows.filtered(answers(rows[column]).is_in(rule.yes).fill_null(value=False)) for column in rule.column]
    return pl.concat([_dated(rule, flagged, place, rule.code) for flagged in yes])


@events_of.register
def _(rule: Choice, rows: Rows, place: str) -> pl.DataFrame:
    return _chosen(rule, rows.filled(rule.column), place, rule.code, rule.values)


@events_of.register
def _(rule: Text, rows: Rows, place: str) -> pl.DataFrame:
    rows = rows.filled(rule.column)
    telling, struck_out = (STANDING_ALONE, "${1}***${2}") if rule.static else (IDENTITY_OR_MOBILE, "***")
    rows.notes.rest(Reason.STRUCK_OUT, int(rows[rule.column].str.contains(telling).sum()), rule.column)
    text = rows[rule.column].str.replace_all(telling, struck_out)
    return _dated(rule, rows, place, rule.code, text=text)


def _time(rule: Rule, rows: Rows) -> pl.Series:
    """Return the time of each row by the rule, or by the table; null where the events are always true."""
    if rule.timeless:
        return pl.repeat(None, len(rows), dtype=SCHEMA["time"], eager=True)
    return times(rule.time, rows) if rule.time else rows[TIME]


def _events(
    rows: Rows, time: pl.Series, code: Cells, value: pl.Series | None = None, text: Cells = None, unit: Cells = None
) -> pl.DataFrame:
    """Return an event for each row."""
    given = {"time": time, "code": code, "numeric_value": value, "text_value": text, "unit": unit}
    columns = {name: it if isinstance(it, pl.Series) else pl.lit(it, SCHEMA[name]) for name, it in given.items()}
    return rows.frame.select(pl.col(RESIDENT).alias("subject_id"), *rows.of_a_record(), **columns)


def _told(rule: Rule, rows: Rows, code: str) -> pl.DataFrame:
    """Return events whose time is all they say, so that without one there is none."""
    return _events(rows, _time(rule, rows), code).drop_nulls("time")


def _dated(
    rule: Rule,
    rows: Rows,
    place: str,
    code: Cells,
    value: pl.Series | None = None,
    text: Cells = None,
    unit: Cells = None,
) -> pl.DataFrame:
    """Return an event for each row; those without a time are counted and left out."""
    events = _events(rows, _time(rule, rows), code, value, text, unit)
    if rule.timeless:
        return events
    rows.notes.rest(Reason.UNDATED, events["time"].null_count(), place)
    return events.drop_nulls("time")


def _measured(rule: Rule, rows: Rows, place: str, code: Cells, column: str, unit: Cells) -> pl.DataFrame:
    """Return an event for each row whose cell in the column is a number."""
    found = rows.numbers(column)
    readable = found.value.is_not_null()
    code, unit, bounds = (it.filter(readable) if isinstance(it, pl.Series) else it for it in (code, unit, found.bounds))
    return _dated(rule, rows.filtered(readable), place, code, found.value.filter(readable), bounds, unit)


def _chosen(rule: Choice | Sex, rows: Rows, place: str, code: str, values: dict[str, float]) -> pl.DataFrame:
    """Return an event for each row whose answer is listed."""
    value = answers(rows[rule.column]).replace_strict(values, default=None, return_dtype=pl.Float64)
    listed = value.is_not_null()
    rows.notes.names(Reason.NOT_AN_ANSWER, rule.column, rows[rule.column].filter(~listed))
    return _dated(rule, rows.filtered(listed), place, code, value.filter(listed))


def _of_code_column(rule: Coded, rows: Rows, place: str, column: str) -> pl.DataFrame:
    if rule.separator:
        rows = rows.apart(column, rule.separator)
    if rule.system in HIERARCHICAL:
        rows = rows.having(column, rows[column].str.to_uppercase())
    rows = _coded(rule, rows, column)
    return _dated(rule, rows, place, rows[CODE])


def _coded(rule: Naming, rows: Rows, column: str) -> Rows:
    """Return the rows whose name is not dropped, with the code that it stands for."""
    names = rows[column]
    if are_identity_numbers(names):
        raise WeibingError(
            f'{rows.notes.label}: the column "{column}" holds identity numbers, which never enter the store. '
            "Take the rule that reads it as codes out of the mapping."
        )
    code = names.replace_strict(rule.codes, default=None, return_dtype=pl.String)
    if rule.rest != DROP:
        code = code.fill_null(f"{rule.rest}//" + names)
    code = code.set(names.is_in(rule.drop), None)
    rows.notes.names(Reason.DROPPED, column, names.filter(code.is_null()))
    return rows.having(CODE, code).filled(CODE)


def _units(unit: Unit | None, rows: Rows) -> Cells:
    """Return the unit of all rows, or of each."""
    return unit if unit is None or isinstance(unit, str) else rows[unit.column]
