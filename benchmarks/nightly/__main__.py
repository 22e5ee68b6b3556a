"""Whole nights of `weibing score`, from few residents to many, into a file and both databases: see README.md."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pyarrow.parquet as pq

from benchmarks.nightly.plot import plot
from features.events import EventStore
from tests.postgres import new_database, postgres_server

KINDS = ("file", "sqlite", "postgresql")
# Each night but the first knows the night before.
NIGHTS = (("first", 0, False), ("next day", 1, False), ("next day, --all", 2, True))


def main() -> None:
    chosen = options()
    store = EventStore.open(chosen.store)
    found: list[dict[str, Any]] = []
    with places(chosen.scratch) as scratch, postgres_server(scratch / "pg") as server:
        for share in chosen.shares:
            part = part_of(store, share, scratch / f"store{share}")
            for kind in chosen.kinds:
                found += nights(part, kind, chosen, scratch, server)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if chosen.plot:
        plot(found, chosen.plot)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nightly", description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--mlruns", type=Path, required=True, help="with the champions that score")
    parser.add_argument("--at", required=True, metavar="DATE", help="the index time of the first night")
    parser.add_argument("--shares", type=int, nargs="*", default=[64, 16, 4, 1], help="of the shards: one in so many")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--nights", type=int, default=len(NIGHTS))
    parser.add_argument("--score", nargs="*", default=[], help="more options of weibing score, without the hyphens")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    return parser.parse_args()


@contextmanager
def places(scratch: Path | None) -> Iterator[Path]:
    """Give a folder that PostgreSQL's own user may enter."""
    folder = Path(mkdtemp(prefix="weibing-nightly-", dir=scratch))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def part_of(store: EventStore, share: int, folder: Path) -> EventStore:
    """Make a store of one in so many of the shards, by links."""
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for shard in store.shards[: max(1, len(store.shards) // share)]:
        os.link(shard, folder / "data" / shard.name)
    for told in (store.path / "metadata").iterdir():
        os.link(told, folder / "metadata" / told.name)
    return EventStore.open(folder)


def nights(
    store: EventStore, kind: str, chosen: argparse.Namespace, scratch: Path, server: str
) -> list[dict[str, Any]]:
    """Score a store night after night."""
    found = []
    place = {
        "file": ["--out", str(scratch / f"{store.path.name}.parquet")],
        "sqlite": ["--db", f"sqlite:///{scratch / store.path.name}.db"],
        "postgresql": ["--db", new_database(server)],
    }[kind]
    for night, later, everyone in NIGHTS[: chosen.nights]:
        at = str(date.fromisoformat(chosen.at) + timedelta(days=later))
        more = [f"--{each}" if not each[0].isdigit() else each for each in chosen.score]
        command = ["score", str(store.path), *place, "--at", at, "--mlruns", str(chosen.mlruns), *more]
        told = run([*command, "--all"] if everyone else command)
        found.append({"kind": kind, "night": night, "events": events_of(store), **told})
        print(said(found[-1]), flush=True)
    return found


def events_of(store: EventStore) -> int:
    """Count the events of a store."""
    return sum(pq.read_metadata(shard).num_rows for shard in store.shards)


def run(command: list[str]) -> dict[str, Any]:
    """Run `weibing` as its user does, and say what it took; CPU and memory of a database's server are its own."""
    begun = time.monotonic()
    weibing = [str(Path(sys.executable).with_name("weibing")), *command, "--json", "-"]
    with subprocess.Popen(weibing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        told = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        **json.loads(told),
        "wall_seconds": time.monotonic() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def said(figures: dict[str, Any]) -> str:
    """Return figures as a line."""
    return (
        f"{figures['residents']:>9,} residents, {figures['events']:>11,} events, {figures['kind']:>10},"
        f" {figures['night']:<15} {figures['wall_seconds']:6.1f} s ({figures['cpu_seconds']:.0f} s CPU),"
        f" peak {figures['peak_gib']:.2f} GiB, {figures['scored']:,} scored, {figures['kept']:,} kept"
    )


if __name__ == "__main__":
    main()
