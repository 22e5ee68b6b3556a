"""What always holds of scores and models (design.md, section 5): promises 4, 5 and 6."""

import numpy as np
import polars as pl
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine, profile_store
from features.times import microseconds
from training.model import RiskModel
from training.train import train

ENGINE = Engine()


@pytest.fixture(scope="module")
def rows(small_store, small_trained):
    """Profiles that the small model was trained on, as its matrix."""
    index = small_trained.evidence.cohort.rows
    return small_trained.model.matrix(profile_store(small_store, index, ENGINE))


def test_reasons_add_up_to_the_score(small_trained, rows):
    model = small_trained.model
    told = model.base + model.contributions(rows).sum(axis=1)
    np.testing.assert_allclose(told, model.logit(rows), rtol=0, atol=1e-9)


def test_reasons_add_up_where_nothing_is_known(small_trained):
    model = small_trained.model
    nothing = np.full((1, len(model.card.features)), np.nan)
    assert model.base + model.contributions(nothing).sum() == pytest.approx(model.logit(nothing)[0], abs=1e-9)


def test_contributions_equal_those_of_shap(small_trained, rows):
    model = small_trained.model
    whole = model.whole
    oracle = (1 - whole.share) * np.asarray(shap.TreeExplainer(whole.booster).shap_values(rows[:300]))
    if whole.partner is not None:
        oracle += whole.share * (whole.partner.terms(rows[:300]) - whole.partner.mean)
    expected = model.card.recalibration.slope * oracle
    np.testing.assert_allclose(model.contributions(rows[:300]), expected, rtol=0, atol=1e-6)


def test_drivers_share_out_the_same_sum(small_trained, rows):
    model = small_trained.model
    contributions = model.contributions(rows)
    concepts, shares = model.by_concept(contributions)
    np.testing.assert_allclose(shares.sum(axis=1), contributions.sum(axis=1), atol=1e-12)
    of_sbp = [concept == "sbp" for concept in model.card.concepts]
    np.testing.assert_allclose(shares[:, concepts.index("sbp")], contributions[:, of_sbp].sum(axis=1), atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_raising_a_recorded_value_that_is_worse_when_more_never_lowers_the_score(small_store, small_trained, data):
    model = small_trained.model
    index = small_trained.evidence.cohort.rows
    row = index.row(data.draw(st.integers(0, len(index) - 1)), named=True)
    events = small_store.resident(row["subject_id"])
    worse = events["code"].is_in(["sbp", "bmi"]) & events["numeric_value"].is_not_null()
    if not worse.any():
        return
    chosen = data.draw(st.sampled_from(worse.arg_true().to_list()))
    by = data.draw(st.floats(0.5, 30))
    raised = events.with_row_index().with_columns(
        pl.when(pl.col("index") == chosen)
        .then(pl.col("numeric_value") + by)
        .otherwise("numeric_value")
        .alias("numeric_value")
    )
    at = microseconds(row["index_time"])
    assert score(model, raised.drop("index"), at) >= score(model, events, at)


def test_every_feature_of_a_declared_concept_is_bound_or_left_out(small_trained):
    evidence = small_trained.evidence
    kept = [name for name in evidence.rows.features if name.startswith(("sbp_slope", "sbp_sd", "bmi_slope"))]
    assert kept == []
    assert {"sbp_slope_5y", "sbp_sd_2y", "bmi_slope_5y"} <= set(evidence.dropped)


def test_the_same_store_and_seed_give_the_same_model_text(small_store, small_trained):
    again = train(small_store, small_trained.model.card.target, ENGINE)
    assert again.model.booster_text == small_trained.model.booster_text
    assert again.model.card == small_trained.model.card
    assert again.evidence.validation == small_trained.evidence.validation


def score(model: RiskModel, events: pl.DataFrame, at: int) -> float:
    names = ENGINE.profile.names
    filled = ENGINE.one(events, at).astype(np.float64)
    matrix = filled[[names.index(name) for name in model.card.features]][None, :]
    return float(model.logit(matrix)[0])
