"""A run: everyone's scores at one index time, and what passes between those who score and those who keep the scores.

A run is done shard by shard. Of each shard a ledger takes what is new whole or not at all, and readers see the last
complete run until the next one is complete.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Protocol

import polars as pl
from pydantic import TypeAdapter

FRESH = pl.Schema(
    {
        "subject_id": pl.Int64(),
        "target": pl.String(),
        "index_time": pl.Datetime("us"),
        "probability": pl.Float64(),
        "lower": pl.Float64(),
        "upper": pl.Float64(),
        "tier": pl.String(),
        "percentile": pl.Float64(),
        "previous": pl.Float64(),
        "base": pl.Float64(),
        "other": pl.Float64(),
        "completeness": pl.String(),
        "model_version": pl.String(),
        "synthetic": pl.Boolean(),
        "scored_at": pl.Datetime("us"),
        "seen": pl.Int64(),
        "contributions": pl.Binary(),
    }
)
DRIVERS = pl.Schema(
    {
        "score": pl.UInt32(),
        "position": pl.Int16(),
        "concept": pl.String(),
        "contribution": pl.Float64(),
        "change": pl.Float64(),
        "value": pl.Float32(),
        "unit": pl.String(),
        "date": pl.Datetime("us"),
    }
)
KEYS = pl.Schema({"subject_id": pl.Int64(), "target": pl.String()})
BEFORE = pl.Schema({name: FRESH[name] for name in ("subject_id", "target", "probability", "seen", "contributions")})


@dataclass(frozen=True)
class Scored:
    """A model of a run: what identifies it, and the concepts in the order of what is kept per concept."""

    version: str
    digest: str
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One scoring of everybody.

    Attributes
    ----------
    number : ascending; 0 until a ledger has given it
    index_time, started_at : UTC
    store : fingerprint of the store's state
    models : by target
    everyone : whether those of whom nothing has changed are scored again too
    """

    number: int
    index_time: datetime
    started_at: datetime
    store: str
    models: Mapping[str, Scored]
    everyone: bool = False

    def continues(self, other: "Run") -> bool:
        """Whether what has been done of the other run is part of this one as well."""
        return replace(self, number=0, started_at=other.started_at) == replace(other, number=0)

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """Read it from JSON.

        Raises
        ------
        ValueError
            If it is not a run.
        """
        return TypeAdapter(cls).validate_json(text)


@dataclass(frozen=True)
class Tally:
    """What was done of a shard.

    `counts` says how many were ``scored``, of these ``again``, as they had a score before, how many were ``kept`` as
    nothing had changed, and ``ended``; how many moved ``up`` and ``down`` a tier; how many there are of each
    ``tier: target, …``; and how many are ``not at risk: target, …``, by reason.
    """

    shard: str
    residents: int
    seconds: float
    counts: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, object]) -> "Tally":
        """Make it of what JSON holds."""
        return TypeAdapter(cls).validate_python(told)


@dataclass(frozen=True)
class Failure:
    """A shard that could not be scored, and why."""

    shard: str
    reason: str


@dataclass(frozen=True)
class ShardScores:
    """What a ledger keeps of a shard.

    Attributes
    ----------
    place : of the shard in the run, from 0
    fresh : ``FRESH``, sorted by resident and target
        `previous` is the probability in the last complete run; `seen` is a fingerprint of all that the score depends
        on; `contributions` are those of each concept of :class:`Scored`, as 16-bit thousandths of the log-odds.
    drivers : ``DRIVERS``, sorted by score and position; `score` is a row of `fresh`
    kept : ``KEYS``
        Who had a score in the last run of which nothing has changed.
    ended : ``KEYS``
        Who had a score in the last run and has none in this one.
    """

    place: int
    fresh: pl.DataFrame
    drivers: pl.DataFrame
    kept: pl.DataFrame
    ended: pl.DataFrame
    tally: Tally


class Ledger(Protocol):
    """Where the scores of runs are kept. It can be pickled, and opens its files or connections where it is used."""

    def last(self) -> Run | None:
        """Return the last complete run: the one that readers see."""

    def unfinished(self) -> Run | None:
        """Return the run that was begun and is neither complete nor abandoned."""

    def begin(self, run: Run) -> Run:
        """Begin a run, and return it with its number; an unfinished one is abandoned, and what it wrote goes."""

    def abandon(self, run: Run) -> None:
        """Give a run up; what it wrote goes."""

    def done(self, run: Run) -> dict[str, Tally]:
        """Return what has been done of a run, by shard."""

    def before(self, residents: pl.Series) -> pl.DataFrame:
        """Return the scores of residents in the last complete run, as ``BEFORE``."""

    def size(self) -> int:
        """Return how many scores the last complete run has."""

    def residents(self) -> pl.DataFrame:
        """Return who has a score in the last complete run, as ``KEYS``."""

    def write(self, run: Run, scores: ShardScores) -> None:
        """Keep what a shard holds, all of it or nothing; a shard that was written already is left as it is."""

    def complete(self, run: Run) -> None:
        """Let readers move to the run, at once."""


def only_ended(place: int, ended: pl.DataFrame, tally: Tally) -> ShardScores:
    """Return what there is to keep where nobody is scored, and some have no score any more."""
    fresh, drivers, kept = (pl.DataFrame(schema=schema) for schema in (FRESH, DRIVERS, KEYS))
    return ShardScores(place, fresh, drivers, kept, ended, tally)
