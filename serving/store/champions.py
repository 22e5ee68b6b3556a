"""The champions as they were last read from the model registry: what serves while it is away."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sql

from serving.store.database import Database, insert
from serving.store.tables import champions


@dataclass(frozen=True)
class KeptChampion:
    """A champion of a target: `artifact` holds the model's files."""

    target: str
    version: str
    digest: str
    artifact: bytes
    kept_at: datetime


@dataclass(frozen=True)
class ChampionsKept:
    """The champions that a database keeps."""

    database: Database

    def keep(self, champion: KeptChampion) -> None:
        """Keep a champion, in the place of that target's."""
        row = asdict(champion)
        with self.database.writing() as connection:
            added = insert(connection, champions).values(row)
            connection.execute(added.on_conflict_do_update(index_elements=["target"], set_=row))

    def drop_all_but(self, targets: Iterable[str]) -> None:
        """Forget the champions of targets that have none any more."""
        with self.database.writing() as connection:
            connection.execute(champions.delete().where(champions.c.target.not_in(sorted(targets))))

    def all(self) -> dict[str, KeptChampion]:
        """Return them by target."""
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(champions).order_by(champions.c.target))
            return {row.target: KeptChampion(**row._mapping) for row in rows}
