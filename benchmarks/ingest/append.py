"""Append made-up events to a new event store and read them again: time and peak memory, see README.md beside this."""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from features.events import EventStore
from features.records import RECORD

# What is recorded, with its unit.
RECORDED = {
    "sbp": "mm[Hg]", "dbp": "mm[Hg]", "glucose_fasting": "mmol/L", "weight": "kg", "waist": "cm", "hdl": "mmol/L",
    "ldl": "mmol/L", "creatinine": "umol/L", "heart_rate": None, "examination": None, "follow_up_visit": None,
    "antihypertensive": None, "ICD10//I10": None, "outpatient_visit": None, "steps": None, "smoking": None,
}  # fmt: skip
RESIDENTS_PER_FRAME = 2_000
EVENTS_PER_RESIDENT = 100
DAY = 86_400_000_000


def events(first: int, residents: int, rng: np.random.Generator, *, records: bool) -> pl.DataFrame:
    """Draw the events of some residents, each at the beginning of a day in eleven years."""
    number = residents * EVENTS_PER_RESIDENT
    kind = rng.integers(0, len(RECORDED), number)
    drawn = pl.DataFrame(
        {
            "subject_id": np.repeat(np.arange(first, first + residents), EVENTS_PER_RESIDENT),
            "time": pl.Series(rng.integers(15_000, 19_000, number) * DAY).cast(pl.Datetime("us")),
            "code": pl.Series(list(RECORDED))[kind],
            "numeric_value": rng.normal(130, 15, number).round().astype(np.float32),
            "unit": pl.Series(list(RECORDED.values()))[kind],
        }
    )
    return drawn.with_columns(pl.Series(RECORD, rng.integers(0, 2**62, number))) if records else drawn


def measure(path: Path, residents: int, *, records: bool) -> dict[str, float]:
    """Append, and read: seconds, without those in which the events are drawn."""
    rng, drawing = np.random.default_rng(0), 0.0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal drawing
        for first in range(1, residents + 1, RESIDENTS_PER_FRAME):
            began = time.perf_counter()
            frame = events(first, min(RESIDENTS_PER_FRAME, residents + 1 - first), rng, records=records)
            drawing += time.perf_counter() - began
            yield frame

    store = EventStore.create(path)
    began, worked = time.perf_counter(), time.process_time()
    done = store.append(frames())
    elapsed, worked = time.perf_counter() - began - drawing, time.process_time() - worked - drawing
    began_reading = time.perf_counter()
    read = sum(len(store.read(shard)) for shard in store.shards)
    reading = time.perf_counter() - began_reading
    chosen = range(1, residents, max(1, residents // 100))
    looks = sorted(_look(store, resident) for resident in chosen)
    return {
        "events": done.events_new,
        "append_seconds": elapsed,
        "append_cpu_seconds": worked,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "bytes_per_event": sum(file.stat().st_size for file in (path / "data").iterdir()) / read,
        "read_million_events_a_second": read / reading / 1e6,
        "one_resident_milliseconds": looks[len(looks) // 2] * 1e3,
    }


def _look(store: EventStore, resident: int) -> float:
    began = time.perf_counter()
    store.resident(resident)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residents", type=int, default=200_000)
    parser.add_argument("--records", action="store_true", help="each event with a record of its own")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        figures = measure(Path(folder) / "store", chosen.residents, records=chosen.records)
    for name, figure in figures.items():
        print(f"{name:32}{figure:>16,.2f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
