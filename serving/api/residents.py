"""``/v1/residents``: one resident: who it is, the risks and what is due, visits, and the right to refuse scoring."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Literal, ParamSpec, TypeVar

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from features.errors import WeibingError
from serving.api.bodies import STRICT, read_body
from serving.api.clinic import Clinic
from serving.api.door import admit, utc_now
from serving.api.openapi import refusals, takes
from serving.api.problems import ProblemError
from serving.api.said import RiskSaid, risk_said
from serving.api.scores import local
from serving.api.visits import NewVisit, read_visit
from serving.store.database import AwayError
from serving.store.visits import Visit, Visits

REFUSED = refusals(401, 403, 404, 422, 503)
UNREAD = REFUSED | refusals(413, 415)

P = ParamSpec("P")
T = TypeVar("T")

# What the event store numbers residents by.
ResidentNumber = Annotated[
    int, Path(ge=-(2**63), le=2**63 - 1, description="The resident's number in the store.", examples=[7])
]


class IdentitySaid(BaseModel):
    """Who a resident is."""

    name: str
    number: str | None
    telephone: str | None
    address: str | None


class ResidentKnown(BaseModel):
    """A resident, as the database knows one."""

    id: int
    township: str | None
    sex: Literal["female", "male"] | None
    birth_year: int | None
    panel: int | None
    opted_out_at: AwareDatetime | None
    identity: Annotated[IdentitySaid | None, Field(description="Null for those who may not see it, or not known.")]


class Asked(BaseModel):
    """By what a resident is found."""

    model_config = STRICT

    number: Annotated[str, Field(min_length=1, max_length=100, description="The identity number, however written.")]


class FoundSaid(BaseModel):
    """The resident of an identity number."""

    id: int


class VisitSaid(BaseModel):
    """A recorded contact."""

    time: AwareDatetime
    kind: str
    by: Annotated[int, Field(description="The account of whoever recorded it.")]
    closes: list[str]
    note: str | None


class RecordedSaid(BaseModel):
    """A visit that is kept, and how the risks are now."""

    visit: int
    risk: Annotated[
        RiskSaid | None, Field(description="Null where no model is loaded: the visit is kept all the same.")
    ]


def residents_router(clinic: Clinic) -> APIRouter:
    """Return the routes of one resident."""
    router = APIRouter(tags=["residents"], prefix="/v1/residents")
    desk = _Desk(clinic)
    _add_looks(router, clinic, desk)
    _add_visits(router, desk)
    _add_refusals(router, clinic, desk)
    return router


def _add_looks(router: APIRouter, clinic: Clinic, desk: "_Desk") -> None:
    """Add what shows a resident."""

    @router.post("/find", summary="Find a resident by the identity number", **takes(Asked), responses=UNREAD)
    async def find(request: Request) -> FoundSaid:
        """Say which resident has an identity number, to whoever may see who that is."""
        sent = read_body(Asked, await request.body(), request.headers.get("content-type", ""))
        found = await run_in_threadpool(clinic.people.find, sent.number)
        await admit(request, "see identity", residents=[-1 if found is None else found.subject_id], why="find")
        if found is None:
            raise _nobody()
        return FoundSaid(id=found.subject_id)

    @router.get("/{resident}", summary="Who a resident is", responses=REFUSED)
    async def seen(
        request: Request,
        resident: ResidentNumber,
        identity: Annotated[bool, Query(description="Also the name.")] = False,
    ) -> ResidentKnown:
        """Say what the database knows of a resident."""
        await admit(request, "see resident", residents=[resident])
        if identity:
            await admit(request, "see identity", residents=[resident])
        return await run_in_threadpool(desk.resident, resident, identity=identity)

    @router.get("/{resident}/risk", summary="The risks of a resident, and what is due", responses=REFUSED)
    async def risk(
        request: Request,
        resident: ResidentNumber,
        at: Annotated[
            Literal["night", "now"], Query(description="As of the last run, or of all that is known by now.")
        ] = "night",
        drivers: Annotated[int, Query(ge=0, le=200, description="How many drivers a live score names.")] = 5,
    ) -> RiskSaid:
        """Say how high the risks are, why, and what is due."""
        await admit(request, "see resident", residents=[resident], why=f"risk at {at}")
        return await run_in_threadpool(desk.risk, resident, at, drivers)


def _add_visits(router: APIRouter, desk: "_Desk") -> None:
    """Add what shows and keeps visits."""

    @router.get("/{resident}/visits", summary="The visits of a resident", responses=REFUSED)
    async def visits(request: Request, resident: ResidentNumber) -> list[VisitSaid]:
        """Return recorded contacts, the latest first."""
        await admit(request, "see resident", residents=[resident], why="visits")
        return await run_in_threadpool(desk.visits, resident)

    @router.post("/{resident}/visits", summary="Record a visit", status_code=201, **takes(NewVisit), responses=UNREAD)
    async def record(request: Request, resident: ResidentNumber) -> RecordedSaid:
        """Keep a visit, what was found and what is done by it, and score the resident anew."""
        caller = await admit(request, "record visit", residents=[resident])
        sent = read_body(NewVisit, await request.body(), request.headers.get("content-type", ""))
        return await run_in_threadpool(desk.record, resident, caller.user_id, sent)


def _add_refusals(router: APIRouter, clinic: Clinic, desk: "_Desk") -> None:
    """Add what notes that a resident refuses to be scored."""

    @router.put("/{resident}/opt-out", summary="Note a refusal of scoring", status_code=204, responses=REFUSED)
    async def opt_out(request: Request, resident: ResidentNumber) -> None:
        """Note that the resident is not to be scored without a person."""
        await admit(request, "opt out", residents=[resident], why="opts out")
        await run_in_threadpool(desk.known, clinic.people.opt_out, resident, utc_now())

    @router.delete("/{resident}/opt-out", summary="Take a refusal of scoring back", status_code=204, responses=REFUSED)
    async def opt_in(request: Request, resident: ResidentNumber) -> None:
        """Note that the resident may be scored again."""
        await admit(request, "opt out", residents=[resident], why="opts in")
        await run_in_threadpool(desk.known, clinic.people.opt_in, resident)


class _Desk:
    """Answers of one resident, beside the loop."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.zone = clinic.settings.timezone

    def resident(self, subject_id: int, *, identity: bool) -> ResidentKnown:
        """Say what the database knows of a resident."""
        people = self.clinic.people
        found = people.resident(subject_id)
        if found is None:
            raise _nobody()
        who = people.identities([subject_id]).get(subject_id) if identity else None
        return ResidentKnown(
            id=subject_id,
            township=found.township,
            sex=found.sex,
            birth_year=found.birth_year,
            panel=self.clinic.panels.of(subject_id, utc_now()),
            opted_out_at=None if found.opted_out_at is None else local(found.opted_out_at, self.zone),
            identity=None if who is None else IdentitySaid(**vars(who)),
        )

    def risk(self, subject_id: int, at: Literal["night", "now"], most: int) -> RiskSaid:
        """Say how high the risks are: as of the last run, or now; of somebody."""
        live = self.clinic.live
        if self.clinic.people.resident(subject_id) is None and (at == "night" or live.history(subject_id).is_empty()):
            raise _nobody()
        if at == "now":
            return risk_said(live.assess(subject_id, utc_now(), most=most), self.zone)
        return risk_said(live.kept(subject_id, utc_now()), self.zone)

    def visits(self, subject_id: int) -> list[VisitSaid]:
        """Return recorded contacts, the latest first."""
        if self.clinic.people.resident(subject_id) is None:
            raise _nobody()
        return [
            VisitSaid.model_validate(
                {"time": local(visit.time, self.zone), "kind": visit.kind, "by": visit.user_id,
                 "closes": list(visit.closes), "note": visit.note}
            )
            for visit in Visits(self.clinic.database, self.clinic.key).of(subject_id)
        ]  # fmt: skip

    def record(self, subject_id: int, user: int, sent: NewVisit) -> RecordedSaid:
        """Keep a visit; what is due, and how high the risks are, is computed anew."""
        clinic, now = self.clinic, utc_now()
        vocabulary = clinic.champions.engine.vocabulary
        read = read_visit(sent, vocabulary, clinic.rules.book, self.zone, now)
        visit = Visit(subject_id, user, read.time, sent.kind, tuple(sent.closes), sent.note)
        number = self.known(Visits(clinic.database, clinic.key).record, visit, now, read.facts)
        try:
            risk = risk_said(clinic.live.renew(subject_id, utc_now()), self.zone)
        except ProblemError as problem:
            # The visit is kept, and so it is said.
            if problem.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            risk = None
        return RecordedSaid(visit=number, risk=risk)

    def known(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do something with a resident whom the database knows."""
        try:
            return work(*arguments, **named)
        except AwayError:
            raise
        except WeibingError:
            raise _nobody() from None


def _nobody() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "There is no such resident.")
