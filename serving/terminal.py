"""What the command line shows: progress on stderr, results on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from features.cohort import Target
from features.errors import WeibingError
from features.times import local_day
from features.vocabulary import builtin
from serving.scoring import NotAtRisk, Score
from serving.scoring.nightly import Night
from training import report
from training.model import TIERS
from training.tracking import CHAMPION, Registered
from training.train import Trained

# In a pipe a table is as wide as it needs to be.
OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
MESSAGES = Console(stderr=True, highlight=False, soft_wrap=True)

SYNTHETIC = "SYNTHETIC DATA: these figures describe simulated residents and say nothing of real ones."


class Progress:
    """Says on stderr what is under way: with a running clock on a terminal, as plain lines in a pipe."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._status = MESSAGES.status("") if MESSAGES.is_terminal else None

    def __call__(self, sentence: str) -> None:
        """Say what happens now."""
        line = f"{time.monotonic() - self._started:6.1f} s  {sentence}"
        if self._status is None:
            MESSAGES.print(line, markup=False)
        else:
            self._status.update(line)

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


@contextmanager
def log_lines(path: Path | None) -> Iterator[Callable[[dict[str, object]], None]]:
    """Give what writes a line of JSON with the time (UTC) to the end of a file, to stderr for ``-``, or nowhere.

    Raises
    ------
    WeibingError
        If the file cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        to = nullcontext(sys.stderr) if path == Path("-") else path.open("a", encoding="utf-8")
    except OSError as error:
        raise WeibingError(f"The log cannot be written to {path}: {error.strerror}.") from error
    with to as lines:

        def write(told: dict[str, object]) -> None:
            when = datetime.now(UTC).isoformat(timespec="milliseconds")
            lines.write(json.dumps({"time": when, **told}, ensure_ascii=False) + "\n")
            lines.flush()

        yield write


def say(text: str) -> None:
    """Write a result to stdout as it is."""
    OUT.print(text, markup=False)


def note(text: str) -> None:
    """Write a message to stderr as it is."""
    MESSAGES.print(text, markup=False)


def show_trained(trained: Trained, where: str) -> None:
    """Show the figures of a training run."""
    target = trained.model.card.target
    table = Table(title=f"{target.name}: {', '.join(target.outcome)} within {target.horizon}", title_justify="left")
    table.add_column("out of fold, by person")
    table.add_column("estimate (95 % interval)")
    for name, figure in report.lines(trained):
        table.add_row(name, figure)
    table.add_row("model", where)
    _show(table, synthetic=trained.model.card.synthetic)
    say_outcome(target, trained.evidence.cohort.found_by)


def say_whether_it_serves(kept: Registered) -> None:
    """Say of a new version that does not serve what refused it, or how one asks whether it may."""
    if kept.alias == CHAMPION:
        return
    who = f"Version {kept.version} of {kept.target}"
    if kept.decision is None:
        say(f"{who} is the challenger. To ask whether it may serve: weibing promote {kept.target} {kept.version}")
    else:
        say(kept.decision.text())
        say(f"{who} may not serve, and no other version does: nothing of {kept.target} is served.")


def say_outcome(target: Target, found_by: dict[str, int] | None = None) -> None:
    """Say what counts as a target's outcome, and how many were found by what."""
    for line in target.definition:
        say(f"outcome: {line}")
    if found_by:
        say("found by: " + ", ".join(f"{name} {number:,}" for name, number in found_by.items()))


def show_models(all_trained: Sequence[Trained]) -> None:
    """Show several training runs side by side, a line each."""
    table = Table("target", "residents", "outcomes", "AUROC", "calibration slope", "observed / expected")
    for trained in all_trained:
        validation = trained.evidence.validation
        figures = [str(validation.metrics[name]) for name in ("auroc", "calibration_slope", "observed_to_expected")]
        table.add_row(trained.model.card.target.name, f"{validation.residents:,}", f"{validation.events:,}", *figures)
    _show(table, synthetic=any(trained.model.card.synthetic for trained in all_trained))


def show_scores(scores: Iterable[dict[str, Any]], most: int = 3) -> None:
    """Show scores with their strongest drivers, a line each; `scores` are rows of the score table."""
    rows = list(scores)
    table = Table("resident", "target", "risk", "range", "tier", "what drives it (share of the log-odds)")
    for row in rows:
        risk, lower, upper = (f"{row[name]:.0%}" for name in ("probability", "lower", "upper"))
        said = "; ".join(map(_in_words, row["drivers"][:most]))
        table.add_row(str(row["subject_id"]), row["target"], risk, f"{lower} to {upper}", row["tier"], said)
    _show(table, synthetic=any(row["synthetic"] for row in rows))


def show_explanation(score: Score | NotAtRisk, timezone: str) -> None:
    """Show one score with every driver, or why there is none; days are those of the zone."""
    who = f"{score.target}, resident {score.subject_id}, {local_day(score.index_time, timezone)}"
    if isinstance(score, NotAtRisk):
        say(f"{who}: {score.reason}")
        return
    table = Table("concept", "value", "unit", "recorded", "share of the log-odds")
    for driver in score.drivers:
        value = "" if driver.value is None else f"{driver.value:g}"
        day = "" if driver.date is None else str(local_day(driver.date, timezone))
        table.add_row(driver.label_en, value, driver.unit, day, f"{driver.contribution:+.3f}")
    table.add_row("before anything is known", "", "", "", f"{score.base:+.3f}", style="dim")
    say(
        f"{who}: risk {score.probability:.1%}"
        f" ({score.lower:.1%} to {score.upper:.1%}), {score.tier}; completeness {score.completeness};"
        f" model {score.model_version}"
    )
    _show(table, synthetic=score.synthetic)


def _show(table: Table, *, synthetic: bool) -> None:
    if synthetic:
        say(SYNTHETIC)
    OUT.print(table)


def _in_words(driver: dict[str, Any]) -> str:
    value = "" if driver["value"] is None else f" {driver['value']:.3g} {driver['unit']}".rstrip()
    return f"{builtin().concept(driver['concept']).label_en}{value} {driver['contribution']:+.2f}"


def show_night(night: Night, synthetic: bool) -> None:
    """Show what a run did: how many have a score, by tier, who moved, and why others have none."""
    counts = night.counts
    for reason, number in night.failures.items():
        say(f"not scored, {number:,} of {night.pieces:,} pieces: {reason}")
    models = ", ".join(f"{target} {model.version}" for target, model in night.run.models.items())
    scored, kept = counts["scored"], counts["kept"]
    say(f"{scored + kept:,} scores of {night.residents:,} residents: {scored:,} anew, {kept:,} unchanged ({models})")
    table = Table("target", *TIERS)
    for target, tiers in night.tiers.items():
        table.add_row(target, *(f"{tiers.get(tier, 0):,}" for tier in TIERS))
    _show(table, synthetic=synthetic)
    say(f"moved up a tier {counts['up']:,}, down {counts['down']:,}; no longer scored {night.ended:,}")
    for target, reasons in night.not_at_risk.items():
        told = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
        say(f"not at risk of {target}: {told}")


def show_passwords(passwords: Mapping[str, str]) -> None:
    """Show with which password each account logs in first."""
    table = Table("account", "password of the first login")
    for name, password in passwords.items():
        table.add_row(name, password)
    OUT.print(table)
