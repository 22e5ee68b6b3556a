"""Train on a synthetic county and compare the scores with the risks that are true there: see README.md beside this."""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl

from features.engine import Engine
from features.events import EventStore
from features.sources.county import simulate
from training.calibrate import expit, logit
from training.fit import Rows, grow
from training.sample import sample_of
from training.targets import TARGETS
from training.train import rows_of
from training.validate import auroc, paired_difference, validate

REPLICATES = 200
# Trees large enough to tell all that the features hold, fitted to risks without chance in them.
LARGE = {
    "objective": "regression",
    "num_leaves": 31,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "verbosity": -1,
    "seed": 0,
}
LARGE_TREES = 300


def compared(store: EventStore, truth: pl.DataFrame, name: str) -> dict[str, Any]:
    """Return how the out-of-fold risks of a target compare with the true ones, on the same rows."""
    started = time.perf_counter()
    target, engine = TARGETS[name], Engine.of_store(store)
    sample = sample_of(store, target, engine)
    rows, _ = rows_of(sample, engine)
    grown = grow(rows, target, engine)
    index = sample.cohort.rows.select("subject_id", "index_time")
    true = index.join(truth.filter(target=name), on=["subject_id", "index_time"], how="left", maintain_order="left")
    risk = true["risk"].fill_null(float("nan")).to_numpy()
    told = np.isfinite(risk)
    weight = np.where(told, rows.weight, 0.0)
    true_risk = np.where(told, risk, 0.0)
    of = (rows.outcome, grown.risk, weight, rows.person)
    found = validate(*of, rank=grown.margin, replicates=REPLICATES)
    taught = told_by_features(rows, true_risk, told, grown.fold)
    ranked = paired_difference(rows.outcome, grown.margin, true_risk, weight, rows.person, replicates=REPLICATES)
    return {
        "rows": found.n,
        "residents": found.residents,
        "events": found.events,
        "without_truth": int((~told & rows.known).sum()),
        "recipe": grown.recipe.said,
        "metrics": {name: each.as_dict() for name, each in found.metrics.items()},
        "auroc_of_truth": auroc(rows.outcome, true_risk, weight),
        "auroc_minus_truth": ranked.as_dict(),
        "auroc_of_features": auroc(rows.outcome, taught, weight),
        "auroc_minus_features": paired_difference(
            rows.outcome, grown.margin, taught, weight, rows.person, replicates=REPLICATES
        ).as_dict(),
        "mean_absolute_error_of_features": float(np.abs(taught - true_risk)[told].mean()),
        "mean_absolute_error": float(np.abs(grown.risk - true_risk)[told].mean()),
        "mean_true_risk": float(true_risk[told].mean()),
        "correlation": float(np.corrcoef(grown.risk[told], true_risk[told])[0, 1]),
        "seconds": time.perf_counter() - started,
    }


def told_by_features(rows: Rows, true_risk: np.ndarray, told: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return the true risks as the features tell them, out of fold: large trees fitted to the risks, not to fates.

    What these lack of the true risk is in no feature; what a model lacks of these, it did not learn.
    """
    found, log_odds = np.zeros(len(fold)), logit(np.clip(true_risk, 1e-6, 1 - 1e-6))
    for held_out in np.unique(fold):
        taught = told & (fold != held_out)
        data = lgb.Dataset(rows.matrix[taught], log_odds[taught], feature_name=list(rows.features))
        trees = lgb.train(LARGE, data, LARGE_TREES)
        found[fold == held_out] = expit(np.asarray(trees.predict(rows.matrix[fold == held_out])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--years", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, help="A county that was simulated before. Default: a new one.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = asked.store or Path(folder) / "county"
        if asked.store is None:
            simulate(place, residents=asked.residents, years=asked.years, seed=asked.seed)
        truth = pl.read_parquet(place / "truth.parquet")
        figures = {name: compared(EventStore.open(place), truth, name) for name in TARGETS}
    print("SYNTHETIC DATA, out of fold by person")
    for name, each in figures.items():
        print(f"{name}: {each['rows']:,} rows, {each['residents']:,} residents, {each['events']:,} outcomes")
        print(f"  {each['recipe']}, {each['seconds']:.0f} s; {each['without_truth']:,} rows without a true risk")
        for label, key in (("AUROC", "auroc"), ("slope", "calibration_slope"), ("O/E", "observed_to_expected")):
            print(f"  {label:28} {_said(each['metrics'][key])}")
        print(f"  {'AUROC of the true risk':28} {each['auroc_of_truth']:.3f}")
        print(f"  {'difference':28} {_said(each['auroc_minus_truth'])}")
        print(f"  {'AUROC of what features tell':28} {each['auroc_of_features']:.3f}")
        print(f"  {'difference':28} {_said(each['auroc_minus_features'])}")
        error, mean = each["mean_absolute_error"], each["mean_true_risk"]
        print(f"  {'mean absolute error':28} {error:.4f} at a mean true risk of {mean:.4f}")
        print(f"  {'  of what features tell':28} {each['mean_absolute_error_of_features']:.4f}")
        print(f"  {'correlation':28} {each['correlation']:.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _said(figure: dict[str, float | None]) -> str:
    return "{estimate:.3f} ({lower:.3f} to {upper:.3f})".format(**figure)


if __name__ == "__main__":
    main()
