"""How well risks hold on residents the model was not fitted on.

Every measure is weighted, so that with inverse probability of censoring weights it speaks of all residents at risk and
not of those alone whose outcome is known. Rows of weight 0 are left out. Equal risks are ties and count as such.

    performance.py      all measures at once, with intervals
    discrimination.py   AUROC, average precision, what the top few percent hold, paired difference
    calibration.py      Brier score, calibration line, observed to expected, groups of rising risk
    smooth.py           the smooth calibration curve; ICI, E50, E90
    usefulness.py       net benefit, decision curve
    over_time.py        AUROC by days of follow-up
    bootstrap.py        intervals by person
    rows.py             what all of these need of the rows
"""

from training.validate.bootstrap import SHARE_NEEDED, Estimate
from training.validate.calibration import (
    CalibrationCurve,
    CalibrationLine,
    brier,
    calibration_curve,
    calibration_line,
    observed_to_expected,
    scaled_brier,
)
from training.validate.discrimination import (
    RocCurve,
    TopShare,
    auroc,
    average_precision,
    paired_difference,
    roc_curve,
    top_share,
)
from training.validate.over_time import TimeDependentAuc, time_dependent_auc
from training.validate.performance import METRICS, TOP_PERCENT, Validation, validate
from training.validate.rows import NEAREST_RISK, BoolArray, FloatArray, IntArray
from training.validate.smooth import (
    CalibrationDistance,
    SmoothCalibration,
    calibration_distance,
    smooth_calibration,
)
from training.validate.usefulness import DecisionCurve, decision_curve, net_benefit, net_benefit_difference

__all__ = [
    "METRICS",
    "NEAREST_RISK",
    "SHARE_NEEDED",
    "TOP_PERCENT",
    "BoolArray",
    "CalibrationCurve",
    "CalibrationDistance",
    "CalibrationLine",
    "DecisionCurve",
    "Estimate",
    "FloatArray",
    "IntArray",
    "RocCurve",
    "SmoothCalibration",
    "TimeDependentAuc",
    "TopShare",
    "Validation",
    "auroc",
    "average_precision",
    "brier",
    "calibration_curve",
    "calibration_distance",
    "calibration_line",
    "decision_curve",
    "net_benefit",
    "net_benefit_difference",
    "observed_to_expected",
    "paired_difference",
    "roc_curve",
    "scaled_brier",
    "smooth_calibration",
    "time_dependent_auc",
    "top_share",
    "validate",
]
