"""RiskModel: what is saved, loaded and served for one target.

A folder of plain files, no pickle:

    booster.txt       the trees, in LightGBM's text format
    folds/0.txt …     the models of the cross-validation folds, which give a score its range
    model.json        recalibration, features, versions, target, thresholds and fingerprint
    background.json   what the training residents looked like, feature by feature
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import TypeAdapter

from features.cohort import Target
from features.errors import WeibingError
from features.profile import Profile
from training.calibrate import Recalibration, expit
from training.fit import margins
from training.shapley import Explainer

Floats = NDArray[np.float64]
Tier = Literal["low", "moderate", "high", "very high"]
TIERS: tuple[Tier, ...] = ("low", "moderate", "high", "very high")
Completeness = Literal["low", "moderate", "high"]

# How much of a model's gain must rest on features known of a resident for the grade.
GRADES: tuple[tuple[float, Completeness], ...] = ((0.8, "high"), (0.5, "moderate"), (0.0, "low"))
EXACT = 1e-9


@dataclass(frozen=True)
class Background:
    """What the training residents looked like in one feature: share known, and quantiles of what is known."""

    known: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """What a model says about itself.

    `fingerprint` is that of the training data; `synthetic` says that they were simulated, and is shown wherever a
    figure of the model is.
    """

    target: Target
    features: tuple[str, ...]
    concepts: tuple[str, ...]
    recalibration: Recalibration
    profile_version: str
    vocabulary_version: str
    fingerprint: str
    synthetic: bool
    version: str = "unregistered"


@dataclass(frozen=True)
class RiskModel:
    """A model of one target: calibrated risks and the reasons for them."""

    card: Card
    booster_text: str
    fold_texts: tuple[str, ...]
    background: Mapping[str, Background]

    def matrix(self, profiles: pl.DataFrame) -> Floats:
        """Return the model's features of profiles, shape (rows, features), NaN where unknown.

        Raises
        ------
        WeibingError
            If a feature is not among the profiles' columns.
        """
        missing = [name for name in self.card.features if name not in profiles.columns]
        if missing:
            raise WeibingError(
                f"The model of {self.card.target.name} needs features that these profiles lack: {', '.join(missing)}."
                " Fill profiles with the declaration that it was trained on."
            )
        return profiles.select(pl.col(name).cast(pl.Float64) for name in self.card.features).to_numpy()

    def logit(self, matrix: Floats) -> Floats:
        """Return calibrated log-odds, shape (rows,)."""
        return self.card.recalibration.logit(margins(self.booster, matrix))

    def probability(self, matrix: Floats) -> Floats:
        """Return calibrated risks, shape (rows,)."""
        return expit(self.logit(matrix))

    def contributions(self, matrix: Floats) -> Floats:
        """Return each feature's share of the calibrated log-odds, shape (rows, features).

        ``base + contributions.sum(axis=1)`` is :meth:`logit`, within 1e-9.
        """
        return self.card.recalibration.slope * self.explainer.contributions(matrix)

    @property
    def base(self) -> float:
        """The calibrated log-odds before anything is known of a resident."""
        return self.card.recalibration.intercept + self.card.recalibration.slope * self.explainer.base

    def range(self, matrix: Floats) -> tuple[Floats, Floats]:
        """Return the lowest and highest risk that the fold models, and the model itself, give; each shape (rows,)."""
        models = [self.booster, *self.folds]
        risks = np.stack([expit(self.card.recalibration.logit(margins(model, matrix))) for model in models])
        return risks.min(axis=0), risks.max(axis=0)

    def tier(self, probability: float) -> Tier:
        """Return the tier of a risk; a threshold belongs to the tier above it."""
        return TIERS[int(np.searchsorted(self.card.target.tiers, probability, side="right"))]

    def known_gain(self, matrix: Floats) -> Floats:
        """Return how much of the model's gain rests on features known of each row, 0 to 1, shape (rows,)."""
        gain = self.booster.feature_importance("gain")
        total = gain.sum()
        return (~np.isnan(matrix) @ gain) / total if total > 0 else np.ones(len(matrix))

    @cached_property
    def booster(self) -> lgb.Booster:
        """The trees."""
        return lgb.Booster(model_str=self.booster_text)

    @cached_property
    def folds(self) -> tuple[lgb.Booster, ...]:
        """The models of the cross-validation folds."""
        return tuple(lgb.Booster(model_str=text) for text in self.fold_texts)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains the rows."""
        return Explainer(self.booster)

    def by_concept(self, contributions: Floats) -> tuple[list[str], Floats]:
        """Sum contributions over the features of each concept.

        Returns
        -------
        concepts, and their shares of the log-odds, shape (rows, concepts)
        """
        concepts, belongs = self._belonging
        return concepts, contributions @ belongs

    @cached_property
    def _belonging(self) -> tuple[list[str], Floats]:
        """The concepts, and which feature belongs to which: shape (features, concepts), 0 or 1."""
        concepts = sorted(set(self.card.concepts))
        belongs = [[of == concept for concept in concepts] for of in self.card.concepts]
        return concepts, np.array(belongs, np.float64)

    def with_version(self, version: str) -> "RiskModel":
        """Return the model under the version that a registry gave it."""
        return replace(self, card=replace(self.card, version=version))

    def check(self, matrix: Floats) -> None:
        """Check on rows that reasons add up.

        Raises
        ------
        ValueError
            If the base and contributions of a row are not its log-odds, within 1e-9.
        """
        off = np.abs(self.base + self.contributions(matrix).sum(axis=1) - self.logit(matrix)).max(initial=0.0)
        if not off <= EXACT:
            raise ValueError(f"contributions of the {self.card.target.name} model miss its log-odds by {off:g}")

    def save(self, folder: Path) -> None:
        """Write the model's files into a folder."""
        (folder / "folds").mkdir(parents=True, exist_ok=True)
        (folder / "booster.txt").write_text(self.booster_text, encoding="utf-8")
        for number, text in enumerate(self.fold_texts):
            (folder / "folds" / f"{number}.txt").write_text(text, encoding="utf-8")
        _write(folder / "model.json", asdict(self.card))
        _write(folder / "background.json", {name: asdict(of) for name, of in self.background.items()})

    @classmethod
    def load(cls, folder: Path) -> "RiskModel":
        """Read a model from a folder.

        Raises
        ------
        WeibingError
            If a file is missing or damaged.
        """
        try:
            card = TypeAdapter(Card).validate_json((folder / "model.json").read_text(encoding="utf-8"))
            background = TypeAdapter(dict[str, Background]).validate_json(
                (folder / "background.json").read_text(encoding="utf-8")
            )
            texts = [path.read_text(encoding="utf-8") for path in sorted((folder / "folds").glob("*.txt"))]
            model = cls(card, (folder / "booster.txt").read_text(encoding="utf-8"), tuple(texts), background)
            model.check(np.full((1, len(card.features)), np.nan))
        except (OSError, ValueError, lgb.basic.LightGBMError) as error:
            raise WeibingError(f"The model in {folder} cannot be loaded: {error}.") from error
        return model


def grade(known_gain: float) -> Completeness:
    """Return the completeness grade of a share of gain that rests on known features."""
    return next(name for at_least, name in GRADES if known_gain >= at_least)


def concepts_of(profile: Profile, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the concept that each feature belongs to."""
    return tuple(profile[name].concept for name in names)


def background_of(features: tuple[str, ...], matrix: Floats | NDArray[np.float32]) -> dict[str, Background]:
    """Describe training rows, feature by feature, in deciles of what is known."""
    described = {}
    for name, column in zip(features, matrix.T, strict=True):
        known = column[~np.isnan(column)]
        deciles = np.quantile(known, np.linspace(0, 1, 11)) if len(known) else []
        described[name] = Background(len(known) / max(len(column), 1), tuple(float(q) for q in deciles))
    return described


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
