"""The Framingham hypertension risk score: new hypertension within one, two or four years (a Weibull model)."""

from dataclasses import dataclass

import numpy as np

from features.times import DAY, YEAR
from training.comparators.equation import EquationScore, Values, equation, one_less_exp
from training.comparators.inputs import Floats


@dataclass(frozen=True, kw_only=True)
class FraminghamHypertension(EquationScore):
    """``1 - exp(-exp((ln years - predictor) / scale))``."""

    years: int

    def risk(self, predictor: Floats, values: Values) -> Floats:
        """Return the risk within the years; the predictor is of the logarithm of the time until hypertension."""
        scale = self.equation.constants["scale"]
        return one_less_exp(-np.exp((np.log(self.years) - predictor) / scale))


FRAMINGHAM_HYPERTENSION = tuple(
    FraminghamHypertension(
        name=f"framingham_hypertension_{years}y",
        label_en=f"Framingham hypertension score, {years} y",
        label_zh=f"弗雷明汉高血压风险评分，{years}年",
        outcome="new hypertension (140/90 or treatment)",
        horizon_days=years * YEAR // DAY,
        concepts=("hypertension", "hypertension_found"),
        equation=equation("framingham_hypertension.csv", "framingham_hypertension"),
        years=years,
        note_en="In rural Liaoning (24,434 people of 35 and over) it ranked with C 0.610 at four years and 0.537 at "
        "two, and its risks were far off (Zheng, Am J Hypertens 2014;27:409): read it recalibrated as well as raw.",
        note_zh="在辽宁农村（24434人，35岁及以上）其C统计量4年为0.610、2年为0.537，且校准很差"
        "（Zheng, Am J Hypertens 2014;27:409）：须同时看原始与重新校准后的结果。",
    )
    for years in (1, 2, 4)
)
