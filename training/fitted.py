"""What a fit ends in: trees, and on few outcomes a linear partner, whose log-odds are mixed."""

from dataclasses import dataclass
from functools import cached_property

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.linear import Linear
from training.shapley import Explainer

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# With fewer rows LightGBM's threads wait for each other more than they work.
FEW_ROWS = 20_000


@dataclass(frozen=True)
class Fitted:
    """``(1 − share) × trees + share × partner``, in log-odds, before recalibration.

    Attributes
    ----------
    booster_text : the trees in LightGBM's text format
    partner : the linear partner, where the share is above 0
    share : how much of the log-odds is the partner's, 0 to 1
    """

    booster_text: str
    partner: Linear | None = None
    share: float = 0.0

    def margin(self, matrix: Floats | Singles) -> Floats:
        """Return raw log-odds, shape (rows,)."""
        of_trees = tree_margins(self.booster, matrix)
        if self.partner is None:
            return of_trees
        return (1 - self.share) * of_trees + self.share * self.partner.margin(matrix)

    def contributions(self, matrix: Floats) -> Floats:
        """Return each feature's share of the raw log-odds, shape (rows, features).

        ``base + contributions.sum(axis=1)`` is :meth:`margin`, within 1e-9.
        """
        of_trees = self.explainer.contributions(matrix)
        if self.partner is None:
            return of_trees
        return (1 - self.share) * of_trees + self.share * self.partner.contributions(matrix)

    @property
    def base(self) -> float:
        """The raw log-odds before anything is known of a resident."""
        partners = self.partner.base if self.partner else 0.0
        return (1 - self.share) * self.explainer.base + self.share * partners

    @cached_property
    def importance(self) -> Floats:
        """How much rests on each feature, shape (features,), summing to 1, or all 0 where nothing does.

        Of the trees the share of gain; of the partner the share of the coefficients, each for one step of its scale.
        """
        gain = _shares(np.asarray(self.booster.feature_importance("gain"), np.float64))
        if self.partner is None:
            return gain
        return (1 - self.share) * gain + self.share * _shares(np.abs(self.partner.coefficient))

    @cached_property
    def booster(self) -> lgb.Booster:
        """The trees."""
        return lgb.Booster(model_str=self.booster_text)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains the trees' part."""
        return Explainer(self.booster)


def tree_margins(booster: lgb.Booster, matrix: Singles | Floats, rounds: int = -1) -> Floats:
    """Return raw log-odds, shape (n,), of the first `rounds` trees, or of all."""
    threads = 1 if len(matrix) < FEW_ROWS else 0
    raw = booster.predict(matrix, raw_score=True, num_iteration=rounds, num_threads=threads)
    return np.asarray(raw, np.float64)


def _shares(amounts: Floats) -> Floats:
    total = amounts.sum()
    return amounts / total if total > 0 else amounts
