"""Weights that let those whose outcome is known stand for those who were lost."""

import numpy as np
import pytest
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from training.censoring import CensoringWeights, censoring_weights


def weights_of(table: str, horizon: float, **options: float) -> CensoringWeights:
    """Read rows of ``days | ended by``: outcome, death or lost."""
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()[1:]]
    days, ended = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows])
    return censoring_weights(days, ended == "outcome", ended == "death", horizon, **options)


def test_those_lost_hand_their_weight_to_those_still_there():
    weights = weights_of(
        """
        days | ended by
        2    | lost
        4    | outcome
        6    | lost
        8    | death
        12   | lost
        """,
        horizon=10,
    )
    at_2, at_6 = 4 / 5, 4 / 5 * 2 / 3
    assert weights.weight == pytest.approx([0, 1 / at_2, 0, 1 / at_6, 1 / at_6])
    assert weights.outcome.tolist() == [0, 1, 0, 0, 0]
    assert (weights.known, weights.censored) == (3, 2)
    assert weights.smallest_probability == pytest.approx(at_6)


def test_death_without_the_outcome_is_a_known_non_event():
    weights = weights_of("days | ended by\n 3 | death\n 10 | lost", horizon=10)
    assert weights.weight.tolist() == [1, 1]
    assert weights.outcome.tolist() == [0, 0]


def test_an_outcome_at_exactly_the_horizon_is_too_late():
    weights = weights_of("days | ended by\n 9.999 | outcome\n 10 | outcome\n 10.001 | outcome", horizon=10)
    assert weights.outcome.tolist() == [1, 0, 0]
    assert weights.weight.tolist() == [1, 1, 1]


def test_whoever_is_lost_at_exactly_the_horizon_was_followed_to_it():
    weights = weights_of("days | ended by\n 10 | lost\n 9.999 | lost", horizon=10)
    assert weights.weight.tolist() == [2, 0]


def test_an_outcome_at_the_index_time_counts():
    weights = weights_of("days | ended by\n 0 | outcome\n 0 | lost\n 10 | lost", horizon=10)
    assert weights.outcome.tolist() == [1, 0, 0]
    assert weights.weight.tolist() == [1, 0, 2]


def test_of_those_who_share_a_time_the_outcome_comes_before_the_loss():
    weights = weights_of("days | ended by\n 5 | lost\n 5 | outcome\n 5 | death\n 10 | lost", horizon=10)
    assert weights.weight.tolist() == [0, 1, 1, 2], "one of the two still there at 5 was lost then"


def test_what_happens_after_the_horizon_does_not_matter():
    rows = "days | ended by\n 2 | lost\n 4 | outcome\n {} | {}\n {} | {}"
    near = weights_of(rows.format(10, "lost", 10, "lost"), horizon=10)
    far = weights_of(rows.format(50, "outcome", 12, "lost"), horizon=10)
    assert near.weight.tolist() == far.weight.tolist()
    assert near.outcome.tolist() == far.outcome.tolist()


def random_rows(seed: int, rows: int, *, whole_days: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    time = rng.exponential(8, rows)
    ended = rng.integers(3, size=rows)
    return (np.floor(time) if whole_days else time), ended == 0, ended == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_weights_sum_to_the_number_of_rows_whatever_shares_a_time(seed):
    time, observed, died = random_rows(seed, 60, whole_days=True)
    time[0] = 10
    weights = censoring_weights(time, observed, died, 10, at_least=1e-9)
    assert weights.weight.sum() == pytest.approx(60)


def test_the_weights_are_those_of_scikit_survival_where_no_times_are_shared():
    time, observed, died = random_rows(1, 400, whole_days=False)
    survival = Surv.from_arrays(observed | died, time)
    theirs = CensoringDistributionEstimator().fit(survival).predict_ipcw(survival)
    ours = censoring_weights(time, observed, died, 15, at_least=1e-9).weight
    early = time < 15
    assert ours[early] == pytest.approx(theirs[early])


def test_a_probability_below_the_smallest_allowed_is_raised_to_it_and_counted():
    rows = "days | ended by\n" + "\n".join(["1 | lost"] * 8 + ["5 | outcome", "10 | lost"])
    weights = weights_of(rows, horizon=10, at_least=0.5)
    assert weights.weight.tolist() == [0] * 8 + [2, 2]
    assert weights.truncated == 2
    assert weights.smallest_probability == pytest.approx(0.2)


def test_nobody_known_is_said_and_not_hidden():
    weights = weights_of("days | ended by\n 1 | lost\n 2 | lost", horizon=10)
    assert (weights.known, weights.weight.tolist()) == (0, [0, 0])
    assert np.isnan(weights.smallest_probability)


def test_the_weighted_share_of_outcomes_is_unbiased_and_that_of_the_known_alone_is_not():
    rng = np.random.default_rng(0)
    true_share, weighted, known_alone = [], [], []
    for _ in range(20):
        outcome, death, lost = (rng.exponential(mean, 4000) for mean in (3000, 6000, 1000))
        time = np.minimum(np.minimum(outcome, death), lost)
        row = censoring_weights(time, time == outcome, time == death, 1000)
        true_share.append(np.mean((outcome < 1000) & (outcome < death)))
        weighted.append(np.average(row.outcome, weights=row.weight))
        known_alone.append(row.outcome[row.weight > 0].mean())
    assert np.mean(weighted) == pytest.approx(np.mean(true_share), abs=0.005)
    assert np.mean(known_alone) > np.mean(true_share) + 0.05, "early outcomes are known more often than a full term"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"time": np.array([1.0, -1.0])}, "time must be finite and not negative"),
        ({"time": np.array([1.0, np.nan])}, "time must be finite and not negative"),
        ({"time": np.array([1.0])}, "their shapes are"),
        ({"died": np.array([True, True])}, "cannot be both"),
        ({"horizon_days": 0.0}, "horizon_days must be above 0"),
        ({"at_least": 0.0}, "at_least in"),
    ],
)
def test_columns_that_cannot_be_are_refused(changed, sentence):
    columns = {
        "time": np.array([1.0, 2.0]),
        "observed": np.array([True, False]),
        "died": np.array([False, True]),
        "horizon_days": 10.0,
    }
    with pytest.raises(ValueError, match=sentence):
        censoring_weights(**(columns | changed))


def test_no_rows_at_all_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        censoring_weights(np.array([]), np.array([], dtype=bool), np.array([], dtype=bool), 10)
