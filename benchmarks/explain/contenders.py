"""Who explains, or predicts: each is made ready from a booster, and then asked about rows laid out as it likes them."""

from collections.abc import Callable
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import pandas as pd
import shap

from benchmarks.explain.models import concept_of_features
from training.shapley import Explainer


class Ready(NamedTuple):
    """A contender made ready: `lay_out` turns rows, shape (rows, features), into what `ask` is given."""

    ask: Callable[..., object]
    lay_out: Callable[[np.ndarray], object] = np.ascontiguousarray


def predict(booster: lgb.Booster) -> Ready:
    return Ready(lambda matrix: booster.predict(matrix, raw_score=True))


def pred_contrib(booster: lgb.Booster) -> Ready:
    return Ready(lambda matrix: booster.predict(matrix, pred_contrib=True)[:, :-1])


def tree_explainer(booster: lgb.Booster) -> Ready:
    return Ready(shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent").shap_values)


def fasttreeshap(booster: lgb.Booster) -> Ready:
    from fasttreeshap import TreeExplainer  # noqa: PLC0415 - a peer that is no dependency

    explainer = TreeExplainer(booster, algorithm="auto", n_jobs=-1)
    explainer.shap_values(np.zeros((2, booster.num_feature())))
    return Ready(explainer.shap_values)


def woodelf(booster: lgb.Booster) -> Ready:
    from woodelf import WoodelfExplainer  # noqa: PLC0415 - a peer that is no dependency

    explainer = WoodelfExplainer(booster)
    return Ready(explainer.shap_values, lambda matrix: pd.DataFrame(matrix, columns=booster.feature_name()))


def weibing(booster: lgb.Booster) -> Ready:
    """Contributions of each feature and the margin, of columns, as the engine that fills profiles gives them."""
    return Ready(Explainer.of([booster.model_to_string()]).explained, lambda matrix: np.ascontiguousarray(matrix.T))


def weibing_from_rows(booster: lgb.Booster) -> Ready:
    """The same of rows, which are turned into columns first."""
    explainer = Explainer.of([booster.model_to_string()])
    return Ready(lambda matrix: explainer.explained(np.ascontiguousarray(matrix.T)))


def weibing_by_concept(booster: lgb.Booster) -> Ready:
    """Contributions of each concept and the margin, of columns."""
    explainer = Explainer.of([booster.model_to_string()], concept_of_features())
    return Ready(explainer.explained, lambda matrix: np.ascontiguousarray(matrix.T))


SHAP, PREDICT, OURS = "shap.TreeExplainer", "LightGBM predict", "Weibing"
CONTENDERS: dict[str, Callable[[lgb.Booster], Ready]] = {
    SHAP: tree_explainer,
    "LightGBM pred_contrib": pred_contrib,
    "fasttreeshap": fasttreeshap,
    "woodelf_explainer": woodelf,
    PREDICT: predict,
    OURS: weibing,
    "Weibing, from rows": weibing_from_rows,
    "Weibing, by concept": weibing_by_concept,
}
# These are given no more rows than this, and their rates are compared.
MOST_ROWS = {SHAP: 2_000, "LightGBM pred_contrib": 2_000, "fasttreeshap": 2_000}
