"""How well risks hold, with intervals by person."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from training.calibrate import expit, logit
from training.validate import (
    METRICS,
    Estimate,
    auroc,
    average_precision,
    brier,
    calibration_curve,
    calibration_line,
    observed_to_expected,
    paired_difference,
    roc_curve,
    scaled_brier,
    validate,
)


def columns_of(table: str) -> dict[str, np.ndarray]:
    """Read a drawn table of numbers, one column a name."""
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    columns = np.array(lines, dtype=float).T
    return dict(zip(head, columns, strict=True))


def rows_of(seed: int, rows: int, *, levels: int = 0, lost: float = 0.2, a_person: int = 2) -> dict[str, np.ndarray]:
    """Rows in no order whose risks are a little too extreme; with `levels`, many share a risk."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1.5, 1, rows)
    log_odds = np.round(log_odds * levels) / levels if levels else log_odds
    return {
        "outcome": (rng.random(rows) < expit(log_odds)).astype(float),
        "risk": expit(1.2 * log_odds + 0.1),
        "weight": rng.uniform(1, 3, rows) * (rng.random(rows) > lost),
        "person": rng.integers(rows // a_person, size=rows) * 7 - 3,
    }


def without_person(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: columns[name] for name in ("outcome", "risk", "weight")}


TIED = columns_of(
    """
    outcome | risk | weight
    1       | 0.9  | 1
    0       | 0.5  | 2
    1       | 0.5  | 3
    0       | 0.1  | 4
    """
)


def test_auroc_is_the_weighted_share_of_pairs_ranked_right_and_a_tie_counts_half():
    right = 1 * 2 + 1 * 4 + 3 * 4 + (3 * 2) / 2
    assert auroc(**TIED) == pytest.approx(right / ((1 + 3) * (2 + 4)))


def test_average_precision_takes_equal_risks_as_one_threshold():
    assert average_precision(**TIED) == pytest.approx(1 / 4 * 1 + 3 / 4 * (1 + 3) / (1 + 2 + 3))


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


@pytest.mark.parametrize("levels", [0, 2, 20])
@pytest.mark.parametrize("seed", [1, 2])
def test_discrimination_and_brier_are_those_of_scikit_learn(seed, levels):
    rows = without_person(rows_of(seed, 700, levels=levels))
    theirs = (rows["outcome"], rows["risk"])
    assert auroc(**rows) == pytest.approx(sk.roc_auc_score(*theirs, sample_weight=rows["weight"]), abs=1e-12)
    assert average_precision(**rows) == pytest.approx(
        sk.average_precision_score(*theirs, sample_weight=rows["weight"]), abs=1e-12
    )
    assert brier(**rows) == pytest.approx(sk.brier_score_loss(*theirs, sample_weight=rows["weight"]), abs=1e-12)


@pytest.mark.parametrize("levels", [0, 3])
def test_the_roc_curve_is_that_of_scikit_learn(levels):
    rows = without_person(rows_of(3, 400, levels=levels))
    curve = roc_curve(**rows)
    kept = rows["weight"] > 0
    wrong, found, _ = sk.roc_curve(
        rows["outcome"][kept], rows["risk"][kept], sample_weight=rows["weight"][kept], drop_intermediate=False
    )
    assert curve.false_positive_rate == pytest.approx(wrong)
    assert curve.true_positive_rate == pytest.approx(found)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(auroc(**rows))


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


@pytest.mark.parametrize("measure", [auroc, average_precision, brier, scaled_brier, observed_to_expected])
def test_a_row_of_weight_zero_is_not_looked_at(measure):
    rows = without_person(rows_of(7, 200, lost=0))
    unknown = {"outcome": np.nan, "risk": 0.99, "weight": 0.0}
    assert measure(**{name: np.append(rows[name], unknown[name]) for name in rows}) == measure(**rows)


@pytest.mark.parametrize(
    ("measure", "outcome", "risk", "name"),
    [
        (auroc, [0, 0], [0.1, 0.2], "AUROC"),
        (auroc, [1, 1], [0.1, 0.2], "AUROC"),
        (roc_curve, [1, 1], [0.1, 0.2], "The ROC curve"),
        (average_precision, [0, 0], [0.1, 0.2], "Average precision"),
        (scaled_brier, [1, 1], [0.1, 0.2], "The scaled Brier score"),
        (calibration_line, [0, 0], [0.1, 0.2], "The calibration slope"),
        (calibration_line, [0, 1], [0.1, 0.1], "The calibration slope"),
        (calibration_line, [0, 1], [0.1, 0.2], "The calibration slope"),
        (observed_to_expected, [0, 1], [0.0, 0.0], "Observed to expected"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(measure, outcome, risk, name):
    with pytest.raises(ValueError, match=f"{name} is not defined"):
        measure(np.array(outcome, dtype=float), np.array(risk), np.ones(2))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"risk": np.array([0.1, 1.1])}, "risk must be a probability"),
        ({"risk": np.array([0.1, np.nan])}, "risk must be finite"),
        ({"risk": np.array([0.1])}, "their shapes are"),
        ({"person": np.array([1])}, "their shapes are"),
        ({"outcome": np.array([0.0, 2.0])}, "outcome must be 0 or 1"),
        ({"weight": np.array([1.0, -1.0])}, "weight must be finite and not negative"),
    ],
)
def test_columns_that_cannot_be_are_refused(changed, sentence):
    rows = {"outcome": np.array([0.0, 1.0]), "risk": np.array([0.1, 0.2]), "weight": np.ones(2), "person": np.arange(2)}
    with pytest.raises(ValueError, match=sentence):
        validate(**(rows | changed))


def test_validate_counts_what_has_weight_and_estimates_what_the_functions_do():
    rows = rows_of(8, 600)
    found, kept, bare = validate(**rows, replicates=20), rows["weight"] > 0, without_person(rows)
    line = calibration_line(**bare)
    expected = [auroc(**bare), average_precision(**bare), scaled_brier(**bare), line.intercept, line.slope]
    assert [found.metrics[name].estimate for name in METRICS[:5]] == pytest.approx(expected, abs=1e-9)
    assert found.metrics["observed_to_expected"].estimate == pytest.approx(observed_to_expected(**bare))
    assert (found.n, found.residents) == (kept.sum(), np.unique(rows["person"][kept]).size)
    assert (found.events, found.skipped) == (rows["outcome"][kept].sum(), 0)


def resampled(rows: dict[str, np.ndarray], replicates: int, seed: int) -> list[dict[str, np.ndarray]]:
    """The slow oracle: write out all rows of every person drawn."""
    rows = {name: column[rows["weight"] > 0] for name, column in rows.items()}
    persons = np.unique(rows["person"])
    of_person = [np.flatnonzero(rows["person"] == person) for person in persons]
    places = []
    for stream in np.random.SeedSequence(seed).spawn(replicates):
        drawn = np.random.default_rng(stream).integers(persons.size, size=persons.size)
        places.append(np.concatenate([of_person[person] for person in drawn]))
    return [{name: column[place] for name, column in rows.items()} for place in places]


def test_intervals_are_those_of_all_rows_of_the_persons_drawn_written_out():
    rows = rows_of(9, 300, levels=4)
    found = validate(**rows, replicates=40, seed=5).metrics
    drawn = [without_person(replicate) for replicate in resampled(rows, 40, 5)]
    for name, measure in {
        "auroc": lambda r: sk.roc_auc_score(r["outcome"], r["risk"], sample_weight=r["weight"]),
        "average_precision": lambda r: sk.average_precision_score(r["outcome"], r["risk"], sample_weight=r["weight"]),
        "scaled_brier": lambda r: scaled_brier(**r),
        "calibration_intercept": lambda r: calibration_line(**r).intercept,
        "calibration_slope": lambda r: calibration_line(**r).slope,
        "observed_to_expected": lambda r: observed_to_expected(**r),
    }.items():
        lower, upper = np.quantile([measure(replicate) for replicate in drawn], [0.025, 0.975])
        assert (found[name].lower, found[name].upper) == pytest.approx((lower, upper), abs=1e-9), name


def test_saying_the_same_of_a_person_five_times_makes_nothing_more_certain():
    rows = rows_of(10, 300, a_person=1)
    once = validate(**rows, replicates=50)
    five_times = validate(**{name: np.tile(column, 5) for name, column in rows.items()}, replicates=50)
    for name in METRICS:
        assert vars(five_times.metrics[name]) == pytest.approx(vars(once.metrics[name]), abs=1e-9)


def test_intervals_by_person_hold_the_truth_nineteen_times_in_twenty_and_by_row_do_not():
    def holds(seed: int, *, by_person: bool) -> bool:
        rng = np.random.default_rng([seed, 77])
        person = np.repeat(np.arange(80), 12)
        ill = np.repeat(rng.random(80) < 0.3, 12)
        outcome = (rng.random(960) < np.where(ill, 0.8, 0.1)).astype(float)
        risk = 0.3 * 0.8 + 0.7 * 0.1 + np.tile([0.05, -0.05], 480)
        row = np.arange(960)
        ratio = validate(outcome, risk, np.ones(960), person if by_person else row, replicates=100, seed=seed)
        interval = ratio.metrics["observed_to_expected"]
        return interval.lower <= 1 <= interval.upper

    assert np.mean([holds(seed, by_person=True) for seed in range(100)]) >= 0.9
    assert np.mean([holds(seed, by_person=False) for seed in range(50)]) <= 0.75


def test_the_same_seed_gives_the_same_intervals_on_any_number_of_processors(monkeypatch):
    rows = rows_of(11, 500)
    found = []
    for processors in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        found.append(validate(**rows, replicates=30, seed=3))
    assert found[0] == found[1]
    assert found[0] != validate(**rows, replicates=30, seed=4)


def test_the_order_of_the_rows_does_not_matter():
    rows = rows_of(12, 300, levels=3)
    shuffled = np.random.default_rng(0).permutation(300)
    first = validate(**rows, replicates=30)
    second = validate(**{name: column[shuffled] for name, column in rows.items()}, replicates=30)
    for name in METRICS:
        assert vars(second.metrics[name]) == pytest.approx(vars(first.metrics[name]), abs=1e-9)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_rows_of_one_kind_of_outcome_define_nothing_and_say_so(outcome):
    rows = rows_of(13, 50, lost=0) | {"outcome": np.full(50, outcome)}
    found = validate(**rows, replicates=10)
    assert (found.n, found.events, found.skipped) == (50, 50 * outcome, 10)
    assert {str(metric) for metric in found.metrics.values()} == {"not defined"}


def test_rows_without_weight_define_nothing_and_say_so():
    found = validate(**(rows_of(14, 50) | {"weight": np.zeros(50)}), replicates=10)
    assert (found.n, found.residents, found.events, found.skipped) == (0, 0, 0, 10)
    assert {str(metric) for metric in found.metrics.values()} == {"not defined"}


def test_too_few_outcomes_leave_an_estimate_without_an_interval_and_the_skipped_are_counted():
    rows = rows_of(15, 60, lost=0) | {"person": np.arange(60), "outcome": np.zeros(60)}
    rows["outcome"][np.argsort(rows["risk"])[30]] = 1
    found = validate(**rows, replicates=200)
    assert 50 < found.skipped < 100, "a person is not drawn in 1/e of the replicates"
    assert str(found.metrics["auroc"]) == f"{auroc(**without_person(rows)):.3f} (no interval)"
    assert np.isnan(found.metrics["observed_to_expected"].upper)


def test_a_slope_that_does_not_exist_takes_no_other_metric_with_it():
    rows = rows_of(16, 40, lost=0) | {"person": np.arange(40)}
    rows["outcome"] = (rows["risk"] > np.median(rows["risk"])).astype(float)
    found = validate(**rows, replicates=20)
    assert str(found.metrics["calibration_slope"]) == "not defined"
    assert str(found.metrics["auroc"]) == "1.000 (1.000 to 1.000)"
    assert found.skipped == 20


def test_no_replicates_leave_out_the_intervals():
    found = validate(**rows_of(17, 100), replicates=0)
    assert (found.replicates, found.skipped) == (0, 0)
    assert str(found.metrics["auroc"]).endswith("(no interval)")


def test_an_estimate_reads_well_and_goes_to_json():
    assert str(Estimate(0.7812, 0.7691, 0.7929)) == "0.781 (0.769 to 0.793)"
    assert Estimate(0.5, np.nan, np.nan).as_dict() == {"estimate": 0.5, "lower": None, "upper": None}
    found = validate(**rows_of(18, 100), replicates=0).as_dict()
    back = json.loads(json.dumps(found, allow_nan=False))
    assert back == found
    assert list(back) == ["n", "residents", "events", "replicates", "skipped", *METRICS]


def test_a_risk_does_not_differ_from_itself():
    rows = rows_of(19, 300)
    same = paired_difference(rows["outcome"], rows["risk"], rows["risk"], rows["weight"], rows["person"], replicates=20)
    assert same == Estimate(0, 0, 0)


def test_the_difference_is_that_of_the_two_aurocs_on_the_same_persons():
    rows = rows_of(20, 300, levels=3)
    other = np.random.default_rng(1).normal(rows["risk"], 0.2)
    found = paired_difference(
        rows["outcome"], rows["risk"], other, rows["weight"], rows["person"], replicates=40, seed=2
    )

    def difference(r: dict[str, np.ndarray]) -> float:
        first, second = (sk.roc_auc_score(r["outcome"], r[by], sample_weight=r["weight"]) for by in ("risk", "other"))
        return first - second

    drawn = [difference(replicate) for replicate in resampled(rows | {"other": other}, 40, 2)]
    expected = (difference(rows | {"other": other}), *np.quantile(drawn, [0.025, 0.975]))
    assert (found.estimate, found.lower, found.upper) == pytest.approx(expected, abs=1e-9)


def test_a_difference_without_outcomes_is_not_defined():
    rows = rows_of(21, 50) | {"outcome": np.zeros(50)}
    found = paired_difference(rows["outcome"], rows["risk"], rows["risk"], rows["weight"], rows["person"], replicates=5)
    assert str(found) == "not defined"


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
