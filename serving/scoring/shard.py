"""One shard of a run: read, filled, scored where anything has changed, and kept.

A resident is scored again when anything that decides the score, or that is said beside it, differs from when it was
scored last: what the model looks at (also where time alone has moved it), what was last recorded of its concepts, or
the model itself. Whoever is not scored again would be given the same score.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from meds import schema as meds
from numpy.typing import NDArray

from features.columns import Columns
from features.compiled import compiled
from features.engine import Engine
from features.errors import WeibingError
from features.kernel import ALWAYS
from features.profile import Profile
from features.remote import Store
from features.times import microseconds
from serving.drivers import Bools, Floats, Ints, Latest, Singles, choose, driver_rows
from serving.questions import Question, Rows
from serving.scoring.pieces import Piece, read_piece
from serving.scoring.run import BEFORE, DRIVERS, FRESH, KEYS, Ledger, Run, ShardScores, Tally
from serving.scoring.scorer import Scorer
from training.model import TIERS, RiskModel, grade
from training.shapley import Codes
from training.standing import BAND_YEARS

# So many drivers are kept of a score, and so many more of what has moved it since the last run; of the contributions
# of the others their sum.
DRIVERS_KEPT = 5
MOVERS_KEPT = 3
# What moves the log-odds by less is no reason that a person would look at.
MOVED = 0.05

Number = TypeVar("Number", np.int64, np.float64)

THOUSANDTHS = 1_000
MOST_THOUSANDTHS = np.iinfo(np.int16).max

# Why there is no score of those who do not want one that no person has asked for.
OPTED_OUT = "opted out of automated scoring"


class KeepingError(WeibingError):
    """What keeps the scores cannot be used, so that no other shard could be kept either."""


@dataclass(frozen=True)
class Entry:
    """A ledger, the run that it keeps now, and the one that its readers see."""

    ledger: Ledger
    run: Run
    last: Run | None


@dataclass(frozen=True)
class Job:
    """Everything that the scoring of a shard needs; it can be sent to another process.

    `now` is when the scores are said to be made (UTC), `opted_out` who is not to be scored.
    """

    store: Store
    models: Mapping[str, RiskModel]
    profile: Profile
    entries: tuple[Entry, ...]
    now: datetime
    opted_out: frozenset[int] = frozenset()

    @cached_property
    def scorer(self) -> Scorer:
        """The models made ready."""
        return Scorer(self.models, Engine(self.profile, timezone=self.store.timezone))

    @property
    def index_time(self) -> datetime:
        """When everybody is scored (UTC)."""
        return self.entries[0].run.index_time

    def __getstate__(self) -> dict[str, object]:
        """Leave behind what is made ready: it is made anew wherever the job arrives."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Read:
    """A piece as it was read: its events, and of each entry the scores of its residents in the last complete run."""

    piece: Piece
    columns: Columns
    before: tuple[pl.DataFrame, ...]
    seconds: float


def score_shard(job: Job, piece: Piece) -> Tally:
    """Score a piece and keep the scores; to do it again changes nothing.

    Raises
    ------
    KeepingError
        If a ledger cannot be used.
    WeibingError
        If the shard cannot be read.
    """
    return keep(job, score(job, read(job, piece)))


def read(job: Job, piece: Piece) -> Read:
    """Read a piece, and what was known of its residents."""
    begun = time.monotonic()
    columns = read_piece(job.store, piece)
    with _keeping():
        before = tuple(_before(entry, columns.resident) for entry in job.entries)
    return Read(piece, columns, before, time.monotonic() - begun)


def score(job: Job, told: Read) -> tuple[ShardScores, ...]:
    """Return what each entry is to keep: the scores of whom anything has changed for since its last run."""
    begun = time.monotonic() - told.seconds
    shard = _filled(job, told.columns)
    return tuple(
        _scores(job, told.piece, shard, entry, before, begun)
        for entry, before in zip(job.entries, told.before, strict=True)
    )


def keep(job: Job, scores: Sequence[ShardScores]) -> Tally:
    """Keep what there is to keep, and return the first entry's tally."""
    with _keeping():
        for entry, each in zip(job.entries, scores, strict=True):
            entry.ledger.write(entry.run, each)
    return scores[0].tally


@contextmanager
def _keeping() -> Iterator[None]:
    try:
        yield
    except WeibingError as error:
        raise KeepingError(str(error)) from error


@dataclass(frozen=True)
class _Filled:
    """A shard's residents, both shape (residents,), ascending, and the rows of those who are looked at.

    Nobody looks at `without`, who have no records before the index time, and at `opted_out`, who have: so many.
    """

    everybody: Ints
    residents: Ints
    rows: Rows
    without: int
    opted_out: int


def _filled(job: Job, columns: Columns) -> _Filled:
    """Fill the rows of a shard's residents who have records before the index time, and have not opted out."""
    is_birth = np.array([code == meds.birth_code for code, _ in columns.pairs], np.bool_)
    begun = _have_begun(columns.starts, columns.time, columns.pair, is_birth, microseconds(job.index_time))
    out = begun & np.isin(columns.resident, sorted(job.opted_out))
    residents = columns.resident[begun & ~out]
    rows = job.scorer.rows(columns, residents, job.index_time)
    return _Filled(columns.resident, residents, rows, int((~begun).sum()), int(out.sum()))


@compiled
def _have_begun(starts: Ints, when: Ints, pair: NDArray[np.int32], is_birth: Bools, index: int) -> Bools:
    """Whether each resident has a dated event before a moment, other than the birth."""
    begun = np.zeros(len(starts) - 1, np.bool_)
    for resident in range(len(begun)):
        for event in range(starts[resident], starts[resident + 1]):
            if when[event] != ALWAYS and when[event] < index and not is_birth[pair[event]]:
                begun[resident] = True
                break
    return begun


def _before(entry: Entry, residents: Ints) -> pl.DataFrame:
    if entry.last is None:
        return pl.DataFrame(schema=BEFORE)
    return entry.ledger.before(pl.Series("subject_id", residents)).sort("subject_id")


@dataclass(frozen=True)
class _Part:
    """What there is to keep of one target."""

    fresh: pl.DataFrame
    drivers: pl.DataFrame
    kept: Ints
    ended: Ints


def _scores(job: Job, piece: Piece, shard: _Filled, entry: Entry, before: pl.DataFrame, begun: float) -> ShardScores:
    """Score what has changed for every target."""
    counts: Counter[str] = Counter({"without records before it": shard.without})
    counts.update({f"not at risk: {target}, {OPTED_OUT}": shard.opted_out for target in job.scorer.questions})
    parts = {
        target: _Target(job, question, shard, entry, before.filter(target=target), counts).part()
        for target, question in job.scorer.questions.items()
    }
    over = before.filter(~pl.col("target").is_in(list(parts))).select(KEYS.names())
    kept = _keys({target: part.kept for target, part in parts.items()})
    ended = pl.concat([_keys({target: part.ended for target, part in parts.items()}), over])
    fresh, drivers = _in_order(list(parts.values()))
    again = len(fresh) - fresh["previous"].null_count()
    counts.update({"scored": len(fresh), "again": again, "kept": len(kept), "ended": len(ended)})
    told = Tally(
        piece.name, len(shard.everybody), time.monotonic() - begun, {name: of for name, of in counts.items() if of}
    )
    return ShardScores(piece.place, fresh, drivers, kept, ended.sort(KEYS.names()), told)


def _keys(residents: Mapping[str, Ints]) -> pl.DataFrame:
    frames = [
        pl.DataFrame({"subject_id": who, "target": [target] * len(who)}, KEYS) for target, who in residents.items()
    ]
    return pl.concat([pl.DataFrame(schema=KEYS), *frames]).sort(KEYS.names())


def _in_order(parts: list[_Part]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the scores of all targets sorted by resident and target, and their drivers in the same order."""
    begins = np.cumsum([0, *(len(part.fresh) for part in parts)])
    drivers = [part.drivers.with_columns(pl.col("score") + int(at)) for part, at in zip(parts, begins, strict=False)]
    fresh = pl.concat([pl.DataFrame(schema=FRESH), *(part.fresh for part in parts)])
    order = fresh.select(pl.arg_sort_by("subject_id", "target")).to_series()
    place = pl.Series(np.argsort(order.to_numpy(), kind="stable"), dtype=pl.UInt32)
    all_drivers = pl.concat([pl.DataFrame(schema=DRIVERS), *drivers])
    moved = all_drivers.with_columns(place.gather(all_drivers["score"]).alias("score"))
    return fresh[order], moved.sort("score", "position")


@dataclass(frozen=True)
class _Target:
    """One target of a shard: who is at risk, of whom anything has changed since the last run, and what is new."""

    job: Job
    question: Question
    shard: _Filled
    entry: Entry
    before: pl.DataFrame
    counts: Counter[str]

    def part(self) -> _Part:
        """Score what has changed, and count."""
        had, unchanged = self._had, self._unchanged
        fresh, drivers = self._fresh(np.flatnonzero(~unchanged))
        self._count(fresh["probability"].to_numpy(), ~unchanged)
        gone = np.setdiff1d(self.before["subject_id"].to_numpy(), self._who, assume_unique=True)
        return _Part(fresh, drivers, self._who[unchanged & (had >= 0)], gone)

    @cached_property
    def _broken(self) -> Ints:
        return self.question.broken(self.shard.rows)

    @cached_property
    def _at_risk(self) -> Ints:
        return np.flatnonzero(self._broken < 0)

    @cached_property
    def _who(self) -> Ints:
        """Who is at risk, ascending."""
        return self.shard.residents[self._at_risk]

    @cached_property
    def _columns(self) -> Singles:
        return self.question.looked_at(self.shard.rows, self._at_risk)

    @cached_property
    def _codes(self) -> Codes:
        return self.question.model.codes(self._columns)

    @cached_property
    def _latest(self) -> Latest:
        return self.shard.rows.latest.of(self._at_risk, self.question.places)

    @cached_property
    def _seen(self) -> Ints:
        """A fingerprint of everything that decides each score and what is said beside it."""
        seen, of = self.question.model.seen(self._columns, self._codes), self._latest
        filled = self.shard.rows.filled[:, self._at_risk]
        standing = (filled[self.question.age] // BAND_YEARS, filled[self.question.female])
        singles = np.column_stack([of.value, *standing]).astype(np.float32)
        mixed = np.empty(len(seen), np.int64)
        _mix(seen, np.ascontiguousarray(singles).view(np.int32), np.ascontiguousarray(of.time), mixed)
        return mixed

    @cached_property
    def _had(self) -> Ints:
        """Which row of the last run is each resident's, -1 where there is none."""
        known = self.before["subject_id"].to_numpy()
        if not len(known):
            return np.full(len(self._who), -1)
        place = np.minimum(np.searchsorted(known, self._who), len(known) - 1)
        return np.where(known[place] == self._who, place, -1)

    @cached_property
    def _unchanged(self) -> Bools:
        run, target = self.entry.run, self.question.target
        before = self.entry.last.models.get(target) if self.entry.last else None
        if before is None or run.everyone or before.digest != run.models[target].digest:
            return np.zeros(len(self._who), np.bool_)
        same = _of(self.before["seen"].to_numpy(), self._had) == self._seen
        return np.asarray((self._had >= 0) & same)

    def _fresh(self, which: Ints) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Score some of those at risk."""
        if not len(which):
            return pl.DataFrame(schema=FRESH), pl.DataFrame(schema=DRIVERS)
        question, model = self.question, self.question.model
        assessed = model.assess(
            np.ascontiguousarray(self._columns[:, which]), np.ascontiguousarray(self._codes[:, which])
        )
        thousandths = _thousandths(assessed.contributions)
        change = self._change(which, thousandths)
        movers = 0 if change is None else MOVERS_KEPT
        chosen = choose(assessed.contributions, DRIVERS_KEPT, change, movers, MOVED)
        of = Latest(self._latest.value[which], self._latest.time[which])
        columns = {
            "subject_id": self._who[which],
            "probability": assessed.probability,
            "lower": assessed.lower,
            "upper": assessed.upper,
            "tier": pl.Series(TIERS, dtype=pl.String).gather(self._tier(assessed.probability)),
            "percentile": pl.Series(
                question.percentile(self.shard.rows, self._at_risk[which], assessed.probability), nan_to_null=True
            ),
            "previous": pl.Series(self._previous(which), nan_to_null=True),
            "other": chosen.other,
            "completeness": _grades(assessed.known_gain),
            "seen": self._seen[which],
            "contributions": _as_binary(thousandths),
        }
        drivers = driver_rows(question.concepts, chosen, assessed.contributions, change, of)
        return self._with_the_same(pl.DataFrame(columns), model), drivers

    def _with_the_same(self, columns: pl.DataFrame, model: RiskModel) -> pl.DataFrame:
        """Add what is the same of all scores of the target."""
        same = {
            "target": self.question.target,
            "index_time": self.job.index_time,
            "base": model.base,
            "model_version": model.card.version,
            "synthetic": model.card.synthetic,
            "scored_at": self.job.now,
        }
        constant = [pl.lit(value, FRESH[name]).alias(name) for name, value in same.items()]
        return columns.with_columns(constant).select(pl.col(name).cast(kind) for name, kind in FRESH.items())

    def _tier(self, probability: Floats) -> Ints:
        return np.searchsorted(self.question.model.card.target.tiers, probability, side="right")

    def _previous(self, which: Ints) -> Floats:
        """The probabilities in the last run, NaN where there were none."""
        had = self._had[which]
        return np.where(had >= 0, _of(self.before["probability"].to_numpy(), had), np.nan)

    def _change(self, which: Ints, thousandths: NDArray[np.int16]) -> Floats | None:
        """By how much each contribution has changed since the last run, shape (concepts, rows); None where none had.

        NaN where nothing is known of before. Both are taken in thousandths, as they are kept.
        """
        had, last = self._had[which], self.entry.last
        if last is None or not (had >= 0).any():
            return None
        of, concepts = self.question.model.concept_names, last.models[self.question.target].concepts
        kept = np.frombuffer(b"".join(self.before["contributions"].to_list()), "<i2").reshape(-1, len(concepts))
        change = np.full(thousandths.shape, np.nan)
        for number, concept in enumerate(of):
            if concept in concepts:
                earlier = _of(kept[:, concepts.index(concept)], had)
                change[number] = np.where(
                    had >= 0, (thousandths[number] - earlier.astype(np.float64)) / THOUSANDTHS, np.nan
                )
        return change

    def _count(self, fresh: Floats, is_fresh: Bools) -> None:
        """Count tiers, who has moved from one to another, and why others are not at risk."""
        probability = np.empty(len(self._who))
        probability[is_fresh] = fresh
        had, before = self._had, self.before["probability"].to_numpy()
        probability[~is_fresh] = _of(before, had)[~is_fresh]
        tier = self._tier(probability)
        earlier = np.where(had >= 0, self._tier(_of(before, had)), tier)
        target = self.question.target
        self.counts.update({"up": int((tier > earlier).sum()), "down": int((tier < earlier).sum())})
        for name, number in zip(TIERS, np.bincount(tier, minlength=len(TIERS)).tolist(), strict=True):
            self.counts[f"tier: {target}, {name}"] += number
        outside = self._broken[self._broken >= 0]
        reasons = np.bincount(outside, minlength=len(self.question.reasons)).tolist()
        for reason, number in zip(self.question.reasons, reasons, strict=True):
            self.counts[f"not at risk: {target}, {reason}"] += number


def _of(kept: NDArray[Number], row: Ints) -> NDArray[Number]:
    """Return what was kept of rows; anything where there is no row."""
    return kept[row] if len(kept) else np.zeros(len(row), kept.dtype)


def _grades(known_gain: Floats) -> pl.Series:
    grades: list[str] = [grade(share) for share in known_gain.tolist()]
    return pl.Series(grades, dtype=pl.String)


def _thousandths(contributions: Floats) -> NDArray[np.int16]:
    return np.rint(contributions * THOUSANDTHS).clip(-MOST_THOUSANDTHS, MOST_THOUSANDTHS).astype(np.int16)


def _as_binary(thousandths: NDArray[np.int16]) -> pl.Series:
    """Return the numbers of each row of shape (concepts, rows) as bytes, the lower byte first."""
    rows = np.ascontiguousarray(thousandths.T).astype("<i2", copy=False)
    kind = pa.binary(rows.itemsize * rows.shape[1])
    packed = pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(rows)])
    return pl.Series(pl.from_arrow(packed)).cast(pl.Binary)


@compiled
def _mix(seen: Ints, singles: NDArray[np.int32], times: Ints, mixed: Ints) -> None:
    """Mix what decides a score and what is said beside it into one fingerprint a row (splitmix64's finaliser)."""
    for row in range(len(seen)):
        found = np.uint64(seen[row])
        for number in range(singles.shape[1]):
            found = _stirred(found ^ np.uint64(np.uint32(singles[row, number])))
        for number in range(times.shape[1]):
            found = _stirred(found ^ np.uint64(times[row, number]))
        mixed[row] = np.int64(found)


@compiled
def _stirred(number: np.uint64) -> np.uint64:
    number = (number + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return number ^ (number >> np.uint64(29))
