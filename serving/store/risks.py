"""Live scores for other systems: one by its id, those of residents, all of a run part by part."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql

from serving.store.bulk import SETTINGS
from serving.store.duties import TOLD as OF_A_DUTY
from serving.store.duties import KeptDuty
from serving.store.ledger import LAST
from serving.store.lists import DRIVER, SCORE, Driver
from serving.store.panels import in_force
from serving.store.queries import parts_of
from serving.store.tables import PLACE_BITS, PLACES, ROW_BITS, drivers, duties, residents, run_shards, runs, scores
from serving.store.tables import panel_residents as contracts

KEPT = [scores.c.id, residents.c.subject_id, *SCORE, scores.c.base, scores.c.other]
# After which resident and target a page begins.
Place = tuple[int, str]


@dataclass(frozen=True)
class KeptScore:
    """A score as the database keeps it; without a probability it says that there is none any more."""

    id: int
    subject_id: int
    target: str
    index_time: datetime
    probability: float | None
    lower: float
    upper: float
    tier: str
    percentile: float | None
    previous: float | None
    completeness: str
    model_version: str
    synthetic: bool
    scored_at: datetime
    base: float
    other: float
    drivers: tuple[Driver, ...] = ()

    @property
    def place(self) -> Place:
        """Where it stands among all."""
        return self.subject_id, self.target


@dataclass(frozen=True)
class RunState:
    """A complete run, and which is the last one."""

    number: int
    last: int


def scored(*, run: int | None = None) -> tuple[sql.ColumnElement[bool], ...]:
    """Return the conditions that a score is one of a run, the last by default, of who is scored without a person."""
    return live(run=run), scores.c.probability.is_not(None), residents.c.opted_out_at.is_(None)


def live(*, run: int | None = None) -> sql.ColumnElement[bool]:
    """Return the condition that a row is what a run, the last by default, says of its resident and target."""
    version = scores.alias("version")
    same = (version.c.resident_id == scores.c.resident_id, version.c.target == scores.c.target)
    until = version.c.run_id <= (LAST if run is None else run)
    newest = sql.select(sql.func.max(version.c.run_id)).where(*same, until)
    return scores.c.run_id == newest.correlate(scores).scalar_subquery()


def of_panels(panels: Collection[int], now: datetime) -> sql.ColumnElement[bool]:
    """Return the condition that a resident belongs to one of some panels."""
    members = sql.select(contracts.c.resident_id).where(contracts.c.panel_id.in_(sorted(panels)), in_force(now))
    return residents.c.id.in_(members)


def page(
    connection: sql.Connection, conditions: Iterable[sql.ColumnElement[bool]], after: Place | None, limit: int
) -> list[KeptScore]:
    """Return scores, with all of their drivers, by resident and target."""
    _by_index_alone(connection)
    query = _kept(*conditions)
    if after is not None:
        subject, target = after
        same = sql.and_(residents.c.subject_id == subject, scores.c.target > target)
        query = query.where(residents.c.subject_id >= subject, sql.or_(residents.c.subject_id > subject, same))
    rows = connection.execute(query.order_by(residents.c.subject_id, scores.c.target).limit(limit)).all()
    reasons = _drivers(connection, [row.id for row in rows])
    return [_score(row, reasons.get(row.id, ())) for row in rows]


def count(connection: sql.Connection, conditions: Iterable[sql.ColumnElement[bool]]) -> int:
    """Return how many scores there are."""
    _by_index_alone(connection)
    found = sql.select(sql.func.count()).select_from(scores).join(residents, residents.c.id == scores.c.resident_id)
    return connection.execute(found.where(*conditions)).scalar_one()


def whose(connection: sql.Connection, score_id: int) -> int | None:
    """Return whose a score is or was, of a run that is complete; None where there is no row of that id any more."""
    query = sql.select(residents.c.subject_id).join(scores, residents.c.id == scores.c.resident_id)
    told = (scores.c.id == score_id, scores.c.probability.is_not(None), scores.c.run_id <= LAST)
    return connection.execute(query.where(*told)).scalar()


def was_there(connection: sql.Connection, score_id: int) -> bool:
    """Say whether an id is of a shard of a complete run, so that there was a score, which has been replaced since."""
    run, place = score_id >> PLACE_BITS + ROW_BITS, score_id >> ROW_BITS & PLACES - 1
    complete = sql.select(runs.c.id).where(runs.c.id == run, runs.c.completed_at.is_not(None))
    shard = sql.select(run_shards.c.place).where(run_shards.c.run_id == run, run_shards.c.place == place)
    return all(connection.execute(query).first() is not None for query in (complete, shard))


def complete_run(connection: sql.Connection, run: int | None) -> RunState | None:
    """Return a complete run, the last by default; None where there is none."""
    last = connection.execute(sql.select(LAST)).scalar()
    if last is None:
        return None
    asked = last if run is None else run
    found = sql.select(runs.c.id).where(runs.c.id == asked, runs.c.completed_at.is_not(None))
    return None if connection.execute(found).first() is None else RunState(asked, last)


def is_whole(connection: sql.Connection, run: int) -> bool:
    """Say whether nothing of a complete run can have been replaced: as long as no run follows one that replaced it."""
    following = sql.select(sql.func.min(runs.c.id)).where(runs.c.id > run, runs.c.completed_at.is_not(None))
    beyond = sql.select(runs.c.id).where(runs.c.id > following.scalar_subquery()).limit(1)
    return connection.execute(beyond).first() is None


def duties_of(connection: sql.Connection, subject_ids: Iterable[int]) -> dict[int, tuple[KeptDuty, ...]]:
    """Return the duties of residents as they were last computed, in their order."""
    columns = [duties.c[name] for name in OF_A_DUTY]
    query = sql.select(residents.c.subject_id, *columns).join(residents, residents.c.id == duties.c.resident_id)
    found: dict[int, tuple[KeptDuty, ...]] = {}
    for some in parts_of(subject_ids):
        ours = query.where(residents.c.subject_id.in_(some))
        for subject, *told in connection.execute(ours.order_by(residents.c.subject_id, duties.c.position)):
            found[subject] = (*found.get(subject, ()), KeptDuty(**dict(zip(OF_A_DUTY, told, strict=True))))
    return found


def _kept(*conditions: sql.ColumnElement[bool]) -> sql.Select[*tuple[object, ...]]:
    joined = sql.select(*KEPT).select_from(residents).join(scores, scores.c.resident_id == residents.c.id)
    return joined.where(*conditions)


def _by_index_alone(connection: sql.Connection) -> None:
    """Keep PostgreSQL from sorting the whole county for a page of it."""
    if connection.dialect.name == "postgresql":
        chosen = {**dict.fromkeys(SETTINGS, "off"), "max_parallel_workers_per_gather": "0"}
        connection.execute(sql.select(*(sql.func.set_config(name, value, True) for name, value in chosen.items())))


def _drivers(connection: sql.Connection, scored_ids: Sequence[int]) -> dict[int, tuple[Driver, ...]]:
    query = sql.select(drivers.c.score_id, *DRIVER).order_by(drivers.c.score_id, drivers.c.position)
    found: dict[int, tuple[Driver, ...]] = {}
    for some in parts_of(scored_ids):
        for score_id, *told in connection.execute(query.where(drivers.c.score_id.in_(some))):
            found[score_id] = (*found.get(score_id, ()), Driver(*told))
    return found


def _score(row: sql.Row[*tuple[object, ...]], reasons: tuple[Driver, ...]) -> KeptScore:
    return KeptScore(**row._mapping, drivers=reasons)
