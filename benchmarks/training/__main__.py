"""Training beside bare `lightgbm.train` of the same trees, and the defaults from few rows to many: see README.md."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import lightgbm

RUNS = 3
SIZES = (10_000, 100_000)
DEFAULTS = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)


def main() -> None:
    chosen = options()
    found: dict[str, Any] = {
        "lightgbm": lightgbm.__version__,
        "features": chosen.features,
        "overhead": [],
        "defaults": [],
    }
    for rows in chosen.rows:
        found["overhead"].append(overhead(rows, chosen.features, chosen.runs))
        print(said_of_overhead(found["overhead"][-1]), flush=True)
    for rows in chosen.defaults:
        found["defaults"].append({"rows": rows, **run("weibing", rows, chosen.features)})
        print(said_of_defaults(found["defaults"][-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=SIZES, help="beside bare LightGBM")
    parser.add_argument("--defaults", type=int, nargs="*", default=[], help=f"alone, such as {DEFAULTS}")
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each contender, in turn")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def overhead(rows: int, features: int, runs: int) -> dict[str, Any]:
    """Run both in turn, and compare the medians; bare LightGBM in whichever of its two ways is faster."""
    ours, bare = [], []
    for number in range(runs):
        print(f"{rows:,} rows, run {number + 1} of {runs}", file=sys.stderr)
        ours.append(run("weibing", rows, features))
        bare.append(run("bare", rows, features, "--trees", json.dumps(ours[-1]["trees"])))
    figures = {
        "rows": rows,
        "outcomes": ours[0]["outcomes"],
        "models": sum(len(each["folds"]) for each in ours[0]["trees"]),
        "trees": sum(len(each["folds"]) * each["rounds"] for each in ours[0]["trees"]),
        "weibing": _medians(ours, ["whole", "partners"]),
        "bare": _medians(bare, ["one by one", "side by side"]),
    }
    return figures | {"ratio": {of: _ratio(figures, of) for of in ("seconds", "processor_seconds")}}


def _medians(runs: list[dict[str, Any]], parts: list[str]) -> dict[str, dict[str, float]]:
    return {part: {of: median(each[part][of] for each in runs) for of in runs[0][part]} for part in parts}


def _ratio(figures: dict[str, Any], of: str) -> dict[str, float]:
    """Return ours over the less of bare LightGBM's two ways: of all that training does, and of trees alone."""
    least = min(way[of] for way in figures["bare"].values())
    whole, partners = (figures["weibing"][part][of] for part in ("whole", "partners"))
    return {"all": whole / least, "trees": (whole - partners) / least}


def run(contender: str, rows: int, features: int, *more: str) -> dict[str, Any]:
    """Run one contender in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.training.run", contender, "--rows", str(rows)]
    done = subprocess.run([*command, "--features", str(features), *more], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def said_of_overhead(of: dict[str, Any]) -> str:
    """Say a comparison in a few lines."""
    lines = [f"{of['rows']:,} rows, {of['outcomes']:,} outcomes: {of['models']} models, {of['trees']:,} trees"]
    for whose in ("weibing", "bare"):
        for part, times in of[whose].items():
            name = f"{whose}, {part}"
            lines.append(f"  {name:20}{times['seconds']:8.1f} s{times['processor_seconds']:8.1f} s of processors")
    for by, ratio in of["ratio"].items():
        lines.append(f"  ratio by {by.replace('_', ' ')}: {ratio['all']:.2f}, of trees alone {ratio['trees']:.2f}")
    return "\n".join(lines)


def said_of_defaults(of: dict[str, Any]) -> str:
    """Say in a line how the defaults held."""
    figures = f"AUROC {of['auroc']:.3f} (true risk {of['auroc_of_true_risk']:.3f}), slope {of['slope']:.2f}"
    cost = f"{of['whole']['seconds']:.0f} s, {of['whole']['processor_seconds']:.0f} s of processors"
    memory = f"{of['peak_mebibytes'] / 1024:.2f} GiB"
    return f"{of['rows']:,} rows, {of['outcomes']:,} outcomes: {cost}, {memory}; {of['recipe']}; {figures}"


if __name__ == "__main__":
    main()
