"""A panel's list: whose risk is high or rising, and for whom something is due; filtered, sorted, page by page.

A page begins after the last row of the one before, found by what it was sorted by, so that a page far down the list
costs what the first one does, and rows that come or go meanwhile are neither shown twice nor left out.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import sqlalchemy as sql

from features.errors import WeibingError
from serving.store.bulk import SETTINGS
from serving.store.database import Database
from serving.store.ledger import LAST
from serving.store.panels import in_force
from serving.store.people import Sex
from serving.store.tables import drivers, duties, residents, scores
from serving.store.tables import panel_residents as contracts

Sort = Literal["risk", "change", "percentile", "due"]

DRIVERS = 3
# Who has nothing to be sorted by comes last, whichever way the list is sorted.
LAST_UPWARD: dict[Sort, float | date] = {"risk": 2.0, "change": 2.0, "percentile": 101.0, "due": date.max}
LAST_DOWNWARD: dict[Sort, float | date] = {"risk": -2.0, "change": -2.0, "percentile": -1.0, "due": date.min}

SCORE = [
    scores.c[name]
    for name in (
        "target", "index_time", "probability", "lower", "upper", "tier", "percentile", "previous", "completeness",
        "model_version", "synthetic", "scored_at",
    )
]  # fmt: skip
RESIDENT = [residents.c[name] for name in ("subject_id", "township", "sex", "birth_year")]
DRIVER = [drivers.c[name] for name in ("concept", "contribution", "change", "value", "unit", "date")]


@dataclass(frozen=True)
class ListQuery:
    """Which rows of a panel's list, in which order.

    Attributes
    ----------
    panel_id, target : whose risk of what
    tiers : only these; empty for all
    due_by : only those for whom something is due until that day, it included
    sort, descending : `change` is the risk's, since the score before
    after : where the page begins, as the page before says; None for the first
    limit : how many rows at most
    """

    panel_id: int
    target: str
    tiers: Sequence[str] = ()
    due_by: date | None = None
    sort: Sort = "risk"
    descending: bool = True
    after: str | None = None
    limit: int = 50


@dataclass(frozen=True)
class Driver:
    """What raises or lowers a score: see the table `drivers`."""

    concept: str
    contribution: float
    change: float | None
    value: float | None
    unit: str
    date: datetime | None


@dataclass(frozen=True)
class Listed:
    """A resident of a list, with the score of its target.

    Attributes
    ----------
    due, urgent : the earliest day on which something is due, and whether anything is to be done at once
    drivers : the first few
    """

    subject_id: int
    township: str | None
    sex: Sex | None
    birth_year: int | None
    target: str
    index_time: datetime
    probability: float
    lower: float
    upper: float
    tier: str
    percentile: float | None
    previous: float | None
    completeness: str
    model_version: str
    synthetic: bool
    scored_at: datetime
    due: date | None
    urgent: bool
    drivers: tuple[Driver, ...]


@dataclass(frozen=True)
class Page:
    """Some rows of a list, and where the next page begins; None after the last."""

    rows: tuple[Listed, ...]
    after: str | None


def page(database: Database, query: ListQuery, now: datetime) -> Page:
    """Return a page of a panel's list: the residents under contract now, who have not opted out of being scored.

    Raises
    ------
    WeibingError
        If `after` is no place in this list.
    """
    with database.reading() as connection:
        _by_index_alone(connection)
        found = list(connection.execute(_places(query, now)))
        shown = [row.id for row in found[: query.limit]]
        rows, reasons = _details(connection, shown), _drivers(connection, shown)
    last = found[query.limit - 1] if len(found) > query.limit else None
    after = None if last is None else _written(query, last.sorted_by, last.subject_id)
    return Page(tuple(_listed(rows[number], reasons.get(number, ())) for number in shown), after)


def _by_index_alone(connection: sql.Connection) -> None:
    """Keep PostgreSQL from reading all residents of the county, which it takes to be cheaper than 2,000 look-ups."""
    if connection.dialect.name == "postgresql":
        # To start another process costs more than it saves.
        chosen = {**dict.fromkeys(SETTINGS, "off"), "max_parallel_workers_per_gather": "0"}
        connection.execute(sql.select(*(sql.func.set_config(name, value, True) for name, value in chosen.items())))


def _places(query: ListQuery, now: datetime) -> sql.Select[*tuple[object, ...]]:
    """Return the query for the numbers of the scores on a page, and one more, in their order.

    What else a row tells is looked up for these alone: of 2,000 residents, that is the larger part of the work.
    """
    due = _due()
    by = _sorted_by(query, due)
    statement = (
        sql.select(scores.c.id, residents.c.subject_id, by.label("sorted_by"))
        .select_from(contracts)
        .join(residents, residents.c.id == contracts.c.resident_id)
        .join(scores, scores.c.resident_id == contracts.c.resident_id)
        .where(contracts.c.panel_id == query.panel_id, in_force(now), residents.c.opted_out_at.is_(None))
        .where(scores.c.target == query.target, _live(), scores.c.probability.is_not(None))
    )
    if query.tiers:
        statement = statement.where(scores.c.tier.in_(query.tiers))
    if query.due_by is not None:
        statement = statement.where(due <= query.due_by)
    if query.after is not None:
        statement = statement.where(_beyond(query, by))
    order = by.desc() if query.descending else by.asc()
    return statement.order_by(order, residents.c.subject_id).limit(query.limit + 1)


def _details(connection: sql.Connection, scored: list[int]) -> dict[int, sql.Row[*tuple[object, ...]]]:
    query = sql.select(scores.c.id, *RESIDENT, *SCORE, _due().label("due"), _urgent().label("urgent"))
    joined = query.select_from(scores).join(residents, residents.c.id == scores.c.resident_id)
    return {row.id: row for row in connection.execute(joined.where(scores.c.id.in_(scored)))}


def _live() -> sql.ColumnElement[bool]:
    version = scores.alias("version")
    same = (version.c.resident_id == scores.c.resident_id, version.c.target == scores.c.target)
    newest = sql.select(sql.func.max(version.c.run_id)).where(*same, version.c.run_id <= LAST)
    return scores.c.run_id == newest.correlate(scores).scalar_subquery()


def _due() -> sql.ColumnElement[date]:
    ours = sql.select(sql.func.min(duties.c.due)).where(duties.c.resident_id == residents.c.id)
    return ours.correlate(residents).scalar_subquery()


def _urgent() -> sql.ColumnElement[bool]:
    ours = sql.select(duties.c.position).where(duties.c.resident_id == residents.c.id, duties.c.urgent)
    return ours.correlate(residents).exists()


def _sorted_by(query: ListQuery, due: sql.ColumnElement[date]) -> sql.ColumnElement[float] | sql.ColumnElement[date]:
    last = (LAST_DOWNWARD if query.descending else LAST_UPWARD)[query.sort]
    if query.sort == "due":
        return sql.func.coalesce(due, sql.literal(last, sql.Date))
    values = {
        "risk": scores.c.probability,
        "change": scores.c.probability - scores.c.previous,
        "percentile": scores.c.percentile,
    }
    return sql.func.coalesce(values[query.sort], sql.literal(last, sql.Double))


def _beyond(query: ListQuery, by: sql.ColumnElement[float] | sql.ColumnElement[date]) -> sql.ColumnElement[bool]:
    """Return the condition that a row comes after the place where the page begins."""
    value, subject_id = _read(query)
    place = sql.literal(value, by.type)
    further = by < place if query.descending else by > place
    return sql.or_(further, sql.and_(by == place, residents.c.subject_id > subject_id))


def _written(query: ListQuery, value: float | date, subject_id: int) -> str:
    told = [query.sort, query.descending, value.isoformat() if isinstance(value, date) else value, subject_id]
    return urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def _read(query: ListQuery) -> tuple[float | date, int]:
    written = str(query.after)
    try:
        sort, descending, value, subject_id = json.loads(urlsafe_b64decode(written + "=" * (-len(written) % 4)))
        if (sort, descending) != (query.sort, query.descending) or not isinstance(subject_id, int):
            raise ValueError(written)
        return date.fromisoformat(value) if sort == "due" else float(value), subject_id
    except (ValueError, TypeError):
        raise WeibingError("That is no place in this list. Ask for its first page, without `after`.") from None


def _drivers(connection: sql.Connection, scored: list[int]) -> dict[int, tuple[Driver, ...]]:
    of_page = drivers.c.score_id.in_(scored)
    first = sql.select(drivers.c.score_id, *DRIVER).where(of_page, drivers.c.position < DRIVERS)
    found: dict[int, tuple[Driver, ...]] = {}
    for score_id, *told in connection.execute(first.order_by(drivers.c.score_id, drivers.c.position)):
        found[score_id] = (*found.get(score_id, ()), Driver(*told))
    return found


def _listed(row: sql.Row[*tuple[object, ...]], reasons: tuple[Driver, ...]) -> Listed:
    told = {name: cell for name, cell in row._mapping.items() if name != "id"}
    return Listed(**told | {"urgent": bool(row.urgent)}, drivers=reasons)
