"""What the report says, in English and Chinese: its tables of words, and the labels of the vocabulary."""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from features.errors import WeibingError
from features.measures import Measure
from features.phenotypes import BY_NAME, Evidence, Sign
from features.profile import PROFILE
from features.vocabulary import builtin
from training.validate import Estimate

Language = Literal["en", "zh"]
LANGUAGES = ("en", "zh")
HERE = Path(__file__).parent
DASH = "–"

# What a yes or no is worth is no number.
YES_OR_NO = frozenset({Measure.EVER, Measure.ACTIVE})
INTERVAL = re.compile(r"([-+]?[\d.]+) \(([-+]?[\d.]+) to ([-+]?[\d.]+)\)")
LENGTH = re.compile(r"([\d.]+)\s*([a-z]+)")


@dataclass(frozen=True)
class Words:
    """The words of one language."""

    language: Language

    @classmethod
    def of(cls, language: str) -> "Words":
        """Return the words of a language.

        Raises
        ------
        WeibingError
            If reports are not written in it.
        """
        if language not in LANGUAGES:
            raise WeibingError(f'There is no language "{language}". Write {" or ".join(LANGUAGES)}.')
        return cls(cast(Language, language))

    def __call__(self, key: str, /, **figures: object) -> str:
        """Return the words of a key, with figures filled in."""
        return table("words")[key][self.language].format(**figures)

    def beginning(self, key: str, /, **figures: object) -> list[str]:
        """Return the words of every key that begins with this one and a full stop, in the order of the table."""
        return [self(name, **figures) for name in table("words") if name.startswith(f"{key}.")]

    def has(self, key: str) -> bool:
        """Whether there are words of a key."""
        return key in table("words")

    def or_as_is(self, kind: str, name: str) -> str:
        """Return the words of a kind of thing by its name, or the name where nobody has written any."""
        return self(f"{kind}.{name}") if self.has(f"{kind}.{name}") else name.replace("_", " ")

    def said(self, sentence: str) -> str:
        """Return a sentence that another part of Weibing says, as `said.csv` puts it; where it does not, as it is."""
        for row in table("said").values():
            if found := re.fullmatch(row["key"], sentence):
                template = row[self.language] or sentence
                return template.format(*(self._named(part or "") for part in found.groups()))
        return sentence

    def feature(self, name: str) -> str:
        """Return a feature in plain words, or its name with spaces where Weibing's profile does not have it."""
        if name not in PROFILE.names:
            return name.replace("_", " ")
        declared = PROFILE[name]
        label = declared.label(builtin().concept(declared.concept), self.language)
        return (
            label if self.language == "zh" or not declared.within else _spelled_out(label, self.length(declared.within))
        )

    def unit(self, feature: str) -> str:
        """Return the unit of a feature, empty where it has none."""
        if feature not in PROFILE.names:
            return ""
        declared = PROFILE[feature]
        return self.spelled(declared.unit(builtin().concept(declared.concept)))

    def spelled(self, unit: str) -> str:
        """Return a unit of UCUM as one writes it: ``mmHg`` for ``mm[Hg]``."""
        if self.has(f"unit.{unit}"):
            return self(f"unit.{unit}")
        for key, row in table("units").items():
            unit = unit.replace(key, row[self.language])
        return unit

    def concept(self, name: str) -> str:
        """Return the label of a concept, or its name where the vocabulary does not have it."""
        if name not in builtin().concepts:
            return name.replace("_", " ")
        concept = builtin().concept(name)
        return (concept.label_zh if self.language == "zh" else concept.label_en) or name

    def concepts(self, names: tuple[str, ...] | list[str]) -> str:
        """Return the labels of concepts, as one lists them."""
        return self("separator").join(map(self.concept, names))

    def length(self, written: str) -> str:
        """Return a length such as ``5y`` as one reads it: ``5 years``, ``5年``."""
        found = LENGTH.fullmatch(written.strip())
        if found is None:
            return written
        number, unit = found.groups()
        key = f"length.{unit}" if number != "1" else f"length.{unit}.one"
        return self(key, number=number) if self.has(key) else written

    def rule(self, concept: str) -> list[str]:
        """Return how an outcome is found: the phenotypes below it, a line each, with rule and source; or its label."""
        return list(self._rules(concept, set()))

    def estimate(self, estimate: Estimate, form: str = ".3f") -> str:
        """Return a number with its interval."""
        if math.isnan(estimate.estimate):
            return self("undefined")
        figure = format(estimate.estimate, form)
        if math.isnan(estimate.lower):
            return self("no_interval", figure=figure)
        return self("interval", figure=figure, lower=format(estimate.lower, form), upper=format(estimate.upper, form))

    def _rules(self, concept: str, told: set[str]) -> Iterator[str]:
        phenotype = BY_NAME.get(concept)
        if phenotype is None or concept in told:
            return
        told.add(concept)
        ways = self("or_way").join(self._evidence(each) for each in phenotype.evidence)
        yield self("rule", name=self.concept(concept), ways=ways, source=self.said(phenotype.source))
        for below in phenotype.concepts:
            yield from self._rules(below, told)

    def _evidence(self, evidence: Evidence) -> str:
        signs = self("or").join(map(self._sign, evidence.signs))
        days = "rule.distinct" if evidence.distinct else "rule.days"
        parts = [
            self(days, signs=signs, times=evidence.times) if evidence.times > 1 else signs,
            self("rule.apart", length=self.length(evidence.apart)) if evidence.apart else "",
            self("rule.within", length=self.length(evidence.within)) if evidence.within else "",
            self("rule.beside", signs=self("or").join(map(self._sign, evidence.beside))) if evidence.beside else "",
            self("rule.given", concepts=self.concepts(evidence.given)) if evidence.given else "",
        ]
        return "".join(parts)

    def _sign(self, sign: Sign) -> str:
        unit = self.spelled(builtin().concept(sign.concept).unit)
        low = f" ≥ {sign.at_least:g}" if sign.at_least > -math.inf else ""
        high = f" < {sign.below:g}" if sign.below < math.inf else ""
        return self.concept(sign.concept) + low + high + (f" {unit}" if unit and (low or high) else "")

    def _named(self, part: str) -> str:
        """Return the part of a sentence in this language: names of concepts and features, lengths, intervals."""
        names = part.split(", ")
        if all(name in PROFILE.names for name in names):
            return self("semicolon").join(map(self.feature, names))
        if part in builtin().concepts:
            return self.concept(part)
        if found := INTERVAL.fullmatch(part):
            return self("interval", figure=found[1], lower=found[2], upper=found[3])
        return self.said(part) if " " in part else self.or_as_is("grouping", self.length(part))


def shortened(number: float) -> str:
    """Return a number in few digits: three significant ones, but all of those before the decimal point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


@cache
def table(name: str) -> dict[str, dict[str, str]]:
    """Return a table of words by its keys, in the order of the file."""
    with (HERE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def _spelled_out(label: str, length: str) -> str:
    """Return an English label with its look-back in words: ``mean, 1y`` becomes ``mean, 1 year``."""
    return f"{label.rpartition(', ')[0]}, {length}"
