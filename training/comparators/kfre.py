"""KFRE: kidney failure within two or five years in chronic kidney disease G3 to G5, by four variables."""

from math import inf

from features.times import DAY, YEAR
from training.comparators.base import Group
from training.comparators.equation import SurvivalScore, equation

KFRE = tuple(
    SurvivalScore(
        name=f"kfre_{years}y",
        label_en=f"Kidney failure risk equation (4 variables), {years} y",
        label_zh=f"肾衰竭风险方程（4变量），{years}年",
        outcome="kidney failure (dialysis or transplant)",
        horizon_days=years * YEAR // DAY,
        whom=(Group("egfr", -inf, 60),),
        equation=equation("kfre.csv", "kfre"),
        baseline=f"baseline_survival_{years}y",
        note_en="Baseline survival of countries outside North America. Only with an eGFR below 60.",
        note_zh="采用北美以外地区的基线生存率。仅适用于eGFR<60者。",
    )
    for years in (2, 5)
)
