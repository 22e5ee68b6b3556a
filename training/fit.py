"""LightGBM: trees under the target's constraints, how many of them and how shy settled by person-grouped folds.

Nothing about a row's own fold helps to choose what predicts it: the settings, the number of trees and the share of a
linear partner for a fold are those with the least log-loss on the other folds.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.cohort import Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import Feature, Measure
from features.rules import moved_by
from features.vocabulary import Vocabulary
from training.calibrate import recalibrate
from training.fitted import FEW_ROWS, Fitted, tree_margins
from training.growing import grow_side_by_side
from training.linear import Linear, linear_path
from training.shapley import require_plain_trees

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FOLDS = 5
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
    extra_trees: bool = False


# Eight leaves keep exact explanation a table look-up; four, and two (an additive model), are for few outcomes.
CANDIDATES = (
    Trees(8, 0.05, 20, 5.0, 0.5, 0.7),
    Trees(4, 0.05, 20, 1.0, 0.5, 0.9, path_smooth=10.0),
    Trees(2, 0.05, 20, 1.0, 0.5, 0.9),
    # Thresholds drawn at random smooth what few outcomes cannot settle.
    Trees(8, 0.04, 20, 5.0, 0.5, 0.7, extra_trees=True),
)
# Penalties of the linear partner, from the shyest, and its shares of the log-odds; none comes first, and wins a tie.
RIDGES = (300.0, 100.0, 30.0, 10.0)
SHARES = (0.0, 0.25, 0.5, 0.75)
# Up to so many outcomes every candidate is tried, and a linear partner: with more, trees lose nothing to either.
FEW_OUTCOMES = 1_000
# Up to so many, those with as many leaves as the first; with more the first serves, and the search is spared.
MANY_OUTCOMES = 5_000


@dataclass(frozen=True)
class Recipe:
    """What a fit is made with: settings and number of trees, the share of the linear partner, and its penalty."""

    trees: Trees
    rounds: int
    partner: float = 0.0
    ridge: float = RIDGES[0]

    @property
    def said(self) -> str:
        """The recipe in words."""
        trees = f"{self.rounds} trees of {self.trees.num_leaves} leaves"
        return f"{trees}, {self.partner:.0%} of the log-odds by a linear partner" if self.partner else trees


@dataclass(frozen=True)
class Rows:
    """The rows of a cohort as trees see them.

    `matrix`, shape (n, features), NaN where unknown; `outcome`, 0 or 1, `weight`, 0 where the outcome is unknown, and
    `person`, shape (n,).
    """

    features: tuple[str, ...]
    matrix: Singles
    outcome: Floats
    weight: Floats
    person: Ints

    def take(self, which: Bools) -> "Rows":
        """Return some of the rows."""
        return Rows(self.features, self.matrix[which], self.outcome[which], self.weight[which], self.person[which])

    @cached_property
    def known(self) -> Bools:
        """Which rows have a known outcome: those that trees learn from."""
        return self.weight > 0

    @property
    def events(self) -> int:
        """How many rows are known to have the outcome."""
        return int(self.outcome[self.known].sum())


@dataclass(frozen=True)
class Grown:
    """A fit for one target, and what it says of rows that it did not see.

    Attributes
    ----------
    whole : fitted on all rows
    folds : those fitted without each fold
    margin : shape (n,)
        Raw log-odds of each row from what was fitted without its fold.
    risk : shape (n,), probability
        The same, recalibrated on the rows of the other folds.
    fold : shape (n,)
    recipe : what was chosen on all folds
    log_loss : mean of the folds at each number of trees
    seed : of folds and trees
    """

    whole: Fitted
    folds: tuple[Fitted, ...]
    margin: Floats
    risk: Floats
    fold: Ints
    recipe: Recipe
    log_loss: Floats
    seed: int


# Grows the trees of a recipe's settings on all rows, and without each fold, somewhere else: on a cluster.
Elsewhere = Callable[[dict[str, object], int, Ints], tuple[lgb.Booster, tuple[lgb.Booster, ...]]]


def grow(
    rows: Rows,
    target: Target,
    engine: Engine,
    *,
    seed: int = 0,
    candidates: tuple[Trees, ...] = CANDIDATES,
    elsewhere: Elsewhere | None = None,
) -> Grown:
    """Fit a target.

    Parameters
    ----------
    candidates : the settings of trees to choose from; with many outcomes the first serves
    elsewhere : where the chosen trees are grown instead of here
        Given the parameters, the number of trees and each row's fold, it returns the trees of all rows, and those
        without each fold.

    Raises
    ------
    WeibingError
        If there are too few outcomes, or too few rows without, to learn from.
    """
    require_outcomes(rows, target)
    fold = person_folds(rows.person, np.where(rows.known, rows.outcome, 0), seed)
    taught, learnt = rows.take(rows.known), fold[rows.known]
    fixed = fixed_parameters(rows.features, target, engine, seed)
    searches = [_search(taught, learnt, trees, fixed) for trees in _worth_trying(candidates, taught.events)]
    partners = _partners(taught, learnt, fixed) if taught.events <= FEW_OUTCOMES else None
    recipes = [_chosen(searches, partners, taught, learnt, [f for f in range(FOLDS) if f != k]) for k in range(FOLDS)]
    recipe = _chosen(searches, partners, taught, learnt, list(range(FOLDS)))
    if elsewhere is not None:
        booster, without = elsewhere({**fixed, **asdict(recipe.trees)}, recipe.rounds, fold)
        fitted = _with_partners(without, recipe, partners)
        margin = _out_of_fold(fitted, rows, fold)
        whole = Fitted(_text(booster), _partner(taught, recipe, fixed), recipe.partner)
    else:
        each = [_without_fold(searches, partners, recipes[k], k) for k in range(FOLDS)]
        margin = _out_of_fold(each, rows, fold)
        fitted = [_without_fold(searches, partners, recipe, k) for k in range(FOLDS)]
        whole = _fit(taught, recipe, fixed)
    return Grown(
        whole=whole,
        folds=tuple(fitted),
        margin=margin,
        risk=cross_calibrated(margin, rows.outcome, rows.weight, fold),
        fold=fold,
        recipe=recipe,
        log_loss=_of(searches, recipe.trees).log_loss.mean(axis=0),
        seed=seed,
    )


def refit(rows: Rows, recipe: Recipe, target: Target, engine: Engine, *, seed: int = 0, threads: int = 0) -> Fitted:
    """Fit a recipe that was already chosen, on the rows with a known outcome.

    Parameters
    ----------
    threads : for LightGBM; 0 for as many as there are cores, where there are rows enough for them
    """
    fixed = {**fixed_parameters(rows.features, target, engine, seed), "num_threads": threads}
    return _fit(rows.take(rows.known), recipe, fixed)


def cross_calibrated(margin: Floats, outcome: Floats, weight: Floats, fold: Ints) -> Floats:
    """Recalibrate each fold's log-odds on those of the other folds.

    Parameters
    ----------
    margin, outcome, weight, fold : shape (n,)
        The outcome is not looked at where the weight is 0.

    Returns
    -------
    shape (n,), probability

    Raises
    ------
    WeibingError
        If the other folds of one lack one kind of outcome, or rank backwards.
    """
    risk = np.empty(len(margin))
    for held_out in range(FOLDS):
        test = fold == held_out
        risk[test] = recalibrate(margin[~test], outcome[~test], weight[~test]).probability(margin[test])
    return risk


def require_outcomes(rows: Rows, target: Target) -> None:
    """Refuse a target with too few outcomes to learn from.

    Raises
    ------
    WeibingError
        With the number found and the number needed.
    """
    events = rows.events
    for found, what in ((events, "outcomes"), (int(rows.known.sum()) - events, "rows without the outcome")):
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
    dropped: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for name, column in zip(names, matrix.T, strict=True):
        reason = _not_asked(engine.profile[name], target) or _says_nothing(column, seen)
        worse = None if reason else _moves_either_way(engine.profile[name], target, engine)
        if reason or worse:
            dropped[name] = reason or f"a worse {worse} could move it either way"
        else:
            seen[_content(column)] = name
    return tuple(name for name in names if name not in dropped), dropped


def _not_asked(feature: Feature, target: Target) -> str | None:
    asked = not target.predictors or feature.concept in target.predictors
    return None if asked else "not among the target's predictors"


def _says_nothing(column: Singles, seen: dict[bytes, str]) -> str | None:
    """Return why a feature can teach nothing, given those `seen` before it."""
    known = column[~np.isnan(column)]
    if not len(known):
        return "never known"
    if len(known) == len(column) and known.min() == known.max():
        return "always the same"
    # Where each value was measured once, its mean, lowest and latest are one feature, and would count as many.
    twin = seen.get(_content(column))
    return None if twin is None else f"the same as {twin} in every row"


def _content(column: Singles) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(column).tobytes()).digest()


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


def fixed_parameters(features: tuple[str, ...], target: Target, engine: Engine, seed: int) -> dict[str, object]:
    """Return LightGBM's parameters that no choice of settings changes: objective, directions, seed, determinism."""
    return {
        "objective": "binary",
        "monotone_constraints": monotone(features, target, engine),
        "monotone_constraints_method": "basic",
        "bagging_freq": 1,
        "feature_pre_filter": False,
        "seed": seed,
        "deterministic": True,
        "num_threads": 0,
        "force_row_wise": True,
        "verbosity": -1,
    }


@dataclass(frozen=True)
class _Search:
    """Trees grown without each fold, and their log-loss on it: shape (folds, trees)."""

    trees: Trees
    boosters: list[lgb.Booster]
    log_loss: Floats


# The partners fitted without each fold, one for each of `RIDGES`, and what they say of it: shape (ridges, n).
_Partners = tuple[list[list[Linear]], Floats]


def _worth_trying(candidates: tuple[Trees, ...], events: int) -> list[Trees]:
    if events <= FEW_OUTCOMES:
        return list(candidates)
    first = candidates[0]
    alike = [trees for trees in candidates if trees.num_leaves == first.num_leaves]
    return alike if events <= MANY_OUTCOMES else [first]


def _search(rows: Rows, fold: Ints, trees: Trees, fixed: dict[str, object]) -> _Search:
    """Grow trees without each fold, side by side, until their mean log-loss has long stopped falling."""
    parameters = {**fixed, **asdict(trees), "num_threads": 1}
    data = _dataset(rows, parameters).construct()
    boosters = [_without(data, np.flatnonzero(fold == held_out), parameters) for held_out in range(FOLDS)]
    losses = grow_side_by_side(boosters)
    # What is kept are the trees, without the rows that they were grown on.
    return _Search(trees, [lgb.Booster(model_str=_text(booster)) for booster in boosters], losses)


def _dataset(rows: Rows, parameters: dict[str, object]) -> lgb.Dataset:
    return lgb.Dataset(
        rows.matrix, rows.outcome, weight=rows.weight, feature_name=list(rows.features), params=parameters
    )


def _without(data: lgb.Dataset, held_out: Ints, parameters: dict[str, object]) -> lgb.Booster:
    rest = np.setdiff1d(np.arange(data.num_data()), held_out)
    booster = lgb.Booster({**parameters, "metric": "binary_logloss"}, data.subset(rest.tolist()))
    booster.add_valid(data.subset(held_out.tolist()), "held out")
    return booster


def _chosen(searches: list[_Search], partners: _Partners | None, rows: Rows, fold: Ints, folds: list[int]) -> Recipe:
    """Return the recipe with the least log-loss on these folds: first the trees, then what a partner adds to them."""
    curves = [search.log_loss[folds].mean(axis=0) for search in searches]
    best = min(range(len(searches)), key=lambda number: float(curves[number].min()))
    recipe = Recipe(searches[best].trees, int(curves[best].argmin()) + 1)
    if partners is None:
        return recipe
    judged = np.isin(fold, folds)
    of_trees = np.empty(len(fold))
    for k in folds:
        of_trees[fold == k] = tree_margins(searches[best].boosters[k], rows.matrix[fold == k], recipe.rounds)
    losses = {
        (share, ridge): _log_loss((1 - share) * of_trees + share * of_partner, rows, judged)
        for share in SHARES
        for ridge, of_partner in zip(RIDGES, partners[1], strict=True)
    }
    share, ridge = min(losses, key=lambda both: losses[both])
    return replace(recipe, partner=share, ridge=ridge)


def _log_loss(margin: Floats, rows: Rows, judged: Bools) -> float:
    """Return the sum of the log-loss once recalibrated, so that it does not matter how far the margins are spread."""
    line = recalibrate(margin[judged], rows.outcome[judged], rows.weight[judged])
    log_odds = line.logit(margin[judged])
    wrong = np.where(rows.outcome[judged] > 0, -log_odds, log_odds)
    return float(rows.weight[judged] @ np.logaddexp(0.0, wrong))


def _partners(rows: Rows, fold: Ints, fixed: dict[str, object]) -> _Partners:
    # A thread a fold; BLAS's own would only get in each other's way.
    with ThreadPoolExecutor(os.cpu_count()) as pool, threadpool_limits(1):
        fitted = list(pool.map(lambda k: _path(rows.take(fold != k), fixed, RIDGES), range(FOLDS)))
    margin = np.empty((len(RIDGES), len(fold)))
    for k, path in enumerate(fitted):
        margin[:, fold == k] = [partner.margin(rows.matrix[fold == k]) for partner in path]
    return fitted, margin


def _path(rows: Rows, fixed: dict[str, object], ridges: tuple[float, ...]) -> list[Linear]:
    direction = fixed["monotone_constraints"]
    return linear_path(rows.matrix, rows.outcome, rows.weight, direction, ridges)  # type: ignore[arg-type]


def _fit(rows: Rows, recipe: Recipe, fixed: dict[str, object]) -> Fitted:
    """Fit a recipe on rows whose outcome is known."""
    threads = 1 if len(rows.outcome) < FEW_ROWS else fixed["num_threads"]
    parameters = {**fixed, **asdict(recipe.trees), "num_threads": threads}
    booster = lgb.train(parameters, _dataset(rows, parameters), recipe.rounds)
    return Fitted(_text(booster), _partner(rows, recipe, fixed), recipe.partner)


def _partner(rows: Rows, recipe: Recipe, fixed: dict[str, object]) -> Linear | None:
    return _path(rows, fixed, (recipe.ridge,))[0] if recipe.partner else None


def _without_fold(searches: list[_Search], partners: _Partners | None, recipe: Recipe, fold: int) -> Fitted:
    """Return what was fitted without a fold, as a recipe says."""
    text = _text(_of(searches, recipe.trees).boosters[fold], recipe.rounds)
    return _beside(text, recipe, partners, fold)


def _beside(text: str, recipe: Recipe, partners: _Partners | None, fold: int) -> Fitted:
    if not recipe.partner or partners is None:
        return Fitted(text)
    return Fitted(text, partners[0][fold][RIDGES.index(recipe.ridge)], recipe.partner)


def _with_partners(boosters: tuple[lgb.Booster, ...], recipe: Recipe, partners: _Partners | None) -> list[Fitted]:
    return [_beside(_text(booster), recipe, partners, fold) for fold, booster in enumerate(boosters)]


def _of(searches: list[_Search], trees: Trees) -> _Search:
    return next(search for search in searches if search.trees == trees)


def _out_of_fold(fitted: list[Fitted], rows: Rows, fold: Ints) -> Floats:
    """Return each row's raw log-odds from what was fitted without its fold."""
    margin = np.empty(len(fold))
    for k, each in enumerate(fitted):
        margin[fold == k] = each.margin(rows.matrix[fold == k])
    return margin


def _text(booster: lgb.Booster, rounds: int = -1) -> str:
    """Return trees as text, if they can be explained exactly."""
    text = str(booster.model_to_string(num_iteration=rounds))
    require_plain_trees(text)
    return text
