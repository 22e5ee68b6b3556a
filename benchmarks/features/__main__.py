"""Weibing beside timeseriesflattener and pandas: time and memory of the same features; see README.md beside this."""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from benchmarks.features.agreement import agreement
from benchmarks.features.declared import GRIDS
from benchmarks.features.report import OURS, WAYS, Figures, Job, Size, growth, of_one, size_of, summary, table, where
from benchmarks.features.run import FULL_PROFILE, ONE_RESIDENT

# Whose features are compared, and with which peers.
COMPARISONS = {**{peer: (peer,) for peer in WAYS}, **dict.fromkeys(GRIDS, tuple(WAYS))}
SMALL = 200
MILLION = 1_000_000
RUNS = 5


def main() -> None:
    chosen = options()
    peers = [peer for peer in chosen.peers if find_spec(peer)]
    for peer in sorted(set(chosen.peers) - set(peers)):
        print(f"{peer} is not installed, and left out: see benchmarks/features/README.md", file=sys.stderr)
    with TemporaryDirectory() as name:
        folder = chosen.keep or Path(name)
        # Compiles what is not yet compiled, and is not counted.
        first = run(folder, SMALL, Job(OURS, FULL_PROFILE))["first_seconds"]
        found = list(measured(folder, chosen, jobs_of(chosen.features, peers)))
        one = run(folder, max(chosen.residents), Job(ONE_RESIDENT, FULL_PROFILE))
    print(f"\n{growth(found)}\n{of_one(one)}")
    if chosen.json:
        figures = {"where": where(peers), "first_process_seconds": first, "many": found, "one": one}
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--residents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each contender, {RUNS} unless said")
    parser.add_argument("--peers", nargs="*", default=tuple(WAYS), choices=WAYS)
    parser.add_argument("--features", nargs="*", default=tuple(COMPARISONS), choices=COMPARISONS)
    parser.add_argument("--million", action="store_true", help="also Weibing alone, once, on 1,000,000 residents")
    parser.add_argument("--keep", type=Path, help="write the stores here, or use those that are here already")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def jobs_of(features: list[str], peers: list[str]) -> list[Job]:
    """Return Weibing and every way of every peer on the features of each comparison, and the full profile."""
    jobs = []
    for whose in features:
        ways = [Job(way, whose) for peer in COMPARISONS[whose] if peer in peers for way in WAYS[peer]]
        jobs += [Job(OURS, whose), *ways] if ways else []
    return [*jobs, Job(OURS, FULL_PROFILE)]


def measured(folder: Path, chosen: argparse.Namespace, jobs: list[Job]) -> Iterator[Size]:
    """Measure each number of residents, and print what was found."""
    for residents in sorted(chosen.residents):
        medians = medians_of(folder, residents, jobs, chosen.runs)
        yield _told(residents, medians, [compare(folder, job) for job in jobs if job.contender != OURS])
    if chosen.million:
        yield _told(MILLION, medians_of(folder, MILLION, [Job(OURS, FULL_PROFILE)], 1), [])


def medians_of(folder: Path, residents: int, jobs: list[Job], runs: int) -> dict[Job, Figures]:
    """Return the median figures of each job; every run begins with another of them."""
    found: dict[Job, list[Figures]] = defaultdict(list)
    for number in range(runs):
        turn = number % len(jobs)
        for job in jobs[turn:] + jobs[:turn]:
            print(f"{residents:,} residents, run {number + 1} of {runs}: {' as '.join(job)}", file=sys.stderr)
            found[job].append(run(folder, residents, job))
    return {job: {name: median(run[name] for run in found[job]) for name in found[job][0]} for job in jobs}


def run(folder: Path, residents: int, job: Job) -> Figures:
    """Run one contender in a fresh process, on a store that is written where it is not yet there."""
    stores = [folder / f"residents{number}" for number in (SMALL, residents)]
    for number, store in zip((SMALL, residents), stores, strict=True):
        if not store.exists():
            subprocess.run([sys.executable, "-m", "benchmarks.features.records", str(store), str(number)], check=True)
    options = ["--as", job.whose, "--small", str(stores[0])]
    if residents < MILLION:
        options += ["--out", str(_profile_of(folder, job))]
    command = [sys.executable, "-m", "benchmarks.features.run", job.contender, str(stores[1]), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {name: float(figure) for name, figure in json.loads(done.stdout).items()}


def compare(folder: Path, theirs: Job) -> dict[str, Any]:
    """Compare what a peer and Weibing have last filled, cell by cell.

    Raises
    ------
    ValueError
        If any cell differs: then their times say nothing.
    """
    ours = Job(OURS, theirs.whose)
    said = agreement(*(pl.read_parquet(_profile_of(folder, job)) for job in (ours, theirs)))
    if said.differing:
        raise ValueError(f"{theirs.contender}: {said.differing} of {said.cells} cells differ, of {said.features}.")
    return {"whose": theirs.whose, "peer": theirs.contender, "cells": said.cells}


def _told(residents: int, medians: dict[Job, Figures], compared: list[dict[str, Any]]) -> Size:
    size = size_of(residents, medians, compared)
    print(table(medians, residents))
    print(summary(size))
    return size


def _profile_of(folder: Path, job: Job) -> Path:
    return folder / f"{job.contender} as {job.whose}.parquet".replace(" ", "_")


if __name__ == "__main__":
    main()
