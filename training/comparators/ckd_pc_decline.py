"""CKD-PC: a fall of eGFR by 40 % or kidney failure within three years, in diabetes with an eGFR of 60 or above."""

from math import inf

from features.times import DAY, YEAR
from training.comparators.base import Group
from training.comparators.equation import LogisticScore, equation

CKD_PC_DECLINE = LogisticScore(
    name="ckd_pc_decline_3y",
    label_en="CKD-PC, 40 % decline of eGFR or kidney failure, 3 y",
    label_zh="CKD-PC肾功能下降40%或肾衰竭，3年",
    outcome="eGFR falls by 40 %, or kidney failure",
    horizon_days=3 * YEAR // DAY,
    whom=(Group("diabetes"), Group("egfr", 60, inf)),
    equation=equation("ckd_pc_decline.csv", "ckd_pc_decline"),
    note_en="Checked against one public implementation, which counts insulin as an oral drug too, and so is it here.",
    note_zh="已与一处公开实现核对；该实现将胰岛素同时计为口服降糖药，此处相同。",
)
