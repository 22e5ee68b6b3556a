"""Time at the edges: lengths such as ``5y``, and dates of a county's zone as instants in UTC.

Inside, a time is microseconds since 1970 in UTC, and a length is microseconds. A year is 365.25 days, a month a
twelfth of that, so that a length does not depend on where it is laid.
"""

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from features.errors import WeibingError

MICROSECOND = 1
SECOND = 1_000_000
DAY = 86_400 * SECOND
YEAR = round(365.25 * DAY)
UNITS = {"us": MICROSECOND, "s": SECOND, "h": 3600 * SECOND, "d": DAY, "w": 7 * DAY, "mo": YEAR // 12, "y": YEAR}
# A thousand years: longer than any record, and far from where 64 bits end.
LONGEST = 1000 * YEAR

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(us|s|h|d|w|mo|y)")


def length(text: str) -> int:
    """Return the microseconds of a length such as ``1y``, ``180d`` or ``6mo``.

    Raises
    ------
    WeibingError
        If the text is not a positive number followed by us, s, h, d, w, mo or y, or above a thousand years.
    """
    match = _LENGTH.fullmatch(text.strip())
    found = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if not 0 < found <= LONGEST:
        units = ", ".join(UNITS)
        raise WeibingError(f'"{text}" is not a length of time up to 1000y. Write a number and one of {units}: "1y".')
    return found


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    Raises
    ------
    WeibingError
        If there is no zone of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WeibingError(f'There is no time zone "{name}". Use an IANA name such as "Asia/Shanghai".') from error


def standard_offset(zone_name: str) -> int:
    """Return how many microseconds a zone's standard (winter) time is ahead of UTC.

    With it a loop over events tells local days and hours without a calendar. Where summer time is kept, its days begin
    an hour early; a record dated by the day alone still falls on one day.

    Raises
    ------
    WeibingError
        If there is no zone of that name.
    """
    offsets = (datetime(2020, month, 1, tzinfo=zone(zone_name)).utcoffset() for month in (1, 7))
    return min(round(offset.total_seconds()) * SECOND for offset in offsets if offset is not None)


def instant(when: str | date | datetime, zone_name: str = "UTC") -> datetime:
    """Return a date or time of a zone as a naive UTC datetime, as the event store holds it.

    A date is the midnight with which it begins. A text is read as ISO 8601; one with an offset keeps its own.

    Raises
    ------
    WeibingError
        If the text is not an ISO 8601 date or time, or lies beyond the years 1 to 9999.
    """
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError as error:
            raise WeibingError(f'"{when}" is not a date. Write it as YYYY-MM-DD.') from error
    if not isinstance(when, datetime):
        when = datetime(when.year, when.month, when.day)
    if when.tzinfo is None:
        when = when.replace(tzinfo=zone(zone_name))
    try:
        return when.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise WeibingError(f"{when.date()} is too early or too late. Leave it out where no date is meant.") from error


def local_day(when: datetime, zone_name: str) -> date:
    """Return the day, in a zone, of a naive UTC datetime."""
    return when.replace(tzinfo=UTC).astimezone(zone(zone_name)).date()


def microseconds(when: datetime) -> int:
    """Return a naive UTC datetime as microseconds since 1970."""
    return (when - datetime(1970, 1, 1)) // timedelta(microseconds=1)
