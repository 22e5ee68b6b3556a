"""timeseriesflattener with processes of its own, one a processor: its other way to work (`n_workers`)."""

import multiprocessing
import os
from collections.abc import Sequence

import polars as pl

from benchmarks.features import with_timeseriesflattener
from features.events import EventStore
from features.measures import Feature

MEASURES = with_timeseriesflattener.MEASURES
# What the processes would otherwise import, each of them, in every run.
IMPORTED = ["features.engine", "benchmarks.features.with_timeseriesflattener"]


def profiles(store: EventStore, index: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """Return the features of each resident at the index time."""
    # It forks by default, and the fork of a process in which Polars has threads hangs.
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(IMPORTED)
    return with_timeseriesflattener.profiles(store, index, features, workers=os.cpu_count())
