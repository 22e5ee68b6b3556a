"""Alerts: raised once, shown until somebody has acknowledged them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

import sqlalchemy as sql

from serving.store.database import Database, insert
from serving.store.panels import in_force
from serving.store.people import numbers_of
from serving.store.tables import alerts, panel_residents, residents

TOLD = ("rule", "cause", "kind", "reason_en", "reason_zh", "citation")


@dataclass(frozen=True)
class Alert:
    """A duty that is due at once.

    Attributes
    ----------
    cause : what made it due, such as the identifier of an observation: of a rule and cause, a resident has one alert
    raised_at, acknowledged_at : UTC
    acknowledged_by : an account
    id : the number in the database; 0 until it is raised
    """

    subject_id: int
    rule: str
    cause: str
    kind: str
    reason_en: str
    reason_zh: str
    citation: str
    raised_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: int | None = None
    id: int = 0


@dataclass(frozen=True)
class Alerts:
    """The alerts of a database."""

    database: Database

    def raise_all(self, found: Iterable[Alert]) -> int:
        """Raise alerts, all of them or none; return how many had not been raised before."""
        with self.database.writing() as connection:
            return raise_all(connection, found)

    def open(self, panel_id: int, now: datetime) -> list[Alert]:
        """Return the alerts of a panel that nobody has acknowledged, the latest first."""
        members = sql.select(panel_residents.c.resident_id).where(panel_residents.c.panel_id == panel_id, in_force(now))
        return self._found(alerts.c.acknowledged_at.is_(None), alerts.c.resident_id.in_(members))

    def of(self, subject_id: int) -> list[Alert]:
        """Return all alerts of a resident, the latest first."""
        return self._found(residents.c.subject_id == subject_id)

    def whose(self, alert_id: int) -> int | None:
        """Return whose an alert is, None where there is none of that number."""
        query = sql.select(residents.c.subject_id).join(alerts, residents.c.id == alerts.c.resident_id)
        with self.database.reading() as connection:
            return connection.execute(query.where(alerts.c.id == alert_id)).scalar()

    def acknowledge(self, alert_id: int, user_id: int, now: datetime) -> bool:
        """Note who has seen an alert, and when; False if somebody had before, or there is none of that number."""
        ours = sql.and_(alerts.c.id == alert_id, alerts.c.acknowledged_at.is_(None))
        with self.database.writing() as connection:
            seen = alerts.update().where(ours).values(acknowledged_at=now, acknowledged_by=user_id)
            return connection.execute(seen).rowcount == 1

    def _found(self, *conditions: sql.ColumnElement[bool]) -> list[Alert]:
        columns = [alerts.c[name] for name in (*TOLD, "raised_at", "acknowledged_at", "acknowledged_by", "id")]
        query = sql.select(residents.c.subject_id, *columns).join(residents, residents.c.id == alerts.c.resident_id)
        latest = query.where(*conditions).order_by(alerts.c.raised_at.desc(), alerts.c.id.desc())
        with self.database.reading() as connection:
            return [Alert(**row._mapping) for row in connection.execute(latest)]


class Urgent(Protocol):
    """A duty, as far as it tells what made it due."""

    @property
    def since(self) -> date:
        """Since when it is a duty."""

    @property
    def reason_en(self) -> str:
        """Why."""


def cause_of(duty: Urgent) -> str:
    """Return what made a duty due: the same by day and by night, so that an alert is raised once."""
    return f"{duty.since.isoformat()} {duty.reason_en}"


def raise_all(connection: sql.Connection, found: Iterable[Alert]) -> int:
    """Raise alerts in the transaction of a connection: see :meth:`Alerts.raise_all`."""
    raised = list(found)
    if not raised:
        return 0
    numbers = numbers_of(connection, (alert.subject_id for alert in raised))
    rows = [
        {"resident_id": numbers[alert.subject_id], "raised_at": alert.raised_at}
        | {name: getattr(alert, name) for name in TOLD}
        for alert in raised
    ]
    rows.sort(key=lambda row: (row["resident_id"], row["rule"], row["cause"]))
    added = insert(connection, alerts).on_conflict_do_nothing(index_elements=["resident_id", "rule", "cause"])
    return len(connection.execute(added.returning(alerts.c.id), rows).all())
