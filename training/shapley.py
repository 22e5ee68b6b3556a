"""Contributions of features to a margin: path-dependent TreeSHAP, exact, on the log-odds scale.

References
----------
Lundberg et al., Nature Machine Intelligence 2020;2:56-67.
"""

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Explainer:
    """Explains the rows of one booster.

    Attributes
    ----------
    base : float
        The margin before any feature is known: the same for every row.
    """

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster = booster
        nothing_known = np.full((1, booster.num_feature()), np.nan)
        self.base = float(np.asarray(booster.predict(nothing_known, pred_contrib=True, num_threads=1))[0, -1])

    def contributions(self, features: Floats) -> Floats:
        """Return each feature's contribution to each row's margin.

        ``base + contributions.sum(axis=1)`` is the margin, within 1e-9.

        Parameters
        ----------
        features : shape (rows, features), NaN where unknown

        Returns
        -------
        shape (rows, features), log-odds
        """
        threads = 1 if len(features) == 1 else 0
        explained = np.asarray(self._booster.predict(features, pred_contrib=True, num_threads=threads))
        return explained[:, :-1]
