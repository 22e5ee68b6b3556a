"""The national service specification's rule: one of six factors makes a resident at high risk of hypertension."""

from training.comparators.points import ItemScore

NATIONAL_HIGH_RISK = ItemScore(
    name="national_high_risk",
    label_en="National high-risk rule for hypertension (factors of 6; one is high risk)",
    label_zh="国家基本公卫高血压高危规则（6项中的项数；任1项即高危）",
    outcome="hypertension",
    horizon_days=None,
    concepts=("hypertension", "hypertension_found"),
    table="national_high_risk.csv",
    note_en="The score is the number of factors; the rule itself is one or more. Where how much is "
    "drunk was not recorded, daily drinking leaves that factor open, less often is a no. The family history is of "
    "parents alone.",
    note_zh="得分为符合的项数，规则本身为1项及以上。未记录饮酒量时，每天饮酒者该项未知，少于每天者为否。家族史仅含父母。",
)
