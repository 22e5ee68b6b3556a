"""``GET /v1/lists``: a panel's list, whose risk is high or rising and for whom something is due; and panels, alerts."""

from datetime import date
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from features.errors import WeibingError
from serving.api.bodies import PLAIN
from serving.api.clinic import Clinic
from serving.api.door import admit, utc_now, visitor_of
from serving.api.openapi import refusals
from serving.api.problems import Fault, ProblemError, unprocessable
from serving.api.said import AlertSaid, alert_said
from serving.api.scores import local
from serving.security.caller import Caller
from serving.store.alerts import Alerts
from serving.store.lists import Listed, ListQuery, Sort, page
from training.model import Completeness, Tier

MOST_ROWS = 500
# What any database keeps as a number.
MOST_NUMBER = 2**63 - 1

Number = Annotated[int, Path(ge=1, le=MOST_NUMBER)]


class ListAsked(BaseModel):
    """Which rows of a list, in which order."""

    model_config = ConfigDict(extra="forbid")

    target: Annotated[str, Field(max_length=100, pattern=PLAIN, description="Whose risk of what.", examples=["fall"])]
    panel: Annotated[int | None, Field(ge=1, le=MOST_NUMBER, description="Absent: the only one of one's own.")] = None
    tier: Annotated[list[Tier], Field(description="Only these; give it again for more.")] = []
    due_by: Annotated[date | None, Field(description="Only those for whom something is due until then.")] = None
    sort: Annotated[Sort, Field(description="By what; change is the risk's since the score before.")] = "risk"
    descending: bool = True
    after: Annotated[str | None, Field(max_length=500, description="Where the page before ended.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 50

    def of(self, panel: int) -> ListQuery:
        """Return the query of a panel."""
        chosen = (self.due_by, self.sort, self.descending, self.after, self.limit)
        return ListQuery(panel, self.target, self.tier, *chosen)


class ReasonSaid(BaseModel):
    """The contributions of one concept, summed, as of the last run."""

    concept: str
    label_en: str
    label_zh: str
    contribution: float
    change: Annotated[float | None, Field(description="How much it has moved since the score before.")]
    value: float | None
    unit: str
    date: AwareDatetime | None


class ListedSaid(BaseModel):
    """A resident of a list, with the score of its target."""

    id: int
    name: Annotated[str | None, Field(description="Only for those who may see identities.")]
    township: str | None
    sex: str | None
    birth_year: int | None
    probability: float
    lower: float
    upper: float
    tier: Tier
    percentile: float | None
    previous: float | None
    completeness: Completeness
    synthetic: bool
    model_version: str
    index_time: AwareDatetime
    scored_at: AwareDatetime
    due: Annotated[date | None, Field(description="The earliest day on which something is due.")]
    urgent: Annotated[bool, Field(description="Whether something is to be done at once.")]
    drivers: list[ReasonSaid]


class ListSaid(BaseModel):
    """A page of a panel's list."""

    panel: int
    target: str
    residents: list[ListedSaid]
    after: Annotated[str | None, Field(description="Where the next page begins; null after the last.")]


class PanelSaid(BaseModel):
    """The residents under contract with one doctor."""

    id: int
    name: str


def lists_router(clinic: Clinic) -> APIRouter:
    """Return the routes of what a doctor works through."""
    router = APIRouter(tags=["lists"])
    zone = clinic.settings.timezone

    @router.get("/v1/lists", summary="A panel's list", responses=refusals(401, 403, 422, 503))
    async def listed(
        request: Request,
        asked: Annotated[ListAsked, Query()],
    ) -> ListSaid:
        """Return a page of the residents under contract now, whose risk is known and who have not opted out."""
        caller = visitor_of(request).caller
        chosen = _only(caller) if asked.panel is None else asked.panel
        await admit(request, "see list", panel=chosen, why=f"list of {asked.target}")
        query = asked.of(chosen)
        return await run_in_threadpool(_page, clinic, caller, query)

    @router.get("/v1/panels", summary="One's own panels", responses=refusals(401, 503))
    async def panels(request: Request) -> list[PanelSaid]:
        """Return the panels of which the caller is the doctor."""
        caller = visitor_of(request).caller
        found = await run_in_threadpool(clinic.panels.of_doctor, caller.user_id)
        return [PanelSaid(id=each.id, name=each.name) for each in found if each.id in caller.panels]

    @router.get("/v1/alerts", summary="What is to be done at once", responses=refusals(401, 403, 422, 503))
    async def alerts(
        request: Request, panel: Annotated[int | None, Query(ge=1, le=MOST_NUMBER)] = None
    ) -> list[AlertSaid]:
        """Return the alerts of a panel that nobody has acknowledged, the latest first."""
        chosen = _only(visitor_of(request).caller) if panel is None else panel
        await admit(request, "see list", panel=chosen, why="alerts")
        found = await run_in_threadpool(Alerts(clinic.database).open, chosen, utc_now())
        return [AlertSaid.model_validate(alert_said(each, zone)) for each in found]

    @router.post(
        "/v1/alerts/{number}/acknowledge",
        summary="Say that one has seen an alert",
        status_code=HTTPStatus.NO_CONTENT,
        responses=refusals(401, 403, 404, 409, 422, 503),
    )
    async def acknowledge(request: Request, number: Number) -> None:
        """Note who has seen an alert: it is not shown any more."""
        book = Alerts(clinic.database)
        whose = await run_in_threadpool(book.whose, number)
        # One who may see some residents only cannot tell a number that there is not from one that is another's.
        caller = await admit(request, "acknowledge alert", residents=[-1 if whose is None else whose])
        if not await run_in_threadpool(book.acknowledge, number, caller.user_id, utc_now()):
            raise ProblemError(HTTPStatus.CONFLICT, "Somebody has acknowledged this alert before.")

    return router


def _page(clinic: Clinic, caller: Caller, query: ListQuery) -> ListSaid:
    try:
        found = page(clinic.database, query, utc_now())
    except WeibingError as error:
        if query.after is None:
            raise
        raise unprocessable(Fault(("after",), str(error).rstrip("."))) from None
    names = _names(clinic, caller, [row.subject_id for row in found.rows])
    rows = [_row(clinic, row, names.get(row.subject_id)) for row in found.rows]
    return ListSaid(panel=query.panel_id, target=query.target, residents=rows, after=found.after)


def _names(clinic: Clinic, caller: Caller, residents: list[int]) -> dict[int, str]:
    """Return what residents are called, to who may know: the doctor of the panel, or a system that has the scope."""
    if caller.role == "doctor" or "see-identity" in caller.scopes:
        return {subject: who.name for subject, who in clinic.people.identities(residents).items()}
    return {}


def _row(clinic: Clinic, row: Listed, name: str | None) -> ListedSaid:
    zone, concepts = clinic.settings.timezone, clinic.champions.engine.vocabulary.concepts
    told = {field: getattr(row, field) for field in ListedSaid.model_fields if hasattr(row, field)}
    drivers = [
        ReasonSaid(
            concept=each.concept,
            label_en=concepts[each.concept].label_en if each.concept in concepts else each.concept,
            label_zh=concepts[each.concept].label_zh if each.concept in concepts else each.concept,
            contribution=each.contribution,
            change=each.change,
            value=each.value,
            unit=each.unit,
            date=None if each.date is None else local(each.date, zone),
        )
        for each in row.drivers
    ]
    times = {"index_time": local(row.index_time, zone), "scored_at": local(row.scored_at, zone)}
    return ListedSaid.model_validate({**told, **times, "id": row.subject_id, "name": name, "drivers": drivers})


def _only(caller: Caller) -> int:
    """Return the only panel of a caller."""
    if len(caller.panels) != 1:
        number = "more than one panel" if caller.panels else "no panel"
        raise unprocessable(Fault(("panel",), f"you have {number}: say which"))
    return next(iter(caller.panels))
