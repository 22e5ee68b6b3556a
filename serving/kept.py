"""What the database keeps of scores and duties, as everybody else in the house says them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import cast

from features.times import zone
from features.vocabulary import Vocabulary, builtin
from serving.drivers import Driver
from serving.scoring import Score
from serving.store.duties import KeptDuty
from serving.store.lists import Driver as KeptDriver
from serving.store.risks import KeptScore
from training.model import Completeness, Tier


@dataclass(frozen=True)
class DueNow:
    """A duty as it was last computed, and whether its day has passed since: see `serving.api.assessments.Due`."""

    kind: str
    rule: str
    due: date
    since: date
    overdue: bool
    urgent: bool
    reason_en: str
    reason_zh: str
    citation: str


def due_now(kept: Iterable[KeptDuty], today: date) -> tuple[DueNow, ...]:
    """Return duties as of a day of the county."""
    return tuple(DueNow(overdue=duty.due < today, **vars(duty)) for duty in kept)


def day_of(now: datetime, timezone: str) -> date:
    """Return the county's day of a moment (UTC)."""
    return now.replace(tzinfo=UTC).astimezone(zone(timezone)).date()


def score_of(kept: KeptScore, vocabulary: Vocabulary | None = None) -> Score:
    """Return a score that the database keeps, which has a probability."""
    concepts = vocabulary or builtin()
    return Score(
        subject_id=kept.subject_id,
        target=kept.target,
        index_time=kept.index_time,
        probability=cast(float, kept.probability),
        lower=kept.lower,
        upper=kept.upper,
        tier=cast(Tier, kept.tier),
        percentile=kept.percentile,
        drivers=tuple(_driver(driver, concepts) for driver in kept.drivers),
        other=kept.other,
        base=kept.base,
        completeness=cast(Completeness, kept.completeness),
        model_version=kept.model_version,
        scored_at=kept.scored_at,
        synthetic=kept.synthetic,
    )


def _driver(kept: KeptDriver, vocabulary: Vocabulary) -> Driver:
    told = (kept.contribution, kept.value, kept.unit, kept.date)
    concept = vocabulary.concepts.get(kept.concept)
    if concept is None:
        # Of a vocabulary before this one: its name is all that is known.
        return Driver(kept.concept, kept.concept, kept.concept, *told, modifiable=False)
    return Driver(concept.name, concept.label_en, concept.label_zh, *told, concept.modifiable)
