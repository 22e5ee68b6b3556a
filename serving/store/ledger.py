"""The ledger of the nightly run in the operational database."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import sqlalchemy as sql
from pydantic import TypeAdapter
from sqlalchemy.schema import CreateTable

from features.errors import WeibingError
from serving.scoring.run import BEFORE, KEYS, Run, Scored, ShardScores, Tally
from serving.store.bulk import Transaction, transaction
from serving.store.database import Database
from serving.store.tables import (
    KEY,
    PLACES,
    ROWS,
    current_scores,
    drivers,
    number,
    residents,
    run_shards,
    runs,
    scores,
)

MODELS = TypeAdapter(dict[str, Scored])


def _temporary(name: str, column: str) -> sql.Table:
    """Return a table that lasts as long as the transaction."""
    return sql.Table(
        name,
        sql.MetaData(),
        sql.Column(column, KEY, primary_key=True, autoincrement=False),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )


# The residents of a shard; the scores that are too old to be kept.
asked = _temporary("asked", "subject_id")
gone = _temporary("gone", "id")

UNFINISHED = (runs.c.completed_at.is_(None), runs.c.abandoned_at.is_(None))
NUMBER = residents.c.id.label("resident_id")
NEXT = sql.func.coalesce(sql.func.max(runs.c.id), 0) + 1
DRIVER = [column.name for column in drivers.columns if column is not drivers.c.score_id]
LAST = sql.select(sql.func.max(runs.c.id)).where(runs.c.completed_at.is_not(None)).scalar_subquery()


@dataclass(frozen=True)
class DatabaseLedger:
    """The scores of runs, in a database: see :class:`serving.scoring.run.Ledger`.

    It can be pickled; each call connects anew, so that it may be used by many threads and processes at once.
    """

    database: Database

    @classmethod
    def open(cls, address: str, *, upgrade: bool = True) -> "DatabaseLedger":
        """Open the ledger of the database at an address; see :meth:`Database.open`."""
        return cls(Database.open(address, upgrade=upgrade))

    def last(self) -> Run | None:
        """Return the last complete run: the one that readers see."""
        return self._newest(runs.c.completed_at.is_not(None))

    def unfinished(self) -> Run | None:
        """Return the run that was begun and is neither complete nor abandoned."""
        return self._newest(*UNFINISHED)

    def begin(self, run: Run) -> Run:
        """Begin a run, and return it with its number; an unfinished one is abandoned, and what it wrote goes."""
        with transaction(self.database, write=True) as opened:
            opened.alone(runs)
            for other in opened.read(sql.select(runs.c.id).where(*UNFINISHED))["id"]:
                _abandon(opened, other)
            begun = replace(run, number=opened.read(sql.select(NEXT.label("id"))).item())
            opened.run(runs.insert().values(**_row(begun)))
        return begun

    def abandon(self, run: Run) -> None:
        """Give a run up, unless it is complete; what it wrote goes."""
        with transaction(self.database, write=True) as opened:
            opened.alone(runs)
            for number_of in opened.read(sql.select(runs.c.id).where(runs.c.id == run.number, *UNFINISHED))["id"]:
                _abandon(opened, number_of)

    def size(self) -> int:
        """Return how many scores the last complete run has."""
        last = self.last()
        tallies = [] if last is None else self.done(last).values()
        return sum(tally.counts.get(name, 0) for tally in tallies for name in ("scored", "kept"))

    def residents(self) -> pl.DataFrame:
        """Return who has a score in the last complete run, as ``KEYS``."""
        with transaction(self.database, write=False) as opened:
            return opened.read(sql.select(*(current_scores.c[name] for name in KEYS)))

    def done(self, run: Run) -> dict[str, Tally]:
        """Return what has been done of a run, by shard."""
        query = sql.select(run_shards.c.shard, run_shards.c.tally).where(run_shards.c.run_id == run.number)
        with transaction(self.database, write=False) as opened:
            found = opened.read(query.order_by(run_shards.c.place))
        return {shard: Tally.from_dict(json.loads(tally)) for shard, tally in found.rows()}

    def before(self, residents: pl.Series) -> pl.DataFrame:
        """Return the scores of residents in the last complete run, as ``BEFORE``, sorted by resident and target."""
        query = sql.select(*(current_scores.c[name] for name in BEFORE))
        with transaction(self.database, write=False) as opened:
            _ask(opened, residents)
            found = opened.read(query.where(opened.among(current_scores.c.resident_id, _known(opened, NUMBER))))
        return found.sort("subject_id", "target")

    def write(self, run: Run, scores: ShardScores) -> None:
        """Keep what a shard holds, all of it or nothing; a shard that was written already is left as it is.

        Raises
        ------
        WeibingError
            If the run takes no more shards, as another one was begun; if the shard has too many scores to number.
        """
        _need_numbers(scores)
        with transaction(self.database, write=True) as opened:
            if _claimed(opened, run, scores):
                _write(opened, run, scores)

    def complete(self, run: Run) -> None:
        """Let readers move to the run, at once.

        Raises
        ------
        WeibingError
            If another run was begun meanwhile.
        """
        now = sql.func.coalesce(runs.c.completed_at, _now())
        finished = runs.update().where(runs.c.id == run.number, runs.c.abandoned_at.is_(None)).values(completed_at=now)
        with transaction(self.database, write=True) as opened:
            if not opened.run(finished):
                raise _superseded(run)

    def _newest(self, *conditions: sql.ColumnElement[bool]) -> Run | None:
        query = sql.select(runs).where(*conditions).order_by(runs.c.id.desc()).limit(1)
        with transaction(self.database, write=False) as opened:
            found = opened.read(query)
        return None if found.is_empty() else _run(found.row(0, named=True))


def _row(run: Run) -> dict[str, object]:
    models = {target: asdict(scored) for target, scored in run.models.items()}
    return {
        "id": run.number,
        "index_time": run.index_time,
        "started_at": run.started_at,
        "store": run.store,
        "models": json.dumps(models, ensure_ascii=False),
        "everyone": run.everyone,
    }


def _run(row: dict[str, Any]) -> Run:
    return Run(
        number=row["id"],
        index_time=row["index_time"],
        started_at=row["started_at"],
        store=row["store"],
        models=MODELS.validate_json(row["models"]),
        everyone=row["everyone"],
    )


def _abandon(opened: Transaction, run: int) -> None:
    """Take away what a run has written, and keep its writers from writing more."""
    opened.run(runs.update().where(runs.c.id == run).values(abandoned_at=_now()))
    opened.run(drivers.delete().where(drivers.c.score_id.between(number(run), number(run + 1) - 1)))
    opened.run(scores.delete().where(scores.c.id.between(number(run), number(run + 1) - 1)))
    opened.run(run_shards.delete().where(run_shards.c.run_id == run))


def _claimed(opened: Transaction, run: Run, shard: ShardScores) -> bool:
    """Whether the shard is still to be written: then its row is."""
    # Whoever abandons the run waits until this transaction has ended.
    still = sql.select(runs.c.id).where(runs.c.id == run.number, *UNFINISHED).with_for_update(read=True)
    if opened.read(still).is_empty():
        written = sql.select(run_shards.c.place).where(*_same(run, shard))
        if opened.read(written).is_empty():
            raise _superseded(run)
        return False
    tally = json.dumps(shard.tally.as_dict(), ensure_ascii=False)
    told = {"run_id": run.number, "shard": shard.tally.shard, "place": shard.place, "tally": tally}
    claim = sql.select(*(sql.literal(cell, run_shards.c[name].type).label(name) for name, cell in told.items()))
    return opened.add(run_shards, claim, key=("run_id", "shard")) == 1


def _same(run: Run, shard: ShardScores) -> tuple[sql.ColumnElement[bool], ...]:
    return run_shards.c.run_id == run.number, run_shards.c.shard == shard.tally.shard


def _write(opened: Transaction, run: Run, shard: ShardScores) -> None:
    rows = pl.concat([shard.fresh, shard.ended.with_columns(index_time=run.index_time)], how="diagonal")
    first = number(run.number, shard.place)
    numbers = _numbers(opened, rows["subject_id"])
    opened.append(scores, _scores(rows.join(numbers, on="subject_id", maintain_order="left"), run, first))
    opened.append(drivers, shard.drivers.select(pl.col("score").cast(pl.Int64).add(first).alias("score_id"), *DRIVER))
    _forget(opened, first, len(rows))


def _scores(rows: pl.DataFrame, run: Run, first: int) -> pl.DataFrame:
    numbered = rows.with_columns(id=pl.int_range(first, first + len(rows)), run_id=pl.lit(run.number, pl.Int64))
    return numbered.select(scores.columns.keys())


def _numbers(opened: Transaction, subjects: pl.Series) -> pl.DataFrame:
    """Return the numbers of residents, giving one to each who has none."""
    _ask(opened, subjects)
    new = sql.select(asked.c.subject_id).where(~sql.exists().where(residents.c.subject_id == asked.c.subject_id))
    opened.add(residents, new.order_by(asked.c.subject_id), key=("subject_id",))
    return opened.read(_known(opened, NUMBER, residents.c.subject_id))


def _known(opened: Transaction, *columns: sql.ColumnElement[int]) -> sql.Select[*tuple[object, ...]]:
    """Return the query for columns of those of the asked who have a number."""
    return sql.select(*columns).where(opened.among(residents.c.subject_id, sql.select(asked.c.subject_id)))


def _forget(opened: Transaction, first: int, rows: int) -> None:
    """Delete the versions of what was written that are older than the live one."""
    new, old, live = (scores.alias(name) for name in ("new", "old", "live"))
    newest = sql.select(sql.func.max(live.c.run_id)).where(*_of(live, new), live.c.run_id <= LAST).scalar_subquery()
    stale = sql.select(old.c.id).join(new, sql.and_(*_of(old, new)))
    found = opened.read(stale.where(new.c.id.between(first, first + rows - 1), old.c.run_id < newest))
    if len(found):
        opened.run(CreateTable(gone))
        opened.append(gone, found)
        opened.run(drivers.delete().where(opened.among(drivers.c.score_id, sql.select(gone.c.id))))
        opened.run(scores.delete().where(opened.among(scores.c.id, sql.select(gone.c.id))))


def _of(version: sql.FromClause, other: sql.FromClause) -> tuple[sql.ColumnElement[bool], ...]:
    return version.c.resident_id == other.c.resident_id, version.c.target == other.c.target


def _ask(opened: Transaction, subjects: pl.Series) -> None:
    opened.run(CreateTable(asked))
    opened.append(asked, subjects.unique().sort().alias("subject_id").to_frame())


def _need_numbers(shard: ShardScores) -> None:
    if shard.place >= PLACES or len(shard.fresh) + len(shard.ended) > ROWS:
        raise WeibingError(
            f"Shard {shard.tally.shard} cannot be kept: a run has at most {PLACES:,} shards of at most {ROWS:,} "
            "scores. Write the store anew with other shards."
        )


def _superseded(run: Run) -> WeibingError:
    return WeibingError(
        f"Run {run.number} takes no more scores: another run was begun after it, or somebody was erased. Let "
        "that run end, or start this one again."
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
