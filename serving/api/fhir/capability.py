"""What the FHIR server can do, as it says itself."""

from datetime import UTC, datetime
from importlib.metadata import version

from serving.api.fhir.outcomes import JSON
from serving.api.fhir.resources import KIND, Json, moment

FHIR_VERSION = "4.0.1"
PARAMETERS = (
    ("subject", "reference", "The resident, as Patient/ and an id. Several with commas between."),
    ("patient", "reference", "As subject."),
    ("date", "date", "The index time. Prefixes eq, ge, gt, le and lt."),
    ("method", "token", "A model, as urn:weibing:model|target@version, or a target for every version."),
)
ABOUT = (
    "Absolute risks, with reasons and with what is due. prediction.probabilityDecimal is a probability from 0 to 1, not"
    " a percentage. Not a medical device."
)


def capability_statement(address: str, begun: datetime) -> Json:
    """Return the CapabilityStatement of the server at an address that began to serve at a UTC time."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": moment(begun.astimezone(UTC).replace(tzinfo=None) if begun.tzinfo else begun),
        "kind": "instance",
        "software": {"name": "Weibing", "version": version("weibing")},
        "implementation": {"description": ABOUT, "url": address},
        "fhirVersion": FHIR_VERSION,
        "format": [JSON, "json"],
        "rest": [{"mode": "server", "documentation": ABOUT, "resource": [_risk_assessment()]}],
    }


def _risk_assessment() -> Json:
    return {
        "type": KIND,
        "documentation": "One resource a score. A score that another has taken the place of is gone (410).",
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [{"name": name, "type": kind, "documentation": about} for name, kind, about in PARAMETERS],
        "operation": [
            {
                "name": "export",
                "definition": "urn:weibing:operation:risk-assessment-export",
                "documentation": "GET RiskAssessment/$export?run=N: all scores of a run as NDJSON, at once and not in"
                " the background as Bulk Data would have it. Without run, of the last one.",
            }
        ],
    }
