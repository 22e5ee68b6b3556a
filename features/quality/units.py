"""Numbers that look as if they had another unit than they are taken for: creatinine in mg/dL among µmol/L.

There are three signs. Values that are impossible in the unit they are taken for, but usual in another one of the same
concept; two separate modes whose ratio is the factor between two units, where both lie within the plausible range (a
weight in 斤 is twice that in kg); and a township whose median is that factor away from everybody else's. What is usual
is learnt from the other values of the concept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from features.quality.spread import Counted
from features.vocabulary import Concept, Vocabulary

Mask = NDArray[np.bool_]
Rule = tuple[float, float]

# So many values are no slip of the pen; where they are possible, such a share of those with the same code and unit.
FEWEST = 10
LEAST_SHARE = 0.005
# So many values of a concept say what is usual, between these quantiles.
ENOUGH = 30
USUAL = (0.005, 0.995)
# Of the impossible values, this share must be usual in the other unit.
EXPLAINED = 0.5

# A histogram of logarithms, in bins of a hundredth of a decade, smoothed over a fourteenth of the number.
BIN = 0.01
SMOOTHING = 0.03
# Units whose factor is below 1.4 cannot be told apart by it; a mode lies this near to where the factor puts it.
NEAREST = 0.15
TOLERANCE = 0.08
# So many different numbers make a mode; fewer are what rounding leaves of small ones.
DISTINCT = 5
# Between two modes, the density falls to less than this share of the lower one.
VALLEY = 0.6


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Numbers that look like another unit: which unit, which of the values, and by which sign."""

    unit: str
    numbers: Mask
    sign: str


def suspicion(
    numbers: Counted, stated: Rule, concept: Concept, vocabulary: Vocabulary, usual: Counted
) -> Suspicion | None:
    """Return the unit that numbers seem to have which are taken for another.

    Parameters
    ----------
    numbers
        As they were recorded, with one code and unit.
    stated
        Factor and offset of the unit that they are taken for.
    usual
        Plausible values of the concept in its canonical unit, of all codes and units.
    """
    others = {rule: unit for rule, unit in _rules(concept, vocabulary).items() if rule != stated}
    if not others or numbers.total < FEWEST:
        return None
    return _impossible(numbers, stated, concept, others, usual) or _two_modes(numbers, stated, concept, vocabulary)


def shifted(here: Counted, elsewhere: Counted, stated: Rule, concept: Concept, vocabulary: Vocabulary) -> str | None:
    """Return the unit that the numbers of a place have, where their median is its factor away from all others'.

    Parameters
    ----------
    here, elsewhere
        Numbers with the same code and unit, as they were recorded.
    stated
        Factor and offset of the unit that they are taken for.
    """
    if min(here.total, elsewhere.total) < ENOUGH:
        return None
    median, usual = here.quantile(0.5), elsewhere.quantile(0.5)
    if min(median, usual) <= 0 or stated[1] != 0.0:
        return None
    shift = log10(median / usual)
    near = {unit: abs(shift - by) for unit, by in _shifts(stated, concept, vocabulary) if abs(shift - by) < TOLERANCE}
    return min(near, key=lambda unit: near[unit]) if near else None


def _shifts(stated: Rule, concept: Concept, vocabulary: Vocabulary) -> Iterator[tuple[str, float]]:
    """Yield each unit that a factor tells from the stated one, and how many decades further its numbers lie."""
    for (factor, offset), unit in _rules(concept, vocabulary).items():
        if factor > 0 and stated[0] > 0 and offset == 0.0 and abs(log10(stated[0] / factor)) >= NEAREST:
            yield unit, log10(stated[0] / factor)


def _rules(concept: Concept, vocabulary: Vocabulary) -> dict[Rule, str]:
    """Return the distinct units of a concept, by how they become the canonical one; of several names the first."""
    rules: dict[Rule, str] = {}
    for (name, unit), rule in vocabulary.units.items():
        if name == concept.name:
            rules.setdefault(rule, unit)
    return rules


def _impossible(
    numbers: Counted, stated: Rule, concept: Concept, others: dict[Rule, str], usual: Counted
) -> Suspicion | None:
    out = ~_between(_canonical(numbers, stated), concept.low, concept.high)
    impossible = int(numbers.events[out].sum())
    low, high = _usual(concept, usual)
    candidates = [
        (int(numbers.events[reads].sum()), -_distance(numbers.where(reads), rule, (low, high)), unit, reads)
        for rule, unit in others.items()
        if (reads := out & _between(_canonical(numbers, rule), low, high)).any()
    ]
    if not candidates:
        return None
    most, _, unit, reads = max(candidates, key=lambda each: each[:2])
    enough = most >= FEWEST and most >= EXPLAINED * impossible
    return Suspicion(unit, reads, "impossible") if enough else None


def _canonical(numbers: Counted, rule: Rule) -> NDArray[np.float64]:
    return numbers.value * rule[0] + rule[1]


def _between(values: NDArray[np.float64], low: float, high: float) -> Mask:
    return (values >= low) & (values <= high)


def _usual(concept: Concept, usual: Counted) -> tuple[float, float]:
    """Return where values of a concept usually lie; without enough of them, wherever they plausibly lie."""
    if usual.total < ENOUGH:
        return concept.low, concept.high
    return usual.quantile(USUAL[0]), usual.quantile(USUAL[1])


def _distance(numbers: Counted, rule: Rule, usual: tuple[float, float]) -> float:
    """How far the median, read by a rule, lies from the middle of what is usual: in decades, where there are any."""
    median = numbers.quantile(0.5) * rule[0] + rule[1]
    low, high = usual
    if low > 0 and high < inf and median > 0:
        return abs(log10(median) - (log10(low) + log10(high)) / 2)
    return abs(median - (low + high) / 2) if high < inf else 0.0


def _two_modes(numbers: Counted, stated: Rule, concept: Concept, vocabulary: Vocabulary) -> Suspicion | None:
    positive = numbers.where(numbers.value > 0)
    if stated[1] != 0.0 or positive.total < 2 * FEWEST:
        return None
    density, origin = _smoothed(positive)
    first = int(density.argmax())
    shifts = _shifts(stated, concept, vocabulary)
    found = [
        each
        for each in _second_modes(density, first, shifts)
        if _is_mode(density, first, each[1]) and _distinct(positive, origin + BIN * each[1]) >= DISTINCT
    ]
    if not found:
        return None
    unit, second, _ = min(found, key=lambda each: each[2])
    divide = 10 ** (origin + BIN * _valley(density, first, second))
    reads = (numbers.value < divide) if second < first else (numbers.value > divide)
    many = int(numbers.events[reads].sum())
    return Suspicion(unit, reads, "modes") if many >= max(FEWEST, LEAST_SHARE * numbers.total) else None


def _smoothed(numbers: Counted) -> tuple[NDArray[np.float64], float]:
    """Return the density of the logarithms, in counts a bin, and where its bins begin."""
    logs = np.log10(numbers.value)
    width = round(4 * SMOOTHING / BIN)
    origin = float(logs[0]) - 2 * width * BIN
    bins = np.round((logs - origin) / BIN).astype(np.int64)
    histogram = np.bincount(bins, weights=numbers.events, minlength=int(bins[-1]) + 2 * width + 1)
    kernel = np.exp(-0.5 * (np.arange(-width, width + 1) * BIN / SMOOTHING) ** 2)
    return np.convolve(histogram, kernel / kernel.sum(), mode="same"), origin


def _second_modes(
    density: NDArray[np.float64], first: int, shifts: Iterator[tuple[str, float]]
) -> Iterator[tuple[str, int, float]]:
    """Yield each unit, the highest place near to where it would put a second mode, and how near."""
    reach = round(TOLERANCE / BIN)
    for unit, shift in shifts:
        expected = first + round(shift / BIN)
        if reach <= expected < len(density) - reach:
            near = density[expected - reach : expected + reach + 1]
            second = expected - reach + int(near.argmax())
            yield unit, second, abs(second - expected)


def _is_mode(density: NDArray[np.float64], first: int, second: int) -> bool:
    """Whether a place is a mode of its own: a peak, with a valley before it deeper than chance would dig."""
    peak = density[second]
    if not 0 < second < len(density) - 1 or peak < max(density[second - 1], density[second + 1]):
        return False
    valley = density[_valley(density, first, second)]
    # About as many values as one smoothed bin rests on.
    scale = np.sqrt(4 * np.pi) * SMOOTHING / BIN
    by_chance = 3 * np.sqrt(scale * (peak + valley))
    return bool(valley < VALLEY * peak and scale * (peak - valley) > by_chance)


def _distinct(numbers: Counted, place: float) -> int:
    """How many different numbers there are around a logarithm."""
    return int((np.abs(np.log10(numbers.value) - place) < TOLERANCE).sum())


def _valley(density: NDArray[np.float64], first: int, second: int) -> int:
    low, high = min(first, second), max(first, second)
    return low + int(density[low : high + 1].argmin())
