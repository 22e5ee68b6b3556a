"""Lengths of time, and a county's dates as instants in UTC."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from features.errors import WeibingError
from features.times import DAY, YEAR, instant, length, microseconds, zone

HOUR = DAY // 24


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1us", 1),
        ("90s", 90_000_000),
        ("12h", DAY // 2),
        ("180d", 180 * DAY),
        ("2w", 14 * DAY),
        ("6mo", YEAR // 2),
        ("1y", 365 * DAY + 6 * HOUR),
        ("0.5y", YEAR // 2),
        (" 5 y ", 5 * YEAR),
    ],
)
def test_a_length_is_a_number_and_a_unit(text, expected):
    assert length(text) == expected


def test_a_length_has_the_same_microseconds_wherever_it_is_laid():
    assert length("12mo") == length("1y") == 12 * length("1mo")


@pytest.mark.parametrize(
    "text", ["", "1", "y", "-1y", "0d", "0.1us", "1.y", "1m", "1Y", "1y2d", "1e3d", "nan d", "1001y"]
)
def test_what_is_not_a_length_is_refused_with_the_units_that_there_are(text):
    with pytest.raises(WeibingError, match="us, s, h, d, w, mo, y") as refused:
        length(text)
    assert f'"{text}"' in str(refused.value)


def test_a_date_is_the_midnight_with_which_it_begins_in_its_zone():
    assert instant("2024-01-01", "Asia/Shanghai") == datetime(2023, 12, 31, 16)
    assert instant(date(2024, 1, 1), "Asia/Shanghai") == datetime(2023, 12, 31, 16)
    assert instant("2024-01-01") == datetime(2024, 1, 1)


def test_shanghai_has_no_summer_time_today():
    assert {instant(date(2024, month, 1), "Asia/Shanghai").hour for month in range(1, 13)} == {16}


def test_shanghai_had_summer_time_until_1991():
    assert instant("1990-07-01", "Asia/Shanghai") == datetime(1990, 6, 30, 15)


def test_a_zone_with_summer_time_moves_midnight():
    assert instant("2024-01-01", "Europe/Zurich") == datetime(2023, 12, 31, 23)
    assert instant("2024-07-01", "Europe/Zurich") == datetime(2024, 6, 30, 22)


def test_a_time_without_an_offset_is_of_the_zone():
    assert instant("2024-01-01T08:30", "Asia/Shanghai") == datetime(2024, 1, 1, 0, 30)
    assert instant(datetime(2024, 1, 1, 8, 30), "Asia/Shanghai") == datetime(2024, 1, 1, 0, 30)


@pytest.mark.parametrize("when", ["2024-01-01T08:30+02:00", "2024-01-01T06:30Z"])
def test_a_time_with_an_offset_keeps_its_own(when):
    assert instant(when, "Asia/Shanghai") == datetime(2024, 1, 1, 6, 30)
    aware = datetime(2024, 1, 1, 8, 30, tzinfo=timezone(timedelta(hours=2)))
    assert instant(aware, "Asia/Shanghai") == datetime(2024, 1, 1, 6, 30)


def test_an_instant_bears_no_zone_as_the_store_holds_it():
    assert instant(datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is None


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "2024-02-30", "01.02.2024", "2024/01/01", "٣"])
def test_what_is_not_a_date_is_refused_with_how_to_write_one(text):
    with pytest.raises(WeibingError, match="Write it as YYYY-MM-DD") as refused:
        instant(text)
    assert f'"{text}"' in str(refused.value)


@pytest.mark.parametrize(("text", "of"), [("0001-01-01", "Asia/Shanghai"), ("9999-12-31T23:00", "America/New_York")])
def test_a_date_that_has_no_instant_in_utc_is_refused_with_what_to_do(text, of):
    with pytest.raises(WeibingError, match=f"{text[:10]} is too early or too late. Leave it out"):
        instant(text, of)


@pytest.mark.parametrize("name", ["", "Asia", "Asia/Shangai", "../etc/passwd", "/etc/passwd", "北京"])
def test_an_unknown_zone_is_refused_with_an_example(name):
    with pytest.raises(WeibingError, match="Asia/Shanghai") as refused:
        zone(name)
    assert f'"{name}"' in str(refused.value)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (datetime(1970, 1, 1), 0),
        (datetime(1970, 1, 2, 0, 0, 0, 1), DAY + 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999), -1),
        (datetime(1940, 1, 1), -(30 * 365 + 8) * DAY),
    ],
)
def test_microseconds_count_from_1970_and_backwards_before_it(when, expected):
    assert microseconds(when) == expected
