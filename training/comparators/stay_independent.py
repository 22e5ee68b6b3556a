"""Stay Independent (老年人跌倒风险自评量表): twelve questions to a resident; four points or more are at risk."""

from training.comparators.points import ItemScore

STAY_INDEPENDENT = ItemScore(
    name="stay_independent",
    label_en="Stay Independent (4 or more: at risk)",
    label_zh="老年人跌倒风险自评量表（4分及以上为有风险）",
    outcome="fall",
    horizon_days=None,
    concepts=("fall", "fall_found"),
    table="stay_independent.csv",
    total="stay_independent_score_latest",
    note_en="Without a recorded total it is put together of the twelve items, and computed only where all are known: "
    "where the form was filled in.",
    note_zh="未记录总分时由12个条目合成，仅在全部条目已知（即填写过该表）时计算。",
)
