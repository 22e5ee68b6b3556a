"""A straight line on the log-odds scale makes a model's margins probabilities that hold."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from features.errors import WeibingError
from training.calibrate import Recalibration, expit, logistic_line, logit, recalibrate


def rows_of(seed: int, rows: int, intercept: float, slope: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, outcomes drawn from the line through them, and weights."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(-2, 1, rows)
    outcome = (rng.random(rows) < expit(intercept + slope * margin)).astype(float)
    return margin, outcome, rng.uniform(1, 20, rows)


def test_the_line_is_what_it_says():
    line = Recalibration(intercept=0.5, slope=2.0)
    margin = np.array([-1.0, 0.0, 1.0])
    assert line.logit(margin).tolist() == [-1.5, 0.5, 2.5]
    assert line.probability(margin) == pytest.approx(1 / (1 + np.exp([1.5, -0.5, -2.5])))


def test_log_odds_survive_both_ends():
    with np.errstate(all="raise"):
        assert expit(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]
    assert logit(np.array([0.0, 0.5, 1.0])).tolist() == [-np.inf, 0, np.inf]
    small = np.array([1e-300, 1e-9, 0.3])
    assert expit(logit(small)) == pytest.approx(small, rel=1e-12)


@pytest.mark.parametrize(("rows", "slope"), [(40, 1.0), (1000, 0.3), (1000, 3.0), (20_000, 1.2)])
def test_the_fit_is_that_of_an_unpenalised_logistic_regression(rows, slope):
    margin, outcome, weight = rows_of(rows, rows, 0.5, slope)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky")
    theirs.fit(margin[:, None], outcome, sample_weight=weight)
    ours = recalibrate(margin, outcome, weight)
    assert (ours.intercept, ours.slope) == pytest.approx((theirs.intercept_[0], theirs.coef_[0, 0]), abs=1e-9)


def test_the_fit_finds_the_line_that_drew_the_outcomes():
    line = recalibrate(*rows_of(0, 200_000, 0.7, 1.3))
    assert (line.intercept, line.slope) == pytest.approx((0.7, 1.3), abs=0.05)


def test_the_mean_probability_becomes_the_share_of_outcomes():
    margin, outcome, weight = rows_of(1, 500, -1.0, 0.5)
    probability = recalibrate(margin, outcome, weight).probability(margin)
    assert np.average(probability, weights=weight) == pytest.approx(np.average(outcome, weights=weight), abs=1e-12)


def test_a_row_of_weight_three_counts_as_three_rows():
    margin, outcome, _ = rows_of(2, 200, 0.0, 1.0)
    times = np.random.default_rng(0).integers(0, 4, 200)
    weighted = recalibrate(margin, outcome, times.astype(float))
    repeated = recalibrate(np.repeat(margin, times), np.repeat(outcome, times), np.ones(times.sum()))
    assert asdict(weighted) == pytest.approx(asdict(repeated))


def test_a_row_of_weight_zero_is_not_looked_at():
    margin, outcome, weight = rows_of(3, 200, 0.0, 1.0)
    with_unknown = recalibrate(np.append(margin, 50.0), np.append(outcome, np.nan), np.append(weight, 0.0))
    assert with_unknown == recalibrate(margin, outcome, weight)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e-3), (0, 1e3), (500, 0.01), (-40, 30)])
def test_margins_far_off_or_on_another_scale_give_the_same_probabilities(shift, scale):
    margin, outcome, weight = rows_of(4, 500, 0.3, 1.0)
    near = recalibrate(margin, outcome, weight).probability(margin)
    far = recalibrate(shift + scale * margin, outcome, weight).probability(shift + scale * margin)
    assert far == pytest.approx(near, abs=1e-9)


def test_the_line_goes_to_json_and_back():
    line = recalibrate(*rows_of(5, 100, 0.0, 1.0))
    assert Recalibration(**json.loads(json.dumps(asdict(line)))) == line


def test_every_finite_line_is_found_however_few_and_far_the_margins():
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(1500):
        rows = rng.integers(4, 12)
        margin = rng.standard_t(1.5, rows) * 10 ** rng.uniform(-2, 2)
        outcome, weight = rng.integers(2, size=rows).astype(float), rng.uniform(1, 20, rows)
        cases, others = margin[outcome == 1], margin[outcome == 0]
        if not cases.size or not others.size:
            continue
        overlap = cases.min() < others.max() and others.min() < cases.max()
        intercept, slope = logistic_line(margin, outcome, weight, 0.0, 0.0, True)
        assert np.isfinite(slope) == overlap
        if overlap:
            found += 1
            residual = weight * (outcome - expit(intercept + slope * margin))
            assert residual.sum() == pytest.approx(0, abs=1e-9 * weight.sum())
            assert residual @ margin == pytest.approx(0, abs=1e-9 * (weight @ np.abs(margin)))
    assert found > 500


def test_the_intercept_alone_is_found_from_however_far():
    margin, outcome, weight = np.full(10, -20.0), np.tile([0.0, 1.0], 5), np.ones(10)
    assert logistic_line(margin, outcome, weight, 0.0, 1.0, False) == pytest.approx((20.0, 1.0))


@pytest.mark.parametrize(
    ("margin", "outcome", "sentence"),
    [
        ([1, 2, 3, 4], [0, 0, 0, 0], "0 of 4 rows with a known outcome had it"),
        ([1, 2, 3, 4], [1, 1, 1, 1], "4 of 4 rows"),
        ([2, 2, 2, 2], [0, 1, 0, 1], "gives all 4 rows the same margin"),
        ([1, 2, 3, 4], [0, 0, 1, 1], "separate those with the outcome completely"),
        ([1, 2, 2, 3], [0, 0, 1, 1], "separate those with the outcome completely"),
        ([1, 2, 3, 4], [1, 0, 1, 0], r"ranks residents backwards: the recalibration slope is -0\.\d"),
    ],
)
def test_margins_that_no_rising_line_fits_are_refused_with_the_reason(margin, outcome, sentence):
    with pytest.raises(WeibingError, match=sentence):
        recalibrate(np.array(margin, dtype=float), np.array(outcome, dtype=float), np.ones(4))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"margin": np.zeros(3)}, "their shapes are"),
        ({"margin": np.array([0.0, np.nan])}, "margin must be finite"),
        ({"outcome": np.array([0.0, 0.5])}, "outcome must be 0 or 1"),
        ({"outcome": np.array([0.0, np.nan])}, "outcome must be 0 or 1"),
        ({"weight": np.array([1.0, -1.0])}, "weight must be finite and not negative"),
        ({"weight": np.array([1.0, np.inf])}, "weight must be finite and not negative"),
    ],
)
def test_columns_that_cannot_be_are_refused(changed, sentence):
    columns = {"margin": np.array([0.0, 1.0]), "outcome": np.array([0.0, 1.0]), "weight": np.ones(2)}
    with pytest.raises(ValueError, match=sentence):
        recalibrate(**(columns | changed))
