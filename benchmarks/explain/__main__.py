"""Exact explanation beside its peers and beside prediction: see README.md."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np

from benchmarks.explain.contenders import CONTENDERS, MOST_ROWS, OURS, PREDICT, SHAP, Ready
from benchmarks.explain.models import SHAPES, drawn_rows, kept
from training.shapley import Explainer

ROWS = (1, 1_000, 100_000)
RUNS = 3
# Work that is over sooner is repeated: the threads of whoever ran before may still spin for a moment.
LEAST_SECONDS = 1.0


def main() -> None:
    chosen = options()
    with TemporaryDirectory() as scratch:
        folder = chosen.models or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"lightgbm": lgb.__version__, "shapes": {}}
        for shape in chosen.shapes:
            print(f"growing {shape}", file=sys.stderr)
            path = kept(folder, shape)
            found["shapes"][shape] = beside_peers(path, chosen.rows, chosen.runs)
            print(said(shape, found["shapes"][shape]), flush=True)
        if "8 leaves" in chosen.shapes:
            found["fresh process"] = fresh(kept(folder, "8 leaves"), Path(scratch) / "model", chosen.runs)
            print("fresh process, milliseconds:", {k: round(1e3 * v, 3) for k, v in found["fresh process"].items()})
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--runs", type=int, default=RUNS, help="of each contender, in turn")
    parser.add_argument("--models", type=Path, help="folder that keeps the models, so that they need not grow again")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def beside_peers(path: Path, sizes: list[int], runs: int) -> dict[str, Any]:
    """Run everyone in turn on the same rows; medians of the rates, and of the ratios within each run."""
    booster = lgb.Booster(model_file=str(path))
    ready = made_ready(booster)
    rows = drawn_rows(max(sizes), seed=7)
    found: dict[str, Any] = {
        "build": median(seconds_of(lambda: Explainer.of([booster.model_to_string()])) for _ in range(runs)),
        "off": furthest_off(booster, ready, rows[:300]),
        "rows": {},
    }
    for size in sizes:
        rounds = []
        for number in range(runs):
            print(f"{size:,} rows, run {number + 1} of {runs}", file=sys.stderr)
            # Whoever comes after a contender may find its threads still busy, so each round begins with another.
            names = [*list(ready)[number:], *list(ready)[:number]]
            rounds.append({name: rate(name, ready[name], rows[:size]) for name in names})
        found["rows"][size] = {name: compared(name, rounds) for name in ready}
    return found


def made_ready(booster: lgb.Booster) -> dict[str, Ready]:
    """Make all contenders ready but those that are not installed, or do not run with what is."""
    ready = {}
    for name, contender in CONTENDERS.items():
        try:
            ready[name] = contender(booster)
        except (ImportError, AttributeError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return ready


def rate(name: str, contender: Ready, rows: np.ndarray) -> float:
    """Return rows a second."""
    given = contender.lay_out(rows[: MOST_ROWS.get(name, len(rows))])
    number = len(rows[: MOST_ROWS.get(name, len(rows))])
    times, total = 0, 0.0
    while total < LEAST_SECONDS:
        total += seconds_of(lambda: contender.ask(given))
        times += 1
    return number * times / total


def compared(name: str, rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median rate, and the medians of its ratios to shap's and to prediction's in the same run."""
    return {
        "rows a second": median(each[name] for each in rounds),
        "times shap": median(each[name] / each[SHAP] for each in rounds),
        "times predict": median(each[name] / each[PREDICT] for each in rounds),
    }


def furthest_off(booster: lgb.Booster, ready: dict[str, Ready], rows: np.ndarray) -> dict[str, float]:
    """Return how far each one's contributions are from LightGBM's, which also runs everyone once before any clock."""
    oracle = booster.predict(rows, pred_contrib=True)[:, :-1]
    off = {}
    for name, contender in ready.items():
        told = contender.ask(contender.lay_out(rows))
        told = told[0].T if name.startswith(OURS) else np.asarray(told)
        if told.shape == oracle.shape:
            off[name] = float(np.abs(told - oracle).max())
    return off


def fresh(trees: Path, folder: Path, runs: int) -> dict[str, float]:
    """Return what a process takes that has just begun, the compiled functions being on disk; medians."""
    command = [sys.executable, "-m", "benchmarks.explain.first"]
    subprocess.run([*command, "save", str(folder), str(trees)], check=True)
    told = []
    for number in range(runs + 1):
        done = subprocess.run([*command, "ask", str(folder)], check=True, stdout=subprocess.PIPE, text=True)
        # The first process may still compile.
        told += [json.loads(done.stdout)] if number else []
    return {name: median(each[name] for each in told) for name in told[0]}


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def said(shape: str, found: dict[str, Any]) -> str:
    """Say a comparison in a table."""
    lines = [f"{shape}: tables made in {found['build']:.3f} s; furthest from pred_contrib: {found['off']}"]
    for size, rates in found["rows"].items():
        lines += ["", f"{size:,} rows" + " " * 20 + "rows a second   x shap   x predict"]
        for name, of in rates.items():
            figures = f"{of['rows a second']:13,.0f}{of['times shap']:9.1f}{of['times predict']:12.2f}"
            lines.append(f"  {name:28}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
