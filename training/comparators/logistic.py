"""Logistic regression: the plain statistical rival that every model has to beat.

Medians stand in for missing values, and whether a value is missing is a feature of its own. The ridge penalty is
chosen as the trees are: by log-loss on the other folds.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]

PENALTIES = (0.001, 0.01, 0.1, 1.0)
# With more rows than this the penalty no longer matters; one is enough.
LARGE = 20_000


def logistic_regression(inverse_penalty: float) -> Pipeline:
    """Return an unfitted regression with scikit-learn's `C`, imputation and scaling included."""
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=inverse_penalty, solver="newton-cholesky", max_iter=200),
    )


def out_of_fold_margins(matrix: Floats, outcome: Floats, weight: Floats, fold: NDArray[np.int64]) -> Floats:
    """Return each row's log-odds from a regression that did not see its fold.

    Parameters
    ----------
    matrix : shape (n, features), NaN where unknown
    outcome : shape (n,), 0 or 1
    weight : shape (n,), above 0
    fold : shape (n,), 0 to folds - 1

    Returns
    -------
    shape (n,)
    """
    penalties = PENALTIES if len(outcome) <= LARGE else PENALTIES[2:3]
    margins = np.stack([_margins(penalty, matrix, outcome, weight, fold) for penalty in penalties])
    loss = weight * np.logaddexp(0.0, np.where(outcome > 0, -margins, margins))
    chosen = np.empty(len(outcome))
    for held_out in np.unique(fold):
        best = int(loss[:, fold != held_out].sum(axis=1).argmin())
        chosen[fold == held_out] = margins[best, fold == held_out]
    return chosen


def _margins(penalty: float, matrix: Floats, outcome: Floats, weight: Floats, fold: NDArray[np.int64]) -> Floats:
    margins = np.empty(len(outcome))
    for held_out in np.unique(fold):
        train, test = fold != held_out, fold == held_out
        model = logistic_regression(penalty)
        model.fit(matrix[train], outcome[train], logisticregression__sample_weight=weight[train])
        margins[test] = model.decision_function(matrix[test])
    return margins
