"""What is said of one resident and target: a score, or why there is none."""

from dataclasses import dataclass
from datetime import datetime

from serving.drivers import Driver
from serving.questions import Subject
from training.model import Completeness, Tier


@dataclass(frozen=True, slots=True)
class Score:
    """The risk of one resident for one target at one index time, and why.

    ``logit(probability)`` is `base` plus the contributions of the `drivers` plus `other`, within 1e-9.

    Attributes
    ----------
    index_time, scored_at : UTC
    probability, lower, upper : the calibrated risk, and the range that the fold models give it
    percentile : which share of people of the same age and sex have a lower risk, 0 to 100; None where age or sex is
        unknown
    drivers : the greatest contribution first
    other : the sum of the contributions of the concepts that are not among the `drivers`
    base : the log-odds before anything is known of a resident
    synthetic : whether the model was trained on simulated records
    """

    subject_id: Subject
    target: str
    index_time: datetime
    probability: float
    lower: float
    upper: float
    tier: Tier
    percentile: float | None
    drivers: tuple[Driver, ...]
    other: float
    base: float
    completeness: Completeness
    model_version: str
    scored_at: datetime
    synthetic: bool


@dataclass(frozen=True, slots=True)
class NotAtRisk:
    """Why a resident has no score for a target."""

    subject_id: Subject
    target: str
    index_time: datetime
    reason: str
