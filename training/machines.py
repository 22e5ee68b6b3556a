"""A Dask cluster: how one is reached, and what is required of its workers before they are given any work."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from features.errors import WeibingError
from features.remote import RemoteStore, Store

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_ANSWER = 15
# Distributions whose versions decide what a profile, a tree and a score are.
SAME_EVERYWHERE = ("weibing", "lightgbm", "numpy", "polars")


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """Give a client of a cluster.

    Parameters
    ----------
    address : of the scheduler, such as ``tcp://10.0.0.5:8786``

    Raises
    ------
    WeibingError
        If no scheduler answers; if it wants certificates, and there are none.
    """
    # Dask takes half a second to import, and few need it.
    from distributed import Client  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    try:
        if address.startswith("tls://") and not Security().get_connection_args("client").get("ssl_context"):
            raise WeibingError(f"{address} needs certificates. Name them in Dask's configuration: see docs/scale.md.")
        client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False, name="weibing")
    except (OSError, ValueError) as error:
        raise WeibingError(
            f"No Dask scheduler answers at {address}: {error}. Start one with: dask scheduler"
        ) from error
    try:
        yield client
    finally:
        client.close()


def require_alike(client: "Client", store: Store) -> None:
    """Refuse workers that would see other records, or compute otherwise than this machine.

    Raises
    ------
    WeibingError
        Naming the worker.
    """
    # A store that is held is a folder that has just appeared: every worker must see it, and all its shards.
    ours = _seen(store)
    if isinstance(store, RemoteStore):
        ours["shards"] = store.state
    theirs = client.run(_seen, store, on_error="return")
    if not theirs:
        raise WeibingError(f"The Dask cluster at {client.scheduler.address} has no workers. Start some: dask worker")
    for worker, seen in theirs.items():
        if isinstance(seen, WeibingError):
            raise WeibingError(f"The worker {worker} cannot read the store: {seen}")
        if isinstance(seen, BaseException):
            raise seen
        if seen["shards"] != ours["shards"]:
            raise WeibingError(f"The worker {worker} does not see the store {store.place} as {_remedy(store)}")
        other = [f"{name} {seen[name]}, not {ours[name]}" for name in SAME_EVERYWHERE if seen[name] != ours[name]]
        if other:
            raise WeibingError(f"The worker {worker} runs {'; '.join(other)}. Install the same versions everywhere.")


def _remedy(store: Store) -> str:
    if isinstance(store, RemoteStore):
        return "it was when it was opened. Upload changed records into a new folder, and start again."
    return "this machine does. Put the store on a disk that all share, and mount it at the same path everywhere."


def _seen(store: Store) -> dict[str, str]:
    """Return what a machine runs, and which shards it sees."""
    return {"shards": _shards(store)} | {name: version(name) for name in SAME_EVERYWHERE}


def _shards(store: Store) -> str:
    if isinstance(store, RemoteStore):
        return RemoteStore.open(store.url).state
    shards = [f"{shard.name} {shard.stat().st_size}" for shard in sorted((store.path / "data").rglob("*.parquet"))]
    return "\n".join(shards)
