"""Whether acting on risks does more good than harm."""

import os

import numpy as np
import pandas as pd
import pytest
from dcurves import dca

from tests.training.test_validate import columns_of, resampled, rows_of, without_person
from training.calibrate import expit
from training.censoring import censoring_weights
from training.validate import Estimate, decision_curve, net_benefit, net_benefit_difference

THRESHOLDS = np.array([0.0, 0.05, 0.1, 0.2, 0.5])
ROWS = columns_of(
    """
    outcome | risk | weight
    1       | 0.9  | 1
    0       | 0.5  | 2
    1       | 0.2  | 3
    0       | 0.1  | 4
    """
)


def curve_of(rows: dict[str, np.ndarray], thresholds: np.ndarray = THRESHOLDS, **options: int):
    """The decision curve of the rows' one risk, named `ours`."""
    return decision_curve(
        rows["outcome"], {"ours": rows["risk"]}, rows["weight"], rows["person"], thresholds, **options
    )


def test_net_benefit_is_outcomes_found_less_the_odds_times_those_called_in_vain():
    assert net_benefit(**ROWS, threshold=0.2) == pytest.approx((1 + 3) / 10 - 2 / 10 * (0.2 / 0.8))


def test_a_risk_at_the_threshold_is_called():
    assert net_benefit(**ROWS, threshold=0.5) == pytest.approx(1 / 10 - 2 / 10 * (0.5 / 0.5))
    assert net_benefit(**ROWS, threshold=0.51) == pytest.approx(1 / 10)


def test_at_threshold_zero_all_are_called_and_net_benefit_is_the_prevalence():
    curve = curve_of(ROWS | {"person": np.arange(4)}, replicates=0)
    assert curve.prevalence == pytest.approx(0.4)
    assert curve.net_benefit["ours"][0] == pytest.approx(0.4)
    assert curve.treat_all == pytest.approx([0.4 - 0.6 * t / (1 - t) for t in THRESHOLDS])
    assert curve.treat_none.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("levels", [0, 2])
def test_net_benefit_is_that_of_dcurves(levels):
    rows = rows_of(40, 500, levels=levels, lost=0) | {"weight": np.ones(500)}
    theirs = dca(data=pd.DataFrame(rows), outcome="outcome", modelnames=["risk"], thresholds=THRESHOLDS)
    curve = curve_of(rows, replicates=0)
    for name, ours in {"risk": curve.net_benefit["ours"], "all": curve.treat_all, "none": curve.treat_none}.items():
        assert ours == pytest.approx(theirs.loc[theirs["model"] == name, "net_benefit"].to_numpy(), abs=1e-12), name


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_under_censoring_it_is_that_of_dcurves_where_called_and_not_called_are_weighed_each_by_themselves(threshold):
    rng = np.random.default_rng(41)
    risk = expit(rng.normal(-1, 1, 600))
    until, lost = rng.exponential(500 / risk), rng.exponential(2500, 600)
    time, observed = np.minimum(until, lost), until <= lost
    outcome, weight, called = np.zeros(600), np.zeros(600), risk >= threshold
    for some in (called, ~called):
        known = censoring_weights(time[some], observed[some], np.zeros(some.sum(), dtype=bool), 1000.0)
        outcome[some], weight[some] = known.outcome, known.weight
    frame = pd.DataFrame({"observed": observed, "risk": risk, "time": time})
    theirs = dca(
        data=frame,
        outcome="observed",
        modelnames=["risk"],
        thresholds=[threshold],
        time=1000.0,
        time_to_outcome_col="time",
    )
    expected = theirs.loc[theirs["model"] == "risk", "net_benefit"].item()
    assert net_benefit(outcome, risk, weight, threshold) == pytest.approx(expected, abs=1e-9)


def test_the_curve_is_net_benefit_at_each_threshold_for_each_risk():
    rows = rows_of(42, 400, levels=3)
    risks = {"ours": rows["risk"], "theirs": np.sqrt(rows["risk"])}
    curve = decision_curve(rows["outcome"], risks, rows["weight"], rows["person"], THRESHOLDS, replicates=0)
    for name, risk in risks.items():
        each = [net_benefit(rows["outcome"], risk, rows["weight"], threshold) for threshold in THRESHOLDS]
        assert curve.net_benefit[name] == pytest.approx(each, abs=1e-12)
    assert np.isnan(curve.lower["theirs"]).all()


def test_the_bounds_are_those_of_all_rows_of_the_persons_drawn_written_out():
    rows = rows_of(43, 300, levels=4)
    curve = curve_of(rows, replicates=40, seed=5)
    drawn = [without_person(replicate) for replicate in resampled(rows, 40, 5)]
    for bounds, ours in (
        ((curve.lower["ours"], curve.upper["ours"]), lambda r: r),
        ((curve.treat_all_lower, curve.treat_all_upper), lambda r: r | {"risk": np.ones_like(r["risk"])}),
    ):
        each = [
            [net_benefit(**ours(replicate), threshold=threshold) for threshold in THRESHOLDS] for replicate in drawn
        ]
        lower, upper = np.quantile(each, [0.025, 0.975], axis=0)
        assert bounds[0] == pytest.approx(lower, abs=1e-12)
        assert bounds[1] == pytest.approx(upper, abs=1e-12)


def test_the_difference_is_that_of_the_two_net_benefits_on_the_same_persons():
    rows = rows_of(44, 300, levels=3)
    other = np.clip(np.random.default_rng(1).normal(rows["risk"], 0.2), 0, 1)
    columns = (rows["outcome"], rows["risk"], other, rows["weight"], rows["person"])
    found = net_benefit_difference(*columns, 0.2, replicates=40, seed=2)

    def difference(r: dict[str, np.ndarray]) -> float:
        first, second = (net_benefit(r["outcome"], r[by], r["weight"], 0.2) for by in ("risk", "other"))
        return first - second

    drawn = [difference(replicate) for replicate in resampled(rows | {"other": other}, 40, 2)]
    expected = (difference(rows | {"other": other}), *np.quantile(drawn, [0.025, 0.975]))
    assert (found.estimate, found.lower, found.upper) == pytest.approx(expected, abs=1e-12)


def test_a_risk_is_worth_no_more_than_itself():
    rows = rows_of(45, 200)
    columns = (rows["outcome"], rows["risk"], rows["risk"], rows["weight"], rows["person"])
    assert net_benefit_difference(*columns, 0.3, replicates=10) == Estimate(0, 0, 0)


def test_without_weight_nothing_is_defined():
    rows = rows_of(46, 30) | {"weight": np.zeros(30)}
    curve = curve_of(rows, replicates=5)
    assert np.isnan([curve.prevalence, *curve.net_benefit["ours"], *curve.treat_all]).all()
    with pytest.raises(ValueError, match="Net benefit is not defined"):
        net_benefit(**without_person(rows), threshold=0.1)


@pytest.mark.parametrize("thresholds", [[], [0.2, 0.1], [0.1, 0.1], [-0.1, 0.5], [0.5, 1.0], [np.nan]])
def test_thresholds_that_cannot_be_are_refused(thresholds):
    with pytest.raises(ValueError, match="thresholds must rise, from 0 or more to below 1"):
        curve_of(rows_of(47, 20), np.array(thresholds))


def test_each_of_the_risks_is_checked_and_one_is_needed():
    rows = rows_of(48, 20, lost=0)
    for risks, sentence in (
        ({"ours": rows["risk"], "theirs": np.full(20, np.nan)}, "risk must be finite"),
        ({"ours": np.full(20, 1.5), "theirs": rows["risk"]}, "risk must be a probability"),
        ({}, "risks must name at least one"),
    ):
        with pytest.raises(ValueError, match=sentence):
            decision_curve(rows["outcome"], risks, rows["weight"], rows["person"], THRESHOLDS)


def test_the_bounds_are_the_same_on_any_number_of_processors(monkeypatch):
    found = []
    for processors in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        curve = curve_of(rows_of(49, 300), replicates=20, seed=3)
        found.append(np.stack([curve.lower["ours"], curve.upper["ours"], curve.treat_all_lower]))
    assert (found[0] == found[1]).all()
