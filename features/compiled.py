"""Functions that numba compiles to machine code, with the types that mypy sees left as they were written.

Compiled at the first call and kept on disk beside the source, so that a later process starts without the wait. They
release the interpreter's lock, so threads run them side by side.

What is kept on disk is renewed when its own source file changes, not when a compiled function of another file does that
it calls: after an edit to such a function, remove ``__pycache__``, or the caller runs the old one.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function to run on one thread."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def compiled_parallel(function: F) -> F:
    """Compile a function whose ``numba.prange`` loops run on all threads; what they write must not depend on order."""
    return cast(F, numba.njit(cache=True, nogil=True, parallel=True)(function))
