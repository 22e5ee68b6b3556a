"""Elements of a resource: its parts, numbers, times and references, by the data types of FHIR R4.

What is not of the type that it should be counts as absent, so that a malformed resource is left out and not a crash.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from features.sources.table.cells import EARLIEST, LATEST

Element = dict[str, object]

NOTHING: Element = {}
# The largest number that the store holds, in single precision.
LARGEST = 3.4e38

# What completes a date of which only the year, or the year and the month, are told.
FIRST_DAY = {4: "-01-01", 7: "-01"}
MIDDLE = {4: "-07-01", 7: "-15"}

_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+/[^/?#|]+)(?:/_history/[^/]+)?$")


def element(of: Element, name: str) -> Element:
    """Return an element that has elements of its own; one without any where it is absent."""
    found = of.get(name)
    return found if isinstance(found, dict) else NOTHING


def elements(of: Element, name: str) -> list[Element]:
    """Return the elements of a list."""
    found = of.get(name)
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else []


def text(of: Element, name: str) -> str | None:
    """Return a text without blanks around it, or None where it is absent, empty or no Unicode."""
    found = of.get(name)
    if not isinstance(found, str) or not (found.isascii() or _is_unicode(found)):
        return None
    return found.strip() or None


def number(of: Element, name: str) -> float | None:
    """Return a number that the store can hold, or None."""
    found = of.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if abs(found) <= LARGEST else None


def at(of: Element, path: str) -> str | None:
    """Return the text at the end of a path such as ``effectivePeriod.start``."""
    first, _, rest = path.partition(".")
    return at(element(of, first), rest) if rest else text(of, first)


def moment(written: str, zone: ZoneInfo, missing: Mapping[int, str] = FIRST_DAY) -> datetime | None:
    """Read a date or time as naive UTC; None where it is none, or too far away to be meant.

    Parameters
    ----------
    written : as FHIR writes it: a year, a month, a day, or a time with its offset
    zone : of what is written without an offset; a day is the midnight with which it begins
    missing : what completes a date by its length
    """
    try:
        when = datetime.fromisoformat(written + missing.get(len(written), ""))
        when = when.replace(tzinfo=zone) if when.tzinfo is None else when
        when = when.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return when if EARLIEST <= when <= LATEST else None


def referred(reference: str | None, names: Mapping[str, str]) -> str | None:
    """Return what a reference means, as ``Patient/12``, or None where it cannot be told.

    The server's address and the version are left out; `names` says what addresses within a Bundle mean.
    """
    if reference is None:
        return None
    match = _REFERENCE.search(names.get(reference, reference))
    return match[1] if match else None


def _is_unicode(written: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON can write down and nothing can store."""
    try:
        written.encode()
    except UnicodeEncodeError:
        return False
    return True
