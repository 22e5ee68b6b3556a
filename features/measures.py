"""The kinds of feature: what is measured, of which concept, over which look-back.

A look-back is half-open and ends at the index time: ``within="1y"`` looks at ``[index - 1 year, index)``, so that an
event at the index time itself is not yet known. Without `within`, everything before the index time counts. Facts
without a time (always true of the resident) count for `ever` and `static` alone.
"""

from dataclasses import dataclass
from enum import IntEnum

from features.times import length
from features.vocabulary import Concept


class Measure(IntEnum):
    """How the events of a look-back become one number; null where nothing is known."""

    LATEST = 0
    MEAN = 1
    MIN = 2
    MAX = 3
    STANDARD_DEVIATION = 4
    SLOPE = 5
    COUNT = 6
    EVER = 7
    ACTIVE = 8
    SINCE = 9
    SINCE_FIRST = 10
    AGE = 11
    STATIC = 12


# These need a number; the others ask only whether and when.
OF_NUMBERS = frozenset(
    {Measure.LATEST, Measure.MEAN, Measure.MIN, Measure.MAX, Measure.STANDARD_DEVIATION, Measure.SLOPE, Measure.STATIC}
)
IN_CONCEPT_UNIT = OF_NUMBERS - {Measure.SLOPE}

WORDS_EN = {
    Measure.LATEST: "latest",
    Measure.MEAN: "mean",
    Measure.MIN: "lowest",
    Measure.MAX: "highest",
    Measure.STANDARD_DEVIATION: "standard deviation",
    Measure.SLOPE: "change per year",
    Measure.COUNT: "number",
    Measure.EVER: "ever",
    Measure.ACTIVE: "in use",
    Measure.SINCE: "days since",
    Measure.SINCE_FIRST: "days since the first",
    Measure.AGE: "",
    Measure.STATIC: "",
}


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a profile.

    `within` is the look-back (``"1y"``), or None for everything before the index time. `at_least` is the number of
    values below which the feature is null.
    """

    name: str
    measure: Measure
    concept: str
    within: str | None = None
    at_least: int = 1

    @property
    def look_back(self) -> int | None:
        """The look-back in microseconds, or None where it has no beginning."""
        return None if self.within is None else length(self.within)

    def unit(self, concept: Concept) -> str:
        """Return the unit of the feature (UCUM), given its concept; empty for a count or a yes or no."""
        if self.measure in IN_CONCEPT_UNIT:
            return concept.unit
        if self.measure is Measure.SLOPE:
            return f"{concept.unit}/a"
        return {Measure.SINCE: "d", Measure.SINCE_FIRST: "d", Measure.AGE: "a"}.get(self.measure, "")

    def label(self, concept: Concept) -> str:
        """Return the feature in plain English: ``systolic blood pressure, mean, 1y``."""
        return ", ".join(part for part in (concept.label_en, WORDS_EN[self.measure], self.within) if part)


def latest(concept: str, within: str | None = None) -> Feature:
    """The latest value; the mean of them where several bear the same time."""
    return Feature(f"{concept}_latest", Measure.LATEST, concept, within)


def mean(concept: str, within: str | None = None) -> Feature:
    """The mean of the values."""
    return _over("mean", Measure.MEAN, concept, within)


def minimum(concept: str, within: str | None = None) -> Feature:
    """The lowest value."""
    return _over("min", Measure.MIN, concept, within)


def maximum(concept: str, within: str | None = None) -> Feature:
    """The highest value."""
    return _over("max", Measure.MAX, concept, within)


def standard_deviation(concept: str, within: str | None = None, at_least: int = 2) -> Feature:
    """The sample standard deviation of the values (divided by their number less one)."""
    return _over("sd", Measure.STANDARD_DEVIATION, concept, within, max(at_least, 2))


def slope(concept: str, within: str | None = None, at_least: int = 3) -> Feature:
    """The change per year: the slope of the least-squares line, of values at two different times or more."""
    return _over("slope", Measure.SLOPE, concept, within, max(at_least, 2))


def count(concept: str, within: str | None = None) -> Feature:
    """On how many distinct times it happened; 0 where it did not."""
    return _over("count", Measure.COUNT, concept, within)


def ever(concept: str, within: str | None = None) -> Feature:
    """1 where it happened or always holds, else 0."""
    return _over("ever", Measure.EVER, concept, within)


def active(concept: str, within: str) -> Feature:
    """1 where it happened in a look-back short enough to call it current (a drug dispensed), else 0."""
    return Feature(f"{concept}_active", Measure.ACTIVE, concept, within)


def since(concept: str, within: str | None = None) -> Feature:
    """Days from the last time it happened to the index time; null where it did not."""
    return _over("days_since", Measure.SINCE, concept, within)


def since_first(concept: str, within: str | None = None) -> Feature:
    """Days from the first time it happened to the index time: how long a disease or a record has lasted."""
    return _over("days_since_first", Measure.SINCE_FIRST, concept, within)


def age() -> Feature:
    """Age at the index time, in years of 365.25 days."""
    return Feature("age", Measure.AGE, "age")


def static(concept: str) -> Feature:
    """The value that always holds of the resident; where only dated values are known, the latest."""
    return Feature(concept, Measure.STATIC, concept)


def _over(word: str, measure: Measure, concept: str, within: str | None, at_least: int = 1) -> Feature:
    name = f"{concept}_{word}" if within is None else f"{concept}_{word}_{within}"
    return Feature(name, measure, concept, within, at_least)
