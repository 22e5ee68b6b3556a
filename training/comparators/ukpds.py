"""UKPDS Outcomes Model 2: complications of diabetes within a year, where the profile holds what it asks for."""

from dataclasses import dataclass
from math import inf

import numpy as np

from features.times import DAY, YEAR
from training.calibrate import expit
from training.comparators.base import Group
from training.comparators.equation import EquationScore, Values, equation, one_less_exp
from training.comparators.inputs import Floats


def without(name: str) -> Group:
    """People who have not had it."""
    return Group(name, -inf, 1)


OUTCOMES = {
    "heart_failure": ("heart failure", "心力衰竭", (without("heart_failure"),)),
    "ischaemic_heart_disease": ("ischaemic heart disease", "缺血性心脏病", (without("ischaemic_heart_disease"),)),
    "heart_attack_men": ("first heart attack, men", "首次心肌梗死，男", (Group("male"), without("heart_attack"))),
    "heart_attack_women": ("first heart attack, women", "首次心肌梗死，女", (Group("female"), without("heart_attack"))),
    "heart_attack_again": ("another heart attack", "再次心肌梗死", (Group("heart_attack"),)),
    "stroke": ("first stroke", "首次脑卒中", (without("stroke"),)),
    "stroke_again": ("another stroke", "再次脑卒中", (Group("stroke"),)),
    "blindness": ("blindness in one eye", "单眼失明", ()),
    "foot_ulcer": ("foot ulcer", "足溃疡", (without("foot_ulcer"),)),
    "amputation_without_ulcer": ("amputation, no ulcer before", "截肢，既往无足溃疡", (without("foot_ulcer"),)),
    "amputation_with_ulcer": ("amputation, ulcer before", "截肢，既往有足溃疡", (Group("foot_ulcer"),)),
    "kidney_failure": ("kidney failure", "肾衰竭", ()),
}


@dataclass(frozen=True, kw_only=True)
class Ukpds(EquationScore):
    """A Weibull hazard over the years of diabetes, over the year from now; or a logistic equation of the year."""

    def risk(self, predictor: Floats, values: Values) -> Floats:
        """Return ``1 - exp(H(t) - H(t + 1))`` with ``H(t) = exp(predictor) * t ** rho``; or the inverse logit."""
        if not self.beside:
            return expit(predictor)
        years, rho = np.maximum(values["diabetes_years"], 0.0), self.equation.constants["rho"]
        return one_less_exp(np.exp(predictor) * (years**rho - (years + 1) ** rho))


UKPDS = tuple(
    Ukpds(
        name=f"ukpds_{name}_1y",
        label_en=f"UKPDS-OM2, {english}, 1 y",
        label_zh=f"UKPDS-OM2 {chinese}，1年",
        outcome=english,
        horizon_days=YEAR // DAY,
        whom=(Group("diabetes"), *whom),
        equation=equation("ukpds.csv", name),
        beside=() if name == "foot_ulcer" else ("diabetes_years",),
        note_en="The splines of eGFR and LDL are read as continuous ones, as the paper names them; public "
        "implementations let them jump. eGFR is CKD-EPI 2021, not MDRD; 30 mg/g of albumin stands in where it was "
        "not measured in mg/L, a diabetic foot for an ulcer. The years of diabetes are those since its first record. "
        "Terms of ethnicity are 0 for everybody.",
        note_zh="eGFR与LDL样条按原文所称“连续样条”处理，公开实现中则有跳变。eGFR用CKD-EPI 2021而非MDRD。"
        "未测尿白蛋白浓度时以30 mg/g代替50 mg/L，以糖尿病足代替足溃疡。糖尿病病程自首次记录起算。种族项对所有人取0。",
    )
    for name, (english, chinese, whom) in OUTCOMES.items()
)
