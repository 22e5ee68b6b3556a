"""The Chinese fall risk scale of 2011 (老年人跌倒风险评估工具), from the records or as the clinic totalled it."""

from training.comparators.points import ItemScore

FALL_SCALE_2011 = ItemScore(
    name="fall_scale_2011",
    label_en="Fall risk scale of 2011 (10 or more: high)",
    label_zh="老年人跌倒风险评估工具（2011；10分及以上为高危）",
    outcome="fall",
    horizon_days=None,
    concepts=("fall", "fall_found"),
    table="fall_scale_2011.csv",
    total="fall_scale_2011_score_latest",
    note_en="Seven of its 35 items are told by the records with a yes at most, and widen the bounds of everybody whose "
    "total was not recorded; whether someone needs help to walk is told by the self-care form alone. "
    "Treated hypertension and diabetes alone score 2 or 3, so that most people in care are at medium risk by it.",
    note_zh="35项中有7项在记录中至多能判为“是”，凡未记录总分者其范围因此变宽；行走是否需人帮助仅由自理能力表得知。仅用降压药和降糖药即得2至3分，故多数在管者均为中危。",
)
