"""timeseriesflattener: the features that its specifications can say.

It counts a value at the prediction time itself as known, and takes the latest time (and the spread of times) from all
of a resident's values, also from those outside of the look-back. So it is handed the values before the index time
alone; then its latest value, and both ends of every look-back, are Weibing's. Its slope remains another one wherever a
look-back has a beginning, and its time since an event takes one event a resident: neither is compared.

It joins all values to all index times for every look-back of every specification. What it offers against that, its
`step_size`, calls what Polars 2 no longer has; so every specification is handed the values of its look-back alone.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from itertools import groupby
from math import nan
from typing import TypeAlias

import polars as pl
from timeseriesflattener import (
    CountAggregator,
    Flattener,
    HasValuesAggregator,
    MaxAggregator,
    MeanAggregator,
    MinAggregator,
    PredictionTimeFrame,
    PredictorSpec,
    StaticFrame,
    StaticSpec,
    SumAggregator,
    TimeDeltaSpec,
    TimestampValueFrame,
    ValueFrame,
    VarianceAggregator,
)
from timeseriesflattener.aggregators import Aggregator, LatestAggregator

from benchmarks.features.declared import meanings
from features.events import EventStore
from features.measures import Feature, Measure

AGGREGATORS: dict[Measure, Aggregator] = {
    Measure.LATEST: LatestAggregator(timestamp_col_name="time"),
    Measure.MEAN: MeanAggregator(),
    Measure.MIN: MinAggregator(),
    Measure.MAX: MaxAggregator(),
    Measure.STANDARD_DEVIATION: VarianceAggregator(),
    Measure.SUM: SumAggregator(),
    Measure.COUNT: CountAggregator(),
    Measure.EVER: HasValuesAggregator(),
    Measure.ACTIVE: HasValuesAggregator(),
}
YES_OR_NO = {Measure.EVER, Measure.ACTIVE}
MEASURES = (*AGGREGATORS, Measure.AGE, Measure.STATIC)
# It has no look-back without a beginning.
LIFETIME = timedelta(days=150 * 365)

Spec: TypeAlias = PredictorSpec | StaticSpec | TimeDeltaSpec


def profiles(
    store: EventStore, index: pl.DataFrame, features: Sequence[Feature], workers: int | None = None
) -> pl.DataFrame:
    """Return the features of each resident at the index time.

    Parameters
    ----------
    workers : how many processes it starts, None for none
    """
    until = index["index_time"][0]
    values = _values_by_concept(store, until, {feature.concept for feature in features})
    specs: list[Spec] = []
    named: dict[str, Feature] = {}
    for number, group in enumerate(_one_specification_each(features)):
        spec, columns = _specification(group, _looked_back(values[group[0].concept], group[0], until), f"v{number}v")
        specs.append(spec)
        named.update(zip(columns, group, strict=True))
    times = PredictionTimeFrame(index, entity_id_col_name="subject_id", timestamp_col_name="index_time")
    # It says on standard output and error what it is doing.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        flat: pl.DataFrame = Flattener(times, workers).aggregate_timeseries(specs).df
    return flat.select("subject_id", *(_as_declared(column, feature) for column, feature in named.items()))


def _values_by_concept(store: EventStore, until: datetime, concepts: set[str]) -> dict[str, pl.DataFrame]:
    """Return the usable values of each concept before the index time; where none is needed, the value is 1."""
    number = pl.col("numeric_value").cast(pl.Float64) * pl.col("factor") + pl.col("offset")
    value = pl.coalesce("said", number).cast(pl.Float32).cast(pl.Float64)
    plausible = pl.col("value").is_between("low", "high")
    usable = pl.when(pl.col("value").is_null()).then(~pl.col("numeric")).otherwise(plausible)
    needed = meanings().lazy().filter(pl.col("concept").is_in(list(concepts)))
    known = (
        pl.scan_parquet(store.shards)
        .join(needed, on=["code", "unit"], nulls_equal=True)
        .filter(pl.col("time").is_null() | (pl.col("time") < until))
        .with_columns(value=value)
        .filter(usable)
        .select("concept", "subject_id", "time", pl.col("value").fill_null(1.0))
        .collect(engine="streaming")
    )
    found = known.partition_by("concept", as_dict=True, include_key=False)
    return {str(concept): frame for (concept,), frame in found.items()}


def _looked_back(values: pl.DataFrame, feature: Feature, until: datetime) -> pl.DataFrame:
    """Return the values of a feature's look-back."""
    if feature.look_back is None:
        return values
    return values.filter(pl.col("time") >= until - timedelta(microseconds=feature.look_back))


def _one_specification_each(features: Sequence[Feature]) -> Iterator[list[Feature]]:
    """Group the features so that those of one concept and look-back share its one pass."""

    def key(feature: Feature) -> tuple[str, int, bool]:
        return feature.concept, feature.look_back or 0, feature.measure in YES_OR_NO

    for _, group in groupby(sorted(features, key=key), key):
        yield list(group)


def _specification(group: list[Feature], values: pl.DataFrame, column: str) -> tuple[Spec, list[str]]:
    """Return a specification, and the columns that it makes of these features."""
    if group[0].measure is Measure.AGE:
        births = TimestampValueFrame(values.select("subject_id", "time"), "subject_id", "time")
        return TimeDeltaSpec(births, nan, column, time_format="years"), [f"pred_{column}_years_fallback_nan"]
    if group[0].measure is Measure.STATIC:
        facts = StaticFrame(values.select("subject_id", pl.col("value").alias(column)), "subject_id")
        return StaticSpec(facts, "pred", nan), [f"pred_{column}_fallback_nan"]
    back = timedelta(microseconds=group[0].look_back) if group[0].look_back else LIFETIME
    aggregators = [AGGREGATORS[feature.measure] for feature in group]
    fallback = 0 if group[0].measure in YES_OR_NO else nan
    frame = ValueFrame(values.rename({"value": column}), "subject_id", "time")
    window = f"pred_{column}_within_0_to_{abs((-back).days)}_days"
    columns = [f"{window}_{aggregator.name}_fallback_{fallback}" for aggregator in aggregators]
    return PredictorSpec(frame, [back], aggregators, fallback), columns


def _as_declared(column: str, feature: Feature) -> pl.Expr:
    """Return a column under the feature's name; it says a variance where Weibing says a standard deviation."""
    found = pl.col(column).cast(pl.Float64).fill_nan(None)
    spread = feature.measure is Measure.STANDARD_DEVIATION
    return (found.sqrt() if spread else found).cast(pl.Float32).alias(feature.name)
