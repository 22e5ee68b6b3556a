"""Exact TreeSHAP: beside LightGBM's own, beside shap, and in everything that LightGBM does with what is missing."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from features.cohort import IndexTimes, Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import count, latest
from features.profile import Profile
from training import fit
from training.fit import CANDIDATES, Recipe, Rows, refit
from training.shapley import Explainer, read_tables, require_plain_trees, write_tables
from training.shapley import explainer as explaining
from training.shapley.cuts import MANY_THRESHOLDS

NAN = np.nan


class Case(NamedTuple):
    """A booster, and rows to explain: shape (rows, features)."""

    booster: lgb.Booster
    matrix: np.ndarray

    @property
    def text(self) -> str:
        return self.booster.model_to_string()

    @property
    def columns(self) -> np.ndarray:
        return np.ascontiguousarray(self.matrix.T)


def grown(matrix: np.ndarray, outcome: np.ndarray, rounds: int = 5, **parameters: object) -> lgb.Booster:
    fixed = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 3, "seed": 1}
    given = {**fixed, **parameters}
    return lgb.train(given, lgb.Dataset(matrix, outcome, params=given), rounds)


def drawn(seed: int, rows: int, features: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows whose values are often the same, zero or unknown, and an outcome of several features together."""
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.normal(size=(rows, features)) * steps) / steps
    matrix[rng.random(matrix.shape) < rng.uniform(0, 0.6, features)] = NAN
    known = np.nan_to_num(matrix)
    margin = known[:, 0] * known[:, 1 % features] + known[:, 2 % features] + np.isnan(matrix[:, 0])
    return matrix, (margin + rng.normal(size=rows) > 0.5).astype(float)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a small model, and rows with values on its thresholds, near zero, infinite and unknown."""
    features = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 1_000))
    matrix, outcome = drawn(seed, 250, features, draw(st.sampled_from([1, 4, 1_000])))
    booster = grown(
        matrix,
        outcome,
        rounds=draw(st.integers(1, 8)),
        num_leaves=draw(st.integers(2, 31)),
        min_data_in_leaf=draw(st.sampled_from([1, 5, 200])),
        zero_as_missing=draw(st.booleans()),
        use_missing=draw(st.booleans()),
        bagging_fraction=draw(st.sampled_from([0.5, 1.0])),
        bagging_freq=1,
        extra_trees=draw(st.booleans()),
    )
    rng = np.random.default_rng(seed + 1)
    asked = matrix[:60].copy()
    table = booster.trees_to_dataframe().dropna(subset=["threshold"])
    ties = [(int(split["split_feature"].split("_")[1]), split["threshold"]) for _, split in table.iterrows()]
    for number, (feature, threshold) in enumerate(ties[:20]):
        asked[number % 60, feature] = threshold
        asked[(number + 20) % 60, feature] = np.nextafter(threshold, np.inf)
    for special in (0.0, -0.0, 1e-36, -1e-35, 2e-35, np.inf, -np.inf, NAN):
        asked[rng.integers(0, 60), rng.integers(0, features)] = special
    return Case(booster, asked)


def wide(leaves: int, rounds: int, seed: int = 0, features: int = 40, rows: int = 600) -> Case:
    """A model whose paths have many features."""
    matrix, outcome = drawn(seed, rows, features, 1_000)
    rng = np.random.default_rng(seed)
    outcome = (np.nan_to_num(matrix) @ rng.normal(size=features) > 0).astype(float) if features > 3 else outcome
    return Case(grown(matrix, outcome, rounds, num_leaves=leaves, feature_fraction=0.5), matrix)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_contributions_equal_those_of_lightgbm_and_sum_to_its_margin(case):
    explainer = Explainer.of([case.text])
    contributions, margins = explainer.explained(case.columns)
    oracle = case.booster.predict(case.matrix, pred_contrib=True)
    np.testing.assert_allclose(contributions.T, oracle[:, :-1], rtol=0, atol=1e-9)
    assert explainer.base == pytest.approx(oracle[0, -1], abs=1e-12)
    np.testing.assert_array_equal(margins[0], case.booster.predict(case.matrix, raw_score=True))
    np.testing.assert_allclose(explainer.base + contributions.sum(axis=0), margins[0], rtol=0, atol=1e-9)


# shap takes zero for known, and NaN for what goes the default way, whatever the model says of what is missing.
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1_000), st.integers(2, 31), st.integers(1, 12), st.sampled_from([1, 4, 1_000]))
def test_contributions_equal_those_of_shap(seed, leaves, features, steps):
    matrix, outcome = drawn(seed, 250, features, steps)
    case = Case(grown(matrix, outcome, num_leaves=leaves), matrix[:60])
    # A model of constants alone has no tree that shap could read.
    if case.booster.trees_to_dataframe()["node_depth"].max() == 1:
        return
    oracle = shap.TreeExplainer(case.booster, feature_perturbation="tree_path_dependent")
    # Of LightGBM's models it would ask LightGBM itself, and not its own trees.
    oracle.model.model_type = "internal"
    contributions, _ = Explainer.of([case.text]).explained(case.columns)
    told = oracle.shap_values(case.matrix, check_additivity=False)
    np.testing.assert_allclose(contributions.T, told, rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 4))
def test_contributions_by_group_are_the_sums_of_those_of_its_features(case, groups):
    features = case.booster.num_feature()
    group = np.arange(features) % groups
    groups = int(group.max()) + 1
    each, _ = Explainer.of([case.text]).explained(case.columns)
    summed, _ = Explainer.of([case.text], group).explained(case.columns)
    np.testing.assert_allclose(summed, [each[group == number].sum(axis=0) for number in range(groups)], atol=1e-12)


@pytest.mark.parametrize(("leaves", "rounds"), [(2, 5), (8, 20), (9, 20), (10, 20), (31, 10), (100, 3)])
def test_any_number_of_leaves_is_explained_exactly(leaves, rounds):
    case = wide(leaves, rounds)
    contributions, margins = Explainer.of([case.text]).explained(case.columns)
    np.testing.assert_allclose(contributions.T, case.booster.predict(case.matrix, pred_contrib=True)[:, :-1], atol=1e-9)
    np.testing.assert_array_equal(margins[0], case.booster.predict(case.matrix, raw_score=True))


def test_the_margin_of_each_of_several_forests_is_that_of_lightgbm_bit_for_bit():
    of_8, of_31, of_2 = wide(8, 20), wide(31, 10, seed=1), wide(2, 10, seed=2)
    constant = Case(grown(of_8.matrix, np.arange(len(of_8.matrix)) % 2, min_data_in_leaf=600), of_8.matrix)
    boosters = [case.booster for case in (of_8, of_31, of_2, constant)]
    _, margins = Explainer.of([booster.model_to_string() for booster in boosters]).explained(of_8.columns)
    for margin, booster in zip(margins, boosters, strict=True):
        np.testing.assert_array_equal(margin, booster.predict(of_8.matrix, raw_score=True))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("leaves", [8, 31])
def test_a_row_alone_is_told_the_same_as_among_others_bit_for_bit(leaves, kind):
    case = wide(leaves, 20, rows=700)
    columns = case.columns.astype(kind)
    explainer = Explainer.of([case.text])
    together = np.vstack(explainer.explained(columns))
    for number in (1, 5, 6, 7, 100, 512, 513):
        few = np.vstack(explainer.explained(np.ascontiguousarray(columns[:, 37 : 37 + number])))
        np.testing.assert_array_equal(few, together[:, 37 : 37 + number])


def test_single_and_double_precision_columns_of_the_same_values_are_told_the_same():
    case = wide(8, 20)
    explainer = Explainer.of([case.text])
    singles = case.columns.astype(np.float32)
    for one, other in zip(explainer.explained(singles), explainer.explained(singles.astype(float)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_with_more_thresholds_than_a_byte_holds_take_two_bytes():
    matrix = np.random.default_rng(3).normal(size=(6_000, 2))
    fine = {"max_bin": 6_000, "min_data_in_bin": 1, "extra_trees": True, "num_leaves": 31}
    case = Case(grown(matrix, np.sin(20 * matrix[:, 0]) > 0, 150, **fine), matrix)
    explainer = Explainer.of([case.text])
    assert np.diff(explainer.cuts.starts).max() > MANY_THRESHOLDS
    assert explainer.codes(case.columns).dtype == np.uint16
    contributions, margins = explainer.explained(case.columns)
    np.testing.assert_array_equal(margins[0], case.booster.predict(matrix, raw_score=True))
    oracle = case.booster.predict(matrix[:300], pred_contrib=True)[:, :-1]
    np.testing.assert_allclose(contributions.T[:300], oracle, rtol=0, atol=1e-9)


def test_a_code_is_the_number_of_thresholds_below_a_value():
    matrix = np.array([[0.0], [1.0], [2.0], [3.0], [NAN]]).repeat(20, axis=0)
    explainer = Explainer.of([grown(matrix, np.nan_to_num(matrix[:, 0]) % 2, 3, num_leaves=5).model_to_string()])
    thresholds = explainer.cuts.threshold
    assert len(thresholds) > 1
    asked = np.array([[-9.0, thresholds[0], np.nextafter(thresholds[0], 9), thresholds[1], 9.0, NAN]])
    assert explainer.codes(asked).tolist() == [[0, 0, 1, 1, len(thresholds), 255]]


def test_threads_that_explain_at_once_give_the_bytes_of_one_alone():
    case = wide(8, 20, rows=6_000)
    explainer = Explainer.of([case.text])
    alone = np.vstack(explainer.explained(case.columns)).tobytes()
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda _: np.vstack(explainer.explained(case.columns)).tobytes(), range(24)))
    assert set(told) == {alone}


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_another_process_explains_as_well(method):
    case = wide(8, 20, rows=3_000)
    explainer = Explainer.of([case.text])
    here = explainer.explained(case.columns)
    with get_context(method).Pool(1) as pool:
        there = pool.apply_async(explainer.explained, (case.columns,)).get(timeout=60)
    np.testing.assert_array_equal(there[0], here[0])


def test_one_thread_gives_what_many_give(tmp_path):
    case = wide(8, 20, rows=3_000)
    np.save(tmp_path / "columns.npy", case.columns)
    (tmp_path / "trees.txt").write_text(case.text, encoding="utf-8")
    program = (
        "import sys, numpy as np; from pathlib import Path; from training.shapley import Explainer\n"
        "folder = Path(sys.argv[1])\n"
        "told = Explainer.of([(folder / 'trees.txt').read_text()]).explained(np.load(folder / 'columns.npy'))\n"
        "np.save(folder / 'told.npy', np.vstack(told))"
    )
    alone = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=alone, check=True, timeout=100)
    np.testing.assert_array_equal(
        np.load(tmp_path / "told.npy"), np.vstack(Explainer.of([case.text]).explained(case.columns))
    )


def seen_of(explainer: Explainer, columns: np.ndarray, looked_at: tuple[int, ...] = ()) -> np.ndarray:
    return explainer.seen(columns, explainer.codes(columns), np.array(looked_at, np.int64))


def test_rows_of_one_fingerprint_are_told_the_same_and_others_have_another():
    case = wide(8, 20)
    explainer = Explainer.of([case.text])
    codes, seen = explainer.codes(case.columns), seen_of(explainer, case.columns)
    assert len(np.unique(seen)) == len(np.unique(codes, axis=1).T)
    alone = [seen_of(explainer, case.columns[:, [row]].copy())[0] for row in range(40)]
    np.testing.assert_array_equal(alone, seen[:40])


def test_a_fingerprint_sees_no_more_than_the_trees_do():
    matrix = np.array([[0.0, 5.0], [1.0, 6.0]]).repeat(50, axis=0)
    explainer = Explainer.of([grown(matrix, matrix[:, 0], 2, feature_fraction=1.0, num_leaves=2).model_to_string()])
    assert explainer.cuts.feature.tolist() == [0]
    rows = np.array([[0.0, -0.25, 1.0], [5.0, -1.0, 5.0]])
    by_trees = seen_of(explainer, rows)
    assert by_trees[0] == by_trees[1] != by_trees[2]
    beside = seen_of(explainer, rows, (1,))
    assert len(set(beside.tolist())) == 3


def test_a_fingerprint_knows_unknown_from_zero_where_the_trees_do_not():
    matrix = np.array([[0.0], [1.0]]).repeat(50, axis=0)
    explainer = Explainer.of([grown(matrix, matrix[:, 0], 2, num_leaves=2).model_to_string()])
    zero, unknown = np.array([[0.0]]), np.array([[NAN]])
    assert explainer.codes(zero) == explainer.codes(unknown)
    assert seen_of(explainer, zero) != seen_of(explainer, unknown)


def test_a_fingerprint_takes_zeros_of_either_sign_and_either_precision_for_the_same():
    case = wide(2, 3, features=4)
    explainer = Explainer.of([case.text])
    rows = np.array([[0.0, -0.0, 1.5], [NAN, -NAN, NAN], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    seen = seen_of(explainer, rows, (0, 1))
    assert seen[0] == seen[1] != seen[2]
    np.testing.assert_array_equal(seen_of(explainer, rows.astype(np.float32), (0, 1)), seen)


def test_stored_tables_read_back_the_same(tmp_path):
    case, group = wide(8, 20), np.arange(40) % 7
    texts = [case.text, wide(31, 5, seed=1).text]
    made = Explainer.of(texts, group)
    write_tables(tmp_path / "tables.npz", made, texts, group)
    read = read_tables(tmp_path / "tables.npz", texts, group)
    assert read is not None
    assert read.base == made.base
    for told, before in zip(read.explained(case.columns), made.explained(case.columns), strict=True):
        np.testing.assert_array_equal(told, before)


@pytest.mark.parametrize("change", ["trees", "groups", "content", "cut short", "no file", "other file"])
def test_tables_that_do_not_fit_are_not_used(tmp_path, change):
    case, group, path = wide(8, 5), np.arange(40) % 7, tmp_path / "tables.npz"
    write_tables(path, Explainer.of([case.text], group), [case.text], group)
    texts, asked = [case.text], group
    if change == "trees":
        texts = [wide(8, 6).text]
    elif change == "groups":
        asked = group[::-1].copy()
    elif change == "content":
        with np.load(path) as file:
            arrays = dict(file)
        arrays["lookups_tables"][1] += 1_000_000
        np.savez(path, **arrays)
    elif change == "cut short":
        path.write_bytes(path.read_bytes()[:-500])
    elif change == "no file":
        path.unlink()
    else:
        path.write_bytes(b"trees")
    assert read_tables(path, texts, asked) is None


@pytest.mark.parametrize(("limit", "said"), [("MOST_ON_PATH", "a path has"), ("MOST_BYTES", "tables would take")])
def test_a_model_too_deep_is_explained_by_lightgbm_and_the_log_says_why(monkeypatch, caplog, tmp_path, limit, said):
    case = wide(31, 5)
    group = np.arange(40) % 7
    expected, margins = Explainer.of([case.text], group).explained(case.columns)
    monkeypatch.setattr(explaining, limit, 3)
    with caplog.at_level(logging.WARNING, "training.shapley"):
        slow = Explainer.of([case.text], group)
    assert [said in record.getMessage() for record in caplog.records] == [True]
    contributions, same = slow.explained(case.columns)
    np.testing.assert_allclose(contributions, expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(same, margins)
    write_tables(tmp_path / "tables.npz", slow, [case.text], group)
    assert list(tmp_path.iterdir()) == []


def test_a_leaf_with_many_features_on_its_path_is_exact_without_a_table():
    case = wide(150, 2, features=60, rows=2_000)
    explainer = Explainer.of([case.text])
    assert explainer.lookups.bits.min() < -12
    contributions, _ = explainer.explained(case.columns)
    oracle = case.booster.predict(case.matrix, pred_contrib=True)
    np.testing.assert_allclose(contributions.T, oracle[:, :-1], rtol=0, atol=1e-9)


def test_trees_that_split_a_feature_into_categories_are_refused_by_its_name():
    matrix = np.random.default_rng(0).integers(0, 6, (300, 2)).astype(float)
    data = lgb.Dataset(matrix, matrix[:, 1] % 2, feature_name=["sbp", "village"], categorical_feature=["village"])
    text = lgb.train({"objective": "binary", "verbosity": -1}, data, 3).model_to_string()
    for refusing in (require_plain_trees, lambda trees: Explainer.of([trees])):
        with pytest.raises(WeibingError, match="split village into categories"):
            refusing(text)


def test_trees_that_are_linear_in_their_leaves_are_refused():
    case = wide(8, 3)
    text = grown(case.matrix, np.nan_to_num(case.matrix[:, 0]) > 0, linear_tree=True).model_to_string()
    for refusing in (require_plain_trees, lambda trees: Explainer.of([trees])):
        with pytest.raises(WeibingError, match="linear in their leaves"):
            refusing(text)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [({"linear_tree": True}, "linear in their leaves"), ({"categorical_feature": "0"}, "split fall_count_1y into")],
)
def test_training_refuses_what_cannot_be_explained(monkeypatch, parameter, said):
    engine = Engine(Profile(count("fall", within="1y"), latest("bmi")))
    target = Target("fall", ("fall",), "1y", IndexTimes(every="1y"))
    matrix = np.random.default_rng(0).integers(0, 6, (400, 2)).astype(np.float32)
    rows = Rows(engine.profile.names, matrix, matrix[:, 0] % 2, np.ones(400), np.arange(400))
    recipe = Recipe(CANDIDATES[0], 3)
    refit(rows, recipe, target, engine)
    fixed = fit.fixed_parameters
    monkeypatch.setattr(
        fit, "fixed_parameters", lambda *told: fixed(*told) | {"monotone_constraints": None} | parameter
    )
    with pytest.raises(WeibingError, match=said):
        refit(rows, recipe, target, engine)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("left_child=", "left=", 1),
        lambda text: text.replace("left_child=1", "left_child=77", 1),
        lambda text: text.replace("split_feature=", "split_feature=4000 ", 1),
        lambda text: text.replace("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
        lambda text: text[:900],
    ],
)
def test_damaged_trees_are_refused(damage):
    case = wide(8, 3)
    assert damage(case.text) != case.text
    with pytest.raises(ValueError, match=r"damaged|one margin"):
        Explainer.of([damage(case.text)])
