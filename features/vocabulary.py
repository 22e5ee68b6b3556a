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
from typing import TypeVar

from features.errors import WeibingError, did_you_mean

D = TypeVar("D")

BUILTIN = Path(__file__).with_name("concepts")

# The tables and the columns that each must have; any others are for the reader.
TABLES = {
    "concepts.csv": ("concept", "kind", "label_en", "label_zh", "unit", "low", "high", "modifiable"),
    "codes.csv": ("system", "code", "concept", "value"),
    "units.csv": ("concept", "unit", "factor", "offset"),
}

# Classifications whose codes grow to the right: an unlisted code means what its longest listed beginning means.
HIERARCHICAL = frozenset({"ICD10", "ICD9", "ATC"})

# Far more pairs of code and unit than a county uses; whoever sends ever new ones does not fill the memory.
MOST_REMEMBERED = 100_000

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
            If a file or a column is missing, a number is not one, or a row names an unknown concept.
        """
        path = folder / "concepts.csv"
        concepts = {row["concept"]: _concept(row, path) for row in _rows(path)}
        codes: dict[str, tuple[Meaning, ...]] = {}
        path = folder / "codes.csv"
        for row in _rows(path):
            _require(row["concept"], concepts, path)
            code = f"{row['system']}//{row['code']}" if row["system"] else row["code"]
            codes[code] = (*codes.get(code, ()), Meaning(row["concept"], value=_number(row, "value", None, path)))
        units = {}
        path = folder / "units.csv"
        for row in _rows(path):
            _require(row["concept"], concepts, path)
            units[row["concept"], row["unit"]] = (_number(row, "factor", 1.0, path), _number(row, "offset", 0.0, path))
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
        found = self._remembered.get((code, unit))
        if found is None:
            found = tuple(self._in_unit(meaning, unit) for meaning in self._of_code(code))
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[code, unit] = found
        return found

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


def _concept(row: dict[str, str], path: Path) -> Concept:
    return Concept(
        name=row["concept"],
        kind=row["kind"],
        label_en=row["label_en"],
        label_zh=row["label_zh"],
        unit=row["unit"],
        low=_number(row, "low", -inf, path),
        high=_number(row, "high", inf, path),
        modifiable=row["modifiable"] == "1",
    )


def _number(row: dict[str, str], column: str, absent: D, path: Path) -> float | D:
    try:
        return float(row[column]) if row[column] else absent
    except ValueError as error:
        what = f'{column} "{row[column]}" of {row["concept"]}'
        raise WeibingError(f"{path}: the {what} is not a number. Write it with a point, or leave it empty.") from error


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), reader.fieldnames or []
    except OSError as error:
        raise WeibingError(f"The vocabulary table {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise WeibingError(f"The vocabulary table {path} is not in UTF-8. Save it as UTF-8.") from error
    for column in TABLES[path.name]:
        if column not in columns:
            raise WeibingError(f'{path}: there is no column "{column}".{did_you_mean(column, list(columns))}')
    return rows


def _require(concept: str, known: Iterable[str], path: Path) -> None:
    known = list(known)
    if concept not in known:
        raise WeibingError(f'{path}: there is no concept "{concept}".{did_you_mean(concept, known)}')


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in TABLES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
