"""One training run: from a store and a target to a model and the evidence for it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.cohort import Cohort, Target
from features.engine import KEYS, Engine, profile_store
from features.errors import WeibingError
from features.events import EventStore
from training.calibrate import recalibrate
from training.censoring import CensoringWeights
from training.clusters import Clusters, leave_one_out
from training.distributed import elsewhere_on
from training.fit import CANDIDATES, Elsewhere, Grown, Rows, grow, usable_features
from training.leaks import DAYS_DROPPED, Alarm, alarms
from training.model import Card, RiskModel, background_of
from training.rivals import MODEL, Rival, rivals, thresholds_of
from training.sample import Sample, sample_of
from training.sampling import LearningCurve, learning_curve
from training.standing import NOTHING_KNOWN, Standing
from training.subgroups import Subgroup, subgroups
from training.validate import (
    DecisionCurve,
    Estimate,
    SmoothCalibration,
    TimeDependentAuc,
    Validation,
    decision_curve,
    smooth_calibration,
    time_dependent_auc,
    validate,
)

Floats = NDArray[np.float64]

if TYPE_CHECKING:
    from training.tuning import Tuned

# The share of index times that trees may learn from when they are measured on later ones.
EARLIER = 0.75
# Of the horizon, where AUROC over time is measured.
MOMENTS = (0.25, 0.5, 0.75, 1.0)
# A rival that can be computed for fewer of the rows is not drawn beside the model: it would be about other residents.
NEARLY_ALL = 0.99


@dataclass(frozen=True)
class Options:
    """How a training run is made, where it is not as usual.

    Attributes
    ----------
    seed : of everything that is drawn
    tune : how many trials Optuna makes in search of better settings; 0 for none
    studies : the folder that keeps the trials, so that a killed search goes on
    cluster : the address of a Dask scheduler that grows the trees; None for here
    memory_bytes : what training may use; None for what there is
    """

    seed: int = 0
    tune: int = 0
    studies: Path | None = None
    cluster: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Evidence:
    """What a training run shows for its model, all of it on people that the fit had not seen.

    Attributes
    ----------
    sample : the rows of the cohort, with which everything else is aligned
    rows : the same as trees see them
    dropped : the features that were left out, and why
    grown : the fit and its out-of-fold risks
    validation : performance of the out-of-fold risks
    calibration : their smooth calibration curve
    decision : their net benefit, and that of the rivals that can be computed for nearly everybody
    over_time : how well they rank by the days of follow-up
    rivals : a logistic regression and the published scores on the same rows
    temporal : performance after a date of a model fitted before it, or why that cannot be had
    clusters : performance in each township of a model fitted on the others, or why that cannot be had
    subgroups : performance in groups of residents
    alarms : signs that the model knows what it could not know
    learning : what fewer residents to learn from cost
    tuned : the search for settings, where there was one
    """

    sample: Sample
    rows: Rows
    dropped: dict[str, str]
    grown: Grown
    validation: Validation
    calibration: SmoothCalibration
    decision: DecisionCurve
    over_time: TimeDependentAuc
    rivals: tuple[Rival, ...]
    temporal: Validation | str
    clusters: Clusters | str
    subgroups: tuple[Subgroup, ...]
    alarms: tuple[Alarm, ...]
    learning: LearningCurve | None
    tuned: "Tuned | None" = None

    @property
    def cohort(self) -> Cohort:
        """Who was at risk, and who was left out."""
        return self.sample.cohort

    @property
    def censoring(self) -> CensoringWeights:
        """What was known of the outcome, and how it was weighed."""
        return self.sample.weights

    @property
    def logistic(self) -> Validation:
        """Performance of the logistic regression on the same rows and folds."""
        found = self.rivals[0].recalibrated
        if found is None:
            raise ValueError("the logistic regression can always be computed")
        return found

    @property
    def gain(self) -> Estimate:
        """AUROC of the model minus that of the regression."""
        found = self.rivals[0].difference
        if found is None:
            raise ValueError("the logistic regression can always be computed")
        return found


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
    options: Options = Options(),
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a model of a target on a store, and measure it.

    Raises
    ------
    WeibingError
        If the records hold too few outcomes, or the cluster cannot be used.
    """
    engine = engine or Engine.of_store(store)
    with store.held() as still:
        return _Run(still, target, engine, options, lambda said: progress(f"{target.name}: {said}")).trained()


@dataclass(frozen=True)
class _Run:
    """One training run on a moment of a store."""

    store: EventStore
    target: Target
    engine: Engine
    options: Options
    say: Callable[[str], None]

    def trained(self) -> Trained:
        sample = sample_of(
            self.store,
            self.target,
            self.engine,
            memory_bytes=self.options.memory_bytes,
            seed=self.options.seed,
            progress=self.say,
        )
        rows, dropped = rows_of(sample, self.engine)
        tuned = self._tuned(rows) if self.options.tune else None
        self.say(f"growing trees on {int(rows.known.sum()):,} rows, {rows.events:,} outcomes")
        grown = grow(
            rows,
            self.target,
            self.engine,
            seed=self.options.seed,
            candidates=CANDIDATES if tuned is None else tuned.candidates,
            elsewhere=self._elsewhere(sample, rows),
        )
        model = _model(rows, grown, sample, self.engine, self.store)
        return Trained(model, self._evidence(sample, rows, dropped, grown, tuned))

    def _tuned(self, rows: Rows) -> "Tuned":
        # Optuna takes a second to import.
        from training.tuning import tune  # noqa: PLC0415

        trials, studies = self.options.tune, self.options.studies
        if studies is None:
            raise ValueError("a search for settings needs a folder for its trials")
        self.say(f"searching for settings, {trials} trials")
        seed = self.options.seed
        return tune(rows, self.target, self.engine, trials, storage=studies, seed=seed, progress=self.say)

    def _elsewhere(self, sample: Sample, rows: Rows) -> Elsewhere | None:
        if self.options.cluster is None:
            return None
        return elsewhere_on(
            self.options.cluster,
            self.store,
            sample.everybody,
            rows.person,
            rows.features,
            self.engine,
            seed=self.options.seed,
            progress=self.say,
        )

    def _evidence(
        self, sample: Sample, rows: Rows, dropped: dict[str, str], grown: Grown, tuned: "Tuned | None"
    ) -> Evidence:
        seed, risk = grown.seed, grown.risk
        self.say("measuring the model and its rivals")
        found = rivals(sample, rows, grown, seed=seed)
        validation = validate(rows.outcome, risk, rows.weight, rows.person, rank=grown.margin, seed=seed)
        self.say("measuring it on later index times, and in one township after the other")
        temporal, clusters = self._temporal(sample, grown), leave_one_out(sample, rows, grown, self.engine, seed=seed)
        self.say("measuring it in subgroups, and looking for leaks")
        return Evidence(
            sample=sample,
            rows=rows,
            dropped=dropped,
            grown=grown,
            validation=validation,
            calibration=smooth_calibration(rows.outcome, risk, rows.weight, rows.person, seed=seed),
            decision=_decision(sample, risk, found, seed),
            over_time=_over_time(sample, grown),
            rivals=found,
            temporal=temporal,
            clusters=clusters,
            subgroups=subgroups(sample, risk, seed=seed),
            alarms=alarms(sample, rows, grown, self._earlier(sample), self.store, self.engine),
            learning=learning_curve(rows, grown, self.target, self.engine, share=sample.share, seed=seed),
            tuned=tuned,
        )

    def _temporal(self, sample: Sample, grown: Grown) -> Validation | str:
        if self.store.description.get("relative_times"):
            return "These records have no calendar dates."
        return temporal_validation(sample, grown, self.engine)

    def _earlier(self, sample: Sample) -> pl.DataFrame:
        """Fill the profiles as of some days before each index time."""
        before = sample.cohort.rows.select(KEYS).with_columns(pl.col("index_time") - pl.duration(days=DAYS_DROPPED))
        return profile_store(self.store, before, self.engine)


def temporal_validation(sample: Sample, grown: Grown, engine: Engine) -> Validation | str:
    """Fit on earlier index times with the settings chosen for all, and measure on the last quarter.

    The fit learns only from index times whose outcome windows end before that quarter begins. Its risks are
    recalibrated out of fold on those.

    Returns
    -------
    The validation, or a sentence that says why it cannot be had.
    """
    target = sample.target
    times = sample.cohort.rows["index_time"]
    split = temporal_split(times, target)
    if split is None:
        return f"The index times span less than a horizon of {target.horizon}: none is left to learn from."
    before, after = times <= split - timedelta(days=target.horizon_days), times >= split
    try:
        rows, _ = rows_of(sample.take(before), engine)
        earlier = grow(rows, target, engine, seed=grown.seed, candidates=(grown.recipe.trees,))
    except WeibingError as error:
        return f"Before {split:%Y-%m-%d}: {error}"
    line = recalibrate(earlier.margin, rows.outcome, rows.weight)
    later = sample.take(after)
    risk = line.probability(earlier.whole.margin(later.profiles.select(rows.features).to_numpy()))
    return validate(later.outcome, risk, later.weight, later.person, seed=grown.seed)


def temporal_split(index_times: pl.Series, target: Target) -> datetime | None:
    """Return when the last quarter of index times begins, or None where no outcome window ends before that."""
    in_order = index_times.sort()
    split: datetime = in_order[int(len(in_order) * EARLIER)]
    first_window_ends = in_order[0] + timedelta(days=target.horizon_days)
    return split if first_window_ends <= split else None


def rows_of(sample: Sample, engine: Engine) -> tuple[Rows, dict[str, str]]:
    """Return the rows of a sample with the features that can teach something, and why each other one is left out."""
    names = engine.profile.names
    matrix = sample.profiles.filter(pl.Series(sample.weight > 0)).select(names).to_numpy()
    features, dropped = usable_features(names, matrix, sample.target, engine)
    return rows_with(sample, features), dropped


def rows_with(sample: Sample, features: tuple[str, ...]) -> Rows:
    """Return the rows of a sample with some of their features."""
    matrix = np.ascontiguousarray(sample.profiles.select(features).to_numpy(), np.float32)
    return Rows(features, matrix, sample.outcome, sample.weight, sample.person)


def _model(rows: Rows, grown: Grown, sample: Sample, engine: Engine, store: EventStore) -> RiskModel:
    card = Card(
        target=sample.target,
        features=rows.features,
        concepts=tuple(engine.profile[name].concept for name in rows.features),
        recalibration=recalibrate(grown.margin, rows.outcome, rows.weight),
        profile_version=engine.profile.version,
        vocabulary_version=engine.vocabulary.version,
        fingerprint=fingerprint(rows),
        synthetic=bool(store.description.get("synthetic", False)),
        recipe=grown.recipe,
        timezone=store.timezone,
    )
    background = background_of(rows.features, rows.matrix[rows.known])
    return RiskModel(card, grown.whole, grown.folds, background, _standing(sample, grown))


def _standing(sample: Sample, grown: Grown) -> Standing:
    """Return how the risks, out of fold, are spread among those of the same age and sex."""
    if not {"age", "female"} <= set(sample.profiles.columns):
        return NOTHING_KNOWN
    age, female = (sample.profiles[name].to_numpy() for name in ("age", "female"))
    return Standing.of(age, female, grown.risk)


def _decision(sample: Sample, risk: Floats, found: tuple[Rival, ...], seed: int) -> DecisionCurve:
    """Draw net benefit against the threshold, of the model and of rivals that are about the same residents."""
    beside = {rival.name: rival.risk for rival in found if rival.computable >= NEARLY_ALL}
    computed = np.all([np.isfinite(each) for each in (risk, *beside.values())], axis=0)
    return decision_curve(
        sample.outcome,
        {MODEL: risk, **{name: np.where(computed, each, 0.0) for name, each in beside.items()}},
        np.where(computed, sample.weight, 0.0),
        sample.person,
        thresholds_of(sample.target),
        seed=seed,
    )


def _over_time(sample: Sample, grown: Grown) -> TimeDependentAuc:
    days = np.array(MOMENTS) * sample.target.horizon_days
    return time_dependent_auc(
        sample.time, sample.observed, sample.died, grown.risk, sample.person, days, seed=grown.seed
    )


def fingerprint(rows: Rows) -> str:
    """Return a fingerprint of training rows: the same features, values, outcomes and weights give the same."""
    digest = hashlib.sha256("\n".join(rows.features).encode())
    for part in (rows.matrix, rows.outcome, rows.weight, rows.person):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
