"""An event store on an object store or web server, read shard by shard: `s3://…`, `abfs://…`, `https://…`, `file://…`.

Whoever needs a shard gets its file whole into a scratch folder, from where it is read as from a store on a disk, and
which goes with it. Nothing is ever written there.

What is promised: of each shard the name, size and mark (the server's ETag or, where it gives none, the time of the last
change) are noted when the store is opened, and a shard that is not that any more is refused, never read. A store that
is being uploaded is not one yet: upload into a new folder, and open that.

Keys and passwords do not belong into a URL. The drivers find them where they look for them anyway: environment
variables, files of the user, the role of the machine.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from tempfile import gettempdir
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import polars as pl
from meds import schema as meds
from numpy.typing import NDArray

from features.errors import WeibingError
from features.events import SHARDS, EventStore, normalised, shard_of
from features.generation import locked_folder, remove_unless_held

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

SCRATCH = "weibing-scratch-"
SECONDS_BETWEEN_ATTEMPTS = (1.0, 4.0)
ASKED_AT_ONCE = 16
COPIED_AT_ONCE = 4
# What drivers call the mark of an object, the surest first; without regard to case, hyphens and underscores.
MARKS = ("etag", "contentmd5", "md5hash", "generation", "mtime", "lastmodified", "modificationtime", "updated")
DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class Noted:
    """A file as it was when the store was opened: its path in the store, its size, and its marks by kind."""

    path: PurePosixPath
    size: int
    marks: tuple[tuple[str, str], ...]

    def is_still(self, now: "Noted") -> bool:
        """Whether the file is what it was, by its size and the surest mark that both times were given."""
        before, after = dict(self.marks), dict(now.marks)
        both = [kind for kind in MARKS if kind in before and kind in after]
        return self.size == now.size and all(before[kind] == after[kind] for kind in both[:1])


@dataclass(frozen=True)
class RemoteStore:
    """All events of a county, elsewhere; read as :class:`features.events.EventStore` is, and never written.

    It can be pickled: another process asks the server anew, and holds it to what was noted here.
    """

    url: str
    timezone: str = "UTC"
    name: str = ""
    description: Mapping[str, Any] = field(default_factory=dict)
    shard_bits: int | None = None
    noted: tuple[Noted, ...] = ()

    @classmethod
    def open(cls, url: str) -> "RemoteStore":
        """Open a store, and note what it holds.

        Raises
        ------
        WeibingError
            If there is no such kind of place, its driver is not installed, it does not answer, it denies access, or
            no event store is there.
        """
        url = _without_secrets(url).rstrip("/")
        own, described, spread = (
            _json(url, path) for path in ("metadata/weibing.json", meds.dataset_metadata_filepath, SHARDS.as_posix())
        )
        noted = tuple(_noted(url))
        if not noted and not spread:
            raise WeibingError(f"There is no event store at {url}. Upload the whole folder of one: data and metadata.")
        return cls(
            url,
            timezone=own.get("timezone", "UTC"),
            name=described.get("dataset_name", PurePosixPath(url).name),
            description=own.get("description", {}),
            shard_bits=spread.get("shard_bits"),
            noted=noted,
        )

    @property
    def place(self) -> str:
        """Where the store is, as people know it."""
        return self.url

    @property
    def shards(self) -> list[Path]:
        """The shards, in order of name, as paths in the store; :meth:`copied` gives their files."""
        return [Path(shard.path) for shard in self.noted]

    @cached_property
    def state(self) -> str:
        """A fingerprint of what was noted: another one means other records."""
        told = [(str(shard.path), shard.size, shard.marks[:1]) for shard in self.noted]
        return sha256(json.dumps([self.timezone, self.shard_bits, told]).encode()).hexdigest()[:16]

    def read(self, shard: Path) -> pl.DataFrame:
        """Read all events of a shard, sorted by resident and time."""
        with self.copied(shard) as copy:
            return normalised(pl.read_parquet(copy, memory_map=False))

    def resident(self, subject_id: int) -> pl.DataFrame:
        """Read one resident's events; no rows where the resident is unknown. A whole shard travels for it."""
        for shard in self._shards_of(subject_id):
            with self.copied(shard) as copy:
                events = pl.scan_parquet(copy).filter(pl.col("subject_id") == subject_id).collect()
            if len(events):
                return normalised(events)
        return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))

    def residents(self) -> NDArray[np.int64]:
        """Return every resident's id, ascending, shape (residents,)."""
        # Several travel while one is looked at.
        with ThreadPoolExecutor(COPIED_AT_ONCE) as several:
            parts = list(several.map(self._residents_of, self.shards))
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    @contextmanager
    def held(self) -> Iterator["RemoteStore"]:
        """Give the store as it was when it was opened: what has changed since is refused where it is read."""
        yield self

    @contextmanager
    def copied(self, shard: Path) -> Iterator[Path]:
        """Give a shard's file, complete, in a scratch folder (`TMPDIR`, or the system's) that is removed afterwards.

        Raises
        ------
        WeibingError
            If the shard is not what it was when the store was opened; if it cannot be had.
        """
        noted = next(each for each in self.noted if each.path == PurePosixPath(shard))
        with _scratch() as folder:
            copy = folder / noted.path.name
            _attempted(f"{self.url}/{noted.path}", lambda: self._copy(noted, copy))
            yield copy

    def require_unchanged(self) -> None:
        """Require the store to be what it was when it was opened, all of it.

        Raises
        ------
        WeibingError
            If a shard has changed, has gone or has come since.
        """
        now = {shard.path: shard for shard in _noted(self.url)}
        before = {shard.path: shard for shard in self.noted}
        for path in sorted(before.keys() | now.keys()):
            if path not in now or path not in before or not before[path].is_still(now[path]):
                raise self._changed(path)

    def _copy(self, noted: Noted, copy: Path) -> None:
        system, place = _system(f"{self.url}/{noted.path}")
        try:
            system.get_file(place, str(copy))
            system.invalidate_cache()
            now = _note(_system(self.url)[1], system.info(place))
        except FileNotFoundError as error:
            if _missing(error):
                raise self._changed(noted.path) from error
            raise
        if not noted.is_still(now):
            raise self._changed(noted.path)
        if copy.stat().st_size != noted.size:
            raise OSError(f"{copy.stat().st_size:,} of {noted.size:,} bytes came")

    def _changed(self, path: PurePosixPath) -> WeibingError:
        return WeibingError(
            f"{self.url}/{path} is not what it was when the store was opened. Upload changed records into a new"
            " folder, never over a store that is being read, and start again."
        )

    def _residents_of(self, shard: Path) -> NDArray[np.int64]:
        with self.copied(shard) as copy:
            return pl.scan_parquet(copy).select("subject_id").unique().collect()["subject_id"].to_numpy()

    def _shards_of(self, subject_id: int) -> list[Path]:
        if self.shard_bits is None:
            return self.shards
        name = shard_of(subject_id, self.shard_bits)
        return [shard for shard in self.shards if shard.name == name]


Store = EventStore | RemoteStore


def open_store(where: str | Path) -> Store:
    """Open a store on a disk, by its path, or elsewhere, by its URL.

    Raises
    ------
    WeibingError
        If there is no store.
    """
    return RemoteStore.open(str(where)) if "://" in str(where) else EventStore.open(where)


@contextmanager
def on_disk(store: Store, shard: Path) -> Iterator[Path]:
    """Give the file of a shard: the store's own or, of a store elsewhere, a copy that goes afterwards."""
    if isinstance(store, EventStore):
        yield shard
        return
    with store.copied(shard) as copy:
        yield copy


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        secret = parts.password or parts.query
    except ValueError as error:
        raise WeibingError("That is not a URL. Write it as s3://bucket/folder.") from error
    if secret:
        raise WeibingError(
            f"The URL of the store at {parts.scheme}://{parts.hostname} holds a password or a query. Leave it out, and"
            " give the driver its key as an environment variable or a file: see docs/scale.md."
        )
    return url


def _system(url: str) -> tuple["AbstractFileSystem", str]:
    """Return what reads a URL, and what the URL's place is called there."""
    # A quarter of a second to import, for who has a store elsewhere.
    from fsspec.core import url_to_fs  # noqa: PLC0415

    try:
        system, place = url_to_fs(url)
    except ImportError as error:
        raise WeibingError(f"{url} needs a driver that is not installed: {error}, on every machine.") from error
    except ValueError as error:
        raise WeibingError(f"{url} is no place that can be read: {error}.") from error
    return system, place


def _json(url: str, path: str) -> dict[str, Any]:
    """Read a small file of the store; nothing where there is none."""
    text = _attempted(f"{url}/{path}", lambda: _text(f"{url}/{path}"))
    try:
        return dict(json.loads(text)) if text is not None else {}
    except ValueError as error:
        raise WeibingError(f"{url}/{path} is not JSON in UTF-8: {error}. Upload the store again.") from error


def _text(url: str) -> bytes | None:
    system, place = _system(url)
    try:
        return bytes(system.cat_file(place))
    except FileNotFoundError as error:
        if _missing(error):
            return None
        raise


def _noted(url: str) -> list[Noted]:
    """Return all shards that are there, in order of name; where a listing tells no sizes, each is asked for."""
    system, root = _system(url)
    files = _attempted(f"{url}/data", lambda: list(_files(system, f"{root}/data")))

    def note(file: dict[str, Any]) -> Noted:
        if file.get("size") is None:
            return _attempted(file["name"], lambda: _note(root, system.info(file["name"])))
        return _note(root, file)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as several:
        return sorted(several.map(note, files), key=lambda noted: noted.path)


def _files(system: "AbstractFileSystem", folder: str) -> Iterator[dict[str, Any]]:
    """Yield what a server tells of each shard below a folder; nothing where there is no such folder."""
    system.invalidate_cache()
    try:
        listed = system.ls(folder, detail=True)
    except FileNotFoundError as error:
        if not _missing(error):
            raise
        return
    # Some list the folder itself as well.
    for each in (each for each in listed if each["name"].startswith(f"{folder}/")):
        if each["type"] == "directory" and each["name"].rstrip("/") != folder:
            yield from _files(system, each["name"].rstrip("/"))
        elif each["name"].endswith(".parquet"):
            yield each


def _note(root: str, told: Mapping[str, Any]) -> Noted:
    path = PurePosixPath(told["name"].removeprefix(root).lstrip("/"))
    named = {kind.lower().replace("-", "").replace("_", ""): str(value) for kind, value in told.items() if value}
    if told.get("size") is None:
        raise WeibingError(f"The server of {told['name']} does not say how large it is. Use one that does.")
    return Noted(path, int(told["size"]), tuple((kind, named[kind]) for kind in MARKS if kind in named))


def _attempted(place: str, work: Callable[[], T]) -> T:
    """Do what needs a server, again where it fails in a way that may pass.

    Raises
    ------
    WeibingError
        If it cannot be done.
    """
    for pause in (*SECONDS_BETWEEN_ATTEMPTS, None):
        try:
            return work()
        except WeibingError:
            raise
        # Each driver has errors of its own.
        except Exception as error:
            if pause is None or _denied(error) or _full(error):
                raise _in_a_sentence(place, error) from error
            sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _in_a_sentence(place: str, error: Exception) -> WeibingError:
    if _denied(error):
        return WeibingError(
            f"Access to {place} is denied. Give the driver a key that may read it, on every machine: see docs/scale.md."
        )
    if _full(error):
        return WeibingError(f"There is no room left in {gettempdir()} for {place}. Set TMPDIR to a larger disk.")
    why = f"{type(error).__name__}: {error}".removesuffix(": ")
    return WeibingError(f"{place} cannot be read: {why}. See whether its server answers, and start again.")


def _statuses(error: BaseException | None) -> Iterator[int]:
    """Yield the HTTP statuses in an error and its causes."""
    while error is not None:
        if isinstance(status := getattr(error, "status", None), int):
            yield status
        error = error.__cause__


def _denied(error: Exception) -> bool:
    return isinstance(error, PermissionError) or any(status in DENIED for status in _statuses(error))


def _full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def _missing(error: FileNotFoundError) -> bool:
    """Whether there is no such file; over HTTP the driver says so as well where no server answers, or one refuses."""
    hidden = error.__cause__
    fault = isinstance(hidden, OSError) or type(hidden).__module__.startswith("aiohttp")
    return not fault or HTTPStatus.NOT_FOUND in _statuses(hidden)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder that nobody else can read, and remove it afterwards, and those of processes that were killed."""
    for left in Path(gettempdir()).glob(f"{SCRATCH}*"):
        # Others' are not ours to remove.
        with suppress(PermissionError):
            remove_unless_held(left)
    folder, lock = locked_folder(Path(gettempdir()), SCRATCH)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
