"""Scores as FHIR R4: see `docs/fhir_api.md`.

resources.py    a score as a RiskAssessment; outcomes.csv says what a target is called in code systems
outcomes.py     OperationOutcomes: failures as FHIR says them
search.py       what a search asks for, and the Bundle that answers it
capability.py   what the server can do
router.py       the routes
"""

from serving.api.fhir.router import Gone, Open, RiskBook, RiskPage, fhir_router
from serving.api.fhir.search import DateWindow, RiskQuery

__all__ = ["DateWindow", "Gone", "Open", "RiskBook", "RiskPage", "RiskQuery", "fhir_router"]
