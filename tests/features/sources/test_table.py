"""Tables to events, beyond the examples of docs/records.md, which are tests as well."""

import json
from datetime import date

import polars as pl
import pytest

from features.errors import WeibingError
from features.sources.report import Reason
from features.sources.table import ingest_tables, reading

EXAMS = """
    id,day,sbp
    7,2024-03-05,152
    8,2024-03-06,118
"""
EXAMS_MAPPING = """
    [[table]]
    file = "exams*"
    resident = "id"
    time = { column = "day" }
    value = [{ column = "sbp", code = "sbp" }]
"""


# Which files


def test_a_file_that_no_table_takes_is_refused(county):
    county.file("exams.csv", EXAMS)
    county.file("eaxms_2023.csv", EXAMS)
    with pytest.raises(WeibingError) as error:
        county.ingest(EXAMS_MAPPING)
    assert str(error.value) == "mapping.toml: no table takes the file eaxms_2023.csv. The tables take: exams*."


def test_no_files_are_refused(county):
    with pytest.raises(WeibingError, match="There are no files to read"):
        county.ingest(EXAMS_MAPPING)


def test_a_table_without_a_file_is_left_alone(county):
    county.file("exams.csv", EXAMS)
    county.ingest(EXAMS_MAPPING + EXAMS_MAPPING.replace("exams*", "labs*").replace('"id"', '"no"'))
    assert len(county.drawn()) == 3


def test_a_file_may_serve_several_tables_and_is_counted_for_each(county):
    county.file("exams.csv", EXAMS)
    report = county.ingest(EXAMS_MAPPING + EXAMS_MAPPING.replace('column = "sbp",', 'column = "sbp", unit = "kPa",'))
    assert report.rows == {"exams.csv (table 1)": 2, "exams.csv (table 2)": 2}
    assert report.events_written == 4


def test_every_missing_column_of_every_file_is_told(county):
    county.file("exams_1.csv", "id,date,sbp\n7,2024-03-05,1\n")
    county.file("exams_2.csv", "id,day,sbp,sbp\n7,2024-03-05,1,2\n")
    with pytest.raises(WeibingError) as error:
        county.ingest(EXAMS_MAPPING)
    assert str(error.value).splitlines() == [
        'mapping.toml, table 1 (line 1): there is no column "day" in exams_1.csv.',
        "The columns are: id, date, sbp.",
        'mapping.toml, table 1 (line 1), value 1: there are 2 columns "sbp" in exams_2.csv.',
    ]
    assert not county.store.exists()


# What comes of rows


@pytest.mark.parametrize("name", ["exams.parquet", "exams.xlsx"])
def test_a_cell_that_is_a_date_needs_no_format(county, name):
    frame = pl.DataFrame({"id": [7, 8], "day": [date(2024, 3, 5), date(2024, 3, 6)], "sbp": [152.0, 118.5]})
    path = county.folder / name
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_excel(path)
    county.ingest(EXAMS_MAPPING.replace('column = "day"', 'column = "day", format = "%d.%m.%Y"'))
    county.is_drawn("""
        resident | time       | code | value
        7        | 2024-03-05 | sbp  | 152
        8        | 2024-03-06 | sbp  | 118.5
    """)


def test_blocks_of_any_size_give_the_same_events(county, monkeypatch):
    county.file("exams.csv", EXAMS + "    7,2024-03-07,1\n" * 40)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 32)
    county.ingest(EXAMS_MAPPING)
    county.is_drawn("""
        resident | time       | code | value
        7        | 2024-03-05 | sbp  | 152
        7        | 2024-03-07 | sbp  | 1
        8        | 2024-03-06 | sbp  | 118
    """)


def test_several_columns_may_share_a_flag(county):
    county.file(
        "drugs.csv", "id,day,metformin,glipizide\n7,2024-03-05,No,Up\n8,2024-03-05,Steady,\n9,2024-03-05,No,No\n"
    )
    county.ingest("""
        [[table]]
        file = "drugs.csv"
        resident = "id"
        time = { column = "day" }
        flag = [{ columns = ["metformin", "glipizide"], is = ["Steady", "Up", "Down"], code = "oral_glucose_lowering" }]
    """)
    county.is_drawn("""
        resident | time       | code
        7        | 2024-03-05 | oral_glucose_lowering
        8        | 2024-03-05 | oral_glucose_lowering
    """)


@pytest.mark.parametrize("separator", [";", [";", "+"]])
def test_a_cell_may_hold_several_codes(county, separator):
    county.file("stays.csv", "id,day,codes\n7,2024-03-05,I10; E11.9 ;\n8,2024-03-05,\n9,2024-03-06,;;N18\n")
    county.ingest(f"""
        [[table]]
        file = "stays.csv"
        resident = "id"
        time = {{ column = "day" }}
        code = [{{ column = "codes", system = "ICD10", separator = {json.dumps(separator)} }}]
    """)
    county.is_drawn("""
        resident | time       | code
        7        | 2024-03-05 | ICD10//E11.9
        7        | 2024-03-05 | ICD10//I10
        9        | 2024-03-06 | ICD10//N18
    """)


def test_names_of_codes_can_be_dropped_and_the_drop_is_counted(county):
    county.file("events.csv", "id,day,event\n7,2024-03-05,htn\n7,2024-03-05,cold\n7,2024-03-06,cold\n7,2024-03-06,MI\n")
    mapping = """
        [[table]]
        file = "events.csv"
        resident = "id"
        time = { column = "day" }
        [[table.code]]
        column = "event"
        codes = { htn = "hypertension", MI = "myocardial_infarction" }
        drop = "MI"
        others = "drop"
    """
    assert county.ingest(mapping).counted(Reason.DROPPED) == {
        'events.csv, event = "cold"': 2,
        'events.csv, event = "MI"': 1,
    }
    county.is_drawn("""
        resident | time       | code
        7        | 2024-03-05 | hypertension
    """)


def test_names_may_have_one_unit_for_all_and_others_for_some(county):
    county.file("labs.csv", "id,day,test,value\n7,2024-03-05,HDL,46\n7,2024-03-05,CREA,80\n7,2024-03-05,CRP,3\n")
    county.ingest("""
        [[table]]
        file = "labs.csv"
        resident = "id"
        time = { column = "day" }
        [[table.named]]
        name = "test"
        value = "value"
        codes = { HDL = "hdl", CREA = "creatinine" }
        unit = "mg/dL"
        units = { CREA = "umol/L" }
    """)
    county.is_drawn("""
        resident | time       | code       | value | unit
        7        | 2024-03-05 | LOCAL//CRP | 3     | mg/dL
        7        | 2024-03-05 | creatinine | 80    | umol/L
        7        | 2024-03-05 | hdl        | 46    | mg/dL
    """)


def test_ranks_count_over_files_and_the_rows_that_pass(county):
    county.file("a.csv", "id,no,ok,x\n7,10,1,3\n7,9,0,4\n8,1,1,5\n")
    county.file("b.csv", "id,no,ok,x\n7,2,1,6\n7,,1,7\n,3,1,8\n")
    county.ingest("""
        timezone = "UTC"
        [[table]]
        file = ["a.csv", "b.csv"]
        resident = "id"
        where = [{ column = "ok", is = 1 }]
        time = { order = "no", step = "1w" }
        value = [{ column = "x", code = "length_of_stay" }]
    """)
    county.is_drawn("""
        resident | time       | code           | value
        7        | 2000-01-01 | length_of_stay | 6
        7        | 2000-01-08 | length_of_stay | 3
        7        | 2000-01-15 | length_of_stay | 7
        8        | 2000-01-01 | length_of_stay | 5
    """)


def test_rows_can_be_ranked_as_they_come(county, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 8)
    county.file("a.csv", "id,x\n7,3\n8,1\n7,2\n7,9\n")
    county.ingest("""
        timezone = "UTC"
        [[table]]
        file = "a.csv"
        resident = "id"
        time = { order = "rows", origin = { date = "2010-01-01" } }
        value = [{ column = "x", code = "length_of_stay" }]
    """)
    county.is_drawn("""
        resident | time       | code           | value
        7        | 2010-01-01 | length_of_stay | 3
        7        | 2010-01-02 | length_of_stay | 2
        7        | 2010-01-03 | length_of_stay | 9
        8        | 2010-01-01 | length_of_stay | 1
    """)


@pytest.mark.parametrize(
    ("condition", "passing"),
    [
        ("is = 'a'", ["1"]),
        ("is = ['a', 'b']", ["1", "2"]),
        ("is = 5", ["3"]),
        ("is_not = ['a', 5]", ["2", "4"]),
        ("at_least = 5", ["3"]),
        ("at_most = 4.9", []),
        ("present = true", ["1", "2", "3"]),
        ("present = false", ["4"]),
        ("present = true, is_not = 'b'", ["1", "3"]),
    ],
)
def test_a_filter_keeps_the_rows_that_meet_it(county, condition, passing):
    county.file("a.csv", "id,x\n1,a\n2,b\n3,5.0\n4,\n")
    report = county.ingest(f"""
        [[table]]
        file = "a.csv"
        resident = "id"
        where = [{{ column = "x", {condition} }}]
        time = "2024-03-05"
        event = [{{ code = "fall" }}]
    """)
    assert report.counted(Reason.FILTERED) == ({"a.csv": 4 - len(passing)} if len(passing) < 4 else {})
    assert [row[0] for row in county.drawn("resident", "time", "code")[1:]] == passing


# What cannot be taken


def test_a_cell_that_cannot_be_read_is_counted_once_with_its_line(county):
    county.file("a.csv", 'id,days,x\n7,1,"two\nlines"\n7,x,5\n7,2,6\n7,y,7\n')
    report = county.ingest("""
        [[table]]
        file = "a.csv"
        resident = "id"
        time = { days = "days", origin = "2024-01-01" }
        observation_end = { days = "days", origin = "2024-02-01" }
        value = [{ column = "x", code = "LOCAL//x" }, { column = "x", code = "LOCAL//y" }]
    """).as_dict()["remarks"]
    assert report["not_a_number"] == [
        {"of": "a.csv, days", "count": 2, "example": '"x" in line 4'},
        {"of": "a.csv, x", "count": 1, "example": '"two lines" in line 2'},
    ]
    assert report["undated"] == [{"of": "a.csv, value 1", "count": 2}, {"of": "a.csv, value 2", "count": 2}]


def test_days_that_lead_out_of_this_world_are_no_date(county):
    county.file("a.csv", "id,days\n7,1e300\n7,99999999\n7,-60000\n")
    report = county.ingest("""
        [[table]]
        file = "a.csv"
        resident = "id"
        time = { days = "days", origin = "2024-01-01" }
        event = [{ code = "fall" }]
    """)
    assert report.counted(Reason.NOT_A_DATE) == {"a.csv, days": 2}
    assert report.events_written == 1


def test_a_row_without_a_resident_is_counted(county):
    county.file("exams.csv", EXAMS + "    ,2024-03-07,1\n    NA,2024-03-07,1\n")
    assert county.ingest(EXAMS_MAPPING).counted(Reason.NO_RESIDENT) == {"exams.csv": 2}


def test_a_resident_that_is_no_integer_is_told_with_its_line_and_remedy(county):
    county.file("exams.csv", EXAMS + "    sum,,270\n")
    with pytest.raises(WeibingError) as error:
        county.ingest(EXAMS_MAPPING)
    assert str(error.value) == (
        'exams.csv, line 4: the resident "sum" is not an integer. '
        'Hash them with a secret: resident = { column = "id", key = "WEIBING_RESIDENT_KEY" }. '
        "If the row is about nobody, such as a sum, leave it out with where."
    )


# What never enters the store


@pytest.mark.parametrize("cell", ["11010519491231002X", "440524188001010014"])
def test_identity_numbers_are_refused_without_a_secret(county, cell):
    county.file("exams.csv", f"id,day,sbp\n{cell},2024-03-05,152\n")
    with pytest.raises(
        WeibingError, match=r'column "id" holds identity numbers, .* key = "WEIBING_RESIDENT_KEY"'
    ) as error:
        county.ingest(EXAMS_MAPPING)
    assert cell not in str(error.value)
    assert not county.store.exists()


def test_identity_numbers_are_refused_as_codes(county):
    county.file("a.csv", "id,day,x\n7,2024-03-05,11010519491231002X\n")
    with pytest.raises(
        WeibingError, match=r'a.csv: the column "x" holds identity numbers, which never enter the store'
    ):
        county.ingest("""
            [[table]]
            file = "a.csv"
            resident = "id"
            time = { column = "day" }
            code = [{ column = "x" }]
        """)


def test_rounded_identity_numbers_are_refused_even_with_a_secret(county, monkeypatch):
    monkeypatch.setenv("WEIBING_RESIDENT_KEY", "a secret of some length")
    county.file("exams.csv", "id,day,sbp\n110105194912310000,2024-03-05,152\n")
    with pytest.raises(WeibingError, match="have lost their last digits"):
        county.ingest(EXAMS_MAPPING.replace('"id"', '{ column = "id", key = "WEIBING_RESIDENT_KEY" }'))


def test_a_secret_that_is_not_set_is_refused_before_anything_is_read(county, monkeypatch):
    monkeypatch.delenv("WEIBING_RESIDENT_KEY", raising=False)
    county.file("exams.csv", EXAMS)
    with pytest.raises(WeibingError, match="WEIBING_RESIDENT_KEY is not set"):
        county.ingest(EXAMS_MAPPING.replace('"id"', '{ column = "id", key = "WEIBING_RESIDENT_KEY" }'))
    assert not county.store.exists()


def test_an_example_in_the_report_tells_no_identity_number(county):
    county.file("exams.csv", "id,day,sbp\n7,2024-03-05,1101O5 11010519491231002X 13800138000\n")
    report = county.ingest(EXAMS_MAPPING)
    assert '"1101O5 *** ***" in line 2' in report.text()


# The store


def test_the_same_files_again_change_nothing(county):
    county.file("exams.csv", EXAMS)
    first = county.ingest(EXAMS_MAPPING)
    events = county.drawn()
    second = county.ingest(EXAMS_MAPPING)
    assert county.drawn() == events
    assert (first.events_written, first.residents_new) == (2, 2)
    assert (second.events_written, second.duplicates, second.residents_new, second.residents_known) == (0, 2, 0, 2)


def test_a_second_ingest_adds_to_the_store(county):
    county.file("exams.csv", EXAMS)
    county.ingest(EXAMS_MAPPING)
    county.file("exams.csv", "id,day,sbp\n8,2024-04-06,121\n9,2024-04-06,140\n")
    report = county.ingest(EXAMS_MAPPING)
    assert (report.events_written, report.residents_new, report.residents_known) == (2, 1, 1)
    assert len(county.drawn()) == 1 + 4


def test_a_failure_half_way_leaves_an_old_store_as_it_was(county, monkeypatch):
    county.file("exams.csv", EXAMS)
    county.ingest(EXAMS_MAPPING)
    events = county.drawn()
    monkeypatch.setattr(reading, "BLOCK_BYTES", 32)
    county.file("exams.csv", "id,day,sbp\n" + "9,2024-04-06,140\n" * 10 + "9,2024-04-06\n")
    with pytest.raises(WeibingError, match=r"exams.csv, line 12: there are 2 cells"):
        county.ingest(EXAMS_MAPPING)
    assert county.drawn() == events


@pytest.mark.parametrize("folder_exists", [False, True])
def test_a_failure_half_way_leaves_no_new_store_behind(county, folder_exists):
    county.file("exams.csv", "id,day,sbp\n9,2024-04-06,140\n9,2024-04-06\n")
    if folder_exists:
        county.store.mkdir()
        (county.store / "mine.txt").touch()
    with pytest.raises(WeibingError, match="line 3"):
        county.ingest(EXAMS_MAPPING)
    assert not folder_exists or [path.name for path in county.store.iterdir()] == ["mine.txt"]
    assert county.store.exists() == folder_exists


def test_a_store_in_another_zone_is_refused(county):
    county.file("exams.csv", EXAMS)
    county.ingest(EXAMS_MAPPING)
    with pytest.raises(WeibingError, match="is in the time zone Asia/Shanghai, not UTC"):
        county.ingest('    timezone = "UTC"\n' + EXAMS_MAPPING)


def test_births_are_told_before_the_events_of_other_tables(county):
    county.file("exams.csv", EXAMS)
    county.file("people.csv", "id,born\n7,2024-03-06\n8,2024-03-06\n")
    births = """
    [[table]]
    file = "people*"
    resident = "id"
    birth = { column = "born" }
    """
    report = county.ingest(EXAMS_MAPPING + births)
    assert report.counted(Reason.BEFORE_BIRTH) == {"sbp": 1}


def test_today_is_a_day_of_the_county(county):
    county.file("exams.csv", "id,day,sbp\n7,2024-03-05 23:59,120\n7,2024-03-06 00:00,130\n")
    report = county.ingest(EXAMS_MAPPING, today=date(2024, 3, 5))
    assert report.counted(Reason.AFTER_TODAY) == {"sbp": 1}
    county.is_drawn("""
        resident | time             | code | value
        7        | 2024-03-05 23:59 | sbp  | 120
    """)


def test_progress_says_how_far_it_is(county):
    lines = []
    ingest_tables([county.file("exams.csv", EXAMS)], county.store, county.mapping(EXAMS_MAPPING), progress=lines.append)
    assert lines == ["exams.csv: 2 rows", "sorting the events into the store"]
