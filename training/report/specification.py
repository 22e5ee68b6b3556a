"""The full specification of the model: settings, recalibration, versions, and every feature."""

import hashlib
import re
from collections.abc import Iterator

from training.report.blocks import Block, Table, Text
from training.report.residents import quartiles
from training.report.run import Run

CONSTRAINTS = re.compile(r"\[monotone_constraints: ([-\d,]*)\]")


def directions(run: Run) -> dict[str, int]:
    """Return for each feature whether it may only raise the risk (1), only lower it (-1) or either (0)."""
    found = CONSTRAINTS.search(run.trained.model.whole.booster_text)
    told = [int(number) for number in found[1].split(",") if number] if found else []
    features = run.card.features
    return dict(zip(features, told if len(told) == len(features) else [0] * len(features), strict=True))


def specification(run: Run) -> Iterator[Block]:
    """Yield every setting of the model."""
    yield from map(Text, run.all_said("22"))
    rows = [[run.words(f"spec.{name}"), value] for name, value in _settings(run).items()]
    yield Table(run.words("spec.caption"), [run.words("spec.name"), run.words("spec.value")], rows, worded=True)


def _settings(run: Run) -> dict[str, str]:
    card, model, trees = run.card, run.trained.model, run.card.recipe.trees
    return {
        "model": run.recipe(card.recipe),
        "recalibration": run.said("item.12g.formula"),
        "base": f"{model.base:.4f}",
        "rounds": str(card.recipe.rounds),
        "num_leaves": str(trees.num_leaves),
        "learning_rate": f"{trees.learning_rate:g}",
        "min_data_in_leaf": str(trees.min_data_in_leaf),
        "lambda_l2": f"{trees.lambda_l2:g}",
        "feature_fraction": f"{trees.feature_fraction:g}",
        "bagging_fraction": f"{trees.bagging_fraction:g}",
        "path_smooth": f"{trees.path_smooth:g}",
        "partner": f"{card.recipe.partner:.0%}",
        **({"ridge": f"{card.recipe.ridge:g}"} if card.recipe.partner else {}),
        "folds": str(len(model.folds)),
        "seed": str(run.evidence.grown.seed),
        "horizon": run.words.length(run.target.horizon),
        "tiers": run.words("separator").join(f"{tier:.0%}" for tier in run.target.tiers),
        "features": str(len(card.features)),
        "fingerprint": card.fingerprint,
        "digest": hashlib.sha256(model.whole.booster_text.encode()).hexdigest(),
        "profile": card.profile_version,
        "vocabulary": card.vocabulary_version,
        "code": str(run.figures["weibing"]),
    }


def every_feature(run: Run) -> Table:
    """Return every feature of the model, those with the largest share of the contributions first."""
    share, known, direction = run.drivers.share, run.known_share, directions(run)
    names = run.card.features
    rows = [
        [
            run.words.feature(names[place]),
            names[place],
            run.words.unit(names[place]),
            f"{known[place]:.1%}",
            quartiles(run.rows.matrix[:, place]),
            run.words(f"direction.{direction[names[place]]}"),
            f"{share[place]:.2%}",
        ]
        for place in sorted(range(len(names)), key=lambda place: -share[place])
    ]
    columns = ("feature", "name", "unit", "known", "median", "direction", "share")
    return Table(run.words("features.caption"), [run.words(f"features.{column}") for column in columns], rows)
