"""THE list of published scores, by the target that they are rivals for."""

from collections.abc import Mapping

from features.errors import WeibingError, did_you_mean
from training.comparators.base import Comparator
from training.comparators.ckd_pc_decline import CKD_PC_DECLINE
from training.comparators.ckd_pc_incident import CKD_PC_INCIDENT
from training.comparators.fall_scale_2011 import FALL_SCALE_2011
from training.comparators.frailty_index import FRAILTY_INDEX
from training.comparators.framingham_hypertension import FRAMINGHAM_HYPERTENSION
from training.comparators.kdigo import KDIGO
from training.comparators.kfre import KFRE
from training.comparators.national_high_risk import NATIONAL_HIGH_RISK
from training.comparators.prior_fall import PRIOR_FALL
from training.comparators.recode import RECODE
from training.comparators.stay_independent import STAY_INDEPENDENT
from training.comparators.systolic_pressure import SYSTOLIC_PRESSURE
from training.comparators.three_key_questions import THREE_KEY_QUESTIONS
from training.comparators.ukpds import UKPDS

COMPARATORS: Mapping[str, tuple[Comparator, ...]] = {
    "hypertension": (*FRAMINGHAM_HYPERTENSION, NATIONAL_HIGH_RISK, SYSTOLIC_PRESSURE),
    "diabetes_complication": (KDIGO, CKD_PC_DECLINE, *CKD_PC_INCIDENT, *KFRE, *RECODE, *UKPDS),
    "fall": (FALL_SCALE_2011, STAY_INDEPENDENT, THREE_KEY_QUESTIONS, FRAILTY_INDEX, PRIOR_FALL),
}

BY_NAME: Mapping[str, Comparator] = {score.name: score for scores in COMPARATORS.values() for score in scores}


def comparator_named(name: str) -> Comparator:
    """Return a published score by name.

    Raises
    ------
    WeibingError
        If there is none of that name.
    """
    if name not in BY_NAME:
        known = list(BY_NAME)
        raise WeibingError(
            f'There is no published score "{name}".{did_you_mean(name, known)} docs/comparators.md lists them.'
        )
    return BY_NAME[name]


def names_for(target: str) -> tuple[str, ...]:
    """Return the names of the scores that are rivals for a built-in target."""
    return tuple(score.name for score in COMPARATORS[target])
