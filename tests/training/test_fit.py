"""How trees are grown: folds by person, features that can teach, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from features.cohort import IndexTimes, Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import count, latest, maximum, slope
from features.profile import Profile
from training.fit import FOLDS, Rows, grow, monotone, person_folds, usable_features

ENGINE = Engine(
    Profile(latest("sbp"), maximum("sbp"), count("sbp"), slope("sbp"), latest("hdl"), count("fall"), latest("bmi"))
)
TARGET = Target("test", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("sbp", "fall"), decreasing=("hdl",))


def rows_of(outcome: np.ndarray, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    sbp = rng.normal(130, 15, len(outcome)) + 10 * outcome
    matrix = np.column_stack([sbp, sbp, rng.integers(0, 5, len(outcome))]).astype(np.float32)
    names = ("sbp_latest", "sbp_max", "sbp_count")
    return Rows(names, matrix, outcome.astype(float), np.ones(len(outcome)), np.arange(len(outcome)))


def test_all_rows_of_a_person_fall_into_one_fold():
    person = np.array([5, 7, 5, 9, 9, 9, 11, 13, 15, 5])
    fold = person_folds(person, np.zeros(10), seed=3)
    for one in np.unique(person):
        assert len(set(fold[person == one])) == 1


def test_persons_with_the_outcome_are_spread_evenly_over_folds():
    outcome = np.zeros(1000)
    outcome[:50] = 1
    fold = person_folds(np.arange(1000), outcome, seed=0)
    assert np.bincount(fold[:50]).tolist() == [50 // FOLDS] * FOLDS
    assert np.bincount(fold).tolist() == [1000 // FOLDS] * FOLDS


def test_features_never_known_always_the_same_or_moving_either_way_are_left_out_and_listed():
    names = ["sbp_latest", "sbp_max", "sbp_count", "sbp_slope", "hdl_latest"]
    nan = np.nan
    matrix = np.array([[120, 150, 3, 1, nan], [140, 150, 3, 2, nan], [nan, 150, 2, nan, nan]], np.float32)
    kept, dropped = usable_features(names, matrix, TARGET, ENGINE)
    assert kept == ("sbp_latest", "sbp_count")
    assert dropped == {
        "sbp_max": "always the same",
        "sbp_slope": "a worse sbp could move it either way",
        "hdl_latest": "never known",
    }


def test_a_feature_that_is_only_sometimes_known_can_teach():
    kept, _ = usable_features(["sbp_latest"], np.array([[120], [np.nan]], np.float32), TARGET, ENGINE)
    assert kept == ("sbp_latest",)


def test_a_feature_that_repeats_an_earlier_one_is_left_out():
    nan = np.nan
    matrix = np.array([[120, 120, 121], [nan, nan, nan], [140, 140, 140]], np.float32)
    kept, dropped = usable_features(["sbp_latest", "sbp_max", "bmi_latest"], matrix, TARGET, ENGINE)
    assert kept == ("sbp_latest", "bmi_latest")
    assert dropped == {"sbp_max": "the same as sbp_latest in every row"}


def test_a_target_may_name_its_predictors():
    matrix = np.array([[120, 24], [140, 30]], np.float32)
    asked = replace(TARGET, predictors=("bmi",))
    kept, dropped = usable_features(["sbp_latest", "bmi_latest"], matrix, asked, ENGINE)
    assert kept == ("bmi_latest",)
    assert dropped == {"sbp_latest": "not among the target's predictors"}


def test_constraints_follow_the_concepts_that_the_target_declares():
    names = ("sbp_latest", "sbp_max", "sbp_count", "hdl_latest", "fall_count", "bmi_latest")
    assert monotone(names, TARGET, ENGINE) == [1, 1, 0, -1, 1, 0]


def test_risks_of_a_fold_come_from_a_fit_that_did_not_see_it():
    outcome = np.tile([0, 0, 0, 1], 150)
    rows = rows_of(outcome)
    grown = grow(rows, TARGET, ENGINE)
    for fold, fitted in enumerate(grown.folds):
        test = grown.fold == fold
        alone = fitted.margin(rows.matrix[test])
        # Rounds of a fold are chosen on the others, so a fold's own model may be a little shorter or longer.
        assert np.corrcoef(alone, grown.margin[test])[0, 1] > 0.98
    assert grown.risk.mean() == pytest.approx(0.25, abs=0.02)


def test_too_few_outcomes_are_refused_with_the_number_found_and_needed():
    outcome = np.zeros(500)
    outcome[:12] = 1
    with pytest.raises(WeibingError, match="has 12 outcomes in these records; training needs 50"):
        grow(rows_of(outcome), TARGET, ENGINE)


def test_too_few_rows_without_the_outcome_are_refused():
    outcome = np.ones(500)
    outcome[:9] = 0
    with pytest.raises(WeibingError, match="has 9 rows without the outcome"):
        grow(rows_of(outcome), TARGET, ENGINE)
