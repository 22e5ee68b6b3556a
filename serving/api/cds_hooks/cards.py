"""Scores and duties, as cards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from serving.api.assessments import Answered, Due
from serving.api.wording import Words, shortened
from serving.scoring import Score

Json = dict[str, object]
Indicator = Literal["info", "warning", "critical"]

# The standard's bound is below 140 characters.
MOST_SUMMARY = 139
MOST_LABEL = 80
TIERS = ("low", "moderate", "high", "very high")
OVERRIDES = "urn:weibing:override-reason"
# Why a person may set a card aside.
REASONS = (
    ("done-elsewhere", "Done elsewhere", "已在别处完成"),
    ("declined", "The resident declines", "居民拒绝"),
    ("not-appropriate", "Not appropriate for this resident", "不适合该居民"),
    ("wrong-data", "The record is wrong", "记录有误"),
)


@dataclass(frozen=True)
class Shown:
    """What a service shows of a resident.

    Attributes
    ----------
    least_tier : the lowest tier of a risk that makes a card
    every_duty : all that is due, or only what cannot wait
    """

    least_tier: str
    every_duty: bool


def cards(answered: Answered, patient: str, shown: Shown, words: Words) -> list[Json]:
    """Return the cards of a resident, the most urgent first; nothing in them is null or empty."""
    duties = [duty for duty in answered.duties if shown.every_duty or duty.urgent]
    urgent, others = [each for each in duties if each.urgent], [each for each in duties if not each.urgent]
    least = TIERS.index(shown.least_tier)
    risks = [score for score in answered.scores if TIERS.index(score.tier) >= least]
    return [
        *_duty_cards(urgent, answered, patient, words),
        *(_risk_card(score, answered, words) for score in risks),
        *_duty_cards(others, answered, patient, words),
    ]


def _risk_card(score: Score, answered: Answered, words: Words) -> Json:
    target = answered.targets[score.target]
    lines = [words.rationale(score.drivers), *words.remarks(score)]
    indicator: Indicator = "warning" if TIERS.index(score.tier) >= TIERS.index("high") else "info"
    source: Json = {"label": shortened(words.model(score, target), MOST_LABEL)}
    card = _card(words.risk(score, target), lines, indicator, source)
    return {**card, **_links(answered, words)}


def _duty_cards(duties: Sequence[Due], answered: Answered, patient: str, words: Words) -> Iterable[Json]:
    """Yield a card for each document that says what is due."""
    for citation in dict.fromkeys(duty.citation for duty in duties):
        those = [duty for duty in duties if duty.citation == citation]
        urgent, overdue = those[0].urgent, any(duty.overdue for duty in those)
        name = "urgent duties" if urgent else "one duty" if len(those) == 1 else "duties"
        reasons = words.say("semicolon").join(words.reason(duty) for duty in those)
        summary = words.say(name, number=len(those), reason=reasons)
        indicator: Indicator = "critical" if urgent else "warning" if overdue else "info"
        card = _card(
            summary,
            [f"- {words.duty(duty)} [{duty.rule}]" for duty in those],
            indicator,
            {"label": citation or "Weibing"},
        )
        suggestions = [_suggestion(duty, patient, words) for duty in those]
        yield {**card, "suggestions": suggestions, "selectionBehavior": "any", **_links(answered, words)}


def _card(summary: str, lines: Iterable[str], indicator: Indicator, source: Json) -> Json:
    card: Json = {
        "uuid": str(uuid4()),
        "summary": shortened(summary, MOST_SUMMARY),
        "indicator": indicator,
        "source": source,
        "overrideReasons": [
            {"system": OVERRIDES, "code": code, "display": f"{display} / {chinese}"}
            for code, display, chinese in REASONS
        ],
    }
    detail = "\n\n".join(filter(None, lines))
    return {**card, "detail": detail} if detail else card


def _suggestion(duty: Due, patient: str, words: Words) -> Json:
    """Return a proposal to do what is due."""
    reason = words.reason(duty)
    request: Json = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "proposal",
        "priority": "urgent" if duty.urgent else "routine",
        "code": {"coding": [{"system": "urn:weibing:duty", "code": duty.kind}], "text": reason},
        "subject": {"reference": f"Patient/{patient}"},
        "occurrenceDateTime": duty.due.isoformat(),
    }
    label = shortened(words.say("plan", reason=reason), MOST_LABEL)
    action: Json = {"type": "create", "description": words.duty(duty), "resource": request}
    return {"label": label, "uuid": str(uuid4()), "actions": [action]}


def _links(answered: Answered, words: Words) -> Json:
    if not answered.page:
        return {}
    return {"links": [{"label": words.say("more"), "url": answered.page, "type": "absolute"}]}
