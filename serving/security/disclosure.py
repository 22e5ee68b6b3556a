"""Counts that may be shown to whoever may see nobody: no cell below ten, and none that others give away.

All tables that are ever shown of one set of residents are made together. A cell below ten is left out of each. What is
left in may still tell of it: a total less the other cells, one table less another. So, for each cell that is too small,
an integer program looks for other residents' counts that agree with everything shown and make that cell ten or more. As
long as there are none, another cell is left out. What is shown at the end agrees, for each small cell, with its being
ten or more: neither a difference of two tables nor any other reckoning tells that it is below.

The rule is that of complementary cell suppression (Willenborg and de Waal, Elements of Statistical Disclosure Control,
2001, chapter 4), with the audit of each suppressed cell in the place of a pattern.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from features.errors import WeibingError

LEAST = 10
# What is solved is small; beyond this it would take minutes.
MOST_CELLS = 5_000

Table = tuple[str, ...]
Cell = tuple[object, ...]
Key = tuple[Table, Cell]


def safe_tables(
    counts: pl.DataFrame, tables: Sequence[Table], *, number: str = "residents", least: int = LEAST
) -> dict[Table, pl.DataFrame]:
    """Return tables of counts with the cells left out that tell of fewer than `least` residents.

    Parameters
    ----------
    counts
        A row for each combination of the tables' columns, with the number of its residents; a combination that is not
        there has none.
    tables
        The columns of each table; ``()`` is the total. All that are to be shown of these residents, now or later.
    number
        The column with the number.

    Returns
    -------
    By table, a row for each combination of what its columns hold, sorted; the number is null where it is left out.

    Raises
    ------
    WeibingError
        If there are more combinations than can be judged.
    """
    cells = _Cells.of(counts, tables, number)
    shown = cells.values >= least
    while (exposed := cells.first_exposed(shown, least)) is not None:
        shown[cells.to_leave_out(exposed, shown)] = False
    return {table: cells.frame(table, counts, number, shown) for table in dict.fromkeys(tables)}


@dataclass(frozen=True)
class _Cells:
    """The cells of all tables, and which of the finest combinations each is the sum of.

    Attributes
    ----------
    parts : shape (cells, combinations): 1 where the combination is part of the cell
    values : shape (cells,): how many residents
    """

    keys: list[Key]
    parts: csr_array = field(repr=False)
    values: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, counts: pl.DataFrame, tables: Sequence[Table], number: str) -> "_Cells":
        columns = list(dict.fromkeys(column for table in tables for column in table))
        every = _every_combination(counts, columns)
        if len(every) > MOST_CELLS:
            raise WeibingError(
                f"{', '.join(columns)} have {len(every):,} combinations; at most {MOST_CELLS:,} can be judged. "
                "Show fewer columns, or fewer groups in each."
            )
        numbers = _numbers(counts, every, columns, number)
        keys, places = [], []
        for table in dict.fromkeys(tables):
            which = list(_rows(every, table))
            for cell in sorted(set(which), key=str):
                keys.append((table, cell))
                places.append(np.flatnonzero([each == cell for each in which]))
        rows = np.repeat(np.arange(len(keys)), [len(place) for place in places])
        ones = (np.ones(len(rows)), (rows, np.concatenate(places)))
        parts = csr_array(ones, shape=(len(keys), max(len(every), 1)))
        return cls(keys, parts, np.asarray(parts @ numbers, dtype=np.int64))

    def first_exposed(self, shown: NDArray[np.bool_], least: int) -> int | None:
        """Return a cell that is below `least` and cannot be more by all that is shown."""
        for cell in np.flatnonzero(self.values < least):
            if not self._could_be(int(cell), shown, least):
                return int(cell)
        return None

    def to_leave_out(self, exposed: int, shown: NDArray[np.bool_]) -> int:
        """Return the shown cell to leave out next: one that shares residents' combinations, in the finest table.

        Of these, the one beside the exposed cell in its own table first, then the smallest, then the first.
        """
        overlapping = np.asarray((self.parts @ self.parts[[exposed]].T).todense()).ravel() > 0
        beside = np.array([self._is_beside(exposed, other) for other in range(len(self.keys))])
        for kind in (beside & shown, overlapping & shown, shown):
            found = np.flatnonzero(kind)
            if len(found):
                return int(min(found, key=lambda cell: (-len(self.keys[cell][0]), self.values[cell], cell)))
        raise AssertionError("nothing is shown that could expose anything")

    def frame(self, table: Table, counts: pl.DataFrame, number: str, shown: NDArray[np.bool_]) -> pl.DataFrame:
        """Return a table as it is shown."""
        own = [place for place, (of, _) in enumerate(self.keys) if of == table]
        rows = [(*self.keys[place][1], int(self.values[place]) if shown[place] else None) for place in own]
        schema: Mapping[str, pl.DataType] = {**{name: counts.schema[name] for name in table}, number: pl.Int64()}
        found = pl.DataFrame(rows, schema, orient="row")
        return found.sort(*table, nulls_last=True) if table else found

    def _could_be(self, cell: int, shown: NDArray[np.bool_], least: int) -> bool:
        """Whether there are counts that agree with all that is shown, in which the cell is `least` or more."""
        size = self.parts.shape[1]
        seen = self.parts[np.flatnonzero(shown)]
        known = [LinearConstraint(seen, self.values[shown], self.values[shown])] if shown.any() else []
        enough = LinearConstraint(self.parts[[cell]], least, np.inf)
        found = milp(np.zeros(size), integrality=np.ones(size, np.int8), bounds=Bounds(0), constraints=[*known, enough])
        return bool(found.success)

    def _is_beside(self, one: int, other: int) -> bool:
        (table, cell), (its_table, its_cell) = self.keys[one], self.keys[other]
        return table == its_table and sum(a != b for a, b in zip(cell, its_cell, strict=True)) == 1


def _every_combination(counts: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    every = pl.DataFrame({"": [0]})
    for column in columns:
        every = every.join(counts.select(pl.col(column).unique().sort()), how="cross")
    return every.drop("")


def _numbers(counts: pl.DataFrame, every: pl.DataFrame, columns: list[str], number: str) -> NDArray[np.int64]:
    if not columns or every.is_empty():
        return np.array([counts[number].sum()], dtype=np.int64)
    summed = counts.group_by(columns).agg(pl.col(number).sum())
    found = every.join(summed, on=columns, how="left", nulls_equal=True, maintain_order="left")[number]
    return found.fill_null(0).cast(pl.Int64).to_numpy()


def _rows(every: pl.DataFrame, table: Table) -> Iterator[Cell]:
    if not table:
        return iter([()] * max(len(every), 1))
    return every.select(table).iter_rows()
