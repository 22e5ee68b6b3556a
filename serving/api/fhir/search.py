"""What a search for RiskAssessments asks for, and the Bundle that answers it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from serving.api.fhir.resources import KIND, MODELS, Json
from serving.api.problems import ProblemError

# The parameter by which a page's link says where the next one begins.
AFTER = "_after"
SUBJECT = ("subject", "patient")
# Parameters that change nothing here: there is one format.
IGNORED = ("_format", "_pretty")
MOST_TEXT = 2_000
MOST_SUBJECTS = 1_000

_ID = re.compile(r"(?:Patient/)?([A-Za-z0-9\-.]{1,64})")
_DATE = re.compile(
    r"(eq|ge|gt|le|lt)?(\d{4}(?:-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)?)?)"
)
_FORMATS = re.compile(r"json|application/json|application/fhir\+json", re.IGNORECASE)

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class DateWindow:
    """A time in ``[at_least, before)``, in UTC; None where there is no such bound."""

    at_least: datetime | None = None
    before: datetime | None = None

    def holds(self, when: datetime) -> bool:
        """Whether a time is within."""
        return (self.at_least is None or when >= self.at_least) and (self.before is None or when < self.before)


@dataclass(frozen=True)
class RiskQuery:
    """What is asked for: all of its conditions.

    Attributes
    ----------
    patients : one of these ids; None for anybody
    dates : the index time lies within each
    methods : one of these models, a target and a version, or None for every version; None for all models
    """

    patients: frozenset[str] | None = None
    dates: tuple[DateWindow, ...] = ()
    methods: frozenset[tuple[str, str | None]] | None = None


@dataclass(frozen=True)
class Search:
    """A search: what is asked for, how many a page holds, and after what it begins.

    `used` are the parameters that were understood, as the caller wrote them, and `unused` the names of the others.
    """

    query: RiskQuery
    count: int
    after: str | None
    used: tuple[tuple[str, str], ...]
    unused: tuple[str, ...] = ()

    def link(self, address: str, after: str | None) -> str:
        """Return the address of the page that begins after a place."""
        pairs = [pair for pair in self.used if pair[0] not in ("_count", AFTER)]
        pairs.append(("_count", str(self.count)))
        return f"{address}?{urlencode([*pairs, (AFTER, after)] if after is not None else pairs)}"


def read_search(pairs: Pairs, zone: ZoneInfo, page: int, most: int, *, lenient: bool) -> Search:
    """Read the parameters of a search.

    Raises
    ------
    ProblemError
        If one cannot be understood; or is not known, unless the caller is `lenient`. What is left out in silence would
        answer another question than was asked.
    """
    search = Search(RiskQuery(), page, None, ())
    for name, value in pairs:
        if len(value) > MOST_TEXT * (10 if name in SUBJECT else 1):
            raise _refused(name, "is too long")
        search = _with(search, name, value, zone, most)
    if search.unused and not lenient:
        raise _refused(search.unused[0], "is not a parameter of this search: subject, patient, date, method, _count")
    return search


def bundle(search: Search, address: str, entries: Iterable[Json], following: str | None, total: int | None) -> Json:
    """Return a page as a searchset Bundle.

    Parameters
    ----------
    address : of the search, with no parameters
    entries : the resources of the page
    following : after what the next page begins; None where this is the last
    total : how many there are on all pages, where that is known
    """
    links = [{"relation": "self", "url": search.link(address, search.after)}]
    if following is not None:
        links.append({"relation": "next", "url": search.link(address, following)})
    found: list[Json] = [
        {"fullUrl": f"{address}/{entry['id']}", "resource": entry, "search": {"mode": "match"}} for entry in entries
    ]
    if search.unused:
        found.append({"resource": _said_unused(search.unused), "search": {"mode": "outcome"}})
    resource: Json = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        resource["total"] = total
    resource["link"] = links
    return {**resource, "entry": found} if found else resource


def _with(search: Search, name: str, value: str, zone: ZoneInfo, most: int) -> Search:
    """Return a search with one more parameter understood."""
    used = replace(search, used=(*search.used, (name, value)))
    query = search.query
    if name in SUBJECT:
        patients = _patients(name, value)
        both = patients if query.patients is None else patients & query.patients
        return replace(used, query=replace(query, patients=both))
    if name == "date":
        return replace(used, query=replace(query, dates=(*query.dates, _window(value, zone))))
    if name == "method":
        methods = frozenset(map(_method, value.split(",")))
        if query.methods is not None:
            raise _refused(name, "is given twice; put a comma between models, of which one is to match")
        return replace(used, query=replace(query, methods=methods))
    if name == "_count":
        return replace(used, count=min(_number(name, value), most))
    if name == AFTER:
        return replace(used, after=value)
    if name in IGNORED:
        if name == "_format" and not _FORMATS.fullmatch(value.replace(" ", "+")):
            raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, "There is FHIR in JSON here: application/fhir+json.")
        return search
    return replace(search, unused=(*search.unused, name))


def _patients(name: str, value: str) -> frozenset[str]:
    each = [_ID.fullmatch(part) for part in value.split(",")]
    if len(each) > MOST_SUBJECTS:
        raise _refused(name, f"names more than {MOST_SUBJECTS:,} residents")
    ids = [match[1] for match in each if match]
    if len(ids) < len(each):
        raise _refused(name, "should be Patient/ and the id of a Patient of this server")
    return frozenset(ids)


def _window(value: str, zone: ZoneInfo) -> DateWindow:
    match = _DATE.fullmatch(value)
    try:
        begin, end = _span(match[2], zone) if match else (None, None)
    except (ValueError, OverflowError):
        begin, end = None, None
    if match is None or begin is None or end is None:
        raise _refused(
            "date", "should be such as 2025-01-01 or ge2025-01-01T00:00:00Z; the prefixes are eq ge gt le lt"
        )
    return {
        "ge": DateWindow(begin, None),
        "gt": DateWindow(end, None),
        "le": DateWindow(None, end),
        "lt": DateWindow(None, begin),
    }.get(match[1], DateWindow(begin, end))


def _span(text: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return when a date or time begins and ends, by how exactly it is written."""
    if "T" in text:
        begin = _utc(datetime.fromisoformat(text), zone)
        clock = re.split(r"[Z+-]", text.partition("T")[2])[0]
        return begin, begin + (timedelta(minutes=1) if len(clock) == len("00:00") else timedelta(seconds=1))
    year, month, day = (*map(int, text.split("-")), 0, 0)[:3]
    first = date(year, month or 1, day or 1)
    if day:
        after = first + timedelta(days=1)
    elif month:
        after = date(year + month // 12, month % 12 + 1, 1)
    else:
        after = date(year + 1, 1, 1)
    begin, end = (_utc(datetime.combine(each, datetime.min.time()), zone) for each in (first, after))
    return begin, end


def _utc(when: datetime, zone: ZoneInfo) -> datetime:
    return (when.replace(tzinfo=zone) if when.tzinfo is None else when).astimezone(UTC).replace(tzinfo=None)


def _method(value: str) -> tuple[str, str | None]:
    system, bar, code = value.rpartition("|")
    target, at, version = code.partition("@")
    if not target or not code.isprintable() or (bar and system not in ("", MODELS)):
        raise _refused("method", f"should be a target, or a target and version such as {MODELS}|fall@3")
    return target, version if at else None


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise _refused(name, "should be a whole number")
    return int(value)


def _said_unused(names: Sequence[str]) -> Json:
    told = ", ".join(name[:40] for name in names)
    issue = {"severity": "warning", "code": "not-supported", "diagnostics": f"Not looked at in {KIND}: {told}."}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _refused(name: str, why: str) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, f"The parameter {name[:40]} {why}.")
