"""The short way of a call for one resident, beside the long ways that it must agree with."""

import json
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.engine import Engine
from features.events import normalised
from features.kernel import ALWAYS, Known
from features.times import microseconds
from features.translation import MOST_PAIRS
from serving.api.calls import Call, Event, Resident, read_call
from serving.api.problems import ProblemError
from serving.api.records import Reader, Record, columns_of, unused
from serving.api.scores import as_json
from serving.drivers import whole_years
from serving.settings import Settings

ENGINE = Engine(timezone="UTC")
TRANSLATOR, VOCABULARY = ENGINE.translator, ENGINE.vocabulary
INDEX = microseconds(datetime(2018, 1, 1))
ONE = '{"residents": [{"id": 1, "events": [%s]}]}'

CODES = [("sbp", None), ("sbp", "kPa"), ("LOINC//8480-6", "mm[Hg]"), ("bmi", None), ("ICD10//E11.9", None)]
CODES += [
    ("MEDS_BIRTH", None),
    ("ATC//A10BA02", None),
    ("female", None),
    ("hba1c", "%"),
    ("sbp", "furlong"),
    ("ZZ//1", None),
]
days = st.none() | st.dates(date(1940, 1, 1), date(2020, 1, 1)).map(date.isoformat)
values = st.none() | st.sampled_from([0.0, 1.0, 5.3, 50.0, 135.0, 300.0, 300.0001, 1e30]) | st.floats(-1e3, 1e3)
events = st.lists(
    st.builds(
        lambda pair, time, value: Event(code=pair[0], unit=pair[1], time=time, value=value),
        st.sampled_from(CODES),
        days,
        values,
    ),
    max_size=12,
)


def read(reader: Reader, *told: Event) -> tuple[Known, Record]:
    """Read a resident's events, and translate what the engine is to see of them."""
    book, [record] = reader.read([Resident(id=1, events=list(told))], [INDEX])
    return TRANSLATOR.of_pairs(book.meanings, record.pair, record.time, record.number), record


def as_stored(told: list[Event]) -> pl.DataFrame:
    """Return events as the event store holds them, sorted by time."""
    time = [None if each.time is None else datetime.fromisoformat(each.time) for each in told]
    columns = {"code": [each.code for each in told], "unit": [each.unit for each in told]}
    number = pl.Series([each.value for each in told], dtype=pl.Float32)
    frame = pl.DataFrame(columns, schema={"code": pl.String, "unit": pl.String}).with_columns(
        subject_id=pl.lit(1), time=pl.Series(time, dtype=pl.Datetime("us")), numeric_value=number
    )
    return normalised(frame).sort("time", maintain_order=True)


@given(events)
def test_a_call_of_one_resident_fills_the_profile_that_the_store_would_bit_for_bit(told: list[Event]) -> None:
    known, record = read(Reader(TRANSLATOR, "UTC"), *told)
    births = [at for at in map(_born, told) if at is not None]
    seen = [each for each in told if not _is_left_out(each, max(births, default=None))]
    expected = ENGINE.one(as_stored(seen), INDEX)
    assert ENGINE.fill_one(known, INDEX).tobytes() == expected.tobytes()
    assert record.time.tolist() == sorted(record.time.tolist())


def _born(event: Event) -> str | None:
    return event.time if event.code == "MEDS_BIRTH" and event.time and event.time < "2018-01-01" else None


def _is_left_out(event: Event, born: str | None) -> bool:
    later = event.time is not None and event.time >= "2018-01-01" and event.code != "MEDS_BIRTH"
    return later or bool(event.time and born and event.time < born)


@given(events)
def test_the_values_that_are_said_to_be_unused_are_those_that_are(told: list[Event]) -> None:
    _, record = read(Reader(TRANSLATOR, "UTC"), *(each.model_copy(update={"time": None}) for each in told))
    expected = [
        (number, reason)
        for number, each in enumerate(told)
        for meaning in VOCABULARY.meanings(each.code, each.unit)
        if (reason := unused(each.value, meaning, VOCABULARY))
    ]
    assert [(each.event, each.reason) for each in record.unused_values] == expected


@given(st.lists(events, min_size=2, max_size=4))
def test_several_residents_are_read_as_each_alone(told: list[list[Event]]) -> None:
    reader = Reader(TRANSLATOR, "UTC")
    book, records = reader.read([Resident(id=1, events=each) for each in told], [INDEX] * len(told))
    together = TRANSLATOR.of_columns(columns_of(book, records), np.arange(len(told)))
    for number, each in enumerate(told):
        here, (alone, _) = slice(*together.starts[number : number + 2]), read(reader, *each)
        for one, all_of_them in zip(alone[1:], together[1:], strict=True):
            assert one.tobytes() == all_of_them[here].tobytes()


def test_ever_new_codes_do_not_fill_the_memory_and_change_nothing() -> None:
    translator = Engine(timezone="UTC").translator
    reader, told = Reader(translator, "UTC"), Event(code="sbp", value=135, time="2017-01-01")
    before = reader.read([Resident(id=1, events=[told])], [INDEX])[1][0]
    for number in range(0, 2 * MOST_PAIRS, 512):
        codes = [Event(code=f"ICD10//E11.{each}", time="2017-01-01") for each in range(number, number + 512)]
        book, _ = reader.read([Resident(id=1, events=codes)], [INDEX])
        assert len(book.number) <= MOST_PAIRS
    book, [after] = reader.read([Resident(id=1, events=[told])], [INDEX])
    assert [pair for pair, number in book.number.items() if number == after.pair[0]] == [("sbp", None)]
    assert (before.time.tolist(), before.number.tolist()) == (after.time.tolist(), after.number.tolist())


@pytest.mark.parametrize(
    "event",
    [
        '{"code": "sbp", "code": "dbp"}',
        '{"code": "sbp", "code" : "dbp"}',
        '{"code" : "sbp", "value": 1, "code"\n: "dbp"}',
        '{"code": ":", "unit": ":", "code"\t: "dbp"}',
        r'{"code": "sbp", "c\u006fde": "dbp"}',
        r'{"code": "\":", "value": 1, "value": 2}',
    ],
)
def test_a_name_given_twice_is_refused_however_it_is_written(event: str) -> None:
    with pytest.raises(ProblemError) as refused:
        read_call((ONE % event).encode(), "application/json", Settings())
    assert "given twice" in refused.value.detail


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : "), (",\n", "\t:\n")])
def test_blanks_around_a_colon_do_not_matter(separators: tuple[str, str]) -> None:
    call = {"residents": [{"id": 'a:"b', "events": [{"code": ":\\", "value": 1.5, "text": '":"'}]}], "drivers": 2}
    body = json.dumps(call, separators=separators).encode()
    assert read_call(body, "application/json", Settings()) == Call.model_validate(call)


@given(
    st.datetimes(datetime(1850, 1, 1), datetime(2149, 1, 1)), st.datetimes(datetime(1850, 1, 1), datetime(2149, 1, 1))
)
def test_an_age_is_the_number_of_birthdays(one: datetime, other: datetime) -> None:
    born, now = sorted((one, other))
    birthdays = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    assert whole_years(microseconds(born), microseconds(now)) == birthdays


def test_an_answer_that_json_cannot_hold_is_not_given() -> None:
    assert as_json({"id": "NaN", "Infinity": 1.5}) == b'{"id":"NaN","Infinity":1.5}'
    with pytest.raises(ValueError, match="JSON"):
        as_json({"probability": float("nan")})


def test_what_always_holds_comes_before_what_is_dated() -> None:
    _, record = read(
        Reader(TRANSLATOR, "UTC"), Event(code="sbp", value=1, time="2017-01-01"), Event(code="female", value=1)
    )
    assert record.time.tolist() == [ALWAYS, microseconds(datetime(2017, 1, 1))]
