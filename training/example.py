"""What a model said, when it was made, of a few rows that are nobody's: one that was damaged since says otherwise."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]

ROWS = 12
# In the example a feature is unknown this often.
UNKNOWN = 0.3
EXACT = 1e-9


@dataclass(frozen=True)
class Example:
    """Rows, and what is said of them.

    Attributes
    ----------
    rows : shape (rows, features), NaN where unknown
    probability, lower, upper : shape (rows,)
    base : the calibrated log-odds before anything is known
    contributions : shape (rows, concepts), calibrated log-odds
    """

    rows: Floats
    probability: Floats
    lower: Floats
    upper: Floats
    base: float
    contributions: Floats

    def off(self, other: "Example") -> float:
        """Return by how much another says otherwise of the same rows, at most; infinite where it is of others."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in _SAID]
        if any(np.shape(ours) != np.shape(theirs) for ours, theirs in pairs):
            return np.inf
        return max(float(np.abs(np.subtract(ours, theirs)).max(initial=0.0)) for ours, theirs in pairs)

    def as_json(self) -> dict[str, object]:
        """Return what a file holds; null is unknown."""
        rows = [[None if np.isnan(value) else value for value in row] for row in self.rows.tolist()]
        return {"rows": rows} | {name: np.asarray(getattr(self, name)).tolist() for name in _SAID}


_SAID = ("probability", "lower", "upper", "base", "contributions")


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rows: list[list[float | None]]
    probability: list[float]
    lower: list[float]
    upper: list[float]
    base: float
    contributions: list[list[float]]


def rows_of(typical: Sequence[Sequence[float]]) -> Floats:
    """Draw rows from what is typical of each feature, some of it unknown; of the last, nothing is known.

    Returns
    -------
    shape (ROWS, features), in single precision
    """
    draw = np.random.default_rng(0)
    rows = np.full((ROWS, len(typical)), np.nan, np.float32)
    for column, values in zip(rows.T, typical, strict=True):
        if len(values):
            column[:] = np.where(draw.random(ROWS) < UNKNOWN, np.nan, draw.choice(values, ROWS))
    rows[-1] = np.nan
    return rows.astype(np.float64)


def write_example(path: Path, example: Example) -> None:
    """Keep an example in a file."""
    path.write_text(json.dumps(example.as_json(), separators=(",", ":")) + "\n", encoding="utf-8")


def read_example(path: Path) -> Example | None:
    """Return the example in a file; None where there is no file.

    Raises
    ------
    ValueError
        If the file holds none.
    """
    if not path.exists():
        return None
    kept = _Kept.model_validate_json(path.read_bytes())
    return Example(
        rows=np.array(kept.rows, np.float64),
        probability=np.array(kept.probability),
        lower=np.array(kept.lower),
        upper=np.array(kept.upper),
        base=kept.base,
        contributions=np.array(kept.contributions),
    )
