"""Weibing beside timeseriesflattener and pandas: time and memory of the same features; see README.md beside this."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import polars as pl

from benchmarks.features.agreement import agreement
from benchmarks.features.records import EVENTS_PER_RESIDENT
from benchmarks.features.run import FULL_PROFILE, ONE_RESIDENT

PEERS = ("timeseriesflattener", "pandas")
SMALL = 200
MILLION = 1_000_000
RUNS = 5

Figures = dict[str, float]
# Of one number of residents: `residents`, `jobs` with their figures, `agreement` with each peer.
Measured = dict[str, Any]


class Job(NamedTuple):
    """A contender, and whose features it fills."""

    contender: str
    whose: str


def main() -> None:
    chosen = options()
    peers = [peer for peer in chosen.peers if find_spec(peer)]
    for peer in sorted(set(chosen.peers) - set(peers)):
        print(f"{peer} is not installed, and left out: see benchmarks/features/README.md", file=sys.stderr)
    with TemporaryDirectory() as name:
        folder = chosen.keep or Path(name)
        # Compiles what is not yet compiled, and is not counted.
        first = run(folder, SMALL, "weibing")["first_seconds"]
        found = list(measured(folder, sorted(chosen.residents), peers, chosen.runs))
        if chosen.million:
            alone = jobs_of(folder, MILLION, [Job("weibing", FULL_PROFILE)], 1)
            found.append({"residents": MILLION, "jobs": alone, "agreement": []})
        one = run(folder, max(chosen.residents), ONE_RESIDENT)
    for size in found:
        print(table(size))
    print(of_one(one))
    if chosen.json:
        figures = {"where": where(peers), "first_process_seconds": first, "many": found, "one": one}
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--residents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each contender, {RUNS} unless said")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--million", action="store_true", help="also Weibing alone, once, on 1,000,000 residents")
    parser.add_argument("--keep", type=Path, help="write the stores here, or use those that are here already")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measured(folder: Path, sizes: list[int], peers: list[str], runs: int) -> Iterator[Measured]:
    """Measure each number of residents: every peer and Weibing on the peer's features, and Weibing's full profile."""
    pairs = [(Job("weibing", peer), Job(peer, peer)) for peer in peers]
    jobs = [job for pair in pairs for job in pair] + [Job("weibing", FULL_PROFILE)]
    for residents in sizes:
        figures = jobs_of(folder, residents, jobs, runs)
        yield {"residents": residents, "jobs": figures, "agreement": [compare(folder, *pair) for pair in pairs]}


def jobs_of(folder: Path, residents: int, jobs: list[Job], runs: int) -> list[dict[str, Any]]:
    """Return the median figures of each job; every run begins with another of them."""
    found: dict[Job, list[Figures]] = defaultdict(list)
    for number in range(runs):
        turn = number % len(jobs)
        for job in jobs[turn:] + jobs[:turn]:
            print(f"{residents:,} residents, run {number + 1} of {runs}: {' as '.join(job)}", file=sys.stderr)
            found[job].append(run(folder, residents, *job))
    return [{**job._asdict(), **_medians(found[job])} for job in jobs]


def run(folder: Path, residents: int, contender: str, whose: str = FULL_PROFILE) -> Figures:
    """Run one contender in a fresh process, on a store that is written where it is not yet there."""
    stores = [folder / f"residents{number}" for number in (SMALL, residents)]
    for number, store in zip((SMALL, residents), stores, strict=True):
        if not store.exists():
            subprocess.run([sys.executable, "-m", "benchmarks.features.records", str(store), str(number)], check=True)
    options = ["--as", whose, "--small", str(stores[0])]
    if residents < MILLION:
        options += ["--out", str(_profile_of(folder, Job(contender, whose)))]
    command = [sys.executable, "-m", "benchmarks.features.run", contender, str(stores[1]), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {name: float(figure) for name, figure in json.loads(done.stdout).items()}


def compare(folder: Path, ours: Job, theirs: Job) -> dict[str, object]:
    """Compare what two jobs have last filled, cell by cell.

    Raises
    ------
    ValueError
        If any cell differs: then their times say nothing.
    """
    said = agreement(*(pl.read_parquet(_profile_of(folder, job)) for job in (ours, theirs)))
    if said.differing:
        raise ValueError(f"{theirs.contender}: {said.differing} of {said.cells} cells differ, of {said.features}.")
    return {"peer": theirs.contender, "cells": said.cells}


def table(size: Measured) -> str:
    """Return the figures of one number of residents as a table in Markdown."""
    events = size["residents"] * EVENTS_PER_RESIDENT
    lines = [
        f"\n{size['residents']:,} residents, {events:,} events\n",
        "| features of | contender | features | s | processor s | events a second | peak MiB | × time | × memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ours = {job["whose"]: job for job in size["jobs"] if job["contender"] == "weibing"}
    for job in size["jobs"]:
        own = ours[job["whose"]]
        times, peak = job["seconds"] / own["seconds"], job["peak_mebibytes"] / own["peak_mebibytes"]
        lines.append(
            f"| {job['whose']} | {job['contender']} | {job['features']:.0f} | {job['seconds']:.3f}"
            f" | {job['processor_seconds']:.3f} | {events / job['seconds']:,.0f} | {job['peak_mebibytes']:,.0f}"
            f" | {times:.1f} | {peak:.1f} |"
        )
    equal = [f"{said['cells']:,} cells equal {said['peer']}'s." for said in size["agreement"]]
    return "\n".join([*lines, "", *equal])


def of_one(figures: Figures) -> str:
    """Return what one resident's full profile takes, in words."""
    return (
        f"\nOne resident, {figures['features']:.0f} features: from the store {figures['stored_milliseconds']:.2f} ms"
        f" (95 of 100 within {figures['stored_milliseconds_95']:.2f} ms), from events in memory"
        f" {figures['held_milliseconds']:.3f} ms ({figures['held_milliseconds_95']:.3f} ms)."
    )


def where(peers: list[str]) -> dict[str, object]:
    """Return what the figures depend on."""
    packages = ["polars", "pandas", "numpy", "numba", "pyarrow", *(peer for peer in peers if peer != "pandas")]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def _medians(runs: list[Figures]) -> Figures:
    return {name: median(figures[name] for figures in runs) for name in runs[0]}


def _profile_of(folder: Path, job: Job) -> Path:
    return folder / f"{job.contender} as {job.whose}.parquet".replace(" ", "_")


if __name__ == "__main__":
    main()
