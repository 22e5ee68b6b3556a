"""Panels: which residents are under contract with which doctor, from when, until when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql

from features.errors import WeibingError, did_you_mean
from serving.store.database import Database, insert
from serving.store.people import numbers_of
from serving.store.queries import NUMBERS_A_QUERY
from serving.store.tables import panel_residents as contracts
from serving.store.tables import panels, residents


@dataclass(frozen=True)
class Panel:
    """The residents under contract with one doctor, whose account is `doctor_id`."""

    id: int
    name: str
    doctor_id: int | None


def in_force(at: datetime) -> sql.ColumnElement[bool]:
    """Return the condition that a contract holds at a time: from `since` on, and before `until`."""
    return sql.and_(contracts.c.since <= at, sql.or_(contracts.c.until.is_(None), contracts.c.until > at))


@dataclass(frozen=True)
class Panels:
    """The panels of a database."""

    database: Database

    def make(self, name: str, doctor_id: int | None = None) -> Panel:
        """Make a panel.

        Raises
        ------
        WeibingError
            If there is one of that name.
        """
        with self.database.writing() as connection:
            added = insert(connection, panels).values(name=name, doctor_id=doctor_id)
            made = connection.execute(added.on_conflict_do_nothing(index_elements=["name"]).returning(panels.c.id))
            number = made.scalar()
        if number is None:
            raise WeibingError(f'There is a panel "{name}" already. Choose another name.')
        return Panel(number, name, doctor_id)

    def give(self, panel_id: int, doctor_id: int | None) -> None:
        """Give a panel to a doctor, or to none.

        Raises
        ------
        WeibingError
            If there is no such panel.
        """
        with self.database.writing() as connection:
            _need_panel(connection, panel_id)
            connection.execute(panels.update().where(panels.c.id == panel_id).values(doctor_id=doctor_id))

    def all(self) -> list[Panel]:
        """Return every panel, by name."""
        return self._panels(sql.true())

    def named(self, name: str) -> Panel:
        """Return the panel of a name.

        Raises
        ------
        WeibingError
            If there is none.
        """
        every = self.all()
        found = next((panel for panel in every if panel.name == name), None)
        if found is None:
            close = did_you_mean(name, [panel.name for panel in every])
            raise WeibingError(f'There is no panel "{name}".{close} Make one with: weibing panel make')
        return found

    def sizes(self, at: datetime) -> dict[int, int]:
        """Return how many belong to each panel at a time; one with nobody is not in it."""
        query = sql.select(contracts.c.panel_id, sql.func.count().label("residents")).where(in_force(at))
        with self.database.reading() as connection:
            rows = connection.execute(query.group_by(contracts.c.panel_id))
            return {row.panel_id: row.residents for row in rows}

    def of_doctor(self, doctor_id: int) -> list[Panel]:
        """Return the panels of a doctor, by name."""
        return self._panels(panels.c.doctor_id == doctor_id)

    def sign(self, panel_id: int, subject_ids: Iterable[int], since: datetime) -> None:
        """Let residents belong to a panel from a time on; a contract with another panel ends then.

        Who belongs to the panel already stays as it is.

        Raises
        ------
        WeibingError
            If there is no such panel, or one of them has signed with another panel at that time or later.
        """
        with self.database.writing() as connection:
            _need_panel(connection, panel_id)
            numbers = sorted(numbers_of(connection, subject_ids).values())
            for start in range(0, len(numbers), NUMBERS_A_QUERY):
                _sign(connection, panel_id, numbers[start : start + NUMBERS_A_QUERY], since)

    def leave(self, subject_id: int, until: datetime) -> None:
        """End the contract of a resident, if there is one.

        Raises
        ------
        WeibingError
            If it has not begun before that time.
        """
        whose = sql.select(residents.c.id).where(residents.c.subject_id == subject_id).scalar_subquery()
        with self.database.writing() as connection:
            _end(connection, contracts.c.resident_id == whose, until)

    def of(self, subject_id: int, at: datetime) -> int | None:
        """Return the panel that a resident belongs to at a time."""
        query = sql.select(contracts.c.panel_id).join(residents, residents.c.id == contracts.c.resident_id)
        with self.database.reading() as connection:
            return connection.execute(query.where(residents.c.subject_id == subject_id, in_force(at))).scalar()

    def whose(self, subject_ids: Iterable[int], at: datetime) -> dict[int, int]:
        """Return the panels that residents belong to at a time; who belongs to none is not in it."""
        asked, found = sorted(set(subject_ids)), dict[int, int]()
        query = sql.select(residents.c.subject_id, contracts.c.panel_id).join(
            contracts, residents.c.id == contracts.c.resident_id
        )
        with self.database.reading() as connection:
            for start in range(0, len(asked), NUMBERS_A_QUERY):
                some = residents.c.subject_id.in_(asked[start : start + NUMBERS_A_QUERY])
                found.update((subject, panel) for subject, panel in connection.execute(query.where(some, in_force(at))))
        return found

    def members(self, panel_id: int, at: datetime) -> list[int]:
        """Return who belongs to a panel at a time, by their numbers in the store, ascending."""
        query = sql.select(residents.c.subject_id).join(contracts, residents.c.id == contracts.c.resident_id)
        ours = query.where(contracts.c.panel_id == panel_id, in_force(at)).order_by(residents.c.subject_id)
        with self.database.reading() as connection:
            return list(connection.execute(ours).scalars())

    def _panels(self, condition: sql.ColumnElement[bool]) -> list[Panel]:
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(panels).where(condition).order_by(panels.c.name))
            return [Panel(row.id, row.name, row.doctor_id) for row in rows]


def listing(panels: Panels, accounts: Mapping[int, str], at: datetime) -> list[dict[str, object]]:
    """Return the panels as JSON holds them; `accounts` says what a doctor is called."""
    sizes = panels.sizes(at)
    return [
        {
            "id": panel.id,
            "name": panel.name,
            "doctor": accounts.get(panel.doctor_id or 0),
            "residents": sizes.get(panel.id, 0),
        }
        for panel in panels.all()
    ]


def text(listed: Iterable[Mapping[str, object]]) -> str:
    """Say panels in lines."""
    lines = [
        f"{one['id']:>6}  {one['name']:<24} {one['doctor'] or 'nobody':<24} {one['residents']:>7,}" for one in listed
    ]
    return "\n".join(lines) or "There is no panel yet. Make one with: weibing panel make"


def _need_panel(connection: sql.Connection, panel_id: int) -> None:
    if connection.execute(sql.select(panels.c.id).where(panels.c.id == panel_id)).scalar() is None:
        raise WeibingError(f"There is no panel {panel_id}. Make it first.")


def _sign(connection: sql.Connection, panel_id: int, numbers: list[int], since: datetime) -> None:
    theirs = contracts.c.resident_id.in_(numbers)
    _end(connection, sql.and_(theirs, contracts.c.panel_id != panel_id), since)
    open_here = sql.select(contracts.c.resident_id).where(theirs, contracts.c.until.is_(None))
    here = set(connection.execute(open_here).scalars())
    rows = [
        {"panel_id": panel_id, "resident_id": number, "since": since, "until": None}
        for number in numbers
        if number not in here
    ]
    if rows:
        # A contract that ended in the moment in which it begins again goes on.
        added = insert(connection, contracts).on_conflict_do_update(
            index_elements=["panel_id", "resident_id", "since"], set_={"until": None}
        )
        connection.execute(added, rows)


def _end(connection: sql.Connection, whose: sql.ColumnElement[bool], until: datetime) -> None:
    open_ones = sql.and_(whose, contracts.c.until.is_(None))
    later = sql.select(contracts.c.since).where(open_ones, contracts.c.since >= until).limit(1)
    if (begun := connection.execute(later).scalar()) is not None:
        raise WeibingError(f"A contract that begins at {begun} cannot end at {until}. Name a later time.")
    connection.execute(contracts.update().where(open_ones).values(until=until))
