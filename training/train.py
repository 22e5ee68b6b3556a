"""One training run: from a store and a target to a model and the evidence for it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from features.cohort import Cohort, Target, cohort
from features.engine import Engine, profile_store
from features.errors import WeibingError
from features.events import EventStore
from training.calibrate import expit, recalibrate
from training.censoring import CensoringWeights, censoring_weights
from training.comparators.logistic import out_of_fold_margins
from training.fit import Grown, Rows, grow, margins, usable_features
from training.model import Card, RiskModel, background_of
from training.validate import Estimate, Validation, paired_difference, validate

# The share of index times that trees may learn from when they are measured on later ones.
EARLIER = 0.75


@dataclass(frozen=True)
class Evidence:
    """What a training run shows for its model, all of it on people that the trees had not seen.

    Attributes
    ----------
    cohort : who was at risk, and who was left out
    censoring : what was known of the outcome, and how it was weighed
    rows : the training rows
    dropped : the features that were left out, and why
    grown : the trees and their out-of-fold risks
    validation : performance of the out-of-fold risks
    logistic : performance of a logistic regression on the same rows and folds
    gain : AUROC of the trees minus that of the regression
    temporal : performance after a date of trees grown before it, or why that cannot be had
    """

    cohort: Cohort
    censoring: CensoringWeights
    rows: Rows
    dropped: dict[str, str]
    grown: Grown
    validation: Validation
    logistic: Validation
    gain: Estimate
    temporal: Validation | str


@dataclass(frozen=True)
class Trained:
    """A model and the evidence for it."""

    model: RiskModel
    evidence: Evidence


def train(
    store: EventStore,
    target: Target,
    engine: Engine | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a model of a target on a store, and measure it.

    Raises
    ------
    WeibingError
        If the records hold too few outcomes.
    """
    engine = engine or Engine.of_store(store)
    progress(f"{target.name}: finding who is at risk")
    with store.held() as still:
        found = cohort(still, target, engine.vocabulary)
        if not len(found.rows):
            raise WeibingError(f"Nobody in {store.place} is at risk for the target {target.name}: {_reasons(found)}.")
        progress(f"{target.name}: filling {len(found.rows):,} profiles")
        profiles = profile_store(still, found.rows, engine)
    weights = follow_up_weights(found.rows, target)
    rows, dropped = _rows(profiles, weights, target, engine)
    progress(f"{target.name}: growing trees on {len(rows.outcome):,} rows, {int(rows.outcome.sum()):,} outcomes")
    grown = grow(rows, target, engine, seed=seed)
    progress(f"{target.name}: validating")
    if store.description.get("relative_times"):
        temporal: Validation | str = "These records have no calendar dates."
    else:
        temporal = temporal_validation(found, profiles, engine, seed)
    return Trained(
        _model(rows, grown, target, engine, store),
        _evidence(found, weights, rows, dropped, grown, temporal, seed),
    )


def temporal_validation(found: Cohort, profiles: pl.DataFrame, engine: Engine, seed: int) -> Validation | str:
    """Grow trees on earlier index times, and measure them on the last quarter.

    Trees learn only from index times whose outcome windows end before that quarter begins.

    Returns
    -------
    The validation, or a sentence that says why it cannot be had.
    """
    target = found.target
    times = found.rows["index_time"]
    split = temporal_split(times, target)
    if split is None:
        return f"The index times span less than a horizon of {target.horizon}: none is left to learn from."
    before, after = times <= split - timedelta(days=target.horizon_days), times >= split
    try:
        rows, _ = _rows(profiles.filter(before), follow_up_weights(found.rows.filter(before), target), target, engine)
        grown = grow(rows, target, engine, seed=seed)
    except WeibingError as error:
        return f"Before {split:%Y-%m-%d}: {error}"
    line = recalibrate(grown.margin, rows.outcome, rows.weight)
    later = found.rows.filter(after)
    weights = follow_up_weights(later, target)
    risk = line.probability(margins(grown.booster, profiles.filter(after).select(rows.features).to_numpy()))
    return validate(weights.outcome, risk, weights.weight, later["subject_id"].to_numpy(), seed=seed)


def temporal_split(index_times: pl.Series, target: Target) -> datetime | None:
    """Return when the last quarter of index times begins, or None where no outcome window ends before that."""
    in_order = index_times.sort()
    split: datetime = in_order[int(len(in_order) * EARLIER)]
    first_window_ends = in_order[0] + timedelta(days=target.horizon_days)
    return split if first_window_ends <= split else None


def follow_up_weights(rows: pl.DataFrame, target: Target) -> CensoringWeights:
    """Weigh a cohort's rows so that those whose outcome is known stand for all."""
    time, observed, died = (rows[name].to_numpy() for name in ("time", "observed", "died"))
    return censoring_weights(time, observed, died, target.horizon_days)


def _rows(
    profiles: pl.DataFrame, weights: CensoringWeights, target: Target, engine: Engine
) -> tuple[Rows, dict[str, str]]:
    """Return the rows whose outcome is known with the features that can teach something, and those that cannot."""
    known = weights.weight > 0
    names = engine.profile.names
    matrix = profiles.select(names).filter(pl.Series(known)).to_numpy()
    features, dropped = usable_features(names, matrix, target, engine)
    kept = np.ascontiguousarray(matrix[:, [name in features for name in names]])
    person = profiles["subject_id"].to_numpy()[known]
    return Rows(features, kept, weights.outcome[known], weights.weight[known], person), dropped


def _model(rows: Rows, grown: Grown, target: Target, engine: Engine, store: EventStore) -> RiskModel:
    card = Card(
        target=target,
        features=rows.features,
        concepts=tuple(engine.profile[name].concept for name in rows.features),
        recalibration=recalibrate(grown.margin, rows.outcome, rows.weight),
        profile_version=engine.profile.version,
        vocabulary_version=engine.vocabulary.version,
        fingerprint=fingerprint(rows),
        synthetic=bool(store.description.get("synthetic", False)),
    )
    folds = tuple(fold.model_to_string() for fold in grown.folds)
    return RiskModel(card, grown.booster.model_to_string(), folds, background_of(rows.features, rows.matrix))


def _evidence(
    found: Cohort,
    weights: CensoringWeights,
    rows: Rows,
    dropped: dict[str, str],
    grown: Grown,
    temporal: Validation | str,
    seed: int,
) -> Evidence:
    rival = out_of_fold_margins(rows.matrix.astype(np.float64), rows.outcome, rows.weight, grown.fold)
    return Evidence(
        cohort=found,
        censoring=weights,
        rows=rows,
        dropped=dropped,
        grown=grown,
        validation=validate(rows.outcome, grown.risk, rows.weight, rows.person, seed=seed),
        logistic=validate(rows.outcome, expit(rival), rows.weight, rows.person, seed=seed),
        gain=paired_difference(rows.outcome, grown.risk, rival, rows.weight, rows.person, seed=seed),
        temporal=temporal,
    )


def fingerprint(rows: Rows) -> str:
    """Return a fingerprint of training rows: the same features, values, outcomes and weights give the same."""
    digest = hashlib.sha256("\n".join(rows.features).encode())
    for part in (rows.matrix, rows.outcome, rows.weight, rows.person):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _reasons(found: Cohort) -> str:
    return "; ".join(f"{reason} {number:,}" for reason, number in found.flow.items())
