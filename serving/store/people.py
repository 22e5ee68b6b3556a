"""Residents: who they are, where they live, and whether they are scored without a person."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal, cast

import sqlalchemy as sql

from features.errors import WeibingError
from serving.store.database import Database, insert
from serving.store.identity import Identity, Key, adopt, hash_of, need_right_key
from serving.store.queries import NUMBERS_A_QUERY
from serving.store.tables import residents

Sex = Literal["female", "male"]

ROWS_AT_ONCE = 5_000
KNOWN = [residents.c[name] for name in ("id", "subject_id", "township", "sex", "birth_year", "opted_out_at")]


@dataclass(frozen=True)
class Person:
    """What is told of a resident; what is None is not known."""

    subject_id: int
    identity: Identity | None = None
    township: str | None = None
    sex: Sex | None = None
    birth_year: int | None = None


@dataclass(frozen=True)
class Resident:
    """A resident as the database has it, without the identity.

    Attributes
    ----------
    id : the number in the database
    opted_out_at : since when the resident is not scored without a person; UTC
    """

    id: int
    subject_id: int
    township: str | None
    sex: Sex | None
    birth_year: int | None
    opted_out_at: datetime | None


@dataclass(frozen=True)
class People:
    """The residents of a database, and the key by which it is told who they are."""

    database: Database
    key: Key

    def register(self, people: Iterable[Person], now: datetime) -> int:
        """Keep who residents are, all of them or none, in the place of what was known of them; return how many.

        Raises
        ------
        WeibingError
            If two of them have the same identity number, or the key is not the database's.
        """
        coming, count = iter(people), 0
        with self.database.writing() as connection:
            adopt(connection, self.key, now)
            while part := list(islice(coming, ROWS_AT_ONCE)):
                rows = sorted((self._row(person) for person in part), key=_subject)
                _need_one_resident_a_number(connection, rows)
                _upsert(connection, rows)
                count += len(rows)
        return count

    def resident(self, subject_id: int) -> Resident | None:
        """Return a resident, if there is one of that number in the store."""
        return self._one(residents.c.subject_id == subject_id)

    def find(self, number: str) -> Resident | None:
        """Return the resident of an identity number, however it is written.

        Raises
        ------
        WeibingError
            If the key is not the database's.
        """
        return self._one(residents.c.number_hash == self.key.hashed(number))

    def identities(self, subject_ids: Iterable[int]) -> dict[int, Identity]:
        """Return who residents are, by their number in the store; those of whom it is known.

        Raises
        ------
        WeibingError
            If the key is not the database's.
        """
        asked, found = sorted(set(subject_ids)), {}
        query = sql.select(residents.c.subject_id, residents.c.identity).where(residents.c.identity.is_not(None))
        with self.database.reading() as connection:
            need_right_key(connection, self.key)
            for start in range(0, len(asked), NUMBERS_A_QUERY):
                some = query.where(residents.c.subject_id.in_(asked[start : start + NUMBERS_A_QUERY]))
                for subject_id, sealed in connection.execute(some):
                    found[subject_id] = self.key.unseal_identity(sealed, subject_id)
        return found

    def opt_out(self, subject_id: int, now: datetime) -> None:
        """Note that a resident is not to be scored without a person; a resident who has opted out before stays so.

        Raises
        ------
        WeibingError
            If there is no such resident.
        """
        opt_out(self.database, subject_id, now)

    def opt_in(self, subject_id: int) -> None:
        """Note that a resident may be scored again.

        Raises
        ------
        WeibingError
            If there is no such resident.
        """
        opt_in(self.database, subject_id)

    def opted_out(self) -> frozenset[int]:
        """Return who is not to be scored without a person, by their number in the store."""
        return opted_out(self.database)

    def _row(self, person: Person) -> dict[str, object]:
        sealed = person.identity and self.key.seal_identity(person.identity, person.subject_id)
        return {
            "subject_id": person.subject_id,
            "identity": sealed,
            "number_hash": hash_of(self.key, person.identity),
            "township": person.township,
            "sex": person.sex,
            "birth_year": person.birth_year,
        }

    def _one(self, condition: sql.ColumnElement[bool]) -> Resident | None:
        with self.database.reading() as connection:
            need_right_key(connection, self.key)
            row = connection.execute(sql.select(*KNOWN).where(condition)).one_or_none()
        return None if row is None else Resident(**row._mapping)


def opt_out(database: Database, subject_id: int, now: datetime) -> None:
    """Note that a resident is not to be scored without a person: see :meth:`People.opt_out`; it takes no key."""
    _change(database, subject_id, sql.func.coalesce(residents.c.opted_out_at, now))


def opt_in(database: Database, subject_id: int) -> None:
    """Note that a resident may be scored again: see :meth:`People.opt_in`; it takes no key."""
    _change(database, subject_id, sql.cast(None, sql.DateTime))


def _change(database: Database, subject_id: int, opted_out_at: sql.ColumnElement[datetime]) -> None:
    change = residents.update().where(residents.c.subject_id == subject_id).values(opted_out_at=opted_out_at)
    with database.writing() as connection:
        if not connection.execute(change).rowcount:
            raise unknown(subject_id)


def opted_out(database: Database) -> frozenset[int]:
    """Return who is not to be scored without a person, by their number in the store; it takes no key."""
    query = sql.select(residents.c.subject_id).where(residents.c.opted_out_at.is_not(None))
    with database.reading() as connection:
        return frozenset(connection.execute(query).scalars())


def unknown(subject_id: int) -> WeibingError:
    """Return the error that the database does not know a resident."""
    return WeibingError(f"There is no resident {subject_id} in the database.")


def number_of(connection: sql.Connection, subject_id: int) -> int:
    """Return the number that a resident has in the database.

    Raises
    ------
    WeibingError
        If there is no such resident.
    """
    found = connection.execute(sql.select(residents.c.id).where(residents.c.subject_id == subject_id)).scalar()
    if found is None:
        raise unknown(subject_id)
    return int(found)


def numbers_of(connection: sql.Connection, subject_ids: Iterable[int]) -> dict[int, int]:
    """Return the numbers that residents have in the database, giving one to each who has none."""
    asked = sorted(set(subject_ids))
    found = _numbers(connection, asked)
    if new := [{"subject_id": subject} for subject in asked if subject not in found]:
        # In the order of the ids, so that two who add the same do not wait for each other for ever.
        added = insert(connection, residents).on_conflict_do_nothing(index_elements=["subject_id"])
        connection.execute(added, new)
        found = _numbers(connection, asked)
    return found


def _numbers(connection: sql.Connection, subject_ids: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for start in range(0, len(subject_ids), NUMBERS_A_QUERY):
        some = residents.c.subject_id.in_(subject_ids[start : start + NUMBERS_A_QUERY])
        rows = connection.execute(sql.select(residents.c.subject_id, residents.c.id).where(some))
        found.update((subject_id, number) for subject_id, number in rows)
    return found


def _subject(row: dict[str, object]) -> int:
    return cast(int, row["subject_id"])


def _upsert(connection: sql.Connection, rows: list[dict[str, object]]) -> None:
    added = insert(connection, residents)
    known = {name: added.excluded[name] for name in rows[0] if name != "subject_id"}
    connection.execute(added.on_conflict_do_update(index_elements=["subject_id"], set_=known), rows)


def _need_one_resident_a_number(connection: sql.Connection, rows: list[dict[str, object]]) -> None:
    coming = {row["number_hash"]: row["subject_id"] for row in rows if row["number_hash"]}
    query = sql.select(residents.c.number_hash, residents.c.subject_id)
    present = list(connection.execute(query.where(residents.c.number_hash.in_(list(coming)))))
    taken = {subject_id for number, subject_id in present if coming[number] != subject_id}
    times = Counter(row["number_hash"] for row in rows if row["number_hash"])
    twice = {row["subject_id"] for row in rows if times[row["number_hash"]] > 1}
    if taken or twice:
        some = min(map(str, taken or twice))
        raise WeibingError(
            f"Another resident has the identity number of resident {some}. Say in the crosswalk that they are one."
        )
