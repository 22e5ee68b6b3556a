"""What the rules look at of a resident: usable events by concept, each with its local day."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import isnan, nan

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.columns import Columns, columns_of
from features.events import normalised
from features.kernel import ALWAYS, Known
from features.times import DAY, standard_offset
from features.translation import Translator
from features.vocabulary import Vocabulary

# A moment (microseconds since 1970, UTC), its day in the county (1 is the first day of the year 1), and a value.
Seen = tuple[int, int, float]

EPOCH = date(1970, 1, 1).toordinal()
# Values come in single precision: 3.9 must not be more than 3.9.
DECIMALS = 4


@dataclass(frozen=True, slots=True)
class History:
    """The usable events of a resident: those `seen` by concept, each in order of time, and what is true `always`.

    A value is NaN where an event has none.
    """

    seen: Mapping[str, Sequence[Seen]]
    always: Mapping[str, float]

    def before(self, moment: int) -> Mapping[str, Sequence[Seen]]:
        """Return what was seen before a moment (microseconds since 1970, UTC)."""
        return {
            concept: events if events[-1][0] < moment else [each for each in events if each[0] < moment]
            for concept, events in self.seen.items()
            if events[0][0] < moment
        }


class HistoryReader:
    """Turns recorded events into histories: codes, units, implausible values and phenotypes as everywhere else.

    Parameters
    ----------
    concepts
        Those that the rules look at.
    vocabulary, timezone
        As of :class:`features.engine.Engine`.
    """

    def __init__(self, concepts: Iterable[str], vocabulary: Vocabulary, timezone: str) -> None:
        self._translator = Translator(concepts, vocabulary, timezone)
        self._zone = standard_offset(timezone)

    def one(self, events: pl.DataFrame) -> History:
        """Return the history of one resident from the event store's columns; there may be no events."""
        known = self._translator.of_one(normalised(events))
        return next(self._of(known))

    def many(self, events: pl.DataFrame | Columns, residents: NDArray[np.int64]) -> Iterator[History]:
        """Yield the histories of residents, who are in ascending order, from the events of a shard."""
        columns = columns_of(normalised(events)) if isinstance(events, pl.DataFrame) else events
        return self._of(self._translator.of_columns(columns, residents))

    def _of(self, known: Known) -> Iterator[History]:
        names = self._translator.concepts
        concept, time = known.concept.tolist(), known.time.tolist()
        day = ((known.time + self._zone) // DAY + EPOCH).tolist()
        value = known.value.astype(np.float64).round(DECIMALS).tolist()
        always = int(ALWAYS)
        starts = known.starts.tolist()
        for start, stop in pairwise(starts):
            seen: dict[str, list[Seen]] = {}
            true: dict[str, float] = {}
            for event in range(start, stop):
                name = names[concept[event]]
                if time[event] == always:
                    true[name] = _greater(true.get(name, nan), value[event])
                elif name in seen:
                    seen[name].append((time[event], day[event], value[event]))
                else:
                    seen[name] = [(time[event], day[event], value[event])]
            yield History(seen, true)


def _greater(one: float, other: float) -> float:
    """Return the greater of two values, either of which may be NaN."""
    return one if isnan(other) or one > other else other
