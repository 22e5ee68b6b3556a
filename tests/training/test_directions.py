"""Promise 5 at its root: raising a value that is worse when more moves no feature of a model the wrong way."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.events import canonical, normalised
from features.rules import moved_by
from features.times import instant, microseconds
from training.fit import monotone, usable_features
from training.targets import TARGETS

ENGINE = Engine()
INDEX = microseconds(instant(date(2024, 1, 1)))
DAY = 86_400_000_000

# Values that rules and derived values look at, around their limits.
VALUES = {
    "sbp": (110, 170),
    "dbp": (70, 105),
    "hba1c": (5, 9),
    "uacr": (5, 400),
    "bmi": (18, 32),
    "glucose_fasting": (4, 9),
    "adl_score": (0, 10),
    "timed_up_and_go": (6, 20),
    "grip_strength": (10, 50),
    "creatinine": (60, 200),
}
OTHERS = ["diabetes", "hypertension", "stroke", "fall", "statin", "examination", "osteoporosis", "arthritis"]

# A matrix in which every feature varies, so that only the target's own reasons leave one out.
VARYING = np.repeat(np.array([[0.0], [1.0]], np.float32), len(ENGINE.profile), axis=1)

# Few, so that values share moments.
MONTHS = st.sampled_from([0, 1, 3, 9, 30])

# Visits: how many months before the index time, what was measured, and what else was noted.
HISTORIES = st.dictionaries(
    MONTHS,
    st.tuples(
        st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 20), min_size=3, max_size=8),
        st.sets(st.sampled_from(OTHERS), max_size=2),
    ),
    min_size=1,
).map(lambda visits: [each for months, visit in visits.items() for each in told_at(months, *visit)])


def told_at(months: int, measured: dict[str, int], noted: set[str]) -> list[tuple[str, int, int | None]]:
    """Return what a visit tells: a code, when, and the value in twentieths of its range."""
    return [(code, months, value) for code, value in measured.items()] + [
        (code, months, None) for code in sorted(noted)
    ]


def events_of(history: list[tuple[str, int, int | None]]) -> pl.DataFrame:
    """Twentieths of the range of a value, every thirty days before the index time."""
    values = [None if n is None else VALUES[c][0] + (VALUES[c][1] - VALUES[c][0]) * n / 20 for c, _, n in history]
    times = [INDEX - (1 + 30 * months) * DAY for _, months, _ in history]
    born = pl.DataFrame({"code": ["MEDS_BIRTH"], "numeric_value": [None], "time": [INDEX - 60 * 365 * DAY]})
    told = pl.DataFrame({"code": [c for c, _, _ in history], "numeric_value": values, "time": times})
    both = pl.concat([born.cast({"numeric_value": pl.Float64}), told.cast({"numeric_value": pl.Float64})])
    female = pl.DataFrame({"subject_id": [1], "code": ["female"], "numeric_value": [1.0]})
    dated = both.with_columns(subject_id=pl.lit(1), time=pl.col("time").cast(pl.Datetime("us")))
    return canonical(normalised(pl.concat([normalised(dated), normalised(female)])))


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(history=HISTORIES, data=st.data())
@settings(max_examples=150)
def test_raising_a_value_moves_a_feature_the_way_it_is_bound_or_not_at_all(name, history, data):
    target = TARGETS[name]
    worse = dict.fromkeys(target.increasing, 1) | dict.fromkeys(target.decreasing, -1)
    chosen = [place for place, (code, _, value) in enumerate(history) if code in worse and value is not None]
    if not chosen:
        return
    place = data.draw(st.sampled_from(chosen))
    code, months, value = history[place]
    raised = [*history]
    raised[place] = (code, months, value + data.draw(st.integers(1, 10)))
    before, after = (ENGINE.one(events_of(each), INDEX).astype(float) for each in (history, raised))
    kept, _ = usable_features(list(ENGINE.profile.names), VARYING, target, ENGINE)
    for feature, bound in zip(kept, monotone(kept, target, ENGINE), strict=True):
        column = ENGINE.profile.names.index(feature)
        low, high = before[column], after[column]
        # Values are kept in 32 bits: a mean may move by a rounding.
        if (np.isnan(low) and np.isnan(high)) or np.isclose(low, high, rtol=1e-6):
            continue
        assert bound * worse[code] * (high - low) > 0, (feature, bound, low, high)


@pytest.mark.parametrize(
    ("concept", "source", "directions"),
    [
        ("pulse_pressure", "sbp", {1}),
        ("pulse_pressure", "dbp", {-1}),
        ("egfr", "creatinine", {-1}),
        ("ckd_measured", "egfr", {-1}),
        ("ckd_measured", "creatinine", {1}),
        ("hypertension_found", "sbp", {1}),
        ("high_normal_pressure", "sbp", {1, -1}),
        ("frailty_index", "adl_score", {1}),
        ("frailty_index", "mmse", {-1}),
        ("blood_pressure_uncontrolled", "sbp", {1}),
    ],
)
def test_what_a_value_moves(concept, source, directions):
    assert moved_by(concept)[source] == directions


def test_nobody_s_age_is_raised():
    assert "age" not in moved_by("egfr")
