"""The plain statistical rival: its columns, its fit against scikit-learn, and what it must not see."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from training.comparators import logistic
from training.comparators.logistic import Design, Prepared, log_loss, out_of_fold_margins, restricted_cubic
from training.validate import auroc

NAN = np.nan


def rows_of(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows whose risk is lowest in the middle of the first feature; the second is noise, a third of it unknown."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, n)
    other = np.where(rng.random(n) < 1 / 3, NAN, rng.normal(0, 1, n))
    outcome = (rng.random(n) < 1 / (1 + np.exp(2.5 - 1.5 * np.abs(x)))).astype(float)
    return np.column_stack([x, other]).astype(np.float32), outcome


def test_a_restricted_cubic_spline_bends_between_its_knots_and_is_straight_beyond():
    knots = np.array([0.0, 1.0, 2.0, 4.0])
    bend = restricted_cubic(np.array([-3.0, 0.0, 1.0, 4.0, 5.0, 6.0, 7.0]), knots)
    assert bend.shape == (7, 2)
    assert (bend[:2] == 0).all()
    # At 1: (1 - 0)^3 of the first knot alone, over the square of 4 - 0.
    assert bend[2] == pytest.approx([1 / 16, 0])
    assert np.diff(bend[3:], 2, axis=0) == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_a_missing_value_becomes_the_median_and_a_column_of_its_own():
    matrix = np.array([[1, 5], [2, 5], [9, 5], [NAN, 5]])
    columns = Design.of(matrix, bends=False).columns(matrix)
    assert columns.tolist() == [[1, 5, 0], [2, 5, 0], [9, 5, 0], [2, 5, 1]]


def test_features_that_are_always_missing_together_share_an_indicator():
    matrix = np.array([[1, 4, NAN], [NAN, NAN, 7], [3, 6, 8]])
    assert Design.of(matrix, bends=False).missing.tolist() == [0, 2]


def test_only_a_well_filled_feature_of_many_values_bends():
    rng = np.random.default_rng(0)
    many, few = rng.normal(0, 1, 100), rng.integers(0, 3, 100).astype(float)
    sparse = np.where(np.arange(100) < 60, NAN, many)
    design = Design.of(np.column_stack([many, few, sparse]), bends=True)
    assert [place for place, _ in design.knots] == [0]
    assert not Design.of(np.column_stack([many, few, sparse]), bends=False).knots


def test_a_mistyped_value_counts_as_the_highest_of_the_others_but_a_rare_yes_stays_one():
    rng = np.random.default_rng(0)
    number, rare = rng.normal(0, 1, 1000), np.zeros(1000)
    number[0], rare[0] = 1e6, 1
    columns = Design.of(np.column_stack([number, rare]), bends=False).columns(np.array([[1e6, 1.0]]))
    assert columns[0, 0] < 4
    assert columns[0, 1] == 1


@pytest.mark.parametrize("penalty", [1.0, 100.0])
def test_the_fit_is_that_of_scikit_learn(penalty):
    matrix, outcome = rows_of(3000)
    weight = np.random.default_rng(1).uniform(0.5, 3, 3000)
    prepared = Prepared.of(matrix, outcome, weight, bends=True)
    ours = next(prepared.fits((penalty,))).margin(matrix)
    oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(prepared.columns, outcome, weight)
    assert ours == pytest.approx(oracle.decision_function(prepared.columns), abs=1e-3)


def test_the_curvature_of_a_sample_leads_to_the_same_end(monkeypatch):
    matrix, outcome = rows_of(6000)
    prepared = Prepared.of(matrix, outcome, np.ones(6000), bends=True)
    whole = next(prepared.fits((10.0,))).margin(matrix)
    monkeypatch.setattr(logistic, "LOOKED_AT", 500)
    of_sample = next(prepared.fits((10.0,))).margin(matrix)
    losses = [log_loss(margin, outcome, prepared.weight).sum() for margin in (whole, of_sample)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert of_sample == pytest.approx(whole, abs=0.05)


def test_a_column_that_is_the_same_for_all_has_no_say():
    matrix, outcome = rows_of(500)
    constant = np.column_stack([matrix, np.full(500, 7.0)])
    fitted = next(Prepared.of(constant, outcome, np.ones(500), bends=True).fits((10.0,)))
    elsewhere = constant.copy()
    elsewhere[:, 2] = 1e6
    assert fitted.margin(elsewhere) == pytest.approx(fitted.margin(constant))


def test_it_finds_a_risk_that_is_lowest_in_the_middle():
    """A straight line ranks such rows no better than chance."""
    matrix, outcome = rows_of(2000)
    weight, fold = np.ones(2000), np.arange(2000) % 5
    assert auroc(outcome, out_of_fold_margins(matrix, outcome, weight, fold), weight) > 0.68
    straight = next(Prepared.of(matrix, outcome, weight, bends=False).fits((10.0,))).margin(matrix)
    assert auroc(outcome, straight, weight) < 0.6


def test_a_row_s_own_outcome_and_those_of_its_fold_do_not_move_its_margin():
    matrix, outcome = rows_of(600)
    weight, fold = np.ones(600), np.arange(600) % 5
    before = out_of_fold_margins(matrix, outcome, weight, fold)
    turned = np.where(fold == 2, 1 - outcome, outcome)
    after = out_of_fold_margins(matrix, turned, weight, fold)
    assert (before[fold == 2] == after[fold == 2]).all()
    assert (before[fold != 2] != after[fold != 2]).any()


def test_rows_without_a_known_outcome_teach_nothing_and_have_a_margin():
    matrix, outcome = rows_of(600)
    weight, fold = np.ones(600), np.arange(600) % 5
    weight[:100] = 0
    told, untold = (
        out_of_fold_margins(matrix, np.where(weight > 0, outcome, unknown), weight, fold) for unknown in (1.0, NAN)
    )
    assert np.isfinite(told).all()
    assert (told == untold).all()


def test_few_rows_and_many_noisy_features_end_near_the_prevalence():
    """With 200 rows and 150 features of noise the penalty, chosen by log-loss, keeps the risks together."""
    rng = np.random.default_rng(3)
    matrix, outcome = rng.normal(0, 1, (200, 150)), (rng.random(200) < 0.3).astype(float)
    margin = out_of_fold_margins(matrix, outcome, np.ones(200), np.arange(200) % 5)
    prevalence = np.full(200, np.log(outcome.mean() / (1 - outcome.mean())))
    loss, least = (log_loss(of, outcome, np.ones(200)).mean() for of in (margin, prevalence))
    assert loss < least + 0.02
