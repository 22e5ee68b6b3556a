"""A target whose models may not serve does not keep the others from serving."""

from dataclasses import replace
from pathlib import Path

import pytest

from features.engine import Engine
from serving.api.champions import Champions
from serving.settings import Settings
from training.targets import FALL
from training.tracking import Registry
from training.train import Trained
from training.validate import Estimate


def test_a_target_without_a_champion_is_said_aloud_and_the_others_are_served(
    small_trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path / "mlruns")
    registry.log(small_trained)
    evidence, card = small_trained.evidence, small_trained.model.card
    metrics = evidence.validation.metrics | {"calibration_slope": Estimate(-0.04, -0.3, 0.2)}
    backwards = replace(evidence, validation=replace(evidence.validation, metrics=metrics))
    falls = replace(small_trained.model, card=replace(card, target=FALL))
    assert registry.log(Trained(falls, backwards)).alias == "challenger"

    champions = Champions(Settings(mlruns=registry.folder), Engine())
    champions.refresh()
    assert champions.ready
    assert set(champions.scorer.questions) == {"hypertension"}
    assert "fall has models but no champion: it is not served" in caplog.text
