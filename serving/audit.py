"""The audit: who did what, with whose record, when, from where, why.

Rows are only ever added; the database's own triggers refuse anything else. Each row's digest covers the row and the
digest before it, so that a row that was changed, put in or taken out afterwards breaks the chain there. Whoever may
command the database could write a whole new chain; so keep an export elsewhere from time to time: its last line pins
all that went before (:meth:`Audit.verify` compares).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO

import sqlalchemy as sql

from features.errors import WeibingError
from serving.security.caller import Caller, Panel, RefusedError, Resident, Subject, may
from serving.security.roles import Action
from serving.store.accounts import audit, audit_cuts
from serving.store.database import Database

BEGINNING = "0" * 64
# Half a year, and a day: the Cybersecurity Law, article 21, and GB/T 22239-2019 ask for six months.
LEAST_DAYS = 184
# PIPL, article 56: three years for what shows how personal information was handled.
DAYS = 3 * 366
ROWS_AT_ONCE = 10_000
LONGEST_TEXT = 500
# What writers wait for, one after the other.
TURN = "weibing audit"


@dataclass(frozen=True)
class Entry:
    """One row: `who`, a number of an account, did `action` to resident `whose` or to `panel`.

    Attributes
    ----------
    at : naive UTC
    name : the account's; none where nobody is known, as what was typed in may have been a password
    via : session, token or command
    allowed : whether it was done, or refused
    address : from where; none on the machine itself
    why : as far as it was said
    """

    at: datetime
    action: str
    allowed: bool = True
    who: int | None = None
    name: str = ""
    role: str = ""
    via: str = ""
    whose: int | None = None
    panel: int | None = None
    address: str = ""
    why: str = ""


@dataclass(frozen=True)
class Head:
    """How far the audit goes: the number of its last row, and the digest that covers all up to it."""

    id: int
    digest: str

    def next(self, entry: Entry) -> "Head":
        """Return the head after one more row."""
        told = json.dumps([self.id + 1, *_cells(entry)], ensure_ascii=False, separators=(",", ":"))
        return Head(self.id + 1, sha256(f"{self.digest}\n{told}".encode("utf-8", "backslashreplace")).hexdigest())


@dataclass(frozen=True)
class Verified:
    """An audit that holds together.

    Attributes
    ----------
    start : where what was cut off by rule ends
    """

    start: Head
    head: Head

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return self.head.id - self.start.id

    def text(self) -> str:
        """Say it."""
        cut = f" Those up to {self.start.id:,} were cut off by rule." if self.start.id else ""
        return f"The audit holds together: {self.rows:,} rows, the last is {self.head.id:,}, {self.head.digest}.{cut}"


@dataclass(frozen=True)
class Audit:
    """The audit of a database."""

    database: Database

    def write(self, *entries: Entry) -> None:
        """Add entries, in order. Whoever is to see something sees it after this, not if it fails.

        Raises
        ------
        WeibingError
            If the database cannot be used.
        """
        with self.database.writing() as connection:
            _wait_for_turn(connection)
            head, rows = _head(connection), []
            for entry in map(_within_limits, entries):
                head = head.next(entry)
                rows.append({**asdict(entry), "id": head.id, "digest": head.digest})
            if rows:
                connection.execute(audit.insert(), rows)

    def admit(
        self, caller: Caller, action: Action, now: datetime, of: Subject = None, *, address: str = "", why: str = ""
    ) -> None:
        """Let a caller do something, or refuse, and write down which: the door before every record.

        Raises
        ------
        RefusedError
            If the caller may not.
        WeibingError
            If it cannot be written down; then it is not allowed either.
        """
        allowed = may(caller, action, of)
        self.write(entry_of(caller, action, now, of, allowed=allowed, address=address, why=why))
        if not allowed:
            raise RefusedError(action)

    def verify(self, against: Head | None = None) -> Verified:
        """Compute the chain anew.

        Parameters
        ----------
        against
            The last line of an earlier export: shows whether the end was taken off, or all was written anew.

        Raises
        ------
        WeibingError
            If it does not hold together; names the first row that is wrong.
        """
        with self.database.reading() as connection:
            start = head = _last_cut(connection)
            _need_known_beginning(start, against)
            for entry, kept in _rows(connection):
                if kept.id != head.id + 1:
                    raise WeibingError(f"The audit is broken: after row {head.id:,} comes {kept.id:,}. {_REMEDY}")
                head = head.next(entry)
                if head != kept or (against is not None and head.id == against.id and head != against):
                    raise WeibingError(f"The audit is broken: row {head.id:,} is not what was written. {_REMEDY}")
        if against is not None and head.id < against.id:
            raise WeibingError(
                f"The audit is broken: it ends at row {head.id:,}, once it had {against.id:,}. {_REMEDY}"
            )
        return Verified(start, head)

    def export(self, to: IO[str], *, since: datetime | None = None, whose: int | None = None) -> int:
        """Write the rows as JSON, one a line with its digest, the last of all last; return how many.

        Parameters
        ----------
        since
            Leave out what is older.
        whose
            Only what was done with this resident's record.
        """
        conditions = [audit.c.at >= since] if since else []
        conditions += [audit.c.whose == whose] if whose is not None else []
        number = 0
        with self.database.reading() as connection:
            for entry, head in _rows(connection, *conditions):
                told = {**asdict(entry), "at": entry.at.isoformat(), "id": head.id, "digest": head.digest}
                to.write(json.dumps(told, ensure_ascii=False) + "\n")
                number += 1
        return number

    def forget(self, before: datetime, now: datetime, why: str = "kept by rule") -> int:
        """Cut off what is older than the rule asks to keep; return how many rows went.

        What is left stays verifiable: the cut keeps the digest of the last row that went, and is itself an entry.

        Raises
        ------
        WeibingError
            If that would be less than half a year old.
        """
        if before > now - timedelta(days=LEAST_DAYS):
            raise WeibingError(f"The audit is kept for {LEAST_DAYS} days or more: the law asks for six months.")
        with self.database.writing() as connection:
            _wait_for_turn(connection)
            last = _last_before(connection, before)
            if last is None:
                return 0
            connection.execute(audit_cuts.insert().values(last_id=last.id, digest=last.digest, cut_at=now, why=why))
            gone = connection.execute(audit.delete().where(audit.c.id <= last.id)).rowcount
        self.write(Entry(now, "forget audit", via="command", why=f"{why}: rows up to {last.id}"))
        return gone


_REMEDY = "Keep the database as it is, find out who could write to it, and compare with the exports."


def entry_of(
    caller: Caller, action: str, now: datetime, of: Subject = None, *, allowed: bool, address: str = "", why: str = ""
) -> Entry:
    """Return the entry of what a caller does."""
    return Entry(
        at=now,
        action=action,
        allowed=allowed,
        who=caller.user_id,
        name=caller.name,
        role=caller.role,
        via=caller.via,
        whose=of.id if isinstance(of, Resident) else None,
        panel=of.id if isinstance(of, Panel) else None,
        address=address,
        why=why,
    )


def head_of_export(file: Path) -> Head:
    """Return the head that an export ends with.

    Raises
    ------
    WeibingError
        If the file is no export.
    """
    try:
        last = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
        return Head(int(last["id"]), str(last["digest"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeibingError(f"{file} is not an export of the audit. Make one with: weibing audit export") from error


def _cells(entry: Entry) -> list[object]:
    return [cell.isoformat() if isinstance(cell, datetime) else cell for cell in asdict(entry).values()]


def _within_limits(entry: Entry) -> Entry:
    """Cut what a caller could make endless, and what PostgreSQL does not keep in a text."""
    texts = {name: getattr(entry, name) for name in ("action", "name", "role", "via", "address", "why")}
    kept = {
        name: text.replace("\0", "").encode("utf-8", "replace").decode()[:LONGEST_TEXT] for name, text in texts.items()
    }
    return replace(entry, **kept)


def _wait_for_turn(connection: sql.Connection) -> None:
    """Wait until nobody else adds, until the end of the transaction; in SQLite, one writes at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(sql.func.hashtext(TURN))))


def _head(connection: sql.Connection) -> Head:
    last = connection.execute(sql.select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)).one_or_none()
    return _last_cut(connection) if last is None else Head(last.id, last.digest)


def _last_cut(connection: sql.Connection) -> Head:
    query = sql.select(audit_cuts.c.last_id, audit_cuts.c.digest).order_by(audit_cuts.c.last_id.desc()).limit(1)
    last = connection.execute(query).one_or_none()
    return Head(0, BEGINNING) if last is None else Head(last.last_id, last.digest)


def _last_before(connection: sql.Connection, before: datetime) -> Head | None:
    """Return the last row of the beginning in which everything is older; a clock that once went back keeps more."""
    first_kept = sql.select(sql.func.min(audit.c.id)).where(audit.c.at >= before).scalar_subquery()
    older = sql.or_(first_kept.is_(None), audit.c.id < first_kept)
    query = sql.select(audit.c.id, audit.c.digest).where(older).order_by(audit.c.id.desc()).limit(1)
    last = connection.execute(query).one_or_none()
    return None if last is None else Head(last.id, last.digest)


def _need_known_beginning(start: Head, against: Head | None) -> None:
    if against is not None and (against.id < start.id or (against.id == start.id and against != start)):
        raise WeibingError(
            f"That export ends at row {against.id:,}, the audit begins after {start.id:,}. Compare with a later one."
        )


def _rows(connection: sql.Connection, *conditions: sql.ColumnElement[bool]) -> Iterator[tuple[Entry, Head]]:
    """Return the rows in order, part by part."""
    last = 0
    while True:
        query = sql.select(audit).where(audit.c.id > last, *conditions).order_by(audit.c.id).limit(ROWS_AT_ONCE)
        found = connection.execute(query).all()
        for row in found:
            cells = dict(row._mapping)
            head = Head(cells.pop("id"), cells.pop("digest"))
            yield Entry(**cells), head
        if len(found) < ROWS_AT_ONCE:
            return
        last = found[-1].id
