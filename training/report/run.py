"""A training run as the report reads it: its evidence, the figures in its sentences, and who it is about."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.metadata import version as version_of
from math import inf, isnan

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.cohort import Limit, Target
from features.measures import Language
from features.phenotypes import BY_NAME
from features.quality.charts import Spec
from features.times import local_day
from features.vocabulary import builtin
from training.fit import FEWEST_OUTCOMES, Recipe, Rows
from training.model import Card
from training.report.charts import svg
from training.report.drivers import Drivers
from training.report.words import DASH, Words
from training.rivals import Rival
from training.train import Evidence, Trained
from training.validate import Estimate, Validation

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# A count below this could tell who somebody is (design.md, promise 9).
SMALLEST_CELL = 10
WELL_KNOWN, POORLY_KNOWN = 0.9, 0.5
# Ethnicity and how somebody is insured: to be watched, not to be learnt from.
SENSITIVE = frozenset(
    {
        *("ethnicity", "minority", "uninsured"),
        *("insurance_employees", "insurance_residents", "insurance_commercial", "insurance_public"),
    }
)
TIER_NAMES = ("moderate", "high", "very_high")
# How the reason begins of a feature that repeats another, which is named behind it.
REPEATS = "the same as"
IN_PERCENT = ("sensitivity_top_", "ppv_top_")


@dataclass(frozen=True)
class Run:
    """A training run, told in one language; `notes` are what the county adds, by item of TRIPOD+AI."""

    trained: Trained
    words: Words
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def card(self) -> Card:
        """What the model says about itself."""
        return self.trained.model.card

    @property
    def evidence(self) -> Evidence:
        """What the run shows for the model."""
        return self.trained.evidence

    @property
    def target(self) -> Target:
        """What is predicted."""
        return self.card.target

    @property
    def language(self) -> Language:
        """Of the report."""
        return self.words.language

    @property
    def validation(self) -> Validation:
        """Performance out of fold."""
        return self.evidence.validation

    @cached_property
    def rows(self) -> Rows:
        """The rows with a known outcome."""
        return self.evidence.rows.take(self.evidence.rows.known)

    @cached_property
    def risk(self) -> Floats:
        """The out-of-fold risks of those rows, shape (known rows,)."""
        return self.evidence.grown.risk[self.evidence.rows.known]

    @cached_property
    def groups(self) -> pl.DataFrame:
        """The groups of those rows; without groupings of which nothing is known."""
        known = self.evidence.sample.groups.filter(pl.Series(self.evidence.rows.known))
        return known.select(name for name in known.columns if known[name].null_count() < len(known))

    @cached_property
    def known_share(self) -> Floats:
        """In which share of those rows each feature is known, shape (features,)."""
        return np.asarray(1 - np.isnan(self.rows.matrix).mean(axis=0))

    @cached_property
    def drivers(self) -> Drivers:
        """What moves the risks of a sample of those rows."""
        return Drivers.of(self.trained.model, self.rows.matrix)

    @cached_property
    def prevalence(self) -> float:
        """The weighted share of outcomes."""
        return float(self.rows.weight @ self.rows.outcome / self.rows.weight.sum())

    @property
    def relative(self) -> bool:
        """Whether times count from a day of each resident: the cohort then asks for no end of the records."""
        return not any(reason.startswith("less than") for reason in self.evidence.sample.cohort.flow)

    @property
    def epp(self) -> float:
        """Outcomes for each feature that the fit could choose from."""
        return self.validation.events / max(len(self.card.features), 1)

    @cached_property
    def poorly_known(self) -> int:
        """How many features are unknown in more than half of the rows."""
        return int((self.known_share < POORLY_KNOWN).sum())

    @cached_property
    def sensitive(self) -> list[str]:
        """The concepts among the features that a model should watch rather than learn from."""
        return sorted(SENSITIVE & set(self.card.concepts))

    @cached_property
    def measured_outcome(self) -> list[str]:
        """The concepts on whose values the outcome's rule rests and of which features are made, too."""
        asked = {sign for concept in self.target.outcome for sign in _values_below(concept)}
        return sorted(asked & set(self.card.concepts))

    def said(self, key: str, /, **more: object) -> str:
        """Return the words of a key, with the run's figures and more filled in."""
        return self.words(key, **(self.figures | more))

    def all_said(self, item: str) -> list[str]:
        """Return the words of every key ``item.ITEM.1``, ``item.ITEM.2`` and so on."""
        keys = [f"item.{item}.{number}" for number in range(1, 10)]
        return [self.said(key) for key in keys if self.words.has(key)]

    def metric(self, name: str, validation: Validation | None = None) -> str:
        """Return a metric with its interval, as one reads it."""
        return self.figure(name, (validation or self.validation).metrics[name])

    def figure(self, name: str, estimate: Estimate) -> str:
        """Return an estimate of a metric with its interval: shares of residents in percent, others in decimals."""
        return self.words.estimate(estimate, ".1%" if name.startswith(IN_PERCENT) else ".3f")

    def count(self, number: int) -> str:
        """Return a count of residents or rows; of too few of them, that they are."""
        return self.words("hidden") if 0 < number < SMALLEST_CELL else f"{number:,}"

    def label(self, name: str, value: str) -> str:
        """Return what a group is called."""
        return self.words("characteristics.group", grouping=self.grouping(name), value=self.group(value))

    def rival(self, rival: Rival) -> str:
        """Return what a rival is called."""
        return rival.title_zh if self.language == "zh" else rival.title_en

    def svg(self, spec: Spec) -> str:
        """Draw a chart, stamped where the records were simulated."""
        return svg(spec, self.words("stamp") if self.card.synthetic else "")

    def grouping(self, name: str) -> str:
        """Return what a way of dividing residents is called."""
        return self.words.or_as_is("grouping", name)

    def group(self, value: str) -> str:
        """Return what a value of a grouping is called."""
        return self.words(f"value.{value}") if self.words.has(f"value.{value}") else value

    @cached_property
    def figures(self) -> dict[str, object]:
        """The figures that the sentences of the report name."""
        card, validation = self.card, self.validation
        first, last = self._ends()
        return {
            "label": self.title_of_target(),
            "horizon": self.words.length(self.target.horizon),
            "version": self.words.or_as_is("version", card.version),
            "fingerprint": card.fingerprint,
            "vocabulary": card.vocabulary_version,
            "profile": card.profile_version,
            "weibing": version_of("weibing"),
            "population": self.population(),
            "index": self.index_times(),
            "recipe": self.recipe(card.recipe),
            "features": len(card.features),
            "declared": len(card.features) + len(self.evidence.dropped),
            "dropped": len(self.evidence.dropped),
            "rows": f"{len(self.evidence.rows.outcome):,}",
            "known": f"{validation.n:,}",
            "residents": f"{validation.residents:,}",
            "events": f"{validation.events:,}",
            "prevalence": f"{self.prevalence:.1%}",
            "censored": f"{self.evidence.sample.weights.censored:,}",
            "truncated": f"{self.evidence.sample.weights.truncated:,}",
            "smallest": _decimals(self.evidence.sample.weights.smallest_probability),
            "epp": f"{self.epp:.1f}",
            "well": int((self.known_share >= WELL_KNOWN).sum()),
            "poor": self.poorly_known,
            "fewest": FEWEST_OUTCOMES,
            "learning_rate": f"{card.recipe.trees.learning_rate:g}",
            "min_data": card.recipe.trees.min_data_in_leaf,
            "l2": f"{card.recipe.trees.lambda_l2:g}",
            **{name: f"{tier:.0%}" for name, tier in zip(TIER_NAMES, self.target.tiers, strict=True)},
            "first": local_day(first, card.timezone).isoformat(),
            "last": local_day(last, card.timezone).isoformat(),
            "days": f"{(last - first).days:,}",
            "folds": len(self.evidence.grown.folds),
            "seed": self.evidence.grown.seed,
            "intercept": f"{card.recalibration.intercept:.4f}",
            "slope": f"{card.recalibration.slope:.4f}",
            "groupings": self.words("separator").join(map(self.grouping, self.groups.columns)),
            **{name: self.metric(name) for name in validation.metrics},
        }

    def title_of_target(self) -> str:
        """Return what is predicted, as its label says."""
        label = self.target.label_zh if self.language == "zh" else self.target.label_en
        return label or self.target.name.replace("_", " ")

    def recipe(self, recipe: Recipe) -> str:
        """Return what the model is made of."""
        trees = self.words("recipe.trees", rounds=recipe.rounds, leaves=recipe.trees.num_leaves)
        return self.words("recipe.partner", trees=trees, share=f"{recipe.partner:.0%}") if recipe.partner else trees

    def population(self) -> str:
        """Return who is at risk."""
        target, words = self.target, self.words
        said = [
            self._ages(),
            words("population.present", concepts=words.concepts(target.present)) if target.present else "",
            words("population.absent", concepts=words.concepts(target.absent)) if target.absent else "",
            *map(self._limit, target.limits),
            words("population.recurrent" if target.recurrent else "population.first"),
        ]
        return words("population", conditions=words("separator").join(part for part in said if part))

    def index_times(self) -> str:
        """Return from when one predicts."""
        index, words = self.target.index, self.words
        offset = words("index.offset", length=words.length(index.offset)) if index.offset else ""
        if index.each:
            return words("index.each", concept=words.concept(index.each), offset=offset)
        if index.first:
            return words("index.first", concepts=words.concepts(index.first), offset=offset)
        start = words("index.from", start=index.start) if index.start else ""
        stop = words("index.to", stop=index.stop) if index.stop else ""
        return words("index.every", length=words.length(index.every or ""), dates=start + stop)

    def reasons(self) -> dict[str, list[str]]:
        """Return the features that were left out, by the reason, the most frequent first."""
        dropped = {name: REPEATS if why.startswith(REPEATS) else why for name, why in self.evidence.dropped.items()}
        counted = Counter(dropped.values())
        return {reason: [name for name, why in dropped.items() if why == reason] for reason, _ in counted.most_common()}

    def _ages(self) -> str:
        low, high = self.target.age
        if low > 0:
            key = "population.age" if high == inf else "population.age_between"
            return self.words(key, low=f"{low:g}", high=f"{high:g}")
        return "" if high == inf else self.words("population.age_below", high=f"{high:g}")

    def _limit(self, limit: Limit) -> str:
        unit = self.words.spelled(builtin().concept(limit.concept).unit)
        figures = {"low": f"{limit.at_least:g}", "high": f"{limit.below:g}", "unit": f" {unit}" if unit else ""}
        low, high = limit.at_least > -inf, limit.below < inf
        key = "range.between" if low and high else "range.at_least" if low else "range.below"
        concept = self.words.concept(limit.concept)
        return self.words("population.limit", concept=concept, range=self.words(key, **figures))

    def _ends(self) -> tuple[datetime, datetime]:
        """Return the first and the last index time."""
        times = self.evidence.sample.cohort.rows["index_time"].sort()
        return times[0], times[-1]


def _values_below(concept: str) -> set[str]:
    """Return the concepts whose values a phenotype's rule looks at, through all that it rests on."""
    if concept not in BY_NAME:
        return set()
    phenotype = BY_NAME[concept]
    values = {sign.concept for each in phenotype.evidence for sign in each.signs if sign.of_number}
    return values.union(*(_values_below(below) for below in phenotype.concepts if below != concept))


def _decimals(number: float) -> str:
    return DASH if isnan(number) else f"{number:.3f}"
