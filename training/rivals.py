"""Rivals of a model on the very rows that it is measured on: a logistic regression, and the published scores.

A published score is shown as it stands (raw) and recalibrated: by a line on the log-odds of its risk, or on its points,
fitted on the rows of the other folds. It is measured on the rows on which it can be computed, and the model beside it
on the same ones. What is missing stays missing: where a score cannot be computed, its range is told.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.cohort import Target
from features.errors import WeibingError
from features.times import DAY, YEAR
from training.calibrate import expit, logit, recalibrate
from training.comparators.base import Comparator, RiskScore
from training.comparators.logistic import out_of_fold_margins
from training.comparators.registry import COMPARATORS, comparator_named
from training.fit import Grown, Rows
from training.sample import Sample
from training.validate import (
    DecisionCurve,
    Estimate,
    Validation,
    decision_curve,
    net_benefit_difference,
    paired_difference,
    validate,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Gives = Literal["risk", "points", "ranking"]

LOGISTIC = "logistic"
# The name of the model among its rivals.
MODEL = "model"
# The thresholds of a decision curve: from 1 % to beyond that of the highest tier.
THRESHOLDS = 60
BEYOND_THE_TIERS = 1.5
REPLICATES = 200
# With fewer rows with the outcome, or without it, figures of a score would be noise.
FEWEST = 10
# A risk nearer to 0 or 1 is taken as this before a line is fitted: a few sure ones must not turn it.
NEAREST = 1e-6
# Horizons that differ by less are the same, in days: years of 365 and of 365.25.
SAME_HORIZON = 5


@dataclass(frozen=True)
class Rival:
    """What a rival shows on the model's rows.

    Attributes
    ----------
    name, title_en, title_zh
    paper, trust, verified : where its numbers are from, and how sure they are
    note_en, note_zh : what a reader of its figures must know
    outcome, horizon_days : what its authors predict, and over which time; None where they name none
    gives : "risk", "points", or "ranking" for risks that are known to be off
    computable : weighted share of the rows on which it can be computed
    range_width : median width of its bounds on the others that it is meant for, in its own unit; None without such rows
    raw : performance of its own risks; None where it gives none, or can be computed on too few rows
    recalibrated : the same after a line fitted on the other folds; None where there are too few rows
    difference : AUROC of the model minus its own, paired, on the rows on which it can be computed
    decision : net benefit of the model and of the recalibrated risks, on those rows; None where there are too few
    benefit : the same as a difference at the threshold of each tier, the model minus them, paired
    risk : shape (n,), the recalibrated risks; NaN where it cannot be computed
    """

    name: str
    title_en: str
    title_zh: str
    paper: str
    trust: str
    verified: bool
    note_en: str
    note_zh: str
    outcome: str
    horizon_days: int | None
    gives: Gives
    computable: float
    range_width: float | None
    raw: Validation | None
    recalibrated: Validation | None
    difference: Estimate | None
    decision: DecisionCurve | None
    benefit: tuple[Estimate, ...] | None
    risk: Floats


def rivals(sample: Sample, rows: Rows, grown: Grown, *, seed: int = 0) -> tuple[Rival, ...]:
    """Measure the rivals of a model on its rows: first the logistic regression, then the published scores."""
    ground = _Ground(rows, grown, sample.target, seed)
    scores = scores_for(sample.target)
    return (_regression(ground), *(_published(score, sample, ground) for score in scores))


def thresholds_of(target: Target) -> Floats:
    """Return the thresholds between which a target's net benefit is shown, shape (thresholds,)."""
    return np.linspace(0.01, min(BEYOND_THE_TIERS * target.tiers[-1], 0.99), THRESHOLDS)


def scores_for(target: Target) -> tuple[Comparator, ...]:
    """Return the published scores that a target names; where it names none, those listed under its name."""
    return tuple(map(comparator_named, target.comparators)) or COMPARATORS.get(target.name, ())


@dataclass(frozen=True)
class _Ground:
    """The rows on which rivals meet the model."""

    rows: Rows
    grown: Grown
    target: Target
    seed: int

    def share(self, some: Bools) -> float:
        """Return the weighted share of the rows with a known outcome that are among some."""
        weight = self.rows.weight
        return float(weight[some].sum() / weight.sum())

    def enough(self, some: Bools) -> bool:
        """Whether some rows hold enough of both outcomes to measure anything."""
        known = some & self.rows.known
        events = int(self.rows.outcome[known].sum())
        return FEWEST <= events <= int(known.sum()) - FEWEST

    def measured(self, risk: Floats, rank: Floats) -> Validation:
        """Measure risks where they are known; like the model they rank as they did before they were recalibrated."""
        of, rows = np.isfinite(risk) & self.rows.known, self.rows
        columns = (rows.outcome[of], risk[of], rows.weight[of], rows.person[of])
        return validate(*columns, rank=rank[of], seed=self.seed)

    def behind(self, rank: Floats) -> Estimate:
        """Return the AUROC of the model minus that of a ranking, where it is known."""
        of = np.isfinite(rank) & self.rows.known
        rows, ours = self.rows, self.grown.margin
        return paired_difference(rows.outcome[of], ours[of], rank[of], rows.weight[of], rows.person[of], seed=self.seed)

    def decision(self, name: str, risk: Floats) -> DecisionCurve:
        """Return net benefit against the threshold, of the model and of risks, where these are known."""
        of, rows = np.isfinite(risk) & self.rows.known, self.rows
        both = {MODEL: self.grown.risk[of], name: risk[of]}
        thresholds = thresholds_of(self.target)
        return decision_curve(rows.outcome[of], both, rows.weight[of], rows.person[of], thresholds, seed=self.seed)

    def benefit(self, risk: Floats) -> tuple[Estimate, ...]:
        """Return the net benefit of the model minus that of risks at each tier's threshold, where these are known."""
        of, rows = np.isfinite(risk) & self.rows.known, self.rows
        columns = (rows.outcome[of], self.grown.risk[of], risk[of], rows.weight[of], rows.person[of])
        return tuple(
            net_benefit_difference(*columns, tier, replicates=REPLICATES, seed=self.seed) for tier in self.target.tiers
        )

    def recalibrated(self, rank: Floats) -> tuple[Floats, str]:
        """Return the risks by a line fitted on each row's other folds, NaN where unknown; and what went wrong."""
        risk, faults, fold = np.full(len(rank), np.nan), "", self.grown.fold
        known = np.isfinite(rank)
        for held_out in np.unique(fold):
            test, learnt = known & (fold == held_out), known & (fold != held_out) & self.rows.known
            risk[test], fault = _by_line(rank[learnt], self.rows.outcome[learnt], self.rows.weight[learnt], rank[test])
            faults = faults or fault
        return risk, faults


def _by_line(rank: Floats, outcome: Floats, weight: Floats, asked: Floats) -> tuple[Floats, str]:
    """Return the risks of the asked ranks; everybody's mean, and why, where no rising line fits."""
    try:
        return recalibrate(rank, outcome, weight).probability(asked), ""
    except WeibingError as error:
        return np.full(len(asked), np.average(outcome, weights=weight)), str(error)


def _regression(ground: _Ground) -> Rival:
    """Measure the logistic regression; everything it does to a fold is learnt on the others."""
    rows = ground.rows
    margin = out_of_fold_margins(rows.matrix, rows.outcome, rows.weight, ground.grown.fold)
    risk, _ = ground.recalibrated(margin)
    return Rival(
        name=LOGISTIC,
        title_en="Logistic regression with splines",
        title_zh="样条logistic回归",
        paper="Harrell, Regression Modeling Strategies, 2nd ed. (2015)",
        trust="VP",
        verified=True,
        note_en="Fitted here on the model's own rows, folds and features: restricted cubic splines, medians and "
        "indicators for missing values, a ridge penalty chosen by log-loss on the other folds.",
        note_zh="在本模型的同一批数据、同样的折与特征上拟合：限制性立方样条，缺失值以中位数填补并加缺失指示，岭惩罚按其余各折的对数损失选定。",
        outcome="the target itself",
        horizon_days=None,
        gives="risk",
        computable=1.0,
        range_width=None,
        raw=ground.measured(expit(margin), margin),
        recalibrated=ground.measured(risk, margin),
        difference=ground.behind(margin),
        decision=ground.decision(LOGISTIC, risk),
        benefit=ground.benefit(risk),
        risk=risk,
    )


def _published(score: Comparator, sample: Sample, ground: _Ground) -> Rival:
    """Measure a published score."""
    rank = score.rank(sample.profiles)
    computed = np.isfinite(rank)
    enough = ground.enough(computed)
    gives = gives_of(score)
    risk, fault = ground.recalibrated(_straight(score, rank)) if enough else (np.full(len(rank), np.nan), "")
    return Rival(
        name=score.name,
        title_en=score.title("en"),
        title_zh=score.title("zh"),
        paper=score.paper,
        trust=score.trust,
        verified=score.verified,
        note_en=" ".join(filter(None, (score.note_en, *_notes_en(score, sample.target, fault)))),
        note_zh="".join(filter(None, (score.note_zh, *_notes_zh(score, sample.target, fault)))),
        outcome=score.outcome,
        horizon_days=score.horizon_days,
        gives=gives,
        computable=ground.share(computed),
        range_width=_range_width(score, sample.profiles.filter(~computed & ground.rows.known)),
        raw=ground.measured(rank, rank) if enough and gives == "risk" else None,
        recalibrated=ground.measured(risk, rank) if enough else None,
        difference=ground.behind(rank) if enough else None,
        decision=ground.decision(score.name, risk) if enough else None,
        benefit=ground.benefit(risk) if enough else None,
        risk=risk,
    )


def gives_of(score: Comparator) -> Gives:
    """Return what a score gives: risks, points, or risks by which to rank and no more."""
    if score.ranking_only:
        return "ranking"
    return "risk" if isinstance(score, RiskScore) else "points"


def _straight(score: Comparator, rank: Floats) -> Floats:
    """Return what a line is fitted to: the log-odds of a risk, points as they are."""
    return logit(np.clip(rank, NEAREST, 1.0 - NEAREST)) if isinstance(score, RiskScore) else rank


def _range_width(score: Comparator, profiles: pl.DataFrame) -> float | None:
    """Return the median width of a score's bounds, of residents whom it may be meant for; None without any."""
    if not profiles.height:
        return None
    low, high = score.bounds(profiles)
    width = high - low
    return float(np.median(width[np.isfinite(width)])) if np.isfinite(width).any() else None


def differs(score: Comparator, target: Target) -> tuple[bool, bool]:
    """Return whether a score's outcome, and whether its horizon, is another than the target's."""
    other_outcome = not set(target.outcome) <= set(score.concepts)
    days = score.horizon_days
    return other_outcome, days is not None and abs(days - target.horizon_days) > SAME_HORIZON


def _notes_en(score: Comparator, target: Target, fault: str) -> list[str]:
    outcome, horizon = differs(score, target)
    return [
        f"Its authors predict another outcome than this target's: {score.outcome}." if outcome else "",
        f"Its horizon is {_years(score.horizon_days)}, the target's {_years(target.horizon_days)} years."
        if horizon
        else "",
        f"Where no rising line fits the other folds, everybody bears their mean risk. {fault}" if fault else "",
    ]


def _notes_zh(score: Comparator, target: Target, fault: str) -> list[str]:
    outcome, horizon = differs(score, target)
    return [
        "其作者预测的结局与本目标不同。" if outcome else "",
        f"其期限为{_years(score.horizon_days)}年，本目标为{_years(target.horizon_days)}年。" if horizon else "",
        "部分折上无法拟合递增的直线，该处所有人取其余各折的平均风险。" if fault else "",
    ]


def _years(days: int | None) -> str:
    return f"{(days or 0) * DAY / YEAR:.2g}"
