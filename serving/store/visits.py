"""Visits: recorded contacts, which add events and close duties."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import sqlalchemy as sql

from features.events import SCHEMA
from serving.store.database import Database
from serving.store.identity import NOTE, Key, adopt, need_right_key
from serving.store.observations import IDENTIFIER, append
from serving.store.people import number_of
from serving.store.tables import duties, residents, visits


@dataclass(frozen=True)
class Visit:
    """A contact with a resident.

    Attributes
    ----------
    user_id : the account of whoever made it
    time : UTC
    kind : such as clinic, home, telephone
    closes : the rules whose duties it closes
    """

    subject_id: int
    user_id: int
    time: datetime
    kind: str
    closes: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Visits:
    """The visits of a database, and the key of their notes."""

    database: Database
    key: Key

    def record(self, visit: Visit, now: datetime, facts: pl.DataFrame | None = None) -> int:
        """Keep a visit, what was found at it, and that its duties are done: all of it or nothing; return its number.

        Parameters
        ----------
        facts : what was found, in the event store's columns but for `subject_id`; without a time, that of the visit

        Raises
        ------
        WeibingError
            If there is no such resident, or the key is not the database's.
        """
        with self.database.writing() as connection:
            adopt(connection, self.key, now)
            resident = number_of(connection, visit.subject_id)
            made = visits.insert().values(
                resident_id=resident,
                user_id=visit.user_id,
                time=visit.time,
                kind=visit.kind,
                closes=json.dumps(visit.closes),
                note=self.key.seal(visit.note, NOTE, visit.subject_id) if visit.note else None,
            )
            number = int(connection.execute(made.returning(visits.c.id)).scalar_one())
            if facts is not None and len(facts):
                append(connection, _told(visit, facts, number), now)
            _close(connection, resident, visit.closes)
        return number

    def of(self, subject_id: int) -> list[Visit]:
        """Return the visits of a resident, the latest first.

        Raises
        ------
        WeibingError
            If the key is not the database's.
        """
        query = sql.select(visits).join(residents, residents.c.id == visits.c.resident_id)
        ours = query.where(residents.c.subject_id == subject_id).order_by(visits.c.time.desc(), visits.c.id.desc())
        with self.database.reading() as connection:
            need_right_key(connection, self.key)
            return [
                Visit(
                    subject_id,
                    row.user_id,
                    row.time,
                    row.kind,
                    tuple(json.loads(row.closes)),
                    self._note(row.note, subject_id),
                )
                for row in connection.execute(ours)
            ]

    def _note(self, sealed: bytes | None, subject_id: int) -> str | None:
        return None if sealed is None else self.key.unseal(sealed, NOTE, subject_id)


def _told(visit: Visit, facts: pl.DataFrame, number: int) -> pl.DataFrame:
    time = pl.col("time").cast(SCHEMA["time"]) if "time" in facts.columns else pl.lit(None, SCHEMA["time"])
    return facts.with_columns(
        pl.lit(visit.subject_id, pl.Int64).alias("subject_id"),
        time.fill_null(visit.time).alias("time"),
        pl.lit(f"weibing:visit:{number}").alias(IDENTIFIER),
    )


def _close(connection: sql.Connection, resident: int, rules: Sequence[str]) -> None:
    connection.execute(duties.delete().where(duties.c.resident_id == resident, duties.c.rule.in_(rules)))
