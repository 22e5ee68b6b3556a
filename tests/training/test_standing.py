"""Where a risk stands among people of the same age and sex."""

import numpy as np
import pytest

from training.standing import FEWEST, Standing, as_json, from_json

MEN, WOMEN = np.zeros(1_000), np.ones(1_000)
SIXTY = np.full(1_000, 62.0)
RISKS = np.linspace(0.0, 0.999, 1_000)


def of_one(standing: Standing, age: float, female: float, risk: float) -> float:
    return float(standing.percentile(np.array([age]), np.array([female]), np.array([risk]))[0])


def test_a_percentile_is_the_share_with_a_lower_risk():
    standing = Standing.of(SIXTY, MEN, RISKS)
    # 250 of 1,000 men have a risk below 0.25.
    assert of_one(standing, 64, 0, 0.25) == pytest.approx(25, abs=0.1)
    assert of_one(standing, 64, 0, 2.0) == 100
    assert of_one(standing, 64, 0, -1.0) == 0


def test_men_are_compared_with_men_and_women_with_women():
    both = np.concatenate([MEN, WOMEN])
    standing = Standing.of(np.concatenate([SIXTY, SIXTY]), both, np.concatenate([RISKS / 2, RISKS]))
    assert of_one(standing, 62, 0, 0.25) == pytest.approx(50, abs=0.1)
    assert of_one(standing, 62, 1, 0.25) == pytest.approx(25, abs=0.1)


def test_the_young_are_compared_with_the_young():
    ages = np.concatenate([np.full(1_000, 32.0), SIXTY])
    standing = Standing.of(ages, np.concatenate([MEN, MEN]), np.concatenate([RISKS / 10, RISKS]))
    assert of_one(standing, 30, 0, 0.05) == pytest.approx(50, abs=0.1)
    assert of_one(standing, 64.9, 0, 0.05) == pytest.approx(5, abs=0.1)


def test_who_shares_a_risk_counts_by_half():
    """60 of 100 have a risk of 0.1, which takes up the percentiles from 0 to 60: its middle is 30."""
    risk = np.repeat([0.1, 0.3], [600, 400])
    standing = Standing.of(SIXTY, MEN, risk)
    assert of_one(standing, 62, 0, 0.1) == pytest.approx(30, abs=0.6)
    assert of_one(standing, 62, 0, 0.3) == pytest.approx(80, abs=0.6)


def test_where_few_are_of_an_age_those_around_it_are_taken_in():
    ages = np.concatenate([np.full(FEWEST - 1, 42.0), np.full(1_000, 47.0)])
    risk = np.concatenate([np.full(FEWEST - 1, 0.9), np.full(1_000, 0.1)])
    standing = Standing.of(ages, np.zeros(len(ages)), risk)
    # Alone, the people of 42 would stand in their own middle.
    assert of_one(standing, 42, 0, 0.9) > 90
    assert of_one(standing, 12, 0, 0.9) > 90


def test_of_unknown_age_or_sex_or_of_a_sex_hardly_seen_nothing_is_said():
    standing = Standing.of(SIXTY, MEN, RISKS)
    assert np.isnan(of_one(standing, np.nan, 0, 0.5))
    assert np.isnan(of_one(standing, 62, np.nan, 0.5))
    assert np.isnan(of_one(standing, 62, 1, 0.5))


def test_it_comes_back_from_json_the_same():
    standing = Standing.of(SIXTY, MEN, RISKS)
    assert from_json(as_json(standing)) == standing


@pytest.mark.parametrize("damage", [[], [[]], [[], [[0.1]]]])
def test_damaged_json_is_refused(damage):
    with pytest.raises(ValueError, match="damaged"):
        from_json(damage)
