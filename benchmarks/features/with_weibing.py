"""Weibing: the features of a store, by its own engine."""

from collections.abc import Sequence

import polars as pl

from features.engine import Engine, profile_store
from features.events import EventStore
from features.measures import Feature, Measure
from features.profile import Profile

MEASURES = tuple(Measure)


def profiles(store: EventStore, index: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """Return the features of each resident at the index time."""
    return profile_store(store, index, Engine(Profile(*features), timezone=store.timezone))
