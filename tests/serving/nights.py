"""What tests of the nightly run share: a county in several shards, and runs that are killed."""

import os
import signal
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from threading import Thread
from time import sleep
from unittest.mock import patch

import numpy as np
import polars as pl

import features.events
from features.events import EventStore
from serving.scoring.nightly import Options, night
from serving.scoring.run import Ledger
from training.model import RiskModel

INDEX = datetime(2018, 1, 1)
NOW = datetime(2018, 2, 1)
RESIDENTS = 240
SHARDS = 8

# What holds of a score whoever scored it, and whenever.
OF_THE_SCORE = ("subject_id", "target", "probability", "lower", "upper", "tier", "percentile", "completeness", "seen")


def sharded_copy(store: EventStore, folder: Path) -> EventStore:
    """Copy the first residents of a store into one of eight shards."""
    events = pl.concat([store.read(shard) for shard in store.shards])
    first = np.sort(store.residents())[:RESIDENTS]
    copy = EventStore.create(folder, timezone=store.timezone, description=store.description)
    with patch.object(features.events, "RESIDENTS_PER_SHARD", RESIDENTS // SHARDS):
        copy.append([events.filter(pl.col("subject_id").is_in(first.tolist()))])
    opened = EventStore.open(folder)
    assert len(opened.shards) == SHARDS
    return opened


def appended(store: EventStore, events: pl.DataFrame) -> EventStore:
    """Append events, without dividing the store anew."""
    with patch.object(features.events, "RESIDENTS_PER_SHARD", RESIDENTS // SHARDS):
        store.append([events])
    return EventStore.open(store.path)


def killed_after(
    seconds: float, store: EventStore, ledger: Ledger, models: dict[str, RiskModel], options: Options
) -> None:
    """Score in this process, and kill it so long after the run began; must be a process of its own."""

    def kill() -> None:
        sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=kill, daemon=True).start()
    night(store, [ledger], models, NOW, options)


def told_of(said: Sequence[dict[str, object]], event: str) -> list[dict[str, object]]:
    """Return what was logged of a kind."""
    return [line for line in said if line["event"] == event]


Current = Callable[[], pl.DataFrame]
