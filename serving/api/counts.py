"""``GET /v1/counts``: how many residents are in which tier and where, for those who may see nobody."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import polars as pl
import sqlalchemy as sql
from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from serving.api.clinic import Clinic
from serving.api.door import admit, utc_now
from serving.api.openapi import refusals
from serving.security.disclosure import Table, safe_tables
from serving.store.bulk import frame
from serving.store.database import Database, insert
from serving.store.ledger import LAST
from serving.store.tables import counts, residents
from serving.store.tables import current_scores as scores

# Tables of two nights differ by those who came, went or moved between: by one, if it is the next night. They are made
# anew when enough will have.
SHOWN = timedelta(days=28)
# All that is ever shown of a run, so that no difference of two tables tells of a few.
TABLES: Sequence[Table] = ((), ("tier",), ("township",), ("township", "tier"), ("sex",), ("sex", "tier"))
NUMBER = "residents"


class CountSaid(BaseModel):
    """A cell of a table."""

    tier: str | None = None
    township: str | None = None
    sex: str | None = None
    residents: Annotated[int | None, Field(description="Null where it is left out: it, or another, tells of few.")]


class TableSaid(BaseModel):
    """A table of the residents who have a score of a target."""

    target: str
    by: list[str]
    cells: list[CountSaid]


class CountsSaid(BaseModel):
    """All counts of a run."""

    run: Annotated[int | None, Field(description="Null: nobody was scored yet.")]
    made_at: AwareDatetime | None
    tables: list[TableSaid]


def counts_router(clinic: Clinic) -> APIRouter:
    """Return the route of counts."""
    router = APIRouter(tags=["counts"])

    @router.get("/v1/counts", summary="How many residents are in which tier", responses=refusals(401, 403, 503))
    async def counted(request: Request) -> CountsSaid:
        """Return the tables of the last run; no cell tells of fewer than ten."""
        await admit(request, "see counts")
        return await run_in_threadpool(counts_of, clinic.database, utc_now())

    return router


def counts_of(database: Database, now: datetime) -> CountsSaid:
    """Return the counts that are shown: the same for everybody, until they are four weeks old."""
    with database.reading() as connection:
        shown = connection.execute(sql.select(counts).order_by(counts.c.run_id.desc()).limit(1)).one_or_none()
        run = connection.execute(sql.select(LAST)).scalar()
    if shown is None or (now - shown.made_at >= SHOWN and run is not None and run > shown.run_id):
        if run is None:
            return CountsSaid(run=None, made_at=None, tables=[])
        _make(database, run, now)
        return counts_of(database, now)
    tables = [TableSaid.model_validate(table) for table in json.loads(shown.tables)]
    return CountsSaid(run=shown.run_id, made_at=shown.made_at.replace(tzinfo=UTC), tables=tables)


def _make(database: Database, run: int, now: datetime) -> None:
    """Keep the counts of a run, if nobody else did meanwhile."""
    told = json.dumps([table.model_dump() for table in _tables(database)], ensure_ascii=False)
    with database.writing() as connection:
        row = {"run_id": run, "made_at": now, "tables": told}
        connection.execute(insert(connection, counts).values(row).on_conflict_do_nothing(index_elements=["run_id"]))


def _tables(database: Database) -> list[TableSaid]:
    found = _combinations(database)
    return [
        TableSaid(target=target, by=list(table), cells=_cells(shown))
        for target in sorted(found["target"].unique())
        for table, shown in safe_tables(found.filter(target=target).drop("target"), TABLES).items()
    ]


def _combinations(database: Database) -> pl.DataFrame:
    """Return how many residents with a score there are of each target, township, sex and tier."""
    unknown = [sql.func.coalesce(residents.c[name], "").label(name) for name in ("township", "sex")]
    keys = [scores.c.target, *unknown, scores.c.tier]
    query = (
        sql.select(*keys, sql.func.count().label(NUMBER))
        .select_from(scores)
        .join(residents, residents.c.id == scores.c.resident_id)
        .where(scores.c.probability.is_not(None), residents.c.opted_out_at.is_(None))
        .group_by(*keys)
    )
    with database.reading() as connection:
        return frame(query, connection.execute(query).fetchall())


def _cells(shown: pl.DataFrame) -> list[CountSaid]:
    return [CountSaid.model_validate(row) for row in shown.iter_rows(named=True)]
