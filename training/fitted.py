"""What a fit ends in: trees, and on few outcomes a linear partner, whose log-odds are mixed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.calibrate import Recalibration
from training.linear import Linear, Lines, fill_term, lines_of
from training.shapley import Codes, Columns, Explainer, share_out
from training.shapley.cuts import Cuts, fill_codes
from training.shapley.kernel import add_up
from training.shapley.tables import Lookups

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

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

    def contributions(self, matrix: Floats | Singles) -> Floats:
        """Return each feature's share of the raw log-odds, shape (rows, features).

        ``base + contributions.sum(axis=1)`` is :meth:`margin`, within 1e-9.
        """
        of_trees = np.ascontiguousarray(self.explainer.explained(np.ascontiguousarray(matrix.T))[0].T)
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
        """What explains the trees' part, feature by feature."""
        return Explainer.of([self.booster_text])


def tree_margins(booster: lgb.Booster, matrix: Singles | Floats, rounds: int = -1) -> Floats:
    """Return raw log-odds, shape (n,), of the first `rounds` trees, or of all."""
    threads = 1 if len(matrix) < FEW_ROWS else 0
    raw = booster.predict(matrix, raw_score=True, num_iteration=rounds, num_threads=threads)
    return np.asarray(raw, np.float64)


class Assessed(NamedTuple):
    """What a model says of rows.

    ``logit(probability)`` is the model's base plus ``contributions.sum(axis=0)``, within 1e-9.

    Attributes
    ----------
    probability, lower, upper : shape (rows,)
        The calibrated risk, and the range that the fold models, and the model itself, give it.
    known_gain : shape (rows,)
        How much of what the model rests on is known of the row, 0 to 1.
    contributions : shape (concepts, rows), calibrated log-odds
    """

    probability: Floats
    lower: Floats
    upper: Floats
    known_gain: Floats
    contributions: Floats


class Mix(NamedTuple):
    """How what trees and partners say becomes a risk.

    Attributes
    ----------
    share : of the log-odds that is the partners'
    intercept, slope : of the recalibration
    group : shape (features,)
        The number of each feature's concept.
    groups : how many concepts there are
    importance : shape (features,)
    """

    share: float
    intercept: float
    slope: float
    group: Ints
    groups: int
    importance: Floats


@dataclass(frozen=True)
class Assessor:
    """A model's fits, on all rows and without each fold, made ready to be asked at once.

    Attributes
    ----------
    explainer : of the trees of all fits, those on all rows first
    lines : their linear partners, if any
    mix : how the two become a risk
    base : the calibrated log-odds before anything is known of a resident
    """

    explainer: Explainer
    lines: Lines
    mix: Mix
    base: float

    @classmethod
    def of(
        cls, whole: Fitted, folds: Sequence[Fitted], recalibration: Recalibration, explainer: Explainer, group: Ints
    ) -> "Assessor":
        """Make fits ready, given what explains their trees by concept; `group` is the number of each feature's."""
        partners = [fitted.partner for fitted in (whole, *folds) if fitted.partner is not None]
        share = whole.share if partners else 0.0
        of_partner = whole.partner.base if whole.partner is not None else 0.0
        base = recalibration.intercept + recalibration.slope * ((1 - share) * explainer.base + share * of_partner)
        line = recalibration.intercept, recalibration.slope
        return cls(explainer, lines_of(partners), Mix(share, *line, group, explainer.groups, whole.importance), base)

    def seen(self, columns: Columns, codes: Codes) -> Ints:
        """Return a fingerprint of all that is looked at in each row, shape (rows,)."""
        return self.explainer.seen(columns, codes, np.flatnonzero(self.lines.moves.any(axis=0)))

    def log_odds(self, columns: Columns) -> Floats:
        """Return calibrated log-odds, shape (rows,)."""
        codes, told = self.explainer.codes(columns), self.explainer.room(columns.shape[1])

        def work(start: int, stop: int) -> None:
            self.explainer.tell(columns, codes, told, start, stop)
            _add_partners(self.mix, self.lines, columns, told, start, stop)

        share_out(columns.shape[1], work)
        return np.asarray(self.mix.intercept + self.mix.slope * told[self.mix.groups])

    def assess(self, columns: Columns, codes: Codes | None = None) -> Assessed:
        """Say of rows what there is to say, on all processors.

        Parameters
        ----------
        columns : shape (features, rows), NaN where unknown
        codes : of the columns, where they are known already
        """
        rows = columns.shape[1]
        if rows == 1 and codes is None and not self.explainer.slow:
            return self._assess_one(columns)
        codes = self.explainer.codes(columns) if codes is None else codes
        told, risks = self.explainer.room(rows), np.empty((4, rows))

        def work(start: int, stop: int) -> None:
            self.explainer.tell(columns, codes, told, start, stop)
            _finish(self.mix, self.lines, columns, told, risks, start, stop)

        share_out(rows, work)
        return Assessed(risks[0], risks[1], risks[2], risks[3], told[: self.mix.groups])

    def _assess_one(self, columns: Columns) -> Assessed:
        """Say the same of one row, where handing things over takes as long as what there is to do."""
        told, risks = self.explainer.room(1), np.empty((4, 1))
        _assess_one(self.explainer.cuts, self.explainer.lookups, self.mix, self.lines, columns, told, risks)
        return Assessed(risks[0], risks[1], risks[2], risks[3], told[: self.mix.groups])


@compiled
def _assess_one(
    cuts: Cuts, lookups: Lookups, mix: Mix, lines: Lines, columns: Columns, told: Floats, risks: Floats
) -> None:
    """Take one row all the way: as codes, through the trees, to risks."""
    codes = np.empty((len(cuts.feature), 1), lookups.shift.dtype)
    # The highest code is for unknown.
    fill_codes(cuts, columns, codes, int(codes.dtype.type(-1)), 0, 1)
    add_up(lookups, codes, told, 0, 1)
    _finish(mix, lines, columns, told, risks, 0, 1)


@compiled
def _finish(mix: Mix, lines: Lines, columns: Columns, told: Floats, risks: Floats, start: int, stop: int) -> None:
    """Make calibrated contributions and risks of what trees tell of the rows ``[start, stop)``.

    Parameters
    ----------
    told : shape (concepts + fits, rows)
        The trees' contributions, which become calibrated ones, and the margin of each fit.
    risks : shape (4, rows)
        Written: probability, lower, upper and known gain.
    """
    _add_partners(mix, lines, columns, told, start, stop)
    for group in range(mix.groups):
        told[group, start:stop] *= mix.slope
    for row in range(start, stop):
        risk = _expit(mix.intercept + mix.slope * told[mix.groups, row])
        low, high = risk, risk
        for fit in range(mix.groups + 1, len(told)):
            other = _expit(mix.intercept + mix.slope * told[fit, row])
            low, high = min(low, other), max(high, other)
        risks[0, row], risks[1, row], risks[2, row] = risk, low, high
    _fill_known_gain(mix.importance, columns, risks[3], start, stop)


@compiled
def _add_partners(mix: Mix, lines: Lines, columns: Columns, told: Floats, start: int, stop: int) -> None:
    """Mix the trees' log-odds with those of their partners, where they have any."""
    if not len(lines.intercept):
        return
    rows = stop - start
    term, total = np.empty(rows), np.empty(rows)
    told[:, start:stop] *= 1 - mix.share
    for fit in range(len(lines.intercept)):
        total[:] = 0.0
        for feature in range(len(columns)):
            if lines.moves[fit, feature]:
                fill_term(lines, fit, feature, columns[feature, start:stop], term)
                total += term
                if fit == 0:
                    told[mix.group[feature], start:stop] += mix.share * (term - lines.mean[fit, feature])
        told[mix.groups + fit, start:stop] += mix.share * (lines.intercept[fit] + total)


@compiled
def _fill_known_gain(importance: Floats, columns: Columns, known: Floats, start: int, stop: int) -> None:
    """Write the sum of the importance of what is known; 1 where nothing is of importance."""
    known[start:stop] = 0.0 if importance.any() else 1.0
    for feature in range(len(importance)):
        if importance[feature] > 0:
            column = columns[feature]
            for row in range(start, stop):
                known[row] += 0.0 if np.isnan(column[row]) else importance[feature]


@compiled
def _expit(log_odds: float) -> float:
    """Return the probability of log-odds, without overflow at either end."""
    smaller = math.exp(-abs(log_odds))
    return 1 / (1 + smaller) if log_odds >= 0 else smaller / (1 + smaller)


def _shares(amounts: Floats) -> Floats:
    total = amounts.sum()
    return amounts / total if total > 0 else amounts
