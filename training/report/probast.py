"""Flags after PROBAST+AI: questions on the risk of bias, answered from the run.

The questions are Weibing's own words on the four domains of the tool. A yes is good, a no is a concern, and what a run
cannot know is unclear.

References
----------
Moons et al., BMJ 2025;388:e082505.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from training.report.blocks import Block, Table, Text
from training.report.discussion import FEW_OUTCOMES, FEW_PER_FEATURE
from training.report.performance import measured
from training.report.run import Run
from training.report.words import table
from training.validate import Validation

DOMAINS = ("participants", "predictors", "outcome", "analysis")
# Alarms that say a predictor was not known before the index time, and those that say it is nearly the outcome.
OF_TIME, OF_OUTCOME = ("after", "recent"), ("alone",)


@dataclass(frozen=True)
class Answer:
    """An answer, and the figures that its reason names."""

    said: Literal["yes", "no", "unclear"]
    figures: Mapping[str, object] = field(default_factory=dict)


def flags(run: Run) -> list[Block]:
    """Return every question with its answer, domain by domain, and which answers are a concern."""
    answers = {key: ANSWERS[key](run) for key in table("probast")}
    numbers = _numbers()
    concerns = [numbers[key] for key, answer in answers.items() if answer.said == "no"]
    blocks: list[Block] = [Text(run.words("probast.said"))]
    if concerns:
        named = run.words("separator").join(concerns)
        blocks.append(Text(run.words("probast.concern", count=len(concerns), numbers=named), "alarm"))
    else:
        blocks.append(Text(run.words("probast.no_concern")))
    return [*blocks, *(_domain(domain, answers, run) for domain in DOMAINS)]


def _numbers() -> dict[str, str]:
    """Number the questions by domain: 1.1, 1.2 and so on."""
    keys = {domain: [key for key, row in table("probast").items() if row["domain"] == domain] for domain in DOMAINS}
    return {
        key: f"{place}.{number}"
        for place, domain in enumerate(DOMAINS, 1)
        for number, key in enumerate(keys[domain], 1)
    }


def _domain(domain: str, answers: dict[str, Answer], run: Run) -> Table:
    header = [run.words(f"probast.{column}") for column in ("question", "answer", "why")]
    numbers = _numbers()
    rows = [
        [
            f"{numbers[key]} {row[run.language]}",
            run.words(answers[key].said),
            run.said(f"probast.{key}.{answers[key].said}", **answers[key].figures),
        ]
        for key, row in table("probast").items()
        if row["domain"] == domain
    ]
    return Table(run.words("probast.caption", domain=run.words(f"probast.{domain}")), header, rows, worded=True)


def _yes(_: Run) -> Answer:
    return Answer("yes")


def _unclear(_: Run) -> Answer:
    return Answer("unclear")


def _source(run: Run) -> Answer:
    return Answer("no" if run.card.synthetic else "unclear")


def _groups(run: Run) -> Answer:
    found = run.evidence.subgroups
    small = sum(bool(each.reason) for each in found)
    if not found:
        return Answer("unclear")
    return Answer("no" if small else "yes", {"small": small, "count": len(found)})


def _alarmed(kinds: tuple[str, ...]) -> Callable[[Run], Answer]:
    def answer(run: Run) -> Answer:
        rang = [alarm for alarm in run.evidence.alarms if alarm.kind in kinds]
        names = [run.words.feature(name) for alarm in rang for name in alarm.feature.split(", ")]
        return Answer("no" if rang else "yes", {"features": run.words("semicolon").join(names)})

    return answer


def _available(run: Run) -> Answer:
    return Answer("unclear" if run.poorly_known else "yes")


def _incorporation(run: Run) -> Answer:
    named = run.words.concepts(run.measured_outcome)
    return Answer("no" if run.measured_outcome else "yes", {"concepts": named})


def _horizon(run: Run) -> Answer:
    return Answer("no" if run.evidence.sample.weights.truncated else "yes")


def _size(run: Run) -> Answer:
    return Answer("yes" if run.epp >= FEW_PER_FEATURE and run.validation.events >= FEW_OUTCOMES else "no")


def _other_data(run: Run) -> Answer:
    return Answer("unclear" if isinstance(run.evidence.temporal, Validation) else "no")


def _clusters(run: Run) -> Answer:
    found = run.evidence.clusters
    if isinstance(found, str):
        return Answer("no", {"reason": run.words.said(found)})
    return Answer("yes", {"count": len(found.each)})


def _fairness(run: Run) -> Answer:
    number = len(measured(run, "observed_to_expected"))
    return Answer("yes" if number else "no", {"count": number})


def _rivals(run: Run) -> Answer:
    number = sum(rival.difference is not None for rival in run.evidence.rivals)
    return Answer("yes" if number else "no", {"count": number})


ANSWERS: Mapping[str, Callable[[Run], Answer]] = {
    "source": _source,
    "eligibility": _yes,
    "groups": _groups,
    "computed_alike": _yes,
    "before": _alarmed(OF_TIME),
    "blind_predictors": _yes,
    "not_the_outcome": _alarmed(OF_OUTCOME),
    "available": _available,
    "stated": _yes,
    "incorporation": _incorporation,
    "blind_outcome": _unclear,
    "horizon": _horizon,
    "recorded_alike": _unclear,
    "size": _size,
    "everyone": _yes,
    "missing": _yes,
    "choice": _yes,
    "resampling": _yes,
    "measures": _yes,
    "optimism": _yes,
    "thresholds": _yes,
    "other_data": _other_data,
    "clusters": _clusters,
    "fairness": _fairness,
    "rivals": _rivals,
}
