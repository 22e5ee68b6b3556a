"""What every published score has: for whom it can be computed, how it ranks people, and how far it might lie off.

An item that is missing is never taken for 0 or for a mean: where a score cannot be computed it is NaN, and its bounds
say what it could be, whatever the missing items are.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
import polars as pl

from training.comparators.inputs import (
    SIGNS_OF_A_CONTACT,
    Bools,
    Floats,
    Input,
    all_of,
    any_of,
    inputs,
    rows_of,
    zero_by_absence,
)

# From the surest to the least sure. The first two may serve as they are; whatever shows the others says so.
TRUST = {
    "VP": ("verified in the paper or official text", "已核对原文"),
    "VI": ("verified in independent public implementations", "已核对独立公开实现"),
    "VS": ("unverified: seen in one secondary source", "未经核实：仅见于一处二手来源"),
    "M": ("unverified: from memory", "未经核实：凭记忆"),
    "M-": ("unverified: from memory, unsure", "未经核实：凭记忆，把握不大"),
}
VERIFIED = frozenset({"VP", "VI"})
UNVERIFIED_EN, UNVERIFIED_ZH = " (unverified)", "（未经核实）"


def weakest(marks: list[str]) -> str:
    """Return the least sure of some trust marks."""
    return max(marks, key=list(TRUST).index)


@dataclass(frozen=True, slots=True)
class Group:
    """People of whom an input is ``at_least <= value < below``; a plain ``Group("diabetes")`` is those who have it."""

    input: str
    at_least: float = 1.0
    below: float = inf

    def holds(self, profiles: pl.DataFrame) -> tuple[Bools, Bools]:
        """Return where it is known to hold, and where known not to."""
        values = inputs()[self.input].values(profiles)
        within = (values >= self.at_least) & (values < self.below)
        return within, ~within & ~np.isnan(values)


@dataclass(frozen=True, kw_only=True)
class Comparator(ABC):
    """A published score, as a rival of a model on the same residents.

    Attributes
    ----------
    name, label_en, label_zh
        What it is called.
    outcome : str
        What its authors predict, in words.
    concepts : tuple of str
        The concepts that stand for that outcome; none where no target of ours is about it.
    horizon_days : int or None
        Over which time; None where the authors name none.
    whom : tuple of Group
        For whom it is meant. It is not computed for others, nor where that is unknown.
    note_en, note_zh : str
        What a reader of its figures must know.
    ranking_only : bool
        Whether its risks are known to be off, so that they order residents and no more.
    """

    name: str
    label_en: str
    label_zh: str
    outcome: str
    horizon_days: int | None
    whom: tuple[Group, ...] = ()
    concepts: tuple[str, ...] = ()
    note_en: str = ""
    note_zh: str = ""
    ranking_only: bool = False

    @property
    @abstractmethod
    def paper(self) -> str:
        """Where its coefficients or points are published."""

    @property
    @abstractmethod
    def trust(self) -> str:
        """The trust mark (a key of `TRUST`) of the least sure of its coefficients."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """What it asks for: features of the profile, units, conversion."""

    @abstractmethod
    def computable(self, profiles: pl.DataFrame) -> Bools:
        """Return for which residents it can be computed: those it is meant for, with all items known."""

    @abstractmethod
    def rank(self, profiles: pl.DataFrame) -> Floats:
        """Return the risk or the points, whichever it gives: higher is worse; NaN where it is not computable."""

    @abstractmethod
    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the lowest and the highest that it could be, whatever the missing items are.

        NaN of residents it is known not to be meant for.
        """

    @property
    def verified(self) -> bool:
        """Whether all its coefficients are, in the paper or in independent implementations."""
        return self.trust in VERIFIED

    def title(self, language: str) -> str:
        """Return its label in English (``"en"``) or Chinese (``"zh"``), marked where it is unverified."""
        label, mark = (self.label_zh, UNVERIFIED_ZH) if language == "zh" else (self.label_en, UNVERIFIED_EN)
        return label if self.verified else label + mark

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the profile that it is computed from, with those that tell a no from not knowing."""
        asked = (*self.inputs, *(inputs()[group.input] for group in self.whom))
        read = [feature for each in asked for feature in each.features]
        signs = SIGNS_OF_A_CONTACT if any(map(zero_by_absence, read)) else ()
        return tuple(dict.fromkeys([*read, *signs]))

    def meant_for(self, profiles: pl.DataFrame) -> Bools:
        """Return who is known to be among those it is meant for."""
        return all_of([_everybody(profiles), *(group.holds(profiles)[0] for group in self.whom)])

    def not_meant_for(self, profiles: pl.DataFrame) -> Bools:
        """Return who is known not to be among those it is meant for."""
        return any_of([~_everybody(profiles), *(group.holds(profiles)[1] for group in self.whom)])


class RiskScore(Comparator):
    """A score that is a risk, from 0 to 1."""

    @abstractmethod
    def predict_proba(self, profiles: pl.DataFrame) -> Floats:
        """Return the risk of each resident, shape (n,); NaN where it is not computable."""

    def rank(self, profiles: pl.DataFrame) -> Floats:
        """Return the risk."""
        return self.predict_proba(profiles)


class PointScore(Comparator):
    """A score in points, steps or units of its own, which promises no risk."""

    @abstractmethod
    def score(self, profiles: pl.DataFrame) -> Floats:
        """Return the score of each resident, shape (n,); NaN where it is not computable."""

    def rank(self, profiles: pl.DataFrame) -> Floats:
        """Return the score."""
        return self.score(profiles)

    @property
    def bands(self) -> Mapping[str, float]:
        """The name of each band, and the score from which it holds, lowest first; none where its authors name none."""
        return {row["band"]: float(row["at_least"]) for row in band_rows(self.name)}

    def computable(self, profiles: pl.DataFrame) -> Bools:
        """Return where there is a score."""
        return ~np.isnan(self.score(profiles))

    def reaches(self, profiles: pl.DataFrame, threshold: float) -> Floats:
        """Return 1 where the score is this or higher whatever is missing, 0 where it cannot be, NaN where it may be."""
        low, high = self.bounds(profiles)
        return np.where(low >= threshold, 1.0, np.where(high < threshold, 0.0, np.nan))


def band_rows(score: str) -> list[dict[str, str]]:
    """Return the rows of a score's bands."""
    return [row for row in rows_of("bands.csv") if row["score"] == score]


def _everybody(profiles: pl.DataFrame) -> Bools:
    return np.ones(profiles.height, np.bool_)
