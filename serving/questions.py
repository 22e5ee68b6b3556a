"""What is asked of one model: who is at risk by its target's rule, which risk, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cohort import Condition, at_risk_conditions, at_risk_rule
from features.errors import WeibingError
from features.measures import Feature, ever
from features.vocabulary import Concept
from serving.drivers import Floats, Ints, Latest, Singles
from training.model import RiskModel

Subject = int | str

UNDER_OBSERVATION = (
    Condition("died before the index time", ("death_ever",), below=1),
    Condition("moved away before the index time", ("observation_end_ever",), below=1),
)
NOT_YET_BORN = "not yet born at the index time"

# The features of the rules stand beside those of the models, under names that cannot meet theirs.
RULE = "rule: "


def rule_features(models: Iterable[RiskModel]) -> list[Feature]:
    """Return the features that the at-risk rules of models ask, under names of their own."""
    rules = {ever(concept) for concept in ("death", "observation_end")}
    rules.update(*(at_risk_rule(model.card.target).features for model in models))
    return [replace(rule, name=RULE + rule.name) for rule in sorted(rules, key=lambda rule: rule.name)]


class Rows(NamedTuple):
    """What is asked of the models, a row a resident: `filled`, shape (rows, features), NaN where unknown."""

    subject: Sequence[Subject]
    index_time: Sequence[datetime]
    filled: Singles
    latest: Latest
    born_later: NDArray[np.bool_]


class Assessed(NamedTuple):
    """What a model says of the rows at risk: `contributions` and `latest` of shape (at risk, concepts)."""

    probability: Floats
    lower: Floats
    upper: Floats
    contributions: Floats
    known_gain: Floats
    latest: Latest


class Rule(NamedTuple):
    """An at-risk rule on the rows: features in ``[at_least, below)``, and the reason of who is outside.

    `columns`, where the features lie, and the bounds are of shape (conditions,), in the order in which they are asked.
    """

    reasons: tuple[str, ...]
    columns: Ints
    at_least: Singles
    below: Singles

    @classmethod
    def of(cls, conditions: Iterable[Condition], place: Mapping[str, int]) -> "Rule":
        """Lay conditions out, given where each feature lies."""
        flat = [(each, RULE + name) for each in conditions for name in each.features]
        return cls(
            tuple(each.reason for each, _ in flat),
            np.array([place[name] for _, name in flat], np.int64),
            np.array([each.at_least for each, _ in flat], np.float32),
            np.array([each.below for each, _ in flat], np.float32),
        )

    def first_broken(self, filled: Singles) -> list[str | None]:
        """Return the reason of the first condition that each row breaks, or None; what is unknown breaks none."""
        asked = filled[:, self.columns]
        outside = (asked < self.at_least) | (asked >= self.below)
        broken = np.where(outside.any(axis=1), outside.argmax(axis=1), len(self.reasons)).tolist()
        told = (*self.reasons, None)
        return [told[number] for number in broken]


@dataclass(frozen=True)
class Question:
    """One model, and where its features and concepts and its target's at-risk rule lie in the rows.

    Attributes
    ----------
    columns : shape (features,)
        Where the model's features lie.
    concepts, places : what the model's features are of, and where they lie in :class:`Latest`
    order, starts
        What brings the features of a concept together, and where in it each concept begins.
    """

    model: RiskModel
    columns: Ints
    concepts: tuple[Concept, ...]
    places: Ints
    order: Ints
    starts: Ints
    rule: Rule

    @classmethod
    def of(cls, model: RiskModel, names: Sequence[str], concepts: Sequence[Concept]) -> "Question":
        """Find out where everything lies, given the features of the rows and the concepts, which are in order.

        Raises
        ------
        WeibingError
            If the model needs a feature that is not there.
        """
        place = {name: number for number, name in enumerate(names)}
        missing = [name for name in model.card.features if name not in place]
        if missing:
            raise WeibingError(
                f"The model of {model.card.target.name} needs features that are not among those declared:"
                f" {', '.join(missing)}. Train it again: weibing train STORE {model.card.target.name}"
            )
        own, number = np.unique(model.card.concepts, return_inverse=True)
        order = np.argsort(number, kind="stable")
        places = np.searchsorted([concept.name for concept in concepts], own)
        return cls(
            model=model,
            columns=np.array([place[name] for name in model.card.features], np.int64),
            concepts=tuple(concepts[at] for at in places.tolist()),
            places=places,
            order=order,
            starts=np.searchsorted(number[order], np.arange(len(own))),
            rule=Rule.of((*UNDER_OBSERVATION, *at_risk_conditions(model.card.target)), place),
        )

    @property
    def target(self) -> str:
        """The name of the target."""
        return self.model.card.target.name

    def reasons(self, rows: Rows) -> list[str | None]:
        """Return why each row is not at risk, or None where it is."""
        found = self.rule.first_broken(rows.filled)
        for row in np.flatnonzero(rows.born_later).tolist():
            found[row] = NOT_YET_BORN
        return found

    def assess(self, rows: Rows, at_risk: Ints) -> Assessed:
        """Ask the model of the rows at risk."""
        matrix = rows.filled[at_risk][:, self.columns].astype(np.float64)
        lower, upper = self.model.range(matrix)
        return Assessed(
            probability=self.model.probability(matrix),
            lower=lower,
            upper=upper,
            contributions=np.add.reduceat(self.model.contributions(matrix)[:, self.order], self.starts, axis=1),
            known_gain=self.model.known_gain(matrix),
            latest=rows.latest.of(at_risk, self.places),
        )
