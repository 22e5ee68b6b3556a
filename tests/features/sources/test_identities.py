"""Several sources name the same resident differently: a crosswalk, or a secret, makes one of them, in every source."""

import json
from datetime import date

import polars as pl
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
CROSSWALK = """
    source,source_id,resident
    his,A-7,1
    fhir,7,1
    omop,70,1
    meds,700,1
    http://id.example,11010519491231002X,1
    his,A-8,2
"""
ID = "11010519491231002X"
ITS_HASH = 8369600801185972430
MAPPING = """
    source = "his"
    [[table]]
    file = "exams.csv"
    resident = "id"
    time = { column = "day" }
    value = [{ column = "sbp", code = "sbp" }]
"""


@pytest.fixture
def crosswalk(county):
    def crosswalk(text: str = CROSSWALK):
        county.folder.joinpath("ids").mkdir(exist_ok=True)
        return county.file("ids/crosswalk.csv", text)

    return crosswalk


@pytest.fixture(params=["table", "fhir", "omop", "meds"])
def of_source(request, county):
    """Take in one event of a person with an id of the source's own."""
    folder = county.folder / request.param
    folder.mkdir()

    def table(person, who):
        file = county.file("exams.csv", f"id,day,sbp\n{person},2024-03-05,152\n")
        return ingest_tables([file], county.store, county.mapping(MAPPING), who=who, today=TODAY)

    def fhir(person, who):
        subject = {"reference": f"Patient/{person}"}
        code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I10"}]}
        condition = {"resourceType": "Condition", "recordedDate": "2024-03-05", "subject": subject, "code": code}
        (folder / "a.ndjson").write_text(json.dumps(condition))
        return ingest_fhir([folder], county.store, who=who, today=TODAY)

    def omop(person, who):
        (folder / "death.csv").write_text(f"person_id,death_date\n{person},2024-03-05\n")
        return ingest_omop(folder, county.store, timezone="Asia/Shanghai", who=who, today=TODAY)

    def meds(person, who):
        (folder / "data").mkdir(exist_ok=True)
        rows = pl.DataFrame({"subject_id": [int(person)], "time": [date(2024, 3, 5)], "code": ["fall"]})
        rows.write_parquet(folder / "data" / "0.parquet")
        return ingest_meds(folder, county.store, timezone="Asia/Shanghai", who=who, today=TODAY)

    return request.param, {"table": table, "fhir": fhir, "omop": omop, "meds": meds}[request.param]


OWN_ID = {"table": "A-7", "fhir": "7", "omop": "70", "meds": "700"}


def test_an_id_is_whom_the_crosswalk_lists(county, crosswalk, of_source):
    kind, ingest = of_source
    ingest(OWN_ID[kind], Who(crosswalk=crosswalk()))
    assert EventStore.open(county.store).residents().tolist() == [1]


def test_an_id_that_is_not_listed_is_counted_and_left_out(county, crosswalk, of_source):
    _, ingest = of_source
    report = ingest("99", Who(crosswalk=crosswalk()))
    assert sum(report.counted(Reason.NOT_LISTED).values()) == 1
    assert EventStore.open(county.store).residents().tolist() == []


def test_with_a_secret_an_id_that_is_not_listed_is_hashed(county, crosswalk, of_source, monkeypatch):
    monkeypatch.setenv("WEIBING_RESIDENT_KEY", "a-long-secret-that-stays-here")
    kind, ingest = of_source
    ingest(OWN_ID[kind], Who(crosswalk=crosswalk(), key="WEIBING_RESIDENT_KEY"))
    report = ingest("99", Who(crosswalk=crosswalk(), key="WEIBING_RESIDENT_KEY"))
    assert report.counted(Reason.NOT_LISTED) == {}
    residents = EventStore.open(county.store).residents().tolist()
    assert len(residents) == 2
    assert residents[0] == 1


def test_a_secret_makes_the_same_resident_of_an_id_in_every_source(county, of_source):
    key = county.folder / "key"
    key.write_text("a-long-secret-that-stays-here\n")
    kind, ingest = of_source
    ingest(ID if kind != "meds" else "110105194912310046", Who(key=f"@{key}"))
    (resident,) = EventStore.open(county.store).residents()
    assert resident == ITS_HASH or kind == "meds"
    everything = b"".join(path.read_bytes() for path in county.store.rglob("*") if path.is_file())
    assert b"1101051949" not in everything
    assert resident != 110105194912310046


def test_an_identifier_of_a_patient_may_be_who_it_is(county, crosswalk):
    system = "http://id.example"
    condition = {
        "resourceType": "Condition", "recordedDate": "2024-03-05", "subject": {"reference": "Patient/server-7"},
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I10"}]},
    }  # fmt: skip
    logical = condition | {"subject": {"identifier": {"system": system, "value": ID}}, "recordedDate": "2024-03-06"}
    unknown = condition | {"subject": {"reference": "Patient/server-8"}}
    identifiers = [{"system": "http://other.example", "value": "X"}, {"system": system, "value": ID}]
    patient = {"resourceType": "Patient", "id": "server-7", "gender": "female", "identifier": identifiers}
    file = county.file("a.ndjson", "\n".join(map(json.dumps, (condition, logical, unknown, patient))))
    who = Who(source=system, crosswalk=crosswalk(), identifier=system)
    report = ingest_fhir([file], county.store, who=who, today=TODAY)
    assert EventStore.open(county.store).residents().tolist() == [1]
    assert (report.events_written, report.counted(Reason.NO_SUBJECT)) == (
        3,
        {f"Condition, no identifier of {system}": 1},
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "source,id,resident\nhis,A-7,1\n",
            'crosswalk.csv: there is no column "source_id". The columns are: source, id',
        ),
        (
            "source,source_id,resident\nhsi,A-7,1\n",
            'lists nobody of the source "his". Its sources are: hsi. Did you mean',
        ),
        ("source,source_id,resident\nhis,A-7,1\nhis,a-7,2\n", "crosswalk.csv, line 3: this id of his is listed before"),
        ("source,source_id,resident\nhis,,1\n", "crosswalk.csv, line 2: an empty cell"),
        (f"source,source_id,resident\nhis,A-7,{ID}\n", "the residents are identity numbers, or no integers. Hash them"),
        ("source,source_id,resident\nhis,A-7,1,9\n", "cannot be read as a CSV in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_crosswalk_is_said(county, crosswalk, text, sentence):
    county.file("exams.csv", "id,day,sbp\nA-7,2024-03-05,152\n")
    with pytest.raises(WeibingError) as error:
        ingest_tables(county.files(), county.store, county.mapping(MAPPING), who=Who(crosswalk=crosswalk(text)))
    assert sentence in str(error.value)
    assert ID not in str(error.value)
    assert not county.store.exists()


def test_a_crosswalk_may_lead_to_identity_numbers_which_are_hashed(county, crosswalk, monkeypatch):
    monkeypatch.setenv("WEIBING_RESIDENT_KEY", "a-long-secret-that-stays-here")
    county.file("exams.csv", "id,day,sbp\nA-7,2024-03-05,152\n")
    who = Who(crosswalk=crosswalk(f"source,source_id,resident\nhis,A-7,{ID}\n"), key="WEIBING_RESIDENT_KEY")
    ingest_tables(county.files(), county.store, county.mapping(MAPPING), who=who)
    assert EventStore.open(county.store).residents().tolist() == [ITS_HASH]


def test_a_mapping_says_of_which_source_its_tables_are(county, crosswalk):
    county.file("exams.csv", "id,day,sbp\nA-7,2024-03-05,152\n")
    mapping = county.mapping(MAPPING.replace('source = "his"', ""))
    with pytest.raises(WeibingError, match=r'mapping.toml: say which source of the crosswalk .* source = "his"'):
        ingest_tables(county.files(), county.store, mapping, who=Who(crosswalk=crosswalk()))


@pytest.mark.parametrize(
    ("secret", "sentence"), [(None, "cannot be read"), ("short", "is too short"), ("", "is empty")]
)
def test_a_file_without_a_secret_is_refused(county, secret, sentence):
    file = county.folder / "key"
    if secret is not None:
        file.write_text(secret)
    with pytest.raises(WeibingError, match=sentence):
        Who(key=f"@{file}").identities("his")
