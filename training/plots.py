"""The pictures of a training run: how well the model ranks, whether its risks hold, and what drives them.

Figures are made without pyplot, so that nothing is left open and no window system is asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import shap
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from features.profile import PROFILE
from features.vocabulary import builtin
from training.fit import Rows
from training.train import Trained
from training.validate import CalibrationCurve, DecisionCurve, Estimate, calibration_curve, roc_curve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZE_INCHES = (6.0, 5.0)
DOTS_PER_INCH = 150
MODEL, REFERENCE, WARNING, INK = "#1f5fa8", "#8a8a8a", "#b3261e", "#1f2933"

PER_CENT = "\N{NO-BREAK SPACE}%"
UNITS_IN_WORDS = {"h": "hours", "d": "days", "w": "weeks", "mo": "months", "y": "years"}

GROUPS = 10
MOST_ROWS_SHOWN = 1_000
MOST_FEATURES_SHOWN = 15
# Of the standard normal: 95 % lie within as many standard deviations.
Z = 1.959964
NO_VARIANCE = 1e-15


def draw_all(trained: Trained, folder: Path) -> None:
    """Write every picture that the run has evidence for into a folder, each by its name as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw(trained)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)


def roc(trained: Trained) -> Figure:
    """Draw the receiver operating characteristic of the out-of-fold log-odds, which rank as the risks served do."""
    rows, grown = trained.evidence.rows, trained.evidence.grown
    curve = roc_curve(rows.outcome, grown.margin, rows.weight)
    figure = _figure(trained)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=REFERENCE, linewidth=1, linestyle="--", label="chance")
    axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=MODEL, linewidth=2, label="model, out of fold")
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (sensitivity)")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    return figure


def calibration(trained: Trained) -> Figure:
    """Draw observed against predicted risk, out of fold: a smooth curve, and groups; below, which risks there are."""
    rows, risk = _known(trained)
    curve = calibration_curve(rows.outcome, risk, rows.weight, GROUPS)
    lower, upper = observed_interval(curve, rows, risk)
    end = min(1.0, 1.04 * max(float(upper.max()), float(np.quantile(risk, 0.999))))
    figure = _figure(trained)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    above.plot([0, end], [0, end], color=REFERENCE, linewidth=1, linestyle="--", label="perfect")
    smooth = trained.evidence.calibration
    above.plot(smooth.risk, smooth.observed, color=MODEL, linewidth=2, label="smooth, 95 % interval")
    above.fill_between(smooth.risk, smooth.lower, smooth.upper, color=MODEL, alpha=0.18, linewidth=0)
    above.errorbar(
        curve.risk,
        curve.observed,
        yerr=(curve.observed - lower, upper - curve.observed),
        fmt="o",
        color=INK,
        markersize=5,
        capsize=2,
        label=f"{len(curve.risk)} groups of rising risk, 95 % interval",
    )
    above.set(ylabel="observed", xlim=(0, end), ylim=(0, end))
    above.legend(loc="upper left", frameon=False)
    metrics = trained.evidence.validation.metrics
    said = f"slope {metrics['calibration_slope']}\nobserved / expected {metrics['observed_to_expected']}"
    above.text(0.98, 0.04, said, transform=above.transAxes, ha="right", va="bottom", fontsize=9)
    _distribution(below, rows.outcome, risk, end)
    above.yaxis.set_major_formatter(PercentFormatter(1, 0, PER_CENT))
    below.xaxis.set_major_formatter(PercentFormatter(1, 0, PER_CENT))
    return figure


def beeswarm(trained: Trained, seed: int = 0) -> Figure:
    """Draw each feature's contributions to the log-odds of a sample of rows, the strongest features first."""
    model, matrix = trained.model, _known(trained)[0].matrix
    shown = np.random.default_rng(seed).permutation(len(matrix))[:MOST_ROWS_SHOWN]
    sample = matrix[shown].astype(np.float64)
    explained = shap.Explanation(
        values=model.contributions(sample),
        base_values=np.full(len(sample), model.base),
        data=sample,
        feature_names=[label_of(name) for name in model.card.features],
    )
    figure = _figure(trained)
    axes = figure.add_subplot()
    with _seeded(seed):
        shap.plots.beeswarm(
            explained, max_display=MOST_FEATURES_SHOWN, ax=axes, show=False, color_bar=False, plot_size=None, s=6
        )
    axes.set_xlabel(f"contribution to the log-odds ({len(sample):,} rows)", fontsize=9)
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(ScalarMappable(cmap=shap.plots.colors.red_blue), ax=axes, ticks=[0, 1], aspect=60, pad=0.02)
    bar.ax.set_yticklabels(["low", "high"], fontsize=8)
    bar.set_label("value of the feature (grey: unknown)", fontsize=8, labelpad=-12)
    bar.outline.set_visible(False)
    return figure


def decision(trained: Trained) -> Figure:
    """Draw the net benefit of the model and its rivals by threshold, beside that of treating all and none."""
    curve, rivals = trained.evidence.decision, trained.evidence.rivals
    titles = {rival.name: rival.title_en for rival in rivals}
    figure = _figure(trained)
    axes = figure.add_subplot()
    for name, benefit in curve.net_benefit.items():
        own = name not in titles
        style = {"color": MODEL, "linewidth": 2.2} if own else {"linewidth": 1.2}
        axes.plot(curve.thresholds, benefit, label=titles.get(name, "model"), zorder=3 if own else 2, **style)
    axes.plot(curve.thresholds, curve.treat_all, color=REFERENCE, linewidth=1, linestyle=":", label="treat all")
    axes.axhline(0, color=INK, linewidth=1, label="treat none")
    for tier in trained.model.card.target.tiers:
        axes.axvline(tier, color=REFERENCE, linewidth=0.6, linestyle="--")
    axes.set(xlabel="threshold probability", ylabel="net benefit", ylim=_benefits(curve))
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, PER_CENT))
    axes.legend(frameon=False, fontsize=8)
    return figure


def subgroups(trained: Trained) -> Figure | None:
    """Draw the AUROC of every subgroup that is large enough, or nothing where none is."""
    lines = [
        (f"{each.grouping.replace('_', ' ')}: {each.value}", each.metrics["auroc"])
        for each in trained.evidence.subgroups
        if each.metrics is not None and np.isfinite(each.metrics["auroc"].estimate)
    ]
    return _dots(trained, lines) if lines else None


def clusters(trained: Trained) -> Figure | None:
    """Draw the AUROC of every cluster that was left out, and of all together, or nothing where none was."""
    found = trained.evidence.clusters
    if isinstance(found, str):
        return None
    lines = [(one.value, one.auroc) for one in found.each]
    return _dots(trained, [*lines, ("pooled (random effects)", found.auroc.mean)])


def label_of(feature: str) -> str:
    """Return a feature in plain English, or its name with spaces where Weibing's profile does not have it."""
    if feature not in PROFILE.names:
        return feature.replace("_", " ")
    declared = PROFILE[feature]
    return declared.label(builtin().concept(declared.concept))


def observed_interval(curve: CalibrationCurve, rows: Rows, risk: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the observed share of each group of a calibration curve.

    Wilson's interval, at the number of independent rows that would leave the share as uncertain as the rows of the
    group do: those of one person are not independent, and weights differ.

    Parameters
    ----------
    curve : of these rows and risks
    risk : shape (n,), probability

    Returns
    -------
    lower and upper ends, each of shape (groups,)

    References
    ----------
    Wilson, JASA 1927;22:209-212. Korn and Graubard, Survey Methodology 1998;24:193-201.
    """
    group = np.empty(len(risk), np.int64)
    group[np.argsort(risk, kind="stable")] = np.repeat(np.arange(len(curve.rows)), curve.rows)
    independent = _independent_rows(curve, group, rows)
    share = curve.observed
    middle = share + Z**2 / (2 * independent)
    half = Z * np.sqrt(share * (1 - share).clip(0) / independent + (Z / (2 * independent)) ** 2)
    scale = 1 + Z**2 / independent
    return np.minimum((middle - half) / scale, share), np.maximum((middle + half) / scale, share)


def _independent_rows(curve: CalibrationCurve, group: Ints, rows: Rows) -> Floats:
    """Return how many independent rows of weight 1 each group is worth, shape (groups,)."""
    persons, who = np.unique(rows.person, return_inverse=True)
    pairs, pair = np.unique(group * len(persons) + who, return_inverse=True)
    residual = np.bincount(pair, weights=rows.weight * (rows.outcome - curve.observed[group]))
    variance = np.bincount(pairs // len(persons), weights=residual**2) / curve.weight**2
    # Where all or none had the outcome, the rows do not say how much they vary.
    by_weight = curve.weight**2 / np.bincount(group, weights=rows.weight**2)
    return np.divide(curve.observed * (1 - curve.observed), variance, out=by_weight, where=variance > NO_VARIANCE)


def _known(trained: Trained) -> tuple[Rows, Floats]:
    """Return the rows with a known outcome, and their out-of-fold risks."""
    rows = trained.evidence.rows
    return rows.take(rows.known), trained.evidence.grown.risk[rows.known]


def _benefits(curve: DecisionCurve) -> tuple[float, float]:
    """Return what of the net benefits is worth seeing: what lies far below treating none is not."""
    highest = max(float(np.nanmax(benefit)) for benefit in (*curve.net_benefit.values(), curve.treat_all))
    return -0.25 * highest, 1.08 * highest


def _dots(trained: Trained, lines: list[tuple[str, Estimate]]) -> Figure:
    """Draw the AUROC on each line with its interval, and where that of all residents lies."""
    figure = _figure(trained)
    axes = figure.add_subplot()
    figures = [estimate for _, estimate in lines]
    middle = np.array([estimate.estimate for estimate in figures])
    ends = np.array([[middle[i] - each.lower, each.upper - middle[i]] for i, each in enumerate(figures)]).T
    axes.errorbar(middle, range(len(lines)), xerr=np.nan_to_num(ends).clip(0), fmt="o", color=MODEL, markersize=4)
    axes.axvline(trained.evidence.validation.metrics["auroc"].estimate, color=REFERENCE, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=max(4, min(8, 220 / len(lines))))
    axes.invert_yaxis()
    axes.set_xlabel("AUROC, 95 % interval; dashes: all residents")
    return figure


def _figure(trained: Trained) -> Figure:
    """Return an empty figure with the title, and the warning where the records were simulated."""
    card, validation = trained.model.card, trained.evidence.validation
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    label = card.target.label_en or card.target.name
    figure.suptitle(
        f"{label[:1].upper()}{label[1:]} within {_in_words(card.target.horizon)}\n"
        f"n = {validation.n:,}, events = {validation.events:,}, AUROC {validation.metrics['auroc']}",
        fontsize=10,
    )
    if card.synthetic:
        stamp = {"rotation": 32, "fontsize": 38, "color": WARNING, "alpha": 0.22, "ha": "center", "va": "center"}
        figure.text(0.5, 0.5, "SYNTHETIC DATA", stamp, zorder=10)
    return figure


def _in_words(length: str) -> str:
    """Return a length such as ``5y`` as one reads it: ``5 years``, ``1 year``."""
    number = length.strip().rstrip(" abcdefghijklmnopqrstuvwxyz")
    unit = length.strip().removeprefix(number).strip()
    words = UNITS_IN_WORDS.get(unit, unit)
    return f"{number} {words.removesuffix('s') if number == '1' else words}"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's old process-wide generator, from which shap draws, and put it back as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.set_state(np.random.RandomState(seed).get_state())  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _distribution(axes: Axes, outcome: Floats, risk: Floats, end: float) -> None:
    """Draw how many rows have which risk, those with the outcome at the bottom; the last bar holds all above, too."""
    risk = np.minimum(risk, end)
    axes.hist(
        [risk[outcome == 1], risk[outcome == 0]],
        bins=np.linspace(0, end, 51).tolist(),
        stacked=True,
        color=[WARNING, "#c9d3df"],
        label=["with the outcome", "without"],
    )
    axes.set(xlabel="predicted risk", ylabel="rows")
    axes.legend(frameon=False, fontsize=8)


# Each by the name of its file.
PICTURES: dict[str, Callable[[Trained], Figure | None]] = {
    "roc": roc,
    "calibration": calibration,
    "decision": decision,
    "beeswarm": beeswarm,
    "subgroups": subgroups,
    "clusters": clusters,
}
