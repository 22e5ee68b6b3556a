"""FHIR to events, beyond the examples of docs/fhir.md, which are tests as well."""

import json
import random
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import WeibingError
from features.events import EventStore
from features.sources.fhir import ingest_fhir
from features.sources.fhir.coding import rows
from features.sources.report import IngestReport, Reason
from features.sources.table.identities import Who
from features.vocabulary import builtin
from tests.real import real_records

TODAY = date(2025, 1, 1)
# Each resource that becomes no event is counted under one of these.
LEFT_OUT_AS_A_WHOLE = (
    Reason.NOT_READ,
    Reason.RETRACTED,
    Reason.NOT_DONE,
    Reason.NO_SUBJECT,
    Reason.NOT_CODED,
    Reason.NO_TIME,
    Reason.SAYS_NOTHING,
)

LOINC, SNOMED, ICD10 = "http://loinc.org", "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10"
ICD10_CM, ICD9_CM = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm"
ATC, RXNORM = "http://www.whocc.no/atc", "http://www.nlm.nih.gov/research/umls/rxnorm"
ORDINAL = "http://hl7.org/fhir/StructureDefinition/ordinalValue"
LAB = "http://hospital.example/lab-items"
DAY = "2024-03-05"


def concept(*codings, **more):
    """A CodeableConcept of (system, code) pairs."""
    return {"coding": [{"system": system, "code": code} for system, code in codings], **more}


def about(resource_type, patient="Patient/7", **more):
    return {"resourceType": resource_type, "subject": {"reference": patient}, **more}


def observation(code, when=DAY, **more):
    return about("Observation", **{"status": "final", "effectiveDateTime": when, "code": concept(code), **more})


def condition(*codes, **more):
    return about("Condition", **{"recordedDate": DAY, "code": concept(*codes), **more})


def request(**more):
    return about("MedicationRequest", **{"status": "active", "intent": "order", "authoredOn": DAY, **more})


def encounter(kind, start=DAY, end=None, **more):
    period = {"start": start, "end": end} if end else {"start": start}
    return about("Encounter", **{"status": "finished", "class": {"code": kind}, "period": period, **more})


def form(*items, **more):
    return about("QuestionnaireResponse", **{"status": "completed", "authored": DAY, "item": list(items), **more})


def quantity(value, **more):
    return {"value": value, "system": "http://unitsofmeasure.org", **more}


SBP = (LOINC, "8480-6")
FALL = (ICD10, "W19")
MMHG = {"valueQuantity": quantity(152, code="mm[Hg]")}


@pytest.fixture
def take(county):
    """Take resources in, as a file of Bulk Data."""

    def take(*resources, name="export.ndjson", **settings) -> IngestReport:
        file = county.file(name, "".join(f"{json.dumps(it)}\n" for it in resources))
        report = ingest_fhir([file], county.store, **{"today": TODAY, **settings})
        assert_all_accounted_for(report, len(resources))
        return report

    return take


def assert_all_accounted_for(report, resources):
    left_out = sum(sum(report.counted(reason).values()) for reason in LEFT_OUT_AS_A_WHOLE)
    assert sum(report.rows.values()) == resources == report.rows_taken + left_out


# What resources become


@pytest.mark.parametrize(
    ("value", "event"),
    [
        ({"valueQuantity": quantity(20.3, unit="kilopascal", code="kPa")}, "20.3 | kPa |"),
        ({"valueQuantity": {"value": 152, "unit": "mmHg"}}, "152 | mmHg |"),
        ({"valueQuantity": {"value": 152, "unit": "mmHg", "system": LAB, "code": "u1"}}, "152 | mmHg |"),
        ({"valueQuantity": {"value": 152, "system": LAB, "code": "u1"}}, "152 | u1 |"),
        ({"valueQuantity": {"value": 152}}, "152 | |"),
        ({"valueQuantity": quantity(300, comparator=">", code="mm[Hg]")}, "300 | mm[Hg] | >300"),
        ({"valueInteger": 152}, "152 | |"),
        ({"valueString": "152"}, "152 | |"),
        ({"valueString": "≥ 152.5"}, "152.5 | | ≥ 152.5"),
        ({"valueString": "未测"}, "| | 未测"),
        ({"valueString": "电话13800138000"}, "| | 电话***"),
        ({"valueCodeableConcept": concept((LAB, "high"))}, "| | LOCAL//lab-items/high"),
        ({"valueCodeableConcept": {"text": "too high"}}, "| | too high"),
        ({"valueBoolean": True}, "1 | |"),
    ],
)
def test_a_value_of_any_kind_is_taken(take, county, value, event):
    take(observation(SBP, **value))
    county.is_drawn(f"""
        resident | time       | code          | value | unit | text
        7        | {DAY} | LOINC//8480-6 | {event}
    """)


@pytest.mark.parametrize(
    "value",
    [
        {"valueQuantity": quantity(None)},
        {"valueQuantity": quantity("152")},
        {"valueInteger": True},
        {"valueDecimal": 1e39},
        {"valueDecimal": 10**400},
        {"valueDecimal": float("nan")},
        {"valueString": "\ud800"},
        {"valueSampledData": {"data": "1 2 3"}},
        {"valueString": "a note of more than forty characters, which may hold a name"},
    ],
)
def test_a_value_that_cannot_be_used_is_counted(take, value):
    report = take(observation(SBP, **value))
    assert report.counted(Reason.SAYS_NOTHING) == {"Observation": 1}
    assert report.counted(Reason.PART) == {f"Observation, {next(iter(value))} that is not taken": 1}
    assert report.events_read == 0


def test_a_component_without_a_value_leaves_the_others(take, county):
    diastolic = {"code": concept((LOINC, "8462-4")), "dataAbsentReason": {"text": "not heard"}}
    systolic = {"code": concept(SBP), **MMHG}
    report = take(observation((LOINC, "85354-9"), component=[diastolic, systolic]))
    county.is_drawn(f"""
        resident | time       | code          | value | unit
        7        | {DAY} | LOINC//8480-6 | 152   | mm[Hg]
    """)
    assert report.counted(Reason.PART) == {"Observation, a part without a value": 1}


@pytest.mark.parametrize(
    ("told", "events"),
    [
        ({}, 1),
        ({"valueBoolean": True}, 1),
        ({"valueInteger": 3}, 1),
        ({"valueCodeableConcept": concept((LOINC, "LA33-6"))}, 1),
        ({"valueBoolean": False}, 0),
        ({"valueInteger": 0}, 0),
        ({"valueCodeableConcept": concept((LOINC, "LA32-8"))}, 0),
        ({"valueCodeableConcept": concept((LAB, "unknown"))}, 0),
        ({"dataAbsentReason": {"text": "not asked"}}, 0),
    ],
)
def test_a_fall_that_is_denied_is_no_fall(take, told, events):
    assert take(observation(FALL, **told)).events_written == events


def test_an_answer_counts_what_it_says_itself(take, county):
    answer = {"system": LAB, "code": "often"}
    scored = answer | {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/ordinalValue", "valueDecimal": 3}]
    }
    take(observation((LAB, "q1"), valueCodeableConcept={"coding": [scored]}))
    county.is_drawn(f"""
        resident | time       | code                | value | text
        7        | {DAY} | LOCAL//lab-items/q1 | 3     | LOCAL//lab-items/often
    """)


@pytest.mark.parametrize(
    ("kind", "concept_named"),
    [("AMB", "outpatient_visit"), ("VR", "outpatient_visit"), ("EMER", "emergency_visit"), ("I", "hospital_stay")],
)
def test_the_class_of_an_encounter_is_a_contact(take, county, kind, concept_named):
    take(encounter(kind))
    assert county.drawn("resident", "time", "code")[1:] == [["7", DAY, concept_named]]


def test_a_contact_of_another_class_is_kept_and_counted(take):
    assert take(encounter("DREAM")).counted(Reason.UNKNOWN_CODE) == {"LOCAL//DREAM": 1}


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2024-03-05T22:00:00+08:00", "2024-03-09T10:00:00+08:00", 4),
        ("2024-03-05T08:00:00+08:00", "2024-03-05T20:00:00+08:00", 1),
        ("2024-03-05T15:00:00Z", "2024-03-05T17:00:00Z", 1),
        ("2024-03-05", "2024-03-12", 7),
    ],
)
def test_a_stay_is_as_long_as_its_nights_and_at_least_a_day(take, county, start, end, days):
    take(encounter("IMP", start, end))
    assert county.drawn("resident", "time", "code", "value", "unit")[2][2:] == ["length_of_stay", str(days), "d"]


def test_a_stay_that_ends_before_it_begins_has_no_length(take):
    assert take(encounter("IMP", DAY, "2023-01-01")).events_written == 1


def test_a_visit_has_no_length(take):
    assert take(encounter("AMB", DAY, "2024-03-06")).events_written == 1


@pytest.mark.parametrize(
    "medication",
    [
        {"medicationCodeableConcept": concept((ATC, "C08CA01"))},
        {"medicationReference": {"reference": "Medication/3"}},
        {"medicationReference": {"reference": "https://server.example/fhir/Medication/3/_history/2"}},
        {
            "medicationReference": {"reference": "#m"},
            "contained": [{"resourceType": "Medication", "id": "m", "code": concept((ATC, "C08CA01"))}],
        },
        {"medicationReference": {"reference": "Medication/4"}},
    ],
)
@pytest.mark.parametrize("kind", ["MedicationRequest", "MedicationStatement", "MedicationDispense"])
def test_a_drug_is_named_or_referred_to(take, county, medication, kind):
    times = {"authoredOn": DAY, "effectiveDateTime": DAY, "whenHandedOver": DAY}
    take(
        about(kind, status="completed", **times, **medication),
        {"resourceType": "Medication", "id": "3", "code": concept((ATC, "C08CA01"))},
        {"resourceType": "Medication", "id": "4", "ingredient": [{"itemCodeableConcept": concept((ATC, "C08CA01"))}]},
    )
    county.is_drawn(f"""
        resident | time       | code
        7        | {DAY} | ATC//C08CA01
    """)


def test_a_drug_whose_medication_is_missing_is_counted(take):
    report = take(request(medicationReference={"reference": "Medication/9"}))
    assert report.counted(Reason.NOT_CODED) == {"MedicationRequest, whose Medication is not there": 1}


def test_a_drug_that_is_still_taken_is_active_when_that_is_said(take, county):
    drug = {"medicationCodeableConcept": concept((ATC, "C08CA01"))}
    asserted = {"effectivePeriod": {"start": "2019-01-01"}, "dateAsserted": DAY}
    take(
        about("MedicationStatement", status="active", **asserted, **drug),
        about("MedicationStatement", "Patient/8", status="completed", **asserted, **drug),
    )
    county.is_drawn(f"""
        resident | time       | code
        7        | 2019-01-01 | ATC//C08CA01
        7        | {DAY} | ATC//C08CA01
        8        | 2019-01-01 | ATC//C08CA01
    """)


def test_a_questionnaire_gives_its_questions_codes_and_its_answers_numbers(take, county):
    often = {"system": LAB, "code": "often"}

    def question(link, loinc, counts):
        option = {"valueCoding": often, "extension": [{"url": ORDINAL, "valueDecimal": counts}]}
        return {"linkId": link, "code": [{"system": LOINC, "code": loinc}], "answerOption": [option]}

    answered = [{"linkId": link, "answer": [{"valueCoding": often}]} for link in ("1.1", "1.2")]
    take(
        form({"linkId": "1", "item": answered}, questionnaire="http://clinic.example/Questionnaire/phq|1.0"),
        {
            "resourceType": "Questionnaire",
            "url": "http://clinic.example/Questionnaire/phq",
            "item": [{"linkId": "1", "item": [question("1.1", "44250-9", 3), question("1.2", "44255-8", 0)]}],
        },
    )
    county.is_drawn(f"""
        resident | time       | code           | value | text
        7        | {DAY} | LOINC//44250-9 | 3     | LOCAL//lab-items/often
        7        | {DAY} | LOINC//44255-8 | 0     | LOCAL//lab-items/often
    """)


def test_questions_below_answers_are_asked_too(take, county):
    below = {"linkId": "1a", "answer": [{"valueDecimal": 2}]}
    take(form({"linkId": "1", "answer": [{"valueBoolean": True, "item": [below]}]}))
    county.is_drawn(f"""
        resident | time       | code      | value
        7        | {DAY} | LOCAL//1  | 1
        7        | {DAY} | LOCAL//1a | 2
    """)


@pytest.mark.parametrize(
    ("link", "code"),
    [
        ("8302-2", "LOINC//8302-2"),
        ("/54126-8/8302-2", "LOINC//8302-2"),
        ("8302-3", "LOCAL//8302-3"),  # the check digit is another
        ("3.1", "LOCAL//3.1"),
    ],
)
def test_a_link_that_is_a_loinc_code_is_taken_for_one(take, county, link, code):
    take(form({"linkId": link, "answer": [{"valueDecimal": 158}]}))
    assert county.drawn("resident", "time", "code", "value")[1][2] == code


@pytest.mark.parametrize("words", ["13800138000", "李明"])
def test_the_words_of_a_form_never_enter(take, words):
    report = take(form({"linkId": "1", "answer": [{"valueString": words}]}))
    assert report.events_read == 0


# Codes


@pytest.mark.parametrize(
    ("codings", "codes"),
    [
        ([(ICD10, "E11.9")], ["ICD10//E11.9"]),
        ([(ICD10_CM, "e11.22")], ["ICD10//E11.22"]),
        ([(ICD9_CM, "250.40")], ["ICD9//250.40"]),
        ([("urn:oid:2.16.156.10011.2.3.3.11", "I10.x02")], ["ICD10//I10.X02"]),
        ([(SNOMED, "44054006")], ["SNOMED//44054006"]),
        ([(SNOMED, "44054006"), (ICD10, "E11.9")], ["ICD10//E11.9"]),
        ([(ICD10, "I10"), (ICD9_CM, "401.9")], ["ICD10//I10"]),
        ([(ICD10, "E11.9†"), (ICD10, "N08.3*")], ["ICD10//E11.9", "ICD10//N08.3"]),
        ([(LAB, "T2D"), (SNOMED, "44054006")], ["SNOMED//44054006"]),
        ([(LAB, "T2D")], ["LOCAL//lab-items/T2D"]),
        ([("", "T2D")], ["LOCAL//T2D"]),
    ],
)
def test_codings_that_say_the_same_are_one_code(take, county, codings, codes):
    take(condition(*codings))
    assert [row[2] for row in county.drawn("resident", "time", "code")[1:]] == codes


@pytest.mark.parametrize(
    ("words", "code"),
    [("高血压3级", "LOCAL//高血压3级"), ("滑倒", "TEXT//fall"), ("电话13800138000", "LOCAL//电话***")],
)
def test_words_stand_for_a_code_that_is_missing(take, county, words, code):
    take(condition(code={"text": words}))
    assert county.drawn("resident", "time", "code")[1][2] == code


def test_an_operation_in_icd_9_is_no_diagnosis(take, county):
    take(about("Procedure", status="completed", performedDateTime=DAY, code=concept((ICD9_CM, "36.01"))))
    assert county.drawn("resident", "time", "code")[1][2] == "ICD9PROC//36.01"


def test_a_note_is_no_code(take):
    report = take(condition(code={"text": "seen with his daughter, who says that he has had this for some years now"}))
    assert report.counted(Reason.NOT_CODED) == {"Condition": 1}


# When


@pytest.mark.parametrize(
    ("told", "time"),
    [
        ({"onsetDateTime": "2019-11-02T23:30:00-05:00"}, "2019-11-03 12:30"),
        ({"onsetDateTime": "2019-11-02T10:00:00"}, "2019-11-02 10:00"),
        ({"onsetDateTime": "2019-11-02T10:00:00.123Z"}, "2019-11-02 18:00"),
        ({"onsetDateTime": "2019"}, "2019-01-01"),
        ({"onsetDateTime": "2019-11"}, "2019-11-01"),
        ({"onsetDateTime": "2024"}, DAY),
        ({"onsetDateTime": "2023"}, "2023-01-01"),
        ({"onsetPeriod": {"start": "2019-11-02", "end": "2020-01-01"}}, "2019-11-02"),
        ({"onsetAge": {"value": 52}}, DAY),
        ({"onsetDateTime": "2019-02-30"}, DAY),
        ({"onsetDateTime": "0019-02-03"}, DAY),
        ({"onsetDateTime": "0001-01-01T00:00:00+14:00"}, DAY),
    ],
)
def test_a_condition_counts_from_its_onset(take, county, told, time):
    take(condition((ICD10, "I10"), **told))
    assert county.drawn("resident", "time", "code")[1][1] == time


@pytest.mark.parametrize(
    ("told", "time"),
    [
        ({"effectivePeriod": {"start": "2024-03-01", "end": "2024-03-02"}}, "2024-03-02"),
        ({"effectivePeriod": {"start": "2024-03-01"}}, "2024-03-01"),
        ({"effectiveInstant": "2024-03-01T08:00:00+08:00"}, "2024-03-01 08:00"),
        ({"issued": "2024-03-01T08:00:00+08:00"}, "2024-03-01 08:00"),
    ],
)
def test_an_observation_counts_when_it_is_known(take, county, told, time):
    take(observation(SBP, None, **told, **MMHG))
    assert county.drawn("resident", "time", "code", "value", "unit")[1][1] == time


@pytest.mark.parametrize(("when", "example"), [(None, "export.ndjson, line 1"), ("soon", '"soon" in export.ndjson')])
def test_a_resource_without_a_time_is_counted_with_its_place(take, when, example):
    report = take(observation(SBP, when, **MMHG))
    assert report.remarks[Reason.NO_TIME]["Observation"].example.startswith(example)


def test_a_day_is_one_of_the_zone(take, county):
    take(condition((ICD10, "I10")), timezone="America/Chicago")
    store = EventStore.open(county.store)
    assert str(store.read(store.shards[0])["time"][0]) == f"{DAY} 06:00:00"


# Who


@pytest.mark.parametrize(
    ("born", "died", "told"),
    [
        ("1950-06-01", "2020-02-03T10:00:00+08:00", [["1950-06-01", "MEDS_BIRTH"], ["2020-02-03 10:00", "MEDS_DEATH"]]),
        ("1950-06", "2020", [["1950-06-15", "MEDS_BIRTH"], ["2020-07-01", "MEDS_DEATH"]]),
        ("1950", None, [["1950-07-01", "MEDS_BIRTH"]]),
    ],
)
def test_a_patient_is_born_and_dies(take, county, born, died, told):
    take({"resourceType": "Patient", "id": "7", "birthDate": born, "deceasedDateTime": died})
    assert [row[1:] for row in county.drawn("resident", "time", "code")[1:]] == told


def test_a_death_without_a_date_is_counted_and_left_out(take):
    report = take({"resourceType": "Patient", "id": "7", "gender": "male", "deceasedBoolean": True})
    assert report.counted(Reason.PART) == {"Patient, death without a date": 1}
    assert report.events_written == 1


def test_a_patient_alive_is_not_dead(take):
    report = take({"resourceType": "Patient", "id": "7", "gender": "male", "deceasedBoolean": False})
    assert report.remarks == {}


def test_events_before_a_birth_that_is_told_later_are_left_out(take):
    report = take(condition((ICD10, "I10")), {"resourceType": "Patient", "id": "7", "birthDate": "2024-06-01"})
    assert report.counted(Reason.BEFORE_BIRTH) == {"ICD10//I10": 1}


@pytest.mark.parametrize(
    "reference",
    ["Patient/7", "https://server.example/fhir/Patient/7", "Patient/7/_history/3", "/Patient/7"],
)
def test_a_patient_is_known_by_the_id(take, county, reference):
    take(about("Condition", reference, recordedDate=DAY, code=concept((ICD10, "I10"))))
    assert county.drawn("resident", "time", "code")[1][0] == "7"


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "Group/7",
        "#p",
        "urn:uuid:0d5a6e5c-0a43-4f27-9a9e-5b1d2b6ad001",
        "Patient?identifier=http://id.example|7",
        "Patient/",
    ],
)
def test_a_resource_of_nobody_is_counted(take, reference):
    report = take(about("Condition", reference, recordedDate=DAY, code=concept((ICD10, "I10"))))
    assert report.counted(Reason.NO_SUBJECT) == {"Condition": 1}


def test_ids_that_differ_are_different_residents(take, county):
    ids = ["12", "0012", "12.0", "abc", "ABC", "9" * 18, "9" * 19, "-12"]
    take(*({"resourceType": "Patient", "id": one, "birthDate": "1950-06-01"} for one in ids))
    residents = {row[0] for row in county.drawn("resident", "time", "code")[1:]}
    assert len(residents) == len(ids)
    assert {"12", "9" * 18} <= residents


def test_identity_numbers_are_refused_without_a_key(take, county):
    with pytest.raises(WeibingError, match=r"identity numbers.*key"):
        take({"resourceType": "Patient", "id": "11010519491231002X", "birthDate": "1949-12-31"})
    assert not county.store.exists()


def test_with_a_key_all_ids_are_hashed_as_those_of_tables_are(take, county, monkeypatch):
    monkeypatch.setenv("SECRET", "a-long-secret-that-stays-here")
    take(about("Condition", "Patient/12", recordedDate=DAY, code=concept((ICD10, "I10"))), who=Who(key="SECRET"))
    county.file("exams.csv", f"id,day\n12,{DAY}\n")
    (county.folder / "export.ndjson").unlink()
    report = county.ingest("""
        [[table]]
        file = "exams.csv"
        resident = { column = "id", key = "SECRET" }
        time = { column = "day" }
        event = [{ code = "examination" }]
    """)
    assert (report.residents_new, report.residents_known) == (0, 1)


# What is left out


@pytest.mark.parametrize(
    ("resource", "reason", "thing"),
    [
        (observation(SBP, status="entered-in-error", **MMHG), Reason.RETRACTED, "Observation, status entered-in-error"),
        (observation(SBP, status="cancelled", **MMHG), Reason.NOT_DONE, "Observation, status cancelled"),
        (
            condition((ICD10, "I10"), verificationStatus=concept(("", "entered-in-error"))),
            Reason.RETRACTED,
            "Condition, verificationStatus entered-in-error",
        ),
        (
            condition((ICD10, "I10"), verificationStatus=concept(("", "refuted"))),
            Reason.RETRACTED,
            "Condition, verificationStatus refuted",
        ),
        (request(status="draft"), Reason.NOT_DONE, "MedicationRequest, status draft"),
        (request(intent="proposal"), Reason.NOT_DONE, "MedicationRequest, intent proposal"),
        (request(doNotPerform=True), Reason.NOT_DONE, "MedicationRequest, doNotPerform true"),
        (about("MedicationStatement", status="not-taken"), Reason.NOT_DONE, "MedicationStatement, status not-taken"),
        (encounter("AMB", status="planned"), Reason.NOT_DONE, "Encounter, status planned"),
        (about("Procedure", status="not-done"), Reason.NOT_DONE, "Procedure, status not-done"),
        (form(status="entered-in-error"), Reason.RETRACTED, "QuestionnaireResponse, status entered-in-error"),
        (about("Claim"), Reason.NOT_READ, "Claim"),
        ({"resourceType": "Medication", "id": "3"}, Reason.NOT_READ, "Medication, but for what refers to it"),
        ({"transactionTime": DAY}, Reason.NOT_READ, "without a resourceType"),
        ({"resourceType": "Patient", "gender": "male"}, Reason.NO_SUBJECT, "Patient"),
        ({"resourceType": "Patient", "id": "7"}, Reason.SAYS_NOTHING, "Patient"),
        (condition(), Reason.NOT_CODED, "Condition"),
        (request(), Reason.NOT_CODED, "MedicationRequest"),
        (encounter(None), Reason.NOT_CODED, "Encounter"),
        (observation(SBP, hasMember=[{"reference": "Observation/2"}]), Reason.SAYS_NOTHING, "Observation"),
        (form({"linkId": "1"}), Reason.SAYS_NOTHING, "QuestionnaireResponse"),
    ],
)
def test_what_tells_nothing_is_counted_by_reason(take, resource, reason, thing):
    report = take(resource)
    assert report.counted(reason) == {thing: 1}
    assert (report.rows_taken, report.events_read) == (0, 0)


def test_what_is_resolved_was_there(take):
    assert take(condition((ICD10, "J18.9"), clinicalStatus=concept(("", "resolved")))).events_written == 1


@pytest.mark.parametrize(
    ("table", "column", "known"),
    [
        ("statuses", "reason", {reason.name for reason in LEFT_OUT_AS_A_WHOLE}),
        ("classes", "concept", set(builtin().concepts)),
        ("answers", "concept", {"", *builtin().concepts}),
        ("systems", "trust", {"VP", "VI", "VS", "M"}),
    ],
)
def test_the_tables_speak_of_what_there_is(table, column, known):
    assert {row[column] for row in rows(table)} <= known


# The whole


def test_the_same_export_twice_adds_nothing(take):
    export = [
        condition((ICD10, "I10")),
        observation(SBP, **MMHG),
        {"resourceType": "Patient", "id": "7", "gender": "male"},
    ]
    take(*export)
    again = take(*export)
    assert (again.events_written, again.duplicates, again.residents_known) == (0, again.events_read, 1)


def test_the_order_of_the_resources_does_not_matter(take, county):
    medication = {"resourceType": "Medication", "id": "3", "code": concept((ATC, "C08CA01"))}
    export = [
        {"resourceType": "Patient", "id": "7", "gender": "male", "birthDate": "1950-06-01"},
        *(condition((ICD10, "I10"), recordedDate=f"20{year}-01-01") for year in range(10, 24)),
        request(medicationReference={"reference": "Medication/3"}),
        medication,
    ]
    take(*export)
    drawn = county.drawn()
    random.Random(7).shuffle(export)
    again = take(*export)
    assert (again.events_written, county.drawn()) == (0, drawn)


def test_batches_of_any_size_give_the_same_events(take, monkeypatch):
    export = [observation(SBP, f"2024-03-{day:02}", **MMHG) for day in range(1, 31)]
    monkeypatch.setattr("features.sources.fhir.EVENTS_PER_BATCH", 7)
    assert take(*export).events_written == 30
    monkeypatch.undo()
    assert take(*export).duplicates == 30


def test_progress_is_told(take, monkeypatch):
    monkeypatch.setattr("features.sources.fhir.RESOURCES_PER_LINE", 2)
    lines = []
    take(*([condition((ICD10, "I10"))] * 5), progress=lines.append)
    assert lines == [
        "export.ndjson, line 2: 2 resources",
        "export.ndjson, line 4: 4 resources",
        "sorting the events into the store",
    ]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "2024", "Patient/7", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["code", "coding", "value"]), inner),
    max_leaves=4,
)
SOUND = [
    {"resourceType": "Patient", "id": "7", "gender": "male", "birthDate": "1950", "deceasedDateTime": "2020"},
    observation((LOINC, "85354-9"), component=[{"code": concept(SBP), **MMHG}]),
    observation((LAB, "q"), valueCodeableConcept={"coding": [{"code": "a", "extension": [{"url": "u"}]}]}),
    condition((ICD10, "I10"), verificationStatus=concept(("", "confirmed"))),
    request(medicationReference={"reference": "#m"}, contained=[{"id": "m", "code": concept((ATC, "C08CA01"))}]),
    encounter("IMP", DAY, "2024-03-09"),
    form({"linkId": "1", "answer": [{"valueCoding": {"code": "a"}, "item": [{"linkId": "2"}]}]}),
    {"resourceType": "Questionnaire", "url": "u", "item": [{"linkId": "1", "code": [{"code": "a"}], "item": [{}]}]},
    {"resourceType": "Medication", "id": "3", "ingredient": [{"itemCodeableConcept": concept((ATC, "C08CA01"))}]},
    {"resourceType": "Bundle", "entry": [{"fullUrl": "urn:uuid:1", "resource": condition((ICD10, "I10"))}]},
]


def spoilt(draw, part):
    """Return a part of a resource in which, here and there, something is what it must not be."""
    if draw(st.integers(0, 7)) == 0:
        return draw(JUNK)
    if isinstance(part, dict):
        return {name: it if name == "resourceType" else spoilt(draw, it) for name, it in part.items()}
    return [spoilt(draw, it) for it in part] if isinstance(part, list) else part


@st.composite
def malformed(draw):
    found = spoilt(draw, draw(st.sampled_from(SOUND)))
    return found if isinstance(found, dict) else {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(resources=st.lists(malformed(), min_size=1, max_size=20))
def test_a_malformed_resource_is_counted_and_no_crash(tmp_path_factory, resources):
    folder = tmp_path_factory.mktemp("malformed")
    (folder / "export.ndjson").write_text("\n".join(map(json.dumps, resources)))
    report = ingest_fhir([folder], folder / "store", today=TODAY)
    assert_all_accounted_for(report, sum(report.rows.values()))


def test_a_real_export_is_read_to_the_last_resource(tmp_path):
    report = ingest_fhir([real_records("fhir")], tmp_path / "store", timezone="America/Chicago", today=TODAY)
    assert report.rows == {
        "Patient": 13,
        "Condition": 555,
        "Encounter": 1215,
        "MedicationRequest": 1745,
        "Procedure": 2056,
    }
    assert_all_accounted_for(report, 13 + 5571)
    assert report.rows_taken == 13 + 5571
    # A birth and a sex each, and three deaths; a length for each of 49 stays; all else one event a resource.
    assert report.events_read == 13 * 2 + 3 + 5571 + 49
    assert report.events_read == report.events_written + report.duplicates
    assert report.residents_new == 13
    assert set(report.remarks) == {Reason.UNKNOWN_CODE}
    assert {code.partition("//")[0] for code in report.counted(Reason.UNKNOWN_CODE)} == {"SNOMED", "RXNORM"}


def test_a_real_export_taken_twice_adds_nothing(tmp_path):
    for _ in range(2):
        report = ingest_fhir([real_records("fhir")], tmp_path / "store", today=TODAY)
    assert (report.events_written, report.residents_known) == (0, 13)
