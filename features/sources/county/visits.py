"""Who comes when: check-ups, screening, follow-ups, illness.

Whether one comes depends on how readily one does, on distance and on schooling (`attendance` in `effects.csv`), so
that what is not measured says something too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from features.sources.county.hazards import linear_predictor
from features.sources.county.period import Days, Floats, Period
from features.sources.county.residents import Residents
from features.sources.county.tables import rows

# The days that part the times at each of which one comes at most once.
_EDGES: dict[str, Callable[[Period], Days]] = {
    "once": lambda period: period.years_from[:2],
    "year": lambda period: period.years_from,
    "quarter": lambda period: period.quarters_from,
}


@dataclass(frozen=True)
class Visits:
    """Visits of a kind: who came, as places in the block, and on which day; arrays of one shape."""

    kind: str
    contact: str
    who: Days
    day: Days


def visits(residents: Residents, period: Period, known: dict[str, Days], rng: Generator) -> Iterator[Visits]:
    """Draw the visits of a block of residents, kind by kind.

    Parameters
    ----------
    known : per condition that is followed up, the day from which it is
    """
    readiness = linear_predictor("attendance", residents, residents.age(np.full(len(residents), period.start)))
    for row in rows("visits"):
        who, day = _times(row, readiness, period, rng)
        age = residents.age(day, who)
        due = (age >= float(row["age_from"])) & (age < float(row["age_below"]))
        if row["who"]:
            due &= day > known[row["who"]][who]
        yield Visits(row["visit"], row["contact"], who[due], day[due])


def _times(row: dict[str, str], readiness: Floats, period: Period, rng: Generator) -> tuple[Days, Days]:
    """Draw who would come at which day: on any day of a year or quarter alike."""
    edges = _EDGES[row["every"]](period)
    share = float(row["share"])
    probability = 1 / (1 + np.exp(-(np.log(share / (1 - share)) + readiness)))
    when, who = np.nonzero(rng.random((len(edges) - 1, len(readiness))) < probability)
    day = edges[when] + np.floor(rng.random(len(when)) * np.diff(edges)[when]).astype(np.int64)
    return who, day
