"""What other systems are told of a resident: scores, and what is due."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from features.cohort import Target
from serving.scoring import Score


class Due(Protocol):
    """A duty: what the service rules say is due for a resident, and why."""

    @property
    def kind(self) -> str:
        """What is due, by its name in the rules."""

    @property
    def due(self) -> date:
        """The day by which it is due."""

    @property
    def overdue(self) -> bool:
        """Whether that day has passed."""

    @property
    def urgent(self) -> bool:
        """Whether it cannot wait."""

    @property
    def reason_en(self) -> str:
        """Why it is due."""

    @property
    def reason_zh(self) -> str:
        """Why it is due, in Chinese."""

    @property
    def rule(self) -> str:
        """The rule that says so."""

    @property
    def citation(self) -> str:
        """Where the rule is published."""


@dataclass(frozen=True)
class Assessment:
    """A score as another system knows it.

    Attributes
    ----------
    id : of the resource, up to 64 letters, digits, hyphens and points; never given to another score
    patient : what the other system knows the resident by: the id of a Patient
    target : what the score is of
    duties : what is due for the resident
    """

    id: str
    patient: str
    score: Score
    target: Target
    duties: tuple[Due, ...] = ()


@dataclass(frozen=True)
class Answered:
    """What is said of one resident now.

    Attributes
    ----------
    scores : the targets for which the resident is at risk
    targets : what the scores are of, by name
    duties : what is due, urgent first
    page : where a person reads more of the resident; empty where there is no such page
    """

    scores: tuple[Score, ...]
    targets: Mapping[str, Target]
    duties: tuple[Due, ...] = ()
    page: str = ""
