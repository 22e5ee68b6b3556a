"""The duties of residents as they were last computed, for lists; what computes them is elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray

from serving.store.database import Database
from serving.store.panels import in_force
from serving.store.people import numbers_of
from serving.store.queries import NUMBERS_A_QUERY
from serving.store.tables import duties, residents
from serving.store.tables import panel_residents as contracts

TOLD = ("kind", "rule", "due", "since", "urgent", "reason_en", "reason_zh", "citation")


class Told(Protocol):
    """What is due for a resident, as the service rules say."""

    @property
    def kind(self) -> str:
        """What is to be done."""

    @property
    def rule(self) -> str:
        """Which rule says so."""

    @property
    def due(self) -> date:
        """By when."""

    @property
    def since(self) -> date:
        """Since when it has been so."""

    @property
    def urgent(self) -> bool:
        """Whether it is to be done at once."""

    @property
    def reason_en(self) -> str:
        """Why."""

    @property
    def reason_zh(self) -> str:
        """Why, in Chinese."""

    @property
    def citation(self) -> str:
        """Where the rule is written."""


@dataclass(frozen=True)
class KeptDuty:
    """A duty as the database has it: see :class:`Told`."""

    kind: str
    rule: str
    due: date
    since: date
    urgent: bool
    reason_en: str
    reason_zh: str
    citation: str


@dataclass(frozen=True)
class Duties:
    """The duties that a database keeps."""

    database: Database

    def keep(self, found: Mapping[int, Sequence[Told]], as_of: date) -> None:
        """Keep the duties of residents, in their order, in the place of those that were kept; of all of them or none.

        Parameters
        ----------
        found : by the resident's number in the store
        """
        with self.database.writing() as connection:
            keep(connection, found, as_of)

    def whose(self, at: datetime) -> NDArray[np.int64]:
        """Return of whom duties are kept: who is under contract at a time, or has any; by number in the store."""
        of_panels = sql.select(contracts.c.resident_id).where(in_force(at))
        query = sql.select(residents.c.subject_id).where(
            sql.or_(residents.c.id.in_(of_panels), residents.c.id.in_(sql.select(duties.c.resident_id)))
        )
        with self.database.reading() as connection:
            return np.sort(np.fromiter(connection.execute(query).scalars(), np.int64))

    def of(self, subject_id: int) -> tuple[KeptDuty, ...]:
        """Return the duties of a resident, in their order."""
        query = sql.select(*(duties.c[name] for name in TOLD)).join(residents, residents.c.id == duties.c.resident_id)
        ours = query.where(residents.c.subject_id == subject_id).order_by(duties.c.position)
        with self.database.reading() as connection:
            return tuple(KeptDuty(**row._mapping) for row in connection.execute(ours))


def keep(connection: sql.Connection, found: Mapping[int, Sequence[Told]], as_of: date) -> None:
    """Keep duties in the transaction of a connection: see :meth:`Duties.keep`."""
    numbers = numbers_of(connection, found)
    _clear(connection, sorted(numbers.values()))
    rows = [
        {"resident_id": numbers[subject], "position": position, "as_of": as_of}
        | {name: getattr(duty, name) for name in TOLD}
        for subject, of_one in found.items()
        for position, duty in enumerate(of_one)
    ]
    if rows:
        connection.execute(duties.insert(), rows)


def _clear(connection: sql.Connection, numbers: list[int]) -> None:
    for start in range(0, len(numbers), NUMBERS_A_QUERY):
        some = duties.c.resident_id.in_(numbers[start : start + NUMBERS_A_QUERY])
        connection.execute(duties.delete().where(some))
