"""The smooth calibration curve, and how far it lies from the diagonal."""

import os

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.interpolate import CubicSpline
from statsmodels.nonparametric.smoothers_lowess import lowess

from tests.training.test_validate import columns_of, resampled, rows_of, without_person
from training.calibrate import expit, logit
from training.validate import calibration_distance, smooth_calibration, validate

KNOTS = (0.05, 0.275, 0.5, 0.725, 0.95)


def knots_of(rows: dict[str, np.ndarray]) -> np.ndarray:
    """The smallest log-odds at or below which each share of the weight lies."""
    order = np.argsort(rows["risk"])
    below = np.cumsum(rows["weight"][order]) / rows["weight"].sum()
    return np.array([logit(rows["risk"][order][np.argmax(below >= share - 1e-12)]) for share in KNOTS])


def natural_spline(log_odds: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Another basis of the same curves: natural cubic splines, 1 at a knot and 0 at the others."""
    spline = CubicSpline(knots, np.eye(knots.size), bc_type="natural")
    inside = np.clip(log_odds, knots[0], knots[-1])
    return spline(inside) + (log_odds - inside)[:, None] * spline(inside, 1)


def observed_of(rows: dict[str, np.ndarray], knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The slow oracle: the curve at the risks `at`, by statsmodels, of every row for itself."""
    model = sm.GLM(
        rows["outcome"],
        natural_spline(logit(rows["risk"]), knots),
        family=sm.families.Binomial(),
        freq_weights=rows["weight"],
    )
    return model.fit(tol=1e-13, maxiter=200).predict(natural_spline(logit(at), knots))


def apart(rows: dict[str, np.ndarray], knots: np.ndarray) -> tuple[float, float, float]:
    distance = np.abs(observed_of(rows, knots, rows["risk"]) - rows["risk"])
    order = np.argsort(distance)
    below = np.cumsum(rows["weight"][order]) / rows["weight"].sum()
    e50, e90 = (distance[order][np.argmax(below >= share)] for share in (0.5, 0.9))
    return float(np.average(distance, weights=rows["weight"])), e50, e90


def with_weight(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column[rows["weight"] > 0] for name, column in rows.items()}


def test_with_two_risks_the_curve_is_the_observed_share_at_each():
    rows = columns_of(
        """
        outcome | risk | weight
        1       | 0.2  | 1
        0       | 0.2  | 4
        1       | 0.6  | 3
        0       | 0.6  | 1
        0       | 0.6  | 1
        """
    )
    low, high = abs(1 / 5 - 0.2), abs(3 / 5 - 0.6)
    assert calibration_distance(**rows).ici == pytest.approx((low + high) / 2, abs=1e-9)
    doubled = calibration_distance(**(rows | {"risk": rows["risk"] / 2}))
    apart = (1 / 5 - 0.1, 3 / 5 - 0.3)
    assert (doubled.ici, doubled.e50, doubled.e90) == pytest.approx((sum(apart) / 2, apart[0], apart[1]))


def test_with_one_risk_the_distance_is_that_of_the_observed_share():
    found = calibration_distance(np.array([1.0, 0, 0, 0]), np.full(4, 0.6), np.array([1.0, 1, 1, 2]))
    assert (found.ici, found.e50, found.e90) == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.parametrize("seed", [27, 28])
def test_the_distances_are_those_of_a_spline_regression_of_statsmodels(seed):
    rows = without_person(with_weight(rows_of(seed, 900, levels=20)))
    found = calibration_distance(**rows)
    assert (found.ici, found.e50, found.e90) == pytest.approx(apart(rows, knots_of(rows)), abs=1e-7)


def test_levels_of_nearly_equal_risk_change_next_to_nothing():
    rows = without_person(with_weight(rows_of(29, 3000)))
    found = calibration_distance(**rows)
    assert np.unique(np.floor(logit(rows["risk"]) * 256)).size < rows["risk"].size / 2
    assert (found.ici, found.e50, found.e90) == pytest.approx(apart(rows, knots_of(rows)), abs=2e-4)


def test_the_intervals_of_the_distances_keep_the_knots_of_all_rows():
    rows = rows_of(30, 400, levels=20)
    found, knots = validate(**rows, replicates=30, seed=6).metrics, knots_of(with_weight(rows))
    drawn = [apart(replicate, knots) for replicate in resampled(rows, 30, 6)]
    lower, upper = np.quantile(drawn, [0.025, 0.975], axis=0)
    for i, name in enumerate(("ici", "e50", "e90")):
        assert (found[name].lower, found[name].upper) == pytest.approx((lower[i], upper[i]), abs=1e-6), name


def test_the_curve_and_its_bounds_are_those_of_statsmodels():
    rows = rows_of(31, 500, levels=20)
    curve, knots = smooth_calibration(**rows, replicates=20, seed=2), knots_of(with_weight(rows))
    assert curve.observed == pytest.approx(observed_of(with_weight(rows), knots, curve.risk), abs=1e-7)
    drawn = [observed_of(replicate, knots, curve.risk) for replicate in resampled(rows, 20, 2)]
    lower, upper = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert curve.lower == pytest.approx(lower, abs=1e-6)
    assert curve.upper == pytest.approx(upper, abs=1e-6)


def test_the_curve_goes_from_the_first_to_the_last_percent_evenly_by_log_odds():
    rows = rows_of(32, 5000, lost=0) | {"weight": np.ones(5000)}
    curve = smooth_calibration(**rows, replicates=0)
    ends = np.quantile(rows["risk"], [0.01, 0.99], method="inverted_cdf")
    assert (curve.risk[0], curve.risk[-1]) == pytest.approx(tuple(ends), rel=1 / 256)
    assert np.ptp(np.diff(logit(curve.risk))) < 1e-9
    assert np.isnan(curve.lower).all()


@pytest.mark.parametrize("bend", [lambda z: z + 0.15 * (z + 2) ** 2 - 0.15, lambda z: z + 0.35 * np.sin(2 * z)])
def test_the_curve_follows_a_bend(bend):
    rng = np.random.default_rng(33)
    log_odds = rng.normal(-2, 1, 100_000)
    risk, truth = expit(log_odds), expit(bend(log_odds))
    outcome, weight = (rng.random(100_000) < truth).astype(float), np.ones(100_000)
    assert calibration_distance(outcome, risk, weight).ici == pytest.approx(np.abs(truth - risk).mean(), rel=0.1)


def test_with_some_120_outcomes_true_risks_look_as_near_as_they_do_to_loess():
    def distances(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng([seed, 34])
        risk = expit(rng.normal(-2.9, 1, 1500))
        outcome = (rng.random(1500) < risk).astype(float)
        smooth = lowess(outcome, risk, frac=2 / 3, it=0, return_sorted=False)
        return calibration_distance(outcome, risk, np.ones(1500)).ici, float(np.abs(smooth - risk).mean())

    ours, loess = np.mean([distances(seed) for seed in range(30)], axis=0)
    assert ours < 1.15 * loess
    assert ours < 0.012


def test_risks_that_separate_the_outcomes_have_a_distance_all_the_same():
    risk = np.linspace(0.1, 0.9, 40)
    outcome = (risk > 0.5).astype(float)
    found = calibration_distance(outcome, risk, np.ones(40))
    assert found.ici == pytest.approx(np.abs(outcome - risk).mean(), abs=1e-3)


def test_a_replicate_that_draws_one_risk_alone_has_a_distance_too():
    rows = columns_of(
        """
        outcome | risk | weight | person
        1       | 0.2  | 1      | 1
        0       | 0.2  | 1      | 1
        1       | 0.6  | 1      | 2
        0       | 0.6  | 1      | 2
        """
    )
    ici = validate(**(rows | {"person": rows["person"].astype(int)}), replicates=60).metrics["ici"]
    assert (ici.lower, ici.upper) == pytest.approx((0.6 - 0.5, 0.5 - 0.2), abs=1e-6)


def test_a_row_of_risk_zero_or_one_keeps_the_curve_finite():
    rows = rows_of(35, 300, lost=0)
    rows["risk"][:4] = [0, 1, 0, 1]
    curve = smooth_calibration(**rows, replicates=10)
    assert np.isfinite([curve.observed, curve.lower, curve.upper]).all()
    assert ((curve.lower <= curve.upper) & (curve.lower >= 0) & (curve.upper <= 1)).all()


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_curve_without_both_kinds_of_outcome_is_not_defined(outcome):
    curve = smooth_calibration(**(rows_of(36, 60) | {"outcome": np.full(60, outcome)}), replicates=5)
    assert np.isnan([curve.observed, curve.lower, curve.upper]).all()


def test_no_row_with_weight_gives_an_empty_curve():
    assert smooth_calibration(**(rows_of(37, 20) | {"weight": np.zeros(20)}), replicates=5).risk.size == 0


def test_the_curve_is_the_same_on_any_number_of_processors(monkeypatch):
    found = []
    for processors in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        curve = smooth_calibration(**rows_of(38, 300), replicates=20, seed=1)
        found.append(np.stack([curve.observed, curve.lower, curve.upper]))
    assert (found[0] == found[1]).all()
