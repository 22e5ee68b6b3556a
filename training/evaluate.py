"""A model on records that it was not trained on: as it is, and after its risks were fitted to the place."""

from dataclasses import dataclass

import numpy as np

from features.cohort import Target
from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore
from training.calibrate import Recalibration, recalibrate
from training.fit import cross_calibrated, person_folds
from training.model import RiskModel
from training.sample import sample_of
from training.train import fingerprint, rows_with
from training.validate import Validation, validate


@dataclass(frozen=True)
class Evaluation:
    """How a model does in another place.

    Attributes
    ----------
    target : who was at risk, and what counted
    raw : its risks as it gives them
    recalibrated : after a line on the log-odds scale, fitted on the other residents of the place, or why there is none
    line : that line on all of them, which would be used there; None where there is none
    same_records : whether these are the very rows that the model was trained on, which flatters it
    """

    target: Target
    raw: Validation
    recalibrated: Validation | str
    line: Recalibration | None
    same_records: bool

    def text(self) -> str:
        """Return the figures as a table, raw beside recalibrated."""
        after = {} if isinstance(self.recalibrated, str) else self.recalibrated.metrics
        counts = f"rows {self.raw.n:,}, residents {self.raw.residents:,}, outcomes {self.raw.events:,}"
        lines = [*(f"outcome: {line}" for line in self.target.definition), counts]
        if self.same_records:
            lines.append("These are the records that the model was trained on: the figures flatter it.")
        if isinstance(self.recalibrated, str):
            lines.append(f"not recalibrated: {self.recalibrated}")
        lines.append(f"{'':24}{'as it is':26}{'recalibrated here' if after else ''}".rstrip())
        lines += [
            f"{name:24}{figure!s:26}{after.get(name, '')!s}".rstrip() for name, figure in self.raw.metrics.items()
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Return the figures by name, as JSON holds them."""
        after = self.recalibrated if isinstance(self.recalibrated, str) else self.recalibrated.as_dict()
        line = None if self.line is None else {"intercept": self.line.intercept, "slope": self.line.slope}
        return {
            "outcome_definition": self.target.definition,
            "raw": self.raw.as_dict(),
            "recalibrated": after,
            "line": line,
            "same_records": self.same_records,
        }


def evaluate(
    store: EventStore, model: RiskModel, engine: Engine, target: Target | None = None, *, seed: int = 0
) -> Evaluation:
    """Measure a model's risks on the cohort of a store.

    The line of a resident is fitted on the residents of four of five folds, that of the resident not among them.

    Parameters
    ----------
    target
        Who is at risk and what counts; by default, as the model was trained.

    Raises
    ------
    WeibingError
        If nobody is at risk, or the profiles lack a feature of the model.
    """
    target = target or model.card.target
    sample = sample_of(store, target, engine)
    matrix = model.matrix(sample.profiles)
    log_odds = model.logit(matrix)
    risk = model.probability(matrix)
    outcome, weight, person = sample.outcome, sample.weight, sample.person
    fold = person_folds(person, np.where(weight > 0, outcome, 0), seed)
    recalibrated: Validation | str
    try:
        line = recalibrate(log_odds, outcome, weight)
        recalibrated = validate(outcome, cross_calibrated(log_odds, outcome, weight, fold), weight, person, seed=seed)
    except WeibingError as error:
        line, recalibrated = None, str(error)
    same = fingerprint(rows_with(sample, model.card.features)) == model.card.fingerprint
    return Evaluation(target, validate(outcome, risk, weight, person, seed=seed), recalibrated, line, same)
