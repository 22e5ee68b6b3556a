"""What readers ask of the operational database."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import polars as pl
import sqlalchemy as sql

from serving.store.bulk import frame
from serving.store.tables import current_scores as scores
from serving.store.tables import drivers

N = TypeVar("N", int, str)

# PostgreSQL takes 65,535 values a statement, SQLite 32,766.
NUMBERS_A_QUERY = 20_000
DRIVER = [column for column in drivers.columns if column is not drivers.c.score_id]


def current_scores(readable: sql.Engine | sql.Connection, subject_ids: Iterable[int]) -> pl.DataFrame:
    """Return the scores of residents in the last complete run, with their drivers.

    Returns
    -------
    The columns of the view ``current_scores``, sorted by resident and target, and `drivers`: a list of structs, the
    first position first.
    """
    if isinstance(readable, sql.Engine):
        with readable.connect() as connection:
            return current_scores(connection, subject_ids)
    asked = sorted(set(subject_ids))
    starts = range(0, max(len(asked), 1), NUMBERS_A_QUERY)
    return pl.concat([_scores(readable, asked[start : start + NUMBERS_A_QUERY]) for start in starts])


def _scores(connection: sql.Connection, subject_ids: list[int]) -> pl.DataFrame:
    query = sql.select(scores).where(scores.c.subject_id.in_(subject_ids))
    found = frame(query, connection.execute(query).fetchall())
    parts = found.select("id").sort("id").iter_slices(NUMBERS_A_QUERY)
    nested = pl.concat([_drivers(connection, []), *(_drivers(connection, part["id"].to_list()) for part in parts)])
    return (
        found.join(nested, on="id", how="left")
        .with_columns(pl.col("drivers").fill_null([]))
        .sort("subject_id", "target")
    )


def _drivers(connection: sql.Connection, scored: list[int]) -> pl.DataFrame:
    """Return the drivers of scores, a row a score."""
    query = sql.select(drivers.c.score_id.label("id"), *DRIVER).where(drivers.c.score_id.in_(scored))
    found = frame(query, connection.execute(query).fetchall()).sort("id", "position")
    return found.group_by("id", maintain_order=True).agg(drivers=pl.struct(column.name for column in DRIVER))


def tiers_of(connection: sql.Connection, subject_ids: Iterable[int]) -> dict[int, dict[str, str]]:
    """Return how high the risks of residents are in the last complete run, by target; of those who have any."""
    query = sql.select(scores.c.subject_id, scores.c.target, scores.c.tier)
    found: dict[int, dict[str, str]] = {}
    for some in parts_of(subject_ids):
        for subject, target, tier in connection.execute(query.where(scores.c.subject_id.in_(some))):
            found.setdefault(subject, {})[target] = tier
    return found


def parts_of(names: Iterable[N]) -> Iterator[list[N]]:
    """Return what is to be looked up in parts that a database takes in one query, ascending."""
    listed = sorted(set(names))
    for start in range(0, len(listed), NUMBERS_A_QUERY):
        yield listed[start : start + NUMBERS_A_QUERY]
