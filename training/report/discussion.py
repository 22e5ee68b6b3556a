"""What the run means: the summary at the head, whether the model may be used, interpretation and limitations."""

from collections.abc import Iterator

from training.promotion import CALIBRATED, SURELY_CALIBRATED, Check, decide
from training.report.blocks import Block, Points, Text
from training.report.performance import benefit_at, decision_names, measured, treat_all_at
from training.report.run import Run
from training.rivals import Rival
from training.tracking.evidence import held_out
from training.validate import Estimate

# Outcomes for each feature, and in all, below which a fit is fragile: Riley et al., BMJ 2020;368:m441 have 10 to 20 for
# each parameter of a regression, and trees ask for more; Collins et al., Stat Med 2016;35:214-226 have 100 to validate.
FEW_PER_FEATURE, FEW_OUTCOMES = 10.0, 200
MUCH_CENSORED = 0.2
HETEROGENEOUS = 0.5
SELDOM_COMPUTABLE = 0.5
# Intervals of the checks are told to one decimal less than those of the figures; fewer replicates serve.
REPLICATES = 200


def summary(run: Run) -> list[tuple[str, list[str]]]:
    """Return what the report says at its head: what, for whom, how well, and whether it may be used."""
    rivals = [
        run.words(
            "summary.rivals.said",
            rival=run.rival(rival),
            auroc=run.metric("auroc", shown),
            difference=run.words.estimate(rival.difference, "+.3f") if rival.difference else run.words("undefined"),
        )
        for rival in run.evidence.rivals
        if (shown := rival.raw or rival.recalibrated)
    ]
    said = {
        "what": [run.said("summary.what.said")],
        "whom": [str(run.figures["population"])],
        "data": [run.said("summary.data.said")],
        "rank": [run.said("summary.rank.said")],
        "hold": [run.said("summary.hold.said")],
        "rivals": rivals[:3],
        "use": verdict(run),
    }
    return [(run.words(f"summary.{name}"), lines) for name, lines in said.items() if lines]


def verdict(run: Run) -> list[str]:
    """Return whether the model may be used, and what speaks against it by the rules of promotion."""
    refused = decide(
        held_out(run.trained, run.card.version), None, replicates=REPLICATES, seed=run.evidence.grown.seed
    ).refused
    reasons = [_refusal(check, run) for check in refused]
    if run.card.synthetic:
        return [run.words("use.no"), run.words("use.synthetic"), *reasons]
    answer = run.words("use.no_yet" if reasons else "use.perhaps")
    return [answer, *reasons, run.words("use.remaining")]


def _refusal(check: Check, run: Run) -> str:
    key = f"check.{check.name}" if run.words.has(f"check.{check.name}") else "check.other"
    bounds = dict(zip(("low", "high", "lowest", "highest"), (*CALIBRATED, *SURELY_CALIBRATED), strict=True))
    figure = run.words.estimate(check.figure) if check.figure else ""
    return run.words(key, said=run.words.said(check.said), figure=figure, **bounds)


def interpretation(run: Run) -> Iterator[Block]:
    """Yield what the main results say together, fairness included."""
    slope, ratio = (run.validation.metrics[name] for name in ("calibration_slope", "observed_to_expected"))
    key = "calibrated" if _includes(slope, 1) and _includes(ratio, 1) else "miscalibrated"
    figures = {"slope": run.metric("calibration_slope"), "oe": run.metric("observed_to_expected")}
    calibration = run.words(f"interpretation.{key}", **figures)
    yield Text(run.said("item.25.1", versus=_versus(run), calibration=calibration))
    yield Text(_useful(run))
    yield from map(Text, _fair(run))


def _versus(run: Run) -> str:
    first = next((rival for rival in run.evidence.rivals if rival.raw or rival.recalibrated), None)
    shown = (first.raw or first.recalibrated) if first else None
    if first is None or shown is None:
        return ""
    return run.words("interpretation.versus", rival=run.rival(first), rival_auroc=run.metric("auroc", shown))


def _useful(run: Run) -> str:
    curve, threshold = run.evidence.decision, run.target.tiers[0]
    return run.said(
        "item.25.useful",
        threshold=f"{threshold:.0%}",
        model=f"{benefit_at(curve, next(iter(decision_names(run))), threshold):.4f}",
        best=f"{max(treat_all_at(curve, threshold), 0.0):.4f}",
    )


def _fair(run: Run) -> Iterator[str]:
    auroc, ratio = measured(run, "auroc"), measured(run, "observed_to_expected")
    if auroc and ratio:
        figures = {"low": auroc[0], "high": auroc[-1], "oe_low": ratio[0], "oe_high": ratio[-1]}
        names = {"low": "worst", "high": "best", "oe_low": "oe_worst", "oe_high": "oe_best"}
        told = {name: f"{number:.3f}" for name, (_, number) in figures.items()}
        yield run.said("item.25.fair", **told, **{names[name]: label for name, (label, _) in figures.items()})
    small = sum(bool(each.reason) for each in run.evidence.subgroups)
    if small:
        yield run.said("item.25.small", count=small)


def limitations(run: Run) -> Iterator[Block]:
    """Yield what the run shows that it cannot show."""
    yield Points([*_of_records(run), *_of_validation(run), *_of_rivals(run), *_of_always(run)])


def _of_records(run: Run) -> Iterator[str]:
    weights = run.evidence.sample.weights
    if run.card.synthetic:
        yield run.said("limit.synthetic")
    if run.validation.events < FEW_OUTCOMES:
        yield run.said("limit.events")
    if run.epp < FEW_PER_FEATURE:
        yield run.said("limit.epp")
    if run.poorly_known:
        yield run.said("limit.missing")
    if weights.censored > MUCH_CENSORED * len(weights.weight):
        yield run.said("limit.censored", share=f"{weights.censored / len(weights.weight):.1%}")
    if weights.truncated:
        yield run.said("limit.truncated")


def _of_validation(run: Run) -> Iterator[str]:
    evidence = run.evidence
    if evidence.alarms:
        yield run.said("limit.alarms")
    slope = run.validation.metrics["calibration_slope"]
    if not _includes(slope, 1):
        way = run.words("limit.extreme" if slope.estimate < 1 else "limit.timid")
        yield run.said("limit.calibration", slope=run.metric("calibration_slope"), way=way)
    if isinstance(evidence.temporal, str):
        yield run.said("limit.no_temporal", reason=run.words.said(evidence.temporal))
    if isinstance(evidence.clusters, str):
        yield run.said("limit.no_clusters", reason=run.words.said(evidence.clusters))
    elif evidence.clusters.auroc.i2 > HETEROGENEOUS:
        pooled = evidence.clusters.auroc
        bounds = {"low": f"{pooled.lower:.3f}", "high": f"{pooled.upper:.3f}"}
        yield run.said("limit.heterogeneity", i2=f"{pooled.i2:.0%}", **bounds)
    small = [run.label(each.grouping, each.value) for each in evidence.subgroups if each.reason]
    if not measured(run, "auroc"):
        yield run.said("limit.no_subgroups")
    elif small:
        yield run.said("limit.small_subgroups", groups=run.words("semicolon").join(small))


def _of_rivals(run: Run) -> Iterator[str]:
    rivals = run.evidence.rivals
    for rival in rivals:
        if rival.difference and not rival.difference.lower > 0:
            difference = run.words.estimate(rival.difference, "+.3f")
            yield run.said("limit.rival", rival=run.rival(rival), difference=difference)
    for key, found in (
        ("limit.unverified", [rival for rival in rivals if not rival.verified]),
        ("limit.not_computable", [rival for rival in rivals if rival.computable < SELDOM_COMPUTABLE]),
    ):
        if found:
            yield run.said(key, rivals=_titles(found, run))


def _titles(rivals: list[Rival], run: Run) -> str:
    return run.words("separator").join(map(run.rival, rivals))


def _of_always(run: Run) -> Iterator[str]:
    for name in ("external", "recording", "causal"):
        yield run.said(f"limit.{name}")


def _includes(estimate: Estimate, value: float) -> bool:
    return estimate.lower <= value <= estimate.upper
