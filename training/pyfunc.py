"""The model as MLflow serves it: a frame of features in, risks or their reasons out.

MLflow copies this file into every model and runs it when the model is loaded (models-from-code), so that nothing is
pickled; the model's own files lie beside it and are read by :class:`training.model.RiskModel`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from training.model import RiskModel

BASE = "base"


class ServedRiskModel(PythonModel):
    """A RiskModel behind MLflow's interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model's files."""
        self.model = RiskModel.load(Path(context.artifacts["model"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: Mapping[str, bool] | None = None,
    ) -> NDArray[np.float64] | pd.DataFrame:
        """Return each row's calibrated risk; with ``explain``, the base and contributions that sum to its log-odds."""
        matrix = model_input[list(self.model.card.features)].to_numpy(np.float64)
        if not (params or {}).get("explain"):
            return self.model.probability(matrix)
        explained = pd.DataFrame(self.model.contributions(matrix), model_input.index, list(self.model.card.features))
        explained.insert(0, BASE, self.model.base)
        return explained


set_model(ServedRiskModel())
