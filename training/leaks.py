"""Leak alarms: signs that a model knows what it could not know, each with the features that give it away.

An alarm is a warning. Each rule says what it looks at, and from where on it speaks; none proves a leak.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.engine import Engine, profile_store
from features.events import EventStore
from features.measures import Measure, since_first
from features.profile import Profile
from features.times import DAY
from training.fit import Grown, Rows
from training.sample import Sample
from training.validate import Estimate, auroc, paired_difference

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

# Published models of all features together reach 0.6 to 0.85 for such outcomes; a single one above this knows more.
MOST_ALONE = 0.90

# Events this many days before an outcome may have been made by it: a drug is dispensed before the diagnosis is coded.
DAYS_AROUND = 30
# The share of residents in whom an event came first with or after the outcome, and how many residents that must be.
MOST_AFTER = 0.90
FEWEST_RESIDENTS = 20

# How long before the index time is dropped; by more than this AUROC must not fall. On the synthetic county these days
# are worth 0.003 for hypertension, four years ahead.
DAYS_DROPPED = 30
MOST_FALL = 0.03
# Where index times hang on an event, what it records is new in more than this share of the rows, for good reason.
MOST_NEW = 0.10
# What is known of everybody, whatever was recorded of late.
ALWAYS_KNOWN = frozenset({Measure.AGE, Measure.STATIC})
# How many concepts are tried when AUROC falls, how many features are named, and on how many rows, or a few more.
TRIED, NAMED, ROWS_TRIED = 40, 3, 20_000
REPLICATES = 200


@dataclass(frozen=True)
class Alarm:
    """A sign of a leak.

    Attributes
    ----------
    kind
        `alone`: one feature tells the outcome nearly by itself. `after`: a feature of what is recorded (almost) only
        once the outcome has come. `recent`: the model lives on the last 30 days before the index time.
    feature : the features it is about, joined by ``, ``
    message : one sentence
    value : the AUROC of the feature alone; the share of residents; by how much AUROC falls
    """

    kind: Literal["alone", "after", "recent"]
    feature: str
    message: str
    value: float


def alarms(
    sample: Sample, rows: Rows, grown: Grown, earlier: pl.DataFrame, store: EventStore, engine: Engine
) -> tuple[Alarm, ...]:
    """Look for all three kinds of leak.

    Parameters
    ----------
    rows, grown : of the sample, and what was fitted on them
    earlier : the profiles 30 days before each index time, aligned with the sample
    store : where the sample comes from
    """
    return (
        *alone(rows),
        *after(sample, rows, grown, store, engine),
        *recent(sample, rows, grown, earlier, engine),
    )


def alone(rows: Rows) -> list[Alarm]:
    """Find features that tell the outcome nearly by themselves.

    The rule: AUROC of the feature above 0.90, in the direction that is better, where a missing value counts as the
    lowest or as the highest one, whichever is better.
    """
    known = rows.known
    outcome, weight = rows.outcome[known], rows.weight[known]

    def best(place: int) -> float:
        return _alone(outcome, rows.matrix[known, place], weight)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = zip(rows.features, pool.map(best, range(len(rows.features))), strict=True)
    return [
        Alarm(
            "alone",
            feature,
            f"{feature} alone reaches an AUROC of {value:.3f}, above {MOST_ALONE:.2f}: it may hold the outcome itself.",
            value,
        )
        for feature, value in found
        if value > MOST_ALONE
    ]


def after(sample: Sample, rows: Rows, grown: Grown, store: EventStore, engine: Engine) -> list[Alarm]:
    """Find concepts that the model uses though they are recorded (almost) only once the outcome has come.

    The rule: of the cohort's residents who ever have an event of the concept, 20 or more, 90 % or more have the
    outcome, and their first event comes no earlier than 30 days before it. All events of the store count, those after
    the index times too, and so do outcomes beyond the horizon. A model uses a feature on which something rests. Of an
    outcome that recurs the rule says nothing: what an earlier fall left behind may foretell the next.
    """
    if sample.target.recurrent:
        return []
    used = _by_concept(
        [name for name, rests in zip(rows.features, grown.whole.importance, strict=True) if rests > 0], engine
    )
    first = _days_since_first(sample, list(used), store, engine)
    outcome = _days_since_outcome(sample)
    found = []
    for concept, features in used.items():
        since = first[concept]
        had = ~np.isnan(since)
        share = float((since[had] <= outcome[had] + DAYS_AROUND).mean()) if had.any() else 0.0
        if had.sum() >= FEWEST_RESIDENTS and share >= MOST_AFTER:
            found.append(
                Alarm("after", ", ".join(features), _said_after(concept, features, share, int(had.sum())), share)
            )
    return found


def recent(sample: Sample, rows: Rows, grown: Grown, earlier: pl.DataFrame, engine: Engine) -> list[Alarm]:
    """Find out whether the model lives on what was recorded in the last 30 days before the index time.

    The rule: with the profiles of 30 days before, AUROC out of fold falls by more than 0.03, and the 95 % interval of
    the fall, by person, lies above 0. Where the index times hang on an event, such as an examination, features that
    the 30 days change in more than a tenth of the rows keep their values: the event itself records them. Rows of which
    nothing was recorded 30 days before are left out: what a record begins with is no leak.
    """
    matrix = earlier.select(rows.features).to_numpy().astype(np.float32)
    judged = rows.known & _recorded(matrix, rows.features, engine)
    if rows.outcome[judged].sum() < FEWEST_RESIDENTS:
        return []
    fold, told = grown.fold[judged], rows.take(judged)
    now, then = told.matrix, matrix[judged]
    changed = ~((now == then) | (np.isnan(now) & np.isnan(then)))
    if sample.target.index.every is None:
        by_design = changed.mean(axis=0) > MOST_NEW
        then[:, by_design] = now[:, by_design]
        changed[:, by_design] = False
    look = _Look(told, then, fold, grown)
    fall = look.fall()
    if not (fall.estimate > MOST_FALL and fall.lower > 0):
        return []
    features = look.costliest(changed.mean(axis=0) * grown.whole.importance, engine)
    message = (
        f"AUROC falls by {fall} when the last {DAYS_DROPPED} days before the index time are dropped, most of it by"
        f" {', '.join(features)}: look when these are recorded, and when the outcome is."
    )
    return [Alarm("recent", ", ".join(features), message, fall.estimate)]


def _recorded(matrix: Singles, features: tuple[str, ...], engine: Engine) -> NDArray[np.bool_]:
    """Return of which rows something was recorded: not who one is and how old, which always hold."""
    asked = [engine.profile[name].measure not in ALWAYS_KNOWN for name in features]
    told = matrix[:, asked]
    return np.asarray(((told != 0) & ~np.isnan(told)).any(axis=1))


def _alone(outcome: Floats, feature: Singles, weight: Floats) -> float:
    """Return the better AUROC of both directions, and of both ends at which missing values may stand."""
    value = feature.astype(np.float64)
    unknown = np.isnan(value)
    if unknown.all():
        return 0.5
    ends = [np.nanmin(value) - 1, np.nanmax(value) + 1] if unknown.any() else [0.0]
    found = [auroc(outcome, np.where(unknown, end, value), weight) for end in ends]
    return max(max(area, 1 - area) for area in found)


# When every event and outcome of a record has been: days are counted back from here.
_LATER = datetime(2200, 1, 1)


def _residents(sample: Sample) -> pl.DataFrame:
    """Return the cohort's residents, sorted, with when the cohort first saw the outcome of each, or null."""
    came = pl.col("index_time") + pl.duration(microseconds=pl.col("time") * DAY)
    seen = sample.cohort.rows.group_by("subject_id").agg(outcome=came.filter("observed").min())
    return seen.sort("subject_id")


def _days_since_first(
    sample: Sample, concepts: list[str], store: EventStore, engine: Engine
) -> dict[str, NDArray[np.float32]]:
    """Return how many days before _LATER each concept was first recorded, NaN where never; each shape (residents,)."""
    asked = [since_first(concept) for concept in concepts]
    profile = Profile(*asked, special_categories=engine.profile.special_categories)
    index = _residents(sample).select("subject_id", index_time=pl.lit(_LATER, pl.Datetime("us")))
    filled = profile_store(store, index, Engine(profile, engine.vocabulary, store.timezone))
    return {feature.concept: filled[feature.name].to_numpy() for feature in asked}


def _days_since_outcome(sample: Sample) -> Floats:
    """Return how many days before _LATER each resident's outcome came, minus infinity where none did."""
    passed = (pl.lit(_LATER) - pl.col("outcome")).dt.total_microseconds() / DAY
    return _residents(sample).select(passed.fill_null(-np.inf)).to_series().to_numpy()


def _by_concept(names: list[str], engine: Engine) -> dict[str, list[str]]:
    """Return the features of each concept of which events are recorded; sums of other features have none."""
    found: dict[str, list[str]] = {}
    for name in names:
        if engine.profile[name].measure is not Measure.TOTAL:
            found.setdefault(engine.profile[name].concept, []).append(name)
    return found


def _said_after(concept: str, features: list[str], share: float, residents: int) -> str:
    verb = "rests" if len(features) == 1 else "rest"
    return (
        f"{', '.join(features)} {verb} on {concept}, which in {share:.0%} of the {residents:,} residents with any is"
        f" recorded only with or after the outcome ({DAYS_AROUND} days before it or later)."
    )


@dataclass(frozen=True)
class _Look:
    """Rows with a known outcome as they are, and their matrix as it was `then`, shape (n, features)."""

    rows: Rows
    then: Singles
    fold: Ints
    grown: Grown

    def fall(self) -> Estimate:
        """Return by how much AUROC falls."""
        rows = self.rows
        now, then = self._margin(rows.matrix), self._margin(self.then)
        return paired_difference(rows.outcome, now, then, rows.weight, rows.person, replicates=REPLICATES)

    def costliest(self, moved: Floats, engine: Engine) -> list[str]:
        """Return the features that cost most, those of a concept replaced together; `moved` is how much they could."""
        by_concept: dict[str, list[str]] = {}
        for place in np.argsort(-moved, kind="stable").tolist():
            if moved[place] > 0:
                name = self.rows.features[place]
                by_concept.setdefault(engine.profile[name].concept, []).append(name)
        some = np.arange(len(self.fold)) % max(1, len(self.fold) // ROWS_TRIED) == 0
        look = _Look(self.rows.take(some), self.then[some], self.fold[some], self.grown)
        left = {concept: look.without(features) for concept, features in list(by_concept.items())[:TRIED]}
        worst = sorted(left, key=left.__getitem__)[:NAMED]
        halfway = (look.auroc(look.rows.matrix) + left[worst[0]]) / 2
        return [name for concept in worst if left[concept] <= halfway for name in by_concept[concept]][:NAMED]

    def without(self, features: list[str]) -> float:
        """Return the AUROC that is left when these features are as they were."""
        places = [self.rows.features.index(name) for name in features]
        replaced = self.rows.matrix.copy()
        replaced[:, places] = self.then[:, places]
        return self.auroc(replaced)

    def auroc(self, matrix: Singles) -> float:
        """Return the AUROC out of fold."""
        return auroc(self.rows.outcome, self._margin(matrix), self.rows.weight)

    def _margin(self, matrix: Singles) -> Floats:
        """Return the log-odds of rows from what was fitted without their fold, shape (rows,)."""
        margin = np.empty(len(matrix))
        for number, fitted in enumerate(self.grown.folds):
            margin[self.fold == number] = fitted.margin(matrix[self.fold == number])
        return margin
