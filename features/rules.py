"""The declared rules, compiled: which derived values, phenotypes and deficits some concepts rest on, as arrays."""

from collections.abc import Iterable, Iterator, Sequence
from csv import DictReader
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import inf

import numpy as np

from features.derived import DERIVED, SOURCES
from features.errors import WeibingError
from features.finding import DEFICIT, MOST, SIGN, SOURCE, WRITTEN, Rules
from features.kernel import UNBOUNDED, Floats, Ints, Small
from features.phenotypes import BY_NAME, PHENOTYPES, Evidence, Phenotype, Sign, in_order
from features.times import length
from features.vocabulary import BUILTIN, Vocabulary

# What a count of deficits becomes.
TALLY = ("frailty_deficits", "frailty_assessable", "frailty_index")


@dataclass(frozen=True, slots=True)
class Deficit:
    """A row of the frailty table: a sign of a deficit (none: of nothing but that a kind of record exists)."""

    deficit: str
    sign: Sign
    recorded_in: str
    source: str


@cache
def frailty() -> tuple[Deficit, ...]:
    """Return the rows of the frailty table: 36 deficits (Clegg et al., Age Ageing 2016;45:353-360)."""
    with (BUILTIN / "frailty.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_deficit(row) for row in DictReader(file))


def _deficit(row: dict[str, str]) -> Deficit:
    sign = Sign(row["concept"], float(row["at_least"] or -inf), float(row["below"] or inf))
    return Deficit(row["deficit"], sign, row["recorded_in"], row["source"])


@cache
def moved_by(concept: str) -> dict[str, frozenset[int]]:
    """Return what a derived value, a phenotype or the count of deficits rests on, and which way each moves it.

    1: a higher value there, or another event, can raise it or make it happen; -1: it can lower it or keep it from
    happening. Both where either can be.
    """
    ways: dict[str, set[int]] = {}
    for source, directions in _rests_on(concept):
        for direction in directions:
            ways.setdefault(source, set()).add(direction)
            for further, others in moved_by(source).items():
                ways.setdefault(further, set()).update(direction * other for other in others)
    return {source: frozenset(directions) for source, directions in ways.items()}


def _rests_on(concept: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield what a concept rests on directly, and which way that moves it."""
    yield from ((source, (way,) if way else ()) for source, way in DERIVED.get(concept, {}).items())
    if concept in TALLY:
        yield from ((row.sign.concept, row.sign.directions) for row in frailty())
    for evidence in BY_NAME[concept].evidence if concept in BY_NAME else ():
        yield from ((sign.concept, sign.directions) for sign in (*evidence.signs, *evidence.beside))
        yield from ((name, (1,)) for name in evidence.given)


@dataclass(frozen=True)
class Needed:
    """What some wanted concepts rest on.

    `concepts` are the wanted ones, in order of name, and behind them the others that are needed.
    """

    concepts: tuple[str, ...]
    wanted: int
    derived: tuple[str, ...]
    phenotypes: tuple[Phenotype, ...]
    deficits: tuple[Deficit, ...]

    @classmethod
    def by(cls, concepts: Iterable[str], declared: tuple[Phenotype, ...] = PHENOTYPES) -> "Needed":
        """Find what some concepts rest on.

        Raises
        ------
        WeibingError
            If a phenotype rests on a later one.
        """
        wanted = set(concepts)
        needed, before = set(wanted), -1
        while len(needed) > before:
            before = len(needed)
            needed |= {source for name in needed & DERIVED.keys() for source in DERIVED[name]}
            needed |= {
                each for phenotype in in_order(needed, declared) for each in (phenotype.name, *phenotype.concepts)
            }
            if needed & set(TALLY):
                needed |= {*TALLY, *(row.sign.concept for row in frailty())}
        return cls(
            (*sorted(wanted), *sorted(needed - wanted)),
            len(wanted),
            tuple(name for name in DERIVED if name in needed),
            tuple(in_order(needed, declared)),
            frailty() if needed & set(TALLY) else (),
        )

    def room(self) -> Small:
        """Return how many events an event of each concept can become at most, shape (concepts,)."""
        wanted = set(self.concepts[: self.wanted])
        derived = [
            sum(concept in DERIVED[name] for name in self.derived if name in wanted) for concept in self.concepts
        ]
        recurrent = sum(phenotype.recurrent and phenotype.name in wanted for phenotype in self.phenotypes)
        resting = set[str]()
        for phenotype in self.phenotypes:
            resting.update(phenotype.concepts)
        resting |= {source for name in resting & DERIVED.keys() for source in DERIVED[name]}
        anew = [recurrent * (concept in resting) for concept in self.concepts]
        own = [concept in wanted for concept in self.concepts]
        return np.array([sum(each) for each in zip(own, derived, anew, strict=True)], np.int32)

    @property
    def once(self) -> int:
        """How many events can be added to a resident's once."""
        kinds = len({row.recorded_in for row in self.deficits})
        changes = len({row.deficit for row in self.deficits}) + kinds
        return len(self.phenotypes) + len(TALLY) * changes


def compile_rules(needed: Needed, vocabulary: Vocabulary, zone_offset: int) -> Rules:
    """Compile what is needed.

    Raises
    ------
    WeibingError
        If a rule asks for more days than can be counted.
    """
    number = {concept: place for place, concept in enumerate(needed.concepts)}
    evidence = [each for phenotype in needed.phenotypes for each in phenotype.evidence]
    known = [vocabulary.concepts[concept] for concept in needed.concepts]
    place_of = {phenotype.name: place for place, phenotype in enumerate(needed.phenotypes)}
    signs = _signs(evidence, number)
    deficits = _deficits(needed.deficits, number)
    return Rules(
        role=_roles(needed),
        bounds=np.array([(each.low, each.high, each.numeric) for each in known], np.float64).reshape(-1, 3),
        zone_offset=zone_offset,
        source=_places(needed.concepts, SOURCES),
        derived=_places(DERIVED, needed.concepts),
        sign_starts=_starts([concept for concept, _, _ in signs], len(number)),
        sign=np.array([row for _, row, _ in signs], np.int32).reshape(-1, 3),
        limits=_limits([sign for _, _, sign in signs]),
        evidence=_evidence(needed.phenotypes),
        given_starts=_offsets([len(each.given) for each in evidence]),
        given=np.array([place_of[name] for each in evidence for name in each.given], np.int32),
        evidence_starts=_offsets([len(phenotype.evidence) for phenotype in needed.phenotypes]),
        phenotype=np.array([(number[p.name], p.recurrent) for p in needed.phenotypes], np.int32).reshape(-1, 2),
        deficit_starts=_starts([concept for concept, _, _ in deficits], len(number)),
        deficit=np.array([row for _, row, _ in deficits], np.int64).reshape(-1, 2),
        deficit_limits=_limits([sign for _, _, sign in deficits]),
        assessable_in=_assessable_in(needed.deficits),
        tally=_places(TALLY, needed.concepts),
    )


Row = tuple[int, tuple[int, ...], Sign]


def _signs(evidence: Sequence[Evidence], number: dict[str, int]) -> list[Row]:
    rows = [
        (number[sign.concept], (place, which if each.distinct else 0, beside), sign)
        for place, each in enumerate(evidence)
        for beside, signs in enumerate((each.signs, each.beside))
        for which, sign in enumerate(signs)
    ]
    return sorted(rows, key=lambda row: row[:2])


def _deficits(rows: Sequence[Deficit], number: dict[str, int]) -> list[Row]:
    names, kinds = _deficit_names(rows), _kinds(rows)
    found = [
        (
            number[row.sign.concept],
            (names.index(row.deficit) if row.deficit else -1, 1 << kinds.index(row.recorded_in)),
            row.sign,
        )
        for row in rows
    ]
    return sorted(found, key=lambda row: row[:2])


def _assessable_in(rows: Sequence[Deficit]) -> Ints:
    kinds = _kinds(rows)
    bits = dict.fromkeys(_deficit_names(rows), 0)
    for row in rows:
        if row.deficit:
            bits[row.deficit] |= 1 << kinds.index(row.recorded_in)
    return np.array(list(bits.values()), np.int64)


def _deficit_names(rows: Sequence[Deficit]) -> list[str]:
    return sorted({row.deficit for row in rows} - {""})


def _kinds(rows: Sequence[Deficit]) -> list[str]:
    return sorted({row.recorded_in for row in rows})


def _roles(needed: Needed) -> Small:
    """Return what each concept is: written, a source, a sign, a row of the frailty table; as a sum of bits."""
    sources = {source for name in needed.derived for source in DERIVED[name]}
    signs = {concept for phenotype in needed.phenotypes for concept in phenotype.concepts}
    deficits = {row.sign.concept for row in needed.deficits}
    bits = ((WRITTEN, set(needed.concepts[: needed.wanted])), (SOURCE, sources), (SIGN, signs), (DEFICIT, deficits))
    return np.array([sum(bit for bit, names in bits if name in names) for name in needed.concepts], np.int32)


def _evidence(phenotypes: Sequence[Phenotype]) -> Ints:
    each_with = [(each, phenotype.recurrent) for phenotype in phenotypes for each in phenotype.evidence]
    first = _offsets([len(each.signs) if each.distinct else 0 for each, _ in each_with])
    rows = [(*_counted(each), begin, anew) for (each, anew), begin in zip(each_with, first[:-1], strict=True)]
    return np.array(rows, np.int64).reshape(-1, 7)


def _counted(evidence: Evidence) -> tuple[int, ...]:
    if evidence.times > MOST and not evidence.distinct:
        raise WeibingError(f"A rule may ask for {MOST} days at most, not {evidence.times}: {evidence}.")
    within = length(evidence.within) if evidence.within else UNBOUNDED
    apart = length(evidence.apart) if evidence.apart else 0
    return evidence.times, within, apart, evidence.distinct, bool(evidence.beside)


def _limits(signs: Sequence[Sign]) -> Floats:
    return np.array([(sign.at_least, sign.below) for sign in signs], np.float64).reshape(-1, 2)


def _places(names: Iterable[str], within: Sequence[str]) -> Small:
    """Return the place of each name in a sequence, -1 where it has none."""
    place = {name: place for place, name in enumerate(within)}
    return np.array([place.get(name, -1) for name in names], np.int32)


def _starts(numbers: Sequence[int], concepts: int) -> Small:
    return np.searchsorted(np.array(numbers, np.int64), np.arange(concepts + 1)).astype(np.int32)


def _offsets(counts: Sequence[int]) -> Small:
    return np.array(list(accumulate(counts, initial=0)), np.int32)
