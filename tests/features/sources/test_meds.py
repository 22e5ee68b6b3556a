"""Data sets in the MEDS format, made here and elsewhere."""

import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meds import schema as meds

from features.errors import WeibingError
from features.events import EventStore, normalised
from features.sources import meds as source
from features.sources.county import simulate
from features.sources.meds import ingest_meds
from features.sources.report import IngestReport, Reason
from tests.tables import events_from

TODAY = date(2025, 1, 1)
MARCH = datetime(2024, 3, 5, 8, 30)


def data_set(folder: Path, *shards: pa.Table, names: tuple[str, ...] = ("0.parquet", "1.parquet")) -> Path:
    """Write a data set as others do: the data and nothing else."""
    for name, shard in zip(names, shards, strict=False):
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(shard, path)
    return folder


def told(store: Path) -> pl.DataFrame:
    opened = EventStore.open(store)
    return pl.concat([opened.read(shard) for shard in opened.shards]).sort("subject_id", "time", "code")


def drawn(table: str) -> pa.Table:
    return events_from(table).to_arrow()


@pytest.fixture
def ingested(tmp_path):
    """Take a data set in, and return its events and the report."""

    def ingested(folder: Path, **options) -> tuple[pl.DataFrame, IngestReport]:
        report = ingest_meds(folder, tmp_path / "store", **{"today": TODAY} | options)
        return told(tmp_path / "store"), report

    return ingested


SMALL = """
    subject_id | time       | code          | value | unit
    7          |            | female        | 1     |
    7          | 1950-06-01 | MEDS_BIRTH    |       |
    7          | 2024-03-05 | LOINC//8480-6 | 152   | mmHg
"""


def test_the_least_that_the_format_allows_is_taken(ingested, tmp_path):
    least = pa.table({"subject_id": [7], "time": pa.array([MARCH], pa.timestamp("us")), "code": ["LOCAL//x"]})
    events, report = ingested(data_set(tmp_path / "theirs", least))
    assert events.equals(normalised(pl.DataFrame({"subject_id": [7], "time": [MARCH], "code": ["LOCAL//x"]})))
    assert (report.rows, report.events_read, report.events_written) == ({"data": 1}, 1, 1)


def test_an_empty_shard_is_taken(ingested, tmp_path):
    events, report = ingested(data_set(tmp_path / "theirs", drawn(SMALL)[:0], drawn(SMALL)))
    assert len(events) == report.events_read == report.rows["data"] == 3


def test_nested_shards_are_taken(ingested, tmp_path):
    one, other = drawn(SMALL), drawn(SMALL.replace("7  ", "8  "))
    folder = data_set(tmp_path / "theirs", one, other, names=("train/0.parquet", "held_out/a/0.parquet"))
    events, report = ingested(folder)
    assert events["subject_id"].to_list() == [7] * 3 + [8] * 3
    assert report.residents_new == 2


@pytest.mark.parametrize(
    "kinds",
    [
        {"code": pa.large_string(), "text_value": pa.large_string()},
        {"code": pa.dictionary(pa.int32(), pa.string()), "text_value": pa.dictionary(pa.int8(), pa.large_string())},
        {"code": pa.string_view(), "unit": pa.dictionary(pa.int8(), pa.string())},
        {"subject_id": pa.int32(), "numeric_value": pa.float64()},
        {"subject_id": pa.uint64(), "numeric_value": pa.int16()},
        {"time": pa.timestamp("ms"), "numeric_value": pa.decimal128(5, 1)},
        {"time": pa.timestamp("ns"), "text_value": pa.null()},
        {"time": pa.timestamp("s", "UTC")},
        {"time": pa.timestamp("us", "Asia/Shanghai")},
    ],
    ids=lambda kinds: ", ".join(f"{name} {kind}" for name, kind in kinds.items()),
)
def test_types_may_differ_from_the_standard_s(ingested, tmp_path, kinds):
    table = drawn(SMALL)
    for name, kind in kinds.items():
        at = table.schema.get_field_index(name)
        cells = pa.nulls(len(table)) if kind == pa.null() else table[name].cast(kind)
        table = table.set_column(at, name, cells)
    events, report = ingested(data_set(tmp_path / "theirs", table))
    assert events.equals(events_from(SMALL))
    assert report.remarks == {}


def test_times_that_are_only_days_are_taken(ingested, tmp_path):
    table = pa.table({"subject_id": [7], "time": pa.array([date(2024, 3, 5)], pa.date32()), "code": ["LOCAL//x"]})
    events, _ = ingested(data_set(tmp_path / "theirs", table))
    assert events["time"].to_list() == [datetime(2024, 3, 5)]


def test_columns_beyond_the_standard_s_pass_through(ingested, tmp_path):
    extra = {"visit_id": [3, 4, 4], "ward": pa.array(["A", None, "B"]).dictionary_encode(), "tags": [["a"], [], None]}
    table = drawn(SMALL)
    for name, values in extra.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    events, _ = ingested(data_set(tmp_path / "theirs", table))
    assert events["visit_id"].to_list() == extra["visit_id"]
    assert events["ward"].cast(pl.String).to_list() == ["A", None, "B"]
    assert events["tags"].to_list() == extra["tags"]


def test_a_column_may_be_in_some_files_alone(ingested, tmp_path):
    other = drawn(SMALL.replace("7  ", "8  ")).append_column("visit_id", pa.array([1, 2, 3]))
    events, _ = ingested(data_set(tmp_path / "theirs", drawn(SMALL).drop_columns(["unit", "text_value"]), other))
    assert events["visit_id"].to_list() == [None, None, None, 1, 2, 3]
    assert events["unit"].to_list() == [None] * 5 + ["mmHg"]


def test_times_without_a_zone_are_of_the_one_given(ingested, tmp_path):
    # In Shanghai, summer time began on 1988-04-17 at 02:00, so that 02:30 did not exist.
    table = drawn("""
        time             | code
        1988-04-17 02:30 | LOCAL//skipped
        2024-03-05 08:30 | LOCAL//x
    """)
    events, _ = ingested(data_set(tmp_path / "theirs", table), timezone="Asia/Shanghai")
    assert events["time"].to_list() == [datetime(1988, 4, 16, 18, 30), datetime(2024, 3, 5, 0, 30)]
    assert EventStore.open(tmp_path / "store").timezone == "Asia/Shanghai"


def test_splits_are_not_taken_in_and_that_is_said(ingested, tmp_path):
    folder = data_set(tmp_path / "theirs", drawn(SMALL))
    (folder / "metadata").mkdir()
    pq.write_table(pa.table({"subject_id": [7], "split": ["train"]}), folder / meds.subject_splits_filepath)
    _, report = ingested(folder)
    assert report.rows == {"metadata/subject_splits.parquet (not taken in)": 1, "data": 3}


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_what_came_before_birth_is_left_out_wherever_a_batch_ends(ingested, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(source, "ROWS_PER_BATCH", rows)
    table = drawn("""
        subject_id | time       | code
        6          | 2024-03-05 | fall
        7          | 1949-01-01 | fall
        7          | 1949-02-01 | fall
        7          | 1950-06-01 | MEDS_BIRTH
        7          | 2024-03-05 | fall
        8          | 1900-01-01 | fall
    """)
    events, report = ingested(data_set(tmp_path / "theirs", table))
    assert events["subject_id"].to_list() == [6, 7, 7, 8]
    assert report.counted(Reason.BEFORE_BIRTH) == {"fall": 2}
    assert report.events_read == report.rows["data"] == 6


def test_dates_shifted_into_the_future_need_a_later_today(ingested, tmp_path):
    folder = data_set(tmp_path / "theirs", drawn("time | code\n2150-01-01 | LOCAL//x"))
    assert ingest_meds(folder, tmp_path / "empty").counted(Reason.AFTER_TODAY) == {"LOCAL//x": 1}
    events, _ = ingested(folder, today=date(2200, 1, 1))
    assert len(events) == 1


def test_identity_and_telephone_numbers_are_struck_out_of_texts(ingested, tmp_path):
    table = drawn("""
        time       | code        | text
        2024-03-05 | LOCAL//note | 电话13800138000
        2024-03-06 | LOCAL//note | 头晕
    """)
    events, report = ingested(data_set(tmp_path / "theirs", table))
    assert events["text_value"].to_list() == ["电话***", "头晕"]
    assert report.counted(Reason.STRUCK_OUT) == {"LOCAL//note": 1}


# what does not conform


def refusal(folder: Path, store: Path, **options) -> str:
    with pytest.raises(WeibingError) as error:
        ingest_meds(folder, store, today=TODAY, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("subject_id", ["a"], 'the column "subject_id" holds string, where MEDS has integers.'),
        ("time", ["2024-03-05"], 'the column "time" holds string, where MEDS has times.'),
        ("code", [1], 'the column "code" holds int64, where MEDS has texts.'),
        ("numeric_value", ["152"], 'the column "numeric_value" holds string, where MEDS has numbers.'),
        ("text_value", [1.5], 'the column "text_value" holds double, where MEDS has texts.'),
        ("code", pa.array([None], pa.string()), 'there are events without a "code", which MEDS does not allow.'),
        ("subject_id", pa.array([None], pa.int64()), 'there are events without a "subject_id", which MEDS does not'),
        ("subject_id", pa.array([2**63], pa.uint64()), 'there are events without a "subject_id", which MEDS does not'),
        ("subject_id", [110105194912311006], "the residents are identity numbers, which never enter the store."),
    ],
)
def test_what_does_not_conform_is_named_and_nothing_written(tmp_path, column, values, sentence):
    table = drawn("time | code\n2024-03-05 | LOCAL//x")
    wrong = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    folder = data_set(tmp_path / "theirs", table, wrong)
    assert refusal(folder, tmp_path / "store").startswith(f"{folder / 'data' / '1.parquet'}: {sentence}")
    assert not (tmp_path / "store").exists()


def test_a_column_that_lacks_is_named(tmp_path):
    folder = data_set(tmp_path / "theirs", pa.table({"patient_id": [7], "time": [MARCH], "code": ["x"]}))
    assert 'there is no column "subject_id", which MEDS requires.\nThe columns are: patient_id, time, code.' in refusal(
        folder, tmp_path / "store"
    )


def test_a_file_that_is_damaged_within_is_named(tmp_path):
    path = data_set(tmp_path / "theirs", drawn(SMALL)) / "data" / "0.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    assert refusal(tmp_path / "theirs", tmp_path / "store").startswith(f"{path} cannot be read to its end: ")


def test_what_is_no_data_set_is_said(tmp_path):
    assert f"{tmp_path} is no data set in the MEDS format" in refusal(tmp_path, tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.parquet").write_bytes(b"PAR1")
    assert "0.parquet is not a Parquet file, or is damaged" in refusal(tmp_path, tmp_path / "store")


# there and back


@pytest.fixture(scope="module")
def county(tmp_path_factory) -> Path:
    """A synthetic county, with a text and a column of its own beside what the simulation writes."""
    path = tmp_path_factory.mktemp("county") / "store"
    simulate(path, residents=300, years=3, seed=1)
    note = events_from("time | code | text\n2020-03-05 | LOCAL//note | 头晕\n | LOCAL//always |")
    EventStore.open(path).append([note.with_columns(source_code=pl.lit("OMOP//1"))])
    return path


def test_a_store_comes_back_equal(county, tmp_path):
    report = ingest_meds(county, tmp_path / "store")
    ours, back = EventStore.open(county), EventStore.open(tmp_path / "store")
    assert [shard.name for shard in back.shards] == [shard.name for shard in ours.shards]
    for shard, other in zip(ours.shards, back.shards, strict=True):
        assert ours.read(shard).equals(back.read(other))
    assert (back.timezone, back.name, back.description) == (ours.timezone, ours.name, ours.description)
    assert report.events_written == report.events_read == report.rows["data"]
    for name in ("weibing.json", "dataset.json", "codes.parquet"):
        assert (tmp_path / "store" / "metadata" / name).read_bytes() == (county / "metadata" / name).read_bytes()


def test_the_same_store_twice_adds_nothing(county, tmp_path):
    first = ingest_meds(county, tmp_path / "store")
    again = ingest_meds(county, tmp_path / "store")
    assert (again.events_written, again.residents_new) == (0, 0)
    assert again.duplicates == first.events_written


@pytest.mark.parametrize("lines", [1, 2])
def test_killed_and_repeated_the_store_is_as_if_undisturbed(county, tmp_path, lines):
    told_so_far = []

    def killed(line: str) -> None:
        told_so_far.append(line)
        if len(told_so_far) == lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_meds(county, tmp_path / "store", progress=killed)
    assert not (tmp_path / "store").exists()
    ingest_meds(county, tmp_path / "store")
    assert told(tmp_path / "store").equals(told(county))


def test_what_others_wrote_comes_back_equal_after_a_second_ingest(tmp_path):
    folder = data_set(tmp_path / "theirs", drawn(SMALL).append_column("visit_id", pa.array([1, 2, 3])))
    ingest_meds(folder, tmp_path / "one", timezone="Asia/Shanghai", today=TODAY)
    ingest_meds(tmp_path / "one", tmp_path / "two", today=TODAY)
    assert told(tmp_path / "one").equals(told(tmp_path / "two"))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 10**16),
            st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2024, 1, 1)),
            st.sampled_from(["LOINC//8480-6", "fall", "LOCAL//文", "MEDS_DEATH"]),
            st.none() | st.floats(-(2.0**60), 2.0**60, width=32),
            st.none() | st.text(st.characters(exclude_categories=["Cs", "Nd"]), max_size=5),
            st.none() | st.sampled_from(["mmHg", "kPa"]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_events_come_back_equal(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("stores")
    events = normalised(pl.DataFrame(rows, normalised(pl.DataFrame({"subject_id": []})).schema, orient="row"))
    EventStore.create(folder / "one").append([events])
    ingest_meds(folder / "one", folder / "two")
    assert told(folder / "two").equals(told(folder / "one"))


def test_a_store_is_not_taken_into_itself(county):
    assert refusal(county, county) == f"{county} cannot be taken into itself. Name another store."


def test_a_synthetic_county_is_not_mixed_with_a_real_one(county, tmp_path):
    EventStore.create(tmp_path / "real", timezone="Asia/Shanghai")
    said = refusal(county, tmp_path / "real")
    assert "synthetic: True" in said
    assert f"{tmp_path / 'real'} is a store of dated records. Take it into a store of its own." in said


# what we write, by the standard's own check


def test_what_is_written_passes_the_standard_s_own_validation(ingested, tmp_path):
    ingested(data_set(tmp_path / "theirs", drawn(SMALL).append_column("visit_id", pa.array([1, 2, 3]))))
    ingest_meds(tmp_path / "store", tmp_path / "again", today=TODAY)
    for store in (tmp_path / "store", tmp_path / "again"):
        for shard in EventStore.open(store).shards:
            meds.DataSchema.validate(pq.read_table(shard))
        meds.CodeMetadataSchema.validate(pq.read_table(store / meds.code_metadata_filepath))
        described = json.loads((store / meds.dataset_metadata_filepath).read_text(encoding="utf-8"))
        meds.DatasetMetadataSchema.validate(described)
        codes = set(pq.read_table(store / meds.code_metadata_filepath)["code"].to_pylist())
        assert codes == set(told(store)["code"])
