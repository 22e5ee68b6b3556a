"""Equations of published scores: coefficients from a table, a linear predictor, and its range where inputs are missing.

A term is ``coefficient * (f(input) - centre) / per``, with f the identity or a logarithm of the input held within a
range, times another input where the paper has an interaction.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf

import numpy as np
import polars as pl

from training.calibrate import expit
from training.comparators.base import RiskScore, weakest
from training.comparators.inputs import Bools, Floats, Input, all_of, inputs, number, rows_of

TRANSFORMS: Mapping[str, Callable[[Floats], Floats]] = {"": np.positive, "ln": np.log, "log10": np.log10}

Values = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a linear predictor; `times` names the input that it is multiplied by, if any."""

    input: str
    transform: str
    lowest: float
    highest: float
    centre: float
    per: float
    times: str
    coefficient: float

    def of(self, values: Values) -> Floats:
        """Return the summand of each resident."""
        held = np.clip(values[self.input], self.lowest, self.highest)
        scaled = self.coefficient * (TRANSFORMS[self.transform](held) - self.centre) / self.per
        return scaled * values[self.times] if self.times else scaled

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that it asks for."""
        return (self.input, self.times) if self.times else (self.input,)


@dataclass(frozen=True)
class Equation:
    """The terms of one equation, its other constants by name, and where they are from."""

    terms: tuple[Term, ...]
    constants: Mapping[str, float]
    paper: str
    trust: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs of its terms."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.names))

    def predictor(self, values: Values) -> Floats:
        """Return the linear predictor: intercept and terms; NaN where an input is unknown."""
        return _sum(self.terms, values) + self.constants["intercept"]

    def predictor_bounds(self, values: Values) -> tuple[Floats, Floats]:
        """Return the lowest and the highest linear predictor over the ranges of the unknown inputs.

        Exact, for the sum of an input's terms rises or falls throughout. Inputs of interactions are tried at their ends
        together, all others one by one.
        """
        together = tuple(dict.fromkeys(name for term in self.terms if term.times for name in term.names))
        alone = [(name,) for name in self.names if name not in together]
        ranges = [self._range(names, values) for names in ([together, *alone] if together else alone)]
        low, high = (np.sum(ends, axis=0) for ends in zip(*ranges, strict=True))
        return low + self.constants["intercept"], high + self.constants["intercept"]

    def _range(self, names: tuple[str, ...], values: Values) -> tuple[Floats, Floats]:
        """Return the lowest and the highest sum of the terms of some inputs, each tried at both ends."""
        terms = [term for term in self.terms if term.input in names]
        sums = [_sum(terms, at_ends) for at_ends in _corners(names, values)]
        return np.min(sums, axis=0), np.max(sums, axis=0)


def _sum(terms: Iterable[Term], values: Values) -> Floats:
    return np.asarray(np.sum([term.of(values) for term in terms], axis=0))


def _corners(names: tuple[str, ...], values: Values) -> Iterator[Values]:
    """Yield the values with the unknown ones of some inputs at the ends of their ranges, in every combination."""
    for ends in product((False, True), repeat=len(names)):
        yield {**values, **{name: _at(name, values[name], upper) for name, upper in zip(names, ends, strict=True)}}


def _at(name: str, values: Floats, upper: bool) -> Floats:
    asked = inputs()[name]
    return np.where(np.isnan(values), asked.high if upper else asked.low, values)


def equation(table: str, name: str) -> Equation:
    """Read the equation of a name from a table of coefficients beside this file."""
    rows = [row for row in rows_of(table) if row["equation"] == name]
    return Equation(
        terms=tuple(_term(row) for row in rows if row["input"]),
        constants={row["constant"]: float(row["coefficient"]) for row in rows if row["constant"]},
        paper=rows[0]["paper"],
        trust=weakest([row["trust"] for row in rows]),
    )


def _term(row: Mapping[str, str]) -> Term:
    return Term(
        input=row["input"],
        transform=row["transform"],
        lowest=number(row["lowest"], -inf),
        highest=number(row["highest"], inf),
        centre=number(row["centre"], 0.0),
        per=number(row["per"], 1.0),
        times=row["times"],
        coefficient=float(row["coefficient"]),
    )


@dataclass(frozen=True, kw_only=True)
class EquationScore(RiskScore):
    """A risk by an equation.

    Attributes
    ----------
    equation : Equation
    beside : tuple of str
        Inputs that the risk needs beside the linear predictor.
    """

    equation: Equation
    beside: tuple[str, ...] = ()

    @abstractmethod
    def risk(self, predictor: Floats, values: Values) -> Floats:
        """Return the risk at a linear predictor and the inputs `beside`; rises or falls throughout with each."""

    @property
    def paper(self) -> str:
        """Where the equation is published."""
        return self.equation.paper

    @property
    def trust(self) -> str:
        """The trust mark of the least sure of its coefficients."""
        return self.equation.trust

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of the equation, and those beside."""
        return tuple(inputs()[name] for name in (*self.equation.names, *self.beside))

    def computable(self, profiles: pl.DataFrame) -> Bools:
        """Return for which residents all inputs are known, among those it is meant for."""
        known = (~np.isnan(values) for values in self._values(profiles).values())
        return all_of([self.meant_for(profiles), *known])

    def predict_proba(self, profiles: pl.DataFrame) -> Floats:
        """Return the risk of each resident, shape (n,); NaN where it is not computable."""
        values = self._values(profiles)
        risk = self.risk(self.equation.predictor(values), values)
        return np.where(self.meant_for(profiles), risk, np.nan)

    def bounds(self, profiles: pl.DataFrame) -> tuple[Floats, Floats]:
        """Return the lowest and the highest risk over the ranges of the unknown inputs.

        NaN of residents it is known not to be meant for.
        """
        values = self._values(profiles)
        risks = [
            self.risk(predictor, at_ends)
            for predictor in self.equation.predictor_bounds(values)
            for at_ends in _corners(self.beside, values)
        ]
        others = self.not_meant_for(profiles)
        return np.where(others, np.nan, np.min(risks, axis=0)), np.where(others, np.nan, np.max(risks, axis=0))

    def _values(self, profiles: pl.DataFrame) -> dict[str, Floats]:
        return {name: inputs()[name].values(profiles) for name in (*self.equation.names, *self.beside)}


@dataclass(frozen=True, kw_only=True)
class LogisticScore(EquationScore):
    """A risk by a logistic equation."""

    def risk(self, predictor: Floats, values: Values) -> Floats:
        """Return the inverse logit."""
        return expit(predictor)


@dataclass(frozen=True, kw_only=True)
class SurvivalScore(EquationScore):
    """A risk by a Cox equation, ``1 - S0 ** exp(predictor)``; `baseline` names S0 among the constants."""

    baseline: str = "baseline_survival"

    def risk(self, predictor: Floats, values: Values) -> Floats:
        """Return the risk at the baseline survival."""
        return one_less_exp(np.exp(predictor) * np.log(self.equation.constants[self.baseline]))


def one_less_exp(exponent: Floats) -> Floats:
    """Return ``1 - exp(exponent)``, exact also where it is small."""
    return np.asarray(-np.expm1(exponent))
