"""Residents are drawn whole, by lot; and what learning from fewer of them costs."""

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from features.cohort import IndexTimes, Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import latest, maximum
from features.profile import Profile
from training import sampling
from training.fit import Rows, grow
from training.sampling import (
    BYTES_A_CELL,
    MEMORY,
    SHARE_OF_AVAILABLE,
    LearningCurve,
    learning_curve,
    lots,
    memory_budget,
    share_that_fits,
    take_persons,
)
from training.validate import Estimate

ENGINE = Engine(Profile(latest("sbp"), maximum("sbp"), latest("bmi")))
TARGET = Target("test", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("sbp",))
COHORT = pl.DataFrame({"subject_id": np.repeat(np.arange(1, 2001), 3), "row": np.arange(6000)})


def rows_of(residents: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(0, 1, (residents, 3)).astype(np.float32)
    outcome = rng.binomial(1, expit(matrix[:, 0] + 0.5 * matrix[:, 1] * (matrix[:, 2] > 0) - 0.5)).astype(float)
    names = ("sbp_latest", "sbp_max", "bmi_latest")
    return Rows(names, matrix, outcome, np.ones(residents), np.arange(residents))


@pytest.fixture(scope="module")
def curve() -> LearningCurve:
    rows = rows_of(2000)
    return learning_curve(rows, grow(rows, TARGET, ENGINE), TARGET, ENGINE)


def around(estimate: float, half: float = 0.002) -> Estimate:
    return Estimate(estimate, estimate - half, estimate + half)


def curve_of(aurocs: list[float], share: float, half: float = 0.002) -> LearningCurve:
    """What is known of residents in eighths of 80,000 with these AUROCs."""
    persons, found = (10_000, 20_000, 40_000, 80_000), tuple(map(around, aurocs))
    gains = [around(float(gain), half) for gain in np.diff(aurocs)]
    exponent, limit = sampling._power_law(persons, found, gains)
    return LearningCurve(persons, found, tuple(gains), (0.5,) * 4, 20_000, share, exponent, limit)


def test_all_rows_of_a_resident_are_taken_or_none():
    taken = take_persons(COHORT, 0.3, seed=0)
    assert set(taken.group_by("subject_id").len()["len"]) == {3}


def test_about_the_share_is_taken():
    # 2,000 residents by lot: a standard deviation of 20.5 around 600.
    assert take_persons(COHORT, 0.3, seed=0)["subject_id"].n_unique() == pytest.approx(600, abs=80)


def test_a_smaller_share_is_part_of_a_larger_one():
    fewer, more = (set(take_persons(COHORT, share, seed=0)["subject_id"]) for share in (0.2, 0.4))
    assert fewer < more


def test_another_seed_takes_others():
    first, second = (set(take_persons(COHORT, 0.3, seed)["subject_id"]) for seed in (0, 1))
    # Drawn independently, 0.09 of 2,000 are in both.
    assert len(first & second) == pytest.approx(180, abs=60)


def test_a_newcomer_changes_nobody_s_lot():
    before, after = (lots(np.arange(1, number), seed=3) for number in (1000, 1001))
    assert (after[:-1] == before).all()


def test_lots_do_not_follow_the_shards_of_the_store():
    # A shard's residents share the first bits of the same hash without a seed.
    of_a_shard = sampling.scrambled(np.arange(100_000)) >> np.uint64(60) == 0
    assert lots(np.arange(100_000), seed=0)[of_a_shard].mean() == pytest.approx(0.5, abs=0.02)


def test_all_are_taken_where_all_fit():
    assert share_that_fits(1000, 10, budget_bytes=10**9) == 1
    assert take_persons(COHORT, 1.0, seed=0) is COHORT


def test_the_share_is_the_budget_over_what_all_rows_would_need():
    # 5,000,000 rows of 285 features in 8 GB.
    assert share_that_fits(5_000_000, 285, 8 * 10**9) == pytest.approx(8e9 / (5e6 * 285 * BYTES_A_CELL))


def test_the_budget_is_what_the_variable_says(monkeypatch):
    monkeypatch.setenv(MEMORY, "1.5")
    assert memory_budget() == 1_500_000_000


@pytest.mark.parametrize("said", ["much", "0", "-2", "inf", "nan", ""])
def test_a_budget_that_is_no_number_above_zero_is_refused(monkeypatch, said):
    monkeypatch.setenv(MEMORY, said)
    with pytest.raises(WeibingError, match=f'WEIBING_MEMORY_GB is "{said}". Set it to the memory for training'):
        memory_budget()


def test_without_the_variable_a_share_of_what_is_free_may_be_used(monkeypatch, tmp_path):
    monkeypatch.delenv(MEMORY, raising=False)
    monkeypatch.setattr(sampling, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(sampling, "CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")
    assert memory_budget() == int(SHARE_OF_AVAILABLE * 4_000_000 * 1024)
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("500000000\n")
    assert memory_budget() == int(SHARE_OF_AVAILABLE * 1_500_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_budget() == int(SHARE_OF_AVAILABLE * 4_000_000 * 1024)


def test_the_curve_is_measured_on_an_eighth_a_quarter_half_and_all_of_those_learnt_from(curve):
    # Four fifths of 2,000 residents learn; by lot, so about.
    assert curve.persons[-1] == 1600
    assert np.array(curve.persons) / 1600 == pytest.approx([1 / 8, 1 / 4, 1 / 2, 1], abs=0.04)
    assert curve.held_out == 400


def test_more_residents_teach_more(curve):
    assert curve.auroc[-1].estimate > curve.auroc[0].estimate
    assert curve.log_loss[-1] < curve.log_loss[0]
    assert sum(gain.estimate for gain in curve.gains) == pytest.approx(
        curve.auroc[-1].estimate - curve.auroc[0].estimate, abs=1e-9
    )


def test_the_last_point_is_the_fit_itself(curve):
    grown = grow(rows_of(2000), TARGET, ENGINE)
    of_fit = sampling._auroc(rows_of(2000), grown.margin, seed=0).estimate
    assert curve.auroc[-1].estimate == pytest.approx(of_fit, abs=0.01)


def test_the_same_seed_gives_the_same_curve(curve):
    rows = rows_of(2000)
    assert learning_curve(rows, grow(rows, TARGET, ENGINE), TARGET, ENGINE) == curve


def test_sizes_with_too_few_outcomes_to_learn_from_are_left_out():
    # Some 160 outcomes among 400 learn, 20 of them in an eighth and 40 in a quarter.
    rows = rows_of(500)
    curve = learning_curve(rows, grow(rows, TARGET, ENGINE), TARGET, ENGINE)
    assert len(curve.persons) == 2
    assert curve.expected is None


def test_what_a_sample_costs_is_read_from_the_power_law_that_the_curve_follows():
    # 0.80 − 0.02 × (persons / 80,000) ** −0.5: four times the residents halve the distance to 0.80.
    curve = curve_of([0.80 - 0.02 * size**-0.5 for size in (1 / 8, 1 / 4, 1 / 2, 1)], share=0.25)
    assert curve.exponent == pytest.approx(0.5, abs=1e-3)
    assert curve.expected == pytest.approx(0.79, abs=1e-5)
    assert "from 25.0% of the residents at risk" in curve.said
    assert "all would raise the AUROC by 0.0100." in curve.said


def test_a_curve_that_falls_in_between_has_no_power_law():
    curve = curve_of([0.76, 0.77, 0.765, 0.78], share=0.25)
    assert curve.expected is None
    assert "The curve follows no power law" in curve.said
    assert "From 40,000 to 80,000 residents learnt from, the AUROC rises by 0.015 (0.013 to 0.017)." in curve.said


def test_a_curve_that_steepens_has_no_power_law():
    assert curve_of([0.76, 0.761, 0.765, 0.79], share=0.25, half=0.0005).expected is None


def test_a_curve_that_rises_unevenly_by_more_than_its_noise_has_no_power_law():
    # Gains of 0.016, 0.005 and 0.007: a law with falling gains passes between the last two.
    aurocs = [0.760, 0.776, 0.781, 0.788]
    assert curve_of(aurocs, share=0.25, half=0.0005).expected is None
    assert curve_of(aurocs, share=0.25, half=0.02).expected is not None


def test_where_all_residents_are_learnt_from_nothing_is_said_of_a_sample(curve):
    assert curve.said.startswith("From ")
