"""Logistic regression with restricted cubic splines: the plain statistical rival that every model has to beat.

Medians stand in for missing values, and whether a value is missing is a feature of its own. Continuous features bend
between a few knots and are straight beyond them. Whether they bend, and the ridge penalty, are chosen as the trees'
settings are: by log-loss on the other folds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from training.calibrate import expit

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Half the penalty times the squares of the coefficients of standardised columns is added to the weighted log-loss.
PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 1.0)
# With more rows than this bending does not hurt, and fewer penalties are enough.
LARGE = 20_000
PENALTIES_OF_MANY = (3000.0, 1000.0, 100.0, 10.0)
# A few hundred coefficients learn nothing more from more rows than this.
MOST_ROWS = 200_000
# Where the knots lie, in quantiles of what is known: Harrell, Regression Modeling Strategies (2015), table 2.3.
KNOTS = (0.05, 0.35, 0.65, 0.95)
# A feature bends where it is known of half the rows or more, with so many different values.
FILLED, FEWEST_VALUES, FEWEST_KNOTS = 0.5, 20, 3
# Quantiles are taken of so many rows, evenly spread, or of all.
LOOKED_AT = 20_000
# A number beyond these quantiles counts as they do: one mistyped value must not tilt the line for all.
INNER = (0.01, 0.99)
# A column that deviates less from its mean, as a share of it, is the same for all, and has no say.
FLAT = 1e-6
# Columns are laid out for so many rows at a time.
ROWS_AT_ONCE = 16_384
# The fit ends when the loss of a step falls by less than this share.
TOLERANCE = 1e-6
MOST_STEPS, MOST_HALVINGS = 30, 20
# A loss that is higher by this share is the same loss, in single precision over many rows.
ROUNDING = 1e-7


@dataclass(frozen=True)
class Design:
    """How features become columns of a regression.

    Attributes
    ----------
    median, lowest, highest : shape (features,)
        What stands in for a missing value, and the range that values are held in.
    missing : shape (indicators,)
        The features that have an indicator of being missing; those that are always missing together share one.
    knots : of each feature that bends, by its place
    """

    median: Floats
    lowest: Floats
    highest: Floats
    missing: Ints
    knots: tuple[tuple[int, Floats], ...]

    @classmethod
    def of(cls, matrix: Singles | Floats, *, bends: bool) -> "Design":
        """Return the design for training rows, shape (n, features), NaN where unknown."""
        looked_at = matrix[:: max(1, len(matrix) // LOOKED_AT)]
        known = [column[~np.isnan(column)].astype(np.float64) for column in looked_at.T]
        held = np.array([_range(column) for column in known]).reshape(-1, 2)
        knots = [(place, _knots(column)) for place, column in enumerate(known) if bends and _fills(column, looked_at)]
        return cls(
            median=np.array([np.median(column) if column.size else 0.0 for column in known]),
            lowest=held[:, 0],
            highest=held[:, 1],
            missing=_told_apart(np.isnan(matrix)),
            knots=tuple((place, at) for place, at in knots if at.size >= FEWEST_KNOTS),
        )

    def columns(self, matrix: Singles | Floats) -> Singles:
        """Return the columns of rows, shape (n, columns): features, indicators, and what bends them."""
        unknown = np.isnan(matrix)
        held = np.where(unknown, self.median, np.clip(matrix, self.lowest, self.highest))
        bent = [restricted_cubic(held[:, place], knots) for place, knots in self.knots]
        return np.concatenate([held, unknown[:, self.missing], *bent], axis=1, dtype=np.float32, casting="same_kind")


def restricted_cubic(value: Floats, knots: Floats) -> Floats:
    """Return what a restricted cubic spline adds to the straight line, shape (n, knots - 2).

    Harrell, Regression Modeling Strategies, 2nd ed. (2015), section 2.4.5: linear beyond the outer knots, and
    divided by the square of their distance.
    """
    *inner, before, last = (np.maximum(value - knot, 0.0) ** 3 for knot in knots)
    gap, span = knots[-1] - knots[-2], (knots[-1] - knots[0]) ** 2
    terms = [
        cube - before * (knots[-1] - knot) / gap + last * (knots[-2] - knot) / gap
        for cube, knot in zip(inner, knots, strict=False)
    ]
    return np.asarray(np.stack(terms, axis=1) / span)


def _continuous(known: Floats) -> bool:
    return np.unique(known).size >= FEWEST_VALUES


def _range(known: Floats) -> Floats:
    """Return the lowest and highest that a feature's values are held in: all of them where they are few."""
    return np.asarray(np.quantile(known, INNER) if _continuous(known) else (-np.inf, np.inf))


def _fills(known: Floats, matrix: Singles | Floats) -> bool:
    return _continuous(known) and known.size >= FILLED * len(matrix)


def _knots(known: Floats) -> Floats:
    """Return the knots of a feature, fewer where quantiles coincide."""
    return np.unique(np.quantile(known, KNOTS))


def _told_apart(unknown: Bools) -> Ints:
    """Return the first of each set of features that are missing of the same rows: of some, and not of all."""
    some = np.flatnonzero(unknown.any(axis=0) & ~unknown.all(axis=0))
    if not some.size:
        return some
    _, first = np.unique(np.packbits(unknown[:, some], axis=0), axis=1, return_index=True)
    return some[np.sort(first)]


@dataclass(frozen=True)
class Regression:
    """A fitted regression: ``logit = intercept + columns @ coefficients``, of columns as the design lays them out."""

    design: Design
    intercept: float
    coefficients: Singles

    def margin(self, matrix: Singles | Floats) -> Floats:
        """Return the log-odds of rows, shape (n,)."""
        return np.concatenate([self._of(block) for block in _blocks(matrix)])

    def _of(self, matrix: Singles | Floats) -> Floats:
        return np.asarray(self.design.columns(matrix) @ self.coefficients.astype(np.float64) + self.intercept)


@dataclass(frozen=True)
class Prepared:
    """Training rows laid out and standardised, to be fitted at any penalty.

    `columns`, shape (n, columns); `centre` and `scale`, shape (columns,), are their weighted mean and deviation before.
    """

    design: Design
    columns: Singles
    centre: Floats
    scale: Floats
    outcome: Floats
    weight: Floats

    @classmethod
    def of(cls, matrix: Singles | Floats, outcome: Floats, weight: Floats, *, bends: bool) -> "Prepared":
        """Lay out training rows."""
        design = Design.of(matrix, bends=bends)
        columns = np.concatenate([design.columns(block) for block in _blocks(matrix)])
        centre = _mean(columns, weight)
        columns -= centre.astype(np.float32)
        scale = np.sqrt(_mean(columns, weight, power=2))
        scale[scale < FLAT * (1.0 + np.abs(centre))] = np.inf
        columns /= scale.astype(np.float32)
        return cls(design, columns, centre, scale, outcome, weight)

    def fits(self, penalties: tuple[float, ...]) -> Iterator[Regression]:
        """Yield the regression at each penalty; each starts where the one before it ended."""
        prevalence = np.average(self.outcome, weights=self.weight)
        at = np.append(np.log(prevalence / (1.0 - prevalence)), np.zeros(self.columns.shape[1]))
        for penalty in penalties:
            at = newton(self.columns, self.outcome, self.weight, penalty, at)
            coefficients = at[1:] / self.scale
            yield Regression(self.design, at[0] - self.centre @ coefficients, coefficients.astype(np.float32))


def _mean(columns: Singles, weight: Floats, power: int = 1) -> Floats:
    """Return the weighted mean of each column's values, or of their squares, summed in double precision."""
    total = np.zeros(columns.shape[1])
    for rows in _slices(len(columns)):
        total += weight[rows].astype(np.float32) @ columns[rows] ** power
    return np.asarray(total / weight.sum())


def newton(columns: Singles, outcome: Floats, weight: Floats, penalty: float, start: Floats) -> Floats:
    """Return intercept and coefficients of least penalised log-loss, shape (columns + 1,).

    Newton's method with Cholesky's factors; a step that overshoots is halved. The intercept bears no penalty. Of many
    rows the curvature is taken from some, evenly spread, and the gradient from all: the same end, by shorter work.

    References
    ----------
    le Cessie and van Houwelingen, Appl Stat 1992;41:191-201 (ridge). Roosta-Khorasani and Mahoney, Math Program
    2019;174:293-326 (curvature of a sample).
    """
    ridge = np.append(0.0, np.full(columns.shape[1], penalty))
    at = start
    loss, gradient, curvature = _derivatives(columns, outcome, weight, ridge, at)
    for _ in range(MOST_STEPS):
        step = cho_solve(cho_factor(_hessian(columns, weight, ridge, at, curvature)), gradient)
        for _ in range(MOST_HALVINGS):
            moved, gradient, curvature = _derivatives(columns, outcome, weight, ridge, at + step)
            if moved <= loss * (1.0 + ROUNDING):
                break
            step = step / 2.0
        at, fell, loss = at + step, loss - moved, moved
        if fell <= TOLERANCE * loss:
            break
    return at


def _derivatives(
    columns: Singles, outcome: Floats, weight: Floats, ridge: Floats, at: Floats
) -> tuple[float, Floats, Floats]:
    """Return the penalised log-loss, its gradient downhill, and its Hessian's diagonal; sums in double precision."""
    loss, gradient, diagonal = float(ridge @ at**2) / 2.0, -ridge * at, ridge.copy()
    for rows in _slices(len(columns)):
        margin = _margin(columns[rows], at)
        risk = expit(margin)
        residual, spread = weight[rows] * (outcome[rows] - risk), weight[rows] * risk * (1.0 - risk)
        loss += float(log_loss(margin, outcome[rows], weight[rows]).sum())
        gradient += np.append(residual.sum(), residual.astype(np.float32) @ columns[rows])
        diagonal += np.append(spread.sum(), spread.astype(np.float32) @ columns[rows] ** 2)
    return loss, gradient, diagonal


def _hessian(columns: Singles, weight: Floats, ridge: Floats, at: Floats, diagonal: Floats) -> Floats:
    """Return the Hessian of a sample of the rows, its diagonal raised to that of all."""
    every = max(1, len(columns) // LOOKED_AT)
    some, of_some = columns[::every], weight[::every] * every
    hessian = np.diag(ridge)
    for rows in _slices(len(some)):
        risk = expit(_margin(some[rows], at))
        root = np.sqrt(of_some[rows] * risk * (1.0 - risk)).astype(np.float32)[:, None]
        block = np.concatenate([root, some[rows] * root], axis=1)
        hessian += block.T @ block
    lacking = diagonal - np.diagonal(hessian)
    return np.asarray(hessian + np.diag(np.maximum(lacking, 0.0)))


def _margin(columns: Singles, at: Floats) -> Floats:
    return np.asarray(columns @ at[1:].astype(np.float32) + at[0], np.float64)


def log_loss(margin: Floats, outcome: Floats, weight: Floats) -> Floats:
    """Return the weighted log-loss of each row, shape (..., n), of log-odds of that shape."""
    return np.asarray(weight * np.logaddexp(0.0, np.where(outcome > 0, -margin, margin)))


def out_of_fold_margins(matrix: Singles | Floats, outcome: Floats, weight: Floats, fold: Ints) -> Floats:
    """Return each row's log-odds from a regression that did not see its fold.

    Parameters
    ----------
    matrix : shape (n, features), NaN where unknown
    outcome : shape (n,), 0 or 1; not looked at where `weight` is 0
    weight : shape (n,), 0 where the outcome is unknown: nothing is learnt from these rows
    fold : shape (n,)

    Returns
    -------
    shape (n,)
    """
    known = weight > 0
    tried = _margins_tried(matrix, np.where(known, outcome, 0.0), weight, fold)
    loss = log_loss(tried, np.where(known, outcome, 0.0), weight)
    chosen = np.empty(len(outcome))
    for held_out in np.unique(fold):
        test = fold == held_out
        chosen[test] = tried[int(loss[:, ~test].sum(axis=1).argmin()), test]
    return chosen


def _margins_tried(matrix: Singles | Floats, outcome: Floats, weight: Floats, fold: Ints) -> Floats:
    """Return out-of-fold log-odds of each regression that is tried, shape (tried, n)."""
    many = int((weight > 0).sum()) > LARGE
    tried = ((True, PENALTIES_OF_MANY),) if many else ((False, PENALTIES), (True, PENALTIES))
    margins = np.empty((sum(len(penalties) for _, penalties in tried), len(outcome)))
    for held_out in np.unique(fold):
        test = fold == held_out
        train = _at_most(np.flatnonzero(~test & (weight > 0)))
        place = 0
        for bends, penalties in tried:
            prepared = Prepared.of(matrix[train], outcome[train], weight[train], bends=bends)
            for fitted in prepared.fits(penalties):
                margins[place, test] = fitted.margin(matrix[test])
                place += 1
    return margins


def _at_most(rows: Ints) -> Ints:
    """Return at most so many rows, evenly spread."""
    return rows[:: -(-len(rows) // MOST_ROWS)]


def _slices(rows: int) -> Iterator[slice]:
    for start in range(0, rows, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, rows))


def _blocks(matrix: Singles | Floats) -> Iterator[Singles | Floats]:
    for rows in _slices(max(len(matrix), 1)):
        yield matrix[rows]
