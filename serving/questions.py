"""What is asked of one model: who is at risk by its target's rule, which risk, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cohort import Condition, at_risk_conditions, at_risk_rule
from features.compiled import compiled
from features.errors import WeibingError
from features.measures import Feature, age, ever, static
from features.vocabulary import Concept
from serving.drivers import Floats, Ints, Latest, Singles
from training.model import RiskModel

Subject = int | str

UNDER_OBSERVATION = (
    Condition("died before the index time", ("death_ever",), below=1),
    Condition("moved away before the index time", ("observation_end_ever",), below=1),
)
NOT_YET_BORN = "not yet born at the index time"

# Whose standing is asked for, by age and sex.
AGE, FEMALE = age(), static("female")

# The features of the rules stand beside those of the models, under names that cannot meet theirs.
RULE = "rule: "


def rule_features(models: Iterable[RiskModel]) -> list[Feature]:
    """Return the features that the at-risk rules of models ask, under names of their own."""
    rules = {AGE, FEMALE, *(ever(concept) for concept in ("death", "observation_end"))}
    rules.update(*(at_risk_rule(model.card.target).features for model in models))
    return [replace(rule, name=RULE + rule.name) for rule in sorted(rules, key=lambda rule: rule.name)]


class Rows(NamedTuple):
    """What is asked of the models, a row a resident: `filled`, shape (features, rows), NaN where unknown."""

    subject: Sequence[Subject]
    index_time: Sequence[datetime]
    filled: Singles
    latest: Latest
    born_later: NDArray[np.bool_]


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

    def first_broken(self, filled: Singles) -> Ints:
        """Return the number of the first condition that each row breaks, shape (rows,); -1 where it breaks none.

        What is unknown breaks none.

        Parameters
        ----------
        filled : shape (features, rows)
        """
        return _first_broken(self.columns, self.at_least, self.below, filled)


@compiled
def _first_broken(columns: Ints, at_least: Singles, below: Singles, filled: Singles) -> Ints:
    found = np.full(filled.shape[1], -1)
    for condition in range(len(columns) - 1, -1, -1):
        asked = filled[columns[condition]]
        for row in range(len(found)):
            if asked[row] < at_least[condition] or asked[row] >= below[condition]:
                found[row] = condition
    return found


@dataclass(frozen=True)
class Question:
    """One model, and where its features and concepts and its target's at-risk rule lie in the rows.

    Attributes
    ----------
    columns : shape (features,)
        Where the model's features lie.
    concepts, places : what the model's features are of, and where they lie in :class:`Latest`
    age, female : where these lie
    """

    model: RiskModel
    columns: Ints
    concepts: tuple[Concept, ...]
    places: Ints
    age: int
    female: int
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
        places = np.searchsorted([concept.name for concept in concepts], list(model.concept_names))
        return cls(
            model=model,
            columns=np.array([place[name] for name in model.card.features], np.int64),
            concepts=tuple(concepts[at] for at in places.tolist()),
            places=places,
            age=place[RULE + AGE.name],
            female=place[RULE + FEMALE.name],
            rule=Rule.of((*UNDER_OBSERVATION, *at_risk_conditions(model.card.target)), place),
        )

    @property
    def target(self) -> str:
        """The name of the target."""
        return self.model.card.target.name

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why somebody may not be at risk."""
        return (*self.rule.reasons, NOT_YET_BORN)

    def broken(self, rows: Rows) -> Ints:
        """Return which of the reasons keeps each row from being at risk, shape (rows,); -1 where none does."""
        return np.where(rows.born_later, len(self.rule.reasons), self.rule.first_broken(rows.filled))

    def looked_at(self, rows: Rows, which: Ints) -> Singles:
        """Return what the model looks at of some rows, shape (features, rows)."""
        return np.ascontiguousarray(rows.filled[self.columns[:, np.newaxis], which])

    def percentile(self, rows: Rows, which: Ints, probability: Floats) -> Floats:
        """Return where risks stand among people of the same age and sex, shape (rows,); NaN where that is unknown."""
        age, female = rows.filled[self.age, which], rows.filled[self.female, which]
        return self.model.standing.percentile(age, female, probability)
