"""Files as resources: which are read, how a Bundle is taken apart, and what is said of a file that cannot be read."""

import gzip
import json
from datetime import date

import pytest

from features.errors import WeibingError
from features.sources.fhir import ingest_fhir
from features.sources.fhir.reading import files, resources_in

PATIENT = {"resourceType": "Patient", "id": "7", "birthDate": "1950-06-01"}
CONDITION = {
    "resourceType": "Condition",
    "subject": {"reference": "Patient/7"},
    "recordedDate": "2024-03-05",
    "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I10"}]},
}
LINE = json.dumps(CONDITION)


@pytest.fixture
def ingest(county):
    def ingest(*paths):
        return ingest_fhir(paths or [county.folder], county.store, today=date(2025, 1, 1))

    return ingest


def bundle(*entries):
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": list(entries)}, indent=1)


# Which files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ndjson", LINE),
        ("a.ndjson", f"\ufeff{LINE}\n\n{LINE}\r\n  \n"),
        ("a.ndjson.gz", f"{LINE}\n"),
        ("A.NDJSON", f"{LINE}\n"),
        ("a.json", json.dumps(CONDITION, indent=2)),
        ("a.json.gz", bundle({"resource": CONDITION})),
        ("a.ndjson", json.dumps(json.loads(bundle({"resource": CONDITION}, {"resource": CONDITION})))),
    ],
)
def test_a_file_is_read_by_its_name(county, ingest, name, text):
    county.file(name, text)
    assert ingest().events_written == 1


def test_a_folder_is_read_with_those_in_it(county, ingest):
    (county.folder / "2024").mkdir()
    county.file("2024/Condition.000.ndjson", LINE)
    county.file("Patient.000.ndjson", json.dumps(PATIENT))
    county.file("readme.txt", "nothing of ours")
    assert ingest().rows == {"Patient": 1, "Condition": 1}


def test_a_file_that_is_named_twice_is_read_once(county):
    file = county.file("a.ndjson", LINE)
    another_way = county.folder / ".." / county.folder.name / file.name
    assert files([file, county.folder, another_way]) == [file.resolve()]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none.ndjson", "There is no file .*none.ndjson"),
        ("a.txt", r"a.txt is not called like .* \.ndjson or \.ndjson\.gz; a Bundle \.json or \.json\.gz\."),
        ("empty", r"There are no files \.ndjson, \.ndjson\.gz, \.json, \.json\.gz in .*empty"),
    ],
)
def test_a_path_of_another_kind_is_refused(county, ingest, name, sentence):
    county.file("a.txt", LINE)
    (county.folder / "empty").mkdir()
    with pytest.raises(WeibingError, match=sentence):
        ingest(county.folder / name)
    assert not county.store.exists()


def test_no_paths_are_refused(county):
    with pytest.raises(WeibingError, match="There are no files to read"):
        ingest_fhir([], county.store)


def test_some_kinds_alone_can_be_read(county):
    file = county.file("a.json", bundle({"resource": PATIENT}, {"resource": CONDITION}))
    assert [resource.kind for resource in resources_in(file, ("Patient",))] == ["Patient"]
    assert list(resources_in(county.file("b.ndjson", LINE), ("Patient",))) == []


# Bundles


@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("urn:uuid:7b9d6c1e-6a1b-4a34-8f0e-2f1d2b6ad002", "urn:uuid:7b9d6c1e-6a1b-4a34-8f0e-2f1d2b6ad002"),
        ("http://a.example/fhir/Patient/7", "http://a.example/fhir/Patient/7"),
        ("http://a.example/fhir/Patient/7", "Patient/7"),
        ("urn:uuid:7b9d6c1e-6a1b-4a34-8f0e-2f1d2b6ad002", "Patient/7"),
    ],
)
def test_a_reference_is_followed_within_the_bundle(county, ingest, url, reference):
    condition = CONDITION | {"subject": {"reference": reference}}
    county.file("a.json", bundle({"resource": condition}, {"fullUrl": url, "resource": PATIENT}))
    ingest()
    county.is_drawn("""
        resident | time       | code
        7        | 1950-06-01 | MEDS_BIRTH
        7        | 2024-03-05 | ICD10//I10
    """)


def test_a_patient_without_an_id_goes_by_the_address(county, ingest):
    url = "urn:uuid:7b9d6c1e-6a1b-4a34-8f0e-2f1d2b6ad002"
    condition = CONDITION | {"subject": {"reference": url}}
    patient = {"resourceType": "Patient", "birthDate": "1950-06-01"}
    county.file("a.json", bundle({"fullUrl": url, "resource": patient}, {"resource": condition}))
    county.file("b.ndjson", json.dumps(patient | {"id": url.rpartition(":")[2]}))
    report = ingest()
    assert (report.residents_new, report.events_written, report.outdated) == (1, 2, 1)


def test_addresses_mean_nothing_beyond_their_bundle(county, ingest):
    url = "urn:uuid:7b9d6c1e-6a1b-4a34-8f0e-2f1d2b6ad002"
    county.file("a.json", bundle({"fullUrl": url, "resource": PATIENT}))
    county.file("b.json", bundle({"resource": CONDITION | {"subject": {"reference": url}}}))
    report = ingest()
    assert (report.rows_taken, sum(report.rows.values())) == (1, 2)


def test_an_entry_without_a_resource_is_counted(county, ingest):
    county.file("a.json", bundle({"request": {"method": "DELETE", "url": "Patient/7"}}, {"resource": PATIENT}))
    assert ingest().rows == {"Patient": 1, "without a resourceType": 1}


# What is wrong with a file


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.ndjson", f'{LINE}\n{{"a": ', "a.ndjson, line 2: this is not JSON: Expecting value"),
        ("a.ndjson", f"{LINE}\n{LINE}{LINE}", r"a.ndjson, line 2: something follows the resource"),
        ("a.json", f"{LINE}\n{LINE}", r"a.json, line 2: something follows .* is called \.ndjson or \.ndjson\.gz"),
        ("a.json", '{\n"resourceType":\n"Patient"\n,,}', "a.json, line 4: this is not JSON"),
        ("a.ndjson", f"{LINE}\n[1]", "a.ndjson, line 2: this is no FHIR resource"),
        ("a.ndjson", f"{LINE}\n{'[' * 100_000}", "a.ndjson, line 2: this cannot be read as JSON"),
        ("a.ndjson", f'{LINE}\n{{"a": {"1" * 5000}}}', "a.ndjson, line 2: this cannot be read as JSON"),
        ("a.json", "", "a.json, line 1: this is not JSON"),
    ],
)
def test_a_file_that_is_not_json_is_refused_with_the_line(county, ingest, name, text, sentence):
    county.file("Patient.ndjson", json.dumps(PATIENT))
    county.file(name, text)
    with pytest.raises(WeibingError, match=sentence):
        ingest()
    assert not county.store.exists()


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(county, ingest):
    file = county.file("a.json", bundle({"resource": CONDITION}))
    text = json.dumps(CONDITION | {"note": "高血压"}, indent=1, ensure_ascii=False)
    file.write_bytes(text.encode("gb18030"))
    line = text.split("高")[0].count("\n") + 1
    with pytest.raises(WeibingError, match=f"a.json, line {line}: this is not UTF-8"):
        ingest()


def test_a_file_that_breaks_off_is_refused(county, ingest):
    file = county.folder / "a.ndjson.gz"
    file.write_bytes(gzip.compress(f"{LINE}\n".encode() * 1000)[:-20])
    with pytest.raises(WeibingError, match=r"a\.ndjson\.gz cannot be read to its end"):
        ingest()


def test_a_failure_leaves_the_store_as_it_was(county, ingest):
    file = county.file("a.ndjson", LINE)
    ingest(file)
    drawn = county.drawn()
    county.file("a.ndjson", f"{LINE.replace('2024', '2023')}\nnothing")
    with pytest.raises(WeibingError):
        ingest(file)
    assert county.drawn() == drawn
