"""The county's figures: every rate, effect and share lies in a table beside this file, with its source and trust.

Trust: VP, verified in the primary text; VI, in independent implementations; VS, in one secondary source; M, from
memory; M-, an assumption. What is M or M- is a stage set, not a finding.
"""

import csv
import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a table, as text."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def rate(name: str) -> float:
    """Return a single figure of `rates.csv`."""
    return next(float(row["value"]) for row in rows("rates") if row["rate"] == name)


def fingerprint() -> str:
    """Return a fingerprint of all the tables, twelve hexadecimal digits: other figures make another county."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.csv")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
