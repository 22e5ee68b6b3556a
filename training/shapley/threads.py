"""Rows shared out among threads: compiled functions release the interpreter's lock, and each row is one thread's own.

numba's own parallel loops end the process where two run at once; these may run side by side, from any thread.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba

# Few enough that all threads end together, and enough that handing them out costs nothing.
ROWS_AT_ONCE = 1024
# As many as numba would use: the processors, or what ``NUMBA_NUM_THREADS`` says.
THREADS: int = vars(numba.config)["NUMBA_NUM_THREADS"]


def share_out(rows: int, work: Callable[[int, int], object]) -> None:
    """Call ``work(start, stop)`` until all rows are done; few rows stay on this thread."""
    if rows <= ROWS_AT_ONCE or THREADS == 1:
        work(0, rows)
        return
    starts = range(0, rows, ROWS_AT_ONCE)
    for _ in _pool().map(lambda start: work(start, min(start + ROWS_AT_ONCE, rows)), starts):
        pass


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="shapley")


# The threads of a forked process are gone, though not the pool that counts on them.
os.register_at_fork(after_in_child=_pool.cache_clear)
