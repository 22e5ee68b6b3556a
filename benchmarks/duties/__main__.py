"""How many residents a second are told what is due, and kept so in a database: see README.md."""

import argparse
import json
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from features.columns import read_columns
from features.events import EventStore
from features.times import instant
from serving.duties import DutyRules, rulebook
from serving.night import work_out_duties
from serving.store.database import Database
from serving.store.panels import Panels

MEMORY_BYTES = 4_000_000_000


def main() -> None:
    chosen = options()
    store = EventStore.open(chosen.store)
    rules, at = DutyRules(rulebook("2017"), timezone=store.timezone), instant(chosen.at, store.timezone)
    # What is compiled is compiled before the clock runs.
    first = read_columns(store.shards[0])
    list(rules.of_many(first, first.resident[:100], at))
    found = [worked_out(store, rules, at) for _ in range(chosen.times)] + [kept(store, rules, at)]
    for told in found:
        print(", ".join(f"{name} {number:,}" for name, number in told.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duties", description=__doc__)
    parser.add_argument("store", type=Path, help="an event store, such as weibing simulate makes")
    parser.add_argument("--at", required=True, help="the day that is asked about")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def worked_out(store: EventStore, rules: DutyRules, at: datetime) -> dict[str, int]:
    """Work out what is due for everybody, and keep nothing; reading the store is not counted."""
    residents, duties, seconds, processor = 0, 0, 0.0, 0.0
    for shard in store.shards:
        columns = read_columns(shard)
        begun, used = time.monotonic(), time.process_time()
        for _, due in rules.of_many(columns, columns.resident, at):
            residents, duties = residents + 1, duties + len(due)
        seconds, processor = seconds + time.monotonic() - begun, processor + time.process_time() - used
    rates = {"a second": round(residents / seconds), "a second of the processor": round(residents / processor)}
    return {"residents": residents, "duties": duties, **rates}


def kept(store: EventStore, rules: DutyRules, at: datetime) -> dict[str, int]:
    """Do what the night does at its end, in SQLite, with everybody under contract; reading and writing are counted."""
    with TemporaryDirectory(prefix="weibing-duties-") as scratch:
        database = Database.open(f"{scratch}/county.db")
        panels = Panels(database)
        panels.sign(panels.make("all").id, store.residents().tolist(), datetime(2000, 1, 1))
        begun = time.monotonic()
        told = work_out_duties(store, database, rules, at, at, MEMORY_BYTES)
        rate = round(told.residents / (time.monotonic() - begun))
    return {"residents": told.residents, "duties": told.duties, "alerts": told.alerts, "a second, kept": rate}


if __name__ == "__main__":
    main()
