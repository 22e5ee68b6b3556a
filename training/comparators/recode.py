"""RECODe: six complications of diabetes within ten years. To rank by; its risks are not to be read as they stand."""

from features.times import DAY, YEAR
from training.comparators.base import Group
from training.comparators.equation import SurvivalScore, equation

OUTCOMES = {
    "nephropathy": ("kidney failure", "肾衰竭"),
    "retinopathy": ("severe loss of vision", "严重视力丧失"),
    "neuropathy": ("loss of feeling for pressure", "压力觉丧失"),
    "heart_attack_or_stroke": ("heart attack or stroke", "心肌梗死或脑卒中"),
    "heart_failure": ("heart failure", "心力衰竭"),
    "death": ("death of any cause", "全因死亡"),
}

RECODE = tuple(
    SurvivalScore(
        name=f"recode_{name}_10y",
        label_en=f"RECODe, {english}, 10 y (ranking only)",
        label_zh=f"RECODe {chinese}，10年（仅供排序）",
        outcome=english,
        horizon_days=10 * YEAR // DAY,
        whom=(Group("diabetes"),),
        equation=equation("recode.csv", name),
        ranking_only=True,
        note_en="For ranking only: at the mean profile of its own cohort four of the six equations give about twice "
        "the risk observed there. The race terms are 0 for everybody.",
        note_zh="仅供排序：在其自身队列的平均特征下，六个方程中有四个给出的风险约为观察值的两倍。种族项对所有人取0。",
    )
    for name, (english, chinese) in OUTCOMES.items()
)
