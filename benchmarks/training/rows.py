"""Drawn rows that look like profiles: skewed numbers and counts, many unknown, few that matter."""

import numpy as np
from scipy.special import expit

from features.cohort import Target
from features.engine import Engine
from training.fit import Rows
from training.targets import TARGETS

TARGET: Target = TARGETS["hypertension"]
ROWS_A_PERSON = 2
# So many of the features move the risk, each by up to this many log-odds for one standard deviation.
THAT_MATTER = 12
MOST = 0.5
INTERCEPT = -3.2
BLOCK = 100_000


def drawn_rows(rows: int, features: int, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Return rows of hypertension's features, and the true risk of each; about one in fifteen has the outcome."""
    engine = Engine()
    names = tuple(engine.profile.names[:features])
    rng = np.random.default_rng(seed)
    known, effect = rng.uniform(0.2, 1.0, features), rng.uniform(-MOST, MOST, THAT_MATTER)
    matrix, log_odds = np.empty((rows, features), np.float32), np.full(rows, INTERCEPT)
    for start in range(0, rows, BLOCK):
        block = rng.normal(size=(min(BLOCK, rows - start), features)).astype(np.float32)
        log_odds[start : start + len(block)] += _risen(block, effect)
        # Every third is a count, every third skewed.
        block[:, ::3] = np.maximum(np.round(2 * block[:, ::3]), 0)
        block[:, 1::3] = np.exp(block[:, 1::3])
        block[rng.random(block.shape, np.float32) > known] = np.nan
        matrix[start : start + len(block)] = block
    risk = expit(log_odds)
    outcome = (rng.random(rows) < risk).astype(np.float64)
    weight = rng.uniform(1.0, 1.5, rows)
    return Rows(names, matrix, outcome, weight, np.arange(rows) // ROWS_A_PERSON), risk


def _risen(block: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Return what the features that matter add: each in a straight line, and the first two together once more."""
    matter = block[:, :THAT_MATTER].astype(np.float64)
    return matter @ effect + 0.3 * matter[:, 0] * matter[:, 1]
