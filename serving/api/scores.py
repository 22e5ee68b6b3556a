"""``POST /v1/score``: events in, scores and drivers out; nothing is kept."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache, partial
from typing import Annotated, ParamSpec, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

from features.times import microseconds
from features.times import zone as zone_of
from features.translation import Book
from serving.api.calls import Call, Resident, read_call
from serving.api.champions import Champions
from serving.api.metrics import count
from serving.api.problems import Fault, ProblemError, unavailable, unprocessable
from serving.api.records import Reader, Record, UnusedValue, columns_of
from serving.api.sift import warm
from serving.drivers import EPOCH, Driver
from serving.scoring import NotAtRisk, Score, Scorer
from serving.settings import Settings
from training.model import Completeness, Tier
from training.targets import TARGETS

P = ParamSpec("P")
T = TypeVar("T")

# A longer body is read beside the loop that answers the others, a shorter one at once.
SHORT_BYTES = 64 * 2**10

NOT_NUMBERS = (b"NaN", b"Infinity")


class DriverSaid(BaseModel):
    """The contributions of one concept, summed."""

    concept: str
    label_en: str
    label_zh: str
    contribution: Annotated[float, Field(description="Its share of the log-odds.")]
    value: Annotated[float | None, Field(description="The latest usable value before the index time.")]
    unit: Annotated[str, Field(description="Of the value (UCUM).")]
    date: Annotated[AwareDatetime | None, Field(description="When it was last recorded; null: never, or always true.")]
    modifiable: Annotated[bool, Field(description="Whether something can be done about it.")]


class ScoreSaid(BaseModel):
    """A calibrated absolute risk: ``logit(probability) = base + contributions of the drivers + other``."""

    model_config = ConfigDict(protected_namespaces=())

    target: str
    horizon: Annotated[str, Field(description="How far the risk looks ahead of the index time.", examples=["4y"])]
    probability: Annotated[float, Field(ge=0, le=1)]
    lower: Annotated[float, Field(ge=0, le=1, description="The lowest that the models of the folds say.")]
    upper: Annotated[float, Field(ge=0, le=1, description="The highest that the models of the folds say.")]
    tier: Tier
    percentile: Annotated[
        float | None,
        Field(description="Which share of people of the same age and sex have a lower risk, 0 to 100."),
    ]
    drivers: Annotated[list[DriverSaid], Field(description="The greatest contribution first.")]
    other: Annotated[float, Field(description="The sum of the contributions of all other concepts.")]
    base: Annotated[float, Field(description="The log-odds before anything is known of a resident.")]
    completeness: Annotated[
        Completeness, Field(description="How much of what the model looks at is known of the resident.")
    ]
    model_version: str
    synthetic: Annotated[bool, Field(description="Whether the model was trained on simulated records.")]


class NotAtRiskSaid(BaseModel):
    """Why there is no score for a target."""

    target: str
    reason: Annotated[str, Field(examples=["with hypertension"])]


class ResidentSaid(BaseModel):
    """The scores of one resident, and what was not used of the resident's events."""

    id: str | int
    index_time: AwareDatetime
    scores: list[ScoreSaid]
    not_at_risk: list[NotAtRiskSaid]
    unknown_codes: Annotated[dict[str, int], Field(description="Codes that the vocabulary does not know, how often.")]
    unused_values: list[UnusedValue]
    ignored_events: Annotated[dict[str, int], Field(description="Events that were not looked at, by reason.")]


class ScoreAnswer(BaseModel):
    """The answer: a resident for each of the call, in its order."""

    scored_at: AwareDatetime
    residents: list[ResidentSaid]


class Desk:
    """Answers calls for scores."""

    def __init__(self, champions: Champions, settings: Settings) -> None:
        self.champions = champions
        self.settings = settings
        self._reader: tuple[Scorer, Reader] | None = None
        warm()
        # One at a time: a call of many residents keeps all processors busy by itself.
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="many")

    async def answer(self, body: bytes, content_type: str) -> Response:
        """Answer a call, also where the answer is that it cannot be answered."""
        try:
            short = len(body) <= SHORT_BYTES
            call = self._read(body, content_type) if short else await self._apart(self._read, body, content_type)
            single = short and len(call.residents) == 1
            content = self._content(call) if single else await self._apart(self._content, call)
        except ProblemError as problem:
            return problem.response()
        return Response(content, media_type="application/json")

    def close(self) -> None:
        """Begin nothing more beside the loop."""
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def _apart(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._aside, partial(work, *arguments, **named))

    def _read(self, body: bytes, content_type: str) -> Call:
        return read_call(body, content_type, self.settings)

    def _content(self, call: Call) -> bytes:
        """Score what a call holds."""
        scorer, now = self.champions.scorer, datetime.now(UTC).replace(tzinfo=None)
        if scorer is None:
            raise unavailable(" ".join(self.champions.missing))
        reader = self._reader_of(scorer)
        return as_json(Asked(call, scorer, reader, now, self._targets(call, scorer), self.settings.timezone).said())

    def _reader_of(self, scorer: Scorer) -> Reader:
        """Return what reads records for the models that serve now."""
        if self._reader is None or self._reader[0] is not scorer:
            self._reader = scorer, Reader(scorer.translator, self.settings.timezone)
        return self._reader[1]

    def _targets(self, call: Call, scorer: Scorer) -> list[str]:
        """Return what to predict; refuse what nobody knows, and what is known but not served now."""
        served = list(scorer.questions)
        asked = list(dict.fromkeys(served if call.targets is None else call.targets))
        for number, target in enumerate(asked):
            if target not in served and target in (*TARGETS, *self.settings.targets):
                raise unavailable(f"No model of {target} is loaded.")
            if target not in served:
                known = f"this target is not served; those served are {', '.join(served)}"
                raise unprocessable(Fault(("targets", number), known))
        return asked


@dataclass(frozen=True)
class Asked:
    """A call, and what answers it."""

    call: Call
    scorer: Scorer
    reader: Reader
    now: datetime
    targets: Sequence[str]
    zone: str

    @cached_property
    def horizons(self) -> dict[str, str]:
        """How far each target looks ahead."""
        return {name: asked.model.card.target.horizon for name, asked in self.scorer.questions.items()}

    def said(self) -> dict[str, object]:
        """Return the answer, ready for JSON."""
        index_times = self._index_times()
        book, records = self.reader.read(self.call.residents, list(map(microseconds, index_times)))
        answers = self._answers(index_times, book, records)
        told = zip(self.call.residents, index_times, records, answers, strict=True)
        return {"scored_at": local(self.now, self.zone), "residents": [self._resident(*each) for each in told]}

    def _index_times(self) -> list[datetime]:
        return [
            self.now
            if resident.index_time is None
            else EPOCH
            + timedelta(microseconds=self.reader.time(resident.index_time, "residents", number, "index_time"))
            for number, resident in enumerate(self.call.residents)
        ]

    def _answers(self, index_times: list[datetime], book: Book, records: list[Record]) -> list[list[Score | NotAtRisk]]:
        ids, targets, most = [resident.id for resident in self.call.residents], self.targets, self.call.drivers
        if len(ids) == 1:
            [record] = records
            known = self.scorer.translator.of_pairs(book.meanings, record.pair, record.time, record.number)
            return [self.scorer.of_known(known, ids[0], index_times[0], self.now, targets=targets, most=most)]
        columns = columns_of(book, records)
        return self.scorer.of_columns(columns, ids, index_times, self.now, targets=targets, most=most)

    def _resident(
        self, resident: Resident, index_time: datetime, record: Record, answers: list[Score | NotAtRisk]
    ) -> dict[str, object]:
        """Say of one resident what the models say, and what was not used."""
        count(answers)
        return {
            "id": resident.id,
            "index_time": _remembered(index_time, self.zone),
            **answers_said(answers, self.horizons, self.zone),
            "unknown_codes": dict(record.unknown_codes),
            "unused_values": [unused.model_dump() for unused in record.unused_values],
            "ignored_events": dict(record.ignored_events),
        }


def answers_said(
    answers: Iterable[Score | NotAtRisk], horizons: Mapping[str, str], zone: str
) -> dict[str, list[dict[str, object]]]:
    """Say for every target how high the risk is, or why there is none, ready for JSON."""
    listed = list(answers)
    return {
        "scores": [_score(each, horizons[each.target], zone) for each in listed if isinstance(each, Score)],
        "not_at_risk": [
            {"target": each.target, "reason": each.reason} for each in listed if isinstance(each, NotAtRisk)
        ],
    }


def _score(score: Score, horizon: str, zone: str) -> dict[str, object]:
    return {
        "target": score.target,
        "horizon": horizon,
        "probability": score.probability,
        "lower": score.lower,
        "upper": score.upper,
        "tier": score.tier,
        "percentile": score.percentile,
        "drivers": [_driver(driver, zone) for driver in score.drivers],
        "other": score.other,
        "base": score.base,
        "completeness": score.completeness,
        "model_version": score.model_version,
        "synthetic": score.synthetic,
    }


def _driver(driver: Driver, zone: str) -> dict[str, object]:
    date = None if driver.date is None else _remembered(driver.date, zone)
    return {**driver._asdict(), "date": date}


def as_json(answer: Mapping[str, object]) -> bytes:
    """Return an answer as JSON.

    Raises
    ------
    ValueError
        If it holds a number that JSON cannot.
    """
    content = to_json(answer)
    if any(name in content for name in NOT_NUMBERS):
        # It may be a text that says so.
        json.dumps(answer, allow_nan=False)
    return content


def local(moment: datetime, zone: str) -> str:
    """Return a UTC moment as ISO 8601 in a zone."""
    return moment.replace(tzinfo=UTC).astimezone(zone_of(zone)).isoformat()


# Records are full of the same dates.
_remembered = lru_cache(maxsize=65_536)(local)
