"""The latest systolic pressure alone: what a ranking costs that asks for nothing else."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from training.comparators.base import PointScore
from training.comparators.inputs import Floats, Input, inputs


@dataclass(frozen=True, kw_only=True)
class SystolicPressure(PointScore):
    """The pressure in mmHg."""

    @property
    def paper(self) -> str:
        """What it is taken from."""
        return "no coefficients: the measured value"

    @property
    def trust(self) -> str:
        """There is nothing to verify."""
        return "VP"

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The pressure."""
        return (inputs()["sbp"],)

    def score(self, profiles: pl.DataFrame) -> Floats:
        """Return the pressure, shape (n,); NaN where it was not measured."""
        return inputs()["sbp"].values(profiles)

    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the pressure; the range of `inputs.csv` where it was not measured."""
        pressure, asked = self.score(profiles), inputs()["sbp"]
        unknown = np.isnan(pressure)
        return np.where(unknown, asked.low, pressure), np.where(unknown, asked.high, pressure)


SYSTOLIC_PRESSURE = SystolicPressure(
    name="systolic_pressure",
    label_en="Systolic pressure alone",
    label_zh="仅收缩压",
    outcome="hypertension",
    horizon_days=None,
    concepts=("hypertension", "hypertension_found"),
)
