"""Trees of several folds, grown side by side until their mean log-loss has long stopped falling.

Each fold has one thread at a time: LightGBM's own threads wait for each other at every split. No fold waits for the
slowest, and none runs far ahead of it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Condition

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_TREES = 600
PATIENCE = 40
# Trees that are grown between two looks at the log-loss, and by how many looks a fold may be ahead of the slowest.
AT_A_TIME = 10
MOST_AHEAD = 3


def grow_side_by_side(boosters: list[lgb.Booster]) -> Floats:
    """Grow the trees of each fold; each booster has its held-out rows, and the log-loss as its metric.

    How far to grow depends on the trees alone, not on which thread was the faster.

    Returns
    -------
    shape (folds, trees), the log-loss on the held-out rows after each tree
    """
    race = _Race(boosters)
    threads = min(os.cpu_count() or 1, len(boosters))
    with ThreadPoolExecutor(threads, initializer=quieten) as pool:
        for runner in [pool.submit(race.run) for _ in range(threads)]:
            runner.result()
    return race.losses()


class _Race:
    """Who grows next, and whether all have grown enough."""

    def __init__(self, boosters: list[lgb.Booster]) -> None:
        self._boosters = boosters
        self._losses: list[list[float]] = [[] for _ in boosters]
        self._busy: set[int] = set()
        self._turn = Condition()
        self._enough: int | None = None

    def run(self) -> None:
        """Grow whoever is furthest behind, until all have grown enough or one cannot."""
        while (fold := self._next()) is not None:
            grown: list[float] | None = None
            try:
                grown = _some_trees_more(self._boosters[fold])
            finally:
                self._done(fold, grown)

    def losses(self) -> Floats:
        return np.array([losses[: self._enough] for losses in self._losses])

    def _next(self) -> int | None:
        with self._turn:
            while self._enough is None:
                behind = min(map(len, self._losses))
                free = [
                    (len(losses), fold)
                    for fold, losses in enumerate(self._losses)
                    if fold not in self._busy and len(losses) <= min(behind + MOST_AHEAD * AT_A_TIME, MOST_TREES - 1)
                ]
                if free:
                    self._busy.add(min(free)[1])
                    return min(free)[1]
                self._turn.wait()
            return None

    def _done(self, fold: int, grown: list[float] | None) -> None:
        with self._turn:
            self._busy.discard(fold)
            before = min(map(len, self._losses))
            self._losses[fold] += grown or []
            after = min(map(len, self._losses))
            if grown is None:
                self._enough = before
            elif self._enough is None and after > before and not self._still_falling(after):
                self._enough = after
            self._turn.notify_all()

    def _still_falling(self, trees: int) -> bool:
        return still_falling(np.mean([losses[:trees] for losses in self._losses], axis=0))


def still_falling(log_loss: Floats) -> bool:
    """Whether more trees could still lower the mean log-loss of the folds, given that after each tree so far."""
    return len(log_loss) < MOST_TREES and len(log_loss) - 1 - int(log_loss.argmin()) < PATIENCE


def _some_trees_more(booster: lgb.Booster) -> list[float]:
    """Grow trees; return the log-loss on the fold that was held out after each."""
    losses = []
    for _ in range(AT_A_TIME):
        booster.update()
        losses.append(float(booster.eval_valid()[0][2]))
    return losses


def quieten() -> None:
    """Let LightGBM write nothing to stdout from this thread; it keeps its verbosity by thread."""
    lgb.Dataset(np.zeros((2, 1)), params={"verbosity": -1}).construct()
