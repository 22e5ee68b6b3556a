"""A run on many processes, here or on a Dask cluster: the same work on each shard as in one, and the same result.

Whoever dies over a shard loses nothing: the shard is given to another, and what had been kept of it is kept once. A
shard that takes down whoever works on it is given up, by name, and the others are scored.

A Dask cluster runs whatever it is sent. Its scheduler and workers belong behind TLS, or in a network of their own. The
processes started here listen on this machine alone, and speak with each other by keys made for the occasion.
"""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from logging import CRITICAL, getLogger
from pickle import dumps, loads
from tempfile import TemporaryDirectory
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from numba import config

from features.errors import WeibingError
from features.events import EventStore
from serving.scoring.nightly import Walk
from serving.scoring.pieces import Piece
from serving.scoring.run import Failure, Tally
from serving.scoring.shard import Job, KeepingError, score_shard
from training.machines import connected, require_alike

if TYPE_CHECKING:
    from distributed import Client, Future

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_WITHOUT_WORKERS = 60.0
# A shard that was under way when this many workers and one more died is tried alone; then it is given up.
DEATHS_FORGIVEN = 2
# Each process works on a shard of its own; more threads would only take turns. What it begins with it also leaves in
# the environment of this one, where numba does not bear it.
TO_BEGIN_WITH = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
ONCE_BEGUN = {"NUMBA_NUM_THREADS": "1"}

Told = Tally | Failure | KeepingError

_ARRIVED: dict[str, Job] = {}
_ARRIVING = Lock()


def on_cluster(address: str) -> Walk:
    """Return what scores pieces on a Dask cluster.

    Parameters
    ----------
    address : of the scheduler, such as ``tls://10.0.0.5:8786``

    Raises
    ------
    WeibingError
        Once it walks: if no scheduler answers or it has no workers, or all are lost meanwhile; if a worker does not see
        the store, or runs other versions.
    """

    def walk(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        with connected(address) as client:
            absolute = _absolute(job)
            require_alike(client, absolute.store)
            yield from _walked(client, absolute, pieces)

    return walk


def on_workers(number: int) -> Walk:
    """Return what scores pieces on so many processes of this machine, each on a processor of its own."""

    def walk(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        with _processes(number) as client:
            yield from _walked(client, job, pieces)

    return walk


def _absolute(job: Job) -> Job:
    """Return a job for workers that start elsewhere than in this folder."""
    if not isinstance(job.store, EventStore):
        return job
    return replace(job, store=replace(job.store, path=job.store.path.resolve()))


@contextmanager
def _processes(number: int) -> Iterator["Client"]:
    """Give a client of processes of this machine, which end with it."""
    # Dask takes half a second to import, and few need it.
    import dask  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    settings = {
        "distributed.nanny.pre-spawn-environ": dask.config.get("distributed.nanny.pre-spawn-environ") | TO_BEGIN_WITH,
        "distributed.worker.preload": [__name__],
        "distributed.scheduler.allowed-failures": DEATHS_FORGIVEN,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with ExitStack() as stack:
        stack.callback(_leave_only, set(os.environ))
        folder = stack.enter_context(TemporaryDirectory(prefix="weibing-workers-"))
        stack.enter_context(dask.config.set(settings))
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                env=ONCE_BEGUN,
                host="127.0.0.1",
                security=True,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                local_directory=folder,
                # A piece is cut to fit; Dask would end whoever comes near the limit.
                memory_limit=0,
            )
        )
        yield stack.enter_context(Client(cluster, set_as_default=False))


def _leave_only(names: set[str]) -> None:
    for name in set(os.environ) - names:
        del os.environ[name]


def _walked(client: "Client", job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
    """Score pieces on workers, and yield what comes of each as soon as it is known."""
    name = f"{uuid4()}"
    with warnings.catch_warnings():
        # Dask would rather scatter the job, which is lost with those who hold it; a task's result is made again.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        there = client.submit(_sent, dumps(job), key=f"job-{name}", pure=False)
    # More at once than there are threads would only be blamed for others' deaths.
    together = _Round(client, name, there, deque(pieces))
    yield from together.results()
    yield from _Round(client, name, there, together.suspects, at_most=1, last=True).results()


@dataclass
class _Round:
    """Pieces on their way through the workers, as many at once as there are threads.

    Attributes
    ----------
    at_most : so many at once
    last : whether a piece whose workers died is given up, and not a suspect
    suspects : pieces whose workers died again and again; it may have been for another piece's sake
    """

    client: "Client"
    name: str
    job: "Future[bytes]"
    waiting: deque[Piece]
    at_most: int | None = None
    last: bool = False
    under_way: dict["Future[Told]", Piece] = field(default_factory=dict)
    suspects: deque[Piece] = field(default_factory=deque)
    seen: float = field(default_factory=monotonic)

    def results(self) -> Iterator[Tally | Failure]:
        """Yield what comes of each piece that is no suspect."""
        while self.waiting or self.under_way:
            self._send()
            for future in self._ended():
                piece = self.under_way.pop(future)
                told = self._told(future, piece)
                # Else what was kept long ago would be done again when its worker dies.
                future.release()
                if told is not None:
                    yield told

    def _send(self) -> None:
        room = min(self._threads(), self.at_most or len(self.waiting) + len(self.under_way))
        while self.waiting and len(self.under_way) < room:
            piece = self.waiting.popleft()
            sent = self.client.submit(_scored, self.name, self.job, piece, key=f"score-{uuid4()}", pure=False)
            self.under_way[sent] = piece

    def _threads(self) -> int:
        """Return how many threads the workers have; wait for workers, but not for ever."""
        try:
            threads: int = sum(self.client.nthreads().values())
        except (OSError, CancelledError) as error:
            raise _lost() from error
        if threads:
            self.seen = monotonic()
        elif monotonic() - self.seen > SECONDS_WITHOUT_WORKERS:
            raise WeibingError(
                "The Dask cluster has had no workers for a minute. What they had scored is kept: see their logs, start"
                " workers, and start the run again."
            )
        return threads

    def _ended(self) -> list["Future[Told]"]:
        """Return those that have ended, after a while at the latest."""
        from distributed import wait  # noqa: PLC0415

        if not self.under_way:
            return []
        try:
            with self.client.as_current():
                return list(wait(list(self.under_way), SECONDS_BETWEEN_LOOKS, "FIRST_COMPLETED").done)
        except TimeoutError:
            return []
        except CancelledError as error:
            raise _lost() from error

    def _told(self, future: "Future[Told]", piece: Piece) -> Tally | Failure | None:
        """Return what came of a piece; nothing if it is a suspect."""
        from distributed import KilledWorker  # noqa: PLC0415

        try:
            told: Told = future.result()
        except KilledWorker:
            if self.last:
                return Failure(piece.name, f"{piece.name} ended every worker that worked on it; see the workers' logs")
            self.suspects.append(piece)
            return None
        if isinstance(told, KeepingError):
            raise told
        return told


def _lost() -> WeibingError:
    return WeibingError(
        "The Dask scheduler does not answer any more. What the workers had scored is kept: start it and the run again."
    )


def dask_setup(_: object) -> None:
    """Set up a process of this machine: Dask calls it when it has begun."""
    # What goes wrong in it is told where the run was started.
    getLogger("distributed.worker").setLevel(CRITICAL)
    # It may have been imported with this program's main module, before the environment was set.
    vars(config)["reload_config"]()


def _sent(job: bytes) -> bytes:
    """Return a job where it has arrived; runs on a worker."""
    return job


def _scored(name: str, sent: bytes, piece: Piece) -> Told:
    """Score a piece with what was made ready for the pieces before it; runs on a worker.

    What a person can mend is returned: Dask would log the traceback of what is raised.
    """
    with _ARRIVING:
        if name not in _ARRIVED:
            _ARRIVED.clear()
            _ARRIVED[name] = loads(sent)
        job = _ARRIVED[name]
        # Made ready once, also where a worker has several threads.
        _ = job.scorer
    try:
        return score_shard(job, piece)
    except KeepingError as error:
        return error
    except WeibingError as error:
        return Failure(piece.name, str(error))
