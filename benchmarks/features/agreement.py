"""Whether two profiles of the same residents say the same, cell by cell."""

from typing import NamedTuple

import numpy as np
import polars as pl

# Both are float32, of which a step is 6e-8: sums in another order may differ in the last digits.
TOLERANCE = 2e-6


class Agreement(NamedTuple):
    """How many cells there are, how many of them differ, and the features with such."""

    cells: int
    differing: int
    features: tuple[str, ...]


def agreement(ours: pl.DataFrame, theirs: pl.DataFrame) -> Agreement:
    """Compare profiles by resident: null where the other is null, or equal within the tolerance.

    Raises
    ------
    ValueError
        If they are not of the same residents and features.
    """
    ours, theirs = ours.sort("subject_id"), theirs.sort("subject_id")
    if not ours["subject_id"].equals(theirs["subject_id"]):
        raise ValueError("The profiles are not of the same residents.")
    names = [name for name in ours.columns if name not in ("subject_id", "index_time")]
    if sorted(names) != sorted(name for name in theirs.columns if name not in ("subject_id", "index_time")):
        raise ValueError("The profiles are not of the same features.")
    differing = {name: _differing(ours[name], theirs[name]) for name in names}
    worse = tuple(name for name, cells in differing.items() if cells)
    return Agreement(len(names) * len(ours), sum(differing.values()), worse)


def _differing(ours: pl.Series, theirs: pl.Series) -> int:
    a, b = (series.cast(pl.Float64).fill_null(np.nan).to_numpy() for series in (ours, theirs))
    return int((~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)).sum())
