"""What the service says of a resident: scores, and what is due."""

from collections.abc import Iterable
from datetime import date

from pydantic import AwareDatetime, BaseModel, Field

from serving.api.assessments import Due
from serving.api.scores import NotAtRiskSaid, ScoreSaid, answers_said, local
from serving.live import Assessed
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
