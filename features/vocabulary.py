"""What codes mean here: code → concept, unit → canonical unit, plausible range.

The tables are data (`features/concepts/*.csv`); a county may lay its own beside them with :meth:`Vocabulary.read`.
"""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
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

# The system of the codes that say what a free text mentions.
TEXT = "TEXT"
# How free text speaks of a concept; a county's own folder may lack it.
TEXTS = "texts.csv"
COLUMNS = {**TABLES, TEXTS: ("concept", "pattern", "negation")}

# Classifications whose codes grow to the right: an unlisted code means what its longest listed beginning means.
HIERARCHICAL = frozenset({"ICD10", "ICD9", "ATC"})

# Far more pairs of code and unit than a county uses; whoever sends ever new ones does not fill the memory.
MOST_REMEMBERED = 100_000

# In a negation of `texts.csv`, a mention of the concept or several in a row: ``无~`` is 无跌倒, and 无跌倒、坠床.
MENTION = "~"
# What is left of a mention that is denied, so that the words around it do not run together.
DENIED = "。"

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


@dataclass(frozen=True, slots=True)
class Mentions:
    """How free text speaks of one concept: `pattern` finds a mention, `negation` one that is denied or no event.

    Both are without look-around, so that other engines of regular expressions (Polars) read them alike.
    """

    concept: str
    pattern: str
    negation: str

    def within(self, text: str) -> bool:
        """Whether a text without blanks mentions the concept outside of every negation."""
        left = re.sub(self.negation, DENIED, text) if self.negation else text
        return re.search(self.pattern, left) is not None


@dataclass(frozen=True)
class Vocabulary:
    """Concepts, codes and units, with look-ups that remember their answers.

    `trust` holds the mark of each code whose row has one (`VP`, `VI`, `VS`, `M`, `M-`: see `docs/vocabulary.md`).
    """

    concepts: dict[str, Concept]
    codes: dict[str, tuple[Meaning, ...]]
    units: dict[tuple[str, str], tuple[float, float]]
    version: str
    texts: tuple[Mentions, ...] = ()
    trust: dict[str, str] = field(default_factory=dict)
    _remembered: dict[tuple[str, str | None], tuple[Meaning, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """Read `concepts.csv`, `codes.csv`, `units.csv` and, where there is one, `texts.csv` from a folder.

        Raises
        ------
        WeibingError
            If a file or a column is missing, a number or a pattern is not one, or a row names an unknown concept.
        """
        path = folder / "concepts.csv"
        concepts = {row["concept"]: _concept(row, path) for row in _rows(path)}
        codes: dict[str, tuple[Meaning, ...]] = {}
        trust: dict[str, str] = {}
        path = folder / "codes.csv"
        for row in _rows(path):
            _require(row["concept"], concepts, path)
            code = f"{row['system']}//{row['code']}" if row["system"] else row["code"]
            codes[code] = (*codes.get(code, ()), Meaning(row["concept"], value=_number(row, "value", None, path)))
            trust.setdefault(code, row.get("trust", ""))
        units = {}
        path = folder / "units.csv"
        for row in _rows(path):
            _require(row["concept"], concepts, path)
            units[row["concept"], row["unit"]] = (_number(row, "factor", 1.0, path), _number(row, "offset", 0.0, path))
        texts = _texts(folder / TEXTS, concepts) if (folder / TEXTS).exists() else ()
        return cls(concepts, codes, units, _fingerprint(folder), texts, trust)

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

        A missing unit means the canonical one; a unit may be spelled with other capitals, blanks or signs (``MG/DL``,
        ``kg/㎡``) than its row. A concept's own name is a code too.
        """
        found = self._remembered.get((code, unit))
        if found is None:
            found = tuple(self._in_unit(meaning, unit) for meaning in self._of_code(code))
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[code, unit] = found
        return found

    def listed(self, code: str) -> str | None:
        """Return the listed code by which a code is known: itself or, of a classification, its longest beginning."""
        if code in self.codes:
            return code
        system, _, within = code.partition("//")
        if system in HIERARCHICAL and code not in self.concepts:
            for shorter in _beginnings(within):
                if f"{system}//{shorter}" in self.codes:
                    return f"{system}//{shorter}"
        return None

    def _of_code(self, code: str) -> tuple[Meaning, ...]:
        listed = self.listed(code)
        if listed is not None:
            return self.codes[listed]
        return (Meaning(code),) if code in self.concepts else ()

    def _in_unit(self, meaning: Meaning, unit: str | None) -> Meaning:
        canonical = self.concepts[meaning.concept].unit
        if not unit or unit == canonical or not canonical or meaning.value is not None:
            return meaning
        rule = self.units.get((meaning.concept, unit)) or self._spelled.get((meaning.concept, _spelling(unit)))
        return Meaning(meaning.concept, *rule) if rule else Meaning(meaning.concept, known_unit=False)

    @cached_property
    def _spelled(self) -> dict[tuple[str, str], tuple[float, float]]:
        """The units by their spelling, but for spellings that two different ones of a concept share."""
        found: dict[tuple[str, str], set[tuple[float, float]]] = {}
        for (concept, unit), rule in self.units.items():
            found.setdefault((concept, _spelling(unit)), set()).add(rule)
        return {key: rules.pop() for key, rules in found.items() if len(rules) == 1}


@cache
def builtin() -> Vocabulary:
    """The vocabulary that Weibing ships with."""
    return Vocabulary.read(BUILTIN)


def text_concepts(text: str) -> list[str]:
    """Return the concepts that a free text mentions and does not deny, such as ``fall`` in ``如厕时滑倒``.

    A fall that is denied (``否认跌倒``), feared, prevented or only judged (``跌倒风险评估``) is none. The rules are
    `features/concepts/texts.csv`, in the order of its rows.
    """
    joined = re.sub(r"[ \t\u3000]+", "", text).replace("\n", DENIED).replace("\r", "")
    return [mentions.concept for mentions in builtin().texts if mentions.within(joined)]


def _spelling(unit: str) -> str:
    """Return a unit without what is only a way to write it: capitals, blanks, ``²`` for ``2``, ``μ`` for ``µ``."""
    return "".join(unicodedata.normalize("NFKC", unit).casefold().split())


def _beginnings(code: str) -> Iterator[str]:
    """Yield ever shorter beginnings of a code, from one character less down to one character."""
    for end in range(len(code) - 1, 0, -1):
        yield code[:end]


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


def _texts(path: Path, concepts: dict[str, Concept]) -> tuple[Mentions, ...]:
    """Read the mentions: of each concept, any of its patterns, outside of all of its negations."""
    patterns: dict[str, list[str]] = {}
    negations: dict[str, list[str]] = {}
    for row in _rows(path):
        for concept in row["concept"].split():
            _require(concept, concepts, path)
            for found, column in ((patterns, "pattern"), (negations, "negation")):
                if row[column]:
                    _require_expression(row[column], path)
                    found.setdefault(concept, []).append(row[column])
    return tuple(_mentions(concept, every, negations.get(concept, [])) for concept, every in patterns.items())


def _mentions(concept: str, patterns: list[str], negations: list[str]) -> Mentions:
    pattern = f"(?:{'|'.join(patterns)})"
    several = f"{pattern}(?:[、和及与或/]*{pattern})*"
    return Mentions(concept, pattern, "|".join(negations).replace(MENTION, several))


def _require_expression(written: str, path: Path) -> None:
    try:
        re.compile(written)
    except re.error as error:
        raise WeibingError(f'{path}: "{written}" is not a regular expression: {error}.') from error


def _number(row: dict[str, str], column: str, absent: D, path: Path) -> float | D:
    try:
        return float(row[column]) if row[column] else absent
    except ValueError as error:
        what = f'{column} "{row[column]}" of {row["concept"]}'
        raise WeibingError(f"{path}: the {what} is not a number. Write it with a point, or leave it empty.") from error


def _rows(path: Path) -> list[dict[str, str]]:
    return rows_of(path, COLUMNS[path.name], "vocabulary table")


def rows_of(path: Path, columns: Iterable[str], what: str) -> list[dict[str, str]]:
    """Read a CSV table of the program's own kind.

    Parameters
    ----------
    columns : that it must have
    what
        What to call it, such as "vocabulary table".

    Raises
    ------
    WeibingError
        If it cannot be read, is not in UTF-8, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, present = list(reader), reader.fieldnames or []
    except OSError as error:
        raise WeibingError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise WeibingError(f"The {what} {path} is not in UTF-8. Save it as UTF-8.") from error
    for column in columns:
        if column not in present:
            raise WeibingError(f'{path}: there is no column "{column}".{did_you_mean(column, list(present))}')
    return rows


def _require(concept: str, known: Iterable[str], path: Path) -> None:
    known = list(known)
    if concept not in known:
        raise WeibingError(f'{path}: there is no concept "{concept}".{did_you_mean(concept, known)}')


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in COLUMNS:
        if (folder / name).exists():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
