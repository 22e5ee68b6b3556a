"""What the service says of a resident: scores, and what is due."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache

from pydantic import AwareDatetime, BaseModel, Field

from features.times import zone as zone_of
from serving.api.assessments import Due
from serving.api.scores import NotAtRiskSaid, ScoreSaid
from serving.live import Assessed
from serving.scoring import NotAtRisk, Score
from serving.store.alerts import Alert


class DutySaid(BaseModel):
    """What the service rules say is due."""

    kind: str
    due: date
    overdue: bool
    urgent: bool
    reason_en: str
    reason_zh: str
    rule: str
    citation: str


class AlertSaid(BaseModel):
    """A duty that is due at once."""

    id: int
    resident: int
    kind: str
    rule: str
    reason_en: str
    reason_zh: str
    citation: str
    raised_at: AwareDatetime
    acknowledged_at: AwareDatetime | None


class RiskSaid(BaseModel):
    """The risks of a resident, and what is due."""

    id: int
    index_time: AwareDatetime | None = Field(description="The moment from which is predicted; null: never scored.")
    scores: list[ScoreSaid]
    not_at_risk: list[NotAtRiskSaid]
    duties: list[DutySaid]


def score_said(score: Score, horizon: str, zone: str) -> dict[str, object]:
    """Say a score, ready for JSON."""
    return {
        "target": score.target,
        "horizon": horizon,
        "probability": score.probability,
        "lower": score.lower,
        "upper": score.upper,
        "tier": score.tier,
        "percentile": score.percentile,
        "drivers": [
            {**driver._asdict(), "date": None if driver.date is None else local(driver.date, zone)}
            for driver in score.drivers
        ],
        "other": score.other,
        "base": score.base,
        "completeness": score.completeness,
        "model_version": score.model_version,
        "synthetic": score.synthetic,
    }


def answers_said(
    answers: Iterable[Score | NotAtRisk], horizons: Mapping[str, str], zone: str
) -> dict[str, list[dict[str, object]]]:
    """Say for every target how high the risk is, or why there is none."""
    listed = list(answers)
    scores = [score_said(each, horizons[each.target], zone) for each in listed if isinstance(each, Score)]
    others: list[dict[str, object]] = [
        {"target": each.target, "reason": each.reason} for each in listed if isinstance(each, NotAtRisk)
    ]
    return {"scores": scores, "not_at_risk": others}


def risk_said(assessed: Assessed, zone: str) -> RiskSaid:
    """Say the risks of a resident, and what is due."""
    horizons = {name: target.horizon for name, target in assessed.targets.items()}
    told = answers_said(assessed.answers, horizons, zone)
    when = None if assessed.at is None else local(assessed.at, zone)
    return RiskSaid.model_validate(
        {"id": assessed.subject_id, "index_time": when, **told, "duties": duties_said(assessed.duties)}, strict=False
    )


def duties_said(duties: Iterable[Due]) -> list[dict[str, object]]:
    """Say what is due, ready for JSON."""
    told = tuple(name for name in DutySaid.model_fields if name != "due")
    return [{name: getattr(duty, name) for name in told} | {"due": duty.due.isoformat()} for duty in duties]


def alert_said(alert: Alert, zone: str) -> dict[str, object]:
    """Say an alert, ready for JSON."""
    seen = alert.acknowledged_at
    told = {name: getattr(alert, name) for name in ("id", "kind", "rule", "reason_en", "reason_zh", "citation")}
    times = {"raised_at": local(alert.raised_at, zone), "acknowledged_at": None if seen is None else local(seen, zone)}
    return {**told, "resident": alert.subject_id, **times}


@lru_cache(maxsize=65_536)
def local(moment: datetime, zone: str) -> str:
    """Return a UTC moment as ISO 8601 in a zone."""
    return moment.replace(tzinfo=UTC).astimezone(zone_of(zone)).isoformat()
