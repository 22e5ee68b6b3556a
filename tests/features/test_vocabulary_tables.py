"""The vocabulary's tables: what they must hold, and that what they say is right."""

import csv
import re
from collections import Counter
from math import inf

import polars as pl
import pytest

from features.errors import WeibingError
from features.vocabulary import (
    BUILTIN,
    COLUMNS,
    DENIED,
    HIERARCHICAL,
    NUMERIC_KINDS,
    TEXTS,
    Vocabulary,
    builtin,
    text_concepts,
)

MARKS = {"VP", "VI", "VS", "M", "M-"}


def rows_of(table: str) -> list[dict[str, str]]:
    with (BUILTIN / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def concepts_of(code: str) -> set[str]:
    return {meaning.concept for meaning in builtin().meanings(code)}


def of_list(name: str) -> set[str]:
    return {row["concept"] for row in rows_of("concepts.csv") if name in row["lists"].split(";")}


def value_of(concept: str, number: float, unit: str) -> float:
    (meaning,) = builtin().meanings(concept, unit)
    assert meaning.known_unit, unit
    return number * meaning.factor + meaning.offset


def test_there_are_enough_concepts_for_a_county_s_records():
    assert len(builtin().concepts) >= 150


@pytest.mark.parametrize("table", COLUMNS)
def test_no_row_has_cells_beyond_its_header(table):
    assert [row for row in rows_of(table) if None in row or None in row.values()] == []


@pytest.mark.parametrize("table", COLUMNS)
def test_no_cell_has_blanks_around_it(table):
    padded = [cell for row in rows_of(table) for cell in row.values() if cell != cell.strip()]
    assert padded == []


@pytest.mark.parametrize(
    ("table", "needed"),
    [
        ("concepts.csv", ["concept", "kind", "label_en", "label_zh", "modifiable"]),
        ("codes.csv", ["code", "concept", "trust"]),
        ("units.csv", ["concept", "unit", "factor", "offset"]),
        (TEXTS, ["concept", "example"]),
    ],
)
def test_nothing_that_is_needed_is_empty(table, needed):
    assert [row for row in rows_of(table) if not all(row[column] for column in needed)] == []


def test_an_english_label_has_no_chinese_and_a_chinese_one_has():
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [row["label_en"] for row in rows_of("concepts.csv") if chinese.search(row["label_en"])] == []
    assert [row["label_zh"] for row in rows_of("concepts.csv") if not chinese.search(row["label_zh"])] == []


def test_modifiable_is_yes_or_no():
    assert {row["modifiable"] for row in rows_of("concepts.csv")} == {"0", "1"}


def test_every_concept_in_a_unit_is_a_number():
    assert [c.name for c in builtin().concepts.values() if c.unit and not c.numeric and c.kind != "static"] == []


def test_every_number_has_a_plausible_range():
    numbers = [concept for concept in builtin().concepts.values() if concept.kind in NUMERIC_KINDS]
    assert [concept.name for concept in numbers if not -inf < concept.low < concept.high < inf] == []


def test_a_measurement_without_a_unit_is_a_score_a_count_a_ratio_or_a_chart():
    bare = {c.name for c in builtin().concepts.values() if c.kind == "measurement" and not c.unit}
    scores = {name for name in bare if name.endswith(("_score", "_count"))}
    strips = {"urine_protein", "urine_glucose", "urine_ketones", "urine_blood"}
    stays = {f"{kind}_visits_prior_year" for kind in ("inpatient", "outpatient", "emergency")}
    questionnaires = {"mmse", "phq2", "phq9"}
    visual = {"visual_acuity_left", "visual_acuity_right", "corrected_acuity_left", "corrected_acuity_right"}
    ratios = {"ankle_brachial_index", "bone_density_t_score", "fib4", "triglycerides_to_hdl"}
    stages = {"uacr_stage", "frailty_deficits", "frailty_assessable", "frailty_index"}
    assert bare <= scores | strips | stays | questionnaires | visual | ratios | stages


@pytest.mark.parametrize("label", ["label_en", "label_zh"])
def test_no_two_concepts_share_a_label(label):
    times = Counter(row[label] for row in rows_of("concepts.csv"))
    assert [shared for shared, count in times.items() if count > 1] == []


@pytest.mark.parametrize(
    "concepts",
    [
        "sbp dbp heart_rate temperature respiratory_rate height weight waist bmi",
        "smoking cigarettes_per_day drinking liquor_per_day exercise salt_intake staple_food_per_day",
        "medication_adherence follow_up_class adverse_drug_reaction hypoglycaemia dorsalis_pedis_pulse",
        "haemoglobin white_cells platelets urine_protein urine_albumin alt ast bilirubin_total urea potassium",
        "adl_eating adl_grooming adl_dressing adl_toileting adl_moving adl_score self_care_level mmse",
        "home_sbp home_dbp wearable_heart_rate sleep_hours steps worn_hours",
        "grip_strength timed_up_and_go gait_speed one_leg_stand sit_and_reach",
        "education living_alone minimum_living_allowance distance_to_clinic marital_status insurance_residents",
        "hypertension_in_father hypertension_in_mother family_history_diabetes family_history_stroke",
        "fall injurious_fall fall_history fell_past_year stay_independent_score fall_scale_2011_score",
    ],
)
def test_what_forms_devices_and_registers_record_has_a_concept(concepts):
    assert set(concepts.split()) <= set(builtin().concepts)


@pytest.mark.parametrize(
    ("concept", "newborn_or_child"),
    [
        ("weight", 2.1),
        ("height", 46),
        ("heart_rate", 190),
        ("respiratory_rate", 60),
        ("bmi", 11),
        ("haemoglobin", 220),
        ("bilirubin_total", 300),
        ("creatinine", 20),
        ("sbp", 65),
        ("temperature", 40.8),
    ],
)
def test_a_child_s_values_are_plausible(concept, newborn_or_child):
    known = builtin().concept(concept)
    assert known.low <= newborn_or_child <= known.high


def test_who_depends_on_others_in_everything_has_a_plausible_self_care_score():
    worst = [
        builtin().concept(f"adl_{item}").high for item in ("eating", "grooming", "dressing", "toileting", "moving")
    ]
    assert worst == [5, 7, 5, 10, 10]
    assert builtin().concept("adl_score").high == sum(worst)


def test_the_frailty_index_has_its_36_deficits():
    assert len(of_list("eFI")) == 36


def test_the_stay_independent_questions_are_all_there():
    asked = of_list("STEADI") - {"stay_independent_score", "fall"}
    assert len(asked) == 12, "twelve questions: fell_past_year, walking_aid and ten more"


def test_stoppfall_has_its_14_classes():
    assert len(of_list("STOPPFall")) == 14


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("N05BA01", "benzodiazepine"),
        ("N05CD04", "benzodiazepine"),
        ("N03AE01", "benzodiazepine"),
        ("N05CF01", "z_drug"),
        ("N05AH03", "antipsychotic"),
        ("N02AX02", "opioid"),
        ("R05DA04", "opioid"),
        ("N06AB06", "antidepressant"),
        ("N03AX12", "antiepileptic"),
        ("N04AA01", "anticholinergic"),
        ("R06AD02", "antihistamine"),
        ("C03CA01", "diuretic"),
        ("C02CA04", "alpha_blocker"),
        ("G04CA02", "alpha_blocker_prostate"),
        ("C02AC01", "central_antihypertensive"),
        ("C02LA01", "central_antihypertensive"),
        ("C01DA14", "vasodilator"),
        ("G04BD08", "bladder_antimuscarinic"),
    ],
)
def test_a_fall_risk_drug_is_of_its_class(code, expected):
    assert concepts_of(f"ATC//{code}") & of_list("STOPPFall") >= {expected}


def test_every_stoppfall_class_has_drugs():
    assert of_list("STOPPFall") <= {row["concept"] for row in rows_of("codes.csv") if row["system"] == "ATC"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("C09AA02", {"antihypertensive", "ace_inhibitor"}),
        ("C09CA03", {"antihypertensive", "arb"}),
        ("C09BB04", {"antihypertensive", "ace_inhibitor", "calcium_channel_blocker"}),
        ("C09DA03", {"antihypertensive", "arb", "diuretic"}),
        ("C08CA01", {"antihypertensive", "calcium_channel_blocker"}),
        ("C07AB02", {"antihypertensive", "beta_blocker"}),
        ("C03AA03", {"antihypertensive", "diuretic", "thiazide"}),
        ("C03CA01", {"antihypertensive", "diuretic", "loop_diuretic"}),
        ("C02AA02", {"antihypertensive", "central_antihypertensive", "reserpine"}),
        ("C02LA01", {"antihypertensive", "central_antihypertensive", "reserpine", "diuretic"}),
        ("C10AA05", {"statin"}),
        ("A10BA02", {"oral_glucose_lowering", "metformin"}),
        ("A10BB12", {"oral_glucose_lowering", "sulfonylurea"}),
        ("A10BF01", {"oral_glucose_lowering", "alpha_glucosidase_inhibitor"}),
        ("A10BH01", {"oral_glucose_lowering", "dpp4_inhibitor"}),
        ("A10BK01", {"oral_glucose_lowering", "sglt2_inhibitor"}),
        ("A10BD07", {"oral_glucose_lowering", "metformin", "dpp4_inhibitor"}),
        ("A10BJ02", {"glp1_agonist"}),
        ("A10AB05", {"insulin"}),
    ],
)
def test_a_drug_means_its_class_and_the_umbrella_over_it(code, expected):
    assert concepts_of(f"ATC//{code}") == expected


def test_lithium_is_no_antipsychotic_though_it_stands_among_them():
    assert concepts_of("ATC//N05AN01") == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("I10.x05", {"hypertension"}),
        ("E11.900", {"diabetes"}),
        ("E11.2†N08.3*", {"diabetes", "diabetic_kidney_disease"}),
        ("N08.3*", {"diabetes", "diabetic_kidney_disease"}),
        ("E11.300x021", {"diabetes", "diabetic_retinopathy"}),
        ("H36.0*", {"diabetes", "diabetic_retinopathy"}),
        ("E11.400+G63.2*", {"diabetes", "diabetic_neuropathy"}),
        ("E11.200x002+N08.3*", {"diabetes", "diabetic_kidney_disease"}),
        ("E11.3†H36.0*", {"diabetes", "diabetic_retinopathy"}),
        ("E11.500x041+I79.2*", {"diabetes", "diabetic_foot", "peripheral_artery_disease"}),
        ("G63.2*", {"diabetes", "diabetic_neuropathy"}),
        ("E11.7", {"diabetes", "other_diabetes_complication"}),
        ("E14.9", {"diabetes"}),
        ("N18.501", {"ckd", "kidney_failure"}),
        ("N18.3", {"ckd"}),
        ("I25.103", {"angina", "ischaemic_heart_disease"}),
        ("I63.902", {"stroke", "ischaemic_stroke"}),
        ("J44.1", {"copd", "respiratory_disease"}),
        ("F03", {"dementia", "cognitive_impairment"}),
        ("W18.900", {"fall"}),
        ("S06.0", {"injury"}),
        ("S72.000", {"fracture"}),
        ("R29.6", {"fall_history"}),
        ("R55", {"hypotension", "syncope"}),
    ],
)
def test_an_icd_10_code_of_the_who_or_of_china_is_known(code, expected):
    assert concepts_of(f"ICD10//{code}") == expected


def test_a_code_may_say_the_value_of_a_finding():
    (meaning,) = builtin().meanings("ICD10//R60.0")
    assert (meaning.concept, meaning.value) == ("leg_oedema", 1)
    assert {(m.concept, m.value) for m in builtin().meanings("ICD10//Z60.2")} == {
        ("living_alone", 1),
        ("social_vulnerability", None),
    }


@pytest.mark.parametrize(
    ("groups", "concepts"),
    [
        ("250.4 581 583 585 586", {"diabetic_kidney_disease", "ckd"}),
        ("250.5 362 369", {"diabetic_retinopathy"}),
        ("250.6 337 356 357 713", {"diabetic_neuropathy"}),
        ("410 411 412 413 414", {"ischaemic_heart_disease"}),
        ("428", {"heart_failure"}),
        ("430 431 432 433 434 435 436 437 438", {"stroke"}),
        ("440 443 250.7", {"peripheral_artery_disease"}),
        ("250 250.01 250.83", {"diabetes"}),
        ("401 401.9 402.91", {"hypertension"}),
    ],
    ids=["kidney", "eye", "nerves", "coronary", "heart failure", "brain", "arteries", "diabetes", "hypertension"],
)
def test_the_icd_9_groups_of_the_inpatients_with_diabetes_are_known(groups, concepts):
    assert [group for group in groups.split() if not concepts_of(f"ICD9//{group}") & concepts] == []


@pytest.mark.parametrize(
    ("code", "concept"),
    [
        ("WS//DE04.10.174.00", "sbp"),
        ("WS//DE04.10.176.00", "dbp"),
        ("WS//DE04.50.083.00", "hba1c"),
        ("WS//DE04.50.092.00", "creatinine"),
        ("LOCAL//收缩压", "sbp"),
        ("LOCAL//空腹血糖", "glucose_fasting"),
        ("LOCAL//血清低密度脂蛋白胆固醇", "ldl"),
        ("LOINC//8480-6", "sbp"),
        ("OMOP//3004249", "sbp"),
        ("sbp", "sbp"),
    ],
)
def test_a_measurement_is_known_by_the_code_of_every_system(code, concept):
    assert concepts_of(code) == {concept}


def test_what_a_form_s_header_or_a_data_element_names_is_a_quantity_and_no_answer():
    """A coded answer means another thing in each form, and a word says nothing of yes or no: mappings say both."""
    named = {row["concept"] for row in rows_of("codes.csv") if row["system"] in {"LOCAL", "WS"}}
    answers = {"cigarettes_per_day", "liquor_per_day", "exercise_minutes", "smoking_start_age", "smoking_quit_age"}
    assert {builtin().concept(name).kind for name in named - answers} == {"measurement"}


def test_the_longest_listed_beginning_of_a_code_counts():
    listed = builtin().listed
    assert listed("ICD10//E11.200X002+N08.3*") == "ICD10//E11.2"
    assert listed("ICD10//E11.900") in {"ICD10//E11.9", "ICD10//E11"}
    assert listed("ATC//C09BB04") == "ATC//C09BB"
    assert concepts_of("ICD10//E11.2") > concepts_of("ICD10//E11")


@pytest.mark.parametrize(
    ("system", "at_least"),
    [("LOINC", 60), ("OMOP", 150), ("WS", 30), ("LOCAL", 50), ("ICD10", 300), ("ICD9", 50), ("ATC", 80)],
)
def test_every_system_of_the_sources_has_codes(system, at_least):
    assert len({row["code"] for row in rows_of("codes.csv") if row["system"] == system}) >= at_least


def test_a_code_that_nobody_verified_bears_its_mark():
    assert {builtin().trust[code] for code in ("LOINC//8480-6", "OMOP//3004249", "MEDS_BIRTH")} == {"VP"}
    assert builtin().trust["WS//DE04.10.174.00"] == "VI"
    assert builtin().trust["WS//DE04.50.092.00"] == "VS"
    assert {builtin().trust[code] for code in ("ICD10//E11.2", "ATC//C09A", "LOINC//14682-9")} <= {"M", "M-"}
    assert not [row for row in rows_of("codes.csv") if row["system"] in {"ICD10", "ATC"} and row["trust"][0] != "M"]


def test_every_trust_mark_is_a_known_one():
    assert {row["trust"] for row in rows_of("codes.csv")} <= MARKS


def test_no_code_stands_for_the_same_concept_twice():
    times = Counter((row["system"], row["code"], row["concept"]) for row in rows_of("codes.csv"))
    assert max(times.values()) == 1


def test_a_value_that_a_code_says_is_plausible():
    for row in rows_of("codes.csv"):
        if row["value"]:
            concept = builtin().concept(row["concept"])
            assert concept.low <= float(row["value"]) <= concept.high, row


@pytest.mark.parametrize(
    ("code", "concept"),
    [("A15.0", "tuberculosis"), ("B20.900", "hiv"), ("Z21", "hiv"), ("F20.0", "severe_mental_illness")],
)
def test_a_code_of_the_law_s_special_categories_means_a_concept_that_is_marked_as_one(code, concept):
    assert concepts_of(f"ICD10//{code}") == {concept}
    assert builtin().concept(concept).kind == "special"


@pytest.mark.parametrize(
    ("concept", "number", "unit", "expected"),
    [
        ("glucose", 180.156, "mg/dL", 10),
        ("glucose_2h", 11.1, "mmol/l", 11.1),
        ("hba1c", 53, "mmol/mol", 7.0),
        ("hba1c", 7.0, "%", 7.0),
        ("glucose_fasting", 126, "mg/dL", 6.994),
        ("cholesterol", 193.35, "mg/dl", 5),
        ("cholesterol", 5, "mmol/L", 5),
        ("hdl", 38.67, "mg/dL", 1),
        ("ldl", 116.01, "mg/dL", 3),
        ("triglycerides", 88.57, "mg/dL", 1),
        ("creatinine", 1, "mg/dL", 88.4),
        ("creatinine", 0.1, "mmol/L", 100),
        ("uacr", 30, "mg/mmol", 265.2),
        ("uacr", 300, "mg/g{creat}", 300),
        ("uacr", 30, "mg/g", 30),
        ("creatinine", 88.4, "umol/L", 88.4),
        ("home_sbp", 18, "kPa", 135.01),
        ("urine_albumin", 2, "mg/dL", 20),
        ("temperature", 98.6, "[degF]", 37),
        ("temperature", 36.5, "℃", 36.5),
        ("sbp", 18.6, "kPa", 139.5),
        ("sbp", 18.6, "千帕", 139.5),
        ("dbp", 80, "毫米汞柱", 80),
        ("weight", 120, "斤", 60),
        ("weight", 60, "公斤", 60),
        ("height", 1.65, "米", 165),
        ("heart_rate", 72, "次/分钟", 72),
        ("liquor_per_day", 2, "两", 100),
        ("staple_food_per_day", 6, "两/天", 300),
        ("distance_to_clinic", 3, "里", 1.5),
        ("cigarettes_per_day", 1, "包/天", 20),
        ("bilirubin_total", 1, "mg/dL", 17.1),
        ("urea", 28, "mg/dL", 10),
        ("uric_acid", 7, "mg/dL", 416.4),
        ("white_cells", 6500, "/uL", 6.5),
        ("platelets", 210, "10*3/uL", 210),
        ("alt", 40, "IU/L", 40),
        ("albumin", 4.2, "g/dL", 42),
        ("sleep_hours", 450, "min", 7.5),
        ("gait_speed", 80, "cm/s", 0.8),
        ("grip_strength", 66.14, "[lb_av]", 30),
    ],
)
def test_a_unit_of_the_sources_becomes_the_canonical_one(concept, number, unit, expected):
    assert value_of(concept, number, unit) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("concept", "unit"),
    [
        ("glucose", "MG/DL"),
        ("creatinine", "μMOL/L"),
        ("creatinine", "µmol/l"),
        ("bmi", "Kg/㎡"),
        ("bmi", "kg/m²"),
        ("sbp", "mm Hg"),
        ("sbp", "KPa"),
        ("temperature", "°C"),
        ("hba1c", "％"),
        ("white_cells", "×10⁹/L"),
        ("alt", "u/l"),
    ],
)
def test_a_unit_may_be_spelled_otherwise(concept, unit):
    (meaning,) = builtin().meanings(concept, unit)
    assert meaning.known_unit


def test_a_spelling_that_two_units_share_is_none(tmp_path):
    tables = {
        "concepts.csv": "concept,kind,label_en,label_zh,unit,low,high,modifiable\nx,measurement,x,某,g,0,9,1\n",
        "codes.csv": "system,code,concept,value\n",
        "units.csv": "concept,unit,factor,offset\nx,g,1,0\nx,mg,0.001,0\nx,Mg,1000000,0\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    read = Vocabulary.read(tmp_path)
    factors = {unit: read.meanings("x", unit)[0].factor for unit in ("mg", "Mg", "G")}
    assert factors == {"mg": 0.001, "Mg": 1_000_000, "G": 1}
    assert not read.meanings("x", "MG")[0].known_unit, "milligram or megagram?"


@pytest.mark.parametrize("row", [row for row in rows_of(TEXTS) if row["pattern"]], ids=lambda row: row["example"])
def test_a_mention_is_found_in_its_example(row):
    assert row["concept"] in text_concepts(row["example"])


@pytest.mark.parametrize("row", [row for row in rows_of(TEXTS) if row["negation"]], ids=lambda row: row["example"])
def test_a_denied_mention_is_not_found_in_its_example(row):
    assert set(row["concept"].split()).isdisjoint(text_concepts(row["example"]))


@pytest.mark.parametrize(
    "text",
    [
        "如厕时跌倒",
        "无明显诱因下跌倒",
        "无明显诱因出现头晕、跌倒1次",
        "未站稳滑倒",
        "没注意台阶绊倒",
        "不小心摔倒",
        "夜间坠床1次",
        "家属诉昨晚摔了一跤",
        "今晨跌倒，无骨折",
        "否认跌倒史，3天前滑倒",
        "未见皮疹，昨日跌倒",
        "跌倒次数：2次",
        "为避免碰撞他人而摔倒",
        "否认高血压\n昨日跌倒",
    ],
)
def test_a_fall_that_happened_is_one(text):
    assert "fall" in text_concepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "无跌倒",
        "否认跌倒",
        "未跌倒",
        "无 跌 倒",
        "没有跌倒过",
        "近期无外伤、跌倒、坠床",
        "无跌倒、摔伤、坠床史",
        "防跌倒指导",
        "指导防跌倒措施",
        "预防老年人跌倒",
        "跌倒风险评估",
        "跌倒/坠床风险评估：高危",
        "跌倒0次",
        "担心跌倒，不敢出门",
        "起床时小心跌倒",
        "差点摔倒",
        "血压控制良好",
        "",
    ],
)
def test_a_fall_that_did_not_happen_is_none(text):
    assert "fall" not in text_concepts(text)


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("昨日跌倒致右腕部骨折", ["fall", "injurious_fall"]),
        ("下楼踩空摔伤", ["fall", "injurious_fall"]),
        ("今晨跌倒，未受伤", ["fall"]),
        ("跌倒后无骨折", ["fall"]),
        ("有跌倒史", ["fall_history"]),
        ("否认跌倒史", []),
        ("反复跌倒", ["fall", "fall_history"]),
        ("如再次跌倒骨折请就诊", []),
    ],
)
def test_injury_and_history_are_told_apart_from_the_fall(text, concepts):
    assert text_concepts(text) == concepts


def test_polars_reads_the_expressions_alike():
    texts = [row["example"] for row in rows_of(TEXTS)]
    column = pl.Series(texts)
    for mentions in builtin().texts:
        left = column.str.replace_all(mentions.negation, DENIED)
        assert left.str.contains(mentions.pattern).to_list() == [mentions.within(text) for text in texts]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("fal,跌倒,,", 'texts.csv: there is no concept "fal". Did you mean "fall"?'),
        ("fall,(跌倒,,", 'texts.csv: "(跌倒" is not a regular expression'),
    ],
)
def test_a_mistake_in_the_texts_is_named(row, said, tmp_path):
    (tmp_path / "concepts.csv").write_text(
        "concept,kind,label_en,label_zh,unit,low,high,modifiable\nfall,event,fall,跌倒,,,,0\n", encoding="utf-8"
    )
    (tmp_path / "codes.csv").write_text("system,code,concept,value\n", encoding="utf-8")
    (tmp_path / "units.csv").write_text("concept,unit,factor,offset\n", encoding="utf-8")
    assert Vocabulary.read(tmp_path).texts == ()
    (tmp_path / TEXTS).write_text(f"concept,pattern,negation,example\n{row}\n", encoding="utf-8")
    with pytest.raises(WeibingError, match=re.escape(said)):
        Vocabulary.read(tmp_path)


def test_the_listed_code_by_which_a_code_is_known_can_be_asked_for():
    listed = builtin().listed
    assert [listed(code) for code in ("ICD10//I10.x05", "ICD10//I10", "LOINC//8480-6", "sbp", "LOCAL//1")] == [
        "ICD10//I10",
        "ICD10//I10",
        "LOINC//8480-6",
        None,
        None,
    ]
    assert {listed(f"{system}//") for system in HIERARCHICAL} == {None}
