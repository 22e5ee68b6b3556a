"""What drives risks, on the scale of risk.

Contributions are additive on the log-odds scale, which few can read. On the scale of risk a contribution is the change
that it makes to the risk of that very resident,

    expit(logit) − expit(logit − contribution),

in percentage points: how much lower the risk would be without it. The same contribution weighs more near 50 % than
near 0 %, so these changes do not add up across features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.calibrate import expit
from training.model import RiskModel

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

MOST_ROWS = 2_000
ALL_POINTS = 100.0


@dataclass(frozen=True)
class Drivers:
    """What moves the risks of some rows; each array of shape (rows, features).

    `value` is NaN where unknown, `contribution` in log-odds, `change` in percentage points of risk.
    """

    features: tuple[str, ...]
    value: Floats
    contribution: Floats
    change: Floats

    @classmethod
    def of(cls, model: RiskModel, matrix: Singles | Floats, seed: int = 0) -> "Drivers":
        """Explain a sample of rows, drawn by a seed."""
        shown = np.random.default_rng(seed).permutation(len(matrix))[:MOST_ROWS]
        value = matrix[shown].astype(np.float64)
        contribution = model.contributions(value)
        return cls(model.card.features, value, contribution, change_of_risk(model.logit(value), contribution))

    @property
    def mean_change(self) -> Floats:
        """The mean size of each feature's change of risk, in percentage points, shape (features,)."""
        return np.asarray(np.abs(self.change).mean(axis=0))

    @property
    def share(self) -> Floats:
        """Each feature's share of all contributions, regardless of sign, shape (features,)."""
        size = np.abs(self.contribution).mean(axis=0)
        return np.asarray(size / size.sum()) if size.any() else size

    @property
    def strongest(self) -> Ints:
        """The places of the features, those that move risks most first, shape (features,)."""
        return np.argsort(-self.mean_change, kind="stable")


def change_of_risk(logit: Floats, contribution: Floats) -> Floats:
    """Return how many percentage points each contribution makes of its row's risk, shape (rows, features).

    Parameters
    ----------
    logit : shape (rows,)
    contribution : shape (rows, features), log-odds
    """
    return np.asarray(ALL_POINTS * (expit(logit)[:, None] - expit(logit[:, None] - contribution)))
