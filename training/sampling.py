"""Training data larger than memory: residents drawn before their profiles are filled, and what that costs.

Whole residents are drawn, never single rows. Each has a lot, a number from 0 to 1 that depends on the seed and on
nobody else, and a share takes those whose lot is below it: a smaller share is part of a larger one, and a resident
who joins the county changes no other's lot.
"""

import os
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import least_squares

from features.cohort import Target
from features.engine import Engine
from features.errors import WeibingError
from features.records import scrambled
from training.fit import FEWEST_OUTCOMES, FOLDS, Grown, Recipe, Rows, refit
from training.fitted import FEW_ROWS, Fitted, tree_margins
from training.validate import Estimate, paired_difference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MEMORY = "WEIBING_MEMORY_GB"
# What other programs, and the figures of the report, may need.
SHARE_OF_AVAILABLE = 0.6
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# The most that a run holds at once for a feature of a row. Growing from one candidate was measured to take 31: the rows
# once more, and for each fold its bins, by rows and by columns. Profiles,
# the trees' matrix and profiles as of other days take 4 each.
BYTES_A_CELL = 48

SIZES = (1 / 8, 1 / 4, 1 / 2, 1.0)
# Fewer rows teach less and bear fewer trees: each size is measured after the share of the trees that suits it.
STOPS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
REPLICATES = 200
# The least and the most of the logarithm of the factor, and of the exponent, of a power law.
LAWS = ([-20.0, 0.05], [2.0, 2.0])
# How far a normal estimate's 95 % interval reaches, in standard errors to both sides together.
WIDTH = 2 * 1.959964


def memory_budget() -> int:
    """Return how many bytes training may use: what `WEIBING_MEMORY_GB` says, or 60 % of what is free.

    Raises
    ------
    WeibingError
        If the variable holds no number above 0.
    """
    said = os.environ.get(MEMORY)
    if said is None:
        return int(SHARE_OF_AVAILABLE * _available())
    try:
        gigabytes = float(said)
    except ValueError:
        gigabytes = 0.0
    if not (gigabytes > 0 and isfinite(gigabytes)):
        raise WeibingError(f'{MEMORY} is "{said}". Set it to the memory for training in gigabytes, such as 16.')
    return int(gigabytes * 1e9)


def share_that_fits(rows: int, features: int, budget_bytes: int) -> float:
    """Return the share of residents whose rows, with so many features each, can be trained on in a budget: 0 to 1."""
    return min(1.0, budget_bytes / max(rows * features * BYTES_A_CELL, 1))


def lots(person: Ints, seed: int) -> Floats:
    """Return each person's lot, 0 to 1, shape as given: the same for all rows of a person."""
    mixed = scrambled(scrambled(person) ^ scrambled(np.array([seed], np.int64)))
    return np.asarray(mixed >> np.uint64(11), np.float64) / 2**53


def take_persons(rows: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Return all rows of the share of persons whose lot is drawn.

    Parameters
    ----------
    rows : `subject_id`, and any other columns
    share : of the persons, 0 to 1
    """
    return rows if share >= 1 else rows.filter(pl.Series(lots(rows["subject_id"].to_numpy(), seed) < share))


@dataclass(frozen=True)
class LearningCurve:
    """How well the same held-out residents are ranked by fits on fewer and on more of the others.

    Attributes
    ----------
    persons : residents learnt from, the fewest first
    auroc : on the held-out residents, for each size
    gains : what each size adds to the AUROC of the one before
    log_loss : of the raw log-odds, for each size
    held_out : residents that were held out, at a time
    share : of all residents at risk, whom the run learns from
    exponent, limit : of the power law ``limit − a × persons ** −exponent`` that the AUROC follows, or None
    """

    persons: tuple[int, ...]
    auroc: tuple[Estimate, ...]
    gains: tuple[Estimate, ...]
    log_loss: tuple[float, ...]
    held_out: int
    share: float = 1.0
    exponent: float | None = None
    limit: float | None = None

    @property
    def expected(self) -> float | None:
        """The AUROC that the power law gives for learning from all residents at risk; None where there is none."""
        if self.exponent is None or self.limit is None:
            return None
        last = self.auroc[-1].estimate
        return float(self.limit - (self.limit - last) * (1 / self.share) ** -self.exponent)

    @property
    def said(self) -> str:
        """What learning from a sample costs, in a sentence or two."""
        if len(self.persons) < 2:
            return "The records hold too few outcomes for fits on fewer residents, and so for a learning curve."
        before, last = self.persons[-2:]
        trend = f"From {before:,} to {last:,} residents learnt from, the AUROC rises by {self.gains[-1]}."
        return trend if self.share >= 1 else f"{self._cost} {trend}"

    @property
    def _cost(self) -> str:
        sample = f"The model learns from {self.share:.1%} of the residents at risk, as many as fit in memory."
        if self.expected is None:
            return f"{sample} The curve follows no power law; its last step is the best guide to what all would bring."
        lost = self.expected - self.auroc[-1].estimate
        return f"{sample} By the power law that the curve follows, all would raise the AUROC by {lost:.4f}."


def learning_curve(
    rows: Rows, grown: Grown, target: Target, engine: Engine, *, share: float = 1.0, seed: int = 0
) -> LearningCurve:
    """Fit the chosen recipe on an eighth, a quarter, half and all of the residents, and measure on the same others.

    Few rows are held out fold by fold, so that all are measured; of many, the first fold is enough. Sizes with fewer
    than 50 outcomes to learn from are left out.

    Parameters
    ----------
    share : of all residents at risk, whom these rows are of

    References
    ----------
    Figueroa et al., BMC Med Inform Decis Mak 2012;12:8 (power law of learning curves, for sample sizes).
    """
    held_out = range(FOLDS if len(rows.outcome) < FEW_ROWS else 1)
    test = np.isin(grown.fold, list(held_out)) & rows.known
    sizes = [size for size in SIZES if _teaches(rows, grown.fold, size, seed)]
    margins = [_margins(rows, grown, size, held_out, target, engine, seed)[test] for size in sizes]
    judged = rows.take(test)
    gains = [_gain(judged, more, fewer, seed) for fewer, more in pairwise(margins)]
    counts = tuple(_persons(rows, _learns(rows, grown.fold, 0, size, seed)) for size in sizes)
    found = tuple(_auroc(judged, margin, seed) for margin in margins)
    exponent, limit = _power_law(counts, found, gains)
    return LearningCurve(
        persons=counts,
        auroc=found,
        gains=tuple(gains),
        log_loss=tuple(_log_loss(judged, margin) for margin in margins),
        held_out=_persons(rows, grown.fold == 0),
        share=share,
        exponent=exponent,
        limit=limit,
    )


def _available() -> int:
    """Return the bytes that are free: of the machine, and of the container if there is one."""
    free = _free_of_machine()
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else max(min(free, int(limit) - int(used)), 0)


def _free_of_machine() -> int:
    """Return what the kernel can give without swapping, or half of all memory where it does not say."""
    if MEMINFO.exists():
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _learns(rows: Rows, fold: Ints, held_out: int, size: float, seed: int) -> Bools:
    """Return which rows a size learns from: of all persons outside a fold, those with the lowest lots."""
    # Other lots than those by which the sample itself was drawn, which are all low.
    return np.asarray((fold != held_out) & rows.known & (lots(rows.person, ~seed) < size))


def _teaches(rows: Rows, fold: Ints, size: float, seed: int) -> bool:
    return rows.take(_learns(rows, fold, 0, size, seed)).events >= FEWEST_OUTCOMES


def _margins(
    rows: Rows, grown: Grown, size: float, held_out: range, target: Target, engine: Engine, seed: int
) -> Floats:
    """Return the log-odds of the held-out rows from fits on a size, shape (n,), NaN elsewhere."""
    margin = np.full(len(rows.outcome), np.nan)
    for fold in held_out:
        fitted = refit(rows.take(_learns(rows, grown.fold, fold, size, seed)), grown.recipe, target, engine, seed=seed)
        test = (grown.fold == fold) & rows.known
        margin[test] = _stopped(fitted, grown.recipe, rows.take(test), seed)
    return margin


def _stopped(fitted: Fitted, recipe: Recipe, rows: Rows, seed: int) -> Floats:
    """Return log-odds after as many trees as suit the size; each half of the rows says how many for the other."""
    rounds = sorted({max(1, round(recipe.rounds * stop)) for stop in STOPS})
    stopped = np.stack([_after(fitted, rows, number) for number in rounds])
    first = lots(rows.person, ~seed) < 0.5
    margin = np.empty(len(rows.outcome))
    for half in (first, ~first):
        losses = [_log_loss(rows.take(~half), each[~half]) for each in stopped]
        margin[half] = stopped[int(np.argmin(losses)), half]
    return margin


def _after(fitted: Fitted, rows: Rows, rounds: int) -> Floats:
    of_trees = tree_margins(fitted.booster, rows.matrix, rounds)
    if fitted.partner is None:
        return of_trees
    return (1 - fitted.share) * of_trees + fitted.share * fitted.partner.margin(rows.matrix)


def _auroc(rows: Rows, margin: Floats, seed: int) -> Estimate:
    # To rank nobody before anybody is to have an AUROC of a half.
    above = _gain(rows, margin, np.zeros(len(margin)), seed)
    return Estimate(above.estimate + 0.5, above.lower + 0.5, above.upper + 0.5)


def _gain(rows: Rows, more: Floats, fewer: Floats, seed: int) -> Estimate:
    return paired_difference(rows.outcome, more, fewer, rows.weight, rows.person, replicates=REPLICATES, seed=seed)


def _log_loss(rows: Rows, margin: Floats) -> float:
    wrong = np.where(rows.outcome > 0, -margin, margin)
    return float(rows.weight @ np.logaddexp(0.0, wrong) / rows.weight.sum())


def _persons(rows: Rows, which: Bools) -> int:
    return len(np.unique(rows.person[which & rows.known]))


def _power_law(
    persons: tuple[int, ...], found: tuple[Estimate, ...], gains: list[Estimate]
) -> tuple[float | None, float | None]:
    """Return the exponent and the limit of ``limit − a × persons ** −exponent``, or None where none fits.

    It fits where each size beats the one before, and where no gain from size to size is off by more than its standard
    error.
    """
    gained = np.array([gain.estimate for gain in gains])
    error = np.array([(gain.upper - gain.lower) / WIDTH for gain in gains])
    if len(persons) < len(SIZES) or not ((gained > 0) & (error > 0)).all():
        return None, None
    relative = np.array(persons) / persons[-1]

    def off(law: Floats) -> Floats:
        return np.asarray((np.diff(-np.exp(law[0]) * relative ** -law[1]) - gained) / error)

    law = least_squares(off, np.clip([np.log(gained[-1]), 0.5], *LAWS), bounds=LAWS).x
    at_bound = np.isclose(law, LAWS, atol=1e-3).any()
    if at_bound or (np.abs(off(law)) > 1).any():
        return None, None
    return float(law[1]), float(found[-1].estimate + np.exp(law[0]))
