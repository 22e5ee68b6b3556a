"""The kinds of feature: what is measured, of which concept, over which look-back.

A look-back is half-open and ends at the index time: ``within="1y"`` looks at ``[index - 1 year, index)``, so that an
event at the index time itself is not yet known. Without `within`, everything before the index time counts. Facts
without a time (always true of the resident) count for `ever` and `static` alone. Days and nights are those of the
county's zone, in standard time (see :func:`features.times.standard_offset`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from features.times import length
from features.vocabulary import Concept

Language = Literal["en", "zh"]


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
    SUM = 13
    VARIATION = 14
    DAYS = 15
    SHARE_OF_DAYS = 16
    PER_DAY = 17
    DAILY_VARIABILITY = 18
    NIGHT_TO_DAY = 19
    TOTAL = 20


class Kind(NamedTuple):
    """What is to be known of a measure.

    Attributes
    ----------
    en, zh : how a label says it
    meaning : one sentence for the list of features
    unit : of the feature (UCUM), with ``{}`` for the concept's own
    numbers : whether it needs numbers; the others ask only whether and when
    nothing : what it is where nothing was recorded, None for null
    """

    en: str
    zh: str
    meaning: str
    unit: str = ""
    numbers: bool = False
    nothing: float | None = None


KINDS = {
    Measure.LATEST: Kind(
        "latest", "最近一次", "The latest value; the mean of them where several bear the same time.", "{}", numbers=True
    ),
    Measure.MEAN: Kind("mean", "平均", "The mean of the values.", "{}", numbers=True),
    Measure.MIN: Kind("lowest", "最低", "The lowest value.", "{}", numbers=True),
    Measure.MAX: Kind("highest", "最高", "The highest value.", "{}", numbers=True),
    Measure.STANDARD_DEVIATION: Kind(
        "standard deviation",
        "标准差",
        "The sample standard deviation of the values (divided by their number less one).",
        "{}",
        numbers=True,
    ),
    Measure.SLOPE: Kind(
        "change per year",
        "每年变化",
        "The slope of the least-squares line through the values, which lie at two different times or more.",
        "{}/a",
        numbers=True,
    ),
    Measure.COUNT: Kind("number", "次数", "On how many different times it was recorded.", nothing=0.0),
    Measure.EVER: Kind("ever", "曾有", "1 where it was recorded, or always holds; else 0.", nothing=0.0),
    Measure.ACTIVE: Kind(
        "in use", "在用", "1 where it was recorded recently enough to call it current; else 0.", nothing=0.0
    ),
    Measure.SINCE: Kind("days since", "距今天数", "Days from the last time to the index time.", "d"),
    Measure.SINCE_FIRST: Kind("days since the first", "距首次天数", "Days from the first time to the index time.", "d"),
    Measure.AGE: Kind("", "", "Years of 365.25 days from birth to the index time.", "a"),
    Measure.STATIC: Kind(
        "", "", "The value that always holds of the resident; where there is only a dated one, the latest.", "{}", True
    ),
    Measure.SUM: Kind("sum", "合计", "The sum of the values.", "{}", numbers=True, nothing=0.0),
    Measure.VARIATION: Kind(
        "coefficient of variation", "变异系数", "The standard deviation of the values over their mean.", numbers=True
    ),
    Measure.DAYS: Kind("number of days", "天数", "On how many different days it was recorded.", "d", nothing=0.0),
    Measure.SHARE_OF_DAYS: Kind(
        "share of days",
        "记录天数占比",
        "On how many different days it was recorded, over the days of the look-back; 1 at most.",
        nothing=0.0,
    ),
    Measure.PER_DAY: Kind(
        "per day", "日均合计", "The sum of the values over the number of days with any.", "{}/d", numbers=True
    ),
    Measure.DAILY_VARIABILITY: Kind(
        "day-to-day variability",
        "日间变异",
        "The sample standard deviation, over the days with any value, of the day's mean.",
        "{}",
        numbers=True,
    ),
    Measure.NIGHT_TO_DAY: Kind(
        "night to day",
        "夜间与白天之比",
        "The mean of the values at night (22:00 to 06:00) over the mean of those by day. A value at midnight sharp"
        " counts for neither: it is dated by its day alone.",
        numbers=True,
    ),
    Measure.TOTAL: Kind("number of kinds", "种类数", "The sum of the features named, of those that are known."),
}

OF_NUMBERS = frozenset(measure for measure, kind in KINDS.items() if kind.numbers)

# The fixed night of blood pressure monitors where nobody keeps a diary of sleep; in hours of local time. Fixed hours:
# O'Brien et al., J Hypertens 2013;31:1731-1768. These ones are common in China; from memory, not verified.
NIGHT_BEGINS, NIGHT_ENDS = 22, 6

LENGTHS_ZH = {"us": "微秒", "s": "秒", "h": "小时", "d": "天", "w": "周", "mo": "个月", "y": "年"}


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a profile.

    Attributes
    ----------
    concept : what it belongs to; drivers sum over the features of a concept
    within : the look-back (``"1y"``), or None for everything before the index time
    at_least
        The number of values below which the feature is null; of `daily_variability` the number of days, of
        `night_to_day` the number of values at night and as many by day.
    of : the names of the features that a `total` sums
    """

    name: str
    measure: Measure
    concept: str
    within: str | None = None
    at_least: int = 1
    of: tuple[str, ...] = ()

    @property
    def look_back(self) -> int | None:
        """The look-back in microseconds, or None where it has no beginning."""
        return None if self.within is None else length(self.within)

    def unit(self, concept: Concept) -> str:
        """Return the unit of the feature (UCUM), given its concept; empty for a count or a yes or no."""
        unit = KINDS[self.measure].unit
        return "" if "{}" in unit and not concept.unit else unit.format(concept.unit)

    def label(self, concept: Concept, language: Language = "en") -> str:
        """Return the feature in plain words: ``systolic blood pressure, mean, 1y``, or ``收缩压，平均，近1年``."""
        kind = KINDS[self.measure]
        if language == "zh":
            return "，".join(part for part in (concept.label_zh, kind.zh, _recent_zh(self.within)) if part)
        return ", ".join(part for part in (concept.label_en, kind.en, self.within) if part)


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


def summed(concept: str, within: str | None = None) -> Feature:
    """The sum of the values; 0 where there are none."""
    return _over("sum", Measure.SUM, concept, within)


def standard_deviation(concept: str, within: str | None = None, at_least: int = 2) -> Feature:
    """The sample standard deviation of the values (divided by their number less one)."""
    return _over("sd", Measure.STANDARD_DEVIATION, concept, within, max(at_least, 2))


def variation(concept: str, within: str | None = None, at_least: int = 3) -> Feature:
    """The coefficient of variation: the standard deviation of the values over their mean."""
    return _over("cv", Measure.VARIATION, concept, within, max(at_least, 2))


def slope(concept: str, within: str | None = None, at_least: int = 3) -> Feature:
    """The change per year: the slope of the least-squares line, of values at two different times or more."""
    return _over("slope", Measure.SLOPE, concept, within, max(at_least, 2))


def count(concept: str, within: str | None = None) -> Feature:
    """On how many distinct times it happened; 0 where it did not."""
    return _over("count", Measure.COUNT, concept, within)


def days(concept: str, within: str | None = None) -> Feature:
    """On how many distinct days, of the county's zone, it happened; 0 where it did not."""
    return _over("days", Measure.DAYS, concept, within)


def share_of_days(concept: str, within: str) -> Feature:
    """The distinct days on which it happened over the days of the look-back: how regularly a device is worn."""
    return _over("share_of_days", Measure.SHARE_OF_DAYS, concept, within)


def per_day(concept: str, within: str | None = None) -> Feature:
    """The sum of the values over the number of days with any: steps a day, however often a device sends them."""
    return _over("per_day", Measure.PER_DAY, concept, within)


def daily_variability(concept: str, within: str | None = None, at_least: int = 3) -> Feature:
    """Day-to-day variability: the sample standard deviation of the means of days, of so many days or more."""
    return _over("daily_sd", Measure.DAILY_VARIABILITY, concept, within, max(at_least, 2))


def night_to_day(concept: str, within: str | None = None, at_least: int = 3) -> Feature:
    """The night pattern: the mean at night over the mean by day, of so many values at night and as many by day."""
    return _over("night_to_day", Measure.NIGHT_TO_DAY, concept, within, at_least)


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


def total(name: str, concept: str, of: Sequence[Feature]) -> Feature:
    """The sum of other features of the profile, of those that are known: in how many classes drugs are in use."""
    return Feature(name, Measure.TOTAL, concept, of=tuple(feature.name for feature in of))


def _over(word: str, measure: Measure, concept: str, within: str | None, at_least: int = 1) -> Feature:
    name = f"{concept}_{word}" if within is None else f"{concept}_{word}_{within}"
    return Feature(name, measure, concept, within, at_least)


def _recent_zh(within: str | None) -> str:
    found = re.fullmatch(r"([\d.]+)\s*([a-z]+)", within or "")
    return f"近{found[1]}{LENGTHS_ZH[found[2]]}" if found else ""
