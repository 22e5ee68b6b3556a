"""Corrected records of every kind of source: what they told before goes, and they may be taken in time and again."""

import json
from datetime import date
from pathlib import Path

import pytest

from features.errors import WeibingError
from features.events import EventStore
from features.sources.fhir import ingest_fhir
from features.sources.meds import ingest_meds
from features.sources.omop import ingest_omop
from features.sources.report import Reason
from features.sources.table import ingest_tables
from features.sources.table.identities import Who

TODAY = date(2025, 1, 1)
FORM = """
    [[table]]
    file = "form*.csv"
    resident = "id"
    record = ["form"]
    time = { column = "day" }
    where = [{ column = "status", is = "done" }]
    birth = { column = "born" }
    value = [{ column = "sbp", code = "sbp" }, { column = "dbp", code = "dbp" }]
"""


@pytest.fixture
def form(county):
    """Take in rows of a form with a number."""

    def form(*rows: str, mapping: str = FORM):
        county.file("form.csv", "form,id,day,status,born,sbp,dbp\n" + "".join(f"{row}\n" for row in rows))
        return county.ingest(mapping)

    return form


def test_a_corrected_form_replaces_the_earlier_one(county, form):
    form("1,7,2024-03-05,done,,512,91", "2,7,2024-04-05,done,,140,90")
    report = form("1,7,2024-03-06,done,,152,")
    county.is_drawn("""
        resident | time       | code | value
        7        | 2024-03-06 | sbp  | 152
        7        | 2024-04-05 | dbp  | 90
        7        | 2024-04-05 | sbp  | 140
    """)
    assert (report.records_replaced, report.events_removed, report.events_written) == (1, 2, 1)
    assert report.as_dict()["records"] == {"replaced": 1}
    lines = [line.split() for line in report.text().splitlines()]
    assert ["replaced", "by", "what", "they", "tell", "now", "1"] in lines


def test_a_form_that_was_given_to_the_wrong_resident_is_moved(county, form):
    form("1,7,2024-03-05,done,,152,91")
    form("1,8,2024-03-05,done,,152,91")
    assert {row[0] for row in county.drawn()[1:]} == {"8"}


def test_a_form_that_no_longer_passes_the_filter_is_taken_back(county, form):
    form("1,7,2024-03-05,done,,152,91", "2,7,2024-04-05,done,,140,")
    assert form("1,7,2024-03-05,cancelled,,152,91").events_removed == 2
    assert [row[1] for row in county.drawn()[1:]] == ["2024-04-05"]


def test_of_two_rows_with_the_same_number_the_last_counts(county, form):
    report = form("1,7,2024-03-05,done,,512,91", "2,7,2024-04-05,done,,140,", "1,7,2024-03-05,done,,152,")
    assert [row[3] for row in county.drawn("resident", "time", "code", "value")[1:]] == ["152", "140"]
    assert (report.events_read, report.outdated) == (4, 2)


def test_a_birth_that_one_form_told_is_corrected_by_that_form(county, form):
    form("1,7,2024-03-05,done,1950-06-01,152,91")
    report = form("1,7,2024-03-05,done,1951-06-01,152,91")
    assert [row[1] for row in county.drawn()[1:] if row[2] == "MEDS_BIRTH"] == ["1951-06-01"]
    assert report.counted(Reason.ANOTHER_BIRTH) == {}


def test_a_birth_that_another_form_tells_otherwise_is_the_first_one_told(county, form):
    form("1,7,2024-03-05,done,1950-06-01,152,91", "2,7,2024-04-05,done,1950-06-01,152,91")
    assert form("3,7,2024-05-05,done,1951-06-01,152,91").counted(Reason.ANOTHER_BIRTH) == {"MEDS_BIRTH": 1}
    assert form("1,7,2024-03-05,done,1951-06-01,152,91").counted(Reason.ANOTHER_BIRTH) == {"MEDS_BIRTH": 1}
    assert [row[1] for row in county.drawn()[1:] if row[2] == "MEDS_BIRTH"] == ["1950-06-01"]


def test_the_resident_and_the_day_may_be_what_a_form_goes_by(county, form, monkeypatch):
    monkeypatch.setenv("WEIBING_RESIDENT_KEY", "a secret of some length")
    mapping = FORM.replace('record = ["form"]', 'record = ["id", "day"]').replace(
        'resident = "id"', 'resident = { column = "id", key = "WEIBING_RESIDENT_KEY" }'
    )
    form(",11010519491231002X,2024-03-05,done,,512,91", mapping=mapping)
    assert form(",11010519491231002x,2024-03-05,done,,152,91", mapping=mapping).records_replaced == 1


def test_identity_numbers_in_a_form_s_number_need_a_secret(form):
    mapping = FORM.replace('record = ["form"]', 'record = ["form"]\n    name = "visit"')
    with pytest.raises(WeibingError, match="identity numbers are part of the record"):
        form("11010519491231002X,7,2024-03-05,done,,512,91", mapping=mapping)


def test_two_tables_with_records_need_names(form):
    with pytest.raises(WeibingError, match=r'two tables have records and are called "form\*.csv". Give each a name'):
        form("1,7,2024-03-05,done,,512,91", mapping=FORM + FORM)


# FHIR


def observation(value, updated=None, status="final", **more):
    meta = {"meta": {"lastUpdated": updated}} if updated else {}
    return {
        "resourceType": "Observation", "id": "o1", "status": status, "subject": {"reference": "Patient/7"},
        "effectiveDateTime": "2024-03-05", "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
        "valueQuantity": {"value": value, "code": "mm[Hg]"}, **meta, **more,
    }  # fmt: skip


@pytest.fixture
def take(county):
    def take(*resources, **settings):
        file = county.file("export.ndjson", "".join(f"{json.dumps(it)}\n" for it in resources))
        return ingest_fhir([file], county.store, **{"today": TODAY} | settings)

    return take


def values(county):
    return [row[3] for row in county.drawn("resident", "time", "code", "value", "unit")[1:]]


FIRST, LATER = "2024-03-05T08:00:00Z", "2024-03-06T08:00:00+08:00"


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0, 1), (1, 0, 0)])
def test_of_two_versions_of_a_resource_the_one_updated_later_counts(county, take, order):
    versions = [observation(512, FIRST), observation(152, LATER)]
    for number in order:
        report = take(versions[number])
    assert values(county) == ["152"]
    assert report.outdated == (1 if order[-1] == 0 else 0)


def test_both_versions_may_come_in_one_export_in_any_order(county, take):
    report = take(observation(152, LATER), observation(512, FIRST))
    assert values(county) == ["152"]
    assert (report.events_read, report.events_written, report.outdated) == (2, 1, 1)


def test_without_a_time_of_update_what_is_taken_in_later_counts(county, take):
    take(observation(152))
    take(observation(512))
    assert values(county) == ["512"]


def test_a_resource_entered_in_error_takes_its_earlier_version_with_it_for_good(county, take):
    take(observation(512, FIRST))
    report = take(observation(512, LATER, status="entered-in-error"))
    assert (values(county), report.events_removed, report.records_replaced) == ([], 1, 1)
    assert take(observation(512, FIRST)).outdated == 1
    assert values(county) == []


def test_resources_of_two_servers_are_two_records(county, take):
    take(observation(152))
    take(observation(140), who=Who(source="the other hospital"))
    assert values(county) == ["140", "152"]


def test_a_patient_s_birth_is_corrected(county, take):
    take({"resourceType": "Patient", "id": "7", "birthDate": "1950-06-01"})
    take({"resourceType": "Patient", "id": "7", "birthDate": "1951-06-01"})
    assert [row[1] for row in county.drawn()[1:]] == ["1951-06-01"]


# OMOP and MEDS


def test_a_row_of_omop_is_replaced_by_its_number(county):
    cdm = county.folder / "cdm"
    cdm.mkdir()
    for value, day in ((512, "2024-03-05"), (152, "2024-03-06")):
        (cdm / "measurement.csv").write_text(
            "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number\n"
            f"1,7,3004249,{day},{value}\n2,7,3004249,2024-01-01,140\n"
        )
        report = ingest_omop(cdm, county.store, today=TODAY)
    assert (report.records_replaced, report.duplicates) == (1, 1)
    county.is_drawn("""
        resident | time             | code          | value
        7        | 2024-01-01       | OMOP//3004249 | 140
        7        | 2024-03-06       | OMOP//3004249 | 152
    """)


def test_a_copy_of_a_store_knows_its_records(county, form):
    form("1,7,2024-03-05,done,,512,91")
    store, copy = county.store, county.folder / "copy"
    ingest_meds(store, copy, today=TODAY)
    ingest_tables(
        [county.file("form.csv", "form,id,day,status,born,sbp,dbp\n1,7,2024-03-05,done,,152,91\n")],
        copy, county.mapping(FORM), today=TODAY,
    )  # fmt: skip
    opened = EventStore.open(Path(copy))
    assert opened.resident(7)["numeric_value"].to_list() == [91, 152]
