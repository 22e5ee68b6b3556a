"""What is wrong with the records of a store. See `docs/quality.md`.

survey.py        how far the records go; one shard of them at a time, with what it says in concepts
completeness.py  of how many residents there is a usable value
values.py        numbers missing, impossible, far out or in another unit (units.py, spread.py); unknown codes
digits.py        the last digits of blood pressure
trajectories.py  what cannot be true of one resident
labels.py        what a model can learn from
freshness.py     how old the records are, and months with too few of them
repeats.py       measurements told twice in other words
report.py        all checks; their result for programs and for a terminal
page.py          the same as one page, with charts (charts.py, page.html)
words.py         what reports say; words.csv has it in English and Chinese
"""

from features.quality.fault import Fault, Level
from features.quality.report import Quality, check

__all__ = ["Fault", "Level", "Quality", "check"]
