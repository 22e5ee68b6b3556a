"""What published scores ask for, read from profiles: numbers in the paper's unit; yes, no or unknown.

A feature that is 0 where nothing was recorded (a diagnosis, a drug, a number of falls) says no only of a resident whose
records show a contact or a measurement before the index time. Of anyone else it says nothing.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf, nan
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.measures import KINDS
from features.profile import PROFILE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDER = Path(__file__).parent

# Any of them known, or above 0 where it counts: somebody saw the resident and wrote something down.
SIGNS_OF_A_CONTACT = (
    *("examination_days_since", "follow_up_visit_days_since", "hospital_stay_days_since", "sbp_days_since"),
    *("hba1c_days_since", "creatinine_days_since_first", "glucose_fasting_days_since_first", "bmi_latest"),
    *("outpatient_visit_count_1y", "emergency_visit_count_1y", "chronic_condition_count", "drug_class_count"),
)
# These sum features that are 0 where nothing was recorded, and are so themselves.
SUMS = frozenset({"chronic_condition_count", "drug_class_count"})


def all_of(conditions: Iterable[Bools]) -> Bools:
    """Return where every condition holds; there is at least one."""
    return np.asarray(np.logical_and.reduce(list(conditions)))


def any_of(conditions: Iterable[Bools]) -> Bools:
    """Return where one of the conditions holds, or more; there is at least one."""
    return np.asarray(np.logical_or.reduce(list(conditions)))


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a table beside this file, by column name."""
    with (FOLDER / table).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def number(cell: str, otherwise: float) -> float:
    """Return a cell as a number; `otherwise` where it is empty."""
    return float(cell) if cell else otherwise


def column(profiles: pl.DataFrame, feature: str) -> Floats:
    """Return a feature of each resident, NaN where unknown; all unknown where the profiles do not hold it."""
    if feature not in profiles.columns:
        return np.full(profiles.height, nan)
    return profiles[feature].cast(pl.Float64).fill_null(nan).to_numpy()


@cache
def zero_by_absence(feature: str) -> bool:
    """Whether a feature is 0 where nothing was recorded."""
    return feature in SUMS or KINDS[PROFILE[feature].measure].nothing == 0


def seen(profiles: pl.DataFrame) -> Bools:
    """Return whether the records show a contact or a measurement, so that what is not there can be taken for a no."""
    nothing = {feature: 0.0 if zero_by_absence(feature) else -inf for feature in SIGNS_OF_A_CONTACT}
    return any_of(column(profiles, feature) > none for feature, none in nothing.items())


def recorded(profiles: pl.DataFrame, feature: str) -> Floats:
    """Return a feature of each resident; NaN also where it is 0 of a resident of whom nothing is recorded."""
    values = column(profiles, feature)
    if not zero_by_absence(feature):
        return values
    return np.where((values == 0) & ~seen(profiles), nan, values)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A feature that answers a question with yes: ``at_least <= value < below``.

    Attributes
    ----------
    no_below : the answer is no only where the value is below this; any other value that is not a yes leaves it open
    female : 1 or 0 where it holds for one sex alone, NaN for both
    only_yes : a no does not need it
    no_settles : its no is enough, unless something else says yes
    """

    feature: str
    at_least: float
    below: float
    no_below: float
    female: float
    only_yes: bool
    no_settles: bool

    @property
    def can_say_no(self) -> bool:
        """Whether any value of it is a no."""
        return self.no_below > -inf

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the profile that it is read from."""
        return (self.feature,) if np.isnan(self.female) else (self.feature, "female")

    def answers(self, profiles: pl.DataFrame) -> tuple[Bools, Bools]:
        """Return where it says yes, and where no; unknown where neither."""
        values = recorded(profiles, self.feature)
        meets = (values >= self.at_least) & (values < self.below)
        fails = (values < self.no_below) & ~meets
        if np.isnan(self.female):
            return meets, fails
        female = column(profiles, "female")
        return meets & (female == self.female), fails | (female == 1 - self.female)


def evidence_from(row: Mapping[str, str]) -> Evidence:
    """Read a row of a table of inputs or items."""
    return Evidence(
        feature=row["feature"],
        at_least=number(row["at_least"], -inf),
        below=number(row["below"], inf),
        no_below=number(row.get("no_below", ""), inf),
        female=number(row.get("female", ""), nan),
        only_yes=row.get("only_yes", "") == "1",
        no_settles=row.get("no_settles", "") == "1",
    )


def answer(evidence: Iterable[Evidence], profiles: pl.DataFrame) -> Floats:
    """Return 1 where any of the evidence says yes, 0 where all that a no needs says no, or one settles it; else NaN."""
    said = [(each, *each.answers(profiles)) for each in evidence]
    nobody = np.zeros(profiles.height, np.bool_)
    needed = [no for each, _, no in said if not each.only_yes]
    no = any_of([nobody, *(no for each, _, no in said if each.no_settles), all_of(needed) if needed else nobody])
    return np.where(any_of([yes for _, yes, _ in said]), 1.0, np.where(no, 0.0, nan))


def can_be_no(evidence: Iterable[Evidence]) -> bool:
    """Whether a question can be answered with no at all, and not with yes alone."""
    listed = list(evidence)
    needed = [each for each in listed if not each.only_yes]
    return any(each.no_settles for each in listed) or (bool(needed) and all(each.can_say_no for each in needed))


@dataclass(frozen=True)
class Input:
    """What a score asks for.

    Attributes
    ----------
    name : str
    features : tuple of str
        Of the profile, that it is read from; none where the profile holds nothing of it.
    unit : str
        The paper's (UCUM); empty for yes (1) or no (0), and for counts.
    low, high : float
        The range in which an unknown value is looked for, to bound a score.
    """

    name: str
    features: tuple[str, ...]
    unit: str = ""
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Quantity(Input):
    """An input of an equation, with its rows of `inputs.csv`: one with a number, or the evidence for a yes."""

    rows: tuple[Mapping[str, str], ...] = ()

    @property
    def fixed(self) -> bool:
        """Whether it is the same for everybody, whoever they are."""
        return bool(self.rows[0]["fixed"])

    @property
    def is_answer(self) -> bool:
        """Whether it is yes or no, and not a number."""
        return bool(self.rows[0]["at_least"] or self.rows[0]["below"])

    def values(self, profiles: pl.DataFrame) -> Floats:
        """Return it of each resident, in the paper's unit, or 1 for yes and 0 for no; NaN where unknown."""
        first = self.rows[0]
        if self.fixed:
            return np.full(profiles.height, float(first["fixed"]))
        if not self.features:
            return np.full(profiles.height, nan)
        if self.is_answer:
            yes = answer(map(evidence_from, self.rows), profiles)
            return 1 - yes if first["negated"] else yes
        return _number(first, profiles)


def _number(row: Mapping[str, str], profiles: pl.DataFrame) -> Floats:
    value = column(profiles, row["feature"]) * number(row["factor"], 1.0) / number(row["divisor"], 1.0)
    if not row["minus"]:
        return value
    return value - column(profiles, row["minus"]) / number(row["minus_divisor"], 1.0)


@cache
def inputs() -> Mapping[str, Quantity]:
    """Return every input of the equations, by name."""
    grouped: dict[str, list[Mapping[str, str]]] = {}
    for row in rows_of("inputs.csv"):
        grouped.setdefault(row["input"], []).append(row)
    return {name: _quantity(name, tuple(rows)) for name, rows in grouped.items()}


def _quantity(name: str, rows: tuple[Mapping[str, str], ...]) -> Quantity:
    features = tuple(row[cell] for row in rows for cell in ("feature", "minus") if row[cell])
    return Quantity(name, features, rows[0]["unit"], number(rows[0]["low"], 0.0), number(rows[0]["high"], 1.0), rows)
