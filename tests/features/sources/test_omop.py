"""An OMOP data set, as events; docs/omop.md has the plain cases, which test_omop_docs.py runs."""

from dataclasses import dataclass
from datetime import date

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import WeibingError
from features.events import EventStore
from features.sources.omop import ingest_omop
from features.sources.report import IngestReport, Reason
from tests.real import real_records
from tests.tables import cells_from

TODAY = date(2025, 1, 1)


@dataclass
class DataSet:
    """Tables in a folder, drawn as text, and the store that comes of them."""

    county: object

    def table(self, name: str, drawn: str) -> None:
        folder = self.county.folder / "cdm"
        folder.mkdir(exist_ok=True)
        cells_from(drawn).write_csv(folder / f"{name}.csv")

    def ingest(self, **options) -> IngestReport:
        return ingest_omop(self.county.folder / "cdm", self.county.store, **{"today": TODAY} | options)

    def is_drawn(self, drawn: str) -> None:
        self.county.is_drawn(drawn)

    def events(self) -> pl.DataFrame:
        store = EventStore.open(self.county.store)
        return pl.concat([store.read(shard) for shard in store.shards])


@pytest.fixture
def cdm(county):
    return DataSet(county)


# who


def test_a_birth_is_told_once_and_what_came_before_it_is_left_out(cdm):
    cdm.table(
        "person", "person_id | gender_concept_id | year_of_birth | month_of_birth | day_of_birth\n7 | 0 | 1950 | 6 | 9"
    )
    cdm.table(
        "condition_occurrence",
        """
        person_id | condition_concept_id | condition_start_date
        7         | 320128               | 1950-06-08
        7         | 320128               | 1950-06-09
        """,
    )
    report = cdm.ingest()
    cdm.is_drawn("""
        resident | time       | code
        7        | 1950-06-09 | MEDS_BIRTH
        7        | 1950-06-09 | OMOP//320128
    """)
    assert report.counted(Reason.BEFORE_BIRTH) == {"OMOP//320128": 1}


def test_a_birth_that_is_no_date_is_counted(cdm):
    cdm.table(
        "person",
        """
        person_id | gender_concept_id | year_of_birth | month_of_birth | day_of_birth
        7         | 8532              | 1950          | 13             | 1
        8         | 8507              |               |                |
        """,
    )
    report = cdm.ingest()
    cdm.is_drawn("resident | time | code | value\n7 | | female | 1\n8 | | female | 0")
    assert report.counted(Reason.UNDATED) == {"person, MEDS_BIRTH": 2}
    assert report.remarks[Reason.NOT_A_DATE]["person, year_of_birth"].example == '"1950-13-01" in row 1'


def test_a_row_about_nobody_is_counted(cdm):
    cdm.table("death", "person_id | death_date\n | 2024-01-01\n7 | 2024-01-02")
    report = cdm.ingest()
    cdm.is_drawn("resident | time | code\n7 | 2024-01-02 | MEDS_DEATH")
    assert report.counted(Reason.NO_RESIDENT) == {"death": 1}


@pytest.mark.parametrize(
    ("person", "sentence"),
    [
        ("A-7", 'death, row 2: the person "A-7" is not an integer, as OMOP requires.'),
        ("11010519491231002X", "death: the column person_id holds identity numbers, which never enter the store."),
    ],
)
def test_a_person_is_an_integer_and_no_identity_number(cdm, person, sentence):
    cdm.table("death", f"person_id | death_date\n7 | 2024-01-02\n{person} | 2024-01-01")
    with pytest.raises(WeibingError) as error:
        cdm.ingest()
    assert str(error.value).startswith(sentence)
    assert not cdm.county.store.exists()


# when


def test_times_are_of_the_store_s_zone_unless_they_say_otherwise(cdm):
    cdm.table(
        "procedure_occurrence",
        """
        person_id | procedure_concept_id | procedure_date | procedure_datetime
        1         | 11                   | 2024-03-05     |
        2         | 11                   | 2024-03-05     | 2024-03-05 08:30:00
        3         | 11                   | 2024-03-05     | 2024-03-05T08:30:00Z
        """,
    )
    cdm.ingest(timezone="Asia/Shanghai")
    assert cdm.events().sort("subject_id")["time"].dt.to_string("%Y-%m-%d %H:%M").to_list() == [
        "2024-03-04 16:00",
        "2024-03-05 00:30",
        "2024-03-05 08:30",
    ]


def test_a_row_without_a_time_or_with_an_impossible_one_is_counted(cdm):
    cdm.table(
        "procedure_occurrence",
        """
        person_id | procedure_concept_id | procedure_date
        1         | 11                   |
        1         | 11                   | 2024-02-30
        1         | 11                   | 2025-01-02
        1         | 11                   | 2025-01-01
        """,
    )
    report = cdm.ingest()
    cdm.is_drawn("resident | time | code\n1 | 2025-01-01 | OMOP//11")
    assert report.counted(Reason.UNDATED) == {"procedure_occurrence": 2}
    assert report.counted(Reason.AFTER_TODAY) == {"OMOP//11": 1}
    assert report.remarks[Reason.NOT_A_DATE]["procedure_occurrence, procedure_date"].example == '"2024-02-30" in row 2'


def test_the_days_of_a_stay_are_those_of_the_calendar_in_the_store_s_zone(cdm):
    # In UTC, both begin and end on the same day, of the calendar of Shanghai they do not.
    cdm.table(
        "visit_occurrence",
        """
        person_id | visit_concept_id | visit_start_date | visit_start_datetime | visit_end_date | visit_end_datetime
        7         | 9201             | 2024-03-05       | 2024-03-05 23:00:00  | 2024-03-06     | 2024-03-06 01:00:00
        7         | 262              | 2024-05-05       | 2024-05-05 01:00:00  | 2024-05-05     | 2024-05-05 23:00:00
        """,
    )
    cdm.ingest(timezone="Asia/Shanghai")
    cdm.is_drawn("""
        resident | time             | code           | value | unit
        7        | 2024-03-05 23:00 | OMOP//9201     |       |
        7        | 2024-03-06 01:00 | length_of_stay | 1     | d
        7        | 2024-05-05 01:00 | OMOP//262      |       |
        7        | 2024-05-05 23:00 | length_of_stay | 0     | d
    """)


# what


def test_a_cell_that_is_no_number_is_counted_and_its_event_kept(cdm):
    cdm.table(
        "measurement",
        """
        person_id | measurement_concept_id | measurement_date | value_as_number | unit_concept_id | value_source_value
        7         | 3004249                | 2024-03-05       | high            | 8876            | 152/91
        7         | 3004249                | 2024-03-06       | <60             | 8876            | <60
        7         | x                      | 2024-03-07       | 1               | 0               |
        """,
    )
    report = cdm.ingest()
    cdm.is_drawn("""
        resident | time       | code          | value | unit   | text
        7        | 2024-03-05 | OMOP//3004249 |       |        | 152/91
        7        | 2024-03-06 | OMOP//3004249 | 60    | mm[Hg] | <60
        7        | 2024-03-07 | OMOP//0       | 1     |        |
    """)
    assert report.counted(Reason.NOT_A_NUMBER) == {
        "measurement, measurement_concept_id": 1,
        "measurement, value_as_number": 1,
    }
    assert report.counted(Reason.NO_VALUE) == {"sbp": 1}


def test_of_a_number_an_answer_and_a_text_the_first_counts(cdm):
    cdm.table(
        "observation",
        """
        person_id | observation_concept_id | observation_date | value_as_number | value_as_concept_id | value_as_string
        7         | 11                     | 2024-03-05       | 3               | 45877994            | 3 (often)
        7         | 11                     | 2024-03-06       |                 | 45878245            | 0 (never)
        """,
    )
    cdm.ingest()
    cdm.is_drawn("resident | time | code | value\n7 | 2024-03-05 | OMOP//11 | 3\n7 | 2024-03-06 | OMOP//11//45878245 |")


def test_a_bound_is_counted_once_with_its_sign(cdm):
    cdm.table(
        "measurement",
        """
        person_id | measurement_concept_id | measurement_date | value_as_number | operator_concept_id
        7         | 11                     | 2024-03-05       | 90.5            | 4172704
        7         | 11                     | 2024-03-06       | 90.5            | 4172703
        7         | 11                     | 2024-03-07       |                 | 4172704
        7         | 11                     | 2024-03-08       | high            | 4172704
        """,
    )
    report = cdm.ingest()
    assert cdm.events().sort("time")["text_value"].to_list() == [">90.5", None, None, None]
    assert report.remarks[Reason.BOUND]["measurement, value_as_number"].example == '">90.5" in row 1'
    assert report.counted(Reason.BOUND) == {"measurement, value_as_number": 1}


def test_identity_and_telephone_numbers_are_struck_out_of_texts(cdm):
    cdm.table(
        "observation",
        """
        person_id | observation_concept_id | observation_date | value_as_string | value_source_value
        7         | 11                     | 2024-03-05       | 13800138000     |
        8         | 11                     | 2024-03-05       |                 | 身份证11010519491231002X
        """,
    )
    report = cdm.ingest()
    assert cdm.events().sort("subject_id")["text_value"].to_list() == ["***", "身份证***"]
    assert report.counted(Reason.STRUCK_OUT) == {
        "observation, value_as_string": 1,
        "observation, value_source_value": 1,
    }


def test_source_values_that_are_identity_numbers_are_refused(cdm):
    cdm.table(
        "observation",
        """
        person_id | observation_concept_id | observation_date | observation_source_value
        7         | 0                      | 2024-03-05       | 11010519491231002X
        """,
    )
    with pytest.raises(WeibingError, match="the column observation_source_value holds identity numbers"):
        cdm.ingest()


def test_a_cause_of_death_that_only_the_source_names_is_kept(cdm):
    cdm.table("death", "person_id | death_date | cause_concept_id | cause_source_value\n7 | 2024-08-09 | 0 | 心梗")
    cdm.ingest()
    cdm.is_drawn("resident | time | code\n7 | 2024-08-09 | LOCAL//心梗\n7 | 2024-08-09 | MEDS_DEATH")


# what a concept stands for


CONDITION = """
    person_id | condition_concept_id | condition_start_date | condition_source_concept_id
    7         | 2000000101           | 2024-03-05           | 2000000201
"""


def test_a_concept_that_is_known_is_not_replaced(cdm):
    cdm.table("condition_occurrence", CONDITION.replace("2000000101", "320128    "))
    cdm.table(
        "concept",
        """
        concept_id | vocabulary_id | concept_class_id | concept_code
        320128     | ICD10         | ICD10 code       | E11.9
        2000000201 | ICD10         | ICD10 code       | E11.9
        """,
    )
    cdm.ingest()
    assert cdm.events()["code"].to_list() == ["OMOP//320128"]
    assert "source_code" not in cdm.events().columns


def test_the_code_that_was_replaced_stays_beside_the_new_one(cdm):
    cdm.table("condition_occurrence", CONDITION)
    cdm.table(
        "concept",
        "concept_id | vocabulary_id | concept_class_id | concept_code\n2000000201 | ICD10CM | ICD10 code | e11.9",
    )
    cdm.ingest()
    assert cdm.events().select("code", "source_code").rows() == [("ICD10//E11.9", "OMOP//2000000101")]


def test_a_source_code_that_is_not_known_either_replaces_nothing(cdm):
    cdm.table("condition_occurrence", CONDITION)
    cdm.table(
        "concept",
        """
        concept_id | vocabulary_id | concept_class_id | concept_code
        2000000201 | ICD10         | ICD10 code       | Q99.9
        2000000101 | SNOMED        | Clinical Finding | 44054006
        """,
    )
    cdm.ingest()
    assert cdm.events()["code"].to_list() == ["OMOP//2000000101"]


def test_a_concept_below_two_meanings_has_both_each_by_the_nearest(cdm):
    # Hypertensive heart failure: both, under heart failure (316139) and twice under hypertension (316866, 320128).
    cdm.table("condition_occurrence", CONDITION)
    cdm.table(
        "concept_ancestor",
        """
        ancestor_concept_id | descendant_concept_id | min_levels_of_separation
        316139              | 2000000101            | 5
        316866              | 2000000101            | 2
        320128              | 2000000101            | 1
        201826              | 2000000102            | 1
        2000000101          | 2000000101            | 0
        """,
    )
    report = cdm.ingest()
    assert sorted(cdm.events()["code"]) == ["OMOP//316139", "OMOP//320128"]
    assert report.rows["condition_occurrence"] == 1
    assert report.events_read == 2


def test_no_measurement_stands_for_another(cdm):
    cdm.table("measurement", "person_id | measurement_concept_id | measurement_date\n7 | 2000000101 | 2024-03-05")
    cdm.table(
        "concept_ancestor",
        """
        ancestor_concept_id | descendant_concept_id | min_levels_of_separation
        320128              | 2000000101            | 1
        3004249             | 2000000101            | 1
        """,
    )
    cdm.ingest()
    assert cdm.events()["code"].to_list() == ["OMOP//2000000101"]


def test_nothing_below_a_number_stands_for_it(cdm):
    # A condition below systolic pressure (3004249) or below a sex (8532) is neither.
    cdm.table("condition_occurrence", CONDITION)
    cdm.table(
        "concept_ancestor",
        """
        ancestor_concept_id | descendant_concept_id | min_levels_of_separation
        3004249             | 2000000101            | 1
        8532                | 2000000101            | 1
        """,
    )
    cdm.ingest()
    assert cdm.events()["code"].to_list() == ["OMOP//2000000101"]


def test_a_drug_has_all_substances_next_above_it_known_or_not(cdm):
    # Aspirin is listed as an antithrombotic, as an analgesic and, a level up, for the mouth.
    cdm.table("drug_exposure", "person_id | drug_concept_id | drug_exposure_start_date\n7 | 2000000301 | 2024-03-05")
    cdm.table(
        "concept",
        """
        concept_id | vocabulary_id | concept_class_id | concept_code
        2000000311 | ATC           | ATC 5th          | B01AC06
        2000000312 | ATC           | ATC 5th          | N02BA01
        2000000313 | ATC           | ATC 5th          | A01AD05
        2000000314 | ATC           | ATC 4th          | B01AC
        """,
    )
    cdm.table(
        "concept_ancestor",
        """
        ancestor_concept_id | descendant_concept_id | min_levels_of_separation
        2000000311          | 2000000301            | 1
        2000000312          | 2000000301            | 1
        2000000313          | 2000000301            | 2
        2000000314          | 2000000301            | 1
        """,
    )
    cdm.ingest()
    assert sorted(cdm.events().select("code", "source_code").rows()) == [
        ("ATC//B01AC06", "OMOP//2000000301"),
        ("ATC//N02BA01", "OMOP//2000000301"),
    ]


def test_a_yes_finds_the_meaning_of_its_question_and_a_no_does_not(cdm):
    cdm.table(
        "observation",
        """
        person_id | observation_concept_id | observation_date | value_as_concept_id
        7         | 2000000101             | 2024-03-05       | 4188539
        7         | 2000000101             | 2024-03-06       | 4188540
        """,
    )
    cdm.table(
        "concept_ancestor",
        "ancestor_concept_id | descendant_concept_id | min_levels_of_separation\n436583 | 2000000101 | 1",
    )
    cdm.ingest()
    assert cdm.events().sort("time").select("code", "source_code").rows() == [
        ("OMOP//436583", "OMOP//2000000101//4188539"),
        ("OMOP//2000000101//4188540", None),
    ]


def test_a_unit_is_spelt_as_the_data_set_does_where_our_table_lacks_it(cdm):
    cdm.table(
        "measurement",
        """
        person_id | measurement_concept_id | measurement_date | value_as_number | unit_concept_id
        7         | 11                     | 2024-03-05       | 1               | 2000000501
        7         | 11                     | 2024-03-06       | 1               | 9117
        """,
    )
    cdm.table(
        "concept",
        """
        concept_id | vocabulary_id | concept_class_id | concept_code
        2000000501 | UCUM          | Unit             | [drp]
        9117       | UCUM          | Unit             | mL/min/1.73.m2
        """,
    )
    cdm.ingest()
    assert cdm.events().sort("time")["unit"].to_list() == ["[drp]", "mL/min/{1.73_m2}"]


# the whole


def test_the_same_source_twice_adds_nothing(cdm):
    cdm.table("person", "person_id | gender_concept_id | year_of_birth\n7 | 8532 | 1950\n8 | 8507 | 1960")
    cdm.table("condition_occurrence", CONDITION)
    first, before = cdm.ingest(), cdm.events()
    again = cdm.ingest()
    assert (again.events_written, again.duplicates) == (0, first.events_written) == (0, 5)
    assert cdm.events().equals(before)


@pytest.mark.parametrize("lines", [1, 2, 3, 4])
def test_killed_and_repeated_the_store_is_as_if_undisturbed(cdm, lines):
    cdm.table("death", "person_id | death_date\n7 | 2024-01-02")
    cdm.ingest()
    before = cdm.events()
    cdm.table("person", "person_id | gender_concept_id | year_of_birth\n7 | 8532 | 1950\n8 | 8507 | 1960")
    cdm.table("condition_occurrence", CONDITION)
    told_so_far = []

    def killed(line: str) -> None:
        told_so_far.append(line)
        if len(told_so_far) == lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cdm.ingest(progress=killed)
    assert cdm.events().equals(before)
    assert cdm.ingest().events_written == 5


def test_a_later_extract_of_some_tables_is_added_to_the_residents_known(cdm):
    cdm.table("person", "person_id | gender_concept_id | year_of_birth\n7 | 8532 | 1950")
    cdm.ingest()
    (cdm.county.folder / "cdm" / "person.csv").unlink()
    cdm.table("condition_occurrence", CONDITION)
    report = cdm.ingest()
    assert (report.events_written, report.residents_known, report.residents_new) == (1, 1, 0)


def test_tables_that_are_not_taken_in_are_said(cdm):
    cdm.table("death", "person_id | death_date\n7 | 2024-01-02")
    cdm.table("note", "note_id | person_id\n1 | 7\n2 | 7")
    cdm.table("cost", "cost_id")
    assert cdm.ingest().rows == {"death": 1, "note (not taken in)": 2}


cells = st.sampled_from([None, "0", "1", "7", "x", "320128", "2024-03-05", "2030-01-01", "12.5"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "1", "2"]), cells, cells, cells, cells, cells, cells), min_size=1, max_size=20
    )
)
def test_every_row_is_an_event_or_counted(tmp_path_factory, rows):
    columns = [
        "person_id",
        "measurement_concept_id",
        "measurement_source_concept_id",
        "measurement_date",
        "value_as_number",
        "value_as_concept_id",
        "unit_concept_id",
    ]
    folder = tmp_path_factory.mktemp("cdm")
    pl.DataFrame(rows, dict.fromkeys(columns, pl.String), orient="row").write_csv(folder / "measurement.csv")
    report = ingest_omop(folder, tmp_path_factory.mktemp("store") / "store", today=TODAY)

    def counted(reason: Reason) -> int:
        return sum(report.counted(reason).values())

    left_out = counted(Reason.NO_RESIDENT) + counted(Reason.UNDATED)
    assert report.rows["measurement"] == len(rows) == report.events_read + left_out
    assert report.events_read == report.events_written + report.duplicates + counted(Reason.AFTER_TODAY)


@pytest.mark.parametrize(
    ("table", "drawn", "sentence"),
    [
        ("cohort", "subject_id\n7", "there is no table of an OMOP data set. Those that are read are: person, visit_"),
        (
            "death",
            "person\n7",
            'death: there is no column "person_id". The columns are: person. Did you mean "person"?',
        ),
        (
            "observation",
            "person_id | observation_concept_id\n7 | 1",
            'observation: there is no column "observation_datetime" or "observation_date".',
        ),
    ],
)
def test_what_lacks_is_said_and_nothing_written(cdm, table, drawn, sentence):
    cdm.table(table, drawn)
    with pytest.raises(WeibingError) as error:
        cdm.ingest()
    assert sentence in str(error.value)
    assert not cdm.county.store.exists()


def test_every_row_of_a_real_sample_is_accounted_for(tmp_path):
    source = real_records("omop") / "Synthea27Nj_5.4.zip"
    report = ingest_omop(source, tmp_path / "store")
    clinical = {
        "visit_occurrence": 1791,
        "condition_occurrence": 470,
        "drug_exposure": 883,
        "measurement": 10040,
        "observation": 8099,
        "procedure_occurrence": 1649,
        "device_exposure": 1,
    }
    assert report.rows == {
        "person": 28,
        **clinical,
        "death": 3,
        "observation_period": 28,
        "visit_detail (not taken in)": 1791,
        "condition_era (not taken in)": 469,
    }
    # A birth, a sex and an end for each person; 13 stays have a length, 3 deaths a cause.
    assert report.events_read == sum(clinical.values()) + 3 * 28 + 13 + 3 + 3
    assert report.events_written + report.duplicates == report.events_read
    assert not {reason for reason in report.remarks if reason.fate.name == "LEFT_OUT"}
    assert Reason.UNKNOWN_UNIT not in report.remarks

    again = ingest_omop(source, tmp_path / "store")
    assert (again.events_written, again.residents_new) == (0, 0)
