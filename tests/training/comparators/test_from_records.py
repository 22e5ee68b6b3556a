"""From events to a published risk, through the engine's profile."""

from datetime import datetime

import polars as pl
import pytest

from features.engine import Engine
from tests.tables import events_from
from training.comparators.fall_scale_2011 import FALL_SCALE_2011
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


UNDATED_PARENTS = """
    time       | code                   | value
    1979-01-01 | MEDS_BIRTH             |
               | female                 | 0
               | hypertension_in_father | 1
               | hypertension_in_mother | 0
    2023-06-01 | bmi                    | 24
    2023-06-01 | sbp                    | 125
    2023-06-01 | dbp                    | 80
    2023-06-01 | smoking                | 2
"""


def test_parents_are_known_from_undated_records_and_a_no_is_not_counted():
    profiles = Engine().profiles(events_from(UNDATED_PARENTS), INDEX)
    one_parent = profiles.with_columns(family_history_hypertension=pl.lit(1.0))
    score = FRAMINGHAM_HYPERTENSION[2]
    assert profiles["family_history_hypertension"].to_list() == [1]
    assert score.predict_proba(profiles)[0] == score.predict_proba(one_parent)[0]


FALL_IN_HOSPITAL = """
    time       | code          | value
    1940-01-01 | MEDS_BIRTH    |
    2022-03-01 | ICD10//W18    |
    2022-03-01 | hospital_stay |
    2023-05-01 | ICD10//Z89.5  |
    2023-05-01 | ICD10//H54.0  |
    2023-05-01 | white_cells   | 6.5
    2023-05-01 | urine_albumin | 12
    2023-05-01 | adl_score     | 2
"""


def test_the_records_tell_a_fall_that_led_to_hospital_a_lost_leg_and_lost_sight():
    """80 years 3, an artificial limb 3, has fallen 2, in hospital for it 3, sees badly 1: 12."""
    profiles = Engine().profiles(events_from(FALL_IN_HOSPITAL), INDEX)
    told = ("hospitalised_fall_found_ever", "amputation_ever", "blindness_ever", "white_cells_latest")
    assert profiles.select(told).row(0) == (1, 1, 1, 6.5)
    assert FALL_SCALE_2011.score(profiles)[0] == 12


def test_what_the_records_lack_stays_a_range():
    profiles = Engine().profiles(events_from(HISTORY), INDEX)
    low, high = KFRE[1].bounds(profiles)
    assert not KFRE[1].computable(profiles)[0]
    assert 0 <= low[0] < high[0] <= 1
    assert THREE_KEY_QUESTIONS.bounds(profiles) == (1, 2)
