"""One contender in a process of its own, so that its time and memory are its own; prints one line of JSON.

python -m benchmarks.training.run weibing --rows 10000 --features 100
python -m benchmarks.training.run bare --rows 10000 --features 100 --trees '[…]'
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import lightgbm as lgb
import numpy as np

from benchmarks.features.run import peak_mebibytes
from benchmarks.training.rows import TARGET, drawn_rows
from features.engine import Engine
from training import fit
from training.fit import FOLDS, Rows, grow, person_folds
from training.validate import auroc, validate

WHOLE = -1

T = TypeVar("T")


def weibing(rows: Rows, risk: np.ndarray) -> dict[str, Any]:
    """Time Weibing's training, and note which trees it grew, so that bare LightGBM can grow the same."""
    partners, trees = Clock(), []
    fit._search = _noting(fit._search, trees)
    fit._partners = partners.of(fit._partners)
    whole, engine = Clock(), Engine()
    grown = whole.of(grow)(rows, TARGET, engine)
    peak = peak_mebibytes()
    measured = validate(rows.outcome, grown.risk, rows.weight, rows.person, replicates=0).metrics
    return {
        "whole": vars(whole),
        "partners": vars(partners),
        "peak_mebibytes": peak,
        "trees": [*trees, {**asdict(grown.recipe.trees), "rounds": grown.recipe.rounds, "folds": [WHOLE]}],
        "recipe": grown.recipe.said,
        "auroc": measured["auroc"].estimate,
        "auroc_of_true_risk": auroc(rows.outcome, risk, rows.weight),
        "slope": measured["calibration_slope"].estimate,
        "outcomes": rows.events,
    }


def bare(rows: Rows, trees: list[dict[str, Any]]) -> dict[str, Any]:
    """Time `lightgbm.train` growing the same trees: one model after the other on all cores, and side by side on one."""
    fixed = fit.fixed_parameters(rows.features, TARGET, Engine(), 0)
    fold = person_folds(rows.person, rows.outcome, 0)
    models = [(each, held_out) for each in trees for held_out in each["folds"]]
    one_by_one, side_by_side = Clock(), Clock()

    def each_on(threads: int, cores: int) -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(partial(_trained, rows, fold, fixed, threads), *zip(*models, strict=True)))

    cores = os.cpu_count() or 1
    one_by_one.of(each_on)(cores, 1)
    side_by_side.of(each_on)(1, cores)
    return {"one by one": vars(one_by_one), "side by side": vars(side_by_side), "peak_mebibytes": peak_mebibytes()}


class Clock:
    """The seconds that work took, and those of all processors together."""

    def __init__(self) -> None:
        self.seconds, self.processor_seconds = 0.0, 0.0

    def of(self, work: Callable[..., T]) -> Callable[..., T]:
        """Return the work, timed each time it is done."""

        def timed(*arguments: object) -> T:
            started, processor = time.perf_counter(), time.process_time()
            done = work(*arguments)
            self.seconds += time.perf_counter() - started
            self.processor_seconds += time.process_time() - processor
            return done

        return timed


def _trained(
    rows: Rows, fold: np.ndarray, fixed: dict[str, object], threads: int, trees: dict[str, Any], held_out: int
) -> None:
    settings = {name: value for name, value in trees.items() if name not in {"rounds", "folds"}}
    taught = rows if held_out == WHOLE else rows.take(fold != held_out)
    data = lgb.Dataset(taught.matrix, taught.outcome, weight=taught.weight, feature_name=list(rows.features))
    lgb.train({**fixed, **settings, "num_threads": threads}, data, trees["rounds"])


def _noting(search: Callable[..., Any], trees: list[dict[str, Any]]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        found = search(*arguments)
        trees.append({**asdict(found.trees), "rounds": found.log_loss.shape[1], "folds": list(range(FOLDS))})
        return found

    return noted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=["weibing", "bare"])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--trees", type=json.loads, default=[])
    chosen = parser.parse_args()
    rows, risk = drawn_rows(chosen.rows, chosen.features)
    figures = weibing(rows, risk) if chosen.contender == "weibing" else bare(rows, chosen.trees)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
