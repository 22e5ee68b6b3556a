"""Cells as people write them, read as numbers, ages and times. What cannot be read becomes null.

All of it works on whole columns. A column is first read the fast way; the cells that this leaves are tried again with
more patience, so that well-kept records cost nothing for the sake of the others.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import polars as pl

# Unambiguous ways to write a date: the year comes first.
DATE_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y.%m.%d",
    "%Y年%m月%d日",
    "%Y%m%d",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
)

# A date outside of these is a slip of the pen: a year written with two digits, or days counted in the wrong unit.
EARLIEST, LATEST = datetime(1850, 1, 1), datetime(2200, 1, 1)
OLDEST = 130

_FULL_WIDTH = dict(zip("０１２３４５６７８９．，－＋＜＞≦≧", "0123456789.,-+<>≤≥", strict=True))
_NUMBER = r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
# Laboratories print an arrow after a value outside their reference range.
_PRINTED_NUMBER = rf"^({_NUMBER})\s*[↑↓]*$"
_BOUND = rf"^[<>≤≥]=?\s*({_NUMBER})\s*[↑↓]*$"
_AGE = r"^[\[(>≥\s]*(\d{1,3}(?:\.\d+)?)\s*岁?\s*(?:[-–—~～至,]\s*(\d{1,3}(?:\.\d+)?)\s*岁?)?\s*[)\]+]*\s*(?:及?以上)?$"
_SAMPLE = datetime(2001, 2, 3, 4, 5, 6)
_WITH_OFFSET = re.compile("%#?z")
_RUN_TOGETHER = re.compile(r"%[YymdHMSj]%[mdHMSj]")
_WITH_DAY = re.compile("%[-_]?[dejDFvxc]")


@dataclass(frozen=True)
class Numbers:
    """The numbers of a column; `bounds` holds the cell as written where it is only a bound, such as ``<0.5``."""

    value: pl.Series
    bounds: pl.Series | None = None


def cleaned(cells: pl.DataFrame, missing: Collection[str]) -> pl.DataFrame:
    """Return the cells without blanks around them, and null where they hold a marker of what is missing."""
    markers = pl.Series(sorted({"", *missing}), dtype=pl.String)
    stripped = cells.select(pl.all().str.strip_chars())
    return stripped.select(pl.when(~pl.all().is_in(markers.implode())).then(pl.all()))


def answers(text: pl.Series) -> pl.Series:
    """Return coded answers, a whole number written with decimals (``1.0``, as spreadsheets do) without them."""
    return text.str.replace(r"^(-?\d+)\.0+$", "${1}")


def half_width(text: pl.Series) -> pl.Series:
    """Return the text with full-width digits and signs as ordinary ones."""
    return text.str.replace_many(_FULL_WIDTH)


def numbers(text: pl.Series) -> Numbers:
    """Read numbers: ``120``, ``1,234.5``, ``１２０``, ``5.6↑``; of a bound such as ``<0.5``, the bound."""
    value = _finite(text.cast(pl.Float64, strict=False))
    if not _pending(text, value).any():
        return Numbers(value)
    value = _retried(text, value, _patient_number)
    bound = pl.Series(half_width(text).str.contains(_BOUND))
    return Numbers(value, text.set(~bound.fill_null(value=False), None))


def ages(text: pl.Series) -> pl.Series:
    """Read ages in years: ``57``, ``57岁``, ``80+``; of a band such as ``[50-60)``, its middle."""
    years = _retried(text, text.cast(pl.Float64, strict=False), _patient_age)
    return years.set(~years.is_between(0, OLDEST), None)


def instants(text: pl.Series, formats: Sequence[str], zone: str) -> pl.Series:
    """Read dates and times of a zone as naive UTC; a date alone is the midnight with which it begins.

    The formats are tried in their order. One with an offset (``%z``) keeps its own zone.
    """
    found = pl.Series(text.name, [None] * len(text), pl.Datetime("us"))
    for form in formats:
        found = _retried(text, found, partial(_in_format, form=form, zone=zone))
    return sensible(_retried(text, found, partial(_patient_date, formats=formats, zone=zone)))


def sensible(times: pl.Series) -> pl.Series:
    """Return the times, null where they are too far away to be meant."""
    return times.set(~times.is_between(EARLIEST, LATEST), None)


def is_date_format(form: str) -> bool:
    """Whether a format, in the notation of ``strftime``, can write a date down and read it again."""
    try:
        written = pl.Series([_SAMPLE]).dt.replace_time_zone("UTC").dt.strftime(form)
        read = _in_format(written, form, "UTC")[0]
    except pl.exceptions.PolarsError:
        return False
    return read is not None and read.year == _SAMPLE.year


def _in_format(text: pl.Series, form: str, zone: str) -> pl.Series:
    if _RUN_TOGETHER.search(form):
        # Without separators, 2023105 would be read as the fifth of the tenth month.
        text = text.set(text.str.len_chars() != len(_SAMPLE.strftime(form)), None)
    if "%m" in form and not _WITH_DAY.search(form):
        # Polars reads 2009年6月3日, but of a month alone it wants both digits.
        text, form = text + " 1", f"{form} %d"
    if _WITH_OFFSET.search(form):
        times = text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        return times.dt.replace_time_zone(None)
    return _in_utc(text.str.to_datetime(form, time_unit="us", strict=False), zone)


def _in_utc(local: pl.Series, zone: str) -> pl.Series:
    if zone == "UTC":
        return local
    times = _shifted(local, zone)
    skipped = times.is_null() & local.is_not_null()
    if skipped.any():
        # When summer time began at midnight, that midnight did not exist: the day began an hour later.
        times = times.zip_with(~skipped, _shifted(local + timedelta(hours=1), zone))
    return times


def _shifted(local: pl.Series, zone: str) -> pl.Series:
    aware = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return aware.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _patient_number(text: pl.Series) -> pl.Series:
    text = half_width(text)
    plain = text.str.extract(_PRINTED_NUMBER).fill_null(text.str.extract(_BOUND))
    return _finite(plain.str.replace_all(",", "", literal=True).cast(pl.Float64, strict=False))


def _patient_age(text: pl.Series) -> pl.Series:
    text = half_width(text)
    youngest = text.str.extract(_AGE, 1).cast(pl.Float64, strict=False)
    oldest = text.str.extract(_AGE, 2).cast(pl.Float64, strict=False)
    return (youngest + oldest.fill_null(youngest)) / 2


def _patient_date(text: pl.Series, formats: Sequence[str], zone: str) -> pl.Series:
    written = half_width(text)
    if written.equals(text):
        return pl.Series(text.name, [None] * len(text), pl.Datetime("us"))
    return instants(written, formats, zone)


def _finite(value: pl.Series) -> pl.Series:
    return value.set(~value.is_finite(), None)


def _pending(text: pl.Series, found: pl.Series) -> pl.Series:
    return text.is_not_null() & found.is_null()


def _retried(text: pl.Series, found: pl.Series, attempt: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Return what was found, with another attempt at the cells that are still unread."""
    pending = _pending(text, found).arg_true()
    return found.scatter(pending, attempt(text[pending])) if len(pending) else found
