"""The three key questions: fallen in the past year, unsteady, worried about falling; any yes is at risk."""

from training.comparators.points import ItemScore

THREE_KEY_QUESTIONS = ItemScore(
    name="three_key_questions",
    label_en="Three key questions (any yes: at risk)",
    label_zh="三个关键问题（任一为是即有风险）",
    outcome="fall",
    horizon_days=None,
    concepts=("fall", "fall_found"),
    table="three_key_questions.csv",
)
