"""Counts for those who may see nobody: what is left out cannot be reckoned from what is shown."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from features.errors import WeibingError
from serving.security.disclosure import safe_tables

TOWNS, TIERS = ("Shixi", "Nanhe", "Beishan"), ("high", "low")
SEXES = ("f", "m")
COLUMNS = ("town", "tier", "sex")
TABLES = [(), ("town",), ("tier",), ("town", "tier"), ("tier", "sex")]

numbers = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 60)), min_size=12, max_size=12)


def counts_of(values: list[int]) -> pl.DataFrame:
    every = product(TOWNS, TIERS, SEXES)
    return pl.DataFrame(
        [(*cell, value) for cell, value in zip(every, values, strict=True)], [*COLUMNS, "residents"], orient="row"
    )


def cells_of(counts: pl.DataFrame) -> list[tuple[tuple[str, ...], np.ndarray, int, bool]]:
    """Return each cell of the tables: of which table, which combinations it sums, the true number, whether shown."""
    rows, values = counts.select(COLUMNS).rows(named=True), counts["residents"].to_numpy()
    found = []
    for table, shown in safe_tables(counts, TABLES).items():
        for cell in shown.rows(named=True):
            parts = np.array([all(row[name] == cell[name] for name in table) for row in rows])
            number = cell["residents"]
            assert number is None or number == values[parts].sum()
            found.append((table, parts, int(values[parts].sum()), number is not None))
    return found


@settings(max_examples=60)
@given(numbers)
def test_no_shown_cell_is_below_ten(values):
    assert all(number >= 10 for _, _, number, shown in cells_of(counts_of(values)) if shown)


@settings(max_examples=60)
@given(numbers)
def test_no_difference_of_what_is_shown_tells_of_fewer_than_ten(values):
    cells = cells_of(counts_of(values))
    for _, whole, number, shown in cells:
        for table in TABLES:
            inside = [cell for cell in cells if shown and cell[0] == table and cell[3] and not (cell[1] & ~whole).any()]
            rest = number - sum(cell[2] for cell in inside)
            covered = np.any([cell[1] for cell in inside], axis=0) if inside else np.zeros_like(whole)
            if shown and (whole & ~covered).any():
                assert rest >= 10


@settings(max_examples=40)
@given(numbers)
def test_every_hidden_small_cell_could_be_ten_or_more_by_all_that_is_shown(values):
    cells = cells_of(counts_of(values))
    seen = [(parts, number) for _, parts, number, shown in cells if shown]
    equal = {"A_eq": [parts for parts, _ in seen], "b_eq": [number for _, number in seen]} if seen else {}
    for _, parts, number, _ in cells:
        if number < 10:
            most = linprog(-parts.astype(float), bounds=(0, 1_000), **equal)
            assert most.success
            assert -most.fun >= 10 - 1e-6


def test_nothing_is_left_out_where_nothing_is_small():
    assert all(shown for *_, shown in cells_of(counts_of([30] * 12)))


def test_a_single_small_cell_takes_others_with_it():
    # 3 of Shixi's 63 at high risk: with the totals shown, that cell alone would be a subtraction away.
    counts = pl.DataFrame(
        {"town": ["Shixi", "Shixi", "Nanhe", "Nanhe"], "tier": ["high", "low"] * 2, "residents": [3, 60, 40, 80]}
    )
    shown = safe_tables(counts, [(), ("town",), ("tier",), ("town", "tier")])
    assert shown[("town", "tier")].filter(town="Shixi", tier="high")["residents"].to_list() == [None]
    assert shown[("town", "tier")]["residents"].null_count() > 1


def test_the_same_counts_give_the_same_tables():
    rng = np.random.default_rng(3)
    counts = counts_of(rng.integers(0, 40, 12).tolist())
    first, second = safe_tables(counts, TABLES), safe_tables(counts.sample(fraction=1, shuffle=True, seed=1), TABLES)
    assert all(first[table].equals(second[table]) for table in TABLES)


def test_a_combination_that_nobody_has_is_left_out_too():
    counts = pl.DataFrame({"town": ["Shixi", "Nanhe"], "tier": ["high", "low"], "residents": [50, 70]})
    shown = safe_tables(counts, [("town", "tier")])[("town", "tier")]
    assert len(shown) == 4
    assert shown["residents"].null_count() == 2


@pytest.mark.parametrize("number", [0, 9])
def test_a_county_of_fewer_than_ten_shows_nothing(number):
    counts = pl.DataFrame({"town": ["Shixi"], "residents": [number]})
    shown = safe_tables(counts, [(), ("town",)])
    assert [frame["residents"].to_list() for frame in shown.values()] == [[None], [None]]


def test_no_residents_at_all_show_an_empty_table():
    counts = pl.DataFrame({"town": [], "residents": []}, schema={"town": pl.String, "residents": pl.Int64})
    shown = safe_tables(counts, [(), ("town",)])
    assert shown[()]["residents"].to_list() == [None]
    assert shown[("town",)].is_empty()


def test_too_many_combinations_are_refused():
    counts = pl.DataFrame({"a": range(100), "b": range(100), "residents": [10] * 100})
    with pytest.raises(WeibingError, match="10,000 combinations"):
        safe_tables(counts, [("a", "b")])
