"""May a version serve? A rule that is asked of evidence on people the models had not seen, and that names its reasons.

Every bound is stated here, with why. An interval that cannot be had passes nothing: not to know is no reason to let a
model serve.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.cohort import Target
from training.subgroups import Subgroup
from training.validate import Estimate, net_benefit_difference, paired_difference, validate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KEYS = ["subject_id", "index_time"]

# Outcomes, and rows without, that two models must have in common to be compared: as many as an external validation
# needs (Collins, Ogundimu and Altman, Stat Med 2016;35:214-226).
FEWEST_COMMON = 100

# The AUROC that a challenger may lose at most. Another draw of the folds alone moves that of a hundred outcomes by as
# much; a list of residents by falling risk hardly changes.
AUROC_MARGIN = 0.01
# The net benefit that it may lose at most, as a share of the outcomes. With two normal distributions and an AUROC of
# 0.75, a hundredth of AUROC is worth at most so many outcomes found at a fixed share of false alarms.
NET_BENEFIT_MARGIN = 0.02

CALIBRATION = {"calibration_slope": "calibration slope", "observed_to_expected": "ratio of observed to expected"}
# Within these a slope or an observed-to-expected ratio is as good as perfect: a fifth too low, a quarter too high.
CALIBRATED = (0.8, 1.25)
# And the whole interval must lie within twice that distance on the log scale. Were the interval not looked at, a model
# with few outcomes would pass by luck; were it held to the narrow bounds, a perfect model would need three times the
# outcomes to pass.
SURELY_CALIBRATED = (0.64, 1.5625)

# A model whose ranking is not shown to be better than lots has nothing to say.
CHANCE = 0.5
# No subgroup may be shown to lie beyond these: the end of the interval that speaks for the model is looked at, since
# among thirty subgroups some lie low by chance alone.
SUBGROUP_AUROC = 0.55
SUBGROUP_OBSERVED_TO_EXPECTED = (2 / 3, 3 / 2)


@dataclass(frozen=True)
class Shown:
    """What a model shows of itself, measured on people that it had not seen.

    Attributes
    ----------
    target : what it predicts
    definition : what counts as the outcome, in words
    synthetic : whether its people were simulated
    metrics : performance on all rows, by name
    subgroups : performance by subgroup, and which are too small for that
    alarms : what looks like a leak, a sentence each
    """

    target: Target
    definition: tuple[str, ...]
    synthetic: bool
    metrics: Mapping[str, Estimate]
    subgroups: tuple[Subgroup, ...]
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut(Shown):
    """The same with the people themselves, so that another model can be measured on them.

    Attributes
    ----------
    version : its number in the registry
    rows : subject_id, index_time, outcome, weight (0 where the outcome is unknown) and risk
    """

    version: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what, whether it passed, and why in one sentence with its figures."""

    name: str
    passed: bool
    said: str
    figure: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON holds it."""
        figure = self.figure.as_dict() if self.figure else None
        return {"name": self.name, "passed": self.passed, "said": self.said, "figure": figure}


@dataclass(frozen=True)
class Decision:
    """Whether a version may serve, check by check; `champion` is the version that it was compared with, if any."""

    target: str
    version: str
    champion: str | None
    checks: tuple[Check, ...]

    @property
    def refused(self) -> tuple[Check, ...]:
        """The checks that speak against it."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def reasons(self) -> str:
        """What speaks against it, a sentence each."""
        return " ".join(check.said for check in self.refused)

    def text(self) -> str:
        """Return every check, a line each; nothing where nothing was asked."""
        if not self.checks:
            return ""
        against = f"against the champion, version {self.champion}" if self.champion else "without a champion"
        lines = [f"{'passed ' if check.passed else 'REFUSED'}  {check.name:26}{check.said}" for check in self.checks]
        return "\n".join([f"Version {self.version} of {self.target}, {against}:", *lines])

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON holds it."""
        return {
            "target": self.target,
            "version": self.version,
            "champion": self.champion,
            "refused": [check.name for check in self.refused],
            "checks": [check.as_dict() for check in self.checks],
        }


def decide(challenger: HeldOut, champion: HeldOut | None, *, replicates: int = 500, seed: int = 0) -> Decision:
    """Judge whether a version may serve, in place of a champion where there is one.

    Alone it must rank better than chance, promise neither too much nor too little, bring more than treating everyone
    or nobody would, fail no subgroup and raise no alarm. Beside a champion it must predict the same thing from records
    as real, and on the residents that neither had seen be shown to be not worse.

    Parameters
    ----------
    replicates : int
        Bootstrap replicates by person of each comparison.
    """
    checks = [*_of_itself(challenger, replicates, seed)]
    if champion is not None:
        checks += _beside(challenger, champion, replicates, seed)
    return Decision(challenger.target.name, challenger.version, champion.version if champion else None, tuple(checks))


def without_evidence(target: str, version: str, champion: str | None, why: str) -> Decision:
    """Refuse a version because there is nothing to judge by."""
    return Decision(target, version, champion, (Check("evidence", False, why),))


def _of_itself(shown: HeldOut, replicates: int, seed: int) -> Iterator[Check]:
    auroc = shown.metrics["auroc"]
    better = auroc.lower > CHANCE
    yield Check("ranking", better, f"AUROC {auroc} is {'' if better else 'not shown to be '}better than chance.", auroc)
    yield from _calibration(shown.metrics, "", "held-out rows")
    yield from _harmless(shown, replicates, seed)
    yield _subgroups(shown.subgroups)
    yield Check("leak_alarms", not shown.alarms, " ".join(shown.alarms) or "No feature looks like a leak.")


def _beside(challenger: HeldOut, champion: HeldOut, replicates: int, seed: int) -> Iterator[Check]:
    yield _records(challenger, champion)
    same = _same_target(challenger, champion)
    yield same
    if not same.passed:
        return
    known = challenger.rows.filter(pl.col("weight") > 0)
    common = known.join(champion.rows.select(*KEYS, champions="risk"), on=KEYS).sort(KEYS)
    enough = _enough(common)
    yield enough
    if enough.passed:
        yield from _not_worse(common, challenger.target, replicates, seed)
        if len(common) < len(known):
            yield from _calibration(_measured(common, replicates, seed), "_common", "common rows")


def _measured(rows: pl.DataFrame, replicates: int, seed: int) -> Mapping[str, Estimate]:
    outcome, risk, weight = _columns(rows, "outcome", "risk", "weight")
    return validate(outcome, risk, weight, _person(rows), replicates=replicates, seed=seed).metrics


def _calibration(metrics: Mapping[str, Estimate], which: str, where: str) -> Iterator[Check]:
    for name, title in (
        ("calibration_slope", "calibration slope"),
        ("observed_to_expected", "ratio of observed to expected"),
    ):
        yield _within(f"{name}{which}", f"On the {where} the {title} is", metrics[name])


def _within(name: str, subject: str, figure: Estimate) -> Check:
    (low, high), (lowest, highest) = CALIBRATED, SURELY_CALIBRATED
    near = low <= figure.estimate <= high
    sure = lowest <= figure.lower and figure.upper <= highest
    said = f"{subject} {figure}, {'within' if near else 'outside'} {low:g} to {high:g}"
    if near and sure:
        said += f", and its interval within {lowest:.2f} to {highest:.2f}."
    elif near:
        said += f", but its interval is not within {lowest:.2f} to {highest:.2f}: these rows cannot tell."
    else:
        said += "."
    return Check(name, near and sure, said, figure)


def _harmless(shown: HeldOut, replicates: int, seed: int) -> Iterator[Check]:
    """Refuse what is shown to do worse, at a tier's threshold, than calling everyone or nobody."""
    known = shown.rows.filter(pl.col("weight") > 0)
    outcome, risk, weight = _columns(known, "outcome", "risk", "weight")
    person = _person(known)
    for threshold in shown.target.tiers:
        for name, of_all in (("everyone", 1.0), ("nobody", 0.0)):
            other = np.full_like(risk, of_all)
            gain = net_benefit_difference(
                outcome, risk, other, weight, person, threshold, replicates=replicates, seed=seed
            )
            if gain.upper < 0:
                said = f"At {threshold:.0%} its net benefit is below that of calling {name}: by {_signed(gain)}."
                yield Check("benefit", False, said, gain)
                return
    tiers = ", ".join(f"{threshold:.0%}" for threshold in shown.target.tiers)
    yield Check("benefit", True, f"At {tiers} its net benefit is not below that of calling everyone, or nobody.")


def _subgroups(subgroups: tuple[Subgroup, ...]) -> Check:
    judged = [each for each in subgroups if not each.reason]
    below = [said for each in judged for said in _beyond_floors(each)]
    small = len(subgroups) - len(judged)
    said = "; ".join(below) or f"None of {len(judged)} subgroups is shown to be beyond its floor"
    return Check("subgroups", not below, f"{said}; {small} too small to be judged.")


def _beyond_floors(subgroup: Subgroup) -> Iterator[str]:
    """Yield what is shown to be wrong in a subgroup; a figure without an interval shows nothing."""
    metrics = subgroup.metrics or {}
    where = f"{subgroup.grouping} {subgroup.value}"
    auroc, ratio = metrics.get("auroc"), metrics.get("observed_to_expected")
    low, high = SUBGROUP_OBSERVED_TO_EXPECTED
    if auroc and auroc.upper < SUBGROUP_AUROC:
        yield f"{where}: AUROC {auroc} is below {SUBGROUP_AUROC:g}"
    if ratio and (ratio.upper < low or ratio.lower > high):
        yield f"{where}: observed to expected {ratio} is outside {low:.2f} to {high:.2f}"


def _records(challenger: HeldOut, champion: HeldOut) -> Check:
    step_back = challenger.synthetic and not champion.synthetic
    of = {True: "simulated", False: "real"}
    said = f"The challenger learnt from {of[challenger.synthetic]} residents, the champion from"
    return Check("records", not step_back, f"{said} {of[champion.synthetic]} ones.")


def _same_target(challenger: HeldOut, champion: HeldOut) -> Check:
    mine, theirs = _defined(challenger), _defined(champion)
    other = [name for name in mine if mine[name] != theirs[name]]
    if not other:
        return Check("target", True, "Both predict the same outcome, over the same horizon, of the same residents.")
    parts = "; ".join(f"{name} {_words(theirs[name])} became {_words(mine[name])}" for name in other)
    return Check("target", False, f"The two do not predict the same thing: {parts}.")


def _defined(shown: Shown) -> dict[str, object]:
    """Return what makes a prediction the same: the outcome, the horizon, and who is at risk."""
    target = shown.target
    return {
        "outcome": shown.definition,
        "horizon": target.horizon_days,
        "age": target.age,
        "present": frozenset(target.present),
        "absent": frozenset(target.absent),
        "latest": frozenset(target.limits),
        "recurrent": target.recurrent,
    }


def _words(part: object) -> str:
    if not isinstance(part, tuple | frozenset):
        return f'"{part}"'
    return '"' + ", ".join(map(str, part if isinstance(part, tuple) else sorted(map(str, part)))) + '"'


def _enough(common: pl.DataFrame) -> Check:
    people, events = common["subject_id"].n_unique(), int(common["outcome"].sum())
    without = len(common) - events
    passed = min(events, without) >= FEWEST_COMMON
    said = (
        f"{people:,} residents are held out by both, in {len(common):,} rows: {events:,} with the outcome and"
        f" {without:,} without"
    )
    needed = "" if passed else f", where {FEWEST_COMMON} of each are needed to compare them"
    return Check("common_people", passed, f"{said}{needed}.")


def _not_worse(common: pl.DataFrame, target: Target, replicates: int, seed: int) -> Iterator[Check]:
    outcome, risk, champions, weight = _columns(common, "outcome", "risk", "champions", "weight")
    person = _person(common)
    gain = paired_difference(outcome, risk, champions, weight, person, replicates=replicates, seed=seed)
    yield _not_below("auroc", "AUROC is", gain, AUROC_MARGIN)
    prevalence = float(weight @ outcome / weight.sum())
    for threshold in target.tiers:
        found = net_benefit_difference(
            outcome, risk, champions, weight, person, threshold, replicates=replicates, seed=seed
        )
        share = Estimate(*(number / prevalence for number in (found.estimate, found.lower, found.upper)))
        subject = f"net benefit at {threshold:.0%}, as a share of the outcomes, is"
        yield _not_below(f"net_benefit_{threshold:g}", subject, share, NET_BENEFIT_MARGIN)


def _not_below(name: str, subject: str, gain: Estimate, margin: float) -> Check:
    passed = gain.lower > -margin
    said = f"On the common rows its {subject} {_signed(gain)} beside the champion's"
    if passed:
        said += f": not worse by {margin:g}."
    elif gain.upper < -margin:
        said += f": worse by more than {margin:g}."
    else:
        said += f": it may be worse by more than {margin:g}, and these rows cannot tell."
    return Check(name, passed, said, gain)


def _signed(figure: Estimate) -> str:
    return f"{figure.estimate:+.3f} ({figure.lower:+.3f} to {figure.upper:+.3f})"


def _columns(rows: pl.DataFrame, *names: str) -> tuple[Floats, ...]:
    return tuple(rows[name].cast(pl.Float64).to_numpy() for name in names)


def _person(rows: pl.DataFrame) -> Ints:
    return rows["subject_id"].to_numpy()
