"""The linear partner: its directions, its sums, what it does with what is unknown, and when it is used."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from features.cohort import IndexTimes, Target
from features.engine import Engine
from features.measures import latest
from features.profile import Profile
from training.fit import FOLDS, Recipe, Rows, Trees, grow, refit
from training.fitted import Fitted
from training.linear import Linear, linear_path

NAN = np.nan
RNG = np.random.default_rng(1)
N = 400
# A measurement, one that is mostly missing, a skewed one, and a yes or no.
MATRIX = np.column_stack(
    [
        RNG.normal(130, 15, N),
        np.where(RNG.random(N) < 0.7, NAN, RNG.normal(0, 1, N)),
        RNG.lognormal(2, 1.5, N),
        RNG.integers(0, 2, N),
    ]
).astype(np.float32)
OUTCOME = (RNG.random(N) < 1 / (1 + np.exp(-(MATRIX[:, 0] - 140) / 10 - 0.5 * np.log(MATRIX[:, 2] / 7)))).astype(float)
WEIGHT = RNG.uniform(0.5, 1.5, N)
FREE = [0, 0, 0, 0]


def fitted(direction: list[int] = FREE, ridge: float = 10.0, outcome: np.ndarray = OUTCOME) -> Linear:
    return linear_path(MATRIX, outcome, WEIGHT, direction, (ridge,))[0]


def test_without_bounds_it_is_the_ridge_regression_of_scikit_learn():
    partner, ridge = fitted(ridge=7.0), 7.0
    known = ~np.isnan(MATRIX)
    design = np.hstack([np.where(known, partner.scale(MATRIX), 0), ~known[:, [1]]])
    oracle = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=1000)
    oracle.fit(design, OUTCOME, sample_weight=WEIGHT / WEIGHT.mean())
    np.testing.assert_allclose(partner.margin(MATRIX), oracle.decision_function(design), atol=2e-3)


def test_a_coefficient_keeps_to_its_direction_though_the_records_say_otherwise():
    assert fitted().coefficient[0] > 0
    bound = fitted([-1, 0, 0, 0])
    assert bound.coefficient[0] == 0
    assert fitted([1, 0, 0, 0]).coefficient[0] == pytest.approx(fitted().coefficient[0], rel=1e-3)


def test_contributions_sum_to_the_margin():
    partner = fitted()
    told = partner.base + partner.contributions(MATRIX).sum(axis=1)
    np.testing.assert_allclose(told, partner.margin(MATRIX), rtol=0, atol=1e-12)
    np.testing.assert_allclose(partner.contributions(MATRIX).mean(axis=0), 0, atol=1e-12)


def test_a_row_alone_has_the_margin_that_it_has_among_others():
    partner = fitted()
    alone = [partner.margin(MATRIX[[row]])[0] for row in range(50)]
    np.testing.assert_array_equal(alone, partner.margin(MATRIX)[:50])


def test_a_skewed_feature_is_taken_in_logs_and_the_others_are_not():
    assert np.isnan(fitted().scale.offset).tolist() == [True, True, False, True]


def test_a_wild_value_counts_as_the_highest_of_the_training_rows():
    partner, row = fitted(), np.array([[150.0, 0.0, 10.0, 1.0]])
    wild = row.copy()
    wild[0, 0] = 1e6
    highest = row.copy()
    highest[0, 0] = partner.scale.high[0]
    assert partner.margin(wild) == partner.margin(highest)


def test_it_comes_back_from_json_the_same():
    partner = fitted()
    again = Linear.from_dict(json.loads(json.dumps(partner.as_dict())))
    assert again == partner
    np.testing.assert_array_equal(again.margin(MATRIX), partner.margin(MATRIX))


def test_damaged_numbers_are_refused():
    told = fitted().as_dict()
    del told["coefficient"]
    with pytest.raises(ValueError, match="the linear partner is damaged"):
        Linear.from_dict(told)


@given(st.floats(50, 300), st.floats(0, 200), st.sampled_from([NAN, 0.0, 1.0]))
def test_raising_a_declared_value_never_lowers_the_margin(value, more, other):
    partner = BOUND
    rows = np.array([[value, other, 5.0, 0.0], [value + more, other, 5.0, 0.0]])
    low, high = partner.margin(rows)
    assert high >= low


BOUND = fitted([1, 0, 1, 0])

ENGINE = Engine(Profile(latest("sbp"), latest("bmi"), latest("hba1c")))
TARGET = Target("test", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("sbp",))


def rows_of(outcome_of, n: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    matrix = np.column_stack([rng.normal(130, 15, n), rng.normal(24, 4, n), rng.normal(6, 1, n)])
    risk = 1 / (1 + np.exp(-outcome_of((matrix - [130, 24, 6]) / [15, 4, 1])))
    outcome = (rng.random(n) < risk).astype(float)
    names = ("sbp_latest", "bmi_latest", "hba1c_latest")
    return Rows(names, matrix.astype(np.float32), outcome, np.ones(n), np.arange(n))


def test_few_outcomes_on_a_straight_line_bring_a_partner_in():
    grown = grow(rows_of(lambda z: z @ [0.8, 0.5, 0.5] - 2, 600), TARGET, ENGINE)
    assert grown.recipe.partner > 0
    assert all(fold.partner is not None and fold.share == grown.recipe.partner for fold in grown.folds)


def test_where_risk_jumps_no_partner_comes_in():
    grown = grow(rows_of(lambda z: np.where((abs(z[:, 1]) > 1) ^ (z[:, 2] > 0), 1.5, -3.0), 2_500), TARGET, ENGINE)
    assert grown.recipe.partner == 0
    assert grown.whole.partner is None


def test_margins_and_contributions_are_mixed_by_the_share():
    rows = rows_of(lambda z: z @ [0.8, 0.5, 0.5] - 1, 600)
    trees = Trees(4, 0.1, 20, 1.0, 1.0, 1.0)
    mixed = refit(rows, Recipe(trees, 20, partner=0.25, ridge=10.0), TARGET, ENGINE)
    alone = Fitted(mixed.booster_text)
    expected = 0.75 * alone.margin(rows.matrix) + 0.25 * mixed.partner.margin(rows.matrix)
    np.testing.assert_allclose(mixed.margin(rows.matrix), expected, rtol=0, atol=1e-12)
    matrix = rows.matrix.astype(np.float64)
    told = mixed.base + mixed.contributions(matrix).sum(axis=1)
    np.testing.assert_allclose(told, mixed.margin(matrix), rtol=0, atol=1e-9)
    assert mixed.importance.sum() == pytest.approx(1)


def test_folds_are_as_many_as_are_promised():
    assert len(grow(rows_of(lambda z: z @ [0.8, 0.5, 0.5] - 1, 600), TARGET, ENGINE).folds) == FOLDS
