"""What the benchmark found, in words and in tables of Markdown."""

import os
import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NamedTuple, TypedDict

from benchmarks.features.records import EVENTS_PER_RESIDENT

OURS = "weibing"
IN_PROCESSES = "timeseriesflattener_in_processes"
# A peer, and the ways of using it.
WAYS = {"timeseriesflattener": ("timeseriesflattener", IN_PROCESSES), "pandas": ("pandas",)}

Figures = dict[str, float]


class Job(NamedTuple):
    """A contender, and whose features it fills."""

    contender: str
    whose: str


class Size(TypedDict):
    """What was found of one number of residents."""

    residents: int
    jobs: list[dict[str, Any]]
    ratios: list[dict[str, Any]]
    agreement: list[dict[str, Any]]


def size_of(residents: int, medians: dict[Job, Figures], agreement: list[dict[str, Any]]) -> Size:
    """Return the median figures of each job, and how many times Weibing's each peer's are."""
    jobs = [{**job._asdict(), **figures} for job, figures in medians.items()]
    return {"residents": residents, "jobs": jobs, "ratios": list(_ratios(medians)), "agreement": agreement}


def _ratios(medians: dict[Job, Figures]) -> Iterator[dict[str, Any]]:
    for whose in dict.fromkeys(job.whose for job in medians):
        for peer, ways in WAYS.items():
            ran = [job for job in medians if job.whose == whose and job.contender in ways]
            if ran:
                fastest = min(ran, key=lambda job: medians[job]["seconds"])
                yield {"whose": whose, "peer": peer, "fastest": fastest.contender, **_compared(medians, fastest)}


def _compared(medians: dict[Job, Figures], theirs: Job) -> Figures:
    ours = medians[Job(OURS, theirs.whose)]
    return {"features": ours["features"], "times_seconds": medians[theirs]["seconds"] / ours["seconds"]}


def table(medians: dict[Job, Figures], residents: int) -> str:
    """Return the figures of one number of residents as a table."""
    events = residents * EVENTS_PER_RESIDENT
    head = ["features of", "contender", "features", "s", "processor s", "events a second", "peak MiB"]
    head += ["× s", "× processor s", "× memory"]
    rows = [_row(job, figures, medians[Job(OURS, job.whose)], events) for job, figures in medians.items()]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join([f"\n{residents:,} residents, {events:,} events\n", *lines, ""])


def _row(job: Job, figures: Figures, ours: Figures, events: int) -> list[str]:
    # Processor time and memory are those of the process that was started: of its own processes they tell nothing.
    least = "≥ " if job.contender == IN_PROCESSES else ""
    ratios = {name: figures[name] / ours[name] for name in ("seconds", "processor_seconds", "peak_mebibytes")}
    return [
        job.whose,
        job.contender,
        f"{figures['features']:.0f}",
        f"{figures['seconds']:.3f}",
        f"{least}{figures['processor_seconds']:.3f}",
        f"{events / figures['seconds']:,.0f}",
        f"{least}{figures['peak_mebibytes']:,.0f}",
        f"{ratios['seconds']:.1f}",
        f"{least}{ratios['processor_seconds']:.1f}",
        f"{least}{ratios['peak_mebibytes']:.1f}",
    ]


def summary(size: Size) -> str:
    """Return in words how many times faster Weibing was, and how many cells were compared."""
    ratios = [
        f"Features of {said['whose']} ({said['features']:.0f}): {said['times_seconds']:.1f} times as fast as"
        f" {said['peer']}{_fastest(said['peer'], said['fastest'])}."
        for said in size["ratios"]
    ]
    cells = {said["whose"]: said["cells"] for said in size["agreement"]}
    equal = [f"All {count:,} cells of {whose} equal those of {_peers(size, whose)}." for whose, count in cells.items()]
    return "\n".join([*ratios, *equal])


def _fastest(peer: str, way: str) -> str:
    return f" (fastest of its ways: {way})" if len(WAYS[peer]) > 1 else ""


def _peers(size: Size, whose: str) -> str:
    return ", ".join(said["peer"] for said in size["agreement"] if said["whose"] == whose)


def growth(found: Iterable[Size]) -> str:
    """Return how the time of the last job, the full profile, grows with the number of residents, which ascend."""
    seconds = [(size["residents"], size["jobs"][-1]["seconds"]) for size in found]
    return "\n".join(
        f"The full profile of {more:,} residents takes {longer / shorter:.1f} times as long as that of {fewer:,}."
        for (fewer, shorter), (more, longer) in pairwise(seconds)
    )


def of_one(figures: Figures) -> str:
    """Return what one resident's full profile takes."""
    return (
        f"One resident, {figures['features']:.0f} features: from the store {figures['stored_milliseconds']:.2f} ms"
        f" (95 of 100 within {figures['stored_milliseconds_95']:.2f} ms), from events in memory"
        f" {figures['held_milliseconds']:.3f} ms ({figures['held_milliseconds_95']:.3f} ms)."
    )


def where(peers: Iterable[str]) -> dict[str, object]:
    """Return what the figures depend on."""
    packages = ["polars", "pandas", "numpy", "numba", "pyarrow", *(peer for peer in peers if peer != "pandas")]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }
