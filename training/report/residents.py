"""Who the model is of: how they came in, what they are like, what is known of them, how many each analysis had."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from features.profile import PROFILE
from training.groups import in_order
from training.report import charts
from training.report.blocks import Block, Flow, Heading, Panel, Picture, Points, Step, Table, Text
from training.report.run import SMALLEST_CELL, Run
from training.report.words import DASH, YES_OR_NO, shortened
from training.validate import Validation

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Of the features, the strongest are shown.
MISSING_SHOWN, CHARACTERISTICS_SHOWN = 25, 14
MOST_GROUPS = 20
AT_RISK, CANDIDATES = "at risk", "candidates"


def definition(run: Run) -> Iterator[Block]:
    """Yield the rules of the outcome with their sources, and what outcomes were found by."""
    rules = [line for concept in run.target.outcome for line in run.words.rule(concept)]
    yield Points(rules or [run.words.concepts(run.target.outcome)])
    found_by = run.evidence.sample.cohort.found_by
    header = [run.words(f"found_by.{column}") for column in ("sign", "count", "share")]
    events = max(run.validation.events, 1)
    rows = [[run.words.concept(sign), run.count(number), f"{number / events:.1%}"] for sign, number in found_by.items()]
    if rows:
        yield Table(run.words("found_by.caption"), header, rows)


def flow(run: Run) -> Iterator[Block]:
    """Yield who came in, who was left out and why, and who had the outcome."""
    counted = run.evidence.sample.cohort.flow
    left = counted.get(CANDIDATES, 0)
    steps = [Step(run.words("flow.candidates", count=f"{left:,}"))]
    for reason, number in counted.items():
        if reason in (CANDIDATES, AT_RISK) or not number:
            continue
        left -= number
        out = run.words("flow.out", count=run.count(number), reason=run.words.said(reason))
        steps.append(Step(run.words("flow.left", count=f"{left:,}"), [out]))
    yield Flow(run.words("flow.caption"), [*steps, *_followed(run)])


def _followed(run: Run) -> Iterator[Step]:
    sample, validation = run.evidence.sample, run.validation
    residents = len(np.unique(sample.person))
    yield Step(run.words("flow.at_risk", count=f"{len(sample.person):,}", residents=f"{residents:,}"))
    lost = run.words("flow.lost", count=run.count(sample.weights.censored))
    known = run.words("flow.known", count=f"{validation.n:,}", residents=f"{validation.residents:,}")
    yield Step(known, [lost] if sample.weights.censored else [])
    within = run.evidence.rows.known & sample.died & (sample.time < run.target.horizon_days)
    events, without = f"{validation.events:,}", f"{validation.n - validation.events:,}"
    died = run.words("flow.died", count=run.count(int(within.sum())))
    yield Step(run.words("flow.events", count=events, without=without), [died])


def characteristics(run: Run) -> Iterator[Block]:
    """Yield what residents were like at the index time: their groups, and the features that matter most."""
    header = [
        run.words("characteristics.what"),
        *(run.words(f"missing.{who}") for who in ("all", "with", "without")),
    ]
    outcome = run.rows.outcome == 1
    who = (np.ones_like(outcome), outcome, ~outcome)
    rows = [[run.words("characteristics.n"), *(run.count(int(which.sum())) for which in who)]]
    rows += _grouped(run, who)
    rows += [_described(run, place, who) for place in _shown(run)]
    yield Table(run.words("characteristics.caption"), header, rows, run.words("characteristics.note"))


def _grouped(run: Run, who: tuple[Bools, ...]) -> Iterator[list[str]]:
    for name in run.groups.columns:
        column = run.groups[name]
        values = in_order(name, column.drop_nulls().unique().to_list())
        if len(values) > MOST_GROUPS:
            continue
        for value in values:
            has = (column == value).fill_null(value=False).to_numpy()
            yield [run.label(name, value), *(_of(run, has & which, which) for which in who)]
        unknown = column.is_null().to_numpy()
        if unknown.any():
            label = run.words("characteristics.unknown")
            yield [run.label(name, label), *(_of(run, unknown & which, which) for which in who)]


def _of(run: Run, has: Bools, which: Bools) -> str:
    number = int(has.sum())
    if 0 < number < SMALLEST_CELL:
        return run.count(number)
    return run.words("count_share", count=f"{number:,}", share=f"{number / max(int(which.sum()), 1):.1%}")


def _shown(run: Run) -> list[int]:
    """Return the places of the features to describe: age first, then one a concept, the strongest first."""
    places: dict[str, int] = {}
    for place in run.drivers.strongest.tolist():
        places.setdefault(run.card.concepts[place], place)
    first = [places.pop("age")] if "age" in places else []
    return [*first, *list(places.values())[: CHARACTERISTICS_SHOWN - len(first)]]


def _described(run: Run, place: int, who: tuple[Bools, ...]) -> list[str]:
    name = run.card.features[place]
    column = run.rows.matrix[:, place]
    yes_or_no = name in PROFILE.names and PROFILE[name].measure in YES_OR_NO
    key = "characteristics.share" if yes_or_no else "characteristics.median"
    unit = run.words.unit(name)
    label = run.words(key, feature=run.words.feature(name) + (f" ({unit})" if unit else ""))
    figure = _share if yes_or_no else quartiles
    return [label, *(figure(column[which]) for which in who)]


def quartiles(values: NDArray[np.float32] | Floats) -> str:
    """Return the median and quartiles of what is known."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not known.size:
        return DASH
    low, middle, high = (shortened(float(at)) for at in np.quantile(known, (0.25, 0.5, 0.75)))
    return f"{middle} ({low}–{high})"


def _share(values: NDArray[np.float32]) -> str:
    known = values[~np.isnan(values)]
    return f"{known.mean():.1%}" if known.size else DASH


def missing(run: Run) -> Table:
    """Return how often the strongest features are known, by outcome."""
    outcome = run.rows.outcome == 1
    header = [run.words(f"missing.{column}") for column in ("feature", "all", "with", "without")]
    rows = [
        [run.words.feature(run.card.features[place]), *(f"{share:.1%}" for share in _known(run, place, outcome))]
        for place in run.drivers.strongest[:MISSING_SHOWN].tolist()
    ]
    return Table(run.words("missing.caption"), header, rows)


def _known(run: Run, place: int, outcome: Bools) -> Iterator[float]:
    known = ~np.isnan(run.rows.matrix[:, place])
    yield float(known.mean())
    yield from (float(known[which].mean()) for which in (outcome, ~outcome))


def analyses(run: Run) -> Iterator[Block]:
    """Yield how many rows, residents and outcomes each analysis had."""
    evidence, words = run.evidence, run.words
    header = [words(f"analyses.{column}") for column in ("what", "rows", "residents", "events")]
    rows = [_counts(run, words("analyses.out_of_fold"), evidence.validation)]
    if isinstance(evidence.temporal, Validation):
        rows.append(_counts(run, words("analyses.temporal"), evidence.temporal))
    if not isinstance(evidence.clusters, str):
        each = evidence.clusters.each
        totals = (sum(getattr(one, name) for one in each) for name in ("n", "residents", "events"))
        rows.append([words("analyses.clusters"), *(f"{total:,}" for total in totals)])
    rows += [
        _counts(run, words("analyses.rival", rival=run.rival(rival)), rival.recalibrated)
        for rival in evidence.rivals
        if rival.recalibrated is not None
    ]
    yield Table(words("analyses.caption"), header, rows)


def _counts(run: Run, name: str, validation: Validation) -> list[str]:
    return [name, *(run.count(number) for number in (validation.n, validation.residents, validation.events))]


def learning(run: Run) -> Iterator[Block]:
    """Yield what learning from fewer residents costs, where it was measured."""
    curve = run.evidence.learning
    if curve is None:
        return
    yield Heading(run.words("heading.learning"))
    yield Text(run.words.said(curve.said))
    if len(curve.persons) < 2:
        return
    header = [run.words(f"learning.{column}") for column in ("persons", "auroc", "loss")]
    rows = [
        [f"{persons:,}", run.words.estimate(auroc), f"{loss:.4f}"]
        for persons, auroc, loss in zip(curve.persons, curve.auroc, curve.log_loss, strict=True)
    ]
    caption = run.words("learning.caption")
    drawn = charts.learning(curve.persons, curve.auroc, run.words("metric.auroc"), run.words)
    yield Picture(caption, [Panel("", run.svg(drawn))], alt=caption)
    yield Table(caption, header, rows)
