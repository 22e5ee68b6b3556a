"""Every ready mapping of docs/examples with its made-up tables, from file to profile; see also test_forms.py."""

import csv
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from features.engine import Engine
from features.events import EventStore
from features.measures import active, count, ever, latest, maximum, mean, minimum, standard_deviation
from features.profile import PROFILE, Profile
from features.sources.report import IngestReport, Reason
from features.sources.table import ingest_tables
from features.sources.table.mapping import Choice, Mapping, Table, read_mapping
from features.times import instant
from features.vocabulary import builtin, text_concepts
from tests.real import real_records
from weibing import app

TODAY = date(2025, 1, 1)
FOLDER = Path(__file__).parents[3] / "docs" / "examples"

# Kept as they are: what people wrote, drugs that no one mapped, a disease of which no target knows.
KEPT = {"LOCAL//住院原因", "LOCAL//随访备注", "LOCAL//其他体征", "LOCAL//入院原因"}
UNMAPPED = {"LOCAL//参松养心胶囊", "LOCAL//罗布麻片", "LOCAL//六味地黄丸", "LOCAL//木丹颗粒", "ICD10//J18.900"}


@dataclass(frozen=True)
class Example:
    """A ready mapping, and the made-up tables that it takes."""

    path: Path

    def __str__(self) -> str:
        return self.path.stem

    @property
    def mapping(self) -> Mapping:
        return read_mapping(self.path)

    def files(self, table: Table) -> list[Path]:
        return [file for file in sorted(FOLDER.glob("*.csv")) if table.takes(file)]

    def all_files(self) -> list[Path]:
        return [file for table in self.mapping.table for file in self.files(table)]

    def ingest(self, store: Path) -> IngestReport:
        return ingest_tables(self.all_files(), store, self.path, today=TODAY)


EXAMPLES = [Example(path) for path in sorted(FOLDER.glob("*.toml"))]
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def header_of(file: Path) -> list[str]:
    with file.open(encoding="utf-8") as opened:
        return next(csv.reader(opened))


def example(name: str) -> Example:
    return Example(FOLDER / f"{name}.toml")


def events_in(store: Path) -> pl.DataFrame:
    opened = EventStore.open(store)
    return pl.concat([opened.read(shard) for shard in opened.shards])


@every_example
def test_an_example_becomes_the_events_that_are_drawn_beside_it(example, county):
    example.ingest(county.store)
    county.is_drawn(example.path.with_suffix(".events.txt").read_text(encoding="utf-8"))


@every_example
def test_an_example_taken_in_twice_adds_nothing(example, county):
    once, twice = example.ingest(county.store), example.ingest(county.store)
    assert once.events_written > 10
    assert (twice.events_written, twice.residents_new) == (0, 0)


@every_example
def test_each_made_up_table_is_of_one_mapping_and_each_mapping_has_one(example):
    for table in example.mapping.table:
        assert len(example.files(table)) == 1
    others = [file for other in EXAMPLES if other != example for file in other.all_files()]
    assert set(example.all_files()).isdisjoint(others)


@every_example
def test_every_column_of_a_made_up_table_is_used(example):
    for table in example.mapping.table:
        (file,) = example.files(table)
        assert set(header_of(file)) == set(table.columns())


@every_example
def test_every_coded_answer_stands_for_a_plausible_value_of_its_concept(example):
    for table in example.mapping.table:
        for rule in table.choice:
            assert isinstance(rule, Choice)
            concept = builtin().concept(rule.code)
            assert concept.low <= min(rule.values.values()) <= max(rule.values.values()) <= concept.high, rule


@every_example
def test_every_code_of_an_example_is_known_or_kept_on_purpose(example, county):
    assert set(example.ingest(county.store).counted(Reason.UNKNOWN_CODE)) <= KEPT | UNMAPPED


@every_example
def test_nothing_of_an_example_lacks_a_unit_a_date_or_a_number_that_it_needs(example, county):
    report = example.ingest(county.store)
    faults = {Reason.UNKNOWN_UNIT, Reason.NO_VALUE, Reason.UNDATED, Reason.NO_RESIDENT, Reason.AFTER_TODAY}
    assert faults.isdisjoint(report.remarks)


@every_example
def test_the_page_of_the_examples_leads_to_each(example):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = [example.path, example.path.with_suffix(".events.txt"), *example.all_files()]
    assert [name.name for name in names if f"({name.name})" not in page] == []


# corrections


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("basic_information", "清溪镇,1,8,4", "云岭乡,1,7,4"),
        ("check_up", "146,84,150,86", "136,84,140,"),
        ("hypertension_follow_up", "138,82,66.5", "128,82,"),
        ("diabetes_follow_up", "6.4,6.9,2023-03-01", "7.4,,"),
        ("self_care", "0,1,0,1,1,3", "0,0,0,0,1,1"),
        ("physique_tests", "不能完成,,0,-15.5", "21.5,,0,-15.5"),
        ("social_register", "是,是,2019年7月", "是,否,"),
        ("hospital_stays", "S72.000x011,M81.900;", "S72.100x001,"),
        ("dispensing", "艾司唑仑片,,否", "艾司唑仑片,,是"),
        ("home_devices", '2023-06-06 23:59:10,"8,034",389', '2023-06-07 00:10:55,"8,112",389'),
    ],
)
def test_a_corrected_record_replaces_what_it_told_before(name, wrong, right, county, tmp_path):
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    for file in example(name).all_files():
        (corrected / file.name).write_text(file.read_text(encoding="utf-8").replace(wrong, right, 1), encoding="utf-8")
    files = sorted(corrected.iterdir())
    example(name).ingest(county.store)
    before = events_in(county.store)
    report = ingest_tables(files, county.store, example(name).path, today=TODAY)
    ingest_tables(files, tmp_path / "fresh", example(name).path, today=TODAY)
    assert events_in(county.store).equals(events_in(tmp_path / "fresh"))
    assert not events_in(county.store).equals(before)
    assert report.records_replaced == 1


# where somebody lives


def test_a_township_is_always_true_of_the_resident_and_no_feature(county):
    example("social_register").ingest(county.store)
    towns = events_in(county.store).filter(pl.col("code") == "township")
    assert towns.select("subject_id", "time", "text_value").rows() == [
        (101, None, "清溪镇"),
        (102, None, "清溪镇"),
        (103, None, "云岭乡"),
        (104, None, "云岭乡"),
    ]
    assert [name for name in PROFILE.names if "township" in name] == []


def test_the_code_of_a_place_is_no_telephone_number_but_one_that_stands_alone_is(county):
    county.file("places.csv", "id,place\n1,131024101201\n2,清溪镇13800138000\n3,清溪镇3村\n4,11010519491231002X")
    report = county.ingest("""
        [[table]]
        file = "places.csv"
        resident = "id"
        text = [{ column = "place", code = "township", static = true }]
    """)
    places = events_in(county.store)["text_value"].to_list()
    assert places == ["131024101201", "清溪镇***", "清溪镇3村", "***"]
    assert report.counted(Reason.STRUCK_OUT) == {"places.csv, place": 2}


def test_the_register_s_disability_of_the_mind_stays_outside(county):
    report = example("social_register").ingest(county.store)
    assert report.counted(Reason.DROPPED) == {'social_register.csv, 残疾类别 = "精神"': 1}
    assert events_in(county.store).filter(pl.col("subject_id") == 103, pl.col("code").str.contains("disab")).is_empty()


# devices


@pytest.fixture
def home(county) -> pl.DataFrame:
    """The events of two days at home."""
    example("home_devices").ingest(county.store)
    return events_in(county.store)


def test_readings_at_home_are_kept_one_by_one_to_the_second(home):
    readings = home.filter(pl.col("subject_id") == 101, pl.col("code") == "home_sbp")
    assert readings.select(pl.col("time").dt.to_string("%d %H:%M:%S"), "numeric_value").rows() == [
        ("04 23:02:11", 148),
        ("04 23:03:40", 144),
        ("05 13:31:05", 139),
        ("05 23:10:02", 146),
    ], "in UTC, eight hours before the county's clocks"


def test_a_day_s_sum_is_not_known_before_the_day_is_over(home):
    declared = Engine(Profile(latest("steps", within="30d")))
    times = ["2023-06-05 23:58:40", "2023-06-05 23:58:41", "2023-06-07"]
    index = pl.DataFrame({"subject_id": 101, "index_time": [instant(time, "Asia/Shanghai") for time in times]})
    assert declared.profiles(home, index).to_series(-1).to_list() == [None, 6210, 8034]


def test_readings_at_home_make_features_of_their_own(home):
    declared = Profile(
        mean("home_sbp", within="30d"),
        standard_deviation("home_sbp", within="30d"),
        latest("sbp"),
        maximum("wearable_heart_rate", within="30d"),
        mean("sleep_hours", within="30d"),
        mean("worn_hours", within="30d"),
        latest("weight"),
    )
    index = pl.DataFrame({"subject_id": [101], "index_time": [instant("2023-06-08")]})
    (profile,) = Engine(declared).profiles(home, index).drop("subject_id", "index_time").rows()
    mean_sbp = (148 + 144 + 139 + 146) / 4
    spread = (sum((value - mean_sbp) ** 2 for value in (148, 144, 139, 146)) / 3) ** 0.5
    expected = [mean_sbp, spread, None, 75, (412 + 389) / 2 / 60, (1320 + 1385) / 2 / 60, 66.5]
    assert profile == pytest.approx(expected), "254 beats a minute are not plausible"


def test_a_heart_rate_of_every_second_is_kept_whole(county, tmp_path):
    seconds = 3600
    file = tmp_path / "home_readings_watch.csv"
    lines = [f"7,2024-03-05 08:{n // 60:02}:{n % 60:02},心率,{60 + n % 40}" for n in range(seconds)]
    file.write_text("\n".join(["档案编号,时间,指标,数值", *lines]), encoding="utf-8")
    report = ingest_tables([file], county.store, FOLDER / "home_devices.toml", today=TODAY)
    assert (report.events_written, report.duplicates) == (seconds, 0)
    assert events_in(county.store)["numeric_value"].to_list() == [60 + n % 40 for n in range(seconds)]


# tests, registers, hospitals, pharmacies


def test_physique_tests_and_registers_become_features(county):
    for name in ("physique_tests", "social_register"):
        example(name).ingest(county.store)
    declared = Profile(
        latest("grip_strength"),
        latest("timed_up_and_go"),
        latest("gait_speed"),
        latest("one_leg_stand"),
        minimum("sit_and_reach"),
        latest("stay_independent_score"),
        latest("fell_past_year"),
        ever("gait_problem"),
        latest("education"),
        latest("living_alone"),
        latest("distance_to_clinic"),
        ever("minimum_living_allowance"),
        ever("insurance_residents"),
    )
    index = pl.DataFrame({"subject_id": [102, 104], "index_time": [instant("2023-09-01")] * 2})
    first, second = Engine(declared).profiles(events_in(county.store), index).drop("subject_id", "index_time").rows()
    assert first == pytest.approx((17.2, 14.6, 0.74, 3.1, -8, 6, 1, 0, 1, 1, 8 / 2, 1, 1))
    assert second == pytest.approx((None, None, None, 0, -15.5, 11, 1, 1, 1, 0, 12 / 2, 0, 1)), "2 li are 1 km"


def test_a_double_code_of_the_hospital_s_front_page_means_both_of_its_parts(county):
    example("hospital_stays").ingest(county.store)
    events = events_in(county.store).filter(pl.col("subject_id") == 102)
    concepts = {meaning.concept for code in events["code"] for meaning in builtin().meanings(code)}
    assert concepts >= {"diabetes", "diabetic_kidney_disease", "hypertension", "dyslipidaemia", "length_of_stay"}
    assert {"ICD10//E11.200X002", "ICD10//N08.3*"} <= set(events["code"])


def test_what_is_coded_at_discharge_is_not_known_at_admission(county):
    example("hospital_stays").ingest(county.store)
    declared = Engine(Profile(count("hospital_stay"), ever("fracture"), ever("fall"), count("length_of_stay")))
    days = ["2022-11-21", "2022-11-29", "2022-11-30"]
    index = pl.DataFrame({"subject_id": 104, "index_time": [instant(day, "Asia/Shanghai") for day in days]})
    filled = declared.profiles(events_in(county.store), index).drop("subject_id", "index_time")
    assert filled.rows() == [(1, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1)]


def test_a_fall_that_only_the_reason_of_admission_tells_is_found_and_a_denied_one_is_not(county):
    example("hospital_stays").ingest(county.store)
    told = events_in(county.store).filter(pl.col("code") == "LOCAL//入院原因")["text_value"]
    assert [text_concepts(text) for text in told] == [[], ["fall"], []]


def test_drugs_of_a_pharmacy_are_known_by_code_or_name_and_those_brought_back_do_not_count(county):
    report = example("dispensing").ingest(county.store)
    declared = Profile(active("antihypertensive", within="90d"), ever("arb"), ever("sedative"), ever("metformin"))
    index = pl.DataFrame({"subject_id": [101, 102], "index_time": [instant("2023-08-01")] * 2})
    first, second = Engine(declared).profiles(events_in(county.store), index).drop("subject_id", "index_time").rows()
    assert (first, second) == ((1, 0, 1, 0), (0, 0, 0, 1))
    assert report.counted(Reason.UNKNOWN_CODE) == {"LOCAL//木丹颗粒": 1}


# which codes are known


def checked(file: Path, column: str, system: str) -> dict:
    """Return what the command says of a table's codes, as it prints it for programs."""
    arguments = ["vocabulary", "check", str(file), "--column", column, "--system", system, "--json", "-"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_command_says_which_codes_of_an_export_are_known_and_how_far_to_trust_them():
    said = checked(FOLDER / "hospital_stays.csv", "主要诊断编码", "ICD10")
    assert said["codes"] == {"known": 2, "unknown": 1}
    assert said["unknown"] == [{"code": "ICD10//J18.900", "count": 1}]
    assert said["known"][0] == {
        "code": "ICD10//E11.200X002+N08.3*",
        "count": 1,
        "concepts": ["diabetes", "diabetic_kidney_disease"],
        "listed_as": "ICD10//E11.2",
        "trust": "M",
    }


@pytest.mark.parametrize("column", ["diag_1", "diag_2", "diag_3"])
def test_the_command_knows_half_of_the_diagnoses_of_real_inpatients_with_diabetes(column):
    said = checked(real_records("diabetes130") / "diabetic_data.csv.zip", column, "ICD9")
    assert 100_000 < sum(said["occurrences"].values()) <= 101_766
    assert said["occurrences"]["known"] > said["occurrences"]["unknown"]


def test_the_command_lists_what_nobody_mapped_yet_of_real_records():
    said = checked(real_records("olmsted") / "nafld3.csv.gz", "event", "LOCAL")
    assert (len(said["known"]), said["unknown"][0]) == (0, {"code": "LOCAL//dyslipidemia", "count": 10_462})
