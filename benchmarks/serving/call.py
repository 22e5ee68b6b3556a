"""The call that is measured: one resident with a hundred events of six years, three targets, five drivers each."""

import json
from datetime import date, timedelta

FIRST, INDEX_TIME = date(2019, 1, 8), "2025-01-01"
EVENTS, VISITS = 100, 24
# What is measured at every visit, and what at every second: code, value of the first visit, change a visit, unit.
QUARTERLY = (
    ("LOINC//8480-6", 124.0, 0.4, "mm[Hg]"),
    ("LOINC//2345-7", 7.1, 0.05, "mmol/L"),
)
HALF_YEARLY = (
    ("LOINC//4548-4", 6.6, 0.03, "%"),
    ("LOINC//39156-5", 25.2, 0.04, "kg/m2"),
)
OF_A_LIFE: tuple[dict[str, object], ...] = (
    {"time": None, "code": "female", "value": 1},
    {"time": "1952-05-20", "code": "MEDS_BIRTH"},
    {"time": "2016-03-11", "code": "ICD10//E11.9"},
    {"time": "2023-11-02", "code": "ICD10//W19"},
)
# Alternating, at every visit.
DISPENSED = ("ATC//A10BA02", "ATC//C10AA05")


def events() -> list[dict[str, object]]:
    """Return the events, in order of time."""
    told = list(OF_A_LIFE)
    for visit in range(VISITS):
        day = (FIRST + timedelta(days=91 * visit)).isoformat()
        measured = (*QUARTERLY, *(HALF_YEARLY if visit % 2 == 0 else ()))
        told += [
            {"time": day, "code": code, "value": round(first + change * visit, 1), "unit": unit}
            for code, first, change, unit in measured
        ]
        told.append({"time": day, "code": DISPENSED[visit % 2]})
    return told


def body() -> bytes:
    """Return the call as it is sent."""
    resident = {"id": "A-17", "index_time": INDEX_TIME, "events": events()}
    assert len(resident["events"]) == EVENTS
    return json.dumps({"residents": [resident], "drivers": 5}, ensure_ascii=False).encode()
