"""Whether those who get the outcome were given the higher risks."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tests.training.test_validate import columns_of, resampled, rows_of, without_person
from training.validate import (
    Estimate,
    TopShare,
    auroc,
    average_precision,
    brier,
    paired_difference,
    roc_curve,
    top_share,
)

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


TOP = columns_of(
    """
    outcome | risk | weight
    1       | 0.9  | 1
    0       | 0.8  | 1
    1       | 0.5  | 3
    0       | 0.5  | 1
    0       | 0.1  | 4
    """
)


def test_the_top_share_is_one_of_the_weight():
    assert top_share(**TOP, share=0.2) == TopShare(sensitivity=1 / (1 + 3), ppv=1 / 2)


def test_of_a_tie_at_the_border_a_part_is_called():
    half_the_tie = (5 - 1 - 1 - 1) / (3 + 1) + 0.25
    assert half_the_tie == 0.75
    found = 1 + half_the_tie * 3
    top = top_share(**TOP, share=0.5)
    assert (top.sensitivity, top.ppv) == pytest.approx((found / (1 + 3), found / 5))


def test_a_row_heavier_than_the_share_is_called_in_part():
    top = top_share(np.array([1.0, 0]), np.array([0.9, 0.1]), np.array([4.0, 6]), 0.1)
    assert (top.sensitivity, top.ppv) == pytest.approx((1 / 4, 1))


@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_among_equal_risks_a_share_finds_its_share(share):
    rows = without_person(rows_of(24, 300)) | {"risk": np.full(300, 0.3)}
    prevalence = np.average(rows["outcome"], weights=rows["weight"])
    top = top_share(**rows, share=share)
    assert (top.sensitivity, top.ppv) == pytest.approx((share, prevalence))


def test_without_weights_and_ties_the_top_share_is_that_of_the_first_rows():
    rows = without_person(rows_of(25, 1000, lost=0)) | {"weight": np.ones(1000)}
    called = np.argsort(-rows["risk"])[:50]
    top = top_share(**rows, share=0.05)
    assert top.sensitivity == pytest.approx(sk.recall_score(rows["outcome"], np.isin(np.arange(1000), called)))
    assert top.ppv == pytest.approx(sk.precision_score(rows["outcome"], np.isin(np.arange(1000), called)))


@pytest.mark.parametrize("share", [0.0, 1.1, np.nan])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        top_share(**TOP, share=share)


def test_the_top_share_without_outcomes_has_no_sensitivity():
    with pytest.raises(ValueError, match="The sensitivity is not defined"):
        top_share(**(TOP | {"outcome": np.zeros(5)}), share=0.1)
