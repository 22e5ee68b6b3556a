"""The years of the record, in days since 1970. Hazards and the state of a resident are held for a calendar year."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Days = NDArray[np.int64]
Flags = NDArray[np.bool_]

DAYS_A_YEAR = 365.25
QUARTERS = 4
# Later than any day of any county.
NEVER = 10_000_000


def day_of(when: date) -> int:
    """Return a date as days since 1970."""
    return (when - date(1970, 1, 1)).days


@dataclass(frozen=True)
class Period:
    """So many calendar years, the first included."""

    first_year: int
    years: int

    def new_year(self, year: int) -> int:
        """Return the first day of a year of the period, counted from 0; years before and after it are allowed."""
        return day_of(date(self.first_year + year, 1, 1))

    @property
    def start(self) -> int:
        """The first day."""
        return self.new_year(0)

    @property
    def end(self) -> int:
        """The day after the last."""
        return self.new_year(self.years)

    @cached_property
    def years_from(self) -> Days:
        """The first day of every year, and the day after the last, shape (years + 1,)."""
        return np.array([self.new_year(year) for year in range(self.years + 1)], np.int64)

    @cached_property
    def quarters_from(self) -> Days:
        """The first day of every quarter, and the day after the last, shape (4 * years + 1,)."""
        first = np.datetime64(f"{self.first_year}-01", "M")
        months = first + 3 * np.arange(QUARTERS * self.years + 1)
        return months.astype("datetime64[D]").astype(np.int64)
