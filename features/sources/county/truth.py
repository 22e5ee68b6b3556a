"""What a county knows that no record does: true risks, what each programme would make of them, and hidden diseases."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from features.sources.county.course import DISEASES, Course
from features.sources.county.fall_risk import Answers, recorded_fall_risk
from features.sources.county.hazards import Rates
from features.sources.county.period import NEVER, Days, Flags, Floats
from features.sources.county.programmes import Programmes
from features.sources.county.residents import Residents
from features.sources.county.risk import HORIZON_YEARS, recorded_risk

TARGETS = pl.Enum(list(HORIZON_YEARS))
TRUTH = {"subject_id": pl.Int64(), "day": pl.Int64(), "target": TARGETS, "horizon": pl.Int64(), "risk": pl.Float64()}
INTERVENTIONS = pl.Enum(Programmes.names())
EFFECTS = {
    **TRUTH,
    "intervention": INTERVENTIONS,
    "eligible": pl.Boolean(),
    "risk_if_treated": pl.Float64(),
}


@dataclass(frozen=True)
class Truth:
    """The law and the fate of a block of residents.

    Parameters
    ----------
    rates : hazards as they are without any programme
    asked : the probability of being asked for falls within a year, shape (residents,)
    """

    residents: Residents
    course: Course
    rates: Rates
    programmes: Programmes
    answers: Answers
    asked: Floats

    def at_risk(self, year: int) -> dict[str, Flags]:
        """Return who is at risk of each target on the first day of a year."""
        day = self.rates.period.new_year(year)
        hypertension, diabetes, complication = self.course.state(day)
        here = (self.residents.born <= day) & (self.course.left >= day)
        age = self.residents.age(day)
        return {
            "hypertension": here & (age >= 18) & (hypertension < 2),
            "diabetes_complication": here & (age >= 18) & (diabetes == 2) & (complication == 0),
            "fall": here & (age >= 65),
        }

    def risks_and_effects(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return a row per resident at risk, first day of a year, and target; and one more per intervention upon it."""
        risks, effects = [], []
        for year in range(self.rates.period.years):
            rates = self.programmes.in_force(self.rates, year)
            for target, flags in self.at_risk(year).items():
                who = np.flatnonzero(flags)
                columns = self._columns(target, year, who, self._risk(target, year, who, rates))
                risks.append(pl.DataFrame(columns, schema=TRUTH))
                effects += [self._effect(name, target, year, who, columns) for name in Programmes.upon(target)]
        return pl.concat(risks), pl.concat(effects)

    def hidden(self) -> pl.DataFrame:
        """Return when each resident's hypertension and diabetes began and were found, found or not."""
        columns = {"subject_id": self.residents.subject_id}
        for disease in DISEASES:
            columns[f"{disease}_began"] = self.course.began[disease]
            columns[f"{disease}_found"] = self.course.found[disease]
        dates = pl.exclude("subject_id").replace(NEVER, None).cast(pl.Int32).cast(pl.Date)
        return pl.DataFrame(columns).with_columns(dates)

    def _columns(self, target: str, year: int, who: Days, risk: Floats) -> dict[str, Any]:
        return {
            "subject_id": self.residents.subject_id[who],
            "day": np.full(len(who), self.rates.period.new_year(year)),
            "target": _repeated(target, TARGETS, len(who)),
            "horizon": np.full(len(who), HORIZON_YEARS[target]),
            "risk": risk,
        }

    def _effect(self, name: str, target: str, year: int, who: Days, columns: dict[str, Any]) -> pl.DataFrame:
        """Return the risks as they would be with an intervention; where it may not be taken, as they are."""
        day = self.rates.period.new_year(year)
        eligible = Programmes.eligible(name, self.residents, self.course, day) & ~self._in_already(name, year)
        rates = self.programmes.with_one_more(self.rates, year, name, eligible)
        treated, some = columns["risk"].copy(), eligible[who]
        treated[some] = self._risk(target, year, who[some], rates)
        more = {"intervention": _repeated(name, INTERVENTIONS, len(who)), "eligible": some, "risk_if_treated": treated}
        return pl.DataFrame({**columns, **more}, schema=EFFECTS)

    def _in_already(self, name: str, year: int) -> Flags | np.bool_:
        return self.programmes.is_in(name) if year >= self.programmes.first else np.bool_(0)

    def _risk(self, target: str, year: int, who: Days, rates: Rates) -> Floats:
        if target == "fall":
            past = self.programmes.in_force(self.rates, year - 1)
            return recorded_fall_risk(year, who, self.course, self.answers, self.asked, past, rates)
        return recorded_risk(target, year, who, self.course, rates)


def _repeated(value: str, kind: pl.Enum, times: int) -> pl.Series:
    return pl.Series([value], dtype=kind).new_from_index(0, times)
