"""What another system tells, taken and read again in one transaction: beside what came before, and once."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

import polars as pl
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import SCHEMA, canonical, normalised
from serving.store.alerts import TOLD, Alert
from serving.store.bulk import frame
from serving.store.observations import EVENT, FACTS, IDENTIFIER, Taken, append
from serving.store.queries import parts_of
from serving.store.tables import alerts, events, records, residents

DIGEST_BYTES = 16
RAISED = [alerts.c[name] for name in (*TOLD, "raised_at", "acknowledged_at", "acknowledged_by", "id")]


class ToldOtherwiseError(WeibingError):
    """A record was taken before, and told something else then."""

    def __init__(self, identifier: str) -> None:
        super().__init__(f"The record {identifier} was taken before, and told something else. Nothing was taken.")
        self.identifier = identifier


@dataclass(frozen=True)
class Known:
    """What the database knows of a resident that matters to what is told.

    Attributes
    ----------
    opted_out : of being scored without a person
    """

    opted_out: bool = False
    birth_year: int | None = None


def take(connection: sql.Connection, rows: pl.DataFrame, now: datetime) -> Taken:
    """Keep what records tell, all of them or none; a record that was taken before counts once.

    Parameters
    ----------
    rows : as for :meth:`serving.store.observations.Observations.append`

    Raises
    ------
    WeibingError
        If a record tells of two residents, or was taken before as another resident's.
    ToldOtherwiseError
        If one was taken before, and told something else.
    """
    digests = _digests(rows)
    taken = append(connection, rows, now)
    _need_the_same(connection, {name: digests[name] for name in sorted(taken.known)})
    _note(connection, {name: digests[name] for name in sorted(taken.new)})
    return taken


def came_since(connection: sql.Connection, subject_ids: Collection[int]) -> pl.DataFrame:
    """Return the events of residents that are not in the event store yet, in its columns and order."""
    query = sql.select(*EVENT).select_from(events).join(residents, residents.c.id == events.c.resident_id)
    parts = [
        frame(query, connection.execute(query.where(residents.c.subject_id.in_(some))).fetchall())
        for some in parts_of(subject_ids)
    ]
    return canonical(normalised(pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)))


def known_of(connection: sql.Connection, subject_ids: Collection[int]) -> dict[int, Known]:
    """Return what the database knows of residents; whom it does not know is not in it."""
    query = sql.select(residents.c.subject_id, residents.c.opted_out_at, residents.c.birth_year)
    return {
        row.subject_id: Known(row.opted_out_at is not None, row.birth_year)
        for some in parts_of(subject_ids)
        for row in connection.execute(query.where(residents.c.subject_id.in_(some)))
    }


def hold(connection: sql.Connection, subject_ids: Collection[int]) -> None:
    """Have others who tell of the same residents wait until the transaction ends, and see what they told before."""
    query = sql.select(residents.c.id).order_by(residents.c.id)
    for some in parts_of(subject_ids):
        # To add a record is still allowed, or two who have done so would wait for each other. SQLite has one writer.
        connection.execute(query.where(residents.c.subject_id.in_(some)).with_for_update(key_share=True)).all()


def open_alerts(connection: sql.Connection, subject_ids: Collection[int]) -> dict[int, list[Alert]]:
    """Return the alerts of residents that nobody has acknowledged, the latest first."""
    query = sql.select(residents.c.subject_id, *RAISED).join(residents, residents.c.id == alerts.c.resident_id)
    latest = query.where(alerts.c.acknowledged_at.is_(None)).order_by(alerts.c.raised_at.desc(), alerts.c.id.desc())
    found: dict[int, list[Alert]] = {subject: [] for subject in subject_ids}
    for some in parts_of(subject_ids):
        for row in connection.execute(latest.where(residents.c.subject_id.in_(some))):
            found[row.subject_id].append(Alert(**row._mapping))
    return found


def _digests(rows: pl.DataFrame) -> dict[str, bytes]:
    """Return what each record tells, as a digest; in whatever order it tells it."""
    told: dict[str, list[str]] = {}
    for row in normalised(rows).select(IDENTIFIER, "subject_id", *FACTS).iter_rows():
        told.setdefault(row[0], []).append(json.dumps(row[1:], default=str))
    return {
        name: blake2b("\n".join(sorted(of)).encode(), digest_size=DIGEST_BYTES).digest() for name, of in told.items()
    }


def _need_the_same(connection: sql.Connection, digests: dict[str, bytes]) -> None:
    query = sql.select(records.c.identifier, records.c.digest).where(records.c.digest.is_not(None))
    for some in parts_of(digests):
        for row in connection.execute(query.where(records.c.identifier.in_(some))):
            if digests[row.identifier] != row.digest:
                raise ToldOtherwiseError(row.identifier)


def _note(connection: sql.Connection, digests: dict[str, bytes]) -> None:
    noted = records.update().where(records.c.identifier == sql.bindparam("name"))
    if rows := [{"name": name, "digest": digest} for name, digest in digests.items()]:
        connection.execute(noted, rows)
