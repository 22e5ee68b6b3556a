"""Erasing a resident: nothing that the database holds of one stays."""

import sqlalchemy as sql

from serving.store.database import Database
from serving.store.people import number_of
from serving.store.tables import (
    alerts,
    drivers,
    duties,
    events,
    panel_residents,
    records,
    residents,
    scores,
    visits,
)

# What refers to others goes before them.
OF_A_RESIDENT = (events, records, duties, visits, alerts, panel_residents, scores)


def erase(database: Database, subject_id: int) -> dict[str, int]:
    """Remove all rows of a resident from every table, all of them or none; return how many of each.

    The records in the event store are another matter: as long as they are there, the next night scores the resident
    again. Backups keep what they have.

    Raises
    ------
    WeibingError
        If there is no such resident.
    """
    with database.writing() as connection:
        resident = number_of(connection, subject_id)
        ours = sql.select(scores.c.id).where(scores.c.resident_id == resident)
        gone = {"drivers": connection.execute(drivers.delete().where(drivers.c.score_id.in_(ours))).rowcount}
        for table in OF_A_RESIDENT:
            gone[table.name] = connection.execute(table.delete().where(table.c.resident_id == resident)).rowcount
        gone["residents"] = connection.execute(residents.delete().where(residents.c.id == resident)).rowcount
    _overwrite(database)
    return gone


def _overwrite(database: Database) -> None:
    """Have what was deleted overwritten on the disk as well, where that is for this program to do.

    SQLite's pages are overwritten as they are deleted from; the log beside them is emptied here. PostgreSQL clears its
    pages and logs by itself.
    """
    if database.file:
        with database.bare() as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
