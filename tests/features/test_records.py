"""A corrected record takes the place of its earlier version, in the store and within one append."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meds import schema as meds

from features import events as events_module
from features.events import Appended, EventStore, normalised
from features.records import RECORD, TELLING, VERSION, identities, identity, numbered, pairs_of, read_pairs
from tests.tables import cells_from, events_from

DRAWN = {"record": RECORD, "version": VERSION, "telling": TELLING}
FORM = """
    time       | code | value | record
    2024-03-05 | sbp  | 512   | 1
    2024-03-05 | dbp  | 91    | 1
"""


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore.create(tmp_path / "store")


def told(drawn: str) -> pl.DataFrame:
    """Read drawn events with their records; a line without a code announces a record that tells nothing."""
    names = {name: DRAWN[name] for name in DRAWN if name in cells_from(drawn).columns}
    return events_from(drawn).rename(names).with_columns(pl.col(list(names.values())).cast(pl.Int64))


def facts(store: EventStore) -> list[tuple[int, str, float | None]]:
    frames = [store.read(shard) for shard in store.shards]
    return sorted(row for frame in frames for row in frame.select("subject_id", "code", "numeric_value").rows())


def test_a_corrected_value_leaves_no_old_value_behind(store):
    store.append([told(FORM)])
    done = store.append([told(FORM.replace("512", "152"))])
    assert facts(store) == [(1, "dbp", 91), (1, "sbp", 152)]
    assert done == Appended(1, 1, 0, 1, records_replaced=1, events_removed=1)


@pytest.mark.parametrize(
    "corrected",
    ["time | code | value | record | subject_id \n 2024-04-06 | sbp | 512 | 1 | 1",
     "time | code | value | record | subject_id \n 2024-03-05 | sbp | 512 | 1 | 33"],
    ids=["another date", "another resident"],
)  # fmt: skip
def test_a_record_that_is_moved_is_where_it_belongs_now(store, monkeypatch, corrected):
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 10)
    others = events_from("\n".join(["subject_id | time | code", *(f"{n} | 2024-01-01 | fall" for n in range(2, 60))]))
    store.append([others, told("time | code | value | record \n 2024-03-05 | sbp | 512 | 1")])
    assert len(store.shards) > 1
    assert store.append([told(corrected)]).records_replaced == 1
    moved = pl.concat([store.read(shard) for shard in store.shards]).filter(code="sbp")
    assert moved.equals(told(corrected).drop(RECORD))


def test_a_record_that_tells_nothing_any_more_takes_its_events_with_it(store):
    store.append([told("time | code | record \n 2024-03-05 | fall | 1 \n 2024-03-06 | stroke | 2")])
    assert store.append([told("time | code | record \n | | 1")]).events_removed == 1
    assert facts(store) == [(1, "stroke", None)]


def test_the_same_records_again_change_nothing_and_no_byte(store):
    frame = told("time | code | value | record \n 2024-03-05 | sbp | 152 | 1 \n 2024-03-05 | sbp | 152 | 2")
    store.append([frame])
    before = {path.name: path.read_bytes() for path in (store.path / "data").iterdir()}
    assert store.append([frame]) == Appended(0, 2, 0, 1)
    assert {path.name: path.read_bytes() for path in (store.path / "data").iterdir()} == before


def test_an_event_that_two_records_tell_stays_until_both_take_it_back(store):
    store.append([told("time | code | value | record \n 2024-03-05 | sbp | 152 | 1 \n 2024-03-05 | sbp | 152 | 2")])
    assert facts(store) == [(1, "sbp", 152)]
    store.append([told("time | code | record \n | | 1")])
    assert facts(store) == [(1, "sbp", 152)]
    store.append([told("time | code | record \n | | 2")])
    assert facts(store) == []


@pytest.mark.parametrize("later_first", [False, True])
def test_of_two_versions_the_later_counts_whichever_comes_first(store, later_first):
    versions = [
        told("time | code | value | record | version \n 2024-03-05 | sbp | 512 | 1 | 10"),
        told("time | code | value | record | version \n 2024-03-05 | sbp | 152 | 1 | 20"),
    ]
    for frame in reversed(versions) if later_first else versions:
        done = store.append([frame])
    assert facts(store) == [(1, "sbp", 152)]
    assert (done.events_outdated, done.records_replaced) == ((1, 0) if later_first else (0, 1))


def test_a_record_that_was_withdrawn_does_not_come_back_in_an_earlier_version(store):
    earlier = told("time | code | record | version \n 2024-03-05 | fall | 1 | 10")
    store.append([told("time | code | record | version \n | | 1 | 20")])
    assert store.append([earlier]).events_outdated == 1
    assert facts(store) == []
    store.append([told("time | code | record | version \n 2024-03-06 | fall | 1 | 30")])
    assert facts(store) == [(1, "fall", None)]


def test_without_versions_what_is_told_later_counts(store):
    first, second = (told(f"time | code | value | record \n 2024-03-05 | sbp | {value} | 1") for value in (512, 152))
    for frame in (first, second, first):
        store.append([frame])
    assert facts(store) == [(1, "sbp", 512)]


def test_within_one_append_the_last_telling_counts_whole(store, monkeypatch):
    monkeypatch.setattr(events_module, "EVENTS_PER_RUN", 1)
    frames = [
        told(
            "time | code | value | record | telling \n 2024-03-05 | sbp | 512 | 1 | 1 \n 2024-03-05 | dbp | 91 | 1 | 1"
        ),
        told("time | code | value | record | telling | subject_id \n 2024-03-05 | sbp | 152 | 1 | 2 | 7"),
    ]
    assert store.append(frames).events_outdated == 2
    assert facts(store) == [(7, "sbp", 152)]


def test_a_store_made_without_records_takes_them_on(store):
    told_without = events_from("time | code | value \n 2024-03-05 | sbp | 512 \n 2024-03-05 | dbp | 91")
    store.append([told_without])
    assert not list(store.path.rglob("*.records"))
    again = told_without.with_columns(pl.lit(1, pl.Int64).alias(RECORD))
    assert store.append([again]) == Appended(0, 2, 0, 1)
    store.append([told(FORM.replace("512", "152"))])
    assert facts(store) == [(1, "dbp", 91), (1, "sbp", 152)]


def test_events_without_a_record_are_left_alone(store):
    store.append(
        [events_from("time | code \n 2024-03-05 | fall"), told("time | code | record \n 2024-03-06 | fall | 1")]
    )
    store.append([told("time | code | record \n | | 1")])
    assert facts(store) == [(1, "fall", None)]


def test_a_store_with_records_conforms_to_meds_and_grows(store, monkeypatch):
    monkeypatch.setattr(events_module, "RESIDENTS_PER_SHARD", 10)
    drawn = ["subject_id | time | code | record", *(f"{n} | 2024-01-01 | fall | {n}" for n in range(60))]
    for end in (10, 30, 61):
        store.append([told("\n".join(drawn[:end]))])
    for shard in store.shards:
        meds.DataSchema.validate(pq.read_table(shard))
        rows = store.read(shard)
        assert read_pairs(pairs_of(shard))[RECORD].to_list() == rows["subject_id"].to_list()
    assert len(store.shards) > 2
    store.append([told("time | code | record \n" + "\n".join(f"| | {n}" for n in range(60)))])
    assert facts(store) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.sampled_from([None, 0, 1, 2, 2**62]), st.sampled_from(["a", "b", None]),
                st.sampled_from([None, 1, 2, 3]), st.integers(0, 2),
            ), max_size=8,
        ), max_size=5,
    )
)  # fmt: skip
def test_the_store_is_what_a_dictionary_of_records_would_be(tmp_path_factory, appends):
    store = EventStore.create(tmp_path_factory.mktemp("store") / "store")
    without: set[tuple[int, str]] = set()
    records: dict[int, tuple[int | None, frozenset[tuple[int, str]]]] = {}
    for rows in appends:
        usable = [row for row in rows if row[1] is not None or row[2] is not None]
        columns = ["subject_id", RECORD, "code", VERSION, TELLING]
        schema = dict(zip(columns, [pl.Int64, pl.Int64, pl.String, pl.Int64, pl.Int64], strict=True))
        store.append([normalised(pl.DataFrame(usable, schema, orient="row"))])
        latest: dict[int, tuple[int, int]] = {}
        for _, record, _, version, telling in usable:
            if record is not None:
                latest[record] = max(latest.get(record, (-1, -1)), (version or 0, telling))
        for record, (version, telling) in latest.items():
            known = records.get(record, (None, frozenset()))[0]
            if not (version and known and known > version):
                now = frozenset((who, code) for who, r, code, _, t in usable if r == record and t == telling and code)
                records[record] = (version or None, now)
        without |= {(who, code) for who, record, code, _, _ in usable if record is None}
        # What a record tells is the record's, also if it was told without one before.
        without -= {fact for _, told_now in records.values() for fact in told_now}
        expected = without | {fact for _, told_now in records.values() for fact in told_now}
        assert {(who, code) for who, code, _ in facts(store)} == expected


def test_identities_never_change():
    assert identity("his", ("Observation", "7")) == 3077851706455645452
    assert identity("his", ("Observation", "7"), b"a secret") != identity("his", ("Observation", "7"))
    cells = [pl.Series(["7", None, None]), pl.Series(["x", "y", None])]
    assert identities("his", "form", cells).to_list() == [
        identity("his", ("form", "7", "x")), identity("his", ("form", "", "y")), None,
    ]  # fmt: skip
    ids = numbered("his", "measurement", pl.Series([7, None, 8]))
    assert ids.to_list() == [917671073601995753, None, 7791073489634304910]
