"""What became of the cards that other systems were shown: accepted, or overridden and why."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql

from serving.store.database import Database, insert
from serving.store.identity import COMMENT, NOBODYS, Key, adopt, need_right_key
from serving.store.tables import cds_feedback

PLAIN = ("issuer", "service", "card", "outcome", "outcome_at", "reason_system", "reason_code", "reason_display")
ONCE = ["issuer", "service", "card", "outcome", "outcome_at"]


@dataclass(frozen=True)
class CardFeedback:
    """What became of a card.

    Attributes
    ----------
    issuer, service : the system, and which of our services it had called
    card : the id that the card was given
    outcome : accepted or overridden, at a time (UTC)
    accepted : ids of suggestions
    comment : what a person wrote; it is encrypted where it is kept
    """

    issuer: str
    service: str
    card: str
    outcome: str
    outcome_at: datetime
    accepted: tuple[str, ...] = ()
    reason_system: str | None = None
    reason_code: str | None = None
    reason_display: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class CardFeedbacks:
    """The feedback of a database, and the key of what people wrote."""

    database: Database
    key: Key

    def add(self, told: Iterable[CardFeedback], now: datetime) -> int:
        """Keep feedback, all of it or none, the same outcome of a card at the same time once; return how much is new.

        Raises
        ------
        WeibingError
            If the key is not the database's.
        """
        rows = [self._row(each) | {"received_at": now} for each in told]
        rows.sort(key=lambda row: [str(row[name]) for name in ONCE])
        with self.database.writing() as connection:
            adopt(connection, self.key, now)
            added = insert(connection, cds_feedback).on_conflict_do_nothing(index_elements=ONCE)
            return len(connection.execute(added.returning(cds_feedback.c.id), rows).all()) if rows else 0

    def all(self) -> Iterator[CardFeedback]:
        """Yield all feedback, in the order in which it came.

        Raises
        ------
        WeibingError
            If the key is not the database's.
        """
        with self.database.reading() as connection:
            need_right_key(connection, self.key)
            for row in connection.execute(sql.select(cds_feedback).order_by(cds_feedback.c.id)).all():
                plain = {name: getattr(row, name) for name in PLAIN}
                comment = None if row.comment is None else self.key.unseal(row.comment, COMMENT, NOBODYS)
                yield CardFeedback(**plain, accepted=tuple(json.loads(row.accepted)), comment=comment)

    def _row(self, told: CardFeedback) -> dict[str, object]:
        sealed = self.key.seal(told.comment, COMMENT, NOBODYS) if told.comment else None
        plain = {name: getattr(told, name) for name in PLAIN}
        return {**plain, "accepted": json.dumps(told.accepted), "comment": sealed}
