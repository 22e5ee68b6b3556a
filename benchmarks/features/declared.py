"""Which features are compared, and what the records mean: the part of the work that peers have no words for."""

from collections.abc import Iterable
from math import nan

import polars as pl

from benchmarks.features.records import CODES
from features.measures import Feature, Measure
from features.profile import PROFILE
from features.vocabulary import builtin

OTHER_CODES = ("MEDS_BIRTH", "GENDER//F", "GENDER//M")
LOOK_BACKS = ("180d", "1y", "2y", "5y")
IN_A_GRID = (Measure.MEAN, Measure.MIN, Measure.MAX, Measure.COUNT, Measure.SUM)
# The latest value takes timeseriesflattener longer than the others together: hence a grid with it and one without.
GRIDS = {"grid": IN_A_GRID, "grid and latest": (*IN_A_GRID, Measure.LATEST)}


def compared(expressible: Iterable[int]) -> list[Feature]:
    """Return Weibing's own features of these measures, of the concepts that the records name themselves.

    Concepts derived from others (eGFR, body mass index, phenotypes) are Weibing's alone.
    """
    measures, named = set(expressible), set(meanings()["concept"])
    return [feature for feature in PROFILE.features if feature.measure in measures and feature.concept in named]


def grid(measures: Iterable[Measure]) -> list[Feature]:
    """Return these measures over every look-back, of every concept that the records value and date."""
    taken = list(measures)
    return [
        Feature(f"{concept}_{measure.name.lower()}_{within}", measure, concept, within)
        for concept in _valued()
        for within in LOOK_BACKS
        for measure in taken
    ]


def _valued() -> list[str]:
    concepts = builtin().concepts
    named = set(meanings().filter("numeric")["concept"])
    return sorted(name for name in named if concepts[name].kind != "static")


def meanings() -> pl.DataFrame:
    """Return what each code with its unit means, one row a concept: what a peer's user looks up by hand.

    The canonical value is `said` or, where that is null, ``number * factor + offset``; it counts from `low` to `high`.
    """
    codes = pl.read_csv(CODES)
    pairs = [*zip(codes["code"], codes["unit"], strict=True), *((code, None) for code in OTHER_CODES)]
    vocabulary = builtin()
    rows = []
    for code, unit in pairs:
        for meaning in vocabulary.meanings(code, unit):
            concept = vocabulary.concepts[meaning.concept]
            factor = meaning.factor if meaning.known_unit else nan
            scale = (factor, meaning.offset, meaning.value)
            rows.append((code, unit, concept.name, *scale, concept.low, concept.high, concept.numeric))
    texts = dict.fromkeys(("code", "unit", "concept"), pl.String)
    numbers = dict.fromkeys(("factor", "offset", "said", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**texts, **numbers, "numeric": pl.Boolean}, orient="row")
