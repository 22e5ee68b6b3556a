"""The health interfaces on their own, with what they read in memory: as an application, and what it answers from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from fastapi import FastAPI

from serving.api.assessments import Answered
from serving.api.cds_hooks import Feedback, MemoryReplays, Told, cds_hooks_router, read_clients
from serving.drivers import Driver
from serving.scoring import Score
from serving.settings import Settings
from training.targets import TARGETS


@dataclass(frozen=True)
class Duty:
    kind: str
    due: date
    overdue: bool
    urgent: bool
    reason_en: str
    reason_zh: str
    rule: str
    citation: str = "National Basic Public Health Service Specification, 3rd ed. (2017)"


REFERRAL = Duty(
    "referral",
    date(2025, 1, 1),
    False,
    True,
    "blood pressure 186/112 mm[Hg]: refer",
    "血压 186/112：转诊",
    "2.3-emergency",
)
CHECK = Duty("bp_check", date(2024, 12, 1), True, False, "blood pressure check", "测血压", "2.3-six-monthly")

SBP = Driver("sbp", "systolic blood pressure", "收缩压", 0.8, 152.0, "mm[Hg]", datetime(2024, 4, 30, 16), True)
AGE = Driver("age", "age", "年龄", 0.3, 71.0, "a", None, False)
FEMALE = Driver("female", "female sex", "女性", -0.1, 1.0, "", None, False)


def score_of(target: str = "hypertension", **other: object) -> Score:
    """Return a score of which any part may be told."""
    told = {
        "subject_id": 7,
        "target": target,
        "index_time": datetime(2024, 12, 31, 16),
        "probability": 0.31,
        "lower": 0.28,
        "upper": 0.35,
        "tier": "very high",
        "percentile": 88.4,
        "drivers": (SBP, AGE, FEMALE),
        "other": 0.05,
        "base": -1.2,
        "completeness": "moderate",
        "model_version": "3",
        "scored_at": datetime(2025, 1, 1, 1, 2, 3),
        "synthetic": False,
    }
    return Score(**{**told, **other})


def assess(told: Told, now: datetime) -> Answered:
    """Return a score that names the pressure that was told, so that a test sees what was read."""
    told_sbp = told.events.filter(code="LOINC//8480-6")["numeric_value"].to_list()
    pressure = [SBP._replace(value=value) for value in told_sbp[-1:]]
    scores = (
        score_of(drivers=(*pressure, AGE), index_time=now, scored_at=now),
        score_of("fall", tier="low", probability=0.02),
    )
    return Answered(scores, TARGETS, (REFERRAL, CHECK), "https://weibing.example.cn/residents/7")


@dataclass
class Book:
    kept: list[tuple[str, str, Sequence[Feedback]]] = field(default_factory=list)

    def add(self, issuer: str, service: str, feedback: Sequence[Feedback]) -> None:
        self.kept.append((issuer, service, feedback))


def application(settings: Settings, book: Book) -> FastAPI:
    """Return the CDS Hooks services alone."""
    app = FastAPI(openapi_url=None)
    assert isinstance(settings.cds_clients, Path)
    app.include_router(cds_hooks_router(read_clients(settings.cds_clients), assess, book, MemoryReplays(), settings))
    return app


def served() -> FastAPI:
    """Return the same, of the settings in the environment."""
    return application(Settings.from_environment(), Book())
