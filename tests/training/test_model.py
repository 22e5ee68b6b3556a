"""RiskModel: saved, loaded, and what it says of itself."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from features.engine import Engine, profile_store
from features.errors import WeibingError
from training.model import RiskModel, background_of, grade


@pytest.fixture(scope="module")
def profiles(small_store, small_trained):
    return profile_store(small_store, small_trained.evidence.cohort.rows, Engine())


def test_a_saved_model_comes_back_the_same(tmp_path, small_trained, profiles):
    small_trained.model.save(tmp_path / "model")
    loaded = RiskModel.load(tmp_path / "model")
    assert loaded == small_trained.model
    matrix = loaded.matrix(profiles)
    np.testing.assert_array_equal(loaded.probability(matrix), small_trained.model.probability(matrix))


def test_a_model_folder_holds_plain_text_alone(tmp_path, small_trained):
    small_trained.model.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".txt", ".json"}
    for path in files:
        path.read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["booster.txt", "model.json", "background.json"])
def test_a_damaged_model_is_refused_in_one_sentence(tmp_path, small_trained, damage):
    small_trained.model.save(tmp_path)
    (tmp_path / damage).write_text("tree\n{", encoding="utf-8")
    with pytest.raises(WeibingError, match="cannot be loaded"):
        RiskModel.load(tmp_path)


def test_a_missing_model_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(WeibingError, match="cannot be loaded"):
        RiskModel.load(tmp_path)


def test_profiles_of_another_declaration_are_refused_by_name(small_trained, profiles):
    feature = small_trained.model.card.features[0]
    with pytest.raises(WeibingError, match=f"needs features that these profiles lack: {feature}"):
        small_trained.model.matrix(profiles.drop(feature))


def test_the_score_lies_in_its_range(small_trained, profiles):
    matrix = small_trained.model.matrix(profiles)
    lower, upper = small_trained.model.range(matrix)
    probability = small_trained.model.probability(matrix)
    assert (lower <= probability).all()
    assert (probability <= upper).all()
    assert (lower < upper).mean() > 0.9


def test_a_threshold_belongs_to_the_tier_above_it(small_trained):
    assert small_trained.model.card.target.tiers == (0.05, 0.10, 0.20)
    tiers = [small_trained.model.tier(risk) for risk in (0.0, 0.049, 0.05, 0.10, 0.199, 0.20, 1.0)]
    assert tiers == ["low", "low", "moderate", "high", "high", "very high", "very high"]


def test_known_gain_is_one_where_all_is_known_and_zero_where_nothing_is(small_trained):
    features = len(small_trained.model.card.features)
    assert small_trained.model.known_gain(np.zeros((1, features)))[0] == pytest.approx(1)
    assert small_trained.model.known_gain(np.full((1, features), np.nan))[0] == 0


def test_the_grade_of_completeness_falls_with_the_known_gain():
    assert [grade(share) for share in (1.0, 0.8, 0.79, 0.5, 0.49, 0.0)] == [
        "high",
        "high",
        "moderate",
        "moderate",
        "low",
        "low",
    ]


def test_the_background_describes_what_is_known():
    matrix = np.array([[1, np.nan], [2, np.nan], [3, np.nan], [np.nan, np.nan]])
    described = background_of(("a", "b"), matrix)
    assert described["a"].known == 0.75
    assert (described["a"].quantiles[0], described["a"].quantiles[5], described["a"].quantiles[10]) == (1, 2, 3)
    assert (described["b"].known, described["b"].quantiles) == (0, ())


def test_a_model_whose_reasons_do_not_add_up_does_not_pass_its_check(small_trained, profiles):
    model = small_trained.model
    broken = dataclasses.replace(model, whole=dataclasses.replace(model.whole))
    vars(broken.whole)["explainer"] = Explaining(model)
    with pytest.raises(ValueError, match="miss its log-odds"):
        broken.check(model.matrix(profiles)[:5])


class Explaining:
    """An explainer that loses a little of the first feature."""

    def __init__(self, model: RiskModel) -> None:
        self.base = model.whole.explainer.base
        self._sound = model.whole.explainer

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        told = self._sound.contributions(matrix)
        told[:, 0] += 1e-6
        return told


def test_matrix_is_ordered_as_the_model_was_trained(small_trained, profiles):
    shuffled = profiles.select(sorted(profiles.columns, reverse=True))
    assert isinstance(profiles, pl.DataFrame)
    np.testing.assert_array_equal(small_trained.model.matrix(shuffled), small_trained.model.matrix(profiles))
