"""How long a panel's list of 2,000 among 500,000 residents takes, on both databases: see README.md."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from serving.store.bulk import transaction
from serving.store.database import Database
from serving.store.lists import ListQuery, _by_index_alone, _places, page
from serving.store.tables import drivers, duties, number, panel_residents, panels, residents, runs, scores
from tests.postgres import new_database, postgres_server

NOW = datetime(2026, 3, 1, 8)
TARGETS = ("diabetes_complication", "fall", "hypertension")
DRIVERS = 3
PART = 50_000

QUERIES = {
    "first page by risk": {},
    "second page by risk": {"after": ""},
    "high and very high, by change": {"tiers": ("high", "very high"), "sort": "change"},
    "due by a day, by due date": {"due_by": date(2026, 4, 1), "sort": "due", "descending": False},
}


def main() -> None:
    chosen = options()
    found = []
    with TemporaryDirectory(prefix="weibing-lists-", dir=chosen.scratch) as scratch:
        Path(scratch).chmod(0o755)
        with postgres_server(Path(scratch) / "pg") as server:
            for kind in chosen.kinds:
                database = Database.open(f"{scratch}/county.db" if kind == "sqlite" else new_database(server))
                begun = time.monotonic()
                fill(database, chosen.residents, chosen.panel)
                print(f"{kind}: filled in {time.monotonic() - begun:.0f} s", flush=True)
                found += [{"kind": kind, **told} for told in measured(database, chosen.panel, chosen.times)]
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--residents", type=int, default=500_000)
    parser.add_argument("--panel", type=int, default=2_000, help="residents of a panel")
    parser.add_argument("--times", type=int, default=100, help="lists asked for, each of another panel")
    parser.add_argument("--kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def fill(database: Database, count: int, panel: int) -> None:
    """Write residents with three scores each, two nights of them, dealt at random to panels."""
    rng = np.random.default_rng(0)
    dealt = rng.permutation(count) // panel + 1
    ids = pl.int_range(1, count + 1, eager=True).alias("id")
    with transaction(database, write=True) as opened:
        opened.append(residents, pl.DataFrame(ids).with_columns(subject_id=pl.col("id") * 7))
        opened.append(runs, pl.concat([run_of(1), run_of(2)]))
        names = pl.int_range(1, dealt.max() + 1, eager=True).alias("id").to_frame()
        opened.append(panels, names.with_columns(name=pl.col("id").cast(pl.String)))
        contracts = pl.DataFrame({"panel_id": dealt, "resident_id": ids}).sort("panel_id", "resident_id")
        opened.append(panel_residents, contracts.with_columns(since=pl.lit(datetime(2026, 1, 1))))
        opened.append(duties, due_of(ids, rng))
    for first in range(0, count, PART):
        some = ids[first : first + PART]
        with transaction(database, write=True) as opened:
            for run in (1, 2):
                # In the second night, one in three has another score.
                whose = some if run == 1 else some.filter(pl.Series(rng.random(len(some)) < 1 / 3))
                rows = scores_of(whose, run, first // PART, rng)
                opened.append(scores, rows)
                opened.append(drivers, drivers_of(rows["id"], rng))
    if database.file is None:
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            # As PostgreSQL does by itself after a night.
            connection.exec_driver_sql("VACUUM ANALYZE")


def run_of(run: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [run], "index_time": NOW, "started_at": NOW, "completed_at": NOW, "store": "", "models": "{}"}
    ).with_columns(everyone=pl.lit(False))


def due_of(ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    whose = ids.filter(pl.Series(rng.random(len(ids)) < 0.5)).alias("resident_id").to_frame()
    due = pl.Series(rng.integers(0, 120, len(whose)))
    return whose.with_columns(
        position=pl.lit(0, pl.Int16), kind=pl.lit("bp"), rule=pl.lit("bp.yearly"),
        due=(pl.lit(date(2026, 2, 1)) + pl.duration(days=due)).dt.strftime("%Y-%m-%d"), since=pl.lit("2026-01-01"),
        urgent=pl.lit(False), reason_en=pl.lit("no BP in a year"), reason_zh=pl.lit("一年未测血压"),
        citation=pl.lit("3.1"), as_of=pl.lit("2026-03-01"),
    )  # fmt: skip


def scores_of(whose: pl.Series, run: int, place: int, rng: np.random.Generator) -> pl.DataFrame:
    rows = pl.DataFrame({"resident_id": whose}).join(pl.DataFrame({"target": TARGETS}), how="cross")
    risk = rng.beta(1, 6, len(rows))
    tier = np.array(["low", "moderate", "high", "very high"])[np.digitize(risk, (0.1, 0.2, 0.3))]
    return rows.with_columns(
        id=pl.int_range(len(rows)) + number(run, place), run_id=pl.lit(run), index_time=pl.lit(NOW),
        probability=pl.Series(risk), lower=pl.Series(risk * 0.8), upper=pl.Series(risk * 1.2), tier=pl.Series(tier),
        percentile=pl.Series(100 * rng.random(len(rows))), previous=pl.Series(rng.beta(1, 6, len(rows))),
        base=pl.lit(-2.0), other=pl.lit(0.0), completeness=pl.lit("high"), model_version=pl.lit("7"),
        synthetic=pl.lit(True), scored_at=pl.lit(NOW), seen=pl.lit(1), contributions=pl.lit(bytes(120)),
    )  # fmt: skip


def drivers_of(scored: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    positions = pl.DataFrame({"position": pl.Series(range(DRIVERS), dtype=pl.Int16)})
    rows = pl.DataFrame({"score_id": scored}).join(positions, how="cross")
    return rows.with_columns(
        concept=pl.lit("sbp"), contribution=pl.Series(rng.normal(size=len(rows))), change=pl.lit(0.1),
        value=pl.lit(150.0, pl.Float32), unit=pl.lit("mm[Hg]"), date=pl.lit(NOW),
    )  # fmt: skip


def measured(database: Database, panel: int, times: int) -> Iterator[dict[str, object]]:
    """Ask for each kind of list, of a panel at random each time."""
    # As the service asks: it keeps its connections.
    database = replace(database, pooled=True)
    rng = np.random.default_rng(1)
    with database.reading() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM panels").scalar_one()
    for name, told in QUERIES.items():
        took = []
        for number_of_panel in rng.integers(1, count + 1, times):
            query = ListQuery(int(number_of_panel), "hypertension", **told)
            if query.after is not None:
                query = replace(query, after=page(database, replace(query, after=None), NOW).after)
            begun = time.perf_counter()
            rows = page(database, query, NOW).rows
            took.append(1000 * (time.perf_counter() - begun))
            assert len(rows) == query.limit, (name, len(rows))
        median, worst = np.percentile(took, [50, 99])
        print(f"  {name:<32} median {median:6.1f} ms, 99th percentile {worst:6.1f} ms", flush=True)
        yield {"list": name, "panel": panel, "median_ms": median, "p99_ms": worst}
    explain(database)


def explain(database: Database) -> None:
    """Show by which indexes a list is found."""
    text = _places(ListQuery(1, "hypertension"), NOW).compile(database.engine, compile_kwargs={"literal_binds": True})
    with database.reading() as connection:
        _by_index_alone(connection)
        how = "EXPLAIN QUERY PLAN" if database.file else "EXPLAIN (ANALYZE, COSTS OFF)"
        for row in connection.exec_driver_sql(f"{how} {text}".replace("%", "%%")):
            print(f"    {row[-1]}")


if __name__ == "__main__":
    main()
