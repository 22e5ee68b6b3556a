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
from features.sources.county.tables import rate, rows

# The yearly check-up of the aged, at which falls may be asked for.
CHECK_UP = "aged_examination"

# The days that part the times at each of which one comes at most once.
_EDGES: dict[str, Callable[[Period], Days]] = {
    "once": lambda period: period.years_from[:2],
    "year": lambda period: period.years_from,
    "quarter": lambda period: period.quarters_from,
}


@dataclass(frozen=True)
class Visits:
    """Visits of a kind: who came, as places in the block, and on which day; arrays of one shape.

    `missed` says who was expected and did not come, and on which day that was written down.
    """

    kind: str
    contact: str
    who: Days
    day: Days
    missed: tuple[Days, Days] | None = None


def asked_for_falls(residents: Residents, period: Period) -> Floats:
    """Return the probability that a resident old enough is asked for falls within a year."""
    row = next(row for row in rows("visits") if row["visit"] == CHECK_UP)
    return residents.habits["falls_asked"] * _probability(row, _readiness(residents, period))


def visits(residents: Residents, period: Period, known: dict[str, Days], rng: Generator) -> Iterator[Visits]:
    """Draw the visits of a block of residents, kind by kind.

    Parameters
    ----------
    known : per condition that is followed up, the day from which it is
    """
    readiness = _readiness(residents, period)
    for row in rows("visits"):
        came, who, day = _times(row, readiness, period, rng)
        age = residents.age(day, who)
        due = (age >= float(row["age_from"])) & (age < float(row["age_below"]))
        if row["who"]:
            due &= day > known[row["who"]][who]
        expected = due & ~came if row["who"] else np.zeros(len(due), bool)
        expected &= rng.random(len(due)) < rate("missed_follow_up_noted")
        yield Visits(row["visit"], row["contact"], who[due & came], day[due & came], (who[expected], day[expected]))


def _readiness(residents: Residents, period: Period) -> Floats:
    return linear_predictor("attendance", residents, residents.age(np.full(len(residents), period.start)))


def _probability(row: dict[str, str], readiness: Floats) -> Floats:
    share = float(row["share"])
    probability: Floats = 1 / (1 + np.exp(-(np.log(share / (1 - share)) + readiness)))
    return probability


def _times(
    row: dict[str, str], readiness: Floats, period: Period, rng: Generator
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Days, Days]:
    """Draw who would come at which day: on any day of a year or quarter alike; with those who do not, if followed."""
    edges = _EDGES[row["every"]](period)
    came = rng.random((len(edges) - 1, len(readiness))) < _probability(row, readiness)
    when, who = np.nonzero(came | bool(row["who"]))
    day = edges[when] + np.floor(rng.random(len(when)) * np.diff(edges)[when]).astype(np.int64)
    return came[when, who], who, day
