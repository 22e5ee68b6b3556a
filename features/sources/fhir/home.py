"""Observations that were taken at home: which they are, and what their codes mean then."""

from features.sources.fhir.elements import Element, element, elements, text
from features.vocabulary import builtin

# The profile of self-measured blood pressure in HL7's CardX Hypertension Management, 1.0.0.
SELF_MEASURED = "http://hl7.org/fhir/uv/cardx-htn-mng/StructureDefinition/self-measured-bp"
# The extension of HL7's Vital Signs, 1.0.0, that says where a measurement was taken, and its code for a home.
SETTING = "http://hl7.org/fhir/us/vitals/StructureDefinition/MeasurementSettingExt"
HOME = "264362003"

AT_HOME = {"sbp": "home_sbp", "dbp": "home_dbp", "glucose": "home_glucose"}


def taken_at_home(observation: Element) -> bool:
    """Whether an Observation says, in one of the ways that HL7 has published, that it was taken at home."""
    profiles = element(observation, "meta").get("profile")
    if isinstance(profiles, list) and any(str(profile).partition("|")[0] == SELF_MEASURED for profile in profiles):
        return True
    settings = [it for it in elements(observation, "extension") if text(it, "url") == SETTING]
    return any(text(coding, "code") == HOME for setting in settings for coding in _codings(setting))


def at_home(code: str) -> str:
    """Return what a code means of a measurement at home: the concept for that, where there is one."""
    concepts = [meaning.concept for meaning in builtin().meanings(code)]
    return AT_HOME.get(concepts[0], code) if len(concepts) == 1 else code


def _codings(setting: Element) -> list[Element]:
    return [element(setting, "valueCoding"), *elements(element(setting, "valueCodeableConcept"), "coding")]
