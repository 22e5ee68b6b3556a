"""The slow oracle: features of one resident in plain Python, written for reading, not for speed.

It shares the declaration and the vocabulary with the engine, and nothing else.
"""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from features.measures import Feature, Measure
from features.profile import Profile
from features.vocabulary import Vocabulary

DAY = 86_400_000_000
YEAR = 31_557_600_000_000


@dataclass(frozen=True)
class Recorded:
    """An event as it was recorded; time in microseconds, None if always true."""

    time: int | None
    code: str
    number: float | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Fact:
    """What an event says: a concept, and its value in the canonical unit or None."""

    time: int | None
    concept: str
    value: float | None


def profile_of(events: list[Recorded], index: int, profile: Profile, vocabulary: Vocabulary) -> dict[str, float | None]:
    """Compute every feature of the profile."""
    facts = with_derived([fact for event in events for fact in facts_of(event, vocabulary)], vocabulary)
    return {feature.name: feature_of(facts, feature, index) for feature in profile.features}


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


def with_derived(facts: list[Fact], vocabulary: Vocabulary) -> list[Fact]:
    """Add eGFR and body mass index at the time of the creatinine and the weight, from what was known by then."""
    result: list[Fact] = []
    for fact in facts:
        result.append(fact)
        known = {earlier.concept: earlier for earlier in result}
        value = derived_value(fact, known)
        name = {"creatinine": "egfr", "weight": "bmi"}.get(fact.concept, "")
        if value is not None and usable(name, float32(value), vocabulary):
            result.append(Fact(fact.time, name, float32(value)))
    return result


def derived_value(fact: Fact, known: dict[str, Fact]) -> float | None:
    """Compute what a creatinine or a weight allows, or None."""
    if fact.concept == "weight" and "height" in known:
        return fact.value / (known["height"].value / 100) ** 2
    born = known.get("age")
    if fact.concept == "creatinine" and "female" in known and born and born.time is not None and fact.time is not None:
        age = (fact.time - born.time) / YEAR
        return ckd_epi_2021(fact.value, age, known["female"].value == 1) if age >= 18 else None
    return None


def ckd_epi_2021(creatinine_umol_l: float, age: float, female: bool) -> float:
    """Inker et al., N Engl J Med 2021;385:1737-1749."""
    kappa, alpha = (0.7, -0.241) if female else (0.9, -0.302)
    ratio = creatinine_umol_l / 88.4 / kappa
    result = 142 * min(ratio, 1) ** alpha * max(ratio, 1) ** -1.200 * 0.9938**age
    return result * 1.012 if female else result


def feature_of(facts: list[Fact], feature: Feature, index: int) -> float | None:
    """Compute one feature from the facts before the index time and within its look-back."""
    of_concept = [fact for fact in facts if fact.concept == feature.concept]
    always = [fact for fact in of_concept if fact.time is None]
    start = -math.inf if feature.look_back is None else index - feature.look_back
    dated = [fact for fact in of_concept if fact.time is not None and start <= fact.time < index]
    times = sorted({fact.time for fact in dated})
    match feature.measure:
        case Measure.COUNT:
            return len(times)
        case Measure.ACTIVE:
            return 1.0 if times else 0.0
        case Measure.EVER:
            return 1.0 if times or (always and feature.within is None) else 0.0
        case Measure.SINCE:
            return (index - times[-1]) / DAY if times else None
        case Measure.SINCE_FIRST:
            return (index - times[0]) / DAY if times else None
        case Measure.AGE:
            return (index - times[-1]) / YEAR if times else None
        case Measure.STATIC if always:
            return always[-1].value
    values = [fact for fact in dated if fact.value is not None]
    return of_values(feature, values, index) if len(values) >= feature.at_least else None


def of_values(feature: Feature, facts: list[Fact], index: int) -> float | None:
    """Compute a feature that needs numbers."""
    values = [fact.value for fact in facts]
    match feature.measure:
        case Measure.MEAN:
            return statistics.fmean(values)
        case Measure.MIN:
            return min(values)
        case Measure.MAX:
            return max(values)
        case Measure.STANDARD_DEVIATION:
            return statistics.stdev(values)
        case Measure.SLOPE:
            return least_squares_slope([(fact.time - index) / YEAR for fact in facts], values)
    last = max(fact.time for fact in facts)
    return statistics.fmean(fact.value for fact in facts if fact.time == last)


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
