"""How a model holds in each group, and what is said of groups too small."""

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from features.cohort import Cohort, IndexTimes, Target
from training.censoring import CensoringWeights
from training.groups import GROUPINGS
from training.sample import Sample
from training.subgroups import SUBGROUP_METRICS, Subgroup, gaps, subgroups
from training.validate import validate

TARGET = Target("fall", ("fall",), "1y", IndexTimes(every="1y"), tiers=(0.1, 0.5, 0.8))


def sample_of(
    groups: Mapping[str, list[str | None]],
    outcome: np.ndarray,
    weight: np.ndarray | None = None,
    person: np.ndarray | None = None,
) -> Sample:
    """Make a sample of rows with an outcome, in groups; a person each unless said otherwise."""
    n = len(outcome)
    person = np.arange(n) if person is None else person
    weight = np.ones(n) if weight is None else weight
    weights = CensoringWeights(weight, outcome.astype(np.float64), n, 0, 0, 1.0)
    rows = pl.DataFrame({"subject_id": person})
    return Sample(Cohort(TARGET, rows), rows, pl.DataFrame(groups), weights, everybody=rows)


def by_value(found: tuple[Subgroup, ...]) -> dict[str, Subgroup]:
    return {subgroup.value: subgroup for subgroup in found}


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw risks, and outcomes that come with them."""
    rng = np.random.default_rng(seed)
    risk = rng.uniform(0.05, 0.95, n)
    return risk, (rng.random(n) < risk).astype(np.float64)


def test_figures_are_weighted_shares_by_hand() -> None:
    # High from 0.5 on: of four women of weight 1, 1, 2, 2 two are selected, of weight 3; outcomes weigh 1 + 2.
    risk = np.tile([0.9, 0.6, 0.3, 0.2], 5)
    outcome = np.tile([1.0, 0.0, 1.0, 0.0], 5)
    weight = np.tile([1.0, 2.0, 2.0, 1.0], 5)
    metrics = subgroups(sample_of({"sex": ["female"] * 20}, outcome, weight), risk)[0].metrics
    assert metrics is not None
    assert metrics["sensitivity"].estimate == pytest.approx(1 / 3)
    assert metrics["ppv"].estimate == pytest.approx(1 / 3)
    assert metrics["selection_rate"].estimate == pytest.approx(3 / 6)
    assert metrics["observed_to_expected"].estimate == pytest.approx(3 / (0.9 + 1.2 + 0.6 + 0.2))


def test_a_group_by_itself_is_the_whole() -> None:
    risk, outcome = drawn(600)
    person = np.arange(600) // 2
    weight = np.linspace(0.5, 2, 600)
    only = subgroups(sample_of({"sex": ["male"] * 600}, outcome, weight, person), risk, seed=3, replicates=100)[0]
    whole = validate(outcome, risk, weight, person, replicates=100, seed=3)
    assert only.metrics is not None
    assert (only.n, only.residents, only.events, only.reason) == (whole.n, whole.residents, whole.events, "")
    for name in ("auroc", "calibration_slope", "observed_to_expected"):
        ours, theirs = only.metrics[name], whole.metrics[name]
        assert (ours.estimate, ours.lower, ours.upper) == pytest.approx(
            (theirs.estimate, theirs.lower, theirs.upper), abs=1e-6
        )


def test_fewer_than_ten_residents_are_never_shown_with_figures() -> None:
    risk, outcome = drawn(209)
    # Nine residents with eleven rows: rows are not residents.
    person = np.concatenate([np.arange(198), [1000, 1000, 1000, *range(1001, 1009)]])
    groups = {"township": ["Baishi"] * 198 + ["Qingxi"] * 11}
    found = by_value(subgroups(sample_of(groups, outcome, person=person), risk, replicates=20))
    assert found["Qingxi"].metrics is None
    assert found["Qingxi"].reason == "fewer than 10 residents"
    assert found["Baishi"].metrics is not None


def test_few_outcomes_give_no_ranking_and_no_slope() -> None:
    risk, _ = drawn(100)
    outcome = np.zeros(100)
    outcome[:19] = 1
    found = subgroups(sample_of({"sex": ["male"] * 100}, outcome), risk, replicates=50)[0]
    assert found.metrics is not None
    assert found.reason == "fewer than 20 outcomes: no AUROC and no slope"
    assert {name for name, metric in found.metrics.items() if math.isnan(metric.estimate)} == {
        *("auroc", "calibration_slope")
    }


def test_few_non_outcomes_say_so_too() -> None:
    risk, _ = drawn(100)
    found = subgroups(sample_of({"sex": ["male"] * 100}, np.arange(100) >= 10), risk, replicates=50)[0]
    assert found.reason == "fewer than 20 non-outcomes: no AUROC and no slope"


def test_an_unknown_outcome_counts_nowhere() -> None:
    risk, outcome = drawn(100)
    weight = np.ones(100)
    weight[:30] = 0
    outcome[:30] = 1 - outcome[:30]
    sample, shorter = (
        sample_of({"sex": ["male"] * 100}, outcome, weight),
        sample_of({"sex": ["male"] * 70}, outcome[30:]),
    )
    left_out, absent = (subgroups(s, r, replicates=20)[0].metrics for s, r in ((sample, risk), (shorter, risk[30:])))
    assert left_out == absent


def test_an_unknown_group_is_no_group() -> None:
    risk, outcome = drawn(100)
    found = subgroups(sample_of({"sex": ["male"] * 50 + [None] * 50}, outcome), risk, replicates=20)
    assert [(subgroup.value, subgroup.n) for subgroup in found] == [("male", 50)]


def test_groups_come_by_grouping_and_in_natural_order() -> None:
    risk, outcome = drawn(90)
    bands = list(reversed(GROUPINGS["record_years"])) * 22 + ["<1", "<1"]
    groups = {"sex": ["male", "female"] * 45, "record_years": bands}
    found = subgroups(sample_of(groups, outcome), risk, replicates=10)
    assert [subgroup.value for subgroup in found] == ["female", "male", "<1", "1-2", "3-5", "6+"]


def test_every_metric_has_its_place() -> None:
    risk, outcome = drawn(300)
    metrics = subgroups(sample_of({"sex": ["male"] * 300}, outcome), risk, replicates=50)[0].metrics
    assert metrics is not None
    assert tuple(metrics) == SUBGROUP_METRICS
    # The interval is of the same number: it holds the estimate, which the draws scatter about.
    assert all(metric.lower < metric.estimate < metric.upper for metric in metrics.values())


def test_a_gap_is_the_largest_less_the_smallest_that_is_told() -> None:
    outcome = np.tile([1.0, 0.0], 60)
    # Women half, men a quarter above the threshold, and of four strangers nothing is told.
    risk = np.concatenate([np.tile([0.9, 0.1], 30), np.tile([0.9, 0.1, 0.1, 0.1], 14), [0.9] * 4])
    groups = {"sex": ["female"] * 60 + ["male"] * 56 + ["unknown"] * 4}
    found = subgroups(sample_of(groups, outcome), risk, replicates=10)
    selected = next(gap for gap in gaps(found) if gap.metric == "selection_rate")
    assert (selected.grouping, selected.lowest, selected.highest) == ("sex", "male", "female")
    assert selected.gap == pytest.approx(0.25)


def test_no_rows_with_a_known_outcome_are_no_groups() -> None:
    risk, outcome = drawn(20)
    assert subgroups(sample_of({"sex": ["male"] * 20}, outcome, np.zeros(20)), risk) == ()


def test_a_risk_that_is_no_number_is_a_mistake() -> None:
    risk, outcome = drawn(20)
    risk[3] = math.nan
    with pytest.raises(ValueError, match="risk must be finite"):
        subgroups(sample_of({"sex": ["male"] * 20}, outcome), risk)
