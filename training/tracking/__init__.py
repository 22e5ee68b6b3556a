"""MLflow: what every training run leaves behind, and which model of a target serves.

registry.py       runs, versions, the champion: log, load, promote, roll back
described.py      a run in MLflow's terms
evidence.py       what a run keeps beside its model
tables.py         the evidence as tables
model_files.py    a model as MLflow serves it
history.py        who promoted what, when and why
code_version.py   which code ran
"""

from training.tracking.described import metrics_of, parameters_of
from training.tracking.history import Promotion
from training.tracking.model_files import digest_of, example_of, save_for_mlflow, signature_of
from training.tracking.place import CHALLENGER, CHAMPION, Alias
from training.tracking.registry import RefusedError, Registered, Registry

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Alias",
    "Promotion",
    "RefusedError",
    "Registered",
    "Registry",
    "digest_of",
    "example_of",
    "metrics_of",
    "parameters_of",
    "save_for_mlflow",
    "signature_of",
]
