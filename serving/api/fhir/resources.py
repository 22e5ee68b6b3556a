"""A score as a RiskAssessment of FHIR R4.

R4 would have ``probabilityDecimal`` a percentage; here it is a probability from 0 to 1, which its rule ras-2 (at most
100) lets pass, and a note says so. ``whenRange`` would be an age: the horizon is told as ``whenPeriod``.
"""

import csv
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from features.times import length
from serving.api.assessments import Assessment
from serving.api.wording import Words

Json = dict[str, object]

KIND = "RiskAssessment"
# What codes of our own are from.
MODELS, TARGETS, TIERS = "urn:weibing:model", "urn:weibing:target", "urn:weibing:tier"
# FHIR's mark of what is of no living person.
MADE_UP: Json = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
TAGS = {"zh": "zh-CN", "en": "en"}
# A Period of FHIR holds its end, an outcome window does not.
LAST = timedelta(seconds=1)


def risk_assessment(assessment: Assessment, words: Words) -> Json:
    """Return a score as a RiskAssessment."""
    score = assessment.score
    resource: Json = {
        "resourceType": KIND,
        "id": assessment.id,
        "meta": _meta(assessment),
        "language": TAGS[words.language],
        "status": "final",
        "method": _method(assessment, words),
        "subject": {"reference": f"Patient/{assessment.patient}"},
        "occurrenceDateTime": moment(score.index_time),
        "performer": {"display": "Weibing"},
    }
    if score.drivers:
        resource["basis"] = [{"display": words.driver(driver)} for driver in score.drivers]
    resource["prediction"] = [_prediction(assessment, words)]
    if assessment.duties:
        resource["mitigation"] = words.duties(assessment.duties)
    notes = [*words.remarks(score), words.say("decimal")]
    resource["note"] = [{"text": note} for note in notes]
    return resource


def model_code(target: str, version: str) -> str:
    """Return what ``method`` calls a model: its target and its version."""
    return f"{target}@{version}"


def moment(when: datetime) -> str:
    """Return a UTC time as FHIR writes an instant."""
    return when.replace(tzinfo=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _meta(assessment: Assessment) -> Json:
    meta: Json = {"lastUpdated": moment(assessment.score.scored_at)}
    return {**meta, "tag": [MADE_UP]} if assessment.score.synthetic else meta


def _method(assessment: Assessment, words: Words) -> Json:
    score, text = assessment.score, words.model(assessment.score, assessment.target)
    coding = {"system": MODELS, "code": model_code(score.target, score.model_version), "display": text}
    return {"coding": [coding], "text": text}


def _prediction(assessment: Assessment, words: Words) -> Json:
    score = assessment.score
    until = score.index_time + timedelta(microseconds=length(assessment.target.horizon)) - LAST
    prediction: Json = {
        "outcome": {
            "coding": [*_codings(score.target), {"system": TARGETS, "code": score.target}],
            "text": words.target(assessment.target),
        },
        "probabilityDecimal": score.probability,
        "qualitativeRisk": {
            "coding": [{"system": TIERS, "code": score.tier.replace(" ", "-"), "display": words.say(score.tier)}]
        },
        "whenPeriod": {"start": moment(score.index_time), "end": moment(until)},
    }
    rationale = words.rationale(score.drivers)
    return {**prediction, "rationale": rationale} if rationale else prediction


def _codings(target: str) -> list[Mapping[str, str]]:
    return [
        {"system": row["system"], "code": row["code"], "display": row["display"]}
        for row in _outcomes()
        if row["target"] == target
    ]


@cache
def _outcomes() -> tuple[dict[str, str], ...]:
    with Path(__file__).with_name("outcomes.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
