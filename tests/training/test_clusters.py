"""Leaving out one township after the other, and what the townships say together."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from features.engine import Engine
from features.events import EventStore
from tests.conftest import SMALL_TARGET
from training.clusters import Clusters, leave_one_out, random_effects
from training.fit import CANDIDATES, Grown, Rows, grow
from training.sample import Sample, sample_of
from training.train import rows_of

# Thirteen trials of BCG: vaccinated with and without tuberculosis, the same of the others (Colditz et al., JAMA
# 1994;271:698-702). The R package metafor says of them, by REML with Knapp and Hartung's test: see the first test.
BCG = """
      4   119   11   128
      6   300   29   274
      3   228   11   209
     62 13536  248 12619
     33  5036   47  5761
    180  1361  372  1079
      8  2537   10   619
    505 87886  499 87892
     29  7470   45  7232
     17  1699   65  1600
    186 50448  141 27197
      5  2493    3  2338
     27 16886   29 17825
"""


@pytest.fixture(scope="module")
def fitted(small_store: EventStore) -> tuple[Sample, Rows, Grown, Engine]:
    """The small county's cohort in five townships by the resident's number, and a fit on it."""
    engine = Engine.of_store(small_store)
    sample = sample_of(small_store, SMALL_TARGET, engine)
    rows, _ = rows_of(sample, engine)
    return placed(sample, sample.person % 5), rows, grow(rows, SMALL_TARGET, engine, candidates=CANDIDATES[2:]), engine


def placed(sample: Sample, number: np.ndarray) -> Sample:
    """Put each row into the township of a number; below 0 into none."""
    names = [f"T{each}" if each >= 0 else None for each in number.tolist()]
    return replace(sample, groups=pl.DataFrame({"township": pl.Series(names, dtype=pl.String)}))


def left_out(fitted: tuple[Sample, Rows, Grown, Engine], **changed: int) -> Clusters:
    found = leave_one_out(*fitted, **changed)
    assert isinstance(found, Clusters), found
    return found


def test_random_effects_agree_with_metafor() -> None:
    tuberculous, healthy, others, well = np.array(BCG.split(), float).reshape(-1, 4).T
    effect = np.log(tuberculous / (tuberculous + healthy)) - np.log(others / (others + well))
    variance = 1 / tuberculous - 1 / (tuberculous + healthy) + 1 / others - 1 / (others + well)
    found = random_effects(effect, variance)
    assert (found.mean, found.error) == pytest.approx((-0.7145, 0.1808), abs=5e-5)
    assert (found.tau2, found.i2) == pytest.approx((0.3132, 0.9222), abs=5e-5)
    assert found.interval() == pytest.approx((-1.1084, -0.3206), abs=5e-5)
    # Student's t at 0.975 with eleven degrees of freedom is 2.2010.
    reach = 2.2010 * math.sqrt(0.3132 + 0.1808**2)
    assert found.prediction() == pytest.approx((-0.7145 - reach, -0.7145 + reach), abs=3e-4)


def test_equal_effects_differ_by_chance_alone() -> None:
    found = random_effects(np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.1, 0.2]))
    assert (found.mean, found.tau2, found.i2) == (pytest.approx(1.0), 0.0, 0.0)
    # As precise as the four together, and not more: 10 + 5 + 10 + 5 = 30.
    assert found.error == pytest.approx(1 / math.sqrt(30))


def test_each_township_is_measured_once(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    _, rows, *_ = fitted
    found = left_out(fitted)
    assert [cluster.value for cluster in found.each] == ["T0", "T1", "T2", "T3", "T4"]
    assert sum(cluster.n for cluster in found.each) == rows.known.sum()
    assert sum(cluster.events for cluster in found.each) == rows.events
    assert found.unplaced == 0
    assert found.auroc.clusters == 5
    assert found.auroc.lower <= found.auroc.mean.lower < found.auroc.mean.estimate < found.auroc.mean.upper
    assert 0.6 < found.auroc.mean.estimate < 0.9
    assert 0.7 < found.observed_to_expected.mean.estimate < 1.4


def test_a_townships_own_outcomes_do_not_reach_its_model(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    sample, rows, grown, engine = fitted
    here = rows.person % 5 == 0
    turned = replace(rows, outcome=np.where(here, 1 - rows.outcome, rows.outcome))
    before, after = left_out(fitted).each[0], left_out((sample, turned, grown, engine)).each[0]
    # The same ranking, of which the opposite is now true.
    assert after.auroc.estimate == pytest.approx(1 - before.auroc.estimate)


def test_a_resident_belongs_to_the_last_township_as_a_whole(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    sample, rows, grown, engine = fitted
    # Every row twice, a year apart: the first time all lived in T9.
    later = sample.cohort.rows.with_columns(pl.col("index_time").dt.offset_by("1y"))
    both = pl.concat([sample.cohort.rows, later]).with_row_index().sort("subject_id", "index_time")
    place = both["index"].to_numpy() % len(rows.outcome)
    number = np.where(both["index"].to_numpy() < len(rows.outcome), 9, rows.person[place] % 5)
    twice = replace(sample, cohort=replace(sample.cohort, rows=both.drop("index")))
    doubled = replace(grown, margin=grown.margin[place])
    found = left_out((placed(twice, number), rows.take(place), doubled, engine))
    assert [cluster.value for cluster in found.each] == ["T0", "T1", "T2", "T3", "T4"]
    assert [cluster.n for cluster in found.each] == [2 * cluster.n for cluster in left_out(fitted).each]


def test_small_townships_are_joined(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    sample, *others = fitted
    # Each of the small ones T5, T6, T7 has fewer than 20 outcomes.
    number = np.where(sample.person % 5 == 4, 5 + sample.person // 5 % 3, sample.person % 5)
    number = np.where((number >= 5) & (sample.person % 2 == 0), 0, number)
    values = [cluster.value for cluster in left_out((placed(sample, number), *others)).each]
    assert {name for value in values for name in value.split(" + ")} == {f"T{n}" for n in (0, 1, 2, 3, 5, 6, 7)}
    assert all(" + " in value for value in values if {"T5", "T6", "T7"} & set(value.split(" + ")))


def test_no_more_models_are_fitted_than_asked_for(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    assert len(left_out(fitted, most=3).each) == 3


def test_residents_of_no_township_are_counted(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    sample, *others = fitted
    number = np.where(sample.person % 5 == 1, -1, sample.person % 5)
    found = left_out((placed(sample, number), *others))
    assert [cluster.value for cluster in found.each] == ["T0", "T2", "T3", "T4"]
    assert found.unplaced == len(np.unique(sample.person[sample.person % 5 == 1]))


def test_two_townships_say_that_they_are_too_few(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    sample, *others = fitted
    said = leave_one_out(placed(sample, sample.person % 2), *others)
    assert said == (
        "By township there are 2 clusters with 20 outcomes and 20 non-outcomes, joined where they are small;"
        " comparing them needs 3."
    )


def test_the_same_seed_gives_the_same_figures(fitted: tuple[Sample, Rows, Grown, Engine]) -> None:
    assert left_out(fitted, most=3) == left_out(fitted, most=3)
