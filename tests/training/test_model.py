"""RiskModel: saved, loaded, and what it says of itself."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from features.engine import Engine, profile_store
from features.errors import WeibingError
from training.calibrate import logit
from training.model import RiskModel, background_of, grade
from training.shapley import Explainer


@pytest.fixture(scope="module")
def profiles(small_store, small_trained):
    return profile_store(small_store, small_trained.evidence.cohort.rows, Engine())


def test_a_saved_model_comes_back_the_same(tmp_path, small_trained, profiles):
    small_trained.model.save(tmp_path / "model")
    loaded = RiskModel.load(tmp_path / "model")
    assert loaded == small_trained.model
    matrix = loaded.matrix(profiles)
    np.testing.assert_array_equal(loaded.probability(matrix), small_trained.model.probability(matrix))


def test_a_model_folder_holds_plain_text_and_an_array_file_without_pickles(tmp_path, small_trained):
    small_trained.model.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".txt", ".json", ".npz"}
    for path in files:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays.files)
        else:
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


def columns_of(model, profiles, kind=np.float32):
    return np.ascontiguousarray(model.matrix(profiles).T.astype(kind))


def test_what_is_assessed_is_what_trees_partners_and_recalibration_say(small_trained, profiles):
    model, matrix = small_trained.model, small_trained.model.matrix(profiles)
    assert model.whole.partner is not None
    assessed = model.assess(columns_of(model, profiles, np.float64))
    line = model.card.recalibration
    risks = np.array([line.probability(fitted.margin(matrix)) for fitted in (model.whole, *model.folds)])
    np.testing.assert_allclose(assessed.probability, risks[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(assessed.lower, risks.min(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(assessed.upper, risks.max(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(assessed.known_gain, ~np.isnan(matrix) @ model.whole.importance, rtol=0, atol=1e-12)
    concepts, shares = model.by_concept(model.contributions(matrix))
    assert concepts == list(model.concept_names)
    np.testing.assert_allclose(assessed.contributions.T, shares, rtol=0, atol=1e-9)
    told = model.base + assessed.contributions.sum(axis=0)
    np.testing.assert_allclose(told, logit(assessed.probability), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_resident_alone_is_assessed_as_among_others_bit_for_bit(small_trained, profiles, kind):
    model = small_trained.model
    columns = columns_of(model, profiles, kind)
    together = model.assess(columns, model.codes(columns))
    seen = model.seen(columns, model.codes(columns))
    for row in range(0, columns.shape[1], 7):
        alone = np.ascontiguousarray(columns[:, [row]])
        for one, many in zip(model.assess(alone), together, strict=True):
            np.testing.assert_array_equal(one[..., 0], many[..., row])
        assert model.seen(alone, model.codes(alone))[0] == seen[row]


def test_threads_that_assess_at_once_give_what_one_gives(small_trained, profiles):
    model, columns = small_trained.model, columns_of(small_trained.model, profiles).repeat(5, axis=1)
    alone = [part.tobytes() for part in model.assess(columns)]
    with ThreadPoolExecutor(4) as pool:
        for told in pool.map(lambda _: model.assess(columns), range(8)):
            assert [part.tobytes() for part in told] == alone


def test_residents_seen_alike_are_assessed_alike_and_what_is_not_looked_at_is_not_seen(small_trained, profiles):
    model, columns = small_trained.model, columns_of(small_trained.model, profiles)
    partners = [fitted.partner for fitted in (model.whole, *model.folds)]
    used = np.any([(partner.coefficient != 0) | (partner.unknown != 0) for partner in partners], axis=0)
    used[model._assessor.explainer.cuts.feature] = True
    before = model.assess(columns), model.seen(columns, model.codes(columns))
    for feature in range(len(columns)):
        changed = columns.copy()
        changed[feature] = np.where(np.isnan(changed[feature]), 3.0, np.nan)
        same = model.seen(changed, model.codes(changed)) == before[1]
        assert same.all() == (not used[feature])
        told = model.assess(changed).probability
        np.testing.assert_array_equal(told[same], before[0].probability[same])


def test_the_digest_is_of_all_that_decides_scores_and_not_of_the_version(small_trained):
    model = small_trained.model
    assert model.with_version("7").digest == model.digest
    less = dataclasses.replace(model.whole, share=model.whole.share / 2)
    line = dataclasses.replace(model.card.recalibration, slope=2.0)
    others = [
        dataclasses.replace(model, whole=less),
        dataclasses.replace(model, folds=model.folds[1:]),
        dataclasses.replace(model, whole=dataclasses.replace(model.whole, booster_text=model.folds[0].booster_text)),
        dataclasses.replace(model, card=dataclasses.replace(model.card, recalibration=line)),
    ]
    assert len({each.digest for each in (model, *others)}) == 5
    assert len(model.digest) == 16


def test_stored_tables_are_used_and_made_anew_where_they_do_not_fit(tmp_path, small_trained, profiles, monkeypatch):
    small_trained.model.save(tmp_path)
    columns = columns_of(small_trained.model, profiles)
    expected = small_trained.model.assess(columns)
    monkeypatch.setattr(Explainer, "of", None)
    stored = RiskModel.load(tmp_path).with_version("3")
    np.testing.assert_array_equal(stored.assess(columns).contributions, expected.contributions)
    monkeypatch.undo()
    (tmp_path / "explainer.npz").write_bytes(b"worn out")
    np.testing.assert_array_equal(RiskModel.load(tmp_path).assess(columns).contributions, expected.contributions)


def test_a_model_that_was_used_can_be_pickled(small_trained, profiles):
    columns = columns_of(small_trained.model, profiles)
    expected = small_trained.model.assess(columns)
    again = pickle.loads(pickle.dumps(small_trained.model))
    np.testing.assert_array_equal(again.assess(columns).probability, expected.probability)


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
    model = dataclasses.replace(small_trained.model)
    sound = small_trained.model._assessor
    vars(model)["_assessor"] = dataclasses.replace(sound, base=sound.base + 1e-6)
    with pytest.raises(ValueError, match="miss its log-odds"):
        model.check(model.matrix(profiles)[:5])


def test_matrix_is_ordered_as_the_model_was_trained(small_trained, profiles):
    shuffled = profiles.select(sorted(profiles.columns, reverse=True))
    assert isinstance(profiles, pl.DataFrame)
    np.testing.assert_array_equal(small_trained.model.matrix(shuffled), small_trained.model.matrix(profiles))
