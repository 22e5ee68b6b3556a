"""Recorded events become usable events of concepts, in canonical units, with what they say together beside them.

What cannot be used (an unknown code or unit, a value outside its plausible range) is left out here, and counted when
records are taken in. Values derived from others and phenotypes are added (`finding.py`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import nan
from threading import Lock
from typing import NamedTuple

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.columns import Columns, Pairs, columns_of
from features.compiled import compiled, compiled_lean, compiled_parallel
from features.finding import (
    OF_DEFICITS,
    OF_EVIDENCE,
    OF_SOURCES,
    Rules,
    Written,
    close,
    forget,
    note,
    nothing_found,
    usable,
)
from features.kernel import ALWAYS, CHUNKS, Floats, Ints, Known, Singles, Small
from features.rules import Needed, compile_rules
from features.times import standard_offset
from features.vocabulary import Vocabulary

Pair = tuple[str, str | None]

# Far more than a county's records bear; whoever sends ever new ones does not fill the memory.
MOST_PAIRS = 4_096
# Held by whoever adds pairs; not a translator's own, which goes to other processes.
_WRITING = Lock()


class Coded(NamedTuple):
    """Events as they were recorded, of each resident sorted by time.

    `first` and `stop`, shape (residents,), say where each resident's begin and end in the others, all of shape
    (events,): `pair` says which (code, unit) pair an event bears, `time` is in microseconds or ``ALWAYS``, `number` is
    NaN where none was recorded.
    """

    first: Ints
    stop: Ints
    pair: Small
    time: Ints
    number: Singles


class Meanings(NamedTuple):
    """What each (code, unit) pair stands for.

    `starts`, shape (pairs + 1,), says where the meanings of each pair begin in `concept`, shape (meanings,), and
    `numbers`, shape (meanings, 3): factor, offset and, where the code itself says it, the value (else NaN). `room`,
    shape (pairs,), is how many usable events an event of the pair can become at most, `once` how many can be added to a
    resident's besides.
    """

    starts: Small
    concept: Small
    numbers: Floats
    room: Small
    once: int


@compiled_lean
def _canonical(number: float, numbers: Floats) -> float:
    """The value in the canonical unit, at the precision in which values are stored."""
    factor, offset, said = numbers[0], numbers[1], numbers[2]
    return float(np.float32(number * factor + offset if np.isnan(said) else said))


@compiled_lean
def _room(start: int, stop: int, coded: Coded, meanings: Meanings) -> int:
    """How many usable events the residents ``[start, stop)`` can have at most."""
    room = meanings.once * (stop - start)
    for resident in range(start, stop):
        for event in range(coded.first[resident], coded.stop[resident]):
            room += meanings.room[coded.pair[event]]
    return room


@compiled
def translate_residents(
    start: int, stop: int, coded: Coded, meanings: Meanings, rules: Rules, ends: Ints, written: Written
) -> None:
    """Write the usable events of the residents ``[start, stop)``, and where each resident's end."""
    found = nothing_found(rules)
    for resident in range(start, stop):
        forget(found)
        first, last = coded.first[resident], coded.stop[resident]
        for event in range(first, last):
            time, pair = coded.time[event], coded.pair[event]
            for meaning in range(meanings.starts[pair], meanings.starts[pair + 1]):
                concept = meanings.concept[meaning]
                value = _canonical(coded.number[event], meanings.numbers[meaning])
                if usable(value, rules.bounds[concept]):
                    note(concept, time, value, rules, found, written)
            moment_ends = event + 1 == last or coded.time[event + 1] != time
            if moment_ends and (found.flags[OF_SOURCES] or found.flags[OF_EVIDENCE] or found.flags[OF_DEFICITS]):
                close(time, rules, found, written)
        ends[resident] = written.place[0]


def translate(coded: Coded, meanings: Meanings, rules: Rules) -> Known:
    """Turn coded events into usable events of concepts, in parallel over residents."""
    loose, ends, lengths = _translate(coded, meanings, rules)
    offsets = np.append(0, np.cumsum(lengths))
    filled = offsets[-1]
    # numpy asks for large pages of memory, which are a good deal faster to write to for the first time.
    packed = Written(np.empty(filled, np.int32), np.empty(filled, np.int64), np.empty(filled, np.float32), offsets)
    return Known(_pack_all(loose, packed, ends), packed.concept, packed.time, packed.value)


@compiled_parallel
def _translate(coded: Coded, meanings: Meanings, rules: Rules) -> tuple[Written, Ints, Ints]:
    """Write the usable events of chunks of residents, each where there is room for all that there could be.

    Returns
    -------
    loose
        `place` says where each chunk begins.
    ends : shape (residents,)
        Where each resident's events end, from the chunk's beginning.
    lengths : shape (chunks,)
    """
    residents = len(coded.first)
    chunks = min(CHUNKS, residents)
    rooms, lengths = np.zeros(chunks + 1, np.int64), np.zeros(chunks, np.int64)
    ends = np.zeros(residents, np.int64)
    for chunk in numba.prange(chunks):
        start, stop = chunk * residents // chunks, (chunk + 1) * residents // chunks
        rooms[chunk + 1] = _room(start, stop, coded, meanings)
    begins = np.cumsum(rooms)
    # Room that is never written to takes no memory.
    concept, time = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.int64)
    value = np.empty(begins[-1], np.float32)
    for chunk in numba.prange(chunks):
        start, stop = chunk * residents // chunks, (chunk + 1) * residents // chunks
        here = slice(begins[chunk], begins[chunk + 1])
        written = Written(concept[here], time[here], value[here], np.zeros(1, np.int64))
        translate_residents(start, stop, coded, meanings, rules, ends, written)
        lengths[chunk] = written.place[0]
    return Written(concept, time, value, begins), ends, lengths


@compiled_parallel
def _pack_all(loose: Written, packed: Written, ends: Ints) -> Ints:
    """Close the gaps between chunks; return where each resident's events begin, shape (residents + 1,)."""
    residents, chunks = len(ends), len(packed.place) - 1
    starts = np.zeros(residents + 1, np.int64)
    for chunk in numba.prange(chunks):
        _pack(chunk, loose, packed)
        for resident in range(chunk * residents // chunks, (chunk + 1) * residents // chunks):
            starts[resident + 1] = ends[resident] + packed.place[chunk]
    return starts


@compiled_lean
def _pack(chunk: int, loose: Written, packed: Written) -> None:
    """Copy a chunk to where the one before it ends; `place` holds where each begins."""
    gap = loose.place[chunk] - packed.place[chunk]
    for event in range(packed.place[chunk], packed.place[chunk + 1]):
        packed.concept[event] = loose.concept[event + gap]
        packed.time[event] = loose.time[event + gap]
        packed.value[event] = loose.value[event + gap]


@compiled
def translate_one(coded: Coded, meanings: Meanings, rules: Rules) -> Known:
    """Turn the coded events of one resident into usable events of concepts, on this thread."""
    room = _room(0, 1, coded, meanings)
    ends = np.zeros(1, np.int64)
    written = Written(
        np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.float32), np.zeros(1, np.int64)
    )
    translate_residents(0, 1, coded, meanings, rules, ends, written)
    filled = written.place[0]
    starts = np.array([0, filled])
    return Known(starts, written.concept[:filled], written.time[:filled], written.value[:filled])


@dataclass(frozen=True)
class Book:
    """The (code, unit) pairs that a translator has met, by number, and what they stand for."""

    number: Mapping[Pair, int]
    meanings: Meanings


class Translator:
    """Turns recorded events into usable events of the wanted concepts, derived values and phenotypes among them.

    Parameters
    ----------
    concepts
        The wanted ones; `concepts` has them in the order in which they are numbered.
    vocabulary
        What codes and units mean.
    timezone
        The county's, for what is counted by days.
    """

    def __init__(self, concepts: Iterable[str], vocabulary: Vocabulary, timezone: str = "UTC") -> None:
        self._needed = Needed.by(concepts)
        self.concepts = list(self._needed.concepts[: self._needed.wanted])
        self.vocabulary = vocabulary
        self._rules = compile_rules(self._needed, vocabulary, standard_offset(timezone))
        self._room = self._needed.room()
        self._number = {concept: number for number, concept in enumerate(self._needed.concepts)}
        self._book = self._book_of([])

    def known(self, events: pl.DataFrame, residents: NDArray[np.int64]) -> Known:
        """Return the usable events of these residents, who are in ascending order, from those of a shard."""
        return self.of_columns(columns_of(events), residents)

    def of_columns(self, columns: Columns, residents: NDArray[np.int64]) -> Known:
        """Return the same from the columns of a shard."""
        place = np.searchsorted(columns.resident, residents)
        here = np.flatnonzero(place < len(columns.resident))
        here = here[columns.resident[place[here]] == residents[here]]
        first, stop = np.zeros((2, len(residents)), np.int64)
        first[here], stop[here] = columns.starts[place[here]], columns.starts[place[here] + 1]
        return translate(*self._coded(columns, first, stop), self._rules)

    def of_one(self, events: pl.DataFrame) -> Known:
        """Return the usable events of one resident."""
        columns = columns_of(events)
        coded, meanings = self._coded(columns, np.array([0]), np.array([len(events)]))
        return translate_one(coded, meanings, self._rules)

    def book(self, pairs: Collection[Pair]) -> Book:
        """Return a book in which these pairs are, for those whose events come one resident at a time.

        The translator keeps it, and numbers new pairs behind those it has met, unless these become too many.
        """
        book = self._book
        if all(pair in book.number for pair in pairs):
            return book
        with _WRITING:
            every = list(dict.fromkeys((*self._book.number, *pairs)))
            self._book = self._book_of(every if len(every) <= MOST_PAIRS else list(dict.fromkeys(pairs)))
            return self._book

    def of_pairs(self, meanings: Meanings, pair: Small, time: Ints, number: Singles) -> Known:
        """Return the usable events of one resident, whose events, in order of time, bear pairs of a book."""
        coded = Coded(np.array([0]), np.array([len(pair)]), pair, time, number)
        return translate_one(coded, meanings, self._rules)

    def frame(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the usable events of a shard as `subject_id`, `concept`, `time` (null: always) and `value`."""
        residents = events["subject_id"].unique().sort()
        known = self.known(events, residents.to_numpy())
        who = np.repeat(np.arange(len(residents)), np.diff(known.starts))
        concept = pl.Series(self.concepts, dtype=pl.Enum(self.concepts))
        return pl.DataFrame(
            {
                "subject_id": residents.gather(who),
                "concept": concept.gather(known.concept.astype(np.uint32)),
                "time": pl.Series(known.time).replace({int(ALWAYS): None}).cast(pl.Datetime("us")),
                "value": pl.Series(known.value, nan_to_null=True),
            }
        )

    def _coded(self, columns: Columns, first: Ints, stop: Ints) -> tuple[Coded, Meanings]:
        return Coded(first, stop, columns.pair, columns.time, columns.number), self._meanings(columns.pairs)

    def _book_of(self, pairs: Pairs) -> Book:
        return Book({pair: number for number, pair in enumerate(pairs)}, self._meanings(pairs))

    def _meanings(self, pairs: Pairs) -> Meanings:
        starts, concepts, numbers = [0], [], []
        for code, unit in pairs:
            for meaning in self.vocabulary.meanings(code, unit):
                if meaning.concept in self._number:
                    concepts.append(self._number[meaning.concept])
                    # A number in an unknown unit is not used.
                    factor = meaning.factor if meaning.known_unit else nan
                    numbers.append((factor, meaning.offset, nan if meaning.value is None else meaning.value))
            starts.append(len(concepts))
        room = np.append(0, np.cumsum(self._room[np.array(concepts, np.int64)]))
        return Meanings(
            starts=np.array(starts, np.int32),
            concept=np.array(concepts, np.int32),
            numbers=np.array(numbers, np.float64).reshape(-1, 3),
            room=np.diff(room[np.array(starts)]).astype(np.int32),
            once=self._needed.once,
        )
