"""Histories that Hypothesis draws: ordinary events, and what goes wrong at edges."""

from collections.abc import Callable
from datetime import datetime

import polars as pl
from hypothesis import strategies as st

from features.events import SCHEMA, canonical
from features.measures import (
    Feature,
    Measure,
    active,
    age,
    count,
    daily_variability,
    days,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    night_to_day,
    per_day,
    share_of_days,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
    summed,
    total,
    variation,
)
from features.profile import Profile
from features.times import DAY, UNITS, YEAR, microseconds

INDEX = datetime(2024, 1, 1)
INDEX_US = microseconds(INDEX)

NUMBERS_OF = ("sbp", "glucose_fasting", "creatinine", "egfr", "bmi")


def over(measure: Callable[..., Feature], *concepts: str) -> list[Feature]:
    """Declare a feature of each concept, over no, a short and a long look-back."""
    return [measure(concept, within) for concept in concepts for within in (None, "30d", "2y")]


# Features of every measure, of recorded and of derived values.
OF_MEASURE: dict[Measure, list[Feature]] = {
    Measure.LATEST: [latest("sbp"), latest("egfr"), latest("bmi"), latest("home_sbp", within="30d")],
    Measure.MEAN: over(mean, *NUMBERS_OF),
    Measure.MIN: over(minimum, *NUMBERS_OF),
    Measure.MAX: over(maximum, *NUMBERS_OF),
    Measure.STANDARD_DEVIATION: over(standard_deviation, *NUMBERS_OF),
    Measure.VARIATION: over(variation, "sbp", "home_sbp"),
    Measure.SLOPE: over(slope, *NUMBERS_OF),
    Measure.SUM: over(summed, "length_of_stay", "sbp"),
    Measure.COUNT: over(count, "fall", *NUMBERS_OF),
    Measure.DAYS: over(days, "fall", "home_sbp"),
    Measure.SHARE_OF_DAYS: [share_of_days("home_sbp", within="30d"), share_of_days("fall", within="2d")],
    Measure.PER_DAY: over(per_day, "steps", "home_sbp"),
    Measure.DAILY_VARIABILITY: [
        daily_variability("home_sbp", within="30d"),
        daily_variability("home_sbp", at_least=2),
        daily_variability("sbp", at_least=2),
    ],
    Measure.NIGHT_TO_DAY: [
        night_to_day("home_sbp", within="30d"),
        night_to_day("home_sbp", at_least=1),
        night_to_day("sbp", at_least=1),
    ],
    Measure.EVER: [*over(ever, "fall"), ever("diabetes"), ever("diabetic_kidney_disease")],
    Measure.ACTIVE: [active("antihypertensive", within="180d")],
    Measure.SINCE: over(since, "fall", *NUMBERS_OF),
    Measure.SINCE_FIRST: over(since_first, "fall", *NUMBERS_OF),
    Measure.AGE: [age()],
    Measure.STATIC: [static("female"), static("education")],
    Measure.TOTAL: [
        total("conditions", "chronic_conditions", [ever("diabetes"), ever("diabetic_kidney_disease")]),
        total("readings", "sbp", [latest("sbp"), latest("egfr")]),
    ],
}
EVERYTHING = Profile(*(feature for features in OF_MEASURE.values() for feature in features))

CODES = [
    ("sbp", None),
    ("LOINC//8480-6", "mm[Hg]"),
    ("sbp", "kPa"),
    ("sbp", "furlong"),
    ("glucose_fasting", "mg/dL"),
    ("glucose_fasting", "mmol/L"),
    ("creatinine", "umol/L"),
    ("LOINC//2160-0", "mg/dL"),
    ("height", "cm"),
    ("weight", "kg"),
    ("ICD10//E11.21", None),
    ("ICD10//E11.9", None),
    ("ATC//C09AA02", None),
    ("home_sbp", None),
    ("steps", None),
    ("length_of_stay", "d"),
    ("fall", None),
    ("LOCAL//unheard-of", None),
    ("female", None),
    ("GENDER//F", None),
    ("GENDER//M", None),
    ("education", None),
    ("MEDS_BIRTH", None),
]

# At, just before and just after the index time and the beginning of each look-back, and anywhere else.
EDGES = [INDEX_US - length + step for length in (0, 30 * DAY, 180 * DAY, YEAR, 2 * YEAR) for step in (-1, 0, 1)]
# At, before and after what divides the last days: midnight, and where night begins and ends, eight hours ahead of UTC.
HOURS = [
    INDEX_US + (hour - 8) * UNITS["h"] - day * DAY + step
    for hour in (0, 6, 22)
    for day in (1, 2)
    for step in (-1, 0, 1)
]
TIMES = st.one_of(
    st.sampled_from(EDGES),
    st.sampled_from(HOURS),
    st.integers(INDEX_US - 3 * DAY, INDEX_US),
    st.integers(INDEX_US - 60 * YEAR, INDEX_US + 2 * YEAR),
    st.integers(-3, 3).map(lambda days: INDEX_US + days * DAY),
)
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.0, 120.0, 13682.0]), st.floats(0.5, 320, width=32))

# Of all kinds of record a little; or of a few kinds much, so that spreads, slopes and days have something to say.
MIXED = (CODES, NUMBERS)
DENSE = ([("sbp", None), ("home_sbp", None), ("steps", None), ("MEDS_BIRTH", None)], st.floats(60, 200, width=32))


@st.composite
def histories(draw: st.DrawFn, subject_id: int = 1, most: int = 25) -> pl.DataFrame:
    """Draw the events of one resident, in the store's order."""
    rows = []
    codes, numbers = draw(st.sampled_from([MIXED, DENSE]))
    for _ in range(draw(st.integers(0, most))):
        code, unit = draw(st.sampled_from(codes))
        always = code in ("female", "education", "GENDER//F", "GENDER//M") and draw(st.booleans())
        rows.append((subject_id, None if always else draw(TIMES), code, draw(numbers), None, unit))
    frame = pl.DataFrame(rows, schema={**SCHEMA, "time": pl.Int64()}, orient="row")
    return canonical(frame.with_columns(pl.col("time").cast(pl.Datetime("us"))))
