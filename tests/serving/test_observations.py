"""Observations that other systems send: taken once, scored and alerted at once, refused where they cannot be."""

import json
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest
import sqlalchemy as sql
from hypothesis import given
from hypothesis import strategies as st

from features.events import EventStore
from serving.api.observations import observations_router
from serving.api.observations.reading import Reader
from serving.api.problems import Fault, ProblemError
from serving.security.caller import Caller
from serving.settings import Settings
from serving.store.accounts import audit as audit_table
from serving.store.alerts import Alerts
from serving.store.database import Database
from serving.store.duties import Duties
from serving.store.observations import Observations
from serving.store.panels import Panels
from serving.store.people import People
from serving.store.tables import alerts, events, records
from serving.store.telling import came_since
from tests.serving.clinics import RECORDS, SYSTEM, Line, Models, clinic_of, county, doctor_of
from tests.serving.furnished import KEY, NUMBER, person

Json = dict[str, object]

SYSTEM_OF_IDS = "https://clinic.example.cn/observations"
LOINC = "http://loinc.org"
NOW = datetime(2026, 3, 1)


def quantity(value: object, unit: str = "mm[Hg]") -> Json:
    return {"value": value, "system": "http://unitsofmeasure.org", "code": unit}


def observation(
    name: str = "o1", code: str = "8480-6", value: object = 131, subject: object = 1, **other: object
) -> Json:
    told = {
        "resourceType": "Observation",
        "identifier": [{"system": SYSTEM_OF_IDS, "value": name}],
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{subject}"},
        "effectiveDateTime": "2025-01-31T08:00:00+08:00",
        "valueQuantity": quantity(value),
    }
    return {name: part for name, part in {**told, **other}.items() if part is not None}


def emergency(name: str = "o1", subject: int = 1, sbp: int = 186, **other: object) -> Json:
    """Draw a blood pressure at which one refers at once."""
    parts = [("8480-6", sbp), ("8462-4", 112)]
    components = [
        {"code": {"coding": [{"system": LOINC, "code": of}]}, "valueQuantity": quantity(it)} for of, it in parts
    ]
    return observation(name, "85354-9", subject=subject, component=components, valueQuantity=None, **other)


def bundle(*entries: Json, kind: str = "transaction") -> Json:
    each = [{"resource": it, "request": {"method": "POST", "url": "Observation"}} for it in entries]
    return {"resourceType": "Bundle", "type": kind, "entry": each}


@pytest.fixture
def store(tmp_path) -> EventStore:
    return county(tmp_path / "store")


@pytest.fixture
def here(tmp_path, store: EventStore, models: Models) -> Line:
    """A line on which a system tells, to a clinic on SQLite."""
    return line(Database.open(str(tmp_path / "clinic.db")), store, models)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Line:
    """The same, for all that leaves nothing behind."""
    folder = tmp_path_factory.mktemp("refusing")
    return line(Database.open(str(folder / "clinic.db")), county(folder / "store"), models)


def line(database: Database, store: EventStore | None, models: Models, caller: Caller = SYSTEM) -> Line:
    clinic = clinic_of(database, store, models)
    return Line(clinic, caller, (observations_router(clinic),), {"content-type": "application/fhir+json"})


def tell(here: Line, said: object) -> httpx.Response:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return here.ask("/v1/observations", "POST", content=body)


def taken(answer: httpx.Response) -> Json:
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(here: Line, table: sql.Table) -> int:
    with here.clinic.database.reading() as connection:
        return connection.execute(sql.select(sql.func.count()).select_from(table)).scalar_one()


def test_an_observation_is_kept_scored_and_alerted_in_one_go(here: Line) -> None:
    tell(here, observation("warm"))
    begun = time.perf_counter()
    said = taken(tell(here, emergency()))
    assert time.perf_counter() - begun < 1
    (resident,) = said["residents"]
    assert (said["taken"], said["known"], resident["id"]) == (1, 0, 1)
    (alert,) = resident["alerts"]
    assert (alert["kind"], alert["rule"]) == ("referral", "pressure_emergency")
    assert alert["reason_en"] == "systolic pressure 186, diastolic pressure 112 on 2025-01-31: treat and refer at once"
    assert resident["duties"][0]["urgent"]
    assert [each["target"] for each in resident["scores"] + resident["not_at_risk"]] == ["hypertension"]
    assert [each.reason_en for each in Alerts(here.clinic.database).of(1)] == [alert["reason_en"]]
    assert Duties(here.clinic.database).of(1)[0].kind == "referral"
    assert Observations(here.clinic.database).waiting() == 3


def test_the_new_value_is_in_the_score(here: Line) -> None:
    days = {"2025-01-30T08:00:00Z": 121, "2025-01-31T08:00:00Z": 139}
    answers = [taken(tell(here, observation(day, value=sbp, effectiveDateTime=day))) for day, sbp in days.items()]
    before, after = (said["residents"][0]["scores"][0] for said in answers)
    assert after["probability"] > before["probability"]
    assert next(it["value"] for it in after["drivers"] if it["concept"] == "sbp") == 139


def test_the_same_observation_counts_once_also_after_the_night(here: Line, store: EventStore) -> None:
    assert taken(tell(here, emergency()))["taken"] == 1
    reordered = emergency()
    reordered["component"] = reordered["component"][::-1]
    again = taken(tell(here, reordered | {"meta": {"lastUpdated": "2025-02-01T00:00:00Z"}}))
    assert (again["taken"], again["known"], len(again["residents"][0]["alerts"])) == (0, 1, 1)
    Observations(here.clinic.database).compact(store, NOW)
    after = taken(tell(here, emergency()))
    assert (after["taken"], after["known"], len(after["residents"][0]["alerts"])) == (0, 1, 1)
    pressures = here.clinic.live.history(1).filter(code="LOINC//8480-6")
    assert pressures["numeric_value"].to_list() == [186]


def test_many_who_tell_the_same_at_once_tell_it_once(database: Database, store: EventStore, models: Models) -> None:
    here, said = line(database, store, models), []

    def send(number: int) -> None:
        entries = [observation("same", value=131), observation(f"own{number}", value=120 + number, subject=2)]
        said.append(taken(tell(here, bundle(*entries[:: 1 if number % 2 else -1]))))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(each["taken"] for each in said) == 1 + 6
    assert sum(each["known"] for each in said) == 5
    assert rows(here, records) == rows(here, events) == 1 + 6


def test_readings_told_at_once_by_several_are_judged_together(
    database: Database, store: EventStore, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    # High on three days within a year: a referral for suspected hypertension, whoever is last.
    here, days = line(database, store, models), ("2026-01-05", "2026-01-12", "2026-01-19")

    def slowly(*asked: object) -> pl.DataFrame:
        found = came_since(*asked)
        time.sleep(0.3)
        return found

    monkeypatch.setattr("serving.live.came_since", slowly)

    def send(day: str) -> None:
        taken(tell(here, observation(day, value=152, effectiveDateTime=f"{day}T09:00:00+08:00")))

    threads = [threading.Thread(target=send, args=(day,)) for day in days]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert "suspected_referral" in {duty.rule for duty in Duties(database).of(1)}


def test_the_same_identifier_with_other_content_is_refused(here: Line) -> None:
    taken(tell(here, observation()))
    answer = tell(here, bundle(observation("new"), observation(value=191)))
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "#/entry/1/resource/identifier"
    assert tell(here, observation(subject=2)).status_code == 409
    assert rows(here, records) == 1


def test_of_a_transaction_all_is_taken_or_nothing(here: Line) -> None:
    good = [observation(f"o{number}") for number in range(3)]
    answer = tell(here, bundle(*good, observation("bad", value="high")))
    assert answer.status_code == 422
    assert [it["pointer"] for it in answer.json()["errors"]] == ["#/entry/3/resource/valueQuantity"]
    assert rows(here, records) == 0


def test_of_a_batch_what_can_be_is_taken_and_the_rest_said(here: Line) -> None:
    said = taken(tell(here, bundle(observation("a", value="high"), observation("b"), observation("c", subject=99),
                                   kind="batch")))  # fmt: skip
    assert said["taken"] == 1
    assert [it["pointer"] for it in said["refused"]] == [
        "#/entry/0/resource/valueQuantity", "#/entry/2/resource/subject/reference",
    ]  # fmt: skip
    assert tell(here, bundle(observation("d", status=None), kind="batch")).status_code == 422


def test_an_entry_that_is_there_twice_counts_once(here: Line) -> None:
    said = taken(tell(here, bundle(observation(), observation())))
    assert (said["taken"], said["known"], rows(here, events)) == (1, 1, 1)
    answer = tell(here, bundle(observation("x"), observation("x", value=140)))
    assert answer.json()["errors"][0]["pointer"] == "#/entry/1/resource/identifier"


def test_without_an_identifier_the_id_counts_as_the_callers(here: Line) -> None:
    nameless = observation(identifier=None, id="17")
    assert taken(tell(here, nameless))["taken"] == 1
    assert taken(tell(here, nameless))["known"] == 1
    answer = tell(here, observation(identifier=None))
    assert answer.json()["errors"][0]["pointer"] == "#/identifier"


TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"effectiveDateTime": "9999-12-31T00:00:00Z"}, "#/effectiveDateTime"),
        ({"effectiveDateTime": TOMORROW}, "#/effectiveDateTime"),
        ({"effectiveDateTime": "1950-01-01"}, "#/effectiveDateTime"),
        ({"effectiveDateTime": "yesterday"}, "#/effectiveDateTime"),
        ({"effectiveDateTime": None}, "#/effectiveDateTime"),
        ({"effectiveDateTime": None, "effectivePeriod": {"end": TOMORROW}}, "#/effectivePeriod/end"),
        ({"subject": {"reference": "https://other.example/fhir/Patient/1"}}, "#/subject/reference"),
        ({"subject": {"reference": "Patient/0001"}}, "#/subject/reference"),
        ({"subject": {"reference": "Patient/99"}}, "#/subject/reference"),
        ({"subject": {"identifier": {"system": "urn:other", "value": "1"}}}, "#/subject"),
        ({"subject": None}, "#/subject"),
        ({"status": "entered-in-error"}, "#/status"),
        ({"status": "cancelled"}, "#/status"),
        ({"code": None}, "#/code"),
        ({"valueQuantity": 131}, "#/valueQuantity"),
        ({"valueQuantity": {"unit": "mm[Hg]"}}, "#/valueQuantity"),
        ({"valueQuantity": quantity(True)}, "#/valueQuantity"),
        ({"valueQuantity": quantity(10**60)}, "#/valueQuantity"),
        ({"valueString": "131"}, "#/valueString"),
        ({"valueQuantity": None, "valueSampledData": {}}, "#/valueSampledData"),
        ({"valueQuantity": None, "component": [{"code": {}, "valueInteger": 1.5}]}, "#/component/0/valueInteger"),
        ({"identifier": [{"system": "s", "value": "x" * 501}]}, "#/identifier"),
        ({"resourceType": "Patient"}, "#/resourceType"),
        ({"note": [{"text": "a\0b"}]}, "#/note/0/text"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(wrong: Json, pointer: str, refusing: Line) -> None:
    answer = tell(refusing, {name: part for name, part in (observation() | wrong).items() if part is not None})
    assert answer.status_code == 422, answer.text
    assert [it["pointer"] for it in answer.json()["errors"]] == [pointer]
    assert rows(refusing, records) == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"resourceType": "Observation", "status": "final", "status": "amended"}', "#/status"),
        (b'{"resourceType": "Observation", "valueQuantity": {"value": NaN}}', "#/valueQuantity/value"),
        (b'{"resourceType": "Observation", "valueQuantity": {"value": 1e999}}', "#/valueQuantity/value"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "#"),
        ('{"resourceType": "Observation", "note": "头晕"}'.encode("gb18030"), "#"),
        (b'{"resourceType": "Bundle", "type": "history", "entry": []}', "#/type"),
        (b'{"resourceType": "Bundle", "type": "batch", "entry": []}', "#/entry"),
        (b'{"resourceType": "Bundle", "type": "transaction", "entry": [7]}', "#/entry/0/resource/resourceType"),
        (b"[]", "#/resourceType"),
    ],
)
def test_what_no_program_reads_alike_is_refused(body: bytes, pointer: str, refusing: Line) -> None:
    answer = tell(refusing, body)
    assert answer.status_code == 422, answer.text
    assert [it["pointer"] for it in answer.json()["errors"]] == [pointer]


def test_too_much_at_once_is_refused(here: Line) -> None:
    few = clinic_of(here.clinic.database, None, here.clinic.champions, most_events=2, most_residents=1)
    small = Line(few, SYSTEM, (observations_router(few),), here.headers)
    assert tell(small, bundle(*(observation(f"o{number}") for number in range(3)))).status_code == 413
    assert tell(small, bundle(observation("a"), observation("b", subject=2))).status_code == 413


def test_what_is_not_understood_is_kept_and_said(here: Line) -> None:
    strange = observation("a", code="99999-9")
    far = observation("b", value=900)
    said = taken(tell(here, bundle(strange, far)))
    assert said["taken"] == 2
    assert said["unknown_codes"] == {"LOINC//99999-9": 1}
    assert [it["pointer"] for it in said["unused_values"]] == ["#/entry/1/resource"]
    assert not any(duty["urgent"] for duty in said["residents"][0]["duties"])


def test_without_a_model_it_is_kept_and_alerted_and_the_answer_says_so(here: Line) -> None:
    here.clinic.live.champions = Models(here.clinic.champions.engine, None, ("No model of fall is loaded.",))
    (resident,) = taken(tell(here, emergency()))["residents"]
    assert (resident["scores"], resident["no_scores"]) == (None, "No model of fall is loaded.")
    assert len(resident["alerts"]) == 1
    assert rows(here, alerts) == 1


def test_who_has_opted_out_is_alerted_but_not_scored(here: Line) -> None:
    tell(here, observation("first"))
    People(here.clinic.database, KEY).opt_out(1, NOW)
    (resident,) = taken(tell(here, emergency()))["residents"]
    assert resident["scores"] == []
    assert resident["not_at_risk"] == [{"target": "hypertension", "reason": "opted out of automated scoring"}]
    assert len(resident["alerts"]) == 1


def test_a_resident_may_be_named_by_the_identity_number_or_ours(here: Line) -> None:
    People(here.clinic.database, KEY).register([person(2)], NOW)
    number = f"{NUMBER[:-3]}002"
    system = "urn:oid:2.16.156.10011.1.3"
    for name, subject in (
        ("a", {"identifier": {"system": system, "value": number}}),
        ("b", {"identifier": {"system": "urn:weibing:resident", "value": "2"}}),
        ("c", {"reference": "https://weibing.example.cn/fhir/R4/Patient/2"}),
    ):
        assert taken(tell(here, observation(name) | {"subject": subject}))["residents"][0]["id"] == 2
    nobody = {"identifier": {"system": system, "value": "110101195001010000"}}
    assert tell(here, observation("d") | {"subject": nobody}).status_code == 422


def test_a_doctor_tells_of_the_own_panel_alone_and_cannot_tell_who_there_is(here: Line) -> None:
    panels = Panels(here.clinic.database)
    panel = panels.make("第一组", doctor_id=7)
    panels.sign(panel.id, [1], NOW - timedelta(days=400))
    doctor = Line(here.clinic, doctor_of([panel.id]), here.routers, here.headers)
    assert taken(tell(doctor, observation("a")))["taken"] == 1
    others = [tell(doctor, said) for said in (observation("b", subject=2), observation("c", subject=99),
              bundle(observation("d"), observation("e", subject=2), kind="batch"))]  # fmt: skip
    assert {(each.status_code, each.json()["detail"]) for each in others} == {
        (403, "You may not do this: record observation.")
    }
    assert rows(here, records) == 1
    with here.clinic.database.reading() as connection:
        noted = connection.execute(sql.select(audit_table.c.whose, audit_table.c.allowed).order_by(audit_table.c.id))
        assert [tuple(row) for row in noted] == [(1, True), (2, False), (99, False), (2, False)]


def test_while_the_database_is_away_nothing_is_acknowledged(here: Line, tmp_path) -> None:
    file, hidden = tmp_path / "clinic.db", tmp_path / "hidden.db"
    for name in ("clinic.db-wal", "clinic.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    file.rename(hidden)
    file.mkdir()
    answer = tell(here, observation())
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    file.rmdir()
    hidden.rename(file)
    assert taken(tell(here, observation()))["taken"] == 1


def test_while_the_store_cannot_be_read_nothing_is_taken(here: Line, store: EventStore) -> None:
    (shard,) = store.shards
    whole = shard.read_bytes()
    shard.write_bytes(b"no parquet")
    assert tell(here, observation()).status_code == 503
    assert rows(here, records) == 0
    shard.write_bytes(whole)
    assert taken(tell(here, observation()))["taken"] == 1


def test_many_residents_at_once_are_answered_as_each_alone(here: Line, tmp_path, models: Models) -> None:
    lines = [
        RECORDS.replace("    1 ", f"    {number} ").replace("    2 ", f"    {number + 1} ")
        for number in range(3, 15, 2)
    ]
    head, *_ = RECORDS.strip().splitlines()
    body = "\n".join(row for table in lines for row in table.strip().splitlines()[1:])
    many = line(Database.open(str(tmp_path / "many.db")), county(tmp_path / "many", f"{head}\n{body}"), models)
    together = taken(tell(many, bundle(*(observation(f"o{number}", subject=number) for number in range(3, 15)))))
    alone = taken(tell(many, observation("o3", subject=3)))
    assert len(together["residents"]) == 12
    ((first,), (again,)) = ([it["scores"] for it in said["residents"] if it["id"] == 3] for said in (together, alone))
    assert first[0]["probability"] == again[0]["probability"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2025-01-31T08:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(observation())), inner),
    max_leaves=5,
)
PLACES = [
    (),
    *(("entry", 0, *rest) for rest in [(), ("resource",), ("request",), ("request", "method"), ("fullUrl",)]),
    *(("entry", 0, "resource", name) for name in (*observation(), "component", "effectivePeriod", "meta", "id")),
    *(("entry", 0, "resource", *rest) for rest in [
        ("identifier", 0), ("identifier", 0, "value"), ("code", "coding"), ("code", "coding", 0),
        ("subject", "reference"), ("subject", "identifier"), ("valueQuantity", "value"), ("valueQuantity", "code")]),
]  # fmt: skip


@given(place=st.sampled_from(PLACES), said=ANYTHING)
def test_whatever_is_sent_is_read_or_refused(place: tuple[str | int, ...], said: object) -> None:
    whole: object = {"top": bundle(observation())}
    *outer, last = ("top", *place)
    part = whole
    for name in outer:
        part = part[name]
    part[last] = said
    read = faults_of(json.dumps(whole["top"]).encode())
    assert read == 0 or all(fault.pointer.startswith("#") and fault.detail for fault in read)


def faults_of(body: bytes) -> Sequence[Fault] | int:
    """Return what is wrong with what is sent, or 0 where a record can be taken."""
    try:
        sent = Reader(Settings(), "gateway", NOW).read(body, "application/json")
    except ProblemError as problem:
        return problem.faults
    return sent.faults or 1 - len(sent.records)
