"""A process that has just begun: how long it takes to be ready, and its first answers beside its later ones."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.explain.models import CONCEPTS, concept_of_features, drawn_rows
from features.cohort import IndexTimes, Target
from training.calibrate import Recalibration
from training.fit import CANDIDATES, Recipe
from training.fitted import Fitted
from training.model import Card, RiskModel

FOLDS, CALLS = 5, 200


def model_of(text: str) -> RiskModel:
    """Return a risk model of trees, which are those of its folds as well."""
    features = tuple(f"feature {number}" for number in range(len(concept_of_features())))
    concepts = tuple(f"concept {number:02}" for number in concept_of_features())
    card = Card(
        target=Target("fall", ("fall",), "1y", IndexTimes(every="1y")),
        features=features,
        concepts=concepts,
        recalibration=Recalibration(-0.1, 1.1),
        profile_version="",
        vocabulary_version="",
        fingerprint="",
        synthetic=True,
        recipe=Recipe(CANDIDATES[0], 600),
        timezone="Asia/Shanghai",
    )
    return RiskModel(card, Fitted(text), tuple(Fitted(text) for _ in range(FOLDS)), {})


def main() -> None:
    """Load a saved model, warm it, and assess one row many times."""
    command, path = sys.argv[1], Path(sys.argv[2])
    if command == "save":
        model_of(Path(sys.argv[3]).read_text(encoding="utf-8")).save(path)
        return
    begun = time.perf_counter()
    model = RiskModel.load(path)
    loaded = time.perf_counter()
    model.warm()
    warm = time.perf_counter()
    rows = np.ascontiguousarray(drawn_rows(CALLS).T)
    seconds = []
    for row in range(CALLS):
        one = np.ascontiguousarray(rows[:, row : row + 1])
        started = time.perf_counter()
        model.assess(one)
        seconds.append(time.perf_counter() - started)
    assert len(model.concept_names) == CONCEPTS
    later = float(np.median(seconds[CALLS // 2 :]))
    told = {"load": loaded - begun, "warm": warm - loaded, "first": seconds[0], "hundredth": seconds[99]}
    print(json.dumps({**told, "later, median": later}))


if __name__ == "__main__":
    main()
