"""RiskModel: what is saved, loaded and served for one target.

A folder of plain files, no pickle:

    booster.txt       the trees, in LightGBM's text format
    partner.json      their linear partner and its share, where they have one
    folds/0.txt …     the models of the cross-validation folds (0.json their partners), which give a score its range
    model.json        recalibration, features, versions, target, thresholds and fingerprint
    background.json   what the training residents looked like, feature by feature
    standing.json     how their risks were spread among those of the same age and sex
    example.json      what the model said of a few rows when it was made; whoever loads it checks that it still does
    explainer.npz     the tables that explain the trees; made again from them where it is missing or does not fit
"""

import hashlib
import json
import re
from bisect import bisect_right
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
from training.calibrate import Recalibration
from training.example import EXACT, Example, read_example, rows_of, write_example
from training.fit import Recipe
from training.fitted import Assessed, Assessor, Fitted
from training.linear import Linear
from training.shapley import Codes, Columns, Explainer, read_tables, write_tables
from training.standing import NOTHING_KNOWN, Standing
from training.standing import as_json as standing_as_json
from training.standing import from_json as standing_from_json

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Tier = Literal["low", "moderate", "high", "very high"]
TIERS: tuple[Tier, ...] = ("low", "moderate", "high", "very high")
Completeness = Literal["low", "moderate", "high"]

# How much of a model's gain must rest on features known of a resident for the grade.
GRADES: tuple[tuple[float, Completeness], ...] = ((0.8, "high"), (0.5, "moderate"), (0.0, "low"))
TABLES = "explainer.npz"
EXAMPLE = "example.json"
MADE_READY = ("_explainer", "_assessor")
# More than are taken one by one.
WARM_ROWS = 64


@dataclass(frozen=True)
class Background:
    """What the training residents looked like in one feature: share known, and quantiles of what is known."""

    known: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """What a model says about itself.

    `fingerprint` is that of the training data; `synthetic` says that they were simulated, and is shown wherever a
    figure of the model is. `recipe` says how it was fitted. `timezone` is the zone whose days its profiles count in.
    """

    target: Target
    features: tuple[str, ...]
    concepts: tuple[str, ...]
    recalibration: Recalibration
    profile_version: str
    vocabulary_version: str
    fingerprint: str
    synthetic: bool
    recipe: Recipe
    timezone: str
    version: str = "unregistered"


@dataclass(frozen=True)
class RiskModel:
    """A model of one target: calibrated risks and the reasons for them."""

    card: Card
    whole: Fitted
    folds: tuple[Fitted, ...]
    background: Mapping[str, Background]
    standing: Standing = NOTHING_KNOWN

    @property
    def booster_text(self) -> str:
        """The trees, in LightGBM's text format."""
        return self.whole.booster_text

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

    @cached_property
    def concept_names(self) -> tuple[str, ...]:
        """The concepts of the features, sorted: the order of everything by concept."""
        return tuple(sorted(set(self.card.concepts)))

    @cached_property
    def digest(self) -> str:
        """What identifies everything that decides the scores: 16 hexadecimal digits, the same under any version."""
        card = asdict(replace(self.card, version=""))
        parts: list[object] = [card, standing_as_json(self.standing)]
        for fitted in (self.whole, *self.folds):
            partner = fitted.partner.as_dict() if fitted.partner else None
            parts.append([fitted.booster_text, fitted.share, partner])
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def codes(self, columns: Columns) -> Codes:
        """Return where each value lies among the thresholds of its feature, in all fits: all that trees look at.

        Parameters
        ----------
        columns : shape (features, rows), NaN where unknown; C-contiguous

        Returns
        -------
        shape (cuts, rows); the highest code of the type is unknown
        """
        return self._assessor.explainer.codes(columns)

    def seen(self, columns: Columns, codes: Codes) -> Ints:
        """Return a fingerprint of all that the model looks at in each row, shape (rows,).

        Rows with the same fingerprint have the same scores. It is the same alone and among others.
        """
        return self._assessor.seen(columns, codes)

    def assess(self, columns: Columns, codes: Codes | None = None) -> Assessed:
        """Return risks, their ranges, and why, by concept.

        A row alone and among others gives the same, bit for bit. Safe from any number of threads.

        Parameters
        ----------
        columns : shape (features, rows), NaN where unknown; C-contiguous
        codes : of the columns, where they are known already
        """
        return self._assessor.assess(columns, codes)

    def warm(self) -> None:
        """Run everything once that scores need, so that none waits for a compiler or a table."""
        for kind in (np.float32, np.float64):
            for rows in (1, WARM_ROWS):
                nothing = np.full((len(self.card.features), rows), np.nan, kind)
                codes = self.codes(nothing)
                self.seen(nothing, codes)
                self.assess(nothing, codes)
                self.assess(nothing)

    def logit(self, matrix: Floats) -> Floats:
        """Return calibrated log-odds, shape (rows,)."""
        return self._assessor.log_odds(_columns(matrix))

    def probability(self, matrix: Floats) -> Floats:
        """Return calibrated risks, shape (rows,)."""
        return self._of_rows(matrix).probability

    def contributions(self, matrix: Floats) -> Floats:
        """Return each feature's share of the calibrated log-odds, shape (rows, features).

        ``base + contributions.sum(axis=1)`` is :meth:`logit`, within 1e-9.
        """
        return self.card.recalibration.slope * self.whole.contributions(matrix)

    @property
    def base(self) -> float:
        """The calibrated log-odds before anything is known of a resident."""
        return self._assessor.base

    def range(self, matrix: Floats) -> tuple[Floats, Floats]:
        """Return the lowest and highest risk that the fold models, and the model itself, give; each shape (rows,)."""
        assessed = self._of_rows(matrix)
        return assessed.lower, assessed.upper

    def tier(self, probability: float) -> Tier:
        """Return the tier of a risk; a threshold belongs to the tier above it."""
        return TIERS[bisect_right(self.card.target.tiers, probability)]

    def known_gain(self, matrix: Floats) -> Floats:
        """Return how much of what the model rests on is known of each row, 0 to 1, shape (rows,)."""
        return self._of_rows(matrix).known_gain

    def by_concept(self, contributions: Floats) -> tuple[list[str], Floats]:
        """Sum contributions over the features of each concept.

        Returns
        -------
        concepts, and their shares of the log-odds, shape (rows, concepts)
        """
        belongs = [[of == concept for concept in self.concept_names] for of in self.card.concepts]
        return list(self.concept_names), contributions @ np.array(belongs, np.float64)

    def with_version(self, version: str) -> "RiskModel":
        """Return the model under the version that a registry gave it."""
        same = replace(self, card=replace(self.card, version=version))
        # What was made ready stays so: the version decides no score.
        vars(same).update({name: vars(self)[name] for name in MADE_READY if name in vars(self)})
        return same

    def check(self, matrix: Floats) -> None:
        """Check on rows that reasons add up.

        Raises
        ------
        ValueError
            If the base and contributions of a row are not its log-odds, within 1e-9.
        """
        assessed = self._of_rows(matrix)
        off = np.abs(self.base + assessed.contributions.sum(axis=0) - self.logit(matrix)).max(initial=0.0)
        if not off <= EXACT:
            raise ValueError(f"contributions of the {self.card.target.name} model miss its log-odds by {off:g}")

    def example(self) -> Example:
        """Return what the model says of rows that are nobody's: the risks by LightGBM itself, not by our tables."""
        known = {name: of.quantiles[1:-1] for name, of in self.background.items()}
        rows = rows_of([known.get(name, ()) for name in self.card.features])
        fits = (self.whole, *self.folds)
        risks = np.array([self.card.recalibration.probability(fitted.margin(rows)) for fitted in fits])
        reasons = self._of_rows(rows).contributions.T
        return Example(rows, risks[0], risks.min(axis=0), risks.max(axis=0), self.base, reasons)

    def prove(self, example: Example) -> None:
        """Check that reasons add up on an example's rows, and that the model says of them what the example says.

        Raises
        ------
        ValueError
            If something is off by more than 1e-9.
        """
        if example.rows.shape[1:] != (len(self.card.features),):
            raise ValueError("its example is of other features")
        self.check(example.rows)
        # Profiles are in single precision, and so are the rows.
        told = self.assess(_columns(example.rows).astype(np.float32))
        now = Example(example.rows, told.probability, told.lower, told.upper, self.base, told.contributions.T)
        if not (off := example.off(now)) <= EXACT:
            raise ValueError(f"it says of its example something else than when it was made, by {off:g}")

    def _of_rows(self, matrix: Floats) -> Assessed:
        return self.assess(_columns(matrix))

    @cached_property
    def _assessor(self) -> Assessor:
        """The fits made ready."""
        return Assessor.of(self.whole, self.folds, self.card.recalibration, self._explainer, self._group)

    @cached_property
    def _explainer(self) -> Explainer:
        """What explains the trees of all fits, by concept."""
        return Explainer.of(self._texts, self._group)

    @property
    def _texts(self) -> list[str]:
        return [fitted.booster_text for fitted in (self.whole, *self.folds)]

    @cached_property
    def _group(self) -> Ints:
        """The number of each feature's concept, shape (features,)."""
        return np.searchsorted(self.concept_names, self.card.concepts).astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the model's files into a folder."""
        (folder / "folds").mkdir(parents=True, exist_ok=True)
        _write_fitted(self.whole, folder / "booster.txt", folder / "partner.json")
        for number, fitted in enumerate(self.folds):
            _write_fitted(fitted, folder / "folds" / f"{number}.txt", folder / "folds" / f"{number}.json")
        _write(folder / "model.json", asdict(self.card))
        _write(folder / "background.json", {name: asdict(of) for name, of in self.background.items()})
        _write(folder / "standing.json", standing_as_json(self.standing))
        write_example(folder / EXAMPLE, self.example())
        write_tables(folder / TABLES, self._explainer, self._texts, self._group)

    @classmethod
    def load(cls, folder: Path) -> "RiskModel":
        """Read a model from a folder, and check that it says what it said when it was made.

        One that was kept before there were examples is checked on rows of its own, against LightGBM.

        Raises
        ------
        WeibingError
            If a file is missing or damaged, or the model says something else.
        """
        try:
            card = TypeAdapter(Card).validate_json((folder / "model.json").read_text(encoding="utf-8"))
            background = TypeAdapter(dict[str, Background]).validate_json(
                (folder / "background.json").read_text(encoding="utf-8")
            )
            folds = [_read_fitted(path, path.with_suffix(".json")) for path in sorted((folder / "folds").glob("*.txt"))]
            whole = _read_fitted(folder / "booster.txt", folder / "partner.json")
            _require_partners(card.recipe.partner, [whole, *folds])
            standing = standing_from_json(json.loads((folder / "standing.json").read_text(encoding="utf-8")))
            model = cls(card, whole, tuple(folds), background, standing)
            if (stored := read_tables(folder / TABLES, model._texts, model._group)) is not None:
                vars(model)["_explainer"] = stored
            model.prove(read_example(folder / EXAMPLE) or model.example())
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


def _columns(matrix: Floats) -> Floats:
    return np.ascontiguousarray(matrix.T)


def _write_fitted(fitted: Fitted, trees: Path, partner: Path) -> None:
    trees.write_text(fitted.booster_text, encoding="utf-8")
    if fitted.partner is not None:
        _write(partner, {"share": fitted.share, **fitted.partner.as_dict()})


def _require_partners(share: float, fitted: list[Fitted]) -> None:
    if any(each.share != share for each in fitted):
        raise ValueError(f"the linear partner's share should be {share:g} everywhere, and a file of it is missing")


def _read_fitted(trees: Path, partner: Path) -> Fitted:
    text = trees.read_text(encoding="utf-8")
    _require_whole(text)
    if not partner.exists():
        return Fitted(text)
    told = json.loads(partner.read_text(encoding="utf-8"))
    return Fitted(text, Linear.from_dict(told), float(told["share"]))


def _require_whole(text: str) -> None:
    """Refuse trees that do not lie where their text says: LightGBM would end the process."""
    found = re.search(r"^tree_sizes=([0-9 ]*)$", text, re.MULTILINE)
    after_trees = text.partition("\nTree=0\n")[2].encode()
    sizes = list(map(int, found.group(1).split())) if found else []
    if sizes and not after_trees[sum(sizes) - len(b"Tree=0\n") :].startswith(b"end of trees"):
        raise ValueError("its trees are cut short")


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
