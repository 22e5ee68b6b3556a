"""Settings of trees searched for with Optuna, by the log-loss on residents that they did not learn from.

The search begins with the settings that serve where nobody searches, so it ends with none that are worse. It is kept in
a database as it goes: killed and started again it goes on where it was, and ends where an undisturbed one ends.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import optuna
import polars as pl
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL

from features.cohort import Target
from features.engine import Engine
from features.errors import WeibingError
from training.fit import (
    CANDIDATES,
    FOLDS,
    Rows,
    Trees,
    fixed_parameters,
    person_folds,
    require_outcomes,
)
from training.growing import MOST_TREES, PATIENCE, quieten, still_falling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Contributions of trees with so many leaves are a table look-up.
FEW_LEAVES = 8
SPACE: dict[str, BaseDistribution] = {
    "num_leaves": IntDistribution(2, 32, log=True),
    "learning_rate": FloatDistribution(0.02, 0.1, log=True),
    "min_data_in_leaf": IntDistribution(5, 200, log=True),
    "lambda_l2": FloatDistribution(0.1, 100.0, log=True),
    "feature_fraction": FloatDistribution(0.1, 1.0),
    "bagging_fraction": FloatDistribution(0.5, 1.0),
    "path_smooth": FloatDistribution(0.0, 50.0),
    "extra_trees": CategoricalDistribution((False, True)),
}
# A trial is compared with others where the sums of their learning rates agree: slow learners get more trees. It may
# be given up from the second comparison on, once five have been tried.
LEARNT_BETWEEN = 0.5
COMPARISONS_BEFORE = 2
TRIALS_BEFORE = 5
DATABASE = "tuning.db"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes
    ----------
    trees : the settings with the least log-loss
    candidates : these, and the settings with the least log-loss where a fold is left out
        For :func:`training.fit.grow`, so that a row's own fold does not choose among them what predicts it.
    trials : a row a trial, in order: its settings, `state`, `rounds`, `log_loss` (null where it was given up)
    needed_more_leaves : whether more than eight leaves a tree were better beyond chance
    said : what was found, in a sentence or two
    """

    trees: Trees
    candidates: tuple[Trees, ...]
    trials: pl.DataFrame
    needed_more_leaves: bool
    said: str


def tune(
    rows: Rows,
    target: Target,
    engine: Engine,
    trials: int,
    *,
    storage: Path,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Search for the settings of a target's trees.

    A trial's log-loss is the mean over the person folds of :func:`training.fit.grow`, after the number of trees at
    which that mean is least. Trials that lag behind half of the others are given up early. Eight leaves are the most,
    unless more are better by more than one standard error of the difference over the folds.

    Parameters
    ----------
    trials : how many in all, with those of an earlier search on the same rows with the same seed
    storage : the folder that keeps the searches, in a SQLite database; made where there is none

    Raises
    ------
    WeibingError
        If there are too few outcomes to learn from, or another process searches in the same folder.

    References
    ----------
    Akiba et al., Proc KDD 2019:2623-2631. Breiman et al., Classification and Regression Trees (1984), section 3.4.3
    (one standard error).
    """
    require_outcomes(rows, target)
    fixed = fixed_parameters(rows.features, target, engine, seed)
    folds = _Folds.of(rows, fixed, seed)
    with _only_search(storage):
        study = _study(storage, f"{target.name} {_digest(rows, fixed)}")
        while (number := len(_ended(study))) < trials:
            progress(f"trial {number + 1} of {trials}: {_tried(study, folds, seed, number)}")
        return _tuned(_ended(study)[:trials])


@dataclass(frozen=True)
class _Folds:
    """The rows in LightGBM's bins, made once for all trials: those outside each fold, and those in it."""

    taught: list[lgb.Dataset]
    held_out: list[lgb.Dataset]
    fixed: dict[str, object]

    @classmethod
    def of(cls, rows: Rows, fixed: dict[str, object], seed: int) -> "_Folds":
        fold = person_folds(rows.person, np.where(rows.known, rows.outcome, 0), seed)[rows.known]
        known = rows.take(rows.known)
        fixed = {**fixed, "num_threads": 1, "metric": "binary_logloss"}
        data = lgb.Dataset(
            known.matrix, known.outcome, weight=known.weight, feature_name=list(rows.features), params=fixed
        ).construct()
        places = [(np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()) for k in range(FOLDS)]
        return cls([data.subset(rest) for rest, _ in places], [data.subset(test) for _, test in places], fixed)

    def boosters(self, trees: Trees) -> list[lgb.Booster]:
        """Return what grows trees outside each fold, none grown yet."""
        grown = [lgb.Booster({**self.fixed, **asdict(trees)}, taught) for taught in self.taught]
        for booster, held_out in zip(grown, self.held_out, strict=True):
            booster.add_valid(held_out, "held out")
        return grown


@contextmanager
def _only_search(storage: Path) -> Iterator[None]:
    """Refuse a second search in the same folder: it would take the trial under way for one that was killed.

    Raises
    ------
    WeibingError
        If there is one.
    """
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeibingError(
                f"Another search writes to {storage}. Wait until it ends, or train in another folder with --mlruns."
            ) from error
        yield


def _study(storage: Path, name: str) -> optuna.Study:
    """Open a search, with those trials that were killed set aside."""
    optuna.logging.disable_default_handler()
    database = URL.create("sqlite", database=str(storage / DATABASE)).render_as_string()
    pruner = optuna.pruners.MedianPruner(TRIALS_BEFORE, COMPARISONS_BEFORE)
    study = optuna.create_study(storage=database, pruner=pruner, study_name=name, load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _digest(rows: Rows, fixed: dict[str, object]) -> str:
    """Return a fingerprint of all that a trial's log-loss depends on, but for its settings."""
    said = [rows.features, fixed, FOLDS, MOST_TREES, PATIENCE, *map(asdict, CANDIDATES), lgb.__version__]
    digest = hashlib.sha256(json.dumps([*said, [f"{name} {of}" for name, of in SPACE.items()]]).encode())
    for part in (rows.matrix, rows.outcome, rows.weight, rows.person):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return sorted(study.get_trials(deepcopy=False, states=ENDED), key=lambda trial: trial.number)


def _tried(study: optuna.Study, folds: _Folds, seed: int, number: int) -> str:
    """Make a trial; return what came of it, in words."""
    # A stream a trial, so that what comes after a kill is what would have come without it.
    stream = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=stream)
    if number < len(CANDIDATES) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(asdict(CANDIDATES[number]))
    trial = study.ask(SPACE)
    try:
        losses = _losses(trial, folds)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return "given up, it lags behind"
    rounds = int(losses.mean(axis=1).argmin()) + 1
    trial.set_user_attr("rounds", rounds)
    trial.set_user_attr("folds", losses[rounds - 1].tolist())
    study.tell(trial, float(losses[rounds - 1].mean()))
    return f"log-loss {losses[rounds - 1].mean():.5f} after {rounds} trees of {trial.params['num_leaves']} leaves"


def _losses(trial: Trial, folds: _Folds) -> Floats:
    """Grow trees outside each fold, side by side, until their mean log-loss has long stopped falling.

    Returns
    -------
    shape (trees, folds), the log-loss on each fold after each tree

    Raises
    ------
    optuna.TrialPruned
        If it lags behind half of the trials so far.
    """
    boosters, rate = folds.boosters(Trees(**trial.params)), trial.params["learning_rate"]
    losses: list[list[float]] = []
    with ThreadPoolExecutor(os.cpu_count(), initializer=quieten) as pool:
        while not losses or still_falling(np.mean(losses, axis=1)):
            losses.append(list(pool.map(_one_tree_more, boosters)))
            compared, before = (int(trees * rate / LEARNT_BETWEEN) for trees in (len(losses), len(losses) - 1))
            if compared > before:
                trial.report(float(np.mean(losses, axis=1).min()), compared)
                if trial.should_prune():
                    raise optuna.TrialPruned
    return np.array(losses)


def _one_tree_more(booster: lgb.Booster) -> float:
    booster.update()
    return float(booster.eval_valid()[0][2])


def _tuned(ended: list[FrozenTrial]) -> Tuned:
    """Judge the trials that came to an end."""
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    few = [trial for trial in complete if trial.params["num_leaves"] <= FEW_LEAVES]
    best, best_of_few = _best(complete), _best(few)
    gain = _of_folds(best_of_few) - _of_folds(best)
    error = float(gain.std(ddof=1) / np.sqrt(FOLDS))
    more = bool(gain.mean() > error)
    allowed, chosen = (complete, best) if more else (few, best_of_few)
    left_out = [_best(allowed, [k for k in range(FOLDS) if k != fold]) for fold in range(FOLDS)]
    return Tuned(
        trees=_trees(chosen),
        candidates=tuple(dict.fromkeys(map(_trees, (chosen, *left_out)))),
        trials=_table(ended),
        needed_more_leaves=more,
        said=f"{_counted(ended, chosen)} {_leaves(best, float(gain.mean()), error)}",
    )


def _best(trials: list[FrozenTrial], folds: list[int] | None = None) -> FrozenTrial:
    """Return the trial with the least log-loss on some folds, or all; the first of equals."""
    return min(trials, key=lambda trial: float(_of_folds(trial)[folds if folds is not None else slice(None)].mean()))


def _of_folds(trial: FrozenTrial) -> Floats:
    return np.array(trial.user_attrs["folds"], np.float64)


def _trees(trial: FrozenTrial) -> Trees:
    return Trees(**trial.params)


def _table(ended: list[FrozenTrial]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "trial": number,
            "state": "complete" if trial.state == TrialState.COMPLETE else "given up",
            **trial.params,
            "rounds": trial.user_attrs.get("rounds"),
            "log_loss": trial.value if trial.state == TrialState.COMPLETE else None,
        }
        for number, trial in enumerate(ended, start=1)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _counted(ended: list[FrozenTrial], chosen: FrozenTrial) -> str:
    given_up = sum(trial.state == TrialState.PRUNED for trial in ended)
    rounds, leaves = chosen.user_attrs["rounds"], chosen.params["num_leaves"]
    default, least = (_of_folds(trial).mean() for trial in (ended[0], chosen))
    return (
        f"Of {len(ended)} trials, {given_up} were given up. The best grows {rounds} trees of {leaves} leaves: log-loss"
        f" {least:.5f}, against {default:.5f} with the default settings."
    )


def _leaves(best: FrozenTrial, gain: float, error: float) -> str:
    leaves = best.params["num_leaves"]
    if leaves <= FEW_LEAVES:
        return "No trial with more than eight leaves was better."
    by = f"by {gain:.5f} (standard error over the folds {error:.5f})"
    if gain > error:
        return (
            f"It is better than the best with eight leaves or fewer {by}: more are needed, and explaining takes longer."
        )
    return f"One with {leaves} leaves was better {by}, which is too little to give up eight."
