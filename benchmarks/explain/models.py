"""The models and rows that are explained: many features, half of them unknown, a few that matter."""

from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np

FEATURES, CONCEPTS = 320, 80
ROWS_TO_TRAIN = 20_000
UNKNOWN = 0.5


@dataclass(frozen=True)
class Shape:
    """So many trees of so many leaves."""

    leaves: int
    trees: int


SHAPES = {"8 leaves": Shape(8, 600), "31 leaves": Shape(31, 300)}


def drawn_rows(rows: int, seed: int = 0) -> np.ndarray:
    """Draw rows in single precision, shape (rows, features), NaN where unknown."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    matrix[rng.random(matrix.shape) < UNKNOWN] = np.nan
    return matrix


def grown(shape: Shape, seed: int = 0) -> lgb.Booster:
    """Grow trees of a shape with the rates of a champion."""
    matrix, rng = drawn_rows(ROWS_TO_TRAIN, seed=100), np.random.default_rng(seed)
    margin = np.nan_to_num(matrix[:, :12]) @ np.random.default_rng(1).normal(size=12)
    outcome = (margin + rng.normal(size=len(matrix)) > 0).astype(float)
    parameters = {
        "objective": "binary",
        "num_leaves": shape.leaves,
        "learning_rate": 0.05,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "seed": seed,
        "verbosity": -1,
    }
    return lgb.train(parameters, lgb.Dataset(matrix, outcome), shape.trees)


def concept_of_features() -> np.ndarray:
    """Return the number of each feature's concept: four features each."""
    return np.arange(FEATURES) % CONCEPTS


def kept(folder: Path, name: str) -> Path:
    """Return where a model lies, grown before if it was not there."""
    path = folder / f"{name.replace(' ', '-')}.txt"
    if not path.exists():
        grown(SHAPES[name]).save_model(path)
    return path
