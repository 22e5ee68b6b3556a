"""A model on records that it was not trained on."""

from features.cohort import Target, cohort
from features.engine import Engine, profile_store
from features.errors import WeibingError
from features.events import EventStore
from training.model import RiskModel
from training.train import follow_up_weights
from training.validate import Validation, validate


def evaluate(
    store: EventStore, model: RiskModel, engine: Engine, target: Target | None = None, *, seed: int = 0
) -> Validation:
    """Measure a model's risks, as it gives them, on the cohort of a store.

    On the store that it was trained on this flatters the model; the training run's own figures do not.

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
    with store.held() as still:
        found = cohort(still, target, engine.vocabulary)
        if not len(found.rows):
            raise WeibingError(f"Nobody in {store.place} is at risk for the target {target.name}.")
        profiles = profile_store(still, found.rows, engine)
    weights = follow_up_weights(found.rows, target)
    risk = model.probability(model.matrix(profiles))
    person = found.rows["subject_id"].to_numpy()
    return validate(weights.outcome, risk, weights.weight, person, seed=seed)
