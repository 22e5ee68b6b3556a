"""Training on a Dask cluster: trees from all rows, where one machine's memory holds only a sample of them.

The cohort, the folds and the recipe are settled here, on a sample of residents that fits in memory. The workers fill
the profiles of all, shard by shard, and keep them; `lightgbm.dask` grows the trees on them, once of all rows and once
without each fold. What is measured are the sample's rows, each by the trees that saw nothing of its resident: as when
all is done on one machine.

A Dask cluster runs whatever it is sent. Its scheduler and workers belong behind TLS, or in a network of their own.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.engine import KEYS, Engine
from features.errors import WeibingError
from features.events import EventStore
from training.fit import FOLDS, Elsewhere
from training.machines import connected, require_alike
from training.sampling import lots

if TYPE_CHECKING:
    from dask.array import Array
    from dask.delayed import Delayed
    from distributed import Client, Future

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 2
# Where the cluster's machines found each other says nothing about a model.
OF_THE_NETWORK = ("[machines:", "[local_listen_port:", "[num_machines:", "[time_out:", "[num_threads:")
ONE_SHARD_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Part:
    """The rows of a shard whose outcome is known, on the worker that filled them; shape (n, …)."""

    matrix: Singles
    outcome: Floats
    weight: Floats
    fold: Ints

    def __len__(self) -> int:
        return len(self.outcome)

    def without(self, fold: int | None) -> "Part":
        """Return the rows outside a fold; all where there is none."""
        if fold is None:
            return self
        kept = self.fold != fold
        return Part(self.matrix[kept], self.outcome[kept], self.weight[kept], self.fold[kept])


def elsewhere_on(
    address: str,
    store: EventStore,
    rows: pl.DataFrame,
    sampled: Ints,
    features: tuple[str, ...],
    engine: Engine,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Elsewhere:
    """Return what grows a recipe's trees on a cluster, for :func:`training.fit.grow`.

    Parameters
    ----------
    rows : `subject_id`, `index_time`, `outcome`, `weight`
        Of the whole cohort. Those without weight teach nothing.
    sampled : shape (n,)
        Whose the rows are that the recipe is chosen on, in their order.
    """

    def grown(parameters: dict[str, object], rounds: int, fold: Ints) -> tuple[lgb.Booster, tuple[lgb.Booster, ...]]:
        folds = folds_of_all(rows["subject_id"].to_numpy(), sampled, fold, seed)
        taught = rows.with_columns(fold=folds)
        return boosters_on_cluster(address, store, taught, features, engine, parameters, rounds, progress=progress)

    return grown


def folds_of_all(person: Ints, sampled: Ints, fold: Ints, seed: int) -> Ints:
    """Return the fold of each row of a cohort: that of the sample for its persons, for all others one by lot.

    Parameters
    ----------
    person : shape (rows,)
    sampled, fold : shape (n,)
        The sample's rows: whose they are, and their folds.
    """
    persons, first = np.unique(sampled, return_index=True)
    place = np.minimum(np.searchsorted(persons, person), len(persons) - 1)
    by_lot = (lots(person, seed) * 2**20).astype(np.int64) % FOLDS
    return np.where(persons[place] == person, fold[first][place], by_lot)


def boosters_on_cluster(
    address: str,
    store: EventStore,
    rows: pl.DataFrame,
    features: tuple[str, ...],
    engine: Engine,
    parameters: dict[str, object],
    rounds: int,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[lgb.Booster, tuple[lgb.Booster, ...]]:
    """Grow trees on a Dask cluster: those of all rows, and those without each fold.

    Parameters
    ----------
    address : of the scheduler, such as ``tcp://10.0.0.5:8786``
    store : on a path that every worker sees as well
    rows : `subject_id`, `index_time`, `outcome`, `weight`, `fold`
        Those with a weight above 0 teach.
    parameters : LightGBM's

    Raises
    ------
    WeibingError
        If no scheduler answers or it has no workers; if a worker does not see the store, or runs other versions; if
        one is lost meanwhile.
    """
    # Each worker grows with as many threads as it was given.
    settings = {name: value for name, value in parameters.items() if name != "num_threads"} | {"n_estimators": rounds}
    # Else it prints to stdout, where results go.
    lgb.register_logger(getLogger("lightgbm"))
    with connected(address) as client, store.held() as still:
        # Workers start elsewhere than in this folder.
        seen = replace(still, path=still.path.resolve())
        require_alike(client, seen)
        cluster = _Cluster(client, tuple(sorted(client.nthreads())))
        return cluster.watched(partial(_all_grown, cluster, seen, rows, features, engine, settings, progress))


@dataclass(frozen=True)
class _Cluster:
    """Workers each of which is told what to do: the same shards on the same number of workers grow the same trees."""

    client: "Client"
    workers: tuple[str, ...]

    def __getattr__(self, name: str) -> object:
        """Stand in for the client, so that `lightgbm.dask` leaves the parts where they are."""
        return getattr(self.client, name)

    def worker(self, number: int) -> str:
        """Return who has a part."""
        return self.workers[number % len(self.workers)]

    def each(self, work: Callable[..., T], *arguments: Sequence[object]) -> list["Future[T]"]:
        """Have work done on each part by the worker who has it."""
        return [
            self.client.submit(work, *of, workers=[self.worker(number)], pure=False)
            for number, of in enumerate(zip(*arguments, strict=True))
        ]

    def compute(self, parts: Sequence["Delayed"]) -> list["Future[object]"]:
        """Put together each part on the worker who has it."""
        return [self.client.compute(part, workers=[self.worker(number)]) for number, part in enumerate(parts)]

    def who_has(self, parts: Sequence["Future[object]"]) -> dict[str, list[str]]:
        """Return who has each part, in their order, in which they are then joined."""
        return {part.key: [self.worker(number)] for number, part in enumerate(parts)}

    def watched(self, work: Callable[[], T]) -> T:
        """Return what work gives; where a worker is lost meanwhile, do not wait for it.

        Raises
        ------
        WeibingError
            If a worker is lost.
        """
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(work)
            while not wait([under_way], SECONDS_BETWEEN_LOOKS).done:
                if lost := sorted(set(self.workers) - set(self.client.nthreads())):
                    self.client.close()
                    raise WeibingError(
                        f"The Dask cluster lost its worker {lost[0]} while it trained. See that worker's log; where it"
                        " ran out of memory, add workers, or train on a sample, without --cluster. Then train again."
                    )
            return under_way.result()


def _all_grown(
    cluster: _Cluster,
    store: EventStore,
    rows: pl.DataFrame,
    features: tuple[str, ...],
    engine: Engine,
    settings: dict[str, object],
    progress: Callable[[str], None],
) -> tuple[lgb.Booster, tuple[lgb.Booster, ...]]:
    """Fill the profiles once, and grow trees of all rows and of those without each fold."""
    progress(f"cluster: {len(cluster.workers)} workers fill the profiles of {len(rows):,} rows")
    parts = _filled(cluster, store, rows.filter(pl.col("weight") > 0), features, engine)
    grown = []
    for fold in (None, *range(FOLDS)):
        of = "of all rows" if fold is None else f"without fold {fold + 1} of {FOLDS}"
        progress(f"cluster: growing {settings['n_estimators']} trees {of}")
        grown.append(_grown(cluster, parts, fold, features, settings))
    return grown[0], tuple(grown[1:])


def _filled(
    cluster: _Cluster, store: EventStore, rows: pl.DataFrame, features: tuple[str, ...], engine: Engine
) -> list["Future[Part]"]:
    """Have the workers fill the profiles of each shard's rows, in turn."""
    shards, theirs = zip(*_by_shard(store, rows), strict=True)
    parts = cluster.each(partial(_part, store, engine=engine, features=features), shards, theirs)
    for part in parts:
        if failed := part.exception():
            raise failed
    return parts


def _by_shard(store: EventStore, rows: pl.DataFrame) -> Iterator[tuple[Path, pl.DataFrame]]:
    """Yield the shards that hold any of the rows' residents, and their rows in the order of profiles."""
    for shard in store.shards:
        residents = pl.scan_parquet(shard).select("subject_id").unique().collect()
        theirs = rows.join(residents, on="subject_id", how="semi").sort(KEYS)
        if len(theirs):
            yield shard, theirs


def _part(store: EventStore, shard: Path, rows: pl.DataFrame, *, engine: Engine, features: tuple[str, ...]) -> Part:
    """Fill the profiles of a shard's rows; runs on a worker."""
    # The engine takes all cores of the machine: two shards at once would only take twice the memory.
    with ONE_SHARD_AT_A_TIME:
        profiles = engine.profiles(store.read(shard), rows.select(KEYS))
    matrix = np.ascontiguousarray(profiles.select(features).to_numpy())
    return Part(matrix, *(rows[name].to_numpy() for name in ("outcome", "weight", "fold")))


def _grown(
    cluster: _Cluster,
    parts: Sequence["Future[Part]"],
    fold: int | None,
    features: tuple[str, ...],
    settings: dict[str, object],
) -> lgb.Booster:
    """Grow trees on the rows outside a fold; the workers hold them twice meanwhile, and their bins."""
    kept = cluster.each(partial(Part.without, fold=fold), parts)
    rows = [count.result() for count in cluster.each(len, kept)]
    matrix, outcome, weight = (_array(kept, rows, name, len(features)) for name in ("matrix", "outcome", "weight"))
    # A classifier would number the labels of each worker by itself, wrongly where one holds no outcome.
    model = lgb.DaskLGBMRegressor(client=cluster).set_params(**settings)
    with cluster.client.as_current(), warnings.catch_warnings():
        # That the workers' threads are not for the model to choose is meant.
        warnings.filterwarnings("ignore", "Parameter n_jobs", UserWarning)
        model.fit(matrix, outcome, sample_weight=weight, feature_name=list(features))
    return lgb.Booster(model_str=_without_places(model.booster_.model_to_string()))


def _array(parts: Sequence["Future[Part]"], rows: list[int], name: str, features: int) -> "Array":
    """Return an array of the parts, each a chunk that stays on its worker."""
    from dask import array, delayed  # noqa: PLC0415

    kind = np.float32 if name == "matrix" else np.float64
    wide = (features,) if name == "matrix" else ()
    return array.concatenate(
        [
            array.from_delayed(delayed(getattr)(part, name), (number, *wide), kind)
            for part, number in zip(parts, rows, strict=True)
        ]
    )


def _without_places(text: str) -> str:
    """Return a model's text without where the machines of the cluster found each other."""
    return "\n".join(line for line in text.split("\n") if not line.startswith(OF_THE_NETWORK))
