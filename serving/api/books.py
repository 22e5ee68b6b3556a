"""What the health interfaces read and write: the operational database, as their protocols ask for it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from http import HTTPStatus
from typing import ParamSpec, TypeVar

import polars as pl
import sqlalchemy as sql
from starlette.requests import Request

from features.sources.report import BIRTH, FEMALE
from serving.api.assessments import Answered, Assessment
from serving.api.cds_hooks import Feedback, Told
from serving.api.clinic import Clinic
from serving.api.door import Visitor, away, forbidden, utc_now, visitor_of
from serving.api.fhir import DateWindow, Gone, Open, RiskBook, RiskPage, RiskQuery
from serving.api.fhir.router import Action
from serving.api.observations.reading import IDENTITY_NUMBERS, RESIDENT
from serving.api.problems import ProblemError, unavailable
from serving.audit import Entry, entry_of
from serving.kept import DueNow, day_of, due_now, score_of
from serving.live import Live, by_resident
from serving.security.caller import RefusedError, Resident, may
from serving.security.roles import Action as Right
from serving.security.tokens import Replays
from serving.store import risks
from serving.store.database import AwayError
from serving.store.feedback import CardFeedback, CardFeedbacks
from serving.store.risks import KeptScore, Place
from serving.store.tables import residents, scores

P = ParamSpec("P")
R = TypeVar("R")

SEE: Right = "see resident"
EXPORT: Right = "export run"
# So many scores are read in one go.
ROWS = 1_000
# What no resident is numbered and no panel.
NOBODY = -1

_NUMBER = re.compile(r"0|[1-9]\d{0,17}")
_PLACE = re.compile(r"(-?\d{1,18})\.([^.]{1,200})")


def risk_books(clinic: Clinic) -> Open:
    """Return what opens the scores of the database to whoever may read them."""

    def open_book(request: Request, action: Action) -> RiskBook:
        visitor = visitor_of(request)
        _need_any_right(visitor, action)
        return _Risks(clinic, visitor)

    return open_book


def cds_books(clinic: Clinic) -> tuple["Assessing", "KeptFeedback", "KeptReplays"]:
    """Return what answers the calls of hooks, keeps what became of cards, and remembers which calls were taken."""
    return Assessing(clinic), KeptFeedback(CardFeedbacks(clinic.database, clinic.key)), KeptReplays(clinic)


def _told(work: Callable[P, R]) -> Callable[P, R]:
    """Say of a database that is away that it is."""

    @wraps(work)
    def telling(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return work(*arguments, **named)
        except AwayError:
            raise away() from None

    return telling


@_told
def _need_any_right(visitor: Visitor, action: Action) -> None:
    """Refuse who may read nothing of the kind, and write it down; each resident is asked for when found."""
    caller = visitor.caller
    own = frozenset(caller.panels or {NOBODY})
    allowed = may(caller, EXPORT) if action == "export" else may(caller, SEE, Resident(NOBODY, own))
    # A doctor without a panel has nobody to see, which is no offence.
    if not allowed and not (caller.role == "doctor" and caller.via == "session" and action != "export"):
        named = EXPORT if action == "export" else SEE
        told = entry_of(caller, named, utc_now(), None, allowed=False, address=visitor.address, why="FHIR")
        visitor.clinic.audit.write(told)
        raise forbidden(RefusedError(named))


@dataclass(frozen=True)
class _Risks:
    """The scores of the database that one caller may see: see :class:`serving.api.fhir.RiskBook`."""

    clinic: Clinic
    visitor: Visitor

    @_told
    def read(self, name: str) -> Assessment | Gone | None:
        """Return a score by its id; None where there never was one that this caller may know of."""
        number = _id(name)
        if number is None:
            return None
        with self.clinic.database.reading() as connection:
            found = risks.page(connection, (*risks.scored(), scores.c.id == number, *self._own()), None, 1)
            subject = risks.whose(connection, number) if not found else None
            replaced = not found and subject is None and self._sees_all and risks.was_there(connection, number)
        if subject is not None or found:
            if not self._admitted([subject if subject is not None else found[0].subject_id]):
                return None
            return self._assessments(found)[0] if found else Gone()
        return Gone() if replaced else None

    @_told
    def search(self, query: RiskQuery, count: int, after: str | None) -> RiskPage:
        """Return a page of the live scores, by resident and target."""
        place = _place(after)
        subjects = None if query.patients is None else sorted(map(int, filter(_NUMBER.fullmatch, query.patients)))
        if subjects is not None and not subjects:
            return RiskPage((), None, 0)
        if subjects is not None and not self._admitted(subjects):
            raise forbidden(RefusedError(SEE))
        conditions = (*risks.scored(), *self._own(), *_matching(query, subjects))
        with self.clinic.database.reading() as connection:
            found = risks.page(connection, conditions, place, count + 1) if count else []
            # To count the county at every page would cost more than the page.
            counted = subjects is not None or not count
            total = risks.count(connection, conditions) if counted else None
        shown = found[:count]
        if shown and subjects is None and not self._admitted({row.subject_id for row in shown}):
            raise forbidden(RefusedError(SEE))
        following = _written(shown[-1].place) if len(found) > count and shown else None
        return RiskPage(tuple(self._assessments(shown)), following, total)

    def export(self, run: int | None) -> Iterator[Assessment]:
        """Yield all scores of a complete run, of the last one where None."""
        number = self._run(run)
        place: Place | None = None
        while found := self._part(number, place):
            yield from self._assessments(found)
            place = found[-1].place

    @_told
    def _run(self, asked: int | None) -> int:
        """Return the number of a run that can be told to its end, and write down that it is."""
        with self.clinic.database.reading() as connection:
            found = risks.complete_run(connection, asked)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such run that is complete.")
        if found.number != found.last:
            gone = f"Run {found.number} has been replaced by run {found.last}: scores are kept while they are the last."
            raise ProblemError(HTTPStatus.GONE, gone)
        try:
            self.visitor.admit(EXPORT, (), None, f"FHIR, run {found.number}")
        except RefusedError as refused:
            raise forbidden(refused) from None
        return found.number

    @_told
    def _part(self, run: int, after: Place | None) -> list[KeptScore]:
        """Return the next scores of a run; who reads slowly is told where a later one has replaced some of them."""
        with self.clinic.database.reading() as connection:
            found = risks.page(connection, risks.scored(run=run), after, ROWS)
            if not risks.is_whole(connection, run):
                raise unavailable(f"Run {run} has been replaced while it was told. Ask for the last one.")
        return found

    @property
    def _sees_all(self) -> bool:
        return may(self.visitor.caller, SEE, Resident(NOBODY))

    def _own(self) -> tuple[sql.ColumnElement[bool], ...]:
        """Return the condition that a resident is one of the caller's."""
        return () if self._sees_all else (risks.of_panels(self.visitor.caller.panels, utc_now()),)

    def _admitted(self, subjects: Iterable[int]) -> bool:
        """Write down who is looked at; whether the caller may."""
        try:
            self.visitor.admit(SEE, sorted(set(subjects)), None, "FHIR")
        except RefusedError:
            return False
        return True

    def _assessments(self, found: Sequence[KeptScore]) -> list[Assessment]:
        due = self._due({row.subject_id for row in found})
        live, vocabulary = self.clinic.live, self.clinic.champions.engine.vocabulary
        return [
            Assessment(
                str(row.id),
                str(row.subject_id),
                score_of(row, vocabulary),
                live.target(row.target),
                due.get(row.subject_id, ()),
            )
            for row in found
        ]

    @_told
    def _due(self, subjects: Iterable[int]) -> dict[int, tuple[DueNow, ...]]:
        today = day_of(utc_now(), self.clinic.settings.timezone)
        with self.clinic.database.reading() as connection:
            kept = risks.duties_of(connection, subjects)
        return {subject: due_now(duties, today) for subject, duties in kept.items()}


def _matching(query: RiskQuery, subjects: Sequence[int] | None) -> Iterator[sql.ColumnElement[bool]]:
    """Yield the conditions of a search."""
    if subjects is not None:
        yield residents.c.subject_id.in_(subjects)
    for window in query.dates:
        yield from _within(window)
    if query.methods is not None:
        yield sql.or_(*(_of_model(*method) for method in sorted(query.methods, key=repr)))


def _within(window: DateWindow) -> Iterator[sql.ColumnElement[bool]]:
    if window.at_least is not None:
        yield scores.c.index_time >= window.at_least
    if window.before is not None:
        yield scores.c.index_time < window.before


def _of_model(target: str, version: str | None) -> sql.ColumnElement[bool]:
    same = scores.c.target == target
    return same if version is None else sql.and_(same, scores.c.model_version == version)


def _id(name: str) -> int | None:
    number = int(name) if re.fullmatch(r"\d{1,19}", name) else 2**63
    return number if number < 2**63 else None


def _place(after: str | None) -> Place | None:
    match = None if after is None else _PLACE.fullmatch(after)
    if after is not None and match is None:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The parameter _after is not what a page gave.")
    return None if match is None else (int(match[1]), match[2])


def _written(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


@dataclass(frozen=True)
class Assessing:
    """Says of whom a system tells what models and rules say: see :class:`serving.api.cds_hooks.Assessor`.

    Who is known here by an identifier is assessed by our records and what is told together; others by what is told.
    """

    clinic: Clinic

    @_told
    def __call__(self, told: Told, now: datetime) -> Answered:
        """Return scores and duties at a UTC time."""
        live, subject = self.clinic.live, self._found(told)
        if subject is None:
            assessed = live.of(told.events, now)
            return Answered(assessed.scores, assessed.targets, assessed.duties)
        seen = Entry(at=now, action=SEE, name=told.issuer, role="system", via="token", whose=subject, why="CDS Hooks")
        self.clinic.audit.write(seen)
        opted_out = live.known([subject])[subject].opted_out
        assessed = live.of(_together(live, subject, told), now, subject, opted_out=opted_out)
        page = f"{self.clinic.settings.public_url}/residents/{subject}"
        return Answered(assessed.scores, assessed.targets, assessed.duties, page)

    def _found(self, told: Told) -> int | None:
        """Return the resident that is meant; None where identifiers are of nobody here, or of several."""
        numbers = {int(value) for system, value in told.identifiers if system == RESIDENT and _NUMBER.fullmatch(value)}
        known = set(self.clinic.live.known(numbers))
        for system, value in told.identifiers:
            if system in IDENTITY_NUMBERS and (found := self.clinic.people.find(value)):
                known.add(found.subject_id)
        return known.pop() if len(known) == 1 else None


def _together(live: Live, subject: int, told: Told) -> pl.DataFrame:
    """Return our records of a resident and what is told beside them; of birth and sex, ours are believed."""
    ours = live.history(subject)
    believed = [code for code in (BIRTH, FEMALE) if code in ours["code"]]
    theirs = told.events.filter(~pl.col("code").is_in(believed)).with_columns(subject_id=pl.lit(subject, pl.Int64))
    return by_resident([subject], ours, theirs)[subject]


@dataclass(frozen=True)
class KeptFeedback:
    """Keeps what became of cards: see :class:`serving.api.cds_hooks.FeedbackBook`."""

    kept: CardFeedbacks

    @_told
    def add(self, issuer: str, service: str, feedback: Sequence[Feedback]) -> None:
        """Keep all of it or, if anything fails, none."""
        self.kept.add([_card_feedback(issuer, service, each) for each in feedback], utc_now())


def _card_feedback(issuer: str, service: str, told: Feedback) -> CardFeedback:
    override = told.overrideReason
    reason = override.reason if override else None
    return CardFeedback(
        issuer=issuer,
        service=service,
        card=told.card,
        outcome=told.outcome,
        outcome_at=told.outcomeTimestamp.astimezone(UTC).replace(tzinfo=None),
        accepted=tuple(each.id for each in told.acceptedSuggestions),
        reason_system=reason.system if reason else None,
        reason_code=reason.code if reason else None,
        reason_display=reason.display if reason else None,
        comment=override.userComment if override else None,
    )


@dataclass(frozen=True)
class KeptReplays:
    """Remembers in the database which calls were taken: see :class:`serving.api.cds_hooks.ReplayBook`."""

    clinic: Clinic

    @_told
    def first_use(self, issuer: str, jti: str, expires: float) -> bool:
        """Remember a token until it expires (seconds since 1970), and say whether it is used for the first time."""
        ends = datetime.fromtimestamp(expires, UTC).replace(tzinfo=None)
        return Replays(self.clinic.database).is_first(issuer, jti, ends, utc_now())
