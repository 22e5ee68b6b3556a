"""What is wrong with the records, one thing at a time, so that the worst can be read first."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Level(IntEnum):
    """How bad a fault is: records that cannot be true, that are hardly true, or that one should know of."""

    WRONG = 0
    SUSPICIOUS = 1
    NOTE = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its `kind` is a row of `words.csv`, whose sentence has the `figures`.

    `share` is how much of what could be wrong is so, from 0 to 1; `count` is how many times.
    """

    level: Level
    kind: str
    share: float
    count: int
    figures: dict[str, Any]

    @property
    def rank(self) -> tuple[int, float, int, str]:
        """The order in which faults are read: the worst first."""
        return self.level, -self.share, -self.count, f"{self.kind} {sorted(map(str, self.figures.values()))}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as JSON can hold it."""
        return {
            "level": self.level.name.lower(),
            "kind": self.kind,
            "share": round(self.share, 4),
            "count": self.count,
            **self.figures,
        }
