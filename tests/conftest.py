"""A small county, and a model trained on it, for the tests that need the real thing."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from features.cohort import IndexTimes, Target
from features.events import EventStore
from tests.postgres import postgres_server
from training.train import Trained, train

# The same examples in every run, so that a red test is red again.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

# What takes longest comes first, so that no worker ends long after the other. The first two compile different
# functions, at the same time.
FIRST = (
    "test_examples.py",
    "test_shapley.py",
    "test_train.py",
    "test_weibing.py",
    "test_nightly.py",
    "test_night.py",
    "test_machines.py",
    "test_service.py",
    "test_tracking.py",
    "test_notebooks.py",
    "test_real_records.py",
    "test_distributed.py",
    "test_duties.py",
    "test_promises_of_sources.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others stay in the order in which they were shuffled."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


RESIDENTS = 800
START, END = datetime(2012, 1, 1), datetime(2022, 1, 1)
DAYS = (END - START).days

# From the day after the first examination, five years of follow-up: about two in five get hypertension.
SMALL_TARGET = Target(
    name="hypertension",
    label_en="hypertension",
    label_zh="新发高血压",
    outcome=("hypertension",),
    horizon="5y",
    index=IndexTimes(first=("examination",), offset="1d"),
    age=(18, float("inf")),
    absent=("hypertension", "antihypertensive"),
    increasing=("age", "sbp", "bmi"),
    tiers=(0.05, 0.10, 0.20),
)


def residents_of(rng: np.random.Generator, residents: int) -> pl.DataFrame:
    """Draw residents: what they are like, and when, in days after START, something happens to them, or infinity."""
    age = rng.uniform(25, 90, residents)
    bmi = rng.normal(24, 3.5, residents)
    hba1c = rng.normal(5.6, 0.5, residents) + 0.03 * (bmi - 24)
    sbp = 112 + 0.3 * (age - 50) + 0.9 * (bmi - 24) + rng.normal(0, 9, residents)

    def happens(yearly: np.ndarray) -> np.ndarray:
        return 365.25 * rng.exponential(1, residents) / yearly

    return pl.DataFrame(
        {
            "subject_id": np.arange(1, residents + 1),
            "female": rng.integers(0, 2, residents),
            "age": age,
            "bmi": bmi,
            "hba1c": hba1c,
            "sbp": sbp,
            "examined": rng.uniform(30, 1200, residents),
            "hypertension": happens(0.06 * np.exp(0.10 * (sbp - 112) + 0.02 * (age - 50))),
            "diabetes": happens(0.03 * np.exp(1.2 * (hba1c - 5.6))),
            "fall": happens(0.08 * np.exp(0.05 * (age - 70))),
            "MEDS_DEATH": happens(0.01 * np.exp(0.09 * (age - 70))),
            "moved": happens(np.full(residents, 0.03)),
        }
    )


def events_of(rng: np.random.Generator, residents: pl.DataFrame) -> pl.DataFrame:
    """Write the records of drawn residents; a concept's own name serves as its code."""
    ends = pl.min_horizontal("MEDS_DEATH", "moved", pl.lit(float(DAYS)))
    residents = residents.with_columns(ends=ends)
    parts = [
        _dated(residents, "MEDS_BIRTH", -365.25 * residents["age"]),
        _dated(residents, "OBSERVATION_END", residents["ends"]),
        residents.select("subject_id", time=None, code=pl.lit("female"), numeric_value="female"),
        *(_until_the_end(residents, code, residents[code]) for code in ("hypertension", "diabetes", "fall")),
        *(_until_the_end(residents, "fall", residents["fall"] + 365.25 * year) for year in range(1, 4)),
        *(_until_the_end(residents, "antihypertensive", residents["hypertension"] + 30 * n) for n in range(1, 24)),
        *(_until_the_end(residents, "statin", residents["diabetes"] + 90 * n) for n in range(1, 12)),
        _until_the_end(residents, "MEDS_DEATH", residents["MEDS_DEATH"]),
        *(_examination(rng, residents, residents["examined"] + 365.25 * year) for year in range(10)),
    ]
    return pl.concat([part.with_columns(pl.col("numeric_value").cast(pl.Float32)) for part in parts])


def _examination(rng: np.random.Generator, residents: pl.DataFrame, day: pl.Series) -> pl.DataFrame:
    """Write an examination; one value in ten is missing, of HbA1c half."""
    parts = [_until_the_end(residents, "examination", day)]
    for code, spread, known in (("sbp", 6, 0.9), ("bmi", 0.5, 0.9), ("hba1c", 0.1, 0.5)):
        value = residents[code] + rng.normal(0, spread, len(residents))
        measured = _until_the_end(residents.with_columns(worth=value), code, day, pl.col("worth"))
        parts.append(measured.sample(fraction=known, seed=int(rng.integers(2**31))))
    return pl.concat([part.with_columns(pl.col("numeric_value").cast(pl.Float32)) for part in parts])


def _until_the_end(residents: pl.DataFrame, code: str, day: pl.Series, value: pl.Expr | None = None) -> pl.DataFrame:
    happened = residents.with_columns(day=day).filter(pl.col("day") <= pl.col("ends"))
    return _dated(happened, code, happened["day"], value)


def _dated(residents: pl.DataFrame, code: str, day: pl.Series, value: pl.Expr | None = None) -> pl.DataFrame:
    time = [START + timedelta(days=int(number)) for number in day]
    return residents.select(
        "subject_id",
        time=pl.Series(time, dtype=pl.Datetime("us")),
        code=pl.lit(code),
        numeric_value=pl.lit(None, pl.Float32) if value is None else value,
    )


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    """A store of 800 made-up residents over ten years; look, but do not append."""
    rng = np.random.default_rng(7)
    store = EventStore.create(
        tmp_path_factory.mktemp("small") / "store", timezone="Asia/Shanghai", description={"synthetic": True}
    )
    store.append([events_of(rng, residents_of(rng, RESIDENTS))])
    return EventStore.open(store.path)


@pytest.fixture(scope="session")
def small_trained(small_store: EventStore) -> Trained:
    """A model of hypertension trained on the small store, and the evidence for it."""
    return train(small_store, SMALL_TARGET)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """The URL of a PostgreSQL server for many tests; each makes a database of its own."""
    # Not in pytest's folder: another session that begins closes that to the user as whom PostgreSQL runs for root.
    with TemporaryDirectory(prefix="weibing-") as folder, postgres_server(Path(folder), lasting=False) as url:
        yield url
