"""The nightly run: everybody in a store, piece by piece, resumable, and seen by readers when it is complete."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256

import numpy as np
import polars as pl

from features.engine import ahead
from features.errors import WeibingError
from features.events import EventStore
from features.profile import declared
from features.remote import RemoteStore, Store
from serving.scoring.pieces import Piece, pieces_of
from serving.scoring.run import KEYS, Failure, Ledger, Run, Scored, Tally, only_ended
from serving.scoring.shard import Entry, Job, KeepingError, Read, keep, read, score
from training.model import RiskModel

Walk = Callable[[Job, Sequence[Piece]], Iterator[Tally | Failure]]

GONE = "residents who are not in the store any more"
NOT_AT_RISK = "not at risk: "
TIER = "tier: "
DEFAULT_MEMORY_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Options:
    """What may be asked of a run.

    Attributes
    ----------
    index_time : UTC
        None for now or, where a run goes on, that run's.
    everyone
        Whether those of whom nothing has changed are scored again as well.
    memory_bytes, workers
        So many bytes, for so many workers at once; decides how large a piece may be.
    walk
        Scores pieces; in this process where there is none.
    opted_out
        Who is not to be scored without a person; a score that one of them had ends.
    """

    index_time: datetime | None = None
    everyone: bool = False
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    workers: int = 1
    walk: Walk | None = None
    opted_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Night:
    """What a run did.

    Attributes
    ----------
    run : as the first ledger knows it
    residents : in the store
    seconds : that this process took; what an earlier one had done is not in it
    resumed : pieces that an earlier process had done
    counts : sums of those of :class:`Tally`
    failures : how many pieces could not be scored, by reason
    """

    run: Run
    residents: int
    seconds: float
    pieces: int
    resumed: int
    counts: Counter[str]
    failures: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON holds it."""
        return {
            "run": self.run.number,
            "index_time": self.run.index_time.isoformat(),
            "models": {target: model.version for target, model in self.run.models.items()},
            "residents": self.residents,
            "seconds": round(self.seconds, 1),
            "pieces": self.pieces,
            "resumed": self.resumed,
            **{name: self.counts[name] for name in ("scored", "kept", "ended", "up", "down")},
            "tiers": self.tiers,
            "not_at_risk": self.not_at_risk,
            "without_records": self.counts["without records before it"],
            "failures": dict(self.failures),
        }

    @property
    def tiers(self) -> dict[str, dict[str, int]]:
        """How many are in each tier, by target."""
        return self._by_target(TIER)

    @property
    def not_at_risk(self) -> dict[str, dict[str, int]]:
        """How many are not at risk, by target and reason."""
        return self._by_target(NOT_AT_RISK)

    @property
    def ended(self) -> int:
        """How many had a score before and have none now."""
        return self.counts["ended"]

    def _by_target(self, prefix: str) -> dict[str, dict[str, int]]:
        told: dict[str, dict[str, int]] = {}
        for name in sorted(name for name in self.counts if name.startswith(prefix)):
            target, what = name.removeprefix(prefix).split(", ", 1)
            told.setdefault(target, {})[what] = self.counts[name]
        return told


class IncompleteError(WeibingError):
    """Some pieces could not be scored, and the others are kept; `night` says what was done."""

    def __init__(self, night: Night) -> None:
        said = "; ".join(reason.removesuffix(".") for reason in night.failures)
        super().__init__(
            f"{sum(night.failures.values())} of {night.pieces} pieces could not be scored: {said}."
            " Readers see the last complete run; start again when this is mended, and only these are scored."
        )
        self.night = night


def night(
    store: Store,
    ledgers: Sequence[Ledger],
    models: Mapping[str, RiskModel],
    now: datetime,
    options: Options | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
    log: Callable[[dict[str, object]], None] = lambda _: None,
) -> Night:
    """Score everybody in a store who is at risk, and let readers move to the scores when all are there.

    A run that was broken off goes on where it ended, if store and models are what they were then.

    Parameters
    ----------
    log
        Is told of each piece, of each that failed, and of the run.

    Raises
    ------
    IncompleteError
        If pieces could not be scored.
    WeibingError
        If a ledger cannot be used, or nobody is at risk. In any case readers then see what they saw before.
    """
    options = options or Options()
    with store.held() as still:
        state = _state(still, options.opted_out)
        wanted = Run(0, options.index_time or now, now, state, _identities(models), options.everyone)
        pieces = pieces_of(still, options.memory_bytes, options.workers)
        entries = tuple(_entries(ledgers, wanted, pieces, options.index_time is None))
        _need_nobody_erased(still, entries)
        job = Job(still, models, declared(), entries, now, options.opted_out)
        return _Night(job, pieces, options.walk or in_this_process, progress, log).through()


def _state(store: Store, opted_out: frozenset[int]) -> str:
    """Return a fingerprint of what is to be scored: a run that was broken off goes on only where it is the same."""
    if not opted_out:
        return store.state
    return sha256(f"{store.state} {sorted(opted_out)}".encode()).hexdigest()[:16]


def _need_nobody_erased(store: Store, entries: Sequence[Entry]) -> None:
    """Give up where somebody was erased between the moment of the store that is held and the beginning of the run.

    A run that has begun before is given up by whoever erases.
    """
    if isinstance(store, EventStore) and EventStore.open(store.place).erased != store.erased:
        for entry in entries:
            entry.ledger.abandon(entry.run)
        raise WeibingError(f"Somebody was erased from {store.place} as the run began. Start it again.")


def _identities(models: Mapping[str, RiskModel]) -> dict[str, Scored]:
    return {target: Scored(model.card.version, model.digest, model.concept_names) for target, model in models.items()}


def _entries(ledgers: Sequence[Ledger], wanted: Run, pieces: Sequence[Piece], any_time: bool) -> Iterator[Entry]:
    """Let each ledger go on with a run that was broken off, or begin one; all at the index time of the first."""
    for ledger in ledgers:
        left = ledger.unfinished()
        at = replace(wanted, index_time=left.index_time) if left is not None and any_time else wanted
        if left is None or not at.continues(left) or not _same_pieces(ledger.done(left), pieces):
            left = ledger.begin(wanted)
        wanted, any_time = replace(wanted, index_time=left.index_time), False
        yield Entry(ledger, left, ledger.last())


def _same_pieces(done: Mapping[str, Tally], pieces: Sequence[Piece]) -> bool:
    return set(done) <= {GONE, *(piece.name for piece in pieces)}


@dataclass(frozen=True)
class _Night:
    """A run under way."""

    job: Job
    pieces: Sequence[Piece]
    walk: Walk
    progress: Callable[[str], None]
    log: Callable[[dict[str, object]], None]

    def through(self) -> Night:
        """Score what is left to score, and complete the run."""
        begun = time.monotonic()
        done = [entry.ledger.done(entry.run) for entry in self.job.entries]
        left = [piece for piece in self.pieces if not all(piece.name in each for each in done)]
        tallies = [done[0][piece.name] for piece in self.pieces if piece not in left]
        resumed, failures = len(tallies), Counter[str]()
        if tallies:
            self.progress(f"going on with run {self._number}: {resumed} pieces are done")
        for told in self.walk(self.job, left):
            if isinstance(told, Failure):
                failures[told.reason] += 1
                self.log({"event": "failure", "run": self._number, "shard": told.shard, "reason": told.reason})
            else:
                tallies.append(told)
                self._tell(told, tallies, resumed, time.monotonic() - begun)
        found = self._found(tallies, failures, resumed)
        self._complete(found)
        found = replace(found, seconds=time.monotonic() - begun)
        self.log({"event": "run", **found.as_dict()})
        return found

    @property
    def _number(self) -> int:
        return self.job.entries[0].run.number

    def _tell(self, tally: Tally, tallies: Sequence[Tally], resumed: int, seconds: float) -> None:
        """Say how far the run is, how fast, and how long it will still take."""
        anew = sum(each.residents for each in tallies[resumed:])
        rate = anew / max(seconds, 1e-9)
        left = seconds / (len(tallies) - resumed) * (len(self.pieces) - len(tallies))
        self.progress(
            f"scored {len(tallies)} of {len(self.pieces)} pieces, {sum(each.residents for each in tallies):,}"
            f" residents, {rate:,.0f} a second, {left:.0f} s left"
        )
        told = {"event": "shard", "run": self._number, **tally.as_dict()}
        self.log({**told, "seconds": round(tally.seconds, 3), "residents_per_second": round(rate)})

    def _found(self, tallies: Sequence[Tally], failures: Mapping[str, int], resumed: int) -> Night:
        counts: Counter[str] = Counter()
        for tally in tallies:
            counts.update(tally.counts)
        residents = sum(tally.residents for tally in tallies)
        return Night(self.job.entries[0].run, residents, 0.0, len(self.pieces), resumed, counts, failures)

    def _complete(self, found: Night) -> None:
        """Let readers move to the run, if all of it is there; count whose scores have ended by that."""
        entries, counts = self.job.entries, found.counts
        if found.failures:
            raise IncompleteError(found)
        if not counts["scored"] + counts["kept"]:
            for entry in entries:
                entry.ledger.abandon(entry.run)
            raise WeibingError(self._nobody(counts))
        if isinstance(self.job.store, RemoteStore):
            self.job.store.require_unchanged()
        gone = [self._end_those_gone(entry, counts) for entry in entries]
        counts["ended"] += gone[0]
        for entry in entries:
            entry.ledger.complete(entry.run)

    def _nobody(self, counts: Counter[str]) -> str:
        reasons = {name.removeprefix(NOT_AT_RISK): number for name, number in counts.items() if number}
        found = "; ".join(f"{reason} {number:,}" for reason, number in reasons.items()) or "no residents"
        day = f"{self.job.index_time:%Y-%m-%d}"
        return f"Nobody in {self.job.store.place} is at risk at {day}: {found}. Choose another date with --at."

    def _end_those_gone(self, entry: Entry, counts: Counter[str]) -> int:
        """End the scores of residents who have left the store altogether; return how many."""
        if entry.last is None:
            return 0
        # What is counted is the first ledger's; another may have seen another run last.
        met = counts["again"] + counts["kept"] + counts["ended"]
        if entry is self.job.entries[0] and entry.ledger.size() == met:
            return 0
        before = entry.ledger.residents()
        there = np.isin(before["subject_id"].to_numpy(), self.job.store.residents())
        gone = before.filter(pl.Series(~there)).select(KEYS.names()).sort(KEYS.names())
        if len(gone):
            tally = Tally(GONE, 0, 0.0, {"ended": len(gone)})
            entry.ledger.write(entry.run, only_ended(len(self.pieces), gone, tally))
        return len(gone)


def in_this_process(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
    """Score pieces on all processors: one is read and another kept while one is worked on."""
    with ThreadPoolExecutor(1) as keeper:
        keeping: Future[Tally] | None = None
        for told in ahead(map(partial(_read, job), pieces)):
            if isinstance(told, Failure):
                yield told
                continue
            scores = score(job, told)
            if keeping is not None:
                yield keeping.result()
            keeping = keeper.submit(keep, job, scores)
        if keeping is not None:
            yield keeping.result()


def _read(job: Job, piece: Piece) -> Read | Failure:
    try:
        return read(job, piece)
    except KeepingError:
        raise
    except WeibingError as error:
        return Failure(piece.name, str(error))
