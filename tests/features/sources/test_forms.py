"""The ready mappings of the national specification's forms, with their made-up tables, from file to profile."""

import csv
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from features.engine import Engine
from features.events import EventStore
from features.sources.table import ingest_tables
from features.times import instant
from features.vocabulary import builtin
from tests.tables import cells_from

TODAY = date(2025, 1, 1)
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
FORMS = ["basic_information", "check_up", "hypertension_follow_up", "diabetes_follow_up", "self_care"]


@pytest.fixture
def take_in(county):
    """Take the made-up tables of forms into the county's store."""

    def taken(*forms: str):
        return [
            ingest_tables([EXAMPLES / f"{form}.csv"], county.store, EXAMPLES / f"{form}.toml", today=TODAY)
            for form in forms
        ]

    return taken


@pytest.fixture
def filled_in(county):
    """Fill a form in once for each of some residents, the other cells left empty; return each one's events."""

    def events(form: str, *filled: dict[str, str]) -> list[set[tuple[str, str, str]]]:
        with (EXAMPLES / f"{form}.csv").open(encoding="utf-8") as file:
            header = next(csv.reader(file))
        (day,) = {"建档日期", "体检日期", "随访日期", "评估日期"} & set(header)
        rows = [{"档案编号": str(number), day: "2024-03-05", **cells} for number, cells in enumerate(filled)]
        table = pl.DataFrame({name: [row.get(name, "") for row in rows] for name in header})
        file = county.file(f"{form}.csv", table.write_csv())
        ingest_tables([file], county.store, EXAMPLES / f"{form}.toml", today=TODAY)
        told: list[set[tuple[str, str, str]]] = [set() for _ in filled]
        for resident, time, code, value, *_ in county.drawn("resident", "time", "code", "value", "unit", "text")[1:]:
            if code not in {"examination", "follow_up_visit"}:
                told[int(resident)].add((time, code, value))
        return told

    return events


def codes_of(told: set[tuple[str, str, str]]) -> set[str]:
    return {code for _, code, _ in told}


@pytest.mark.parametrize(
    ("form", "answers"),
    [
        (
            "check_up",
            """
            column             | answer | code                 | value
            吸烟状况           | 1      | smoking              | 0
            吸烟状况           | 2      | smoking              | 1
            吸烟状况           | 3      | smoking              | 2
            吸烟状况           | 3.0    | smoking              | 2
            饮酒频率           | 4      | drinking             | 3
            锻炼频率           | 1      | exercise             | 3
            锻炼频率           | 4      | exercise             | 0
            足背动脉搏动       | 1      | dorsalis_pedis_pulse | 2
            足背动脉搏动       | 2      | dorsalis_pedis_pulse | 0
            足背动脉搏动       | 4      | dorsalis_pedis_pulse | 1
            生活自理能力自我评估 | 4    | self_care_level      | 4
            认知功能           | 1      | cognitive_screen     | 0
            认知功能           | 2      | cognitive_screen     | 1
            情感状态           | 2      | emotional_screen     | 1
            服药依从性3        | 2      | medication_adherence | 2
            尿蛋白             | +++    | urine_protein        | 3
            听力               | 2      | hearing_impairment   |
            运动功能           | 2      | gait_problem         |
            """,
        ),
        (
            "hypertension_follow_up",
            """
            column       | answer | code                  | value
            随访方式     | 3      | phone_follow_up       |
            服药依从性   | 3      | medication_adherence  | 3
            此次随访分类 | 4      | follow_up_class       | 4
            药物不良反应 | 1      | adverse_drug_reaction | 0
            摄盐情况     | 重     | salt_intake           | 3
            """,
        ),
        (
            "diabetes_follow_up",
            """
            column       | answer       | code                 | value
            足背动脉搏动 | 1            | dorsalis_pedis_pulse | 0
            足背动脉搏动 | 3            | dorsalis_pedis_pulse | 2
            低血糖反应   | 3            | hypoglycaemia        | 2
            胰岛素种类   | 门冬胰岛素30 | insulin              |
            """,
        ),
        (
            "basic_information",
            """
            column           | answer | code               | value
            文化程度         | 1      | education          | 5
            文化程度         | 9      | education          | 1
            燃料类型         | 5      | solid_fuel         | 1
            医疗费用支付方式 | 7      | uninsured          |
            残疾情况         | 3      | hearing_impairment |
            """,
        ),
        (
            "self_care",
            """
            column | answer | code           | value
            如厕   | 5      | incontinence   |
            如厕   | 5      | adl_toileting  | 5
            活动   | 10     | housebound     |
            """,
        ),
    ],
    ids=lambda it: it if it in FORMS else "",
)
def test_a_coded_answer_becomes_its_concept(form, answers, filled_in):
    drawn = cells_from(answers).rows(named=True)
    told = filled_in(form, *({row["column"]: row["answer"]} for row in drawn))
    for row, events in zip(drawn, told, strict=True):
        assert ("2024-03-05", row["code"], row["value"] or "") in events, row


def test_a_health_problem_of_the_check_up_becomes_its_conditions(filled_in):
    problems = """
        column       | answer | concepts
        脑血管疾病   | 2      | ischaemic_stroke stroke
        脑血管疾病   | 3      | haemorrhagic_stroke stroke
        脑血管疾病   | 5      | tia
        肾脏疾病     | 2      | diabetic_kidney_disease
        肾脏疾病     | 3      | ckd kidney_failure
        肾脏疾病     | 4/5    | ckd nephritis
        心脏疾病     | 2      | angina ischaemic_heart_disease myocardial_infarction
        心脏疾病     | 5      | heart_failure
        血管疾病     | 3      | peripheral_artery_disease
        眼部疾病     | 2/4    | cataract retinal_haemorrhage
        神经系统疾病 | 2      | neurological_disease
        脑血管疾病   | 1      |
    """
    drawn = cells_from(problems).rows(named=True)
    told = filled_in("check_up", *({row["column"]: row["answer"]} for row in drawn))
    for row, events in zip(drawn, told, strict=True):
        concepts = {meaning.concept for code in codes_of(events) for meaning in builtin().meanings(code)}
        assert sorted(concepts) == (row["concepts"] or "").split(), row


def test_a_disease_of_the_past_is_dated_when_it_was_diagnosed_or_else_when_it_was_told(filled_in):
    dates = {
        "2009-06-14": "2009-06-14",
        "2009-06": "2009-06-01",
        "2009年06月": "2009-06-01",
        "2009年6月": "2009-06-01",
        "2009-6": "2009-06-01",
        "2009": "2009-01-01",
        "": "2024-03-05",
        "不详": "2024-03-05",
    }
    told = filled_in("basic_information", *({"既往疾病2": "3", "确诊年月2": diagnosed} for diagnosed in dates))
    assert told == [{(time, "diabetes", "")} for time in dates.values()]


def test_what_the_law_protects_in_particular_stays_outside(filled_in):
    protected = [{"既往疾病1": "8"}, {"既往疾病2": "9"}, {"既往疾病3": "11"}, {"残疾情况": "7"}, {"父亲": "8/9"}]
    assert filled_in("basic_information", *protected) == [set()] * 5


def test_a_family_s_diseases_are_told_apart_by_relative_where_that_matters(filled_in):
    (told,) = filled_in("basic_information", {"父亲": "2/7", "母亲": "2、3", "兄弟姐妹": "1", "子女": "6"})
    assert codes_of(told) == {
        "hypertension_in_father",
        "hypertension_in_mother",
        "family_history_stroke",
        "family_history_diabetes",
        "family_history_cancer",
    }


def test_an_hba1c_of_another_day_is_dated_on_that_day(filled_in):
    (told,) = filled_in("diabetes_follow_up", {"糖化血红蛋白": "8.6", "糖化检查日期": "2024-02-20"})
    assert told == {("2024-02-20", "hba1c", "8.6")}


def test_drugs_are_known_by_their_names_and_the_others_kept(filled_in):
    drugs = {"药物名称1": "降压0号", "药物名称2": "缬沙坦", "药物名称3": "罗布麻片"}
    (told,) = filled_in("hypertension_follow_up", drugs)
    assert codes_of(told) == {"ATC//C02LA01", "ATC//C09CA03", "LOCAL//罗布麻片"}


def test_all_forms_together_make_a_profile(county, take_in):
    take_in(*FORMS)
    store = EventStore.open(county.store)
    index = pl.DataFrame({"subject_id": [101, 102, 104], "index_time": [instant("2023-09-01", store.timezone)] * 3})
    events = pl.concat([store.read(shard) for shard in store.shards])
    first, second, third = Engine().profiles(events, index).to_dicts()
    assert first["age"] == pytest.approx(75.47, abs=0.01)
    assert (first["education_latest"], first["smoking_latest"], first["salt_intake_latest"]) == (2, 2, 3)
    assert (first["sbp_latest"], first["sbp_count"]) == (162, 3)
    assert first["sbp_mean_1y"] == pytest.approx((146 + 150 + 138 + 162) / 4)
    assert (first["stroke_ever"], first["hypertension_ever"], first["antihypertensive_active"]) == (1, 1, 1)
    assert first["adl_score_latest"] == 0
    assert (first["family_history_hypertension"], second["family_history_hypertension"]) == (1, 1)
    assert third["family_history_hypertension"] is None
    assert (second["female"], second["diabetes_ever"], second["diabetic_kidney_disease_ever"]) == (1, 1, 1)
    assert second["hba1c_latest"] == pytest.approx(8.6)
    assert second["egfr_latest"] == pytest.approx(48.4, abs=0.5)
    assert (third["adl_score_latest"], third["incontinence_ever"], third["visual_impairment_ever"]) == (37, 1, 1)
