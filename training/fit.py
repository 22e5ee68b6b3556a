"""LightGBM: trees under the target's constraints, how many of them and how shy settled by person-grouped folds.

Nothing about a row's own fold helps to choose what predicts it: the settings and the number of trees for a fold are
those with the least log-loss on the other folds.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from features.cohort import Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import Feature, Measure
from features.rules import moved_by
from features.vocabulary import Vocabulary
from training.calibrate import recalibrate

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

FOLDS = 5
MOST_TREES = 600
PATIENCE = 40
FEWEST_OUTCOMES = 50

# A higher value raises these, whatever else was recorded; slope and spread may move either way.
RISING = frozenset(
    {
        *(Measure.LATEST, Measure.MEAN, Measure.MIN, Measure.MAX, Measure.STATIC, Measure.AGE),
        *(Measure.SUM, Measure.PER_DAY),
    }
)
# Another occurrence raises these.
COUNTING = frozenset({Measure.COUNT, Measure.EVER, Measure.ACTIVE, Measure.DAYS, Measure.SHARE_OF_DAYS, Measure.TOTAL})
EITHER_WAY = frozenset(
    {
        *(Measure.SLOPE, Measure.STANDARD_DEVIATION, Measure.VARIATION),
        *(Measure.DAILY_VARIABILITY, Measure.NIGHT_TO_DAY),
    }
)


@dataclass(frozen=True)
class Trees:
    """How trees are grown: LightGBM's parameters by their own names."""

    num_leaves: int
    learning_rate: float
    min_data_in_leaf: int
    lambda_l2: float
    feature_fraction: float
    bagging_fraction: float
    path_smooth: float = 0.0


# Eight leaves keep exact explanation a table look-up; four, and two (an additive model), are for few outcomes.
CANDIDATES = (
    Trees(8, 0.05, 20, 5.0, 0.5, 0.7),
    Trees(4, 0.05, 20, 1.0, 0.5, 0.9, path_smooth=10.0),
    Trees(2, 0.05, 20, 1.0, 0.5, 0.9),
)
FEW_ROWS = 20_000
# With more outcomes than this the first candidate serves, and the search is spared.
MANY_OUTCOMES = 5_000


@dataclass(frozen=True)
class Rows:
    """Training rows whose outcome is known.

    `matrix`, shape (n, features), NaN where unknown; `outcome`, 0 or 1, `weight`, above 0, and `person`, shape (n,).
    """

    features: tuple[str, ...]
    matrix: Singles
    outcome: Floats
    weight: Floats
    person: Ints


@dataclass(frozen=True)
class Grown:
    """Trees for one target, and what they say of rows that they did not see.

    Attributes
    ----------
    booster : the trees grown on all rows
    folds : those grown without each fold
    margin : shape (n,)
        Raw log-odds of each row from the trees grown without its fold.
    risk : shape (n,), probability
        The same, recalibrated on the rows of the other folds.
    fold : shape (n,)
    trees, rounds : the settings and number of trees chosen
    log_loss : mean of the folds at each number of trees
    """

    booster: lgb.Booster
    folds: tuple[lgb.Booster, ...]
    margin: Floats
    risk: Floats
    fold: Ints
    trees: Trees
    rounds: int
    log_loss: Floats


def grow(rows: Rows, target: Target, engine: Engine, *, seed: int = 0) -> Grown:
    """Grow the trees of a target.

    Raises
    ------
    WeibingError
        If there are too few outcomes, or too few rows without, to learn from.
    """
    require_outcomes(rows, target)
    fold = person_folds(rows.person, rows.outcome, seed)
    fixed = _fixed(rows.features, target, engine, seed)
    events = int(rows.outcome.sum())
    candidates = CANDIDATES if events <= MANY_OUTCOMES else CANDIDATES[:1]
    searches = [_search(rows, fold, {**fixed, **asdict(trees)}) for trees in candidates]
    margin = np.empty(len(fold))
    for held_out in range(FOLDS):
        search, rounds = _least(searches, [f for f in range(FOLDS) if f != held_out])
        test = fold == held_out
        margin[test] = margins(search.boosters[held_out], rows.matrix[test], rounds)
    best, rounds = _least(searches, list(range(FOLDS)))
    trees = candidates[searches.index(best)]
    data = lgb.Dataset(rows.matrix, rows.outcome, weight=rows.weight, feature_name=list(rows.features), params=fixed)
    return Grown(
        booster=lgb.train({**fixed, **asdict(trees), "num_threads": _threads(rows)}, data, rounds),
        folds=tuple(_shortened(booster, rounds) for booster in best.boosters),
        margin=margin,
        risk=_cross_calibrated(margin, rows, fold),
        fold=fold,
        trees=trees,
        rounds=rounds,
        log_loss=best.log_loss.mean(axis=0),
    )


def margins(booster: lgb.Booster, matrix: Singles | Floats, rounds: int = -1) -> Floats:
    """Return raw log-odds, shape (n,), of the first `rounds` trees, or of all."""
    threads = 1 if len(matrix) < FEW_ROWS else 0
    raw = booster.predict(matrix, raw_score=True, num_iteration=rounds, num_threads=threads)
    return np.asarray(raw, np.float64)


def require_outcomes(rows: Rows, target: Target) -> None:
    """Refuse a target with too few outcomes to learn from.

    Raises
    ------
    WeibingError
        With the number found and the number needed.
    """
    events = int(rows.outcome.sum())
    for found, what in ((events, "outcomes"), (len(rows.outcome) - events, "rows without the outcome")):
        if found < FEWEST_OUTCOMES:
            raise WeibingError(
                f"The target {target.name} has {found} {what} in these records; training needs {FEWEST_OUTCOMES}."
                " Bring more records, lengthen the horizon, or widen who is at risk in the targets file."
            )


def usable_features(
    names: list[str], matrix: Singles, target: Target, engine: Engine
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the features that can teach something, and why each other one is left out.

    Parameters
    ----------
    matrix : shape (n, features), NaN where unknown
    """
    dropped = {}
    for name, column in zip(names, matrix.T, strict=True):
        known = column[~np.isnan(column)]
        feature = engine.profile[name]
        if not len(known):
            dropped[name] = "never known"
        elif len(known) == len(column) and known.min() == known.max():
            dropped[name] = "always the same"
        elif worse := _moves_either_way(feature, target, engine):
            dropped[name] = f"a worse {worse} could move it either way"
    return tuple(name for name in names if name not in dropped), dropped


def monotone(features: tuple[str, ...], target: Target, engine: Engine) -> list[int]:
    """Return 1 for each feature that may only raise the risk, -1 for only lower, 0 for free."""
    return [_direction(engine.profile[name], target, engine) for name in features]


def person_folds(person: Ints, outcome: Floats, seed: int) -> Ints:
    """Return each row's fold: all rows of a person in one, persons with an outcome spread evenly.

    Parameters
    ----------
    person, outcome : shape (n,)

    Returns
    -------
    shape (n,), 0 to ``FOLDS - 1``
    """
    persons, row_of = np.unique(person, return_inverse=True)
    had = np.bincount(row_of, weights=outcome) > 0
    order = np.random.default_rng(seed).permutation(len(persons))
    order = order[np.argsort(had[order], kind="stable")]
    fold = np.empty(len(persons), np.int64)
    fold[order] = np.arange(len(persons)) % FOLDS
    return fold[row_of]


def _direction(feature: Feature, target: Target, engine: Engine) -> int:
    ways = {way for ways in _ways(feature, target, engine).values() for way in ways}
    return ways.pop() if len(ways) == 1 and _follows(feature, engine.vocabulary) else 0


def _follows(feature: Feature, vocabulary: Vocabulary) -> bool:
    """Whether a feature rises as its concept's values rise or its events are more."""
    # How often a value was measured says nothing about the value.
    counts = feature.measure in COUNTING and not vocabulary.concept(feature.concept).numeric
    return feature.measure in RISING or counts


def _ways(feature: Feature, target: Target, engine: Engine) -> dict[str, set[int]]:
    """Return what the target declares of the concepts that move a feature: 1 for worse when it is more, -1 for less."""
    found: dict[str, set[int]] = {}
    parts = [engine.profile[name].concept for name in feature.of] or [feature.concept]
    declared = [(name, 1) for name in target.increasing] + [(name, -1) for name in target.decreasing]
    for name, worse in declared:
        ways = {way * worse for part in parts for way in (moved_by(part).get(name, ()) if part != name else (1,))}
        if ways:
            found[name] = ways
    return found


def _moves_either_way(feature: Feature, target: Target, engine: Engine) -> str | None:
    """Return a declared concept by which a feature could move the wrong way, if there is one.

    Slopes and spreads may move either way. So may a date that a rule over values gives: the value decides whether there
    is one. And so may what two declared concepts move to different sides.
    """
    ways = _ways(feature, target, engine)
    follows = _follows(feature, engine.vocabulary)
    dated_by_rule = engine.vocabulary.concept(feature.concept).kind == "phenotype" and not follows
    by_rule = feature.concept not in ways and dated_by_rule
    torn = follows and len({way for each in ways.values() for way in each}) > 1
    return next(iter(ways), None) if feature.measure in EITHER_WAY or by_rule or torn else None


def _fixed(features: tuple[str, ...], target: Target, engine: Engine, seed: int) -> dict[str, object]:
    return {
        "objective": "binary",
        "monotone_constraints": monotone(features, target, engine),
        "monotone_constraints_method": "basic",
        "bagging_freq": 1,
        "feature_pre_filter": False,
        "seed": seed,
        "deterministic": True,
        "num_threads": 1,
        "force_row_wise": True,
        "verbosity": -1,
    }


@dataclass(frozen=True)
class _Search:
    """Trees grown without each fold, and their log-loss on it: shape (folds, trees)."""

    boosters: list[lgb.Booster]
    log_loss: Floats


def _search(rows: Rows, fold: Ints, parameters: dict[str, object]) -> _Search:
    """Grow trees without each fold, side by side, until their mean log-loss has long stopped falling."""
    data = lgb.Dataset(
        rows.matrix, rows.outcome, weight=rows.weight, feature_name=list(rows.features), params=parameters
    ).construct()
    boosters = [_without(data, np.flatnonzero(fold == held_out), parameters) for held_out in range(FOLDS)]
    losses: list[list[float]] = []
    # A thread a fold: LightGBM's own threads wait for each other at every split.
    with ThreadPoolExecutor(os.cpu_count(), initializer=_quieten) as pool:
        while len(losses) < MOST_TREES and _still_falling(losses):
            losses.append(list(pool.map(_one_tree_more, boosters)))
    return _Search(boosters, np.array(losses).T)


def _quieten() -> None:
    """Let LightGBM write nothing to stdout from this thread; it keeps its verbosity by thread."""
    lgb.Dataset(np.zeros((2, 1)), params={"verbosity": -1}).construct()


def _one_tree_more(booster: lgb.Booster) -> float:
    """Grow a tree; return the log-loss on the fold that was held out."""
    booster.update()
    return float(booster.eval_valid()[0][2])


def _without(data: lgb.Dataset, held_out: Ints, parameters: dict[str, object]) -> lgb.Booster:
    rest = np.setdiff1d(np.arange(data.num_data()), held_out)
    booster = lgb.Booster({**parameters, "metric": "binary_logloss"}, data.subset(rest.tolist()))
    booster.add_valid(data.subset(held_out.tolist()), "held out")
    return booster


def _still_falling(losses: list[list[float]]) -> bool:
    return not losses or len(losses) - 1 - int(np.mean(losses, axis=1).argmin()) < PATIENCE


def _least(searches: list[_Search], folds: list[int]) -> tuple[_Search, int]:
    """Return the search and the number of trees with the least mean log-loss on these folds."""
    curves = [search.log_loss[folds].mean(axis=0) for search in searches]
    best = min(range(len(searches)), key=lambda number: float(curves[number].min()))
    return searches[best], int(curves[best].argmin()) + 1


def _cross_calibrated(margin: Floats, rows: Rows, fold: Ints) -> Floats:
    """Recalibrate each fold's margins on those of the other folds."""
    risk = np.empty(len(margin))
    for held_out in range(FOLDS):
        test = fold == held_out
        line = recalibrate(margin[~test], rows.outcome[~test], rows.weight[~test])
        risk[test] = line.probability(margin[test])
    return risk


def _threads(rows: Rows) -> int:
    """Return how many threads grow a single model: on few rows they would wait for each other more than work."""
    return 1 if len(rows.outcome) < FEW_ROWS else 0


def _shortened(booster: lgb.Booster, rounds: int) -> lgb.Booster:
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=rounds))
