"""Which groups a cohort's rows belong to, as known at the index time."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from features.engine import Engine, profile_store
from features.events import EventStore
from tests.tables import events_from, moment
from training.groups import GROUPINGS, groups_of, in_order

HISTORY = """
    subject_id | time       | code            | value | text
    1          | 1950-06-01 | MEDS_BIRTH      |       |
    1          |            | female          | 1     |
    1          |            | education       | 2     |
    1          |            | rural           | 1     |
    1          |            | township        |       | Qingxi
    1          | 2015-01-01 | sbp             | 130   |
    2          | 1990-01-01 | MEDS_BIRTH      |       |
    2          |            | female          | 0     |
    2          | 2012-01-01 | education       | 3     |
    2          | 2012-01-01 | rural           | 0     |
    2          | 2012-01-01 | township        |       | Baishi
    2          | 2017-01-01 | township        |       | Dashan
    2          | 2020-01-01 | township        |       | Qingxi
    2          | 2020-01-01 | education       | 5     |
    3          | 2020-01-01 | sbp             | 130   |
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    return store_of(HISTORY, tmp_path_factory.mktemp("groups") / "store")


def store_of(history: str, path: Path) -> EventStore:
    store = EventStore.create(path, timezone="Asia/Shanghai")
    store.append([events_from(history)])
    return EventStore.open(path)


def groups_at(store: EventStore, *keys: tuple[int, str], filled: bool = True) -> list[dict[str, str | None]]:
    """Return the groups of residents at dates; with the profiles filled, or with none of their features."""
    index = [(subject, moment(at)) for subject, at in keys]
    rows = pl.DataFrame(index, {"subject_id": pl.Int64, "index_time": pl.Datetime("us")}, orient="row")
    engine = Engine.of_store(store)
    profiles = rows.join(profile_store(store, rows, engine), on=rows.columns, how="left", maintain_order="left")
    return groups_of(store, rows, profiles if filled else rows, engine).to_dicts()


def test_what_always_holds_tells_the_groups(store: EventStore) -> None:
    assert groups_at(store, (1, "2018-01-02")) == [
        {
            "sex": "female",
            "age_band": "65-74",
            "township": "Qingxi",
            "education": "primary school",
            "residence": "rural",
            "record_years": "3-5",
        }
    ]


def test_the_township_is_the_last_one_told_before_the_index_time(store: EventStore) -> None:
    dates = ("2012-01-02", "2016-12-31", "2017-01-02", "2021-01-01")
    assert [row["township"] for row in groups_at(store, *((2, date) for date in dates))] == [
        *("Baishi", "Baishi", "Dashan", "Qingxi")
    ]


def test_what_is_told_at_the_index_time_or_later_is_not_known(store: EventStore) -> None:
    at = groups_at(store, (2, "2012-01-01"), (2, "2020-01-01"), (2, "2020-01-02"))
    assert [(row["township"], row["education"], row["record_years"]) for row in at] == [
        (None, None, None),
        ("Dashan", "lower secondary", "6+"),
        ("Qingxi", "college", "6+"),
    ]


def test_nothing_that_comes_later_changes_a_group(tmp_path: Path) -> None:
    later = HISTORY + "    2 | 2018-01-02 | township | | Longtan\n    2 | 2018-01-01 | rural | 1 |\n"
    before = (2, "2018-01-01")
    assert groups_at(store_of(HISTORY, tmp_path / "a"), before) == groups_at(store_of(later, tmp_path / "b"), before)


def test_who_has_told_nothing_has_no_groups(store: EventStore) -> None:
    assert groups_at(store, (3, "2020-01-01")) == [dict.fromkeys(GROUPINGS)]


def test_rows_keep_their_order(store: EventStore) -> None:
    keys = (2, "2021-01-01"), (1, "2018-01-01"), (2, "2013-01-01"), (1, "2016-01-02")
    assert [(row["sex"], row["record_years"]) for row in groups_at(store, *keys)] == [
        *(("male", "6+"), ("female", "3-5"), ("male", "1-2"), ("female", "1-2"))
    ]


def test_age_and_sex_are_the_same_whether_the_profiles_have_them_or_not(store: EventStore) -> None:
    keys = (2, "2021-01-01"), (1, "2018-01-01"), (3, "2021-01-01")
    assert groups_at(store, *keys) == groups_at(store, *keys, filled=False)


@pytest.mark.parametrize(
    ("at", "band"), [("2014-12-30", None), ("2015-06-01", "<1"), ("2016-01-02", "1-2"), ("2021-01-02", "6+")]
)
def test_years_of_record_count_from_the_first_dated_event(store: EventStore, at: str, band: str | None) -> None:
    assert groups_at(store, (1, at))[0]["record_years"] == band


@pytest.mark.parametrize(("years", "band"), [(17.9, "0-17"), (18.1, "18-34"), (84.9, "75-84"), (85.1, "85+")])
def test_age_bands_begin_with_their_first_year(store: EventStore, years: float, band: str) -> None:
    at = datetime(1950, 6, 1) + years * (datetime(2050, 6, 1) - datetime(1950, 6, 1)) / 100
    assert groups_at(store, (1, at.isoformat()))[0]["age_band"] == band


def test_townships_are_found_where_a_store_tells_none(tmp_path: Path) -> None:
    plain = store_of("subject_id | time | code | value\n 1 | 2015-01-01 | sbp | 130", tmp_path / "store")
    assert groups_at(plain, (1, "2018-01-01"))[0]["township"] is None


def test_values_come_in_their_natural_order() -> None:
    assert in_order("record_years", ["6+", "<1", "3-5"]) == ["<1", "3-5", "6+"]
    assert in_order("township", ["Qingxi", "Baishi"]) == ["Baishi", "Qingxi"]
