"""Whether risks are as high as they should be: overall fit, calibration line, groups of rising risk."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sksurv.metrics import brier_score
from sksurv.util import Surv

from tests.training.test_validate import columns_of, rows_of, without_person
from tests.training.test_validate_discrimination import TIED
from training.calibrate import expit, logit
from training.censoring import censoring_weights
from training.validate import (
    brier,
    calibration_curve,
    calibration_line,
    observed_to_expected,
    scaled_brier,
)


def test_brier_and_its_scaled_form_by_hand():
    score = (1 * 0.1**2 + 2 * 0.5**2 + 3 * 0.5**2 + 4 * 0.1**2) / 10
    assert brier(**TIED) == pytest.approx(score)
    assert scaled_brier(**TIED) == pytest.approx(1 - score / (0.4 * 0.6))


def test_observed_to_expected_by_hand():
    assert observed_to_expected(**TIED) == pytest.approx((1 + 3) / (0.9 * 1 + 0.5 * 2 + 0.5 * 3 + 0.1 * 4))


def test_the_prevalence_for_all_scores_zero_and_the_truth_one():
    outcome, weight = np.array([0.0, 0, 0, 1]), np.ones(4)
    assert scaled_brier(outcome, np.full(4, 0.25), weight) == pytest.approx(0)
    assert scaled_brier(outcome, outcome, weight) == 1


def test_the_calibration_slope_is_that_of_an_unpenalised_logistic_regression():
    rows = without_person(rows_of(4, 900))
    theirs = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky")
    theirs.fit(logit(rows["risk"])[:, None], rows["outcome"], sample_weight=rows["weight"])
    assert calibration_line(**rows).slope == pytest.approx(theirs.coef_[0, 0], abs=1e-9)


def test_the_calibration_intercept_holds_the_slope_at_one():
    rows = without_person(rows_of(5, 900))
    log_odds = logit(rows["risk"])

    def loss(intercept: np.ndarray) -> float:
        shifted = intercept[0] + log_odds
        return rows["weight"] @ (np.logaddexp(0, shifted) - rows["outcome"] * shifted)

    theirs = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x[0]
    assert calibration_line(**rows).intercept == pytest.approx(theirs, abs=1e-7)


def test_risks_that_are_twice_too_extreme_and_then_too_low_are_told_apart():
    rng = np.random.default_rng(6)
    log_odds = rng.normal(-1, 1, 100_000)
    outcome, weight = (rng.random(100_000) < expit(log_odds)).astype(float), np.ones(100_000)
    assert calibration_line(outcome, expit(2 * log_odds), weight).slope == pytest.approx(0.5, abs=0.02)
    low = calibration_line(outcome, expit(log_odds - 0.7), weight)
    assert (low.intercept, low.slope) == pytest.approx((0.7, 1.0), abs=0.03)


def test_a_risk_of_zero_or_one_has_a_calibration_line_too():
    outcome, risk = np.array([0.0, 1, 0, 1, 0]), np.array([0.0, 1, 0.4, 0.4, 1])
    assert np.isfinite(calibration_line(outcome, risk, np.ones(5)).slope)


@pytest.mark.parametrize("risk", [0.003, 0.137, 0.6, 0.99])
def test_one_risk_for_all_has_no_slope_even_where_rounding_makes_one_up(risk):
    rows = without_person(rows_of(23, 500)) | {"risk": np.full(500, risk)}
    with pytest.raises(ValueError, match="slope is not defined"):
        calibration_line(**rows)


def test_risks_that_rank_backwards_have_a_negative_slope():
    outcome, risk = np.array([1.0, 0, 1, 0]), np.array([0.1, 0.2, 0.3, 0.4])
    assert calibration_line(outcome, risk, np.ones(4)).slope < 0


def test_the_calibration_curve_by_hand():
    rows = columns_of(
        """
        outcome | risk | weight
        1       | 0.8  | 3
        0       | 0.1  | 2
        0       | 0.6  | 1
        1       | 0.2  | 2
        """
    )
    curve = calibration_curve(**rows, groups=2)
    assert curve.risk == pytest.approx([(2 * 0.1 + 2 * 0.2) / 4, (1 * 0.6 + 3 * 0.8) / 4])
    assert curve.observed == pytest.approx([2 / 4, 3 / 4])
    assert curve.weight.tolist() == [4, 4]
    assert curve.rows.tolist() == [2, 2]


def test_the_calibration_curve_keeps_equal_risks_together():
    outcome, risk = np.array([0.0, 1, 0, 1, 0, 1]), np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.7])
    curve = calibration_curve(outcome, risk, np.ones(6), groups=10)
    assert curve.rows.tolist() == [5, 1]
    assert curve.observed == pytest.approx([2 / 5, 1])


def test_the_calibration_curve_has_groups_of_about_equal_weight_by_rising_risk():
    rows = without_person(rows_of(22, 5000))
    curve = calibration_curve(**rows)
    assert curve.weight == pytest.approx(np.full(10, rows["weight"].sum() / 10), rel=0.01)
    assert all(lower < higher for lower, higher in pairwise(curve.risk))
    assert curve.rows.sum() == (rows["weight"] > 0).sum()


def test_the_brier_score_under_censoring_is_that_of_scikit_survival():
    rng = np.random.default_rng(26)
    log_odds, until, lost = rng.normal(-1, 1, 400), rng.exponential(900, 400), rng.exponential(1500, 400)
    time, observed = np.minimum(until, lost), until <= lost
    known = censoring_weights(time, observed, np.zeros(400, dtype=bool), 700.0)
    truth = Surv.from_arrays(observed, time)
    _, theirs = brier_score(truth, truth, 1 - expit(log_odds), 700.0)
    assert brier(known.outcome, expit(log_odds), known.weight) == pytest.approx(theirs[0], abs=1e-12)
