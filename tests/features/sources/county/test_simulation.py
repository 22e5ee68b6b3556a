"""The same county from the same arguments, all or nothing, and what is refused."""

import hashlib
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from features.errors import WeibingError
from features.events import EventStore
from features.sources.county import BLOCK, simulate

TRUTHS = ("truth.parquet", "effects.parquet", "hidden.parquet")


def fingerprints(path: Path) -> dict[str, str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def events_of(path: Path) -> pl.DataFrame:
    store = EventStore.open(path)
    return pl.concat([store.read(shard) for shard in store.shards])


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        simulate(tmp_path / name, residents=700, years=3, seed=seed, interventions={"exercise": 0.5})
    one, again, other = (fingerprints(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    for file in ("data/0000.parquet", *TRUTHS):
        assert one[file] != other[file]


def test_the_first_residents_do_not_depend_on_how_many_follow(tmp_path):
    few, many = 300, BLOCK + 1
    for count in (few, many):
        simulate(tmp_path / str(count), residents=count, years=2)
    first = pl.col("subject_id") <= few
    assert events_of(tmp_path / str(many))["subject_id"].max() == many
    assert events_of(tmp_path / str(few)).equals(events_of(tmp_path / str(many)).filter(first))
    for file in TRUTHS:
        here, there = (pl.read_parquet(tmp_path / str(count) / file) for count in (few, many))
        assert here.equals(there.filter(first))


def test_a_county_made_twice_in_the_same_place_stays_as_it_is(tmp_path):
    first = simulate(tmp_path, residents=200, years=2)
    before = fingerprints(tmp_path)
    assert simulate(tmp_path, residents=200, years=2) == first
    assert fingerprints(tmp_path) == before


def test_a_county_interrupted_and_made_again_is_the_county_undisturbed(tmp_path):
    def interrupt(sentence: str) -> None:
        raise KeyboardInterrupt(sentence)

    with pytest.raises(KeyboardInterrupt, match="200 of 200 residents"):
        simulate(tmp_path / "cut", residents=200, years=2, progress=interrupt)
    assert not EventStore.open(tmp_path / "cut").shards
    assert not list((tmp_path / "cut").glob("*.parquet"))
    for name in ("cut", "whole"):
        simulate(tmp_path / name, residents=200, years=2)
    assert fingerprints(tmp_path / "cut") == fingerprints(tmp_path / "whole")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"residents": 0}, "at least one resident"),
        ({"years": 0}, "at least one resident, one year"),
        ({"seed": -1}, "not negative"),
        ({"end": date(2024, 7, 1)}, "first of January, not on 2024-07-01. Use 2024-01-01"),
        ({"years": 50}, "at most 33 years"),
        ({"interventions": {"exercises": 0.5}}, 'no intervention "exercises". Did you mean "exercise"'),
        ({"interventions": {"exercise": 1.5}}, "share of 0 to 1 of those eligible, not 1.5"),
        ({"treated_from": date(2030, 1, 1)}, "from 2017 to 2024, not on 2030-01-01"),
    ],
)
def test_an_impossible_county_is_refused_before_anything_is_written(tmp_path, wrong, sentence):
    with pytest.raises(WeibingError, match=sentence):
        simulate(tmp_path / "store", **wrong)
    assert not (tmp_path / "store").exists()


def test_a_store_with_other_records_is_left_alone(tmp_path):
    store = EventStore.create(tmp_path, timezone="Asia/Shanghai")
    store.append([pl.DataFrame({"subject_id": [1], "time": [datetime(2020, 1, 1)], "code": ["fall"]})])
    before = fingerprints(tmp_path)
    with pytest.raises(WeibingError, match="holds other records"):
        simulate(tmp_path, residents=10, years=1)
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize("other", [{"seed": 2}, {"interventions": {"exercise": [1, 2]}}])
def test_another_county_is_not_mixed_in(tmp_path, other):
    simulate(tmp_path, residents=100, years=1, seed=1)
    with pytest.raises(WeibingError, match="holds other records"):
        simulate(tmp_path, residents=100, years=1, **{"seed": 1, **other})
