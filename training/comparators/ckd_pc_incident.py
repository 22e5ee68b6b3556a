"""CKD-PC: an eGFR below 60 within five years, in diabetes with an eGFR of 60 or above."""

from math import inf

from features.times import DAY, YEAR
from training.comparators.base import Group
from training.comparators.equation import SurvivalScore, equation

KINDS = {"total": ("any", "任一次"), "confirmed": ("confirmed", "经复查确认")}

CKD_PC_INCIDENT = tuple(
    SurvivalScore(
        name=f"ckd_pc_incident_{kind}_5y",
        label_en=f"CKD-PC, eGFR below 60 ({english}), 5 y",
        label_zh=f"CKD-PC新发eGFR<60（{chinese}），5年",
        outcome=f"eGFR below 60 ({english})",
        horizon_days=5 * YEAR // DAY,
        whom=(Group("diabetes"), Group("egfr", 60, inf)),
        equation=equation("ckd_pc_incident.csv", kind),
        note_en="Checked against one public implementation, whose baseline survival is not in the paper's form. Its "
        "cohorts were tested often, so its risks are high: read it recalibrated. The race term is 0 for everybody.",
        note_zh="已与一处公开实现核对，其基线生存率与原文形式不同。来源队列检测频繁，风险偏高：须看重新校准后的结果。种族项对所有人取0。",
    )
    for kind, (english, chinese) in KINDS.items()
)
