"""Make a synthetic county and compare its rates, each in a process of its own: see README.md beside this."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SIMULATE = """
import resource, sys, time
from pathlib import Path
from features.sources.county import simulate
started = time.perf_counter()
county = simulate(Path(sys.argv[1]), residents=int(sys.argv[2]), years=int(sys.argv[3]))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(county.events, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""
COMPARE = """
import resource, sys, time
from pathlib import Path
from features.sources.county.comparison import compare
started = time.perf_counter()
rates = compare(Path(sys.argv[1]))
usage = resource.getrusage(resource.RUSAGE_SELF)
within = sum(rate.within for rate in rates)
print(within, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def run(code: str, *arguments: object) -> dict[str, float]:
    """Run a piece of code in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    count, seconds, cpu, kilobytes = map(float, done.stdout.split())
    return {"count": count, "seconds": seconds, "cpu_seconds": cpu, "peak_gib": kilobytes / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="Where the county is made. Default: a temporary folder.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory(dir=asked.folder) as folder:
        store = Path(folder) / "county"
        figures = {"simulate": run(SIMULATE, store, asked.residents, asked.years), "compare": run(COMPARE, store)}
        size = sum(file.stat().st_size for file in store.rglob("*.parquet"))
    made, compared = figures["simulate"], figures["compare"]
    print(f"{asked.residents:,} residents, {asked.years} years: {made['count']:,.0f} events, {size / 2**30:.2f} GiB")
    for name, each in figures.items():
        print(f"{name:9} {each['seconds']:7.0f} s, {each['cpu_seconds']:7.0f} s CPU, peak {each['peak_gib']:.2f} GiB")
    print(f"{compared['count']:.0f} rates within their ranges")
    if asked.json:
        asked.json.write_text(
            json.dumps({"residents": asked.residents, "gib": size / 2**30, **figures}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
