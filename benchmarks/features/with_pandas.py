"""pandas: one group-by a concept and look-back, as one writes it by hand.

The records hold no two values of a concept at the same time, so the number of rows is the number of times.
"""

from collections.abc import Sequence
from itertools import groupby

import pandas as pd
import polars as pl

from benchmarks.features.declared import meanings
from features.events import EventStore
from features.measures import Feature, Measure
from features.times import DAY, YEAR

MEASURES = (
    Measure.LATEST,
    Measure.MEAN,
    Measure.MIN,
    Measure.MAX,
    Measure.STANDARD_DEVIATION,
    Measure.VARIATION,
    Measure.SLOPE,
    Measure.SUM,
    Measure.COUNT,
    Measure.EVER,
    Measure.ACTIVE,
    Measure.SINCE,
    Measure.SINCE_FIRST,
    Measure.AGE,
    Measure.STATIC,
)
NOTHING_IS_NOUGHT = {Measure.SUM, Measure.COUNT, Measure.EVER, Measure.ACTIVE}
BY_NAME = {
    Measure.LATEST: "last",
    Measure.STATIC: "last",
    Measure.MEAN: "mean",
    Measure.MIN: "min",
    Measure.MAX: "max",
    Measure.STANDARD_DEVIATION: "std",
    Measure.SUM: "sum",
}


def profiles(store: EventStore, index: pl.DataFrame, features: Sequence[Feature]) -> pd.DataFrame:
    """Return the features of each resident at the index time."""
    until = pd.Timestamp(index["index_time"][0])
    known = _usable_events(store, until, {feature.concept for feature in features})
    residents = pd.Index(index["subject_id"].to_numpy(), name="subject_id")
    columns = {}

    def concept(feature: Feature) -> str:
        return feature.concept

    for name, of_concept in groupby(sorted(features, key=concept), concept):
        events = known[name]
        for feature in of_concept:
            found = _measured(feature, _looked_back(events, feature, until), until).reindex(residents)
            nought = feature.measure in NOTHING_IS_NOUGHT
            columns[feature.name] = (found.fillna(0.0) if nought else found).astype("float32")
    return pd.DataFrame({feature.name: columns[feature.name] for feature in features}).reset_index()


def _usable_events(store: EventStore, until: pd.Timestamp, concepts: set[str]) -> dict[str, pd.DataFrame]:
    """Return the usable events before the index time, by concept."""
    wanted = ["subject_id", "time", "code", "unit", "numeric_value"]
    events = pd.concat([pd.read_parquet(shard, columns=wanted) for shard in store.shards], ignore_index=True)
    events = events[events["time"].isna() | (events["time"] < until)]
    mapping = meanings().to_pandas()
    events = events.merge(mapping[mapping["concept"].isin(concepts)], on=["code", "unit"])
    number = (events["numeric_value"].astype("float64") * events["factor"] + events["offset"]).astype("float32")
    value = events["said"].fillna(number.astype("float64"))
    usable = value.between(events["low"], events["high"]) | (value.isna() & ~events["numeric"])
    known = events[["concept", "subject_id", "time"]].assign(value=value)[usable]
    in_order = known.sort_values(["subject_id", "time"], kind="stable")
    return {str(concept): events for concept, events in in_order.groupby("concept")}


def _looked_back(events: pd.DataFrame, feature: Feature, until: pd.Timestamp) -> pd.DataFrame:
    """Return the events of a feature's look-back."""
    if feature.look_back is None:
        return events
    return events[events["time"] >= until - pd.Timedelta(microseconds=feature.look_back)]


def _measured(feature: Feature, events: pd.DataFrame, until: pd.Timestamp) -> pd.Series:
    """Return one feature, by resident; nothing of residents without an event."""
    by_resident = events.groupby("subject_id", sort=False)
    if feature.measure in BY_NAME:
        found = by_resident["value"].agg(BY_NAME[feature.measure])
    elif feature.measure is Measure.VARIATION:
        found = by_resident["value"].std() / by_resident["value"].mean()
    elif feature.measure is Measure.SLOPE:
        found = _slope(events, until)
    elif feature.measure is Measure.COUNT:
        found = by_resident.size()
    elif feature.measure in (Measure.EVER, Measure.ACTIVE):
        found = by_resident.size() > 0
    else:
        first = feature.measure is Measure.SINCE_FIRST
        time = by_resident["time"].min() if first else by_resident["time"].max()
        found = (until - time) / pd.Timedelta(microseconds=YEAR if feature.measure is Measure.AGE else DAY)
    return found.where(by_resident.size() >= feature.at_least) if feature.at_least > 1 else found


def _slope(events: pd.DataFrame, until: pd.Timestamp) -> pd.Series:
    """Return the slope of the least-squares line, per year."""
    years = (events["time"] - until) / pd.Timedelta(microseconds=YEAR)
    both = pd.DataFrame({"subject_id": events["subject_id"], "x": years, "y": events["value"]})
    centred = both[["x", "y"]] - both.groupby("subject_id", sort=False)[["x", "y"]].transform("mean")
    products = pd.DataFrame(
        {"subject_id": both["subject_id"], "xy": centred["x"] * centred["y"], "xx": centred["x"] ** 2}
    )
    sums = products.groupby("subject_id", sort=False).sum()
    return sums["xy"] / sums["xx"]
