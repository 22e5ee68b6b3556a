"""One contender on one store, in a process of its own, so that its time and memory are its own.

    python -m benchmarks.features.run weibing STORE --as timeseriesflattener --small STORE --out FILE

prints one line of JSON.
"""

import argparse
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import polars as pl

from benchmarks.features.declared import GRIDS, compared, grid
from benchmarks.features.records import INDEX_TIME, index_of
from features.engine import Engine
from features.events import EventStore
from features.measures import Feature
from features.profile import PROFILE
from features.times import microseconds

ONE_RESIDENT = "one resident"
FULL_PROFILE = "full profile"
ASKED = 300

T = TypeVar("T")


def features_of(whose: str) -> list[Feature]:
    """Return the features of a grid, the full profile, or those of it that a contender can say."""
    if whose == FULL_PROFILE:
        return list(PROFILE.features)
    if whose in GRIDS:
        return grid(GRIDS[whose])
    return compared(importlib.import_module(f"benchmarks.features.with_{whose}").MEASURES)


def many(contender: str, store: EventStore, small: EventStore, whose: str, out: Path | None) -> dict[str, float]:
    """Fill the profiles of all residents; the small store comes first, so that what is done once is not counted."""
    profiles = importlib.import_module(f"benchmarks.features.with_{contender}").profiles
    features = features_of(whose)
    first = _timed(profiles, small, index_of(small.residents()), features)[1]
    index = index_of(store.residents())
    found, seconds, processor = _timed(profiles, store, index, features)
    peak = peak_mebibytes()
    if out:
        (found if isinstance(found, pl.DataFrame) else pl.from_pandas(found)).write_parquet(out)
    return {
        "features": len(features),
        "residents": len(index),
        "first_seconds": first,
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_mebibytes": peak,
    }


def one(store: EventStore, seed: int = 0) -> dict[str, float]:
    """Fill the full profile of one resident after the other: from the store, and from events in memory."""
    engine, at = Engine.of_store(store), microseconds(INDEX_TIME)
    asked = [int(i) for i in np.random.default_rng(seed).choice(store.residents(), ASKED + 1)]
    first = _timed(lambda: engine.one(store.resident(asked[0]), at))[1]
    stored = [_timed(lambda number: engine.one(store.resident(number), at), number)[1] for number in asked[1:]]
    held = [_timed(engine.one, events, at)[1] for events in map(store.resident, asked[1:])]
    return {
        "features": len(engine.profile),
        "first_seconds": first,
        "stored_milliseconds": 1e3 * median(stored),
        "stored_milliseconds_95": 1e3 * float(np.quantile(stored, 0.95)),
        "held_milliseconds": 1e3 * median(held),
        "held_milliseconds_95": 1e3 * float(np.quantile(held, 0.95)),
    }


def peak_mebibytes() -> float:
    """Return the most memory that this process has held.

    The kernel's own count of this program where there is one; the other includes what the caller held before it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _timed(work: Callable[..., T], *arguments: object) -> tuple[T, float, float]:
    """Return what work gives, its seconds, and those of all processors together."""
    started, processor = time.perf_counter(), time.process_time()
    found = work(*arguments)
    return found, time.perf_counter() - started, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender")
    parser.add_argument("store", type=Path)
    parser.add_argument("--as", dest="whose", default=FULL_PROFILE)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    store = EventStore.open(chosen.store)
    if chosen.contender == ONE_RESIDENT:
        figures = one(store)
    else:
        figures = many(chosen.contender, store, EventStore.open(chosen.small), chosen.whose, chosen.out)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
