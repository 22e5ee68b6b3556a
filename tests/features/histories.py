"""Histories that Hypothesis draws: ordinary events, and what goes wrong at edges."""

from datetime import datetime

import polars as pl
from hypothesis import strategies as st

from features.events import SCHEMA, canonical
from features.measures import (
    active,
    age,
    count,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
)
from features.profile import Profile
from features.times import DAY, YEAR, microseconds

INDEX = datetime(2024, 1, 1)
INDEX_US = microseconds(INDEX)

# Every measure, over no, a short and a long look-back, of recorded and of derived values.
EVERYTHING = Profile(
    age(),
    static("female"),
    static("education"),
    latest("sbp"),
    latest("egfr"),
    latest("bmi"),
    active("antihypertensive", within="180d"),
    *(ever(concept) for concept in ("diabetes", "diabetic_kidney_disease", "fall")),
    *(
        measure(concept, within)
        for concept in ("sbp", "glucose_fasting", "creatinine", "egfr", "bmi")
        for within in (None, "30d", "2y")
        for measure in (mean, minimum, maximum, standard_deviation, slope, count, since, since_first)
    ),
    *(measure("fall", within) for within in (None, "1y") for measure in (count, since, since_first)),
    ever("fall", within="1y"),
)

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
TIMES = st.one_of(
    st.sampled_from(EDGES),
    st.integers(INDEX_US - 60 * YEAR, INDEX_US + 2 * YEAR),
    st.integers(-3, 3).map(lambda days: INDEX_US + days * DAY),
)
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.0, 120.0, 13682.0]), st.floats(0.5, 320, width=32))


@st.composite
def histories(draw: st.DrawFn, subject_id: int = 1, most: int = 25) -> pl.DataFrame:
    """Draw the events of one resident, in the store's order."""
    rows = []
    for _ in range(draw(st.integers(0, most))):
        code, unit = draw(st.sampled_from(CODES))
        always = code in ("female", "education", "GENDER//F", "GENDER//M") and draw(st.booleans())
        rows.append((subject_id, None if always else draw(TIMES), code, draw(NUMBERS), None, unit))
    frame = pl.DataFrame(rows, schema={**SCHEMA, "time": pl.Int64()}, orient="row")
    return canonical(frame.with_columns(pl.col("time").cast(pl.Datetime("us"))))
