"""Make a CSV of a given size, take it in, and say how long it took and how much memory: see README.md beside this."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

MAPPING = """
timezone = "Asia/Shanghai"

[[table]]
file = "*.csv"
resident = "id"
time = { column = "day" }
birth = { column = "born" }
sex = { column = "sex", female = "F", male = "M" }
value = [
    { column = "sbp", code = "sbp", unit = "mmHg" },
    { column = "dbp", code = "dbp", unit = "mmHg" },
    { column = "fpg", code = "glucose_fasting", unit = "mmol/L" },
    { column = "creatinine", code = "creatinine", unit = "umol/L" },
]

[[table.code]]
column = "diagnoses"
system = "ICD10"
separator = ";"
"""
ROWS_AT_ONCE = 500_000
NOTES = "examined at the township hospital, no complaints, advised to eat less salt and to come again in a year"


def rows(rng: np.random.Generator, number: int, residents: int) -> pl.DataFrame:
    """Draw rows as a check-up export has them: some columns that are used, and some that are not."""
    resident = rng.integers(1, residents, number)
    day = pl.Series(rng.integers(0, 3_000, number)).cast(pl.Int32)
    return pl.DataFrame(
        {
            "id": resident,
            "day": pl.select(pl.date(2015, 1, 1) + pl.duration(days=day)).to_series(),
            "born": pl.select(pl.date(1930, 1, 1) + pl.duration(days=pl.Series(resident % 25_000))).to_series(),
            "sex": np.where(resident % 2 == 0, "F", "M"),
            "sbp": rng.normal(130, 15, number).round(),
            "dbp": rng.normal(80, 10, number).round(),
            "fpg": rng.normal(5.6, 1, number).round(1),
            "creatinine": rng.normal(75, 15, number).round(1),
            "diagnoses": rng.choice(["I10", "E11.9;I10", "", "", "M81"], number),
            "doctor": rng.integers(1, 500, number),
            "notes": np.repeat(NOTES, number),
        }
    )


def write_csv(path: Path, gigabytes: float) -> int:
    """Write a CSV of about that size; return its rows."""
    rng = np.random.default_rng(0)
    residents = int(gigabytes * 200_000) + 1_000
    written = 0
    with path.open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            rows(rng, ROWS_AT_ONCE, residents).write_csv(file, include_header=written == 0)
            written += ROWS_AT_ONCE
    return written


def take_in(folder: Path) -> dict[str, float]:
    """Take the CSV in, in a process of its own, so that its memory is its own."""
    code = (
        "import resource, sys; from pathlib import Path; from features.sources.table import ingest_tables;"
        "folder = Path(sys.argv[1]);"
        "found = ingest_tables([folder / 'big.csv'], folder / 'store', folder / 'mapping.toml');"
        "print(found.events_written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
    events, kibibytes = map(int, done.stdout.split())
    return {"seconds": time.perf_counter() - started, "events": events, "peak_gib": kibibytes / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        written = write_csv(folder / "big.csv", chosen.gigabytes)
        (folder / "mapping.toml").write_text(MAPPING, encoding="utf-8")
        size = (folder / "big.csv").stat().st_size
        figures = {"bytes": size, "rows": written, **take_in(folder)}
    print(f"{size / 1e9:.2f} GB, {written:,} rows, {figures['events']:,} events")
    rate = written / figures["seconds"]
    print(f"{figures['seconds']:.0f} s, {rate:,.0f} rows a second, peak {figures['peak_gib']:.2f} GiB")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
