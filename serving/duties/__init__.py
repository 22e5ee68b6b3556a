"""The duties: what the service rules say is due for a resident, with a date, a reason and a source.

The rules are data (`rules.csv`, `signs.csv`, `targets.csv`); `forms.py` works each of their forms out.
"""

from serving.duties.duty import Control, Duty, DutyRules, control, due
from serving.duties.history import History
from serving.duties.rules import Rulebook, rulebook

__all__ = ["Control", "Duty", "DutyRules", "History", "Rulebook", "control", "due", "rulebook"]
