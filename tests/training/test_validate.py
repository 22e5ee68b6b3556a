"""How well risks hold, with intervals by person."""

import json
import os
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as sk

from training.calibrate import expit
from training.validate import (
    METRICS,
    TOP_PERCENT,
    Estimate,
    auroc,
    average_precision,
    brier,
    calibration_distance,
    calibration_line,
    net_benefit,
    observed_to_expected,
    roc_curve,
    scaled_brier,
    top_share,
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


MEASURES = [
    auroc,
    average_precision,
    brier,
    scaled_brier,
    calibration_line,
    observed_to_expected,
    calibration_distance,
    partial(top_share, share=0.1),
    partial(net_benefit, threshold=0.2),
]


@pytest.mark.parametrize("measure", MEASURES)
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
        (calibration_distance, [0, 0], [0.1, 0.2], "The integrated calibration index"),
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
    apart, tops = calibration_distance(**bare), [top_share(**bare, share=percent / 100) for percent in TOP_PERCENT]
    expected = [auroc(**bare), average_precision(**bare), scaled_brier(**bare), line.intercept, line.slope]
    expected += [observed_to_expected(**bare), apart.ici, apart.e50, apart.e90]
    expected += [number for top in tops for number in (top.sensitivity, top.ppv)]
    assert [found.metrics[name].estimate for name in METRICS] == pytest.approx(expected, abs=1e-9)
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
        "sensitivity_top_5": lambda r: top_share(**r, share=0.05).sensitivity,
        "ppv_top_20": lambda r: top_share(**r, share=0.2).ppv,
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
    assert not np.isnan([vars(found.metrics[name])["lower"] for name in METRICS if "slope" not in name]).any()
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


def test_residents_are_ranked_by_what_is_given_and_calibrated_by_their_risk():
    rng = np.random.default_rng(5)
    margin = rng.normal(-1, 1, 600)
    outcome = (rng.random(600) < expit(margin)).astype(float)
    risk = np.where(np.arange(600) % 2 == 0, expit(margin), expit(1.2 * margin))
    weight, person = rng.uniform(0, 2, 600), np.arange(600) // 2
    both = validate(outcome, risk, weight, person, rank=margin, replicates=20)
    by_margin, by_risk = (validate(outcome, of, weight, person, replicates=20) for of in (expit(margin), risk))
    for name in ("auroc", "average_precision", "sensitivity_top_5", "ppv_top_20"):
        assert both.metrics[name].estimate == pytest.approx(by_margin.metrics[name].estimate)
    assert both.metrics["auroc"].estimate != pytest.approx(by_risk.metrics["auroc"].estimate)
    for name in ("calibration_slope", "scaled_brier", "ici", "observed_to_expected"):
        assert both.metrics[name] == by_risk.metrics[name] != by_margin.metrics[name]
