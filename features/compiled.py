"""Functions that numba compiles to machine code, with the types that mypy sees left as they were written.

Compiled at the first call and kept on disk, so that a later process starts without the wait. They release the
interpreter's lock, so threads run them side by side.

numba keeps a compiled function until its own file changes, although it may call functions and hold constants of other
files. Weibing's are therefore kept in a folder named after the sources of all of them and of what they import: a change
in any compiles all afresh.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

# numba's own name for "count no references"; its stubs leave it out.
LEAN: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}

PACKAGES = ("features", "training", "serving")

_IMPORT = re.compile(rf"^from ((?:{'|'.join(PACKAGES)})[\w.]*) import", re.MULTILINE)


def compiled(function: F) -> F:
    """Compile a function to run on one thread."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def compiled_lean(function: F) -> F:
    """Compile a function to run on one thread that borrows its arrays: it may use those it is given, and make none.

    Without this, numba counts a reference for every array that a function or a tuple is handed, which costs more than a
    short function does.
    """
    return cast(F, numba.njit(**LEAN)(function))


def compiled_within(function: F) -> F:
    """Compile a function into those that call it, as :func:`compiled_lean`: for what is handed more than it does."""
    return cast(F, numba.njit(**LEAN, forceinline=True)(function))


def compiled_parallel(function: F) -> F:
    """Compile a function whose ``numba.prange`` loops run on all threads; what they write must not depend on order."""
    return cast(F, numba.njit(cache=True, nogil=True, parallel=True)(function))


def sources_digest(root: Path) -> str:
    """Return a fingerprint of the source files below `root` that hold compiled functions, and of what these import."""
    digest = hashlib.sha256()
    for path in sorted(set(_compiled_sources(root))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compiled_sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "features.compiled" in text:
                yield path
                imported = (root / (name.replace(".", "/") + ".py") for name in _IMPORT.findall(text))
                yield from filter(Path.is_file, imported)


def _keep_compiled(root: Path) -> None:
    """Keep compiled functions beside the sources, or in the user's cache where those cannot be written to."""
    beside = root / "features" / "__pycache__"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weibing"
    folder = beside if os.access(beside if beside.exists() else beside.parent, os.W_OK) else cache
    vars(numba.config)["CACHE_DIR"] = str(folder / f"compiled-{sources_digest(root)}")


if "NUMBA_CACHE_DIR" not in os.environ:
    _keep_compiled(Path(__file__).parent.parent)
