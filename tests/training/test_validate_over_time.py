"""Discrimination by days of follow-up."""

import os

import numpy as np
import pytest
from sksurv.metrics import cumulative_dynamic_auc
from sksurv.util import Surv

from tests.training.test_validate import columns_of
from training.censoring import censoring_weights
from training.validate import TimeDependentAuc, auroc, time_dependent_auc

DAYS = np.array([200.0, 500, 900, 1300])


def follow_up(seed: int, rows: int, *, deaths: bool = False, levels: int = 0, a_person: int = 1) -> dict:
    """Rows whose risk shortens the time to the outcome; some are lost, some die."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(0, 1, rows)
    risk = np.round(risk * levels) / levels if levels else risk
    until, lost = 1500 * rng.exponential(np.exp(-risk)), rng.exponential(1800, rows)
    death = rng.exponential(2500, rows) if deaths else np.full(rows, np.inf)
    time = np.minimum.reduce([until, lost, death])
    person = rng.integers(max(rows // a_person, 1), size=rows) if a_person > 1 else np.arange(rows)
    return {"time": time, "observed": time == until, "died": time == death, "risk": risk, "person": person}


def estimates(found: TimeDependentAuc) -> list[float]:
    return [each.estimate for each in found.auc]


def drawn_rows(table: str) -> dict:
    rows = columns_of(table)
    return rows | {name: rows[name] == 1 for name in ("observed", "died")} | {"person": np.arange(rows["risk"].size)}


def test_cases_are_those_before_the_day_and_controls_all_who_may_still_come():
    rows = drawn_rows(
        """
        time | observed | died | risk
        10   | 1        | 0    | 4
        20   | 1        | 0    | 2
        30   | 1        | 0    | 3
        40   | 0        | 0    | 1
        """
    )
    found = time_dependent_auc(**rows, days=np.array([15.0, 20, 25]), replicates=0)
    assert estimates(found) == pytest.approx([3 / 3, 3 / 3, (2 + 1) / (2 * 2)])


def test_who_died_without_the_outcome_is_a_control_for_ever():
    rows = drawn_rows(
        """
        time | observed | died | risk
        10   | 0        | 1    | 3
        20   | 1        | 0    | 2
        40   | 0        | 0    | 1
        """
    )
    assert estimates(time_dependent_auc(**rows, days=np.array([30.0]), replicates=0)) == pytest.approx([1 / 2])


def test_who_is_lost_is_a_control_until_then_and_the_others_stand_in_after():
    rows = drawn_rows(
        """
        time | observed | died | risk
        10   | 1        | 0    | 2
        15   | 0        | 0    | 5
        20   | 1        | 0    | 4
        30   | 0        | 1    | 3
        40   | 0        | 0    | 1
        """
    )
    found = time_dependent_auc(**rows, days=np.array([12.0, 35]), replicates=0)
    stand_in = 1 / (1 - 1 / 4)
    over, pairs = stand_in * 2 * stand_in + 1 * stand_in, (1 + stand_in) * 2 * stand_in
    assert estimates(found) == pytest.approx([1 / 4, over / pairs])


def test_who_is_followed_to_the_very_day_is_a_control():
    rows = drawn_rows(
        """
        time | observed | died | risk
        10   | 1        | 0    | 2
        40   | 0        | 0    | 3
        40   | 0        | 0    | 1
        """
    )
    assert estimates(time_dependent_auc(**rows, days=np.array([40.0]), replicates=0)) == pytest.approx([1 / 2])


def test_a_mean_weighs_each_day_by_those_who_came_since_the_one_before():
    rows = drawn_rows(
        """
        time | observed | died | risk
        10   | 1        | 0    | 4
        20   | 1        | 0    | 1
        25   | 1        | 0    | 2
        40   | 0        | 0    | 3
        """
    )
    found = time_dependent_auc(**rows, days=np.array([15.0, 30]), replicates=0)
    assert estimates(found) == pytest.approx([1, 1 / 3])
    assert found.mean.estimate == pytest.approx((1 * 1 + 2 * (1 / 3)) / 3)


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("seed", [50, 51])
def test_without_deaths_it_is_that_of_scikit_survival(seed, levels):
    rows = follow_up(seed, 500, levels=levels)
    truth = Surv.from_arrays(rows["observed"], rows["time"])
    theirs, mean = cumulative_dynamic_auc(truth, truth, rows["risk"], DAYS)
    found = time_dependent_auc(**rows, days=DAYS, replicates=0)
    assert estimates(found) == pytest.approx(theirs.tolist(), abs=1e-12)
    assert found.mean.estimate == pytest.approx(mean, abs=1e-12)


def test_with_deaths_it_is_at_each_day_the_auroc_under_the_weights_of_that_day():
    rows = follow_up(52, 600, deaths=True)
    for day, found in zip(DAYS, estimates(time_dependent_auc(**rows, days=DAYS, replicates=0)), strict=True):
        known = censoring_weights(rows["time"], rows["observed"], rows["died"], day)
        assert found == pytest.approx(auroc(known.outcome, rows["risk"], known.weight), abs=1e-12)


def test_weighted_under_censoring_it_comes_near_what_no_censoring_would_show():
    rng = np.random.default_rng(53)
    risk = rng.normal(0, 1, 20_000)
    until, lost = 1500 * rng.exponential(np.exp(-risk)), rng.exponential(1000, 20_000)
    never, person = np.zeros(20_000, dtype=bool), np.arange(20_000)
    whole = time_dependent_auc(until, ~never, never, risk, person, DAYS, replicates=0)
    lossy = time_dependent_auc(np.minimum(until, lost), until <= lost, never, risk, person, DAYS, replicates=0)
    assert estimates(lossy) == pytest.approx(estimates(whole), abs=0.015)


def test_the_intervals_are_those_of_all_rows_of_the_persons_drawn_written_out_with_the_weights_of_all():
    rows = follow_up(54, 300, deaths=True, levels=3, a_person=3)
    found = time_dependent_auc(**rows, days=DAYS, replicates=40, seed=4)
    persons, each = np.unique(rows["person"]), []
    for stream in np.random.SeedSequence(4).spawn(40):
        chosen = persons[np.random.default_rng(stream).integers(persons.size, size=persons.size)]
        places = np.concatenate([np.flatnonzero(rows["person"] == person) for person in chosen])
        known = [censoring_weights(rows["time"], rows["observed"], rows["died"], day) for day in DAYS]
        aucs = [auroc(k.outcome[places], rows["risk"][places], k.weight[places]) for k in known]
        cases = np.diff([k.outcome[places] @ k.weight[places] for k in known], prepend=0)
        each.append([*aucs, np.average(aucs, weights=cases)])
    lower, upper = np.quantile(each, [0.025, 0.975], axis=0)
    assert [estimate.lower for estimate in (*found.auc, found.mean)] == pytest.approx(lower.tolist(), abs=1e-9)
    assert [estimate.upper for estimate in (*found.auc, found.mean)] == pytest.approx(upper.tolist(), abs=1e-9)


def test_a_day_before_the_first_outcome_is_not_defined_and_leaves_the_mean_to_the_others():
    rows = follow_up(55, 200)
    first = rows["time"][rows["observed"]].min()
    found = time_dependent_auc(**rows, days=np.array([first, 700.0]), replicates=5)
    assert [str(found.auc[0]), found.mean.estimate] == ["not defined", found.auc[1].estimate]


def test_no_outcome_at_all_defines_nothing():
    rows = follow_up(56, 50) | {"observed": np.zeros(50, dtype=bool)}
    found = time_dependent_auc(**rows, days=DAYS, replicates=5)
    assert {str(each) for each in (*found.auc, found.mean)} == {"not defined"}


@pytest.mark.parametrize("days", [[], [0.0], [200.0, 100], [100.0, 100], [np.nan]])
def test_days_that_cannot_be_are_refused(days):
    with pytest.raises(ValueError, match="days must rise, from above 0"):
        time_dependent_auc(**follow_up(57, 20), days=np.array(days))


def test_a_risk_is_needed_of_every_row_also_of_the_lost():
    rows = follow_up(58, 20)
    rows["risk"][np.argmin(rows["observed"])] = np.nan
    with pytest.raises(ValueError, match="risk must be finite"):
        time_dependent_auc(**rows, days=DAYS)


def test_the_intervals_are_the_same_on_any_number_of_processors(monkeypatch):
    rows, found = follow_up(59, 300, a_person=2), []
    for processors in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        found.append(time_dependent_auc(**rows, days=DAYS, replicates=20, seed=1))
    assert (found[0].auc, found[0].mean) == (found[1].auc, found[1].mean)
