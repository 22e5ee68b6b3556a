"""The slow oracle: features of one resident in plain Python, written for reading, not for speed.

It shares the declarations and the vocabulary with the engine, and nothing else.
"""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from features.measures import Feature, Measure
from features.profile import Profile
from features.rules import Needed
from features.vocabulary import Vocabulary
from tests.reference.findings import Fact, Findings

HOUR = 3_600_000_000
DAY = 24 * HOUR
YEAR = 31_557_600_000_000

# China keeps one time, eight hours ahead of UTC, all year round.
ZONE = 8 * HOUR


@dataclass(frozen=True)
class Recorded:
    """An event as it was recorded; time in microseconds, None if always true."""

    time: int | None
    code: str
    number: float | None = None
    unit: str | None = None


def profile_of(events: list[Recorded], index: int, profile: Profile, vocabulary: Vocabulary) -> dict[str, float | None]:
    """Compute every feature of the profile."""
    wanted = {feature.concept for feature in profile.features}
    facts = with_derived([fact for event in events for fact in facts_of(event, vocabulary)], vocabulary, wanted)
    of_facts = [feature for feature in profile.features if feature.measure is not Measure.TOTAL]
    found = {feature.name: feature_of(facts, feature, index) for feature in of_facts}
    for feature in profile.features:
        if feature.measure is Measure.TOTAL:
            parts = [found[name] for name in feature.of if found[name] is not None]
            found[feature.name] = sum(parts) if parts else None
    return found


def facts_of(event: Recorded, vocabulary: Vocabulary) -> list[Fact]:
    """Translate an event; what cannot be used says nothing."""
    facts = []
    for meaning in vocabulary.meanings(event.code, event.unit):
        value = meaning.value
        if value is None and event.number is not None and meaning.known_unit:
            value = float32(float32(event.number) * meaning.factor + meaning.offset)
        if usable(meaning.concept, value, vocabulary):
            facts.append(Fact(event.time, meaning.concept, value))
    return facts


def usable(concept: str, value: float | None, vocabulary: Vocabulary) -> bool:
    """Whether a value, or its absence, says something of a concept."""
    known = vocabulary.concepts[concept]
    if value is None:
        return not known.numeric
    return known.low <= value <= known.high


def with_derived(facts: list[Fact], vocabulary: Vocabulary, wanted: set[str]) -> list[Fact]:
    """Add what the facts say together: derived values, and the phenotypes that the wanted concepts rest on."""
    needed = Needed.by(wanted)
    findings = Findings(
        list(needed.phenotypes), list(needed.deficits), lambda name, value: usable(name, value, vocabulary), ZONE
    )
    return findings.of(facts)


def feature_of(facts: list[Fact], feature: Feature, index: int) -> float | None:
    """Compute one feature from the facts before the index time and within its look-back."""
    of_concept = [fact for fact in facts if fact.concept == feature.concept]
    always = [fact for fact in of_concept if fact.time is None]
    start = -math.inf if feature.look_back is None else index - feature.look_back
    dated = [fact for fact in of_concept if fact.time is not None and start <= fact.time < index]
    if feature.measure is Measure.EVER and always and feature.within is None:
        return 1.0
    if feature.measure in OF_DATES:
        return of_times(feature, sorted({fact.time for fact in dated}), index)
    held = [fact.value for fact in always if fact.value is not None]
    if feature.measure is Measure.STATIC and held:
        return held[-1]
    values = [fact for fact in dated if fact.value is not None]
    if feature.measure is Measure.SUM:
        return sum(fact.value for fact in values)
    return of_values(feature, values) if len(values) >= feature.at_least else None


OF_DATES = {
    *(Measure.COUNT, Measure.EVER, Measure.ACTIVE, Measure.SINCE, Measure.SINCE_FIRST),
    *(Measure.AGE, Measure.DAYS, Measure.SHARE_OF_DAYS),
}


def of_times(feature: Feature, times: list[int], index: int) -> float | None:
    """Compute a feature that asks only whether and when, from the different times."""
    match feature.measure:
        case Measure.COUNT:
            return len(times)
        case Measure.ACTIVE | Measure.EVER:
            return 1.0 if times else 0.0
        case Measure.DAYS:
            return len({local_day(time) for time in times})
        case Measure.SHARE_OF_DAYS:
            return min(len({local_day(time) for time in times}) / (feature.look_back / DAY), 1.0)
    if not times:
        return None
    match feature.measure:
        case Measure.SINCE:
            return (index - times[-1]) / DAY
        case Measure.SINCE_FIRST:
            return (index - times[0]) / DAY
        case Measure.AGE:
            return (index - times[-1]) / YEAR
    raise NotImplementedError(feature.measure)


PLAIN = {
    Measure.MEAN: statistics.fmean,
    Measure.MIN: min,
    Measure.MAX: max,
    Measure.STANDARD_DEVIATION: statistics.stdev,
}


def of_values(feature: Feature, facts: list[Fact]) -> float | None:
    """Compute a feature that needs numbers, of which there are enough."""
    values = [fact.value for fact in facts]
    if feature.measure in PLAIN:
        return PLAIN[feature.measure](values)
    match feature.measure:
        case Measure.VARIATION:
            mean = statistics.fmean(values)
            return statistics.stdev(values) / mean if mean > 0 else None
        case Measure.SLOPE:
            return least_squares_slope([fact.time / YEAR for fact in facts], values)
        case Measure.PER_DAY:
            return sum(values) / len({local_day(fact.time) for fact in facts})
        case Measure.DAILY_VARIABILITY:
            means = [statistics.fmean(of_day) for of_day in by_day(facts)]
            return statistics.stdev(means) if len(means) >= feature.at_least else None
        case Measure.NIGHT_TO_DAY:
            return night_to_day(facts, feature.at_least)
        case Measure.LATEST | Measure.STATIC:
            last = max(fact.time for fact in facts)
            return statistics.fmean(fact.value for fact in facts if fact.time == last)
    raise NotImplementedError(feature.measure)


def local_day(time: int) -> int:
    """Number the local day of a time."""
    return math.floor((time + ZONE) / DAY)


def by_day(facts: list[Fact]) -> list[list[float]]:
    """Group values by local day."""
    days = sorted({local_day(fact.time) for fact in facts})
    return [[fact.value for fact in facts if local_day(fact.time) == day] for day in days]


def night_to_day(facts: list[Fact], at_least: int) -> float | None:
    """Divide the mean from 22:00 to 06:00 by the mean of the rest; midnight sharp says no hour."""
    hours = [((fact.time + ZONE) % DAY / HOUR, fact.value) for fact in facts]
    night = [value for hour, value in hours if hour >= 22 or 0 < hour < 6]
    by_day = [value for hour, value in hours if 6 <= hour < 22]
    if min(len(night), len(by_day)) < at_least or sum(by_day) <= 0:
        return None
    return statistics.fmean(night) / statistics.fmean(by_day)


def least_squares_slope(times: list[float], values: list[float]) -> float | None:
    """Slope of the least-squares line, or None where all times are the same."""
    if len(set(times)) < 2:
        return None
    mean_time, mean_value = statistics.fmean(times), statistics.fmean(values)
    across = sum((t - mean_time) * (v - mean_value) for t, v in zip(times, values, strict=True))
    return across / sum((t - mean_time) ** 2 for t in times)


def float32(value: float) -> float:
    """Round to the precision in which values are kept."""
    return float(np.float32(value))
