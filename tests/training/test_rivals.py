"""Rivals on the model's own rows: raw, recalibrated on the other folds, for whom, and how wide the range is."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from features.cohort import Cohort, IndexTimes, Target
from features.profile import PROFILE
from training.censoring import CensoringWeights
from training.comparators.ckd_pc_incident import CKD_PC_INCIDENT
from training.comparators.framingham_hypertension import FRAMINGHAM_HYPERTENSION
from training.comparators.registry import COMPARATORS
from training.fit import Grown, Recipe, Rows, Trees
from training.fitted import Fitted
from training.rivals import LOGISTIC, Rival, differs, gives_of, rivals, scores_for
from training.sample import Sample
from training.targets import HYPERTENSION
from training.validate import auroc

N = 1200
KNOWN = {
    "bmi_latest": 24.0,
    "female": 1.0,
    "smoking_latest": 0.0,
    "family_history_hypertension": 0.0,
    "dbp_latest": 80.0,
}
TARGET = replace(HYPERTENSION, comparators=("framingham_hypertension_4y", "systolic_pressure", "national_high_risk"))


def sample_of(target: Target = TARGET, *, measured: float = 1.0, seed: int = 0) -> Sample:
    """Draw residents whose risk rises with systolic pressure and age; of a share the pressure was measured."""
    rng = np.random.default_rng(seed)
    age, sbp = rng.uniform(35, 75, N), rng.normal(125, 8, N)
    risk = 1 / (1 + np.exp(1.5 - 0.12 * (sbp - 125) - 0.05 * (age - 55)))
    outcome, weight = (rng.random(N) < risk).astype(float), np.where(rng.random(N) < 0.1, 0.0, 1.1)
    columns = {name: np.full(N, np.nan) for name in PROFILE.names}
    columns |= {name: np.full(N, value) for name, value in KNOWN.items()} | {"age": age}
    columns["sbp_latest"] = np.where(rng.random(N) < measured, sbp, np.nan)
    keys = {"subject_id": np.arange(N), "index_time": pl.Series([datetime(2020, 1, 1)]).new_from_index(0, N)}
    profiles = pl.DataFrame({**keys, **columns}).with_columns(pl.selectors.float().fill_nan(None).cast(pl.Float32))
    rows = pl.DataFrame(keys).with_columns(observed=outcome > 0, died=False, time=100.0)
    weights = CensoringWeights(weight, outcome, int((weight > 0).sum()), int((weight == 0).sum()), 0, 1.0)
    return Sample(Cohort(target, rows), profiles, pl.DataFrame(keys), weights, rows)


def shown(sample: Sample, risk: np.ndarray | None = None) -> dict[str, Rival]:
    """Measure the rivals beside a model that gives these risks."""
    matrix = sample.profiles.select("age", "sbp_latest").to_numpy()
    rows = Rows(("age", "sbp_latest"), matrix, sample.outcome, sample.weight, sample.person)
    risk = np.full(N, 0.5) if risk is None else risk
    margin = np.log(risk / (1 - risk))
    recipe = Recipe(Trees(8, 0.05, 20, 5.0, 0.5, 0.7), 1)
    grown = Grown(Fitted("", None, 0.0), (), margin, risk, np.arange(N) % 5, recipe, np.zeros(1), 0)
    return {rival.name: rival for rival in rivals(sample, rows, grown)}


@pytest.fixture(scope="module")
def half_measured() -> tuple[Sample, dict[str, Rival]]:
    sample = sample_of(measured=0.5)
    return sample, shown(sample)


def test_the_regression_comes_first_and_is_computed_for_everybody(half_measured):
    _, found = half_measured
    first = next(iter(found.values()))
    assert first.name == LOGISTIC
    assert first.computable == 1
    assert first.range_width is None
    assert np.isfinite(first.risk).all()
    assert first.recalibrated.metrics["auroc"].estimate > 0.6


def test_a_score_is_measured_on_the_rows_on_which_it_can_be_computed(half_measured):
    sample, found = half_measured
    score = found["framingham_hypertension_4y"]
    computed = ~np.isnan(sample.profiles["sbp_latest"].to_numpy())
    known = computed & (sample.weight > 0)
    assert score.raw.n == score.recalibrated.n == known.sum()
    assert score.computable == pytest.approx(sample.weight[known].sum() / sample.weight.sum())
    assert (np.isfinite(score.risk) == computed).all()


def test_where_a_score_cannot_be_computed_the_width_of_its_bounds_is_told(half_measured):
    """A pressure of 80 to 220 mmHg is anything from hardly a risk to a sure one; for points it is 140 mmHg."""
    _, found = half_measured
    assert found["systolic_pressure"].range_width == 140
    assert 0.9 < found["framingham_hypertension_4y"].range_width <= 1


def test_a_risk_is_shown_raw_and_points_only_recalibrated(half_measured):
    _, found = half_measured
    assert found["framingham_hypertension_4y"].gives == "risk"
    assert found["systolic_pressure"].gives == "points"
    assert found["systolic_pressure"].raw is None
    assert found["systolic_pressure"].recalibrated.metrics["observed_to_expected"].estimate == pytest.approx(
        1, abs=0.02
    )


def test_recalibration_mends_the_level_of_a_risk_and_learns_nothing_from_a_row_s_own_fold():
    sample = sample_of()
    before = shown(sample)["framingham_hypertension_4y"]
    turned = np.where(np.arange(N) % 5 == 3, 1 - sample.outcome, sample.outcome)
    after = shown(replace(sample, weights=replace(sample.weights, outcome=turned)))["framingham_hypertension_4y"]
    assert abs(before.raw.metrics["observed_to_expected"].estimate - 1) > 0.05
    assert before.recalibrated.metrics["observed_to_expected"].estimate == pytest.approx(1, abs=0.02)
    assert (before.risk[3::5] == after.risk[3::5]).all()
    assert (before.risk[4::5] != after.risk[4::5]).all()


def test_the_difference_is_that_of_the_areas_on_the_same_rows(half_measured):
    sample, _ = half_measured
    model = sample.profiles["age"].to_numpy() / 100
    pressure = sample.profiles["sbp_latest"].to_numpy()
    of = np.isfinite(pressure) & (sample.weight > 0)
    areas = [auroc(sample.outcome[of], each[of], sample.weight[of]) for each in (model, pressure)]
    assert shown(sample, model)["systolic_pressure"].difference.estimate == pytest.approx(areas[0] - areas[1])


def test_a_score_that_nearly_nobody_has_is_not_measured():
    sample = sample_of(measured=0.01)
    score = shown(sample)["systolic_pressure"]
    assert 0 < score.computable < 0.02
    assert score.raw is score.recalibrated is score.difference is None
    assert np.isnan(score.risk).all()


def test_a_score_that_ranks_backwards_gives_everybody_the_mean_and_says_so():
    sample = sample_of()
    backwards = sample.profiles.with_columns(sbp_latest=250 - pl.col("sbp_latest"))
    score = shown(replace(sample, profiles=backwards))["systolic_pressure"]
    assert score.recalibrated.metrics["observed_to_expected"].estimate == pytest.approx(1, abs=0.05)
    assert len(np.unique(score.risk)) <= 5
    assert "backwards" in score.note_en
    assert "平均风险" in score.note_zh


def test_a_score_says_where_its_outcome_or_horizon_is_another():
    target = Target("stroke", ("stroke",), "4y", IndexTimes(every="1y"), comparators=("framingham_hypertension_1y",))
    score = shown(sample_of(target))["framingham_hypertension_1y"]
    assert "another outcome" in score.note_en
    assert "Its horizon is 1, the target's 4 years." in score.note_en
    assert "结局与本目标不同" in score.note_zh
    assert differs(FRAMINGHAM_HYPERTENSION[2], HYPERTENSION) == (False, False)
    assert differs(CKD_PC_INCIDENT[0], replace(HYPERTENSION, horizon="5y")) == (True, False)


def test_a_target_is_compared_with_the_scores_it_names_or_those_listed_under_its_name():
    assert [score.name for score in scores_for(TARGET)] == list(TARGET.comparators)
    assert scores_for(replace(TARGET, comparators=())) == COMPARATORS["hypertension"]
    assert scores_for(replace(TARGET, name="other", comparators=())) == ()


def test_risks_that_are_known_to_be_off_only_rank():
    ranking = [score.name for score in COMPARATORS["diabetes_complication"] if gives_of(score) == "ranking"]
    assert len(ranking) == 6
    assert all(name.startswith("recode_") for name in ranking)
