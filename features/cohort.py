"""A target becomes a cohort: who is at risk when, and what then happened.

The at-risk rule is asked of profiles, so it cannot see past the index time; the outcome window is
``[index, index + horizon)``. Death without the outcome is a known non-event. The end of observation is a censoring:
where a resident's records do not say it (`OBSERVATION_END`), observation ends with the store's last event.

An index time less than the horizon before the records end is left out for everyone: of those followed from it only the
outcomes could ever be known, never the non-events, and no weight mends that. Where times are relative to each resident
(the store says so), nobody knows when the records end, and the rule does not apply.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from math import inf
from typing import cast

import polars as pl
from meds import schema as meds

from features.engine import KEYS, Engine
from features.errors import WeibingError
from features.events import EventStore
from features.measures import age, ever, latest
from features.phenotypes import BY_NAME, described
from features.profile import Profile
from features.times import DAY, instant, length, zone
from features.translation import Translator
from features.vocabulary import Vocabulary, builtin


@dataclass(frozen=True, slots=True)
class Limit:
    """A condition on the latest value of a concept, where one is known: ``at_least <= value < below``."""

    concept: str
    at_least: float = -inf
    below: float = inf


@dataclass(frozen=True, slots=True)
class IndexTimes:
    """From which moments one predicts.

    Either `every` so long, on the days counted from the first of January, between the dates `start` and `stop` (both
    included; where absent, as far as the records go); or at `each` occurrence of a concept; or at the moment by which
    all the concepts of `first` have occurred. `offset` shifts it: what is recorded at an index time is not yet known
    at it, so an offset of a day lets the day itself count.
    """

    every: str | None = None
    start: str | None = None
    stop: str | None = None
    each: str | None = None
    first: tuple[str, ...] = ()
    offset: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted: who is at risk, which outcome, over which horizon.

    `outcome` lists concepts of which the first to come counts. `increasing` and `decreasing` name the concepts of
    which more is worse, or better, for this outcome. `tiers` are the three probabilities at which moderate, high and
    very high risk begin. `comparators` names the published scores that are rivals of a model of it.
    `predictors` names the concepts whose features a model may use; none is all: with few outcomes, predictors fixed
    beforehand serve better than a choice among many.
    """

    name: str
    outcome: tuple[str, ...]
    horizon: str
    index: IndexTimes
    label_en: str = ""
    label_zh: str = ""
    age: tuple[float, float] = (0.0, inf)
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    recurrent: bool = False
    increasing: tuple[str, ...] = ()
    decreasing: tuple[str, ...] = ()
    tiers: tuple[float, float, float] = (0.1, 0.2, 0.4)
    tiers_source: str = ""
    comparators: tuple[str, ...] = ()
    predictors: tuple[str, ...] = ()

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept that the target names."""
        index = (*self.index.first, *([self.index.each] if self.index.each else []))
        limits = tuple(limit.concept for limit in self.limits)
        ways = (*self.increasing, *self.decreasing)
        return (*self.outcome, *index, *self.present, *self.absent, *limits, *ways, *self.predictors)

    @property
    def definition(self) -> list[str]:
        """What counts as the outcome, a line each: a phenotype with its rule and source, or a concept's name."""
        return list(map(described, self.outcome))

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """What each concept of the outcome is found by: for a phenotype the signs of its rule, else itself."""
        return {name: BY_NAME[name].signs if name in BY_NAME else (name,) for name in self.outcome}

    @property
    def horizon_days(self) -> int:
        """The horizon in whole days, so that a calendar year of 365 days covers a horizon of one year."""
        return length(self.horizon) // DAY


@dataclass(frozen=True)
class Cohort:
    """A row per resident and index time at risk, and how many candidates were left out, by reason.

    `rows` has `subject_id`, `index_time`, `observed` (the outcome came), `died` (without it) and `time`: days from the
    index time to the outcome, death or end of observation, whichever came first. `found_by` counts the outcomes within
    the horizon by what they were found by, as each was dated: a code, a treatment, a measurement. One may count twice.
    """

    target: Target
    rows: pl.DataFrame
    flow: dict[str, int] = field(default_factory=dict)
    found_by: dict[str, int] = field(default_factory=dict)


def cohort(store: EventStore, target: Target, vocabulary: Vocabulary | None = None) -> Cohort:
    """Find the cohort of a target in a store.

    Raises
    ------
    WeibingError
        If the target names an unknown concept or a wrong length of time, or the store holds no dated events.
    """
    flow: Counter[str] = Counter()
    found_by: Counter[str] = Counter()
    with store.held() as still:
        finder = _Finder.of(still, target, vocabulary or builtin())
        parts = [finder.shard(still.read(shard), flow, found_by) for shard in still.shards]
    return Cohort(target, pl.concat(parts).sort(KEYS), dict(flow), dict(found_by.most_common()))


@dataclass(frozen=True)
class _Finder:
    """Finds a target's cohort, shard by shard."""

    target: Target
    rule: Engine
    facts: Translator
    grid: pl.DataFrame
    end: datetime
    last: datetime | None

    @classmethod
    def of(cls, store: EventStore, target: Target, vocabulary: Vocabulary) -> "_Finder":
        for concept in target.concepts:
            vocabulary.concept(concept)
        start, end = _extent(store)
        signs = {sign for signs in target.parts.values() for sign in signs}
        asked = {*target.outcome, *signs, *_index_concepts(target.index), "death", "observation_end"}
        facts = Translator(asked, vocabulary, store.timezone)
        return cls(
            target,
            Engine(at_risk_rule(target), vocabulary, store.timezone),
            facts,
            _grid(target.index, start, end, store.timezone),
            end,
            None if store.description.get("relative_times") else end - timedelta(days=target.horizon_days),
        )

    def shard(self, events: pl.DataFrame, flow: Counter[str], found_by: Counter[str]) -> pl.DataFrame:
        """Return the cohort's rows of a shard; count whom it leaves out and why, and what the outcomes are found by."""
        facts = self.facts.frame(events).drop_nulls("time")
        rows = self._candidates(events, facts)
        flow["candidates"] += len(rows)
        observed = self._observed(rows, events, facts)
        asked = self.rule.profiles(events, observed).join(observed, on=KEYS)
        for reason, keep in self._reasons():
            kept = asked.filter(keep)
            flow[reason] += len(asked) - len(kept)
            asked = kept
        flow["at risk"] += len(asked)
        rows = _followed(asked.select(*KEYS, "death", "end"), facts, self.target)
        _count_signs(rows, facts, self.target, found_by)
        return rows

    def _candidates(self, events: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
        index = self.target.index
        if index.every:
            found = events.select("subject_id").unique().join(self.grid, how="cross")
        elif index.each:
            found = _of(facts, (index.each,)).select("subject_id", index_time="time")
        else:
            begun = _of(facts, index.first).group_by("subject_id", "concept").agg(pl.col("time").min())
            complete = begun.group_by("subject_id").agg(index_time=pl.col("time").max(), concepts=pl.len())
            found = complete.filter(pl.col("concepts") == len(set(index.first))).drop("concepts")
        offset = length(index.offset) if index.offset else 0
        return found.with_columns(pl.col("index_time") + pl.duration(microseconds=offset)).unique()

    def _observed(self, rows: pl.DataFrame, events: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
        """Add when each resident's records `begin`, when one has `left`, the date of `death`, and the `end` of both."""
        begin = events.filter(pl.col("code") != meds.birth_code).group_by("subject_id").agg(begin=pl.col("time").min())
        death = _of(facts, ("death",)).group_by("subject_id").agg(death=pl.col("time").min())
        left = _of(facts, ("observation_end",)).group_by("subject_id").agg(left=pl.col("time").max())
        for dates in (begin, death, left):
            rows = rows.join(dates, on="subject_id", how="left")
        rows = rows.with_columns(pl.col("left").fill_null(self.end))
        return rows.with_columns(end=pl.min_horizontal("left", "death"))

    def _reasons(self) -> Iterator[tuple[str, pl.Expr]]:
        """Yield each reason for being left out, and the condition of staying in."""
        index, left, death = pl.col("index_time"), pl.col("left"), pl.col("death")
        # A death at the index time itself is not yet known at it.
        alive = death.is_null() | (death >= index)
        yield "not yet or no longer observed", (pl.col("begin") < index) & (left > index) & alive
        if self.last is not None:
            # There a non-event could not be known but an event could, whatever the weights: everyone or nobody.
            yield f"less than {self.target.horizon} before the records end", index <= self.last
        for condition in at_risk_conditions(self.target):
            yield condition.reason, pl.all_horizontal(_holds(condition, name) for name in condition.features)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a target asks of a resident at risk: all `features` of :func:`at_risk_rule` in ``[at_least, below)``.

    Who is outside is left out, for the `reason`. Where a feature is unknown, `unknown_stays` decides.
    """

    reason: str
    features: tuple[str, ...]
    at_least: float = -inf
    below: float = inf
    unknown_stays: bool = False


def at_risk_rule(target: Target) -> Profile:
    """Return the at-risk rule as features, so that it cannot see past the index time."""
    asked = {*target.absent, *target.present, *target.outcome}
    limits = {limit.concept for limit in target.limits}
    return Profile(
        age(), *(ever(concept) for concept in sorted(asked)), *(latest(concept) for concept in sorted(limits))
    )


def at_risk_conditions(target: Target) -> Iterator[Condition]:
    """Yield what the target asks of the features of :func:`at_risk_rule`, in the order in which it is asked."""
    low, high = target.age
    if low > 0 or high < inf:
        yield Condition("age unknown", ("age",))
        yield Condition(f"age not {_range(low, high)}", ("age",), low, high)
    for concept in target.present:
        yield Condition(f"without {concept}", (f"{concept}_ever",), at_least=1)
    for concept in target.absent:
        yield Condition(f"with {concept}", (f"{concept}_ever",), below=1)
    for limit in target.limits:
        reason = f"latest {limit.concept} not {_range(limit.at_least, limit.below)}"
        yield Condition(reason, (f"{limit.concept}_latest",), limit.at_least, limit.below, unknown_stays=True)
    if not target.recurrent:
        yield Condition("outcome had before", tuple(f"{concept}_ever" for concept in target.outcome), below=1)


def _holds(condition: Condition, name: str) -> pl.Expr:
    value = pl.col(name)
    within = value.is_between(condition.at_least, condition.below, closed="left")
    return value.is_null() | within if condition.unknown_stays else within


def _range(at_least: float, below: float) -> str:
    bounds = [f"at least {at_least:g}"] * (at_least > -inf) + [f"below {below:g}"] * (below < inf)
    return " and ".join(bounds)


def _followed(rows: pl.DataFrame, facts: pl.DataFrame, target: Target) -> pl.DataFrame:
    """Say of each row at risk what happened first, and after how many days."""
    came = _of(facts, target.outcome).select("subject_id", came="time").sort("came")
    rows = rows.sort("index_time").join_asof(
        came, left_on="index_time", right_on="came", by="subject_id", strategy="forward", check_sortedness=False
    )
    observed = (pl.col("came") <= pl.col("end")).fill_null(value=False)
    until = pl.when(observed).then("came").otherwise("end")
    return rows.select(
        *KEYS,
        observed=observed,
        died=~observed & (pl.col("death") <= pl.col("end")).fill_null(value=False),
        time=(until - pl.col("index_time")).dt.total_microseconds() / DAY,
    )


def _count_signs(rows: pl.DataFrame, facts: pl.DataFrame, target: Target, found_by: Counter[str]) -> None:
    """Count by what the outcomes within the horizon were found: the signs of their moment."""
    # A time in days is a fraction that a product with the length of a day may miss by a trifle.
    moment = pl.col("index_time") + pl.duration(microseconds=(pl.col("time") * DAY).round().cast(pl.Int64))
    came = rows.filter("observed", pl.col("time") < target.horizon_days).with_columns(time=moment)
    signs = tuple(sign for signs in target.parts.values() for sign in signs)
    told = _of(facts, signs).unique(["subject_id", "time", "concept"]).join(came, on=["subject_id", "time"])
    found_by.update(dict(told.group_by("concept").len().cast({"concept": pl.String}).iter_rows()))


def _of(facts: pl.DataFrame, concepts: tuple[str, ...]) -> pl.DataFrame:
    return facts.filter(pl.col("concept").is_in(concepts))


def _index_concepts(index: IndexTimes) -> tuple[str, ...]:
    return (*index.first, *([index.each] if index.each else []))


def _extent(store: EventStore) -> tuple[datetime, datetime]:
    """Return the first and the last time in the store, births and facts without a time left out."""
    dated = [
        pl.scan_parquet(shard)
        .filter(pl.col("code") != meds.birth_code)
        .select(pl.col("time").min().alias("start"), pl.col("time").max().alias("end"))
        for shard in store.shards
    ]
    found = pl.concat(pl.collect_all(dated)) if dated else pl.DataFrame({"start": [None], "end": [None]})
    start, end = found["start"].min(), found["end"].max()
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        raise WeibingError(f"The event store {store.place} holds no dated events.")
    return start, end


def _grid(index: IndexTimes, start: datetime, end: datetime, timezone: str) -> pl.DataFrame:
    """Return the common index times: every so often from the first of January after the records begin."""
    times: list[datetime] = []
    if index.every:
        begins = start.replace(tzinfo=UTC).astimezone(zone(timezone))
        first = instant(index.start or date(begins.year + 1, 1, 1), timezone)
        last = min(end, instant(index.stop, timezone)) if index.stop else end
        while (moment := _step(first, index.every, len(times), timezone)) <= last:
            times.append(moment)
    return pl.DataFrame({"index_time": pl.Series(times, dtype=pl.Datetime("us"))})


def _step(first: datetime, every: str, number: int, timezone: str) -> datetime:
    """Return the index time after so many steps; whole years and months keep to the calendar."""
    calendar = pl.Series([first]).dt.replace_time_zone("UTC").dt.convert_time_zone(timezone)
    moved = calendar.dt.offset_by(calendar_steps(every, number)).dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return cast(datetime, moved[0])


def calendar_steps(every: str, number: int) -> str:
    """Return so many times a whole number of hours, days, weeks, months or years, as Polars writes it.

    Raises
    ------
    WeibingError
        If `every` is something else.
    """
    length(every)
    step = re.fullmatch(r"(\d+)(h|d|w|mo|y)", every)
    if not step:
        raise WeibingError(f'every "{every}": write a whole number of h, d, w, mo or y without a space, such as "6mo".')
    return f"{int(step[1]) * number}{step[2]}"
