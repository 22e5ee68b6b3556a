"""Does the model hold where it was not made? Each township in turn is left out, and measured by a model of the others.

How well that goes differs between townships by chance, and beyond chance; what to expect of a township not seen yet is
the prediction interval.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, stats

from features.engine import KEYS, Engine
from features.errors import WeibingError
from training.calibrate import expit, logit, recalibrate
from training.fit import Grown, Rows, refit
from training.fitted import FEW_ROWS
from training.groups import TOWNSHIP
from training.sample import Sample
from training.validate import Estimate, validate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# A county has about as many townships as this; where it has more, each model more costs more than it tells.
MOST_REFITS = 12
# Outcomes, and non-outcomes, without which a township says nothing of its own.
FEWEST_OF_EACH = 20
# A prediction interval has two degrees of freedom less than there are clusters.
FEWEST_CLUSTERS = 3
# Enough for a variance.
REPLICATES = 200


@dataclass(frozen=True)
class Cluster:
    """Performance in one cluster, of a model that saw none of its residents.

    `value` names its townships, joined by `` + ``; `n` rows with a known outcome, of so many residents, with so many
    events.
    """

    value: str
    n: int
    residents: int
    events: int
    auroc: Estimate
    observed_to_expected: Estimate
    slope: Estimate


@dataclass(frozen=True)
class Pooled:
    """What the clusters say together, by random effects.

    Attributes
    ----------
    mean : of all clusters, those not seen included, with its 95 % interval
    lower, upper : the 95 % prediction interval: within it lies what is to be expected of a new cluster
    tau2 : variance between clusters, on the scale on which they were pooled
    i2 : the share of the variance of their estimates that is not chance, 0 to 1
    clusters : how many were pooled
    """

    mean: Estimate
    lower: float
    upper: float
    tau2: float
    i2: float
    clusters: int


@dataclass(frozen=True)
class Clusters:
    """Every cluster, left out in turn, and what they say together.

    `auroc` is pooled on the log-odds scale, `observed_to_expected` on the log scale, `slope` as it is. `unplaced`
    counts residents of no known cluster, of whom each model learns.
    """

    grouping: str
    each: tuple[Cluster, ...]
    auroc: Pooled
    observed_to_expected: Pooled
    slope: Pooled
    unplaced: int


def leave_one_out(
    sample: Sample,
    rows: Rows,
    grown: Grown,
    engine: Engine,
    *,
    grouping: str = TOWNSHIP,
    most: int = MOST_REFITS,
    seed: int = 0,
) -> Clusters | str:
    """Measure how the recipe of a model holds in clusters of residents that it learnt nothing from.

    A resident belongs to the cluster that was told last. For each cluster the recipe is fitted on all other residents,
    and recalibrated with their out-of-fold margins. The settings are those chosen on all, so what differs from a model
    of the others is what residents and records are like, not how the model was sought.

    The two clusters with the fewest outcomes are joined until each has 20 outcomes and 20 non-outcomes and there are no
    more than `most`: what differs between those that were joined is not seen.

    Parameters
    ----------
    rows, grown : of the sample, and what was fitted on them
    grouping : a column of the sample's groups

    Returns
    -------
    The clusters in the order of their names, or a sentence that says why they cannot be had.

    References
    ----------
    Debray, Moons, Ahmed, Koffijberg, Riley, Stat Med 2013;32:3158-3180 (internal-external cross-validation). Riley et
    al., BMJ 2016;353:i3140. Debray et al., BMJ 2017;356:i6460 (pooling AUROC and O:E, prediction intervals). Snell,
    Ensor, Debray, Moons, Riley, Stat Methods Med Res 2018;27:3505-3522 (the scales).
    """
    belongs = _belonging(sample, grouping)
    clusters = _joined(belongs, rows, most)
    if len(clusters) < FEWEST_CLUSTERS:
        return (
            f"By {grouping} there are {len(clusters)} clusters with {FEWEST_OF_EACH} outcomes and {FEWEST_OF_EACH}"
            f" non-outcomes, joined where they are small; comparing them needs {FEWEST_CLUSTERS}."
        )
    # LightGBM's own threads are for many rows; on few, a thread a cluster is faster.
    threads = os.cpu_count() if len(rows.outcome) < FEW_ROWS else 1

    def measured(parts: tuple[str, ...]) -> Cluster:
        return _measured(" + ".join(parts), np.isin(belongs, parts), sample, rows, grown, engine, seed)

    try:
        with ThreadPoolExecutor(threads) as pool:
            each = tuple(pool.map(measured, clusters))
    except WeibingError as error:
        return f"Leaving out one {grouping} after the other: {error}"
    return Clusters(
        grouping=grouping,
        each=each,
        auroc=_pooled([cluster.auroc for cluster in each], LOG_ODDS),
        observed_to_expected=_pooled([cluster.observed_to_expected for cluster in each], LOG),
        slope=_pooled([cluster.slope for cluster in each], AS_IT_IS),
        unplaced=len(np.unique(rows.person[belongs == ""])),
    )


@dataclass(frozen=True)
class RandomEffects:
    """A random-effects mean with its standard error, and the variance between; `i2` as in `Pooled`."""

    mean: float
    error: float
    tau2: float
    i2: float
    clusters: int

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the mean (Hartung and Knapp)."""
        reach = float(stats.t.ppf(0.975, self.clusters - 1)) * self.error
        return self.mean - reach, self.mean + reach

    def prediction(self) -> tuple[float, float]:
        """Return the 95 % prediction interval (Higgins et al.)."""
        reach = float(stats.t.ppf(0.975, self.clusters - 2)) * math.sqrt(self.tau2 + self.error**2)
        return self.mean - reach, self.mean + reach


def random_effects(effect: Floats, variance: Floats) -> RandomEffects:
    r"""Pool effects by random effects: :math:`y_i \sim N(\mu, \tau^2 + v_i)`.

    :math:`\tau^2` by restricted maximum likelihood; the standard error of the mean after Hartung, Knapp, Sidik and
    Jonkman, but never smaller than if chance alone scattered the effects (Röver et al.).

    Parameters
    ----------
    effect : shape (k,), 3 or more
    variance : shape (k,), above 0
        Of each effect by chance.

    References
    ----------
    Viechtbauer, J Educ Behav Stat 2005;30:261-293 (REML). Hartung and Knapp, Stat Med 2001;20:3875-3889. Röver, Knapp
    and Friede, BMC Med Res Methodol 2015;15:99. Higgins and Thompson, Stat Med 2002;21:1539-1558 (I²). Higgins,
    Thompson and Spiegelhalter, J R Stat Soc A 2009;172:137-159 (prediction interval).
    """
    tau2 = _between(effect, variance)
    weight = 1.0 / (variance + tau2)
    mean = float(weight @ effect / weight.sum())
    scatter = float(weight @ (effect - mean) ** 2) / (len(effect) - 1)
    by_chance = 1.0 / variance
    typical = (len(effect) - 1) * by_chance.sum() / (by_chance.sum() ** 2 - (by_chance**2).sum())
    error = math.sqrt(max(1.0, scatter) / weight.sum())
    return RandomEffects(mean, error, tau2, float(tau2 / (tau2 + typical)), len(effect))


def _between(effect: Floats, variance: Floats) -> float:
    """Return the variance between by restricted maximum likelihood."""

    def unlikely(tau2: float) -> float:
        weight = 1.0 / (variance + tau2)
        residual = effect - weight @ effect / weight.sum()
        return float(-np.log(weight).sum() + np.log(weight.sum()) + weight @ residual**2)

    most = 10.0 * float(np.var(effect)) + 1e-12
    found = float(optimize.minimize_scalar(unlikely, bounds=(0.0, most), method="bounded", options={"xatol": 1e-9}).x)
    return found if unlikely(found) < unlikely(0.0) else 0.0


def _identity(number: Floats) -> Floats:
    return number


# A scale on which effects scatter about evenly: there and back.
_Scale = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]
LOG_ODDS: _Scale = (logit, expit)
LOG: _Scale = (np.log, np.exp)
AS_IT_IS: _Scale = (_identity, _identity)


def _pooled(estimates: list[Estimate], scale: _Scale) -> Pooled:
    """Pool estimates with an interval that is finite on the scale; the width of it tells the variance."""
    there, back = scale
    ends = np.array([(each.estimate, each.lower, each.upper) for each in estimates])
    with np.errstate(divide="ignore", invalid="ignore"):
        effect, lower, upper = there(ends).T
    variance = ((upper - lower) / (2 * stats.norm.ppf(0.975))) ** 2
    usable = np.isfinite(effect) & np.isfinite(variance) & (variance > 0)
    if usable.sum() < FEWEST_CLUSTERS:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return Pooled(nothing, math.nan, math.nan, math.nan, math.nan, int(usable.sum()))
    found = random_effects(effect[usable], variance[usable])
    numbers = np.array([found.mean, *found.interval(), *found.prediction()])
    mean, low, high, lowest, highest = back(numbers).tolist()
    return Pooled(Estimate(mean, low, high), lowest, highest, found.tau2, found.i2, found.clusters)


def _measured(value: str, here: Bools, sample: Sample, rows: Rows, grown: Grown, engine: Engine, seed: int) -> Cluster:
    """Fit on all rows that are not here, and measure on those that are."""
    others = replace(rows, weight=np.where(here, 0.0, rows.weight))
    fitted = refit(others, grown.recipe, sample.target, engine, seed=grown.seed)
    line = recalibrate(grown.margin[~here], rows.outcome[~here], rows.weight[~here])
    left_out = rows.take(here & rows.known)
    risk = line.probability(fitted.margin(left_out.matrix))
    found = validate(left_out.outcome, risk, left_out.weight, left_out.person, replicates=REPLICATES, seed=seed)
    return Cluster(
        value=value,
        n=found.n,
        residents=found.residents,
        events=found.events,
        auroc=found.metrics["auroc"],
        observed_to_expected=found.metrics["observed_to_expected"],
        slope=found.metrics["calibration_slope"],
    )


def _belonging(sample: Sample, grouping: str) -> NDArray[np.str_]:
    """Return the cluster that each row's resident belonged to last, shape (n,); empty where none is known."""
    rows = sample.cohort.rows.select(KEYS).with_columns(sample.groups[grouping].alias("cluster"))
    told = rows.drop_nulls("cluster").sort(KEYS)
    last = told.group_by("subject_id").agg(pl.col("cluster").last())
    placed = rows.drop("cluster").join(last, on="subject_id", how="left", maintain_order="left")
    return placed["cluster"].fill_null("").to_numpy().astype(np.str_)


def _joined(belongs: NDArray[np.str_], rows: Rows, most: int) -> list[tuple[str, ...]]:
    """Return the names that make up each cluster, joining the two smallest until all are large, and few enough."""
    clusters = [_Size((name,), *_sizes(rows, belongs == name)) for name in np.unique(belongs[belongs != ""]).tolist()]
    while len(clusters) > 1:
        clusters.sort(key=lambda cluster: (cluster.fewest, cluster.names), reverse=True)
        if len(clusters) <= most and clusters[-1].fewest >= FEWEST_OF_EACH:
            break
        clusters.append(clusters.pop().with_(clusters.pop()))
    return sorted(tuple(sorted(cluster.names)) for cluster in clusters if cluster.fewest >= FEWEST_OF_EACH)


@dataclass(frozen=True)
class _Size:
    """Some clusters together: their names, outcomes and non-outcomes."""

    names: tuple[str, ...]
    events: int
    others: int

    @property
    def fewest(self) -> int:
        return min(self.events, self.others)

    def with_(self, other: "_Size") -> "_Size":
        return _Size(self.names + other.names, self.events + other.events, self.others + other.others)


def _sizes(rows: Rows, here: Bools) -> tuple[int, int]:
    outcome = rows.outcome[here & rows.known]
    return int(outcome.sum()), int((1 - outcome).sum())
