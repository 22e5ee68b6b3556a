"""Phenotypes and derived values: dated when their rule is first satisfied, from what was recorded up to then."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.errors import WeibingError
from features.events import normalised
from features.measures import count, ever, latest
from features.phenotypes import BY_NAME, PHENOTYPES, Phenotype, described, happened, in_order, repeated
from features.profile import Profile
from features.rules import Needed, compile_rules, frailty
from features.translation import Translator
from features.vocabulary import builtin
from tests.reference.featuriser import Recorded, facts_of, usable
from tests.reference.findings import Findings
from tests.tables import events_from

VOCABULARY = builtin()
CHINA = "Asia/Shanghai"


def dates_of(concept: str, table: str, timezone: str = "UTC") -> list[str | None]:
    """Return on which days a concept is found in a history; None: it always holds."""
    frame = Translator([concept], VOCABULARY, timezone).frame(events_from(table))
    return [time and str(time.date()) for time in frame["time"]]


def values_of(concept: str, table: str) -> list[float]:
    return [round(value, 3) for value in Translator([concept], VOCABULARY).frame(events_from(table))["value"]]


def test_hypertension_is_dated_on_the_third_day_of_raised_pressure():
    history = """
        time       | code | value
        2023-01-10 | sbp  | 142
        2023-02-10 | dbp  | 90
        2023-02-11 | sbp  | 139
        2023-03-10 | sbp  | 140
        2023-04-10 | sbp  | 150
    """
    assert dates_of("hypertension_measured", history) == ["2023-03-10"]
    assert dates_of("hypertension_found", history) == ["2023-03-10"]


def test_three_measurements_of_one_day_are_one_day():
    history = """
        time             | code | value
        2023-01-10T08:00 | sbp  | 150
        2023-01-10T09:00 | sbp  | 150
        2023-01-10T10:00 | dbp  | 95
    """
    assert dates_of("hypertension_measured", history) == []


def test_a_day_is_the_county_s_day():
    # 23:30 and 00:30 in China are 15:30 and 16:30 in UTC: two days there, one here.
    history = """
        time             | code | value
        2023-01-10T15:30 | sbp  | 150
        2023-01-10T16:30 | sbp  | 150
        2023-02-10T16:30 | sbp  | 150
    """
    assert dates_of("hypertension_measured", history, CHINA) == ["2023-02-10"]
    assert dates_of("hypertension_measured", history, "UTC") == []


@pytest.mark.parametrize(("third", "found"), [("2024-01-10", ["2024-01-10"]), ("2024-01-11", [])])
def test_the_three_days_lie_within_a_year(third, found):
    # A year is 365.25 days, so the 365th day after the first is within it and the 366th is not.
    history = f"""
        time       | code | value
        2023-01-10 | sbp  | 150
        2023-06-10 | sbp  | 150
        {third}    | sbp  | 150
    """
    assert dates_of("hypertension_measured", history) == found


def test_three_days_count_wherever_in_a_long_record_they_lie():
    history = """
        time       | code | value
        2015-01-10 | sbp  | 150
        2016-06-10 | sbp  | 150
        2020-01-10 | sbp  | 150
        2020-03-10 | sbp  | 150
        2020-06-10 | sbp  | 150
    """
    assert dates_of("hypertension_measured", history) == ["2020-06-10"]


def test_hypertension_is_found_by_the_first_of_code_treatment_and_pressure():
    history = """
        time       | code               | value
        2022-05-01 | ATC//C09AA02       |
        2023-01-10 | ICD10//I10         |
    """
    assert dates_of("hypertension_found", history) == ["2022-05-01"]
    assert dates_of("hypertension_coded", history) == ["2023-01-10"]
    assert dates_of("hypertension_treated", history) == ["2022-05-01"]


@pytest.mark.parametrize(
    ("drug", "phenotype"),
    [("metformin", "diabetes_treated"), ("glp1_agonist", "diabetes_treated"), ("thiazide", "hypertension_treated")],
)
def test_a_drug_class_s_own_name_is_treatment_as_its_atc_code_is(drug, phenotype):
    assert dates_of(phenotype, f"time | code\n2020-01-01 | {drug}") == ["2020-01-01"]


def test_what_always_holds_is_found_always():
    assert dates_of("hypertension_found", "time | code\n | hypertension") == [None]


def test_diabetes_is_found_by_two_raised_tests_of_different_days():
    history = """
        time       | code            | value
        2022-05-01 | glucose_fasting | 7.0
        2022-05-01 | hba1c           | 7.1
        2023-01-10 | hba1c           | 6.4
        2023-02-10 | hba1c           | 6.5
    """
    assert dates_of("diabetes_measured", history) == ["2023-02-10"]


def test_random_glucose_and_fasting_glucose_are_not_added_up():
    history = """
        time       | code            | value
        2022-05-01 | glucose_fasting | 7.2
        2023-02-10 | glucose         | 11.4
    """
    assert dates_of("diabetes_measured", history) == []


@pytest.mark.parametrize(("second", "found"), [("2023-04-01", ["2023-04-01"]), ("2023-03-31", [])])
def test_kidney_disease_needs_two_low_values_ninety_days_apart(second, found):
    # 2023-01-01 to 2023-04-01 are 90 days.
    history = f"""
        time       | code | value
        2023-01-01 | egfr | 59
        {second}   | egfr | 55
    """
    assert dates_of("ckd_measured", history) == found


def test_kidney_disease_is_found_from_creatinine():
    # CKD-EPI 2021: 130 µmol/L at 72 years, a woman, is 37.7.
    history = """
        time       | code       | value
                   | female     | 1
        1950-01-01 | MEDS_BIRTH |
        2022-01-01 | creatinine | 130
        2022-06-01 | creatinine | 130
    """
    assert dates_of("ckd_found", history) == ["2022-06-01"]


def test_kidney_disease_is_a_complication_once_diabetes_is_known_too():
    history = """
        time       | code       | value
        2020-01-01 | egfr       | 50
        2020-06-01 | egfr       | 50
        2021-03-01 | diabetes   |
    """
    assert dates_of("ckd_measured", history) == ["2020-06-01"]
    assert dates_of("kidney_complication", history) == ["2021-03-01"]
    assert dates_of("diabetes_complication_found", history) == ["2021-03-01"]


def test_kidney_disease_without_diabetes_is_no_complication():
    history = """
        time       | code       | value
        2020-01-01 | uacr       | 50
        2020-06-01 | uacr       | 50
    """
    assert dates_of("ckd_found", history) == ["2020-06-01"]
    assert dates_of("diabetes_complication_found", history) == []


def test_the_first_complication_counts():
    history = """
        time       | code                 | value
        2019-01-01 | diabetes             |
        2020-02-01 | stroke               |
        2021-02-01 | diabetic_retinopathy |
        2022-02-01 | diabetic_foot        |
        2023-02-01 | diabetic_neuropathy  |
    """
    assert dates_of("diabetes_complication_found", history) == ["2020-02-01"]
    assert dates_of("macrovascular_event", history) == ["2020-02-01"]
    assert dates_of("eye_complication", history) == ["2021-02-01"]
    assert dates_of("foot_complication", history) == ["2022-02-01"]
    assert dates_of("nerve_complication", history) == ["2023-02-01"]


def test_falls_are_found_by_code_text_and_answer_each_day_once():
    history = """
        time             | code                 | value
        2020-02-01T08:00 | ICD10//W10           |
        2020-02-01T11:00 | TEXT//fall           |
        2021-05-01       | fell_past_year       | 1
        2022-05-01       | fell_past_year       | 0
        2023-05-01       | TEXT//fall           |
    """
    assert dates_of("fall_coded", history) == ["2020-02-01"]
    assert dates_of("fall_reported", history) == ["2020-02-01", "2021-05-01", "2023-05-01"]
    assert dates_of("fall_found", history) == ["2020-02-01", "2021-05-01", "2023-05-01"]


def test_an_injury_is_a_fall_with_injury_on_a_day_with_its_external_cause():
    history = """
        time             | code        | value
        2020-02-01T08:00 | ICD10//S52  |
        2020-02-01T11:00 | ICD10//W10  |
        2021-02-01       | ICD10//W10  |
        2022-02-01       | ICD10//S52  |
    """
    assert dates_of("injurious_fall_found", history) == ["2020-02-01"]


def test_five_drug_classes_within_half_a_year_are_polypharmacy():
    history = """
        time       | code                  | value
        2020-01-01 | statin                |
        2020-08-01 | metformin             |
        2020-08-01 | arb                   |
        2020-08-01 | thiazide              |
        2020-08-01 | antiplatelet          |
        2020-08-01 | antiplatelet          |
        2020-09-01 | beta_blocker          |
    """
    assert dates_of("polypharmacy_found", history) == ["2020-09-01"]


def test_a_drug_that_raises_the_risk_of_falls_is_found():
    assert dates_of("fall_risk_drug", "time | code\n2020-01-01 | ATC//N05BA01") == ["2020-01-01"]


def test_frailty_counts_deficits_and_says_how_many_could_be_assessed():
    history = """
        time       | code         | value
        2020-01-01 | haemoglobin  | 110
        2021-01-01 | stroke       |
        2022-01-01 | stroke       |
        2023-01-01 | osteoporosis |
    """
    # Blood shows one of the 36; a diagnosis then shows all but polypharmacy and social vulnerability.
    assert values_of("frailty_deficits", history) == [1, 2, 3]
    assert values_of("frailty_assessable", history) == [1, 34, 34]
    assert values_of("frailty_index", history) == [round(n / 36, 3) for n in (1, 2, 3)]


def test_frailty_is_found_at_its_cut_points():
    deficits = [
        "stroke",
        "osteoporosis",
        "arthritis",
        "dizziness",
        "anaemia",
        "insomnia",
        "dyspnoea",
        "weight_loss",
        "tia",
    ]
    rows = "\n".join(f"{2000 + year}-01-01 | {deficit}" for year, deficit in enumerate(deficits))
    # 0.12 of 36 is 4.32, so five; 0.24 is 8.64, so nine, but a stroke and a TIA are one deficit.
    assert dates_of("frailty_mild", f"time | code\n{rows}") == ["2004-01-01"]
    assert dates_of("frailty_moderate", f"time | code\n{rows}") == []


def test_the_frailty_table_has_36_deficits():
    assert len({row.deficit for row in frailty()} - {""}) == 36


@pytest.mark.parametrize(
    ("concept", "history", "expected"),
    [
        ("pulse_pressure", "2020-01-01 | sbp | 150\n2020-01-01 | dbp | 90", [60]),
        ("non_hdl", "2020-01-01 | cholesterol | 5.5\n2020-01-01 | hdl | 1.5", [4.0]),
        ("triglycerides_to_hdl", "2020-01-01 | triglycerides | 3\n2020-01-01 | hdl | 1.5", [2.0]),
        ("uacr_stage", "2020-01-01 | uacr | 29\n2020-02-01 | uacr | 30\n2020-03-01 | uacr | 301", [1, 2, 3]),
        ("glucose_controlled", "2020-01-01 | glucose_fasting | 6.9\n2020-02-01 | glucose_fasting | 7", [1, 0]),
        ("bmi", "2020-01-01 | weight | 64\n2020-01-01 | height | 160", [25.0]),
        ("family_history_hypertension", " | hypertension_in_father |\n | hypertension_in_mother |", [2]),
        ("family_history_hypertension", " | hypertension_in_mother |", [1]),
        ("family_history_hypertension", " | hypertension_in_father | 0\n | hypertension_in_mother |", [1]),
        ("family_history_hypertension", "2020-01-01 | hypertension_in_father | 0", [0]),
    ],
)
def test_a_derived_value(concept, history, expected):
    assert values_of(concept, f"time | code | value\n{history}") == expected


def test_values_of_different_moments_are_not_combined():
    assert values_of("pulse_pressure", "time | code | value\n2020-01-01 | sbp | 150\n2020-01-02 | dbp | 90") == []


@pytest.mark.parametrize(("born", "controlled"), [("1954-12-01", 1), ("1955-02-01", 0)])
def test_from_sixty_five_on_a_pressure_below_150_is_under_control(born, controlled):
    history = f"""
        time       | code       | value
        {born}     | MEDS_BIRTH |
        2020-01-01 | sbp        | 145
        2020-01-01 | dbp        | 85
    """
    assert values_of("blood_pressure_controlled", history) == [controlled]


def test_lack_of_control_is_found_each_time_of_those_who_have_the_disease():
    history = """
        time       | code            | value
        2019-01-01 | glucose_fasting | 8
        2020-01-01 | diabetes        |
        2020-02-01 | glucose_fasting | 8
        2020-03-01 | glucose_fasting | 6
        2020-04-01 | glucose_fasting | 9
    """
    assert dates_of("glucose_uncontrolled", history) == ["2020-02-01", "2020-04-01"]


def test_a_feature_may_name_a_phenotype():
    events = events_from("""
        time       | code | value
        2023-01-10 | sbp  | 142
        2023-02-10 | sbp  | 142
        2023-03-10 | sbp  | 140
        2023-05-10 | fall |
    """)
    engine = Engine(Profile(ever("hypertension_found"), count("fall_found"), latest("frailty_index")))
    at = [date(2023, 3, 10), date(2023, 3, 11), date(2024, 1, 1)]
    index = pl.DataFrame({"subject_id": [1] * 3, "index_time": at})
    assert engine.profiles(events, index)["hypertension_found_ever"].to_list() == [0, 1, 1]
    assert engine.profiles(events, index)["fall_found_count"].to_list() == [0, 0, 1]


def test_every_phenotype_has_a_source_labels_and_known_concepts():
    for phenotype in PHENOTYPES:
        assert phenotype.source
        assert VOCABULARY.concept(phenotype.name).kind == "phenotype"
        assert all(VOCABULARY.concept(concept) for concept in phenotype.concepts)
    named = {concept.name for concept in VOCABULARY.concepts.values() if concept.kind == "phenotype"}
    assert named == set(BY_NAME)


def test_a_phenotype_is_described_by_its_rule_and_its_source():
    assert described("ckd_measured") == (
        "ckd_measured: egfr < 60, on 2 days, 90d apart (KDIGO 2012 clinical practice guideline for chronic kidney"
        " disease; CKD-EPI 2021)"
    )
    assert described("fall") == "fall"


def test_a_phenotype_cannot_rest_on_a_later_one():
    later = (Phenotype("a", (happened("b"),), "made up"), Phenotype("b", (happened("c"),), "made up"))
    with pytest.raises(WeibingError, match='"a" rests on b, declared after it'):
        in_order({"a"}, later)


def test_a_rule_cannot_ask_for_more_days_than_are_remembered():
    often = (
        Phenotype("hypertension_found", (repeated(*BY_NAME["ckd_measured"].evidence[0].signs, days=9),), "made up"),
    )
    with pytest.raises(WeibingError, match="8 days at most, not 9"):
        compile_rules(Needed.by(["hypertension_found"], often), VOCABULARY, 0)


# Codes that the rules hold together, over few days and hours so that moments and days coincide.
CODES = [
    *("sbp", "dbp", "glucose_fasting", "hba1c", "glucose", "egfr", "uacr", "creatinine", "weight", "height", "hdl"),
    *("cholesterol", "triglycerides", "MEDS_BIRTH", "female", "diabetes", "hypertension", "antihypertensive", "stroke"),
    *("fall", "TEXT//fall", "injury", "fracture", "fell_past_year", "hypertension_in_father", "hypertension_in_mother"),
    *("statin", "metformin", "arb", "thiazide", "antiplatelet", "insulin", "medication_count", "haemoglobin"),
    *("adl_score", "living_alone", "osteoporosis", "dizziness", "arthritis", "kidney_failure", "examination"),
]
START = 1_577_836_800_000_000
HOUR = 3_600_000_000
VALUES = [0, 1, 2, 4, 6.5, 7, 11.1, 29, 30, 45, 59, 60, 85, 90, 110, 130, 139, 140, 150, 155, 160, 301]

EVENTS = st.lists(
    st.builds(
        Recorded,
        st.one_of(
            st.none(),
            st.builds(
                lambda day, hour: START + day * 24 * HOUR + hour * HOUR,
                st.sampled_from([0, 1, 2, 30, 89, 90, 91, 180, 181, 365, 366, 400, 800]),
                st.sampled_from([0, 8, 15, 16, 23]),
            ),
        ),
        st.sampled_from(CODES),
        st.one_of(st.none(), st.sampled_from(VALUES)),
    ),
    max_size=18,
)


def as_frame(events: list[Recorded]) -> pl.DataFrame:
    ordered = sorted(events, key=lambda event: (event.time is not None, event.time or 0))
    return normalised(
        pl.DataFrame(
            {
                "subject_id": [1] * len(ordered),
                "time": pl.Series([event.time for event in ordered], dtype=pl.Int64).cast(pl.Datetime("us")),
                "code": pl.Series([event.code for event in ordered], dtype=pl.String),
                "numeric_value": pl.Series([event.number for event in ordered], dtype=pl.Float32),
            }
        )
    )


def found_by_engine(events: list[Recorded], concepts: list[str], timezone: str) -> list[tuple]:
    frame = Translator(concepts, VOCABULARY, timezone).frame(as_frame(events))
    times = frame["time"].cast(pl.Int64).to_list()
    return sorted(zip(times, frame["concept"].cast(pl.String), frame["value"], strict=True), key=str)


def found_by_reference(events: list[Recorded], concepts: list[str], zone_offset: int) -> list[tuple]:
    needed = Needed.by(concepts)
    findings = Findings(
        list(needed.phenotypes),
        list(needed.deficits),
        lambda name, value: usable(name, value, VOCABULARY),
        zone_offset,
    )
    ordered = sorted(events, key=lambda event: (event.time is not None, event.time or 0))
    facts = findings.of([fact for event in ordered for fact in facts_of(event, VOCABULARY)])
    return sorted(((f.time, f.concept, f.value) for f in facts if f.concept in concepts), key=str)


def like(found: list[tuple]) -> list[tuple]:
    """Values to six digits: sums of the same numbers may differ in the last bit."""
    return sorted(((t, c, None if v is None else float(f"{v:.6g}")) for t, c, v in found), key=str)


@given(EVENTS, st.sampled_from([("UTC", 0), (CHINA, 8 * HOUR)]))
@settings(max_examples=60)
def test_the_compiled_rules_agree_with_the_reference(events, zone):
    concepts = [*BY_NAME, "egfr", "bmi", "pulse_pressure", "non_hdl", "frailty_deficits", "frailty_assessable"]
    timezone, offset = zone
    assert like(found_by_engine(events, concepts, timezone)) == like(found_by_reference(events, concepts, offset))


@given(EVENTS, st.data())
@settings(max_examples=60)
def test_what_happens_later_changes_no_finding(events, data):
    concepts = [*BY_NAME, "egfr", "bmi", "frailty_index"]
    cut = START + data.draw(st.integers(0, 800)) * 24 * HOUR
    before = [event for event in events if event.time is None or event.time < cut]
    found = [each for each in found_by_engine(events, concepts, CHINA) if each[0] is None or each[0] < cut]
    assert str(found) == str(found_by_engine(before, concepts, CHINA))


@given(st.lists(EVENTS, min_size=2, max_size=5))
@settings(max_examples=30)
def test_one_is_many(histories):
    translator = Translator([*BY_NAME, "egfr", "frailty_index"], VOCABULARY, CHINA)
    frames = [
        as_frame(events).with_columns(subject_id=pl.lit(number, pl.Int64)) for number, events in enumerate(histories)
    ]
    together = translator.known(pl.concat(frames), np.arange(len(frames)))
    for number, frame in enumerate(frames):
        alone = translator.of_one(frame)
        here = slice(together.starts[number], together.starts[number + 1])
        for batch, one in (
            (together.concept, alone.concept),
            (together.time, alone.time),
            (together.value, alone.value),
        ):
            assert batch[here].tobytes() == one.tobytes()
