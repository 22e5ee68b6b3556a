"""A fall on record in the past year, alone."""

from training.comparators.points import ItemScore

PRIOR_FALL = ItemScore(
    name="prior_fall",
    label_en="A fall on record in the past year",
    label_zh="近一年有跌倒记录",
    outcome="fall",
    horizon_days=None,
    concepts=("fall", "fall_found"),
    table="prior_fall.csv",
    note_en="Records hold few of the falls that people tell of when asked. Of residents whom nobody asked, the bounds "
    "stay open.",
    note_zh="记录中的跌倒远少于询问所得。未经询问者，其范围保持开放。",
)
