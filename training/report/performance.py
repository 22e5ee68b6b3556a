"""How well the model does: overall, beside its rivals, in subgroups, in clusters, later."""

import math
from collections.abc import Iterator

import numpy as np

from training.clusters import Clusters, Pooled
from training.groups import TOWNSHIP
from training.plots import GROUPS, observed_interval
from training.report import charts
from training.report.blocks import Block, Heading, Panel, Picture, Points, Table, Text
from training.report.charts import Dot
from training.report.run import Run
from training.report.words import DASH
from training.rivals import LOGISTIC, Rival
from training.subgroups import Subgroup
from training.validate import METRICS, DecisionCurve, Validation, calibration_curve

# In the picture of the decision curve; more could not be told apart.
MOST_LINES = 6
SUBGROUP_FIGURES = ("auroc", "calibration_slope", "observed_to_expected", "sensitivity", "ppv")
CLUSTER_FIGURES = ("auroc", "observed_to_expected", "slope")
DAYS_A_YEAR = 365


def performance(run: Run) -> Iterator[Block]:
    """Yield every part of the model's performance but the clusters."""
    parts = {
        "discrimination": _overall,
        "calibration": _calibration,
        "usefulness": _usefulness,
        "rivals": _rivals,
        "subgroups": _subgroups,
        "temporal": _temporal,
    }
    for heading, part in parts.items():
        blocks = list(part(run))
        if blocks:
            yield Heading(run.words(f"heading.{heading}"))
            yield from blocks


def _overall(run: Run) -> Iterator[Block]:
    later = run.evidence.temporal
    measured = [run.validation, *([later] if isinstance(later, Validation) else [])]
    columns = ["measure", "ideal", "out_of_fold", *(["temporal"] if len(measured) > 1 else [])]
    rows = [
        [metric_name(name, run), _ideal(name, run), *(run.metric(name, each) for each in measured)] for name in METRICS
    ]
    temporal = run.words("performance.and_temporal") if len(measured) > 1 else ""
    yield Table(
        run.words("performance.caption", temporal=temporal),
        [run.words(f"performance.{column}") for column in columns],
        rows,
        run.words("performance.note", replicates=run.validation.replicates),
    )
    yield _over_time(run)


def metric_name(name: str, run: Run) -> str:
    """Return what a metric is called."""
    family, _, share = name.rpartition("_")
    if family.endswith("_top"):
        return run.words(f"metric.{family}", share=share)
    return run.words(f"metric.{name}")


def _ideal(name: str, run: Run) -> str:
    family = name.rpartition("_")[0]
    key = f"ideal.{family}" if family.endswith("_top") else f"ideal.{name}"
    return run.words(key, prevalence=f"{run.prevalence:.1%}")


def _over_time(run: Run) -> Table:
    found = run.evidence.over_time
    rows = [
        [_after(float(days), run), run.words.estimate(auc)] for days, auc in zip(found.days, found.auc, strict=True)
    ]
    rows.append([run.words("over_time.mean"), run.words.estimate(found.mean)])
    return Table(run.words("over_time.caption"), [run.words("over_time.time"), run.words("over_time.auc")], rows)


def _after(days: float, run: Run) -> str:
    years = days / DAYS_A_YEAR
    whole = abs(years - round(years)) < 0.01 and years > 0.5
    return run.words.length(f"{round(years)}y") if whole else run.words("over_time.day", days=f"{days:,.0f}")


def _calibration(run: Run) -> Iterator[Block]:
    rows, risk, words = run.rows, run.risk, run.words
    groups = calibration_curve(rows.outcome, risk, rows.weight, GROUPS)
    interval = observed_interval(groups, rows, risk)
    drawn = charts.calibration(run.evidence.calibration, groups, interval, rows.outcome, risk, words)
    alt = words("calibration.alt", slope=run.metric("calibration_slope"), oe=run.metric("observed_to_expected"))
    yield Picture(words("calibration.caption"), [Panel("", run.svg(drawn))], alt, words("calibration.note"))
    columns = ("calibration.group", "calibration.group_rows", "calibration.predicted", "calibration.observed")
    told = [
        [
            str(place + 1),
            f"{groups.rows[place]:,}",
            f"{groups.risk[place]:.1%}",
            words(
                "interval",
                figure=f"{groups.observed[place]:.1%}",
                lower=f"{interval[0][place]:.1%}",
                upper=f"{interval[1][place]:.1%}",
            ),
        ]
        for place in range(len(groups.risk))
    ]
    yield Table(words("calibration.groups"), [words(column) for column in columns], told)


def decision_names(run: Run) -> dict[str, str]:
    """Return what each risk of the decision curve is called, the model first."""
    titles = {rival.name: run.rival(rival) for rival in run.evidence.rivals}
    names = {name: titles.get(name, run.words("decision.model")) for name in run.evidence.decision.net_benefit}
    own = [name for name in names if name not in titles]
    return {name: names[name] for name in [*own, *(name for name in names if name in titles)]}


def _usefulness(run: Run) -> Iterator[Block]:
    curve, words = run.evidence.decision, run.words
    names = dict(list(decision_names(run).items())[:MOST_LINES])
    alt = words(
        "decision.alt",
        names=words("separator").join(names.values()),
        threshold=f"{run.target.tiers[0]:.0%}",
        model=f"{benefit_at(curve, next(iter(names)), run.target.tiers[0]):.4f}",
        all=f"{treat_all_at(curve, run.target.tiers[0]):.4f}",
    )
    drawn = charts.decision(curve, names, run.target.tiers, words)
    yield Picture(words("decision.caption"), [Panel("", run.svg(drawn))], alt, words("decision.note"))
    rows = [
        [title, *(f"{benefit_at(curve, name, tier):.4f}" for tier in run.target.tiers)]
        for name, title in decision_names(run).items()
    ]
    rows.append([words("decision.all"), *(f"{treat_all_at(curve, tier):.4f}" for tier in run.target.tiers)])
    rows.append([words("decision.none"), *("0" for _ in run.target.tiers)])
    yield Table(words("decision.table"), [words("decision.threshold"), *map(_percent, run.target.tiers)], rows)

    beside = [rival for rival in run.evidence.rivals if rival.benefit is not None]
    if beside:
        rows = [[run.rival(rival), f"{rival.computable:.1%}", *_benefits(rival, run)] for rival in beside]
        header = [words("rivals.rival"), words("rivals.computable"), *map(_percent, run.target.tiers)]
        yield Table(words("decision.rivals"), header, rows, words("decision.rivals.note"))


def _benefits(rival: Rival, run: Run) -> list[str]:
    return [run.words.estimate(each, "+.4f") for each in rival.benefit or ()]


def _percent(tier: float) -> str:
    return f"{tier:.3g}" if tier < 0.01 else f"{tier:.0%}"


def benefit_at(curve: DecisionCurve, name: str, threshold: float) -> float:
    """Return a net benefit at a threshold, between the nearest that were measured."""
    return float(np.interp(threshold, curve.thresholds, curve.net_benefit[name]))


def treat_all_at(curve: DecisionCurve, threshold: float) -> float:
    """Return the net benefit of treating everyone: what the prevalence gives at a threshold."""
    return curve.prevalence - (1 - curve.prevalence) * threshold / (1 - threshold)


def _rivals(run: Run) -> Iterator[Block]:
    columns = ("rival", "computable", "raw_auroc", "difference", "raw_oe", "raw_slope", "oe", "trust", "width")
    rows = [_rival(rival, run) for rival in run.evidence.rivals]
    if not rows:
        return
    words = run.words
    header = [words(f"rivals.{column}") for column in columns]
    yield Table(words("rivals.caption"), header, rows, words("rivals.note"))
    about = [
        words(
            "rivals.source", rival=run.rival(rival), paper=rival.paper, note=words("sentence_end") + _note(rival, run)
        )
        for rival in run.evidence.rivals
        if rival.paper or _note(rival, run)
    ]
    if about:
        yield Text(words("rivals.about"))
        yield Points(about)


def _rival(rival: Rival, run: Run) -> list[str]:
    raw, words = rival.raw, run.words
    discrimination = raw or rival.recalibrated
    none = words("rivals.none") if rival.gives != "risk" else DASH
    return [
        run.rival(rival),
        f"{rival.computable:.1%}",
        run.metric("auroc", discrimination) if discrimination else DASH,
        _signed(rival, run),
        run.metric("observed_to_expected", raw) if raw else none,
        run.metric("calibration_slope", raw) if raw else none,
        run.metric("observed_to_expected", rival.recalibrated) if rival.recalibrated else DASH,
        words("rivals.own")
        if rival.name == LOGISTIC
        else words("rivals.verified" if rival.verified else "rivals.unverified"),
        f"{rival.range_width:.3g}" if rival.range_width is not None else DASH,
    ]


def _signed(rival: Rival, run: Run) -> str:
    return run.words.estimate(rival.difference, "+.3f") if rival.difference else DASH


def _note(rival: Rival, run: Run) -> str:
    horizon = run.words.length(f"{rival.horizon_days}d") if rival.horizon_days else ""
    about = ""
    if rival.outcome:
        key = "rivals.horizon" if horizon else "rivals.outcome"
        about = run.words(key, outcome=run.words.said(rival.outcome), horizon=horizon)
    note = rival.note_zh if run.language == "zh" else rival.note_en
    return run.words("gap").join(part for part in (about, note) if part)


def measured(run: Run, metric: str) -> list[tuple[str, float]]:
    """Return a metric of every subgroup that has it, the lowest first."""
    found = [
        (run.label(each.grouping, each.value), each.metrics[metric].estimate)
        for each in run.evidence.subgroups
        if each.metrics and math.isfinite(each.metrics[metric].estimate)
    ]
    return sorted(found, key=lambda pair: pair[1])


def _subgroups(run: Run) -> Iterator[Block]:
    shown = measured(run, "auroc")
    if shown:
        yield _subgroup_picture(run, shown)
    rows = [_subgroup(each, run) for each in run.evidence.subgroups]
    if rows:
        columns = ("subgroups.group", "analyses.rows", "analyses.residents", "analyses.events")
        figures = [run.words(f"subgroups.{name}") for name in SUBGROUP_FIGURES]
        header = [*map(run.words, columns), *figures]
        note = run.words("subgroups.threshold", threshold=f"{run.target.tiers[1]:.0%}")
        yield Table(run.words("subgroups.caption"), header, rows, note)


def _subgroup_picture(run: Run, shown: list[tuple[str, float]]) -> Picture:
    words = run.words
    panels = [
        Panel(title := words(f"metric.{metric}"), run.svg(charts.dots(_dots(run, metric), title, reference)))
        for metric, reference in (
            ("auroc", run.validation.metrics["auroc"].estimate),
            ("observed_to_expected", 1.0),
        )
    ]
    (worst, low), (best, high) = shown[0], shown[-1]
    alt = words("subgroups.alt", count=len(shown), low=f"{low:.3f}", worst=worst, high=f"{high:.3f}", best=best)
    return Picture(words("subgroups.picture"), panels, alt, words("subgroups.note"))


def _dots(run: Run, metric: str) -> list[Dot]:
    return [
        Dot(_placed(each, run), each.metrics[metric]) for each in run.evidence.subgroups if each.metrics is not None
    ]


def _placed(each: Subgroup, run: Run) -> str:
    """Return what a group is called beside a chart: a township needs no more than its name."""
    return each.value if each.grouping == TOWNSHIP else run.label(each.grouping, each.value)


def _subgroup(each: Subgroup, run: Run) -> list[str]:
    """Return a row of the table; of fewer than ten residents, no count."""
    name = run.label(each.grouping, each.value)
    reason = f" ({run.words.said(each.reason)})" if each.reason else ""
    if each.metrics is None:
        hidden = run.words("hidden")
        return [name + reason, hidden, hidden, hidden, *(DASH for _ in SUBGROUP_FIGURES)]
    counts = (run.count(number) for number in (each.n, each.residents, each.events))
    return [name + reason, *counts, *(_told(each, metric, run) for metric in SUBGROUP_FIGURES)]


def _told(each: Subgroup, metric: str, run: Run) -> str:
    figure = (each.metrics or {})[metric]
    if math.isnan(figure.estimate):
        return DASH
    return run.words.estimate(figure, ".1%" if metric in ("sensitivity", "ppv") else ".3f")


def _temporal(run: Run) -> Iterator[Block]:
    later = run.evidence.temporal
    if isinstance(later, str):
        yield Text(run.words("temporal.not", reason=run.words.said(later)))
        return
    figures = {
        "auroc": run.metric("auroc", later),
        "slope": run.metric("calibration_slope", later),
        "oe": run.metric("observed_to_expected", later),
    }
    yield Text(run.words("temporal.1", **figures, events=f"{later.events:,}", n=f"{later.n:,}"))


def clusters(run: Run) -> Iterator[Block]:
    """Yield how the model does in each cluster that was left out, and what they say together."""
    found = run.evidence.clusters
    if isinstance(found, str):
        yield Text(run.words("temporal.not", reason=run.words.said(found)))
        return
    yield _forest(found, run)
    columns = ("clusters.cluster", "analyses.rows", "analyses.residents", "analyses.events")
    header = [*map(run.words, columns), *(run.words(f"clusters.{name}") for name in CLUSTER_FIGURES)]
    rows = [
        [
            one.value,
            *(run.count(number) for number in (one.n, one.residents, one.events)),
            *(run.words.estimate(getattr(one, name)) for name in CLUSTER_FIGURES),
        ]
        for one in found.each
    ]
    yield Table(run.words("clusters.table"), header, rows)
    header = [run.words(f"clusters.{column}") for column in ("measure", "pooled", "prediction", "tau2", "i2")]
    rows = [[run.words(f"clusters.{name}"), *_pooled(getattr(found, name), run)] for name in CLUSTER_FIGURES]
    yield Table(run.words("clusters.heterogeneity"), header, rows)


def _pooled(pooled: Pooled, run: Run) -> list[str]:
    between = run.words("range", lower=f"{pooled.lower:.3f}", upper=f"{pooled.upper:.3f}")
    return [run.words.estimate(pooled.mean), between, f"{pooled.tau2:.4f}", f"{pooled.i2:.0%}"]


def _forest(found: Clusters, run: Run) -> Picture:
    words = run.words
    panels = []
    for name, reference in (("auroc", run.validation.metrics["auroc"].estimate), ("observed_to_expected", 1.0)):
        pooled: Pooled = getattr(found, name)
        each = [Dot(one.value, getattr(one, name)) for one in found.each]
        each.append(Dot(words("clusters.pooled"), pooled.mean, summary=True))
        title = words(f"metric.{name}")
        panels.append(Panel(title, run.svg(charts.dots(each, title, reference, (pooled.lower, pooled.upper)))))
    alt = words(
        "clusters.alt",
        count=len(found.each),
        grouping=run.grouping(found.grouping),
        pooled=words.estimate(found.auroc.mean),
        low=f"{found.auroc.lower:.3f}",
        high=f"{found.auroc.upper:.3f}",
    )
    return Picture(words("clusters.caption"), panels, alt, words("clusters.note"))
