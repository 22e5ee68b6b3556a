"""A store's data folder, replaced as a whole: who writes, who reads meanwhile, and what is left of one who was killed.

    data          what is there
    data.ready    what will be there: complete, and safe on the disk
    data.old      what was there
    .append-…     what a writer is at work on
    .read-…       what a long reader reads: the files of one moment, as hard links
    .lock         held by the writer

An append becomes visible by renaming folders. Killed before that, nothing has happened; killed between the two renames,
the next opening finishes it. What is renamed has been written to the disk before (fsync), file by file and folder by
folder, so that this holds for a loss of power as well.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import IO, TypeVar

import polars as pl

from features.errors import WeibingError

T = TypeVar("T")

APPENDING, READING = ".append-", ".read-"
# Who finds no data folder waits for the writer by the same lock, and holds it for a moment: so many seconds at most.
READERS_MOMENT = 0.5
# What comes of writing where one may not, or nobody may.
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


def swap(path: Path, new: Path) -> None:
    """Put a new data folder in the place of the old one."""
    ready, old = path / "data.ready", path / "data.old"
    _keep_all(new)
    new.rename(ready)
    keep(path)
    (path / "data").rename(old)
    ready.rename(path / "data")
    keep(path)
    shutil.rmtree(old)


def keep(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_kept(path: Path, content: str) -> None:
    """Replace a small file: after a kill or a loss of power it has the old content or the new one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(content, encoding="utf-8")
    keep(temporary)
    temporary.replace(path)
    keep(path.parent)


@contextmanager
def only_one_writer(path: Path) -> Iterator[None]:
    """Hold the store's lock; what a killed writer left is finished or cleared first.

    Raises
    ------
    WeibingError
        If another writer holds it.
    """
    with (path / ".lock").open("w") as lock:
        _lock(lock, path)
        _finish_interrupted_swap(path)
        yield


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give a folder beside the data, on the same file system, and remove it afterwards."""
    folder = Path(mkdtemp(prefix=APPENDING, dir=path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_data(path: Path) -> bool:
    """Say whether a store is at a path.

    Where its data folder is being renamed, wait for the writer, or finish in the place of one that was killed.
    """
    if (path / "data").is_dir() or not (path / ".lock").exists():
        return (path / "data").is_dir()
    with (path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _finish_interrupted_swap(path)
        return (path / "data").is_dir()


def require_store(path: Path) -> None:
    """Require a store at a path.

    Raises
    ------
    WeibingError
        If there is none.
    """
    if not has_data(path):
        raise WeibingError(f"There is no event store at {path}. Make one with: weibing ingest … {path}")


def settled(path: Path, read: Callable[[], T]) -> T:
    """Return what was read of a store's data folder, read again where an append put another in its place meanwhile."""
    while True:
        require_store(path)
        before = _generation(path)
        try:
            found = read()
        except (OSError, pl.exceptions.PolarsError):
            if before is not None and before == _generation(path):
                raise
        else:
            if before is not None and before == _generation(path):
                return found


@contextmanager
def held(path: Path) -> Iterator[Path]:
    """Give a folder with the store's files as they are at this moment, which no append changes or removes.

    They are hard links, so that they cost nothing. Who may not write into the store's folder is given the store itself.
    """
    try:
        folder, lock = settled(path, lambda: _linked(path))
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        yield path
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(lock: IO[str], path: Path) -> None:
    until = monotonic() + READERS_MOMENT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if monotonic() > until:
                raise WeibingError(f"Another ingest is writing to {path}. Wait until it has ended.") from error
            sleep(0.01)
        else:
            return


def _linked(path: Path) -> tuple[Path, int]:
    folder, lock = locked_folder(path, READING)
    try:
        shutil.copytree(path / "metadata", folder / "metadata")
        shutil.copytree(path / "data", folder / "data", copy_function=os.link)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise
    return folder, lock


def locked_folder(path: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder that nobody takes for one that a killed reader left; return it and the lock to close afterwards."""
    while True:
        folder = Path(mkdtemp(prefix=prefix, dir=path))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _finish_interrupted_swap(path: Path) -> None:
    """Finish a swap that was killed half-way; `data.ready` exists only when it is complete."""
    ready = path / "data.ready"
    if ready.is_dir() and not (path / "data").is_dir():
        ready.rename(path / "data")
    for left in (ready, path / "data.old", *path.glob(f"{APPENDING}*")):
        shutil.rmtree(left, ignore_errors=True)
    for left in path.glob(f"{READING}*"):
        remove_unless_held(left)


def remove_unless_held(folder: Path) -> None:
    """Remove a locked folder whose process was killed."""
    with suppress(FileNotFoundError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _keep_all(folder: Path) -> None:
    # A file that was linked from the old folder has been kept already; to ask again costs nothing.
    for each in [*folder.iterdir(), folder]:
        keep(each)


def _generation(path: Path) -> tuple[int, int] | None:
    """Return what tells one data folder from the next, or None while there is none."""
    try:
        folder = (path / "data").stat()
    except FileNotFoundError:
        return None
    return folder.st_ino, folder.st_mtime_ns
