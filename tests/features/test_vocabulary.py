"""What codes and units mean here, and that the tables that say it hold together."""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from features import vocabulary
from features.errors import WeibingError
from features.profile import PROFILE
from features.vocabulary import BUILTIN, HIERARCHICAL, TABLES, Meaning, Vocabulary, builtin
from training.targets import TARGETS


def concepts_of(code: str) -> set[str]:
    return {meaning.concept for meaning in builtin().meanings(code)}


def in_canonical_unit(concept: str, value: float, unit: str | None) -> float:
    (meaning,) = builtin().meanings(concept, unit)
    return value * meaning.factor + meaning.offset


def rows_of(table: str) -> list[dict[str, str]]:
    with (BUILTIN / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ICD10//I10", {"hypertension"}),
        ("ICD10//I10.x", {"hypertension"}),
        ("ICD10//I10.x00x002", {"hypertension"}),
        ("ICD10//E11.9", {"diabetes"}),
        ("ICD10//E11.2", {"diabetes", "diabetic_kidney_disease"}),
        ("ICD10//E11.21", {"diabetes", "diabetic_kidney_disease"}),
        ("ICD10//C50.9", {"cancer"}),
        ("ICD10//S72.00", {"fracture"}),
        ("ICD9//250.40", {"diabetes", "diabetic_kidney_disease"}),
        ("ICD9//250.43", {"diabetes", "diabetic_kidney_disease", "type_1_diabetes", "glucose_controlled"}),
        ("ICD9//404.1", {"hypertension", "hypertensive_heart_disease", "hypertensive_kidney_disease"}),
        ("ICD9//E885.9", {"fall"}),
        ("ATC//C09AA02", {"antihypertensive", "ace_inhibitor"}),
        ("ATC//C03CA01", {"antihypertensive", "diuretic", "loop_diuretic"}),
        ("ATC//C10AA05", {"statin"}),
        ("ATC//A10BA02", {"metformin", "oral_glucose_lowering"}),
        ("ATC//A10AB05", {"insulin"}),
    ],
)
def test_a_classification_s_code_means_what_its_longest_listed_beginning_means(code, expected):
    assert concepts_of(code) == expected


@pytest.mark.parametrize("code", ["ICD10//E", "ICD10//Z00.0", "ICD10//", "ATC//C", "ICD10", "//I10", "", "I10"])
def test_a_code_without_a_listed_beginning_means_nothing(code):
    assert concepts_of(code) == set()


@pytest.mark.parametrize("code", ["LOINC//8480-61", "OMOP//30042491", "WS//DE04.10.174.001", "MEDS_BIRTH//1950"])
def test_a_code_of_any_other_system_means_nothing_unless_it_is_listed_whole(code):
    assert concepts_of(code) == set()


def test_the_same_concept_comes_from_every_system():
    codes = ["LOINC//8480-6", "OMOP//3004249", "WS//DE04.10.174.00", "sbp"]
    assert [concepts_of(code) for code in codes] == [{"sbp"}] * 4


def test_every_concept_s_own_name_is_a_code():
    drugs = {name for name, concept in builtin().concepts.items() if concept.kind == "drug"}
    assert all(concepts_of(name) == {name} for name in builtin().concepts.keys() - drugs)


def test_a_drug_class_s_own_name_is_a_code_of_the_classes_around_it_too():
    drugs = [name for name, concept in builtin().concepts.items() if concept.kind == "drug"]
    assert all(name in concepts_of(name) for name in drugs)
    assert concepts_of("metformin") == concepts_of("ATC//A10BA02") == {"metformin", "oral_glucose_lowering"}
    assert concepts_of("thiazide") == {"thiazide", "diuretic", "antihypertensive"}


def test_a_code_may_say_its_own_value():
    assert builtin().meanings("OMOP//8532") == (Meaning("female", value=1.0),)
    assert builtin().meanings("GENDER//M") == (Meaning("female", value=0.0),)


def test_a_code_that_says_its_own_value_needs_no_unit():
    assert builtin().meanings("GENDER//F", "anything") == (Meaning("female", value=1.0),)


@pytest.mark.parametrize(
    ("concept", "value", "unit", "expected"),
    [
        ("glucose_fasting", 126, "mg/dL", 126 / 18.016),
        ("cholesterol", 200, "mg/dL", 200 / 38.67),
        ("hdl", 40, "mg/dL", 40 / 38.67),
        ("ldl", 100, "mg/dL", 100 / 38.67),
        ("triglycerides", 150, "mg/dL", 150 / 88.57),
        ("hba1c", 48, "mmol/mol", 0.09148 * 48 + 2.152),
        ("creatinine", 1.2, "mg/dL", 1.2 * 88.4),
        ("creatinine", 90, "µmol/L", 90),
        ("creatinine", 90, "μmol/L", 90),
        ("sbp", 16, "kPa", 16 * 7.50062),
        ("weight", 130, "斤", 65),
        ("height", 1.7, "m", 170),
        ("haemoglobin", 13.5, "g/dL", 135),
        ("uacr", 3, "mg/mmol", 3 * 8.84),
    ],
)
def test_a_value_is_brought_to_the_canonical_unit(concept, value, unit, expected):
    assert in_canonical_unit(concept, value, unit) == pytest.approx(expected, rel=1e-4)


def test_hba1c_of_48_mmol_per_mol_is_the_6_5_percent_that_defines_diabetes():
    assert in_canonical_unit("hba1c", 48, "mmol/mol") == pytest.approx(6.5, abs=0.05)


@pytest.mark.parametrize("unit", [None, "", "mmol/L"])
def test_a_missing_unit_means_the_canonical_one(unit):
    assert builtin().meanings("glucose", unit) == (Meaning("glucose"),)


def test_a_number_in_an_unknown_unit_is_not_used():
    (meaning,) = builtin().meanings("glucose", "mg/L")
    assert (meaning.concept, meaning.known_unit) == ("glucose", False)


def test_a_concept_without_a_unit_takes_any():
    assert builtin().meanings("ICD10//I10", "times") == (Meaning("hypertension"),)


def test_only_measurements_and_findings_need_a_number():
    needs = {name: concept.numeric for name, concept in builtin().concepts.items()}
    assert (needs["sbp"], needs["smoking"], needs["hypertension"], needs["fall"]) == (True, True, False, False)


def test_an_unknown_concept_is_refused_with_the_closest_known():
    with pytest.raises(WeibingError, match='no concept "sbq"'):
        builtin().concept("sbq")
    assert builtin().concept("sbp").unit == "mm[Hg]"


def test_what_codes_mean_is_the_same_however_many_others_were_asked(monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST_REMEMBERED", 10)
    asked = Vocabulary.read(BUILTIN)
    for number in range(100):
        assert asked.meanings(f"LOCAL//{number}") == ()
        assert asked.meanings("sbp", "kPa") == builtin().meanings("sbp", "kPa")
    assert len(asked._remembered) <= 10, "whoever sends ever new codes must not fill the memory"


@pytest.mark.parametrize("table", ["codes.csv", "units.csv"])
def test_every_concept_that_a_table_names_exists(table):
    assert {row["concept"] for row in rows_of(table)} <= set(builtin().concepts)


def test_every_concept_of_the_profile_and_of_the_targets_exists():
    named = {feature.concept for feature in PROFILE.features}
    named |= {concept for target in TARGETS.values() for concept in target.concepts}
    assert named <= set(builtin().concepts)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("concepts.csv", ["concept"]),
        ("concepts.csv", ["label_en"]),
        ("concepts.csv", ["label_zh"]),
        ("codes.csv", ["system", "code", "concept"]),
        ("units.csv", ["concept", "unit"]),
    ],
)
def test_no_row_is_there_twice(table, key):
    times = Counter(tuple(row[column] for column in key) for row in rows_of(table))
    assert [row for row, number in times.items() if number > 1] == []


def test_every_concept_is_labelled_in_both_languages():
    for concept in builtin().concepts.values():
        assert concept.label_en.strip(), concept.name
        assert re.search(r"[\u4e00-\u9fff]", concept.label_zh), concept.name


def test_a_concept_s_name_can_be_part_of_a_column_s_name():
    assert [name for name in builtin().concepts if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_every_kind_is_a_known_one():
    kinds = {concept.kind for concept in builtin().concepts.values()}
    assert kinds == {
        "static",
        "place",
        "finding",
        "measurement",
        "condition",
        "event",
        "contact",
        "drug",
        "phenotype",
        "special",
        "total",
    }


def test_the_plausible_range_rises_and_every_number_has_one():
    for concept in builtin().concepts.values():
        assert concept.low < concept.high, concept.name
        assert not concept.numeric or math.isfinite(concept.high - concept.low), concept.name


def test_whatever_has_a_unit_is_listed_in_it_as_it_is():
    listed = builtin().units
    for concept in builtin().concepts.values():
        units = {unit: rule for (name, unit), rule in listed.items() if name == concept.name}
        assert not units or units[concept.unit] == (1.0, 0.0), concept.name
        if concept.numeric and concept.unit:
            assert units, f"{concept.name} has the unit {concept.unit}, which units.csv does not list"


def test_a_unit_s_factor_is_positive_so_that_more_stays_more():
    assert [row for row in rows_of("units.csv") if not float(row["factor"]) > 0] == []


def test_a_more_precise_code_keeps_what_its_beginning_means():
    listed = {(row["system"], row["code"]) for row in rows_of("codes.csv")}
    for system, code in sorted(each for each in listed if each[0] in HIERARCHICAL):
        beginning = concepts_of(f"{system}//{code[:-1].rstrip('.')}")
        assert beginning <= concepts_of(f"{system}//{code}"), f"{code} forgets {beginning}"


def test_every_system_is_a_known_one():
    assert {row["system"] for row in rows_of("codes.csv")} <= {
        "",
        "GENDER",
        "LOCAL",
        "LOINC",
        "OMOP",
        "TEXT",
        "WS",
    } | HIERARCHICAL


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with tables of a county's own, two concepts long."""
    tables = {
        "concepts.csv": "concept,kind,label_en,label_zh,unit,low,high,modifiable\n"
        "sbp,measurement,systolic,收缩压,mm[Hg],50,300,1\nfall,event,fall,跌倒,,,,0\n",
        "codes.csv": "system,code,concept,value\nLOCAL,1,sbp,\nLOCAL,2,fall,\n",
        "units.csv": "concept,unit,factor,offset\nsbp,kPa,7.5,\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_county_may_bring_its_own_tables(own):
    read = Vocabulary.read(own)
    assert read.meanings("LOCAL//1", "kPa") == (Meaning("sbp", factor=7.5, offset=0.0),)
    assert read.meanings("LOINC//8480-6") == ()
    assert read.concept("fall").low == -math.inf


def test_tables_as_excel_saves_them_are_read(own):
    for name in TABLES:
        path = own / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Vocabulary.read(own).meanings("LOCAL//2") == (Meaning("fall"),)


@pytest.mark.parametrize("table", TABLES)
def test_the_version_changes_when_a_table_changes(own, table):
    before = Vocabulary.read(own).version
    assert Vocabulary.read(own).version == before, "the same tables, the same version"
    path = own / table
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    assert Vocabulary.read(own).version != before


def appended(row: str) -> Callable[[bytes], bytes]:
    return lambda table: table + row.encode()


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("codes.csv", appended("LOCAL,3,sbq,\n"), 'codes.csv: there is no concept "sbq". Did you mean "sbp"?'),
        ("units.csv", appended("fal,kPa,1,0\n"), 'units.csv: there is no concept "fal". Did you mean "fall"?'),
        ("units.csv", appended('sbp,cm,"7,5",0\n'), 'units.csv: the factor "7,5" of sbp is not a number.'),
        ("codes.csv", appended("LOCAL,3,fall,yes\n"), 'codes.csv: the value "yes" of fall is not a number.'),
        ("concepts.csv", lambda table: table.replace(b",300,", b",high,"), 'the high "high" of sbp is not a number.'),
        ("codes.csv", lambda table: table.replace(b"system", b"System"), 'codes.csv: there is no column "system".'),
        ("concepts.csv", lambda table: table.decode().encode("gb18030"), "concepts.csv is not in UTF-8. Save it as"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_place(own, table, change, said):
    path = own / table
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(WeibingError, match=re.escape(said)):
        Vocabulary.read(own)


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_named(own, table):
    (own / table).unlink()
    with pytest.raises(WeibingError, match=f"{table} cannot be read: No such file"):
        Vocabulary.read(own)
