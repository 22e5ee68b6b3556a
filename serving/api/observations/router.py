"""The route of Observations: who may, what is kept, what is said."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

import polars as pl
from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from features.errors import WeibingError
from features.events import SCHEMA
from features.sources.fhir.resources import Event
from features.sources.report import BIRTH
from features.vocabulary import Vocabulary
from serving.api.bodies import MOST_FAULTS
from serving.api.clinic import Clinic
from serving.api.door import admit, away, utc_now, visitor_of
from serving.api.metrics import count
from serving.api.observations.reading import Reader, Record, Sent
from serving.api.openapi import refusals
from serving.api.problems import Fault, ProblemError, too_large, unprocessable
from serving.api.records import unused
from serving.api.said import AlertSaid, DutySaid, alert_said, duties_said
from serving.api.scores import NotAtRiskSaid, ScoreSaid, answers_said, local
from serving.live import Histories, Renewed, Telling
from serving.store.database import AwayError
from serving.store.observations import IDENTIFIER
from serving.store.telling import Known, ToldOtherwiseError

# A number that no resident has.
NOBODY = -1
NO_RESIDENT = "there is no such resident"
COLUMNS = ("code", "time", "numeric_value", "text_value", "unit")
MOST_LISTED = 1_000
# Before any record.
UNBORN = datetime(1, 1, 1)

EXAMPLE = {
    "resourceType": "Observation",
    "identifier": [{"system": "https://clinic.example.cn/observations", "value": "2025-000017"}],
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
    "subject": {"reference": "Patient/7"},
    "effectiveDateTime": "2025-01-31T08:00:00+08:00",
    "valueQuantity": {"value": 186, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
}
FHIR = {"schema": {"type": "object", "required": ["resourceType"]}, "example": EXAMPLE}
BODY = {"requestBody": {"required": True, "content": {"application/fhir+json": FHIR, "application/json": FHIR}}}


class UnusedSaid(BaseModel):
    """A value that was taken, and that no model and no rule uses."""

    pointer: str
    code: str
    reason: Annotated[str, Field(examples=["sbp lies within 50 to 300 mm[Hg]"])]


class PlaceSaid(BaseModel):
    """Something about a place in what was sent."""

    pointer: Annotated[str, Field(examples=["#/entry/3/resource/valueQuantity"])]
    detail: str


class RenewedSaid(BaseModel):
    """What is said of a resident now."""

    id: int
    index_time: AwareDatetime
    scores: Annotated[list[ScoreSaid] | None, Field(description="Null where no model is loaded.")]
    no_scores: Annotated[str | None, Field(description="Why there are none, where no model is loaded.")]
    not_at_risk: list[NotAtRiskSaid]
    duties: list[DutySaid]
    alerts: Annotated[list[AlertSaid], Field(description="Those that nobody has acknowledged, the latest first.")]


class TakenSaid(BaseModel):
    """What was taken: it is kept, whatever happens now."""

    received_at: AwareDatetime
    taken: Annotated[int, Field(description="How many Observations are new.")]
    known: Annotated[int, Field(description="How many had been taken before: they count once.")]
    residents: list[RenewedSaid]
    unknown_codes: Annotated[dict[str, int], Field(description="Codes that the vocabulary does not know, how often.")]
    unused_values: list[UnusedSaid]
    left_out: Annotated[list[PlaceSaid], Field(description="Parts of Observations that are not used.")]
    refused: Annotated[list[PlaceSaid], Field(description="What of a batch was not taken.")]


def observations_router(clinic: Clinic) -> APIRouter:
    """Return the route of Observations."""
    router, desk = APIRouter(tags=["observations"]), _Desk(clinic)

    @router.post(
        "/v1/observations",
        summary="Take observations, score and alert at once",
        openapi_extra=BODY,
        response_model=TakenSaid,
        responses=refusals(401, 403, 409, 413, 415, 422, 503),
    )
    async def take(request: Request) -> Response:
        """Take an Observation of FHIR R4, or a Bundle of type transaction, batch or collection.

        The same Observation may be sent again: by its identifier it counts once. Of a transaction or collection all is
        taken or nothing; of a batch, what can be.
        """
        reader = Reader(clinic.settings, visitor_of(request).caller.name, utc_now())
        kind = request.headers.get("content-type", "")
        sent = await run_in_threadpool(reader.read, await request.body(), kind)
        whose = await run_in_threadpool(desk.whose, sent)
        await admit(request, "record observation", residents=sorted(set(whose.values())) or [NOBODY])
        content = await run_in_threadpool(desk.take, sent, whose, utc_now())
        return Response(content, media_type="application/json")

    return router


@dataclass(frozen=True)
class _Desk:
    """Takes Observations, beside the loop."""

    clinic: Clinic

    def whose(self, sent: Sent) -> dict[Record, int]:
        """Return the residents whom records are about; NOBODY for one who cannot be found."""
        asked = {it.subject.identity for it in sent.records if it.subject.identity}
        try:
            found = {number: self.clinic.people.find(number) for number in sorted(asked)}
        except AwayError:
            raise away() from None
        by_number = {number: NOBODY if it is None else it.subject_id for number, it in found.items()}
        return {
            it: by_number[it.subject.identity] if it.subject.identity else int(it.subject.number or 0)
            for it in sent.records
        }

    def take(self, sent: Sent, whose: Mapping[Record, int], now: datetime) -> bytes:
        """Keep what was sent, and say what is said now of those of whom it tells."""
        histories = self._histories(whose.values())
        records, again, faults = self._possible(sent, whose, histories)
        if faults and not (sent.each_alone and records):
            raise unprocessable(*faults[:MOST_FAULTS])
        subjects = {whose[it] for it in records}
        at = max([now, *(it.time + timedelta(microseconds=1) for it in records)])
        telling = self._told(records, whose, {of: histories[of] for of in sorted(subjects)}, now, at)
        for each in telling.renewed:
            count(each.assessed.answers)
        said = self._said(records, telling, now) | {"refused": [_placed(fault) for fault in faults]}
        said["known"] = len(telling.taken.known) + again
        return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def _histories(self, residents: Iterable[int]) -> Histories:
        subjects, most = sorted(set(residents) - {NOBODY}), self.clinic.settings.most_residents
        if len(subjects) > most:
            raise too_large(f"{len(subjects):,} residents in one call; at most {most:,}.")
        return self.clinic.live.histories(subjects)

    def _possible(
        self, sent: Sent, whose: Mapping[Record, int], histories: Histories
    ) -> tuple[list[Record], int, list[Fault]]:
        """Return the records that can be of those residents, how many came again, and what is wrong with the others."""
        known, faults = self.clinic.live.known(histories), list(sent.faults)
        born = {subject: _born(history, known.get(subject)) for subject, history in histories.items()}
        kept, again = dict[str, Record](), 0
        for record in sent.records:
            subject, same = whose[record], kept.get(record.identifier, record)
            if subject not in histories or (subject not in known and histories[subject].is_empty()):
                faults.append(Fault(record.subject.place, NO_RESIDENT))
            elif record.time < born[subject]:
                faults.append(Fault(record.time_place, "this lies before the resident's birth"))
            elif (whose[same], same.events) != (subject, record.events):
                faults.append(Fault((*record.place, "identifier"), "another entry has it, and tells something else"))
            else:
                again += record.identifier in kept
                kept[record.identifier] = same
        return list(kept.values()), again, faults

    def _told(
        self, records: Sequence[Record], whose: Mapping[Record, int], before: Histories, now: datetime, at: datetime
    ) -> Telling:
        try:
            return self.clinic.live.tell(_rows(records, whose), before, now, at)
        except ToldOtherwiseError as error:
            place = next(it.place for it in records if it.identifier == error.identifier)
            fault = Fault((*place, "identifier"), "it was taken before, and told something else")
            raise ProblemError(HTTPStatus.CONFLICT, str(error), (fault,)) from None
        except WeibingError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from None

    def _said(self, records: Sequence[Record], telling: Telling, now: datetime) -> dict[str, object]:
        vocabulary, zone = self.clinic.champions.engine.vocabulary, self.clinic.settings.timezone
        codes = Counter(it.code for of in records for it in of.events if not vocabulary.meanings(it.code, it.unit))
        left = [_placed(Fault(record.place, what)) for record in records for what in record.left_out]
        return {
            "received_at": local(now, zone),
            "taken": len(telling.taken.new),
            "residents": [_renewed(each, zone) for each in telling.renewed],
            "unknown_codes": dict(codes.most_common(MOST_LISTED)),
            "unused_values": [it for record in records for it in _unused(record, vocabulary)][:MOST_LISTED],
            "left_out": left[:MOST_LISTED],
        }


def _born(history: pl.DataFrame, known: Known | None) -> datetime:
    """Return when a resident was born, as far as that is known."""
    birth = history.filter(pl.col("code") == BIRTH)["time"].max()
    if isinstance(birth, datetime):
        return birth
    return datetime(known.birth_year, 1, 1) if known and known.birth_year else UNBORN


def _rows(records: Sequence[Record], whose: Mapping[Record, int]) -> pl.DataFrame:
    """Return what records tell, as events of the store with their identifiers."""
    told: list[tuple[Record, Event]] = [(record, event) for record in records for event in record.events]
    columns = {
        name: pl.Series(name, [event[place] for _, event in told], SCHEMA[name], strict=False)
        for place, name in enumerate(COLUMNS)
    }
    subjects = pl.Series("subject_id", [whose[record] for record, _ in told], pl.Int64)
    identifiers = pl.Series(IDENTIFIER, [record.identifier for record, _ in told], pl.String)
    return pl.DataFrame([subjects, *columns.values(), identifiers])


def _unused(record: Record, vocabulary: Vocabulary) -> list[dict[str, object]]:
    return [
        {"pointer": Fault(record.place, "").pointer, "code": event.code, "reason": reason}
        for event in record.events
        for meaning in vocabulary.meanings(event.code, event.unit)
        if (reason := unused(event.value, meaning, vocabulary))
    ]


def _renewed(renewed: Renewed, zone: str) -> dict[str, object]:
    assessed = renewed.assessed
    horizons = {name: target.horizon for name, target in assessed.targets.items()}
    answers: dict[str, object] = {**answers_said(assessed.answers, horizons, zone)}
    return {
        "id": assessed.subject_id,
        "index_time": local(assessed.at, zone) if assessed.at else None,
        **answers,
        **({"scores": None} if renewed.missing else {}),
        "no_scores": renewed.missing or None,
        "duties": duties_said(assessed.duties),
        "alerts": [alert_said(alert, zone) for alert in renewed.alerts],
    }


def _placed(fault: Fault) -> dict[str, object]:
    return {"pointer": fault.pointer, "detail": fault.detail}
