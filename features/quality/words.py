"""What reports say, in English and Chinese: `words.csv`, and the labels of the vocabulary."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from features.cohort import Target
from features.errors import WeibingError
from features.quality.fault import Fault
from features.vocabulary import Vocabulary

LANGUAGES = ("en", "zh")
SENTENCES = Path(__file__).with_name("words.csv")

# Fewer residents than this might be known by their neighbours.
SMALLEST_CELL = 10
HIDDEN, NO_SHARE = f"<{SMALLEST_CELL}", "–"
# The figures of faults that count residents or events, and those that are shares of them.
COUNTED = frozenset(
    {"residents", "events", "count", "first_events", "commonest_events", "several", "repeated", "usual"}
)
RESTING = frozenset({"share", "now"})


@dataclass(frozen=True)
class Words:
    """The words of one language; where it `hides` small cells, a count below ten is written as ``<10``."""

    language: str
    vocabulary: Vocabulary
    targets: tuple[Target, ...] = ()
    hides: bool = False

    @classmethod
    def of(cls, language: str, vocabulary: Vocabulary, targets: tuple[Target, ...] = ()) -> "Words":
        """Return the words of a language.

        Raises
        ------
        WeibingError
            If reports are not written in it.
        """
        if language not in LANGUAGES:
            raise WeibingError(f'There is no language "{language}". Write {" or ".join(LANGUAGES)}.')
        return cls(language, vocabulary, targets)

    def __call__(self, key: str, /, **figures: Any) -> str:
        """Return the words of a key, with figures filled in."""
        return _sentences()[key][self.language].format(**figures)

    def concept(self, name: str) -> str:
        """Return the label of a concept."""
        concept = self.vocabulary.concepts[name]
        return concept.label_zh if self.language == "zh" else concept.label_en

    def short(self, name: str) -> str:
        """Return the label of a concept without what stands in brackets behind it."""
        return re.split(r"\s*[(（]", self.concept(name))[0]

    def target(self, name: str) -> str:
        """Return the label of a target, or its name where it has none."""
        labels = {each.name: each.label_zh if self.language == "zh" else each.label_en for each in self.targets}
        return labels.get(name) or name

    def fault(self, fault: Fault) -> str:
        """Return the sentence of a fault."""
        figures = {"count": fault.count, "share": fault.share} | fault.figures
        if self.hides:
            figures = _hidden(figures)
        if "concept" in figures:
            figures["concept"] = self.concept(figures["concept"])
        if "target" in figures:
            figures["target"] = self.target(figures["target"])
        if "concepts" in figures:
            figures["concepts"] = self("separator").join(map(self.concept, figures["concepts"]))
        if "unit" in figures:
            figures["unit"] = figures["unit"] or self("no_unit")
        return self(f"fault.{fault.kind}", **figures)


def columns(text: str) -> int:
    """Return the columns that a text takes on a terminal: a Chinese character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


class Small:
    """A count below ten, or a share that rests on one, as a reader who may not see it sees it."""

    def __init__(self, written: str) -> None:
        self.written = written

    def __format__(self, specification: str) -> str:
        return self.written


def is_small(count: int) -> bool:
    """Whether a count is hidden where small cells are not shown; nobody is no small cell."""
    return 0 < count < SMALLEST_CELL


def _hidden(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures without counts below ten, and without the shares of so few residents."""
    shown = {key: Small(HIDDEN) if key in COUNTED and is_small(value) else value for key, value in figures.items()}
    if is_small(figures.get("residents", figures["count"])):
        shown |= {key: Small(NO_SHARE) for key in RESTING if key in shown}
    return shown


@cache
def _sentences() -> dict[str, dict[str, str]]:
    with SENTENCES.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}
