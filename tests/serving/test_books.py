"""The health interfaces on a real database: scores for those who may see them, hooks of residents known here."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from time import sleep

import httpx
import pytest
import sqlalchemy as sql
import uvicorn
from fastapi import FastAPI
from fhir.resources.R4B.riskassessment import RiskAssessment
from joserfc import jwk
from starlette.requests import Request

from serving.api.books import cds_books, risk_books
from serving.api.cds_hooks import Feedback, Told, cds_hooks_router, read_clients
from serving.api.clinic import Clinic
from serving.api.door import Visitor
from serving.api.fhir import fhir_router
from serving.api.problems import ProblemError
from serving.security.caller import Caller
from serving.store.accounts import audit
from serving.store.database import Database
from serving.store.erasure import erase
from serving.store.feedback import CardFeedbacks
from serving.store.identity import Key, rotate
from serving.store.panels import Panels
from serving.store.people import People
from serving.store.tables import cds_feedback, runs
from tests.conformance.cds_hooks.checks import CHECKS
from tests.conformance.cds_hooks.client import PATIENT, Signer, Target
from tests.serving.clinics import SYSTEM, Line, Models, clinic_of, county, doctor_of
from tests.serving.furnished import KEY, NOW, NUMBER, furnish, night, person, score
from tests.tables import events_from

EXPORTER = replace(SYSTEM, scopes=frozenset({"export-run"}))
MANAGER = Caller(3, "li", "manager", frozenset(), frozenset(), "session")
BASE = "/fhir/R4/RiskAssessment"


@pytest.fixture
def clinic(database: Database, models: Models) -> Clinic:
    """Residents 1 and 2, of one panel, with a score of falls each; and 3, of no panel, with two scores."""
    return furnished(database, models)


@pytest.fixture
def on_sqlite(tmp_path: Path, models: Models) -> Clinic:
    """The same on SQLite, for what is alike on both."""
    return furnished(Database.open(str(tmp_path / "county.db")), models)


def furnished(database: Database, models: Models) -> Clinic:
    furnish(database)
    People(database, KEY).register([person(3)], NOW)
    known = People(database, KEY).resident(3)
    score(database, known.id, "fall", probability=0.5)
    score(database, known.id, "hypertension", model_version="8")
    return clinic_of(database, None, models, fhir_page=2)


def of(clinic: Clinic, caller: Caller = SYSTEM) -> Line:
    return Line(clinic, caller, (fhir_router(risk_books(clinic), clinic.settings),))


def ids(answer: httpx.Response) -> list[tuple[str, str]]:
    """Return whose scores of what are on a page."""
    assert answer.status_code == 200, answer.text
    told = [entry["resource"] for entry in answer.json().get("entry", [])]
    return [(it["subject"]["reference"], it["method"]["coding"][0]["code"]) for it in told]


def looks(clinic: Clinic) -> list[tuple[str, int | None, bool]]:
    """Return what the audit says, from the beginning."""
    with clinic.database.reading() as connection:
        query = sql.select(audit.c.action, audit.c.whose, audit.c.allowed).order_by(audit.c.id)
        return [tuple(row) for row in connection.execute(query)]


ALL = [("Patient/1", "fall@7"), ("Patient/2", "fall@7"), ("Patient/3", "fall@7"), ("Patient/3", "hypertension@8")]


def test_a_score_is_read_by_an_id_that_stays(clinic: Clinic) -> None:
    (entry,) = of(clinic).ask(f"{BASE}?subject=Patient/1").json()["entry"]
    answer = of(clinic).ask(f"{BASE}/{entry['resource']['id']}")
    assert answer.json() == entry["resource"]
    RiskAssessment.model_validate_json(answer.content)
    (prediction,) = answer.json()["prediction"]
    assert prediction["probabilityDecimal"] == 0.25
    assert answer.json()["basis"][0]["display"] == "systolic blood pressure 5.3 mm[Hg] (2026-03-01)"
    assert "no BP in a year" in answer.json()["mitigation"]
    for unknown in ("0", "1099511627775", "9223372036854775807", "9223372036854775808", "x"):
        assert of(clinic).ask(f"{BASE}/{unknown}").status_code == 404


def test_pages_show_each_score_once_in_an_order_that_stays(clinic: Clinic) -> None:
    first = of(clinic).ask(BASE)
    assert ids(first) == ALL[:2]
    (following,) = (link["url"] for link in first.json()["link"] if link["relation"] == "next")
    second = of(clinic).ask(following.removeprefix("https://weibing.example.cn"))
    assert ids(second) == ALL[2:]
    assert not [link for link in second.json()["link"] if link["relation"] == "next"]
    assert of(clinic).ask(f"{BASE}?_count=0").json()["total"] == 4
    assert of(clinic).ask(f"{BASE}?_after=there").status_code == 400
    assert looks(clinic) == [("see resident", whose, True) for whose in (1, 2, 3)]


SEARCHES = {
    "subject=Patient/3,Patient/2": ALL[1:],
    "patient=3&method=fall": ALL[2:3],
    "method=fall@7,hypertension": ALL,
    "method=fall@8": [],
    "date=2026-03-01": ALL,
    "date=lt2026-03-01": [],
    "subject=Patient/77": [],
    "subject=Patient/abc": [],
}


def test_a_search_finds_what_meets_all_of_it(clinic: Clinic) -> None:
    here = of(clinic)
    assert {query: ids(here.ask(f"{BASE}?{query}&_count=9")) for query in SEARCHES} == SEARCHES


def test_a_doctor_sees_the_own_panel_alone_and_each_look_is_written_down(clinic: Clinic) -> None:
    (panel,) = Panels(clinic.database).of_doctor(7)
    doctor = of(clinic, doctor_of([panel.id]))
    assert ids(doctor.ask(f"{BASE}?_count=9")) == ALL[:2]
    assert doctor.ask(f"{BASE}?_count=0").json()["total"] == 2
    assert doctor.ask(f"{BASE}?subject=Patient/1,Patient/3").status_code == 403
    (others, *_) = of(clinic).ask(f"{BASE}?subject=Patient/3").json()["entry"]
    assert doctor.ask(f"{BASE}/{others['resource']['id']}").status_code == 404
    assert looks(clinic) == [
        ("see resident", 1, True),
        ("see resident", 2, True),
        ("see resident", 3, False),
        ("see resident", 3, True),
        ("see resident", 3, False),
    ]
    assert ids(of(clinic, doctor_of([])).ask(BASE)) == []


def test_who_may_read_nothing_is_refused(on_sqlite: Clinic) -> None:
    for caller in (MANAGER, replace(SYSTEM, scopes=frozenset({"score"})), replace(SYSTEM, via="session")):
        for path in (BASE, f"{BASE}/1", f"{BASE}/$export", "/fhir/R4/Patient"):
            assert of(on_sqlite, caller).ask(path).status_code == 403
    assert {allowed for _, _, allowed in looks(on_sqlite)} == {False}
    assert of(on_sqlite).ask(f"{BASE}/$export").status_code == 403


def test_who_has_opted_out_or_was_erased_is_not_shown(on_sqlite: Clinic) -> None:
    (of_two,) = of(on_sqlite).ask(f"{BASE}?subject=2").json()["entry"]
    (of_one,) = of(on_sqlite).ask(f"{BASE}?subject=1").json()["entry"]
    on_sqlite.people.opt_out(2, NOW)
    erase(on_sqlite.database, 1)
    assert ids(of(on_sqlite).ask(f"{BASE}?_count=9")) == ALL[2:]
    assert of(on_sqlite).ask(f"{BASE}/{of_two['resource']['id']}").status_code == 410
    assert of(on_sqlite).ask(f"{BASE}/{of_one['resource']['id']}").status_code == 410


def test_a_later_run_takes_the_place_of_a_score_when_it_is_complete(clinic: Clinic) -> None:
    (entry,) = of(clinic).ask(f"{BASE}?subject=1").json()["entry"]
    address = f"{BASE}/{entry['resource']['id']}"
    known = clinic.people.resident(1)
    night(clinic.database, 2, complete=False)
    score(clinic.database, known.id, "fall", run=2, probability=0.75)
    assert of(clinic).ask(address).status_code == 200
    with clinic.database.writing() as connection:
        connection.execute(runs.update().where(runs.c.id == 2).values(completed_at=NOW))
    assert of(clinic).ask(address).status_code == 410
    (entry,) = of(clinic).ask(f"{BASE}?subject=1").json()["entry"]
    assert entry["resource"]["prediction"][0]["probabilityDecimal"] == 0.75
    assert of(clinic, EXPORTER).ask(f"{BASE}/$export?run=1").status_code == 410


def lines(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    told = [json.loads(line) for line in answer.text.splitlines()]
    return [(it["subject"]["reference"], it["method"]["coding"][0]["code"]) for it in told]


def test_a_run_is_told_whole_to_whoever_may_have_it(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.api.books.ROWS", 1)
    assert lines(of(clinic, EXPORTER).ask(f"{BASE}/$export")) == ALL
    assert lines(of(clinic, EXPORTER).ask(f"{BASE}/$export?run=1")) == ALL
    assert of(clinic, EXPORTER).ask(f"{BASE}/$export?run=9").status_code == 404
    assert looks(clinic) == [("export run", None, True)] * 2


def test_a_run_that_is_replaced_while_it_is_told_breaks_off(on_sqlite: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.api.books.ROWS", 1)
    request = Request({"type": "http", "weibing.visitor": Visitor(on_sqlite, EXPORTER, "10.0.0.1")})
    told_slowly = iter(risk_books(on_sqlite)(request, "export").export(None))
    assert next(told_slowly).patient == "1"
    night(on_sqlite.database, 2)
    # What was there is kept beside what took its place,
    assert next(told_slowly).patient == "2"
    night(on_sqlite.database, 3, complete=False)
    # until the run after that is written.
    with pytest.raises(ProblemError, match="replaced"):
        list(told_slowly)


def test_while_the_database_is_away_there_is_no_empty_list(models: Models, tmp_path: Path) -> None:
    away = clinic_of(Database.at(str(tmp_path / "no-folder" / "x.db")), None, models)
    for caller, path in ((SYSTEM, BASE), (SYSTEM, f"{BASE}/1"), (EXPORTER, f"{BASE}/$export"), (MANAGER, BASE)):
        answer = of(away, caller).ask(path)
        assert (answer.status_code, answer.json()["resourceType"]) == (503, "OperationOutcome")
    assess, feedback, replays = cds_books(away)
    for work in (
        lambda: assess(told(("urn:weibing:resident", "1")), NOW),
        lambda: feedback.add("i", "s", [FEEDBACK]),
        lambda: replays.first_use("i", "j", 2e9),
    ):
        with pytest.raises(ProblemError) as problem:
            work()
        assert problem.value.status == 503


def told(*identifiers: tuple[str, str]) -> Told:
    events = events_from(
        """
        time             | code        | value
        1999-01-01       | MEDS_BIRTH  |
                         | female      | 0
        2025-02-01T09:00 | sbp         | 186
        2025-02-01T09:00 | dbp         | 112
    """,
        subject_id=0,
    )
    return Told("https://ehr.example.cn", "p1", identifiers, events)


@pytest.fixture
def known_here(tmp_path: Path, models: Models) -> Clinic:
    database = Database.open(str(tmp_path / "clinic.db"))
    People(database, KEY).register([person(1), person(2)], NOW)
    return clinic_of(database, county(tmp_path / "store"), models)


NEXT_DAY = datetime(2025, 2, 2)


@pytest.mark.parametrize(
    "identifier", [("urn:weibing:resident", "1"), ("urn:oid:2.16.156.10011.1.3", f"{NUMBER[:-3]}001")]
)
def test_who_is_known_here_is_assessed_by_our_records_too(identifier: tuple[str, str], known_here: Clinic) -> None:
    assess, _, _ = cds_books(known_here)
    answered = assess(told(("urn:else", "5"), identifier), NEXT_DAY)
    (score_of_one,) = answered.scores
    seen = {driver.concept: driver.value for driver in score_of_one.drivers}
    # Our age and body mass index, their pressure.
    assert (seen["age"], seen["bmi"], seen["sbp"]) == (64.0, pytest.approx(25.1), 186.0)
    assert answered.duties[0].kind == "referral"
    assert answered.page == "https://weibing.example.cn/residents/1"
    assert looks(known_here) == [("see resident", 1, True)]


def test_who_is_not_known_here_is_assessed_by_what_is_told(known_here: Clinic) -> None:
    assess, _, _ = cds_books(known_here)
    alone = assess(told(), NEXT_DAY)
    assert alone.page == ""
    assert next(it.value for it in alone.scores[0].drivers if it.concept == "age") == 26.0
    for nobody in (("urn:weibing:resident", "99"), ("urn:weibing:resident", "１"), ("urn:oid:2.16.156.10011.1.3", "7")):
        assert assess(told(nobody), NEXT_DAY).scores == alone.scores
    both = (("urn:weibing:resident", "1"), ("urn:weibing:resident", "2"))
    assert assess(told(*both), NEXT_DAY).scores == alone.scores
    assert looks(known_here) == []


def test_hooks_score_nobody_who_has_opted_out_nor_without_a_model(known_here: Clinic, models: Models) -> None:
    assess, _, _ = cds_books(known_here)
    known_here.people.opt_out(1, NOW)
    answered = assess(told(("urn:weibing:resident", "1")), NEXT_DAY)
    assert answered.scores == ()
    assert answered.duties[0].kind == "referral"
    known_here.live.champions = Models(models.engine, None, ("No model is loaded.",))
    for identifiers in ((), (("urn:weibing:resident", "2"),)):
        with pytest.raises(ProblemError, match="No model"):
            assess(told(*identifiers), NEXT_DAY)


FEEDBACK = Feedback.model_validate_json(
    json.dumps(
        {
            "card": "c1",
            "outcome": "overridden",
            "outcomeTimestamp": "2025-01-01T08:00:00+08:00",
            "overrideReason": {"reason": {"code": "declined", "system": "urn:r"}, "userComment": "张伟不愿意"},
        }
    )
)


def test_feedback_is_kept_once_and_what_people_write_is_encrypted(clinic: Clinic) -> None:
    _, feedback, _ = cds_books(clinic)
    for _ in range(2):
        feedback.add("https://ehr.example.cn", "weibing-patient-view", [FEEDBACK, FEEDBACK])
    kept = CardFeedbacks(clinic.database, KEY)
    _, only = kept.all()
    assert (only.card, only.outcome_at, only.reason_code, only.comment) == (
        "c1", datetime(2025, 1, 1), "declined", "张伟不愿意"
    )  # fmt: skip
    with clinic.database.reading() as connection:
        sealed = connection.execute(sql.select(cds_feedback.c.comment)).scalars().all()
    assert not any("张伟".encode() in each for each in sealed)
    other = Key.of("another secret of the tests, long enough")
    rotate(clinic.database, KEY, other, NOW)
    assert [it.comment for it in CardFeedbacks(clinic.database, other).all()] == ["不愿意", "张伟不愿意"]


def test_of_many_uses_of_a_token_one_is_the_first(clinic: Clinic) -> None:
    (_, _, one), (_, _, other), found = cds_books(clinic), cds_books(clinic), []
    until = (datetime.now(UTC) + timedelta(minutes=5)).timestamp()
    uses = [threading.Thread(target=lambda book=book: found.append(book.first_use("i", "j", until)))
            for book in (one, other) * 4]  # fmt: skip
    for use in uses:
        use.start()
    for use in uses:
        use.join()
    assert sorted(found) == [False] * 7 + [True]
    assert one.first_use("another", "j", until)


@pytest.fixture
def hooks(known_here: Clinic, tmp_path: Path) -> Iterator[Target]:
    """The services on a port of this machine, with the real books."""
    key = jwk.ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"})
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    (tmp_path / "clients.toml").write_text(
        '[[client]]\nissuer = "https://ehr.example.org"\nkeys_file = "keys.json"\norigins = ["https://ehr.example.org"]\n'
    )
    server = uvicorn.Server(uvicorn.Config(FastAPI(), port=0, log_level="warning"))
    app = server.config.app
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    settings = known_here.settings.model_copy(update={"public_url": url})
    clinic = replace(known_here, settings=settings)
    app.include_router(cds_hooks_router(read_clients(tmp_path / "clients.toml"), *cds_books(clinic), settings))
    case = {
        "prefetch": {
            "patient": {
                "resourceType": "Patient", "id": PATIENT, "gender": "female", "birthDate": "1960-03-14",
                "identifier": [{"system": "urn:weibing:resident", "value": "1"}],
            },
            "observations": {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": {
                "resourceType": "Observation", "id": "o1", "status": "final",
                "subject": {"reference": f"Patient/{PATIENT}"}, "effectiveDateTime": "2025-02-01",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
                "valueQuantity": {"value": 186, "unit": "mm[Hg]"}}}]},
            "conditions": None, "medications": None, "encounters": None,
        }
    }  # fmt: skip
    cases = dict.fromkeys(("weibing-patient-view", "weibing-encounter-start"), case)
    yield Target(url, url, Signer(key, "https://ehr.example.org"), cases, "https://ehr.example.org")
    server.should_exit = True
    thread.join()


def test_the_hooks_conform_with_the_real_books_too(hooks: Target, known_here: Clinic) -> None:
    for check in CHECKS.values():
        check(hooks)
    answer = hooks.call(hooks.services[0])
    assert [card["indicator"] for card in answer.json()["cards"]] == ["critical", "warning"]
    assert ("see resident", 1, True) in looks(known_here)
    with known_here.database.reading() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(cds_feedback)).scalar_one() > 0
