"""How a model holds in each group of residents: by sex, age, township, schooling, town or village, years of record.

A model that holds for all together may fail the few. The figures are compared with fairlearn's `MetricFrame`, weighted
for censoring; the intervals draw persons, within the group.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from numpy.typing import NDArray

from training.calibrate import logistic_line, rows_that_count
from training.groups import in_order
from training.sample import Sample
from training.validate import Estimate, auroc, calibration_line, observed_to_expected
from training.validate.bootstrap import bootstrapped, interval
from training.validate.calibration import sums
from training.validate.discrimination import auroc_of
from training.validate.rows import Ranked, both_kinds, log_odds_of, ranked, ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# A cell with fewer residents could tell who they are (design.md, promise 9).
FEWEST_RESIDENTS = 10
# With fewer outcomes or non-outcomes, ranking and slope say nothing: the interval of an AUROC of 0.75 with 20 of each
# is 0.3 wide (Hanley and McNeil, Radiology 1982;143:29-36).
FEWEST_OF_EACH = 20
# Enough for an interval, few enough for six groupings.
REPLICATES = 200


@dataclass(frozen=True)
class Subgroup:
    """How a model holds in one group.

    Attributes
    ----------
    grouping, value : `sex`, `female`
    n, residents, events : rows with a known outcome, persons among them, rows with the outcome
        Of a group with fewer than 10 residents these are for counting, not for showing.
    metrics : an `Estimate` for every name in `SUBGROUP_METRICS`
        Not defined where there is too little to tell; None where the group has fewer than 10 residents.
    reason : why metrics are left out; empty where none is
    """

    grouping: str
    value: str
    n: int
    residents: int
    events: int
    metrics: dict[str, Estimate] | None
    reason: str = ""


@dataclass(frozen=True)
class Gap:
    """The largest less the smallest of a metric, among the groups of a grouping that have it.

    `lowest` and `highest` are the values of these two groups.
    """

    grouping: str
    metric: str
    gap: float
    lowest: str
    highest: str


def subgroups(sample: Sample, risk: Floats, *, seed: int = 0, replicates: int = REPLICATES) -> tuple[Subgroup, ...]:
    """Measure risks in every group of every grouping.

    A resident whose group changes counts in each, with the rows that belong there. Rows of an unknown group, and rows
    whose outcome is unknown, count nowhere.

    Parameters
    ----------
    risk : shape (n,), probability
        Of each row, from a model that did not see it.
    replicates : how many times persons are drawn for an interval

    Returns
    -------
    By grouping, as the sample's `groups` have them, and within it in natural order. `sensitivity`, `ppv` and
    `selection_rate` are of the residents whose risk reaches the target's high tier. Where there are fewer than 20
    outcomes or non-outcomes, `auroc` and `calibration_slope` are not defined, and the reason says so.

    Raises
    ------
    ValueError
        If the shapes differ, or a risk is not finite.
    """
    known = rows_that_count(sample.outcome, sample.weight, risk=risk)
    rows = _Rows(sample.outcome[known], risk[known], sample.weight[known], sample.person[known])
    threshold = sample.target.tiers[1]
    return tuple(
        subgroup
        for grouping in sample.groups.columns
        for subgroup in _of(grouping, sample.groups[grouping].to_numpy()[known], rows, threshold, replicates, seed)
    )


def gaps(found: tuple[Subgroup, ...]) -> tuple[Gap, ...]:
    """Return how far apart the groups of each grouping lie, for every metric that two or more of them have."""
    groupings = dict.fromkeys(subgroup.grouping for subgroup in found)
    both = ((grouping, metric) for grouping in groupings for metric in SUBGROUP_METRICS)
    return tuple(gap for grouping, metric in both if (gap := _gap(found, grouping, metric)))


# A metric of outcome, risk and weight, in fairlearn's order; NaN where it is not defined.
_Metric = Callable[[Floats, Floats, Floats], float]


@dataclass(frozen=True)
class _Rows:
    """Rows with a known outcome; each array of shape (n,)."""

    outcome: Floats
    risk: Floats
    weight: Floats
    person: Ints

    def take(self, which: Bools) -> "_Rows":
        """Return some of the rows."""
        return _Rows(self.outcome[which], self.risk[which], self.weight[which], self.person[which])

    @property
    def fewest(self) -> int:
        """The number of outcomes or of non-outcomes, whichever is smaller."""
        return int(min(self.outcome.sum(), (1 - self.outcome).sum()))

    @property
    def residents(self) -> int:
        """The number of persons."""
        return len(np.unique(self.person))


def _of(
    grouping: str, group: NDArray[np.object_], rows: _Rows, threshold: float, replicates: int, seed: int
) -> list[Subgroup]:
    """Measure the groups of one grouping; `group`, shape (n,), None where unknown."""
    values = in_order(grouping, [str(value) for value in pd.unique(group) if value is not None])
    cells = {value: rows.take(group == value) for value in values}
    estimates = _estimates({v: cell for v, cell in cells.items() if cell.residents >= FEWEST_RESIDENTS}, threshold)
    return [
        Subgroup(
            grouping=grouping,
            value=value,
            n=len(cell.risk),
            residents=cell.residents,
            events=int(cell.outcome.sum()),
            metrics=_with_intervals(cell, estimates[value], threshold, replicates, seed)
            if value in estimates
            else None,
            reason=_reason(cell),
        )
        for value, cell in cells.items()
    ]


def _estimates(cells: dict[str, _Rows], threshold: float) -> dict[str, dict[str, float]]:
    """Return every metric of every cell."""
    if not cells:
        return {}
    metrics = _metrics(threshold)
    weight = np.concatenate([cell.weight for cell in cells.values()])
    frame = MetricFrame(
        metrics=metrics,
        y_true=np.concatenate([cell.outcome for cell in cells.values()]),
        y_pred=np.concatenate([cell.risk for cell in cells.values()]),
        sensitive_features=np.repeat(list(cells), [len(cell.risk) for cell in cells.values()]),
        sample_params={name: {"weight": weight} for name in metrics},
    )
    return {value: {name: float(frame.by_group.loc[value, name]) for name in metrics} for value in cells}


def _with_intervals(
    cell: _Rows, estimates: dict[str, float], threshold: float, replicates: int, seed: int
) -> dict[str, Estimate]:
    rows = ranked(cell.outcome, cell.risk, cell.weight)
    persons, of_row = np.unique(cell.person[rows.place], return_inverse=True)
    drawing = _Drawing.of(rows, threshold)
    drawn = bootstrapped(
        lambda times: drawing.metrics(rows.weight * times[of_row]), len(persons), replicates, seed
    ).drawn
    nothing = Estimate(math.nan, math.nan, math.nan)
    return {
        name: interval(estimates[name], drawn[:, place])
        if cell.fewest >= FEWEST_OF_EACH or name not in OF_RANKING
        else nothing
        for place, name in enumerate(SUBGROUP_METRICS)
    }


@dataclass(frozen=True)
class _Drawing:
    """The rows of a cell by falling risk, and what does not change when persons are drawn.

    `line` is the intercept and slope of all rows, from which those of a replicate are near.
    """

    rows: Ranked
    log_odds: Floats
    selected: Floats
    line: tuple[float, float]

    @classmethod
    def of(cls, rows: Ranked, threshold: float) -> "_Drawing":
        log_odds = log_odds_of(rows.risk)
        line = logistic_line(log_odds, rows.outcome, rows.weight, 0.0, 1.0, True)
        selected = (rows.risk >= threshold).astype(np.float64)
        return cls(rows, log_odds, selected, (0.0, 0.0) if math.isnan(line[1]) else line)

    def metrics(self, weight: Floats) -> Floats:
        """Return `SUBGROUP_METRICS` under the weights of a replicate, NaN where not defined; shape (metrics,)."""
        total, events, expected, _ = sums(self.rows.outcome, self.rows.risk, weight)
        selected, found = float(weight @ self.selected), float((weight * self.rows.outcome) @ self.selected)
        slope = math.nan
        if both_kinds(self.rows.outcome, weight):
            _, slope = logistic_line(self.log_odds, self.rows.outcome, weight, *self.line, True)
        return np.array(
            [
                *(auroc_of(self.rows, weight), slope, ratio(events, expected)),
                *(ratio(found, events), ratio(found, selected), ratio(selected, total)),
            ]
        )


def _reason(cell: _Rows) -> str:
    if cell.residents < FEWEST_RESIDENTS:
        return f"fewer than {FEWEST_RESIDENTS} residents"
    if cell.fewest < FEWEST_OF_EACH:
        events = int(cell.outcome.sum())
        what = "outcomes" if events < FEWEST_OF_EACH else "non-outcomes"
        return f"fewer than {FEWEST_OF_EACH} {what}: no AUROC and no slope"
    return ""


def _gap(found: tuple[Subgroup, ...], grouping: str, metric: str) -> Gap | None:
    figures = {
        subgroup.value: subgroup.metrics[metric].estimate
        for subgroup in found
        if subgroup.grouping == grouping and subgroup.metrics and not math.isnan(subgroup.metrics[metric].estimate)
    }
    if len(figures) < 2:
        return None
    lowest, highest = min(figures, key=figures.__getitem__), max(figures, key=figures.__getitem__)
    return Gap(grouping, metric, figures[highest] - figures[lowest], lowest, highest)


def _metrics(threshold: float) -> dict[str, _Metric]:
    """Return the metrics by name; a resident is selected whose risk is `threshold` or more."""

    def sensitivity(outcome: Floats, risk: Floats, weight: Floats) -> float:
        return ratio(float((weight * outcome) @ (risk >= threshold)), float(weight @ outcome))

    def ppv(outcome: Floats, risk: Floats, weight: Floats) -> float:
        return ratio(float((weight * outcome) @ (risk >= threshold)), float(weight @ (risk >= threshold)))

    def selection_rate(_: Floats, risk: Floats, weight: Floats) -> float:
        return ratio(float(weight @ (risk >= threshold)), float(weight.sum()))

    return {
        "auroc": _where_defined(auroc),
        "calibration_slope": _where_defined(lambda *columns: calibration_line(*columns).slope),
        "observed_to_expected": _where_defined(observed_to_expected),
        "sensitivity": sensitivity,
        "ppv": ppv,
        "selection_rate": selection_rate,
    }


def _where_defined(metric: _Metric) -> _Metric:
    def defined(outcome: Floats, risk: Floats, weight: Floats) -> float:
        try:
            return metric(outcome, risk, weight)
        except ValueError:
            return math.nan

    return defined


SUBGROUP_METRICS = tuple(_metrics(0.0))
# What needs outcomes and non-outcomes to be told apart.
OF_RANKING = frozenset({"auroc", "calibration_slope"})
