"""The admission of events, which all sources share, and what the report says of it."""

import json
from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.events import EventStore
from features.sources import report as reports
from features.sources.report import IngestReport, Reason, admit, opened_store

TODAY = date(2024, 6, 30)
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float64,
    "unit": pl.String,
}


def frame(drawn):
    """Read events that are drawn as resident | time | code | value | unit."""
    rows = []
    for line in drawn.strip().splitlines():
        resident, time, code, value, unit = ([cell.strip() or None for cell in line.split("|")] + [None] * 4)[:5]
        at = datetime.fromisoformat(time) if time else None
        rows.append((int(resident), at, code, float(value) if value else None, unit))
    return pl.DataFrame(rows, SCHEMA, orient="row")


@pytest.fixture
def store(tmp_path):
    return EventStore.create(tmp_path / "store", timezone="Asia/Shanghai")


@pytest.fixture
def admitted(store):
    def admitted(*drawn, today=TODAY):
        report = IngestReport()
        admit(map(frame, drawn), store, report, today)
        return report

    return admitted


def written(store):
    return [row for shard in store.shards for row in store.read(shard).select("subject_id", "time", "code").rows()]


def test_good_events_go_in_without_a_remark(store, admitted):
    report = admitted("""
        1 | 1950-06-01 | MEDS_BIRTH
        1 |            | female       | 1
        1 | 2024-03-05 | sbp          | 152 | mmHg
        1 | 2024-03-05 | hypertension
    """)
    assert report.remarks == {}
    assert (report.events_read, report.events_written, report.duplicates, report.residents_new) == (4, 4, 0, 1)


def test_an_unknown_code_is_counted_and_kept(store, admitted):
    report = admitted("""
        1 | 2024-03-05 | LOCAL//a
        1 | 2024-03-06 | LOCAL//a
        1 | 2024-03-06 | ICD10//Z99
    """)
    assert report.counted(Reason.UNKNOWN_CODE) == {"LOCAL//a": 2, "ICD10//Z99": 1}
    assert report.events_written == 3


def test_an_unknown_unit_is_counted_by_concept_and_kept(store, admitted):
    report = admitted("""
        1 | 2024-03-05 | LOINC//8480-6 | 152 | foot
        1 | 2024-03-06 | sbp           | 20  | kPa
        1 | 2024-03-07 | sbp           | 150 |
    """)
    assert report.counted(Reason.UNKNOWN_UNIT) == {"sbp in foot": 1}
    assert list(report.remarks) == [Reason.UNKNOWN_UNIT]
    assert report.events_written == 3


def test_values_out_of_range_are_counted_with_their_span_in_the_concepts_unit_and_kept(store, admitted):
    report = admitted(
        """
        1 | 2024-03-05 | sbp | 49.9  | mmHg
        1 | 2024-03-06 | sbp | 50    | mmHg
        1 | 2024-03-07 | sbp | 300   | mmHg
        1 | 2024-03-08 | sbp | 13682 |
        """,
        """
        1 | 2024-03-09 | sbp | 100   | kPa
        1 | 2024-03-09 | sbp | 20    | kPa
        1 | 2024-03-10 | sbp | -5    |
        """,
    )
    tally = report.remarks[Reason.IMPLAUSIBLE]["sbp (50 to 300 mm[Hg])"]
    # 100 kPa are 750 mmHg.
    assert (tally.count, tally.smallest, tally.largest) == (4, -5, 13682)
    assert report.events_written == 7


def test_a_measurement_without_a_number_is_counted_and_kept(store, admitted):
    report = admitted("""
        1 | 2024-03-05 | sbp
        1 | 2024-03-05 | hypertension
    """)
    assert report.counted(Reason.NO_VALUE) == {"sbp": 1}
    assert report.events_written == 2


def test_what_comes_after_today_is_left_out_by_the_county_s_clock(store, admitted):
    # The day of 2024-06-30 ends in Shanghai at 16:00 UTC.
    report = admitted("""
        1 | 2024-06-30T15:59:59 | fall
        1 | 2024-06-30T16:00:00 | fall
        2 | 2050-01-01          | MEDS_BIRTH
        2 | 2024-01-01          | fall
    """)
    assert report.counted(Reason.AFTER_TODAY) == {"MEDS_BIRTH": 1, "fall": 1}
    assert written(store) == [(1, datetime(2024, 6, 30, 15, 59, 59), "fall"), (2, datetime(2024, 1, 1), "fall")]


def test_what_comes_before_birth_is_left_out(store, admitted):
    report = admitted(
        """
        1 | 1950-06-01 | MEDS_BIRTH
        1 | 1950-05-31 | fall
        1 | 1950-06-01 | fall
        2 | 1900-01-01 | fall
        """,
        """
        1 | 1949-01-01 | MEDS_DEATH
        1 |            | education | 3
        """,
    )
    assert report.counted(Reason.BEFORE_BIRTH) == {"MEDS_DEATH": 1, "fall": 1}
    assert report.remarks[Reason.BEFORE_BIRTH]["fall"].example == "1950-05-31"
    assert report.events_written == 4


def test_a_birth_in_the_store_is_held_against_later_events(store, admitted):
    admitted("1 | 1950-06-01 | MEDS_BIRTH")
    report = admitted("1 | 1950-05-31 | fall")
    assert report.counted(Reason.BEFORE_BIRTH) == {"fall": 1}


def test_the_first_birth_and_sex_told_are_kept(store, admitted):
    told = """
        2 | 1960-01-01 | MEDS_BIRTH
        1 | 1950-06-01 | MEDS_BIRTH
        1 | 1951-06-01 | MEDS_BIRTH
        1 | 1950-06-01 | MEDS_BIRTH
        1 |            | female | 1
        1 |            | female | 0
    """
    first = admitted(told)
    assert (first.counted(Reason.ANOTHER_BIRTH), first.counted(Reason.ANOTHER_SEX)) == (
        {"MEDS_BIRTH": 1},
        {"female": 1},
    )
    assert (first.events_written, first.duplicates) == (3, 1)

    again = admitted(told, "1 | 1951-06-01 | MEDS_BIRTH")
    assert (again.counted(Reason.ANOTHER_BIRTH), again.counted(Reason.ANOTHER_SEX)) == (
        {"MEDS_BIRTH": 2},
        {"female": 1},
    )
    assert (again.events_written, again.duplicates, again.residents_known) == (0, 4, 2)


events = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(1940, 2030).map(lambda year: datetime(year, 1, 1))),
        st.sampled_from(["MEDS_BIRTH", "female", "sbp", "fall", "LOCAL//x"]),
        st.sampled_from([None, 0.0, 1.0, 1000.0]),
        st.sampled_from([None, "mmHg", "foot"]),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, max_size=3))
def test_every_event_is_written_or_a_duplicate_or_left_out_for_a_reason(tmp_path_factory, frames):
    store = EventStore.create(tmp_path_factory.mktemp("store") / "store")
    report = IngestReport()
    admit([pl.DataFrame(rows, SCHEMA, orient="row") for rows in frames], store, report, TODAY)
    reasons = (Reason.AFTER_TODAY, Reason.BEFORE_BIRTH, Reason.ANOTHER_BIRTH, Reason.ANOTHER_SEX)
    left_out = sum(sum(report.counted(reason).values()) for reason in reasons)
    assert report.events_read == sum(map(len, frames)) == report.events_written + report.duplicates + left_out
    births = [resident for resident, _, code in written(store) if code == "MEDS_BIRTH" and _]
    assert len(births) == len(set(births))


def test_the_report_lists_the_most_frequent_and_sums_up_the_rest():
    report = IngestReport(rows={"a.csv": 3})
    for number in range(13):
        report.remark(Reason.UNKNOWN_CODE, f"LOCAL//{number:02}", number)
    lines = report.text().splitlines()
    start = lines.index(next(line for line in lines if "codes that the vocabulary" in line))
    assert lines[start].split() == ["codes", "that", "the", "vocabulary", "does", "not", "know", "78"]
    assert [line.split()[0] for line in lines[start + 1 : start + 11]] == [f"LOCAL//{n:02}" for n in range(12, 2, -1)]
    assert lines[start + 11].split() == ["and", "2", "more", "3"]


def test_a_report_does_not_remember_without_end(monkeypatch):
    monkeypatch.setattr(reports, "REMEMBERED", 3)
    report = IngestReport()
    for number in range(10):
        report.remark(Reason.UNKNOWN_CODE, f"LOCAL//{number}")
    assert report.counted(Reason.UNKNOWN_CODE) == {"all others": 7, "LOCAL//0": 1, "LOCAL//1": 1, "LOCAL//2": 1}


def test_chinese_labels_keep_the_columns_aligned():
    report = IngestReport(rows={"体检.csv": 12, "exams_2024.csv": 3456})
    assert report.text().splitlines()[1:3] == [
        "  体检.csv                                12  rows",
        "  exams_2024.csv                       3,456  rows",
    ]


def test_the_report_goes_into_json(admitted):
    report = admitted("1 | 2024-03-05 | sbp | 13682")
    assert json.loads(json.dumps(report.as_dict())) == {
        "rows": {},
        "events": {"read": 1, "written": 1, "duplicates": 0, "outdated": 0, "removed": 0, "erased": 0},
        "records": {"replaced": 0},
        "residents": {"new": 1, "known": 0},
        "remarks": {
            "implausible": [{"of": "sbp (50 to 300 mm[Hg])", "count": 1, "smallest": 13682.0, "largest": 13682.0}]
        },
    }


@pytest.fixture
def interrupted(tmp_path):
    def interrupted(*frames):
        with opened_store(tmp_path / "store", timezone="UTC") as store:
            if frames:
                admit(frames, store, IngestReport(), TODAY)
            raise KeyboardInterrupt

    return interrupted


def test_a_new_store_is_removed_when_what_follows_fails(tmp_path, interrupted):
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "store").exists()


def test_a_store_that_has_been_written_to_stays(tmp_path, interrupted):
    with pytest.raises(KeyboardInterrupt):
        interrupted(frame("1 | 2024-03-05 | fall"))
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(written(EventStore.open(tmp_path / "store"))) == 1
