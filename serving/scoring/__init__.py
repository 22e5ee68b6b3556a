"""Scores: calibrated absolute risks with their reasons, of one resident now or of a whole store at night.

A score is for a resident at risk by the target's own rule, asked at the index time. Where the records cannot answer a
part of the rule (no birth, no blood pressure yet) the resident is scored, and `completeness` says on how little.
"""

from serving.scoring.scorer import Scorer, score_one
from serving.scoring.scores import NotAtRisk, Score

__all__ = ["NotAtRisk", "Score", "Scorer", "score_one"]
