"""FHIR Observations that were taken at home; docs/fhir.md has the plain case."""

import json
from datetime import date

import pytest

from features.sources.fhir import ingest_fhir
from features.sources.fhir.home import HOME, SELF_MEASURED, SETTING

PANEL, SBP, DBP, GLUCOSE, WEIGHT = "85354-9", "8480-6", "8462-4", "2345-7", "29463-7"
HOME_CODING = {"system": "http://snomed.info/sct", "code": HOME}
CLINIC_CODING = {"system": "http://snomed.info/sct", "code": "257585005"}


def coded(code: str) -> dict:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def observation(code: str, **more: object) -> dict:
    about = {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/7"}}
    return {**about, "effectiveDateTime": "2024-03-05", "code": coded(code), **more}


def value(number: float) -> dict:
    return {"valueQuantity": {"value": number}}


@pytest.fixture
def codes(county):
    """Take a resource in; return the codes of its events."""

    def codes(resource: dict) -> list[str]:
        file = county.file("observation.json", json.dumps(resource))
        ingest_fhir([file], county.store, today=date(2025, 1, 1))
        return [row[2] for row in county.drawn()[1:]]

    return codes


@pytest.mark.parametrize(
    "mark",
    [
        {"meta": {"profile": [SELF_MEASURED]}},
        {"meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/bp", f"{SELF_MEASURED}|1.0.0"]}},
        {"extension": [{"url": SETTING, "valueCodeableConcept": {"coding": [HOME_CODING]}}]},
        {"extension": [{"url": SETTING, "valueCoding": HOME_CODING}]},
    ],
    ids=["profile", "profile with a version", "setting", "setting as a coding"],
)
def test_a_pressure_that_says_it_was_taken_at_home_is_one_of_home(codes, mark):
    parts = [{"code": coded(SBP), **value(148)}, {"code": coded(DBP), **value(88)}]
    assert codes(observation(PANEL, component=parts, **mark)) == ["home_dbp", "home_sbp"]


@pytest.mark.parametrize(
    "mark",
    [
        {},
        {"meta": {"profile": "http://hl7.org/fhir/StructureDefinition/bp"}},
        {"meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/bp"]}},
        {"extension": [{"url": SETTING, "valueCodeableConcept": {"coding": [CLINIC_CODING]}}]},
        {"extension": [{"url": "http://example.org/setting", "valueCoding": HOME_CODING}]},
    ],
    ids=["nothing", "no list", "another profile", "clinic", "another extension"],
)
def test_a_pressure_that_does_not_is_a_clinic_s(codes, mark):
    assert codes(observation(SBP, **value(148), **mark)) == ["LOINC//8480-6"]


def test_glucose_at_home_is_told_apart_and_what_has_no_concept_of_home_stays_what_it_is(codes):
    mark = {"extension": [{"url": SETTING, "valueCoding": HOME_CODING}]}
    assert codes(observation(GLUCOSE, **value(6.1), **mark)) == ["home_glucose"]
    assert codes(observation(WEIGHT, **value(61), **mark)) == ["LOINC//29463-7", "home_glucose"]
