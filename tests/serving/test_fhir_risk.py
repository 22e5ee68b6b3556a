"""Scores as FHIR R4: the resources, and the routes on an application of their own."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi import FastAPI
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome
from fhir.resources.R4B.riskassessment import RiskAssessment
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from serving.api.assessments import Assessment
from serving.api.fhir import DateWindow, Gone, RiskBook, RiskPage, RiskQuery, fhir_router
from serving.api.fhir.resources import risk_assessment
from serving.api.fhir.search import read_search
from serving.api.problems import ProblemError
from serving.api.wording import Words
from serving.settings import Settings
from tests.serving.hooks import CHECK, REFERRAL, score_of
from training.targets import TARGETS

ADDRESS = "https://weibing.example.cn/fhir/R4"
SETTINGS = Settings(public_url="https://weibing.example.cn", fhir_page=2, language="en")
SHANGHAI = ZoneInfo("Asia/Shanghai")
ENGLISH = Words("en", "Asia/Shanghai")


def assessment(name: str = "a1", patient: str = "7", target: str = "hypertension", **other: object) -> Assessment:
    return Assessment(name, patient, score_of(target, **other), TARGETS[target], (REFERRAL, CHECK))


@dataclass
class Shelf:
    """A book of a few scores, read plainly."""

    scores: list[Assessment] = field(default_factory=list)
    gone: frozenset[str] = frozenset({"old"})

    def read(self, name: str) -> Assessment | Gone | None:
        return Gone() if name in self.gone else next((each for each in self.scores if each.id == name), None)

    def search(self, query: RiskQuery, count: int, after: str | None) -> RiskPage:
        found = [each for each in self.scores if matches(query, each)]
        rest = [each for each in found if after is None or each.id > after]
        page = tuple(rest[:count])
        return RiskPage(page, page[-1].id if page and len(rest) > count else None, len(found))

    def export(self, run: int | None) -> Iterator[Assessment]:
        if run not in (None, 1, 2):
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such run.")
        yield from self.scores[:1]
        if run == 2:
            raise RuntimeError("the database is gone")
        yield from self.scores[1:]


def matches(query: RiskQuery, each: Assessment) -> bool:
    score = each.score
    return (
        (query.patients is None or each.patient in query.patients)
        and all(window.holds(score.index_time) for window in query.dates)
        and (
            query.methods is None
            or any(
                score.target == target and version in (None, score.model_version) for target, version in query.methods
            )
        )
    )


SCORES = [
    assessment("a1"),
    assessment("a2", target="fall", model_version="1"),
    assessment("a3", patient="8", index_time=datetime(2023, 12, 31, 16)),
    assessment("a4", patient="9"),
    assessment("a5", patient="9", target="fall", model_version="2"),
]


def open_book(request: Request, action: str) -> RiskBook:
    caller = request.headers.get("authorization")
    if caller is None:
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "Say who you are.", headers={"WWW-Authenticate": "Bearer"})
    if action == "export" and caller != "system":
        raise ProblemError(HTTPStatus.FORBIDDEN, "Systems alone may have all.")
    return Shelf(SCORES)


def ask(path: str, method: str = "GET", caller: str | None = "system", **options: object) -> httpx.Response:
    app = FastAPI()
    app.include_router(
        fhir_router(open_book, Settings(public_url="https://weibing.example.cn", fhir_page=2, language="en"))
    )
    headers = dict(options.pop("headers", {})) | ({"authorization": caller} if caller else {})

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://evil.example") as client:
            return await client.request(method, f"/fhir/R4{path}", headers=headers, **options)

    return asyncio.run(send())


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [entry["resource"]["id"] for entry in answer.json().get("entry", [])]


def faults_of(resource: dict[str, object]) -> list[str]:
    """Return what R4 asks of a RiskAssessment beyond its shape: its invariants, and what its text says."""
    faults = []
    for prediction in resource["prediction"]:
        probability = prediction["probabilityDecimal"]
        if not 0 <= probability <= 1:
            faults.append("the probability is not from 0 to 1 (ras-2: at most 100)")
        if len([name for name in prediction if name.startswith("probability")]) > 1:
            faults.append("probability[x] is told twice")
        if len([name for name in prediction if name.startswith("when")]) > 1:
            faults.append("when[x] is told twice")
        period = prediction["whenPeriod"]
        if datetime.fromisoformat(period["start"]) > datetime.fromisoformat(period["end"]):
            faults.append("per-1: the period ends before it begins")
    if resource["status"] not in ("registered", "preliminary", "final", "amended"):
        faults.append("the status is not one of a risk assessment")
    return faults


def test_a_score_is_a_risk_assessment() -> None:
    resource = risk_assessment(assessment(), ENGLISH)
    assert resource["subject"] == {"reference": "Patient/7"}
    assert resource["occurrenceDateTime"] == "2024-12-31T16:00:00Z"
    assert resource["method"]["coding"][0]["code"] == "hypertension@3"
    assert resource["method"]["text"] == f"Model of {TARGETS['hypertension'].label_en}, version 3."
    (prediction,) = resource["prediction"]
    assert prediction["probabilityDecimal"] == 0.31
    assert prediction["outcome"]["coding"][0]["code"] == "I10"
    assert prediction["qualitativeRisk"]["coding"][0]["code"] == "very-high"
    assert prediction["rationale"] == (
        "Raises the risk: systolic blood pressure 152 mm[Hg] (2024-05-01); age 71 years."
        " Lowers the risk: female sex yes."
    )
    assert resource["basis"][0] == {"display": "systolic blood pressure 152 mm[Hg] (2024-05-01)"}
    assert resource["mitigation"] == (
        "at once: blood pressure 186/112 mm[Hg]: refer; overdue since 2024-12-01: blood pressure check"
    )
    assert "not a percentage" in resource["note"][-1]["text"]


def test_the_period_is_the_outcome_window() -> None:
    # A window of 365.25 days from 16:00 on December 31st, 2024, its end left out.
    (prediction,) = risk_assessment(assessment(target="fall"), ENGLISH)["prediction"]
    assert prediction["whenPeriod"] == {"start": "2024-12-31T16:00:00Z", "end": "2025-12-31T21:59:59Z"}


def test_a_score_of_a_model_of_simulated_records_says_so() -> None:
    resource = risk_assessment(assessment(synthetic=True), ENGLISH)
    assert resource["meta"]["tag"][0]["code"] == "HTEST"
    assert any("simulated" in note["text"] for note in resource["note"])


def test_what_is_not_there_is_left_out() -> None:
    bare = replace(assessment(drivers=(), percentile=None), duties=())
    resource = risk_assessment(bare, ENGLISH)
    assert "basis" not in resource
    assert "mitigation" not in resource
    assert "rationale" not in resource["prediction"][0]


@given(
    probability=st.floats(0, 1),
    target=st.sampled_from(sorted(TARGETS)),
    tier=st.sampled_from(["low", "moderate", "high", "very high"]),
    percentile=st.none() | st.floats(0, 100),
    synthetic=st.booleans(),
    language=st.sampled_from(["zh", "en"]),
    index_time=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
)
def test_any_score_is_valid(target: str, language: str, **told: object) -> None:
    resource = risk_assessment(assessment(target=target, **told), Words(language, "Asia/Shanghai"))
    RiskAssessment.model_validate_json(json.dumps(resource))
    assert faults_of(resource) == []


def test_a_score_is_read_by_its_id() -> None:
    answer = ask("/RiskAssessment/a1")
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.json() == risk_assessment(SCORES[0], ENGLISH)
    assert answer.headers["etag"].startswith('W/"')


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/RiskAssessment/none", 404, "not-found"),
        ("/RiskAssessment/old", 410, "deleted"),
        ("/RiskAssessment/a%20b", 404, "not-found"),
        ("/RiskAssessment/" + "a" * 65, 404, "not-found"),
        ("/Patient/7", 404, "not-found"),
        ("/RiskAssessment?date=yesterday", 400, "invalid"),
        ("/RiskAssessment?date=2025-02-30", 400, "invalid"),
        ("/RiskAssessment?date=9999", 400, "invalid"),
        ("/RiskAssessment?subject=Group/1", 400, "invalid"),
        ("/RiskAssessment?subject=", 400, "invalid"),
        ("/RiskAssessment?method=http://other.example|x", 400, "invalid"),
        ("/RiskAssessment?_count=-1", 400, "invalid"),
        ("/RiskAssessment?condition=x", 400, "invalid"),
        ("/RiskAssessment?_format=xml", 406, "not-supported"),
        ("/RiskAssessment/$export?run=7", 404, "not-found"),
        ("/RiskAssessment/$export?run=x", 400, "invalid"),
    ],
)
def test_a_failure_is_an_operation_outcome(path: str, status: int, code: str) -> None:
    answer = ask(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/fhir+json"
    OperationOutcome.model_validate_json(answer.content)
    assert answer.json()["issue"][0]["code"] == code


@pytest.mark.parametrize("path", ["/RiskAssessment", "/RiskAssessment/a1", "/RiskAssessment/none", "/Patient/1"])
def test_nobody_reads_without_saying_who(path: str) -> None:
    answer = ask(path, caller=None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["issue"][0]["code"] == "login"


def test_who_may_not_have_all_is_told_so() -> None:
    assert ask("/RiskAssessment/$export", caller="doctor").status_code == 403


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ["a1", "a2", "a3", "a4", "a5"]),
        ("subject=Patient/9", ["a4", "a5"]),
        ("subject=7,Patient/8", ["a1", "a2", "a3"]),
        ("patient=9&subject=7", []),
        ("method=fall", ["a2", "a5"]),
        ("method=urn:weibing:model|fall@2", ["a5"]),
        ("method=fall@2,hypertension", ["a1", "a3", "a4", "a5"]),
        ("date=2024", ["a3"]),
        ("date=2025-01-01", ["a1", "a2", "a4", "a5"]),
        ("date=ge2025-01", ["a1", "a2", "a4", "a5"]),
        ("date=lt2025-01-01", ["a3"]),
        ("date=gt2025-01-01", []),
        ("date=le2025-01-01", ["a1", "a2", "a3", "a4", "a5"]),
        ("date=2024-12-31T16:00:00Z", ["a1", "a2", "a4", "a5"]),
        ("date=gt2024-12-31T16:00:00Z", []),
        ("date=ge2023&date=lt2025", ["a3"]),
        ("subject=9&method=fall&date=2025", ["a5"]),
    ],
)
def test_a_search_finds_what_meets_all_conditions(asked: str, found: list[str]) -> None:
    answer = ask(f"/RiskAssessment?{asked}&_count=50".replace("?&", "?"))
    assert ids(answer) == found
    assert answer.json()["total"] == len(found)
    Bundle.model_validate_json(answer.content)


def test_pages_are_followed_to_the_end() -> None:
    found, path, pages = [], "/RiskAssessment?method=hypertension,fall", 0
    while path:
        answer = ask(path)
        found += ids(answer)
        pages += 1
        links = {link["relation"]: link["url"] for link in answer.json()["link"]}
        # A page's address is ours, whatever the caller calls us.
        assert links["self"].startswith(f"{ADDRESS}/RiskAssessment?method=hypertension%2Cfall")
        path = links.get("next", "").removeprefix(ADDRESS)
    assert found == ["a1", "a2", "a3", "a4", "a5"]
    assert pages == 3


def test_a_count_of_none_tells_how_many() -> None:
    answer = ask("/RiskAssessment?_count=0")
    assert answer.json()["total"] == 5
    assert "entry" not in answer.json()
    assert [link["relation"] for link in answer.json()["link"]] == ["self"]


def test_a_form_searches_too() -> None:
    answer = ask("/RiskAssessment/_search", "POST", data={"subject": "Patient/9", "method": "fall"})
    assert ids(answer) == ["a5"]
    assert ask("/RiskAssessment/_search", "POST", json={"subject": "9"}).status_code == 415


def test_who_is_lenient_is_told_what_was_not_looked_at() -> None:
    answer = ask("/RiskAssessment?condition=x&subject=9", headers={"prefer": "handling=lenient"})
    *_, last = answer.json()["entry"]
    assert last["search"] == {"mode": "outcome"}
    assert "condition" in last["resource"]["issue"][0]["diagnostics"]
    assert "condition" not in answer.json()["link"][0]["url"]
    Bundle.model_validate_json(answer.content)


def test_the_words_are_in_the_language_that_is_asked_for() -> None:
    answer = ask("/RiskAssessment/a1", headers={"accept-language": "zh-CN"})
    assert answer.json()["language"] == "zh-CN"
    assert "使风险升高" in answer.json()["prediction"][0]["rationale"]


@pytest.mark.parametrize(
    ("accepted", "status"),
    [
        ("application/fhir+json", 200),
        ("application/json; q=0.5", 200),
        ("text/html, */*", 200),
        ("application/fhir+xml", 406),
    ],
)
def test_there_is_json_alone(accepted: str, status: int) -> None:
    assert ask("/metadata", headers={"accept": accepted}).status_code == status


def test_the_server_says_what_it_can_do_to_anybody() -> None:
    answer = ask("/metadata", caller=None)
    CapabilityStatement.model_validate_json(answer.content)
    said = answer.json()
    assert said["fhirVersion"] == "4.0.1"
    assert said["implementation"]["url"] == ADDRESS
    assert {it["name"] for it in said["rest"][0]["resource"][0]["searchParam"]} >= {"subject", "date", "method"}


def test_a_run_is_exported_a_resource_a_line() -> None:
    answer = ask("/RiskAssessment/$export?run=1")
    assert answer.headers["content-type"] == "application/fhir+ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == [risk_assessment(it, ENGLISH) for it in SCORES]


def test_a_run_that_cannot_be_told_to_its_end_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="the database is gone"):
        ask("/RiskAssessment/$export?run=2")


@given(
    first=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
    day=st.dates(datetime(2000, 1, 1).date(), datetime(2030, 1, 1).date()),
)
def test_before_on_and_after_a_day_are_all_there_is(first: datetime, day: object) -> None:
    windows = [windows_of(f"{prefix}{day}")[0] for prefix in ("lt", "eq", "gt")]
    assert sum(window.holds(first) for window in windows) == 1
    assert windows_of(f"ge{day}")[0].holds(first) == any(window.holds(first) for window in windows[1:])
    assert windows_of(f"le{day}")[0].holds(first) == any(window.holds(first) for window in windows[:2])


def windows_of(*dates: str) -> tuple[DateWindow, ...]:
    pairs: Iterable[tuple[str, str]] = [("date", it) for it in dates]
    return read_search(list(pairs), SHANGHAI, 10, 10, lenient=False).query.dates
