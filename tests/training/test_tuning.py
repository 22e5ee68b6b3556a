"""The search for settings: seeded, resumable, shy of many leaves."""

import signal
import subprocess
import sys
import time
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, create_trial
from polars.testing import assert_frame_equal

from features.cohort import IndexTimes, Target
from features.engine import Engine
from features.errors import WeibingError
from features.measures import latest, maximum
from features.profile import Profile
from training import tuning
from training.fit import CANDIDATES, Rows, grow
from training.tuning import SPACE, tune

ENGINE = Engine(Profile(latest("sbp"), maximum("sbp"), latest("bmi")))
TARGET = Target("test", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("sbp",))
TRIALS = 6


def rows_of(residents: int = 300, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    outcome = rng.integers(0, 2, residents).astype(float)
    matrix = rng.normal(0, 1, (residents, 3)).astype(np.float32)
    matrix[:, 0] += outcome
    names = ("sbp_latest", "sbp_max", "bmi_latest")
    return Rows(names, matrix, outcome, np.ones(residents), np.arange(residents))


ROWS = rows_of()


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def undisturbed(studies):
    return tune(ROWS, TARGET, ENGINE, TRIALS, storage=studies)


def trial_of(leaves: int, folds: list[float]) -> FrozenTrial:
    """A trial that ended with these log-losses on the folds."""
    params = asdict(CANDIDATES[0]) | {"num_leaves": leaves}
    attributes = {"folds": folds, "rounds": 10}
    return create_trial(value=float(np.mean(folds)), params=params, distributions=SPACE, user_attrs=attributes)


def test_the_default_settings_are_tried_first(undisturbed):
    names = list(asdict(CANDIDATES[0]))
    tried = undisturbed.trials.select(names).rows()[: len(CANDIDATES)]
    assert tried == [astuple(trees) for trees in CANDIDATES]


def test_the_settings_found_are_those_with_the_least_log_loss_of_at_most_eight_leaves(undisturbed):
    few = undisturbed.trials.filter(undisturbed.trials["num_leaves"] <= 8)
    best = few.sort("log_loss", nulls_last=True).row(0, named=True)
    assert asdict(undisturbed.trees) == {name: best[name] for name in asdict(undisturbed.trees)}
    assert undisturbed.candidates[0] == undisturbed.trees


def test_a_trial_s_log_loss_is_that_of_the_fit_with_its_settings(undisturbed):
    grown = grow(ROWS, TARGET, ENGINE, candidates=CANDIDATES[:1])
    assert undisturbed.trials["log_loss"][0] == pytest.approx(float(grown.log_loss.min()), abs=1e-12)


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_tuning import ENGINE, ROWS, TARGET, TRIALS
from training.tuning import tune
tune(ROWS, TARGET, ENGINE, TRIALS, storage=Path(sys.argv[1]), progress=lambda said: print(said, flush=True))
"""


def test_a_search_that_was_killed_goes_on_to_the_same_end(undisturbed, tmp_path):
    storage, here = tmp_path / "studies", Path(__file__).parent
    command = [sys.executable, "-c", KILLED, *map(str, (storage, here, here.parent.parent))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        for _ in range(4):
            search.stdout.readline()
        time.sleep(0.05)
        search.send_signal(signal.SIGKILL)
    said: list[str] = []
    resumed = tune(ROWS, TARGET, ENGINE, TRIALS, storage=storage, progress=said.append)
    assert 1 <= len(said) <= TRIALS - 4
    # Two processes, one of which has loaded other libraries: the last bit of a log-loss may differ.
    assert_frame_equal(resumed.trials, undisturbed.trials, rel_tol=1e-12, abs_tol=0)
    assert resumed.candidates == undisturbed.candidates


def test_a_search_that_has_ended_is_not_made_again_and_fewer_trials_are_the_first_of_it(undisturbed, studies):
    said: list[str] = []
    fewer = tune(ROWS, TARGET, ENGINE, TRIALS - 1, storage=studies, progress=said.append)
    assert said == []
    assert fewer.trials.equals(undisturbed.trials[:-1])


def test_other_rows_or_another_seed_are_another_search(tmp_path):
    storage = tmp_path / "studies"
    tune(ROWS, TARGET, ENGINE, 1, storage=storage)
    tune(ROWS, TARGET, ENGINE, 1, storage=storage, seed=1)
    tune(rows_of(seed=1), TARGET, ENGINE, 1, storage=storage)
    assert len(optuna.get_all_study_names(f"sqlite:///{storage}/tuning.db")) == 3


def test_a_trial_that_lags_behind_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "TRIALS_BEFORE", 1)
    found = tune(ROWS, TARGET, ENGINE, 8, storage=tmp_path / "studies")
    given_up = found.trials.filter(found.trials["state"] == "given up")
    assert len(given_up) > 0
    assert given_up["log_loss"].is_null().all()
    assert f"Of 8 trials, {len(given_up)} were given up." in found.said


def test_two_searches_in_one_database_at_once_are_refused(tmp_path):
    storage = tmp_path / "studies"

    def another(said: str) -> None:
        tune(ROWS, TARGET, ENGINE, 1, storage=storage)

    with pytest.raises(WeibingError, match="Another search writes to "):
        tune(ROWS, TARGET, ENGINE, 1, storage=storage, progress=another)


def test_too_few_outcomes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(WeibingError, match="training needs 50"):
        tune(rows_of(60), TARGET, ENGINE, 1, storage=tmp_path / "studies")
    assert list(tmp_path.iterdir()) == []


def test_more_leaves_that_are_better_by_less_than_a_standard_error_are_not_taken():
    # Gains of 0.02, -0.01, 0.03, -0.02 and 0.01: a mean of 0.006, and a standard error of 0.0093.
    eight = trial_of(8, [0.50, 0.50, 0.50, 0.50, 0.50])
    sixteen = trial_of(16, [0.48, 0.51, 0.47, 0.52, 0.49])
    found = tuning._tuned([eight, sixteen])
    assert (found.trees.num_leaves, found.needed_more_leaves) == (8, False)
    assert "One with 16 leaves was better by 0.00600 (standard error over the folds 0.00927)" in found.said


def test_more_leaves_that_are_better_by_more_than_a_standard_error_are_taken_and_that_is_said():
    eight = trial_of(8, [0.50, 0.50, 0.50, 0.50, 0.50])
    sixteen = trial_of(16, [0.48, 0.49, 0.47, 0.49, 0.48])
    found = tuning._tuned([eight, sixteen])
    assert (found.trees.num_leaves, found.needed_more_leaves) == (16, True)
    assert "more are needed" in found.said


def test_what_is_best_without_a_fold_is_a_candidate_as_well():
    # Over all folds 4 leaves are best; without the first fold, on which they shine, 2 are.
    four = trial_of(4, [0.30, 0.52, 0.52, 0.52, 0.52])
    two = trial_of(2, [0.60, 0.50, 0.50, 0.50, 0.50])
    found = tuning._tuned([trial_of(8, [0.9] * 5), four, two])
    assert [trees.num_leaves for trees in found.candidates] == [4, 2]


def test_the_default_settings_lie_in_the_space_that_is_searched():
    for trees in CANDIDATES:
        for name, value in asdict(trees).items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


def test_a_search_says_nothing_on_stdout_or_stderr(tmp_path, capfd):
    tune(ROWS, TARGET, ENGINE, 2, storage=tmp_path / "studies")
    assert capfd.readouterr() == ("", "")


def test_every_setting_of_trees_is_searched():
    assert list(SPACE) == list(asdict(CANDIDATES[0]))
