"""From events to a published risk, through the engine's profile."""

from datetime import datetime

import polars as pl
import pytest

from features.engine import Engine
from tests.tables import events_from
from training.comparators.framingham_hypertension import FRAMINGHAM_HYPERTENSION
from training.comparators.kfre import KFRE
from training.comparators.three_key_questions import THREE_KEY_QUESTIONS

INDEX = pl.DataFrame({"subject_id": [1], "index_time": [datetime(2024, 1, 1)]})

HISTORY = """
    time       | code                        | value
    1979-01-01 | MEDS_BIRTH                  |
               | female                      | 0
    2023-06-01 | bmi                         | 24
    2023-06-01 | sbp                         | 125
    2023-06-01 | dbp                         | 80
    2023-06-01 | smoking                     | 2
    2023-06-01 | family_history_hypertension | 0
    2023-06-01 | unsteady_walking            | 1
"""


def test_framingham_is_computed_from_records_as_they_come():
    """A man of 45, 24 kg/m2, 125/80, smoker, no parent with hypertension: 13.784 % in four years."""
    profiles = Engine().profiles(events_from(HISTORY), INDEX)
    assert FRAMINGHAM_HYPERTENSION[2].predict_proba(profiles)[0] == pytest.approx(0.13784, abs=1e-4)


def test_what_the_records_lack_stays_a_range():
    profiles = Engine().profiles(events_from(HISTORY), INDEX)
    low, high = KFRE[1].bounds(profiles)
    assert not KFRE[1].computable(profiles)[0]
    assert 0 <= low[0] < high[0] <= 1
    assert THREE_KEY_QUESTIONS.bounds(profiles) == (1, 2)
