"""``POST /v1/observations``: FHIR Observations, taken once, scored and alerted at once. See `docs/observations.md`.

reading.py   what was sent, as records: read strictly, place by place
values.py    what is wrong with an Observation's values
router.py    the route: who may, what is kept, what is said
"""

from serving.api.observations.router import observations_router

__all__ = ["observations_router"]
