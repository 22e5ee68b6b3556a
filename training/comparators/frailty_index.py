"""The electronic frailty index: the share of 36 deficits that the records show."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from training.comparators.base import PointScore, band_rows, weakest
from training.comparators.inputs import Floats, Input, column

INDEX, ASSESSABLE = "frailty_index_latest", "frailty_assessable_latest"
DEFICITS = 36


@dataclass(frozen=True, kw_only=True)
class FrailtyIndex(PointScore):
    """The index as the profile has it; what cannot be assessed may be a deficit or not."""

    @property
    def paper(self) -> str:
        """Where the index and its bands are published."""
        return band_rows(self.name)[0]["paper"]

    @property
    def trust(self) -> str:
        """The trust mark of the least sure of its bands."""
        return weakest([row["trust"] for row in band_rows(self.name)])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The index and the number of deficits that can be assessed."""
        return (Input("frailty_index", (INDEX,)), Input("deficits_assessable", (ASSESSABLE,), high=DEFICITS))

    def score(self, profiles: pl.DataFrame) -> Floats:
        """Return the index, shape (n,), of all 36 deficits; NaN where none can be assessed."""
        return column(profiles, INDEX)

    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the index, and what it would be if all that cannot be assessed were deficits."""
        low = np.nan_to_num(column(profiles, INDEX))
        assessable = np.nan_to_num(column(profiles, ASSESSABLE))
        return low, low + 1 - assessable / DEFICITS


FRAILTY_INDEX = FrailtyIndex(
    name="frailty_index",
    label_en="Electronic frailty index (of 36 deficits)",
    label_zh="电子衰弱指数（36项缺陷）",
    outcome="care home, hospital and death",
    horizon_days=None,
    note_en="Deficits that the records cannot show count as absent in the index, and as present in its upper bound.",
    note_zh="记录无法体现的缺陷在指数中按无计，在上限中按有计。",
)
