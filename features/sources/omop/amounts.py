"""The amounts of rows: numbers with their units; or what stands in the place of a number, an answer or a text."""

import polars as pl

from features.sources.omop.concepts import ANSWER
from features.sources.omop.rows import concepts, texts
from features.sources.omop.tables import (
    OPERATOR,
    OPERATORS,
    UNIT,
    UNIT_TEXT,
    VALUE_AS_WRITTEN,
    VALUE_CONCEPT,
    VALUE_TEXT,
    Clinical,
)
from features.sources.report import Reason
from features.sources.table.rows import ROW, Rows


def amounts(rows: Rows, table: Clinical, units: dict[int, str]) -> dict[str, pl.Series]:
    """Return what the rows of a table say, as columns of events; nothing where the table has no amounts.

    Where there is a number it has the unit, and there is no answer (0).
    """
    if table.amount is None:
        return {}
    found = rows.numbers(table.amount)
    measured = found.value.is_not_null()
    if not table.has_answers:
        return {"numeric_value": found.value, "unit": _where(measured, table.unit)}
    bounds = _bounds(rows, table.amount, found.value)
    answer = concepts(rows, VALUE_CONCEPT).set(measured, 0)
    said = texts(rows, VALUE_TEXT).fill_null(texts(rows, VALUE_AS_WRITTEN)).set(measured | (answer != 0), None)
    return {
        "numeric_value": found.value,
        "unit": _units(rows, units).set(~measured, None),
        "text_value": (bounds if found.bounds is None else found.bounds.fill_null(bounds)).fill_null(said),
        ANSWER: answer,
    }


def _where(measured: pl.Series, unit: str | None) -> pl.Series:
    return measured.replace_strict({True: unit, False: None}, return_dtype=pl.String)


def _bounds(rows: Rows, column: str, number: pl.Series) -> pl.Series:
    """Return the numbers that are only bounds as one writes them down (``<5.0``), null for the others."""
    sign = concepts(rows, OPERATOR).replace_strict(OPERATORS, default=None, return_dtype=pl.String)
    bounds = sign.set(number.is_null(), None) + rows[column]
    at = bounds.is_not_null().arg_true()
    if len(at):
        rows.notes.cells(Reason.BOUND, column, rows[ROW][at], bounds[at])
    return bounds


def _units(rows: Rows, units: dict[int, str]) -> pl.Series:
    """Return each row's unit: of its concept, or as the source wrote it.

    A concept that nothing tells the unit of is a unit that nobody knows, lest the number be taken for canonical.
    """
    concept = concepts(rows, UNIT)
    of_concept = concept.replace_strict(units, default=None, return_dtype=pl.String)
    nameless = ("OMOP//" + concept.cast(pl.String)).set(concept == 0, None)
    return of_concept.fill_null(rows[UNIT_TEXT]).fill_null(nameless)
