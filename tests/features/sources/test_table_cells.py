from datetime import datetime

import polars as pl
import pytest

from features.sources.table.cells import DATE_FORMATS, ages, answers, cleaned, instants, is_date_format, numbers


def texts(*cells):
    return pl.Series(cells, dtype=pl.String)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("152", 152),
        ("-3", -3),
        ("1e3", 1000),
        (".5", 0.5),
        ("5.", 5),
        ("1,234.5", 1234.5),
        ("12,345,678", 12345678),
        ("１５２．５", 152.5),
        ("6.1↑", 6.1),
        ("6.1 ↓↓", 6.1),
    ],
)
def test_a_number_is_read_as_people_write_it(cell, number):
    assert numbers(texts(cell)).value.to_list() == [number]


@pytest.mark.parametrize("cell", ["abc", "12,5", "1,23", "152mmHg", "inf", "NaN", "1_000", "0x10", "1-2", "<", "1.2.3"])
def test_what_is_no_number_becomes_null(cell):
    assert numbers(texts(cell)).value.to_list() == [None]


@pytest.mark.parametrize(
    ("cell", "bound"), [("<0.5", 0.5), ("> 20", 20), (">=3", 3), ("≤1,000", 1000), ("＜０.5", 0.5), (">14↑", 14)]
)
def test_of_a_bound_the_bound_is_the_number_and_the_cell_is_kept(cell, bound):
    found = numbers(texts(cell, "7", None))
    assert found.value.to_list() == [bound, 7, None]
    assert found.bounds.to_list() == [cell, None, None]


def test_a_difficult_cell_leaves_its_neighbours_where_they_are():
    assert numbers(texts("1", "1,000", None, "x", "2", "３")).value.to_list() == [1, 1000, None, None, 2, 3]


@pytest.mark.parametrize(
    ("cell", "years"),
    [
        ("57", 57),
        ("57.5", 57.5),
        ("57岁", 57),
        ("５７", 57),
        ("[50-60)", 55),
        ("50–60", 55),
        ("50至60岁", 55),
        ("80+", 80),
        ("≥80", 80),
        ("80岁及以上", 80),
        ("6个月", None),
        ("131", None),
        ("-1", None),
        ("old", None),
    ],
)
def test_an_age_is_read_in_years_and_of_a_band_the_middle(cell, years):
    assert ages(texts(cell)).to_list() == [years]


@pytest.mark.parametrize(
    "cell",
    ["2024-03-05", "2024-3-5", "2024/03/05", "2024/3/5", "20240305", "2024.3.5", "2024年3月5日", "２０２４-03-05"],
)
def test_a_date_that_begins_with_the_year_needs_no_format(cell):
    assert instants(texts(cell), DATE_FORMATS, "UTC").to_list() == [datetime(2024, 3, 5)]


@pytest.mark.parametrize(
    "cell", ["2024-02-30", "2024-13-01", "2024105", "05/03/2024", "0024-03-05", "24-03-05", "2300-01-01"]
)
def test_what_is_no_date_becomes_null(cell):
    assert instants(texts(cell), DATE_FORMATS, "UTC").to_list() == [None]


def test_of_several_formats_the_first_that_fits_is_taken():
    found = instants(texts("05/03/2024", "2024-03", "2021", None), ["%d/%m/%Y", "%Y-%m", "%Y"], "UTC")
    assert found.to_list() == [datetime(2024, 3, 5), datetime(2024, 3, 1), datetime(2021, 1, 1), None]


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("2009年6月", "%Y年%m月"),
        ("2009年06月", "%Y年%m月"),
        ("２００９年６月", "%Y年%m月"),
        ("2009-6", "%Y-%m"),
        ("2009.6", "%Y.%m"),
        ("6/2009", "%m/%Y"),
        ("200906", "%Y%m"),
    ],
)
def test_a_month_alone_is_its_first_day_with_one_digit_or_two(cell, form):
    assert instants(texts(cell, None), [form], "UTC").to_list() == [datetime(2009, 6, 1), None]


@pytest.mark.parametrize(
    ("cell", "form"),
    [("2009年13月", "%Y年%m月"), ("2009-0", "%Y-%m"), ("2009-6-3", "%Y-%m"), ("20096", "%Y%m"), ("2009", "%Y-%m")],
)
def test_what_is_no_month_becomes_null(cell, form):
    assert instants(texts(cell), [form], "UTC").to_list() == [None]


def test_a_local_midnight_is_stored_as_utc():
    assert instants(texts("2024-03-05"), DATE_FORMATS, "Asia/Shanghai").to_list() == [datetime(2024, 3, 4, 16)]


def test_a_time_with_an_offset_keeps_its_own_zone():
    found = instants(texts("2024-03-05T06:00:00+02:00", "2024-03-05T04:00:00Z"), DATE_FORMATS, "Asia/Shanghai")
    assert found.to_list() == [datetime(2024, 3, 5, 4)] * 2


def test_a_midnight_that_summer_time_skipped_is_the_beginning_of_that_day():
    # In Shanghai clocks went from 00:00 to 01:00 on 1940-06-01.
    assert instants(texts("1940-06-01"), DATE_FORMATS, "Asia/Shanghai").to_list() == [datetime(1940, 5, 31, 16)]


def test_an_hour_that_came_twice_is_the_first_of_them():
    # In Shanghai summer time, nine hours before UTC, ended on 1986-09-14.
    found = instants(texts("1986-09-14 01:30"), DATE_FORMATS, "Asia/Shanghai")
    assert found.to_list() == [datetime(1986, 9, 13, 16, 30)]


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%Y-%m", "%Y", "%d.%m.%y", "%Y%m%d%H%M%S", "%Y年%m月%d日", "%Y-%m-%dT%H:%M%z"]
)
def test_a_format_with_a_year_is_one(form):
    assert is_date_format(form)


@pytest.mark.parametrize("form", ["YYYY-MM-DD", "%H:%M", "%m-%d", "%Q", "%", ""])
def test_a_format_without_a_year_is_none(form):
    assert not is_date_format(form)


def test_cleaning_takes_off_blanks_and_nulls_what_is_missing():
    cells = pl.DataFrame({"a": [" 1 ", "NA", "", "\u3000x\t", None], "b": ["?", "NAD", " NA", "  ", "0"]})
    found = cleaned(cells, ["NA", "?"])
    assert found["a"].to_list() == ["1", None, None, "x", None]
    assert found["b"].to_list() == [None, "NAD", None, None, "0"]


def test_an_answer_is_the_same_with_decimals():
    assert answers(texts("1.0", "1", "-2.00", "1.5", "01", "男")).to_list() == ["1", "1", "-2", "1.5", "01", "男"]
