"""Profiles and outcomes in, models out: the middle floor of Weibing."""

import os

# Nothing about a county leaves it. The libraries read these when they are imported, so they stand before all else;
# MLflow honours the first two, each with the word "true", and BentoML the third.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "BENTOML_DO_NOT_TRACK": "true"}
# Quiet, unless someone asks for more.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
