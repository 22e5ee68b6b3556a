"""What codes mean here: code → concept, unit → canonical unit, plausible range.

The tables are data (`features/concepts/*.csv`); a county may lay its own beside them with :meth:`Vocabulary.read`.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path

from features.errors import WeibingError, did_you_mean

BUILTIN = Path(__file__).with_name("concepts")
TABLES = ("concepts.csv", "codes.csv", "units.csv")

# Classifications whose codes grow to the right: an unlisted code means what its longest listed beginning means.
HIERARCHICAL = frozenset({"ICD10", "ICD9", "ATC"})

# A concept of these kinds, or with a plausible range, is a number: without a usable value there is no event of it.
NUMERIC_KINDS = frozenset({"measurement", "finding"})


@dataclass(frozen=True, slots=True)
class Concept:
    """What a code means here.

    `low` and `high` bound the plausible values in the canonical `unit` (UCUM), both ends included; minus and plus
    infinity where nothing is said.
    """

    name: str
    kind: str
    label_en: str
    label_zh: str
    unit: str
    low: float
    high: float
    modifiable: bool

    @property
    def numeric(self) -> bool:
        """Whether the concept is a number, so that an event of it without a usable value says nothing."""
        return self.kind in NUMERIC_KINDS or self.high < inf


@dataclass(frozen=True, slots=True)
class Meaning:
    """One concept that a (code, unit) pair stands for, and how its number becomes a canonical one.

    The canonical value is ``number * factor + offset``; or `value` where the code itself says it (a code for
    "female" has the value 1). `known_unit` is false where the unit is not in the table: the number is then not used.
    """

    concept: str
    factor: float = 1.0
    offset: float = 0.0
    value: float | None = None
    known_unit: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """Concepts, codes and units, with look-ups that remember their answers."""

    concepts: dict[str, Concept]
    codes: dict[str, tuple[Meaning, ...]]
    units: dict[tuple[str, str], tuple[float, float]]
    version: str
    _remembered: dict[tuple[str, str | None], tuple[Meaning, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """Read `concepts.csv`, `codes.csv` and `units.csv` from a folder.

        Raises
        ------
        WeibingError
            If a file is missing, a number is not one, or a row names an unknown concept.
        """
        concepts = {row["concept"]: _concept(row) for row in _rows(folder / "concepts.csv")}
        codes: dict[str, tuple[Meaning, ...]] = {}
        for row in _rows(folder / "codes.csv"):
            _require(row["concept"], concepts, folder / "codes.csv")
            code = f"{row['system']}//{row['code']}" if row["system"] else row["code"]
            codes[code] = (*codes.get(code, ()), Meaning(row["concept"], value=_number(row["value"])))
        units = {}
        for row in _rows(folder / "units.csv"):
            _require(row["concept"], concepts, folder / "units.csv")
            units[row["concept"], row["unit"]] = (float(row["factor"]), float(row["offset"]))
        return cls(concepts, codes, units, _fingerprint(folder))

    def concept(self, name: str) -> Concept:
        """Look a concept up by name.

        Raises
        ------
        WeibingError
            If there is none of that name.
        """
        if name not in self.concepts:
            raise WeibingError(f'There is no concept "{name}".{did_you_mean(name, list(self.concepts))}')
        return self.concepts[name]

    def meanings(self, code: str, unit: str | None = None) -> tuple[Meaning, ...]:
        """Return what a code with a unit means: no, one or several concepts.

        A missing unit means the canonical one. A concept's own name is a code too.
        """
        key = (code, unit)
        if key not in self._remembered:
            self._remembered[key] = tuple(self._in_unit(meaning, unit) for meaning in self._of_code(code))
        return self._remembered[key]

    def _of_code(self, code: str) -> tuple[Meaning, ...]:
        if code in self.codes:
            return self.codes[code]
        if code in self.concepts:
            return (Meaning(code),)
        system, _, within = code.partition("//")
        if system in HIERARCHICAL:
            for shorter in _beginnings(within):
                if f"{system}//{shorter}" in self.codes:
                    return self.codes[f"{system}//{shorter}"]
        return ()

    def _in_unit(self, meaning: Meaning, unit: str | None) -> Meaning:
        canonical = self.concepts[meaning.concept].unit
        if not unit or unit == canonical or not canonical or meaning.value is not None:
            return meaning
        if (meaning.concept, unit) not in self.units:
            return Meaning(meaning.concept, known_unit=False)
        factor, offset = self.units[meaning.concept, unit]
        return Meaning(meaning.concept, factor, offset)


@cache
def builtin() -> Vocabulary:
    """The vocabulary that Weibing ships with."""
    return Vocabulary.read(BUILTIN)


def _beginnings(code: str) -> Iterator[str]:
    """Yield ever shorter beginnings of a code, from one character less down to one character."""
    for end in range(len(code) - 1, 0, -1):
        yield code[:end].rstrip(".")


def _concept(row: dict[str, str]) -> Concept:
    low, high = _number(row["low"]), _number(row["high"])
    return Concept(
        name=row["concept"],
        kind=row["kind"],
        label_en=row["label_en"],
        label_zh=row["label_zh"],
        unit=row["unit"],
        low=-inf if low is None else low,
        high=inf if high is None else high,
        modifiable=row["modifiable"] == "1",
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise WeibingError(f"The vocabulary table {path} cannot be read: {error.strerror}.") from error


def _require(concept: str, known: Iterable[str], path: Path) -> None:
    known = list(known)
    if concept not in known:
        raise WeibingError(f'{path}: there is no concept "{concept}".{did_you_mean(concept, known)}')


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in TABLES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
