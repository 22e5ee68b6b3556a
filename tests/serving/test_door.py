"""Who comes in, who gets no further, and what is written down of it: the service's own routes in this process."""

import logging
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oidc_provider_mock import User, run_server_in_thread

from features.errors import WeibingError
from serving.api import door
from serving.api.counts import counts_of
from serving.api.door import OPEN, OPEN_BELOW, utc_now
from serving.security.sessions import COOKIE
from serving.store.alerts import Alerts
from serving.store.visits import Visits
from tests.serving.fronts import GOOD, HOST, Front, Visit, clinic_behind, panel_of, people_of
from tests.serving.furnished import alert, night, score

OURS, THEIRS, NOBODY = 1, 2, 99


@pytest.fixture(scope="module")
def monkeypatched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def front(tmp_path_factory, monkeypatched) -> Front:
    """Two panels with a resident each, and a score of each; no models, no event store."""
    front = Front(clinic_behind(monkeypatched, db=str(tmp_path_factory.mktemp("clinic") / "county.db")))
    people_of(front.clinic, (OURS, THEIRS))
    night(front.clinic.database)
    for subject in (OURS, THEIRS):
        score(front.clinic.database, front.clinic.people.resident(subject).id)
    return front


@pytest.fixture(scope="module")
def doctor(front) -> Visit:
    visit = front.person("li.wei")
    panel_of(front.clinic, "li.wei", [OURS])
    return visit


@pytest.fixture(scope="module")
def everybody(front, doctor) -> dict[str, Visit]:
    """A logged-in person of each role, another doctor, and a system with every scope."""
    other = front.person("zhang.min")
    panel_of(front.clinic, "zhang.min", [THEIRS], "第二组")
    people = {"doctor": doctor, "other": other, "system": front.system(), "nobody": front.anybody()}
    return people | {role: front.person(f"a.{role}", role) for role in ("manager", "scientist")}


def written(front: Front) -> list[tuple[str, bool, int | None]]:
    """Return what the audit holds: action, whether allowed, whose."""
    with front.clinic.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT action, allowed, whose FROM audit ORDER BY id").all()
    return [(row.action, bool(row.allowed), row.whose) for row in rows]


def routes(front: Front) -> list[tuple[str, str]]:
    described = front.anybody().get("/openapi.json").json()["paths"]
    return [(path, method.upper()) for path, methods in described.items() for method in methods]


def test_nobody_gets_past_the_door(front):
    tried = 0
    for path, method in routes(front):
        if path in OPEN or path.startswith(OPEN_BELOW):
            continue
        answer = front.anybody().send(method, path.replace("{resident}", "1").replace("{number}", "1"), {})
        assert answer.status_code == 401, (path, method)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        kind = "OperationOutcome" if path.startswith("/fhir") else "Unauthorized"
        assert kind in answer.text
        tried += 1
    assert tried > 15
    assert front.anybody().get("/nowhere").status_code == 401


def test_a_made_up_token_or_cookie_is_nobodys(front):
    visit = front.anybody()
    for header in ("Bearer weibing_made-up", "Bearer", "Basic bGk6d2Vp", "Bearer " + "x" * 5_000):
        assert visit.client.get("/v1/panels", headers={"authorization": header}).status_code == 401
    visit.client.cookies.set(COOKIE, "made-up")
    assert visit.get("/v1/panels").status_code == 401


# A path of each route about one resident; the resident's number is put in.
PATHS = (
    ("GET", "/v1/residents/{}", None),
    ("GET", "/v1/residents/{}?identity=true", None),
    ("GET", "/v1/residents/{}/risk", None),
    ("GET", "/v1/residents/{}/risk?at=now", None),
    ("GET", "/v1/residents/{}/visits", None),
    ("POST", "/v1/residents/{}/visits", {"kind": "home"}),
    ("PUT", "/v1/residents/{}/opt-out", None),
    ("DELETE", "/v1/residents/{}/opt-out", None),
    ("GET", "/fhir/R4/RiskAssessment?subject=Patient/{}", None),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    who=st.sampled_from(["doctor", "other", "manager", "scientist", "nobody"]),
    whose=st.sampled_from([OURS, THEIRS, NOBODY, 2**40]),
    asked=st.sampled_from(PATHS),
)
def test_no_path_leaks_a_resident_to_whom_it_is_not(front, everybody, who, whose, asked):
    method, path, body = asked
    before = len(written(front))
    answer = everybody[who].send(method, path.format(whose), body)
    theirs = {"doctor": OURS, "other": THEIRS}.get(who) == whose
    if theirs:
        assert answer.status_code in (200, 201, 204, 503), answer.text
        assert answer.status_code != 503 or "model" in answer.text
        assert written(front)[before:][0][1:] == (True, whose)
    elif who == "nobody":
        assert answer.status_code == 401
    elif path.startswith("/fhir"):
        assert answer.status_code == 403 or answer.json()["total"] == 0
    else:
        assert answer.status_code == 403
        assert [row[1:] for row in written(front)[before:]] == [(False, whose)]
    if not theirs:
        # Whether there is such a resident, nobody can tell by the answer.
        nobody = everybody[who].send(method, path.format(NOBODY), body)
        assert (nobody.status_code, nobody.json().get("detail")) == (answer.status_code, answer.json().get("detail"))
        assert f"王{whose}号" not in answer.text


@pytest.mark.parametrize("role", ["manager", "scientist", "system"])
def test_only_the_panels_own_doctor_sees_its_list(front, everybody, role):
    [panel] = everybody["doctor"].get("/v1/panels").json()
    asked = {"target": "fall", "panel": panel["id"]}
    assert everybody["doctor"].get("/v1/lists", **asked).status_code == 200
    assert everybody["other"].get("/v1/lists", **asked).status_code == 403
    if role != "system":
        assert everybody[role].get("/v1/lists", **asked).status_code == 403
        assert everybody[role].get("/v1/alerts", panel=panel["id"]).status_code == 403


def test_a_list_names_residents_to_the_doctor_and_to_systems_that_may_know(front, everybody):
    [listed] = everybody["doctor"].get("/v1/lists", target="fall").json()["residents"]
    assert (listed["id"], listed["name"], listed["probability"]) == (OURS, f"王{OURS}号", 0.25)
    assert [reason["label_en"] for reason in listed["drivers"]] == ["systolic blood pressure", "跌倒"]
    panel = everybody["doctor"].get("/v1/panels").json()[0]["id"]
    blind = front.system("see-list", name="register").get("/v1/lists", target="fall", panel=panel)
    assert [row["name"] for row in blind.json()["residents"]] == [None]


def test_a_list_says_which_part_of_the_address_cannot_be(doctor):
    for wrong, place in (
        ({"sort": "name"}, "sort"),
        ({"limit": 0}, "limit"),
        ({"tier": "red"}, "tier"),
        ({"x": 1}, "x"),
    ):
        answer = doctor.get("/v1/lists", target="fall", **wrong)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith(f"#/{place}")
    assert doctor.get("/v1/lists", target="fall", after="elsewhere").json()["errors"][0]["pointer"] == "#/after"


def test_a_resident_who_leaves_the_panel_is_out_of_sight_with_the_next_request(front, everybody):
    people_of(front.clinic, [50])
    panel = front.clinic.panels.of_doctor(front.clinic.login.accounts.named("li.wei").id)[0]
    front.clinic.panels.sign(panel.id, [50], utc_now() - timedelta(hours=1))
    assert everybody["doctor"].get("/v1/residents/50").status_code == 200
    front.clinic.panels.leave(50, utc_now())
    assert everybody["doctor"].get("/v1/residents/50").status_code == 403


def test_a_system_does_what_its_token_names(front):
    able = front.system("see-resident", name="portal")
    assert able.get(f"/v1/residents/{OURS}").json()["identity"] is None
    assert able.get(f"/v1/residents/{OURS}?identity=true").status_code == 403
    assert able.get(f"/v1/residents/{NOBODY}").status_code == 404
    assert able.get("/metrics").status_code == 403
    assert front.system("see-metrics", name="prometheus").get("/metrics").status_code == 200


def test_a_revoked_token_works_for_seconds_at_most(front, monkeypatch):
    monkeypatch.setattr(door, "TRUSTED_SECONDS", 0.0)
    able = front.system("see-resident", name="leaked")
    assert able.get(f"/v1/residents/{OURS}").status_code == 200
    newest = front.clinic.tokens.all(front.clinic.login.accounts.named("leaked"))[0]
    front.clinic.tokens.revoke(newest.id, utc_now())
    assert able.get(f"/v1/residents/{OURS}").status_code == 401


def test_whoever_has_the_number_finds_the_resident_if_it_is_theirs(front, everybody):
    number = front.clinic.people.identities([OURS])[OURS].number
    assert everybody["doctor"].send("POST", "/v1/residents/find", {"number": number.lower()}).json() == {"id": OURS}
    for who in ("other", "manager"):
        found = everybody[who].send("POST", "/v1/residents/find", {"number": number})
        never = everybody[who].send("POST", "/v1/residents/find", {"number": "nobody's"})
        assert found.status_code == never.status_code == 403
        assert found.json() == never.json()


def test_a_first_login_goes_step_by_step(front):
    _, initial = front.clinic.login.accounts.add("chen", "administrator", utc_now())
    visit = front.anybody()
    begun = visit.send("POST", "/v1/session", {"name": "chen", "password": initial})
    assert begun.json()["step"] == "change password"
    cookie = begun.headers["set-cookie"]
    assert all(part in cookie for part in ("__Host-weibing=", "HttpOnly", "Secure", "SameSite=lax", "Path=/"))
    assert visit.get("/v1/panels").status_code == 403
    weak = visit.send("POST", "/v1/session/password", {"before": initial, "password": "chen"})
    assert weak.status_code == 422
    changed = visit.send("POST", "/v1/session/password", {"before": initial, "password": GOOD})
    assert changed.json()["step"] == "set up code"
    made = visit.send("POST", "/v1/session/code/secret")
    assert made.json()["address"].startswith("otpauth://totp/")
    assert visit.send("POST", "/v1/session/code/first", {"code": "000000"}).status_code == 401
    assert visit.get("/v1/panels").status_code == 403
    assert visit.get("/v1/session").json()["name"] == "chen"


def test_logging_out_ends_the_session_on_the_server(front):
    visit = front.person("wu")
    kept = visit.client.cookies[COOKIE]
    assert visit.get("/v1/panels").status_code == 200
    assert visit.send("DELETE", "/v1/session").status_code == 204
    visit.client.cookies.set(COOKIE, kept)
    assert visit.get("/v1/panels").status_code == 401


def test_what_another_sites_page_sends_changes_nothing(front, doctor):
    path = f"/v1/residents/{OURS}/opt-out"
    assert doctor.send("PUT", path, **{"x-csrf-token": ""}).status_code == 403
    assert doctor.send("PUT", path, origin="https://evil.example").status_code == 403
    assert front.clinic.people.resident(OURS).opted_out_at is None
    other = front.anybody().send("POST", "/v1/session", {"name": "a", "password": "b"}, origin="https://evil.example")
    assert other.status_code == 403


def test_failed_logins_make_one_wait_and_never_say_what_was_wrong(front):
    visit, said = front.anybody(), set()
    for name in ("li.wei", "nobody-there"):
        answer = visit.send("POST", "/v1/session", {"name": name, "password": "wrong"})
        said.add((answer.status_code, answer.json()["detail"]))
    assert said == {(401, "The name, the password or the code is wrong.")}
    for _ in range(6):
        last = visit.send("POST", "/v1/session", {"name": "locked", "password": "wrong"})
    assert last.status_code == 429
    assert int(last.headers["retry-after"]) > 0
    assert [row[:2] for row in written(front)[-6:]] == [("log in", False)] * 6


def test_a_visit_is_kept_and_closes_what_it_did(front, doctor):
    facts = [{"code": "sbp", "value": 151, "unit": "mm[Hg]"}, {"code": "dbp", "value": 93}]
    sent = {"kind": "clinic", "note": "头晕", "closes": ["hypertension_follow_up"], "facts": facts}
    kept = doctor.send("POST", f"/v1/residents/{OURS}/visits", sent)
    assert kept.status_code == 201
    assert kept.json()["risk"] is None
    [visit] = Visits(front.clinic.database, front.clinic.key).of(OURS)[:1]
    assert (visit.kind, visit.note, visit.closes) == ("clinic", "头晕", ("hypertension_follow_up",))
    events = front.clinic.live.history(OURS)
    assert set(events["code"]) >= {"clinic_follow_up", "sbp", "dbp"}
    assert doctor.get(f"/v1/residents/{OURS}/visits").json()[0]["note"] == "头晕"


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"kind": "dance"}, "/kind"),
        ({"kind": "home", "time": "9999-01-01"}, "/time"),
        ({"kind": "home", "time": "2100-01-01"}, "/time"),
        ({"kind": "home", "facts": [{"code": "sbp", "value": 5_000}]}, "/facts/0/value"),
        ({"kind": "home", "facts": [{"code": "no such code"}]}, "/facts/0/code"),
        ({"kind": "home", "facts": [{"code": "sbp", "value": 120, "time": "2100-01-01"}]}, "/facts/0/time"),
        ({"kind": "home", "closes": ["no such rule"]}, "/closes/0"),
        ({"kind": "home", "closes": ["screening"]}, "/closes/0"),
        ({"kind": "telephone", "closes": ["hypertension_follow_up"]}, "/closes/0"),
        ({"kind": "home", "color": "red"}, "/color"),
    ],
)
def test_a_visit_that_says_what_cannot_be_is_refused_with_the_place(front, doctor, sent, place):
    before = len(front.clinic.live.history(OURS))
    answer = doctor.send("POST", f"/v1/residents/{OURS}/visits", sent)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"#{place}"
    assert len(front.clinic.live.history(OURS)) == before


def test_an_alert_is_shown_until_the_doctor_has_seen_it(front, everybody):
    Alerts(front.clinic.database).raise_all([alert(OURS, "obs-door")])
    doctor = everybody["doctor"]
    [shown] = doctor.get("/v1/alerts").json()
    assert (shown["resident"], shown["kind"], shown["acknowledged_at"]) == (OURS, "referral", None)
    for number in (shown["id"], 12_345):
        assert everybody["other"].send("POST", f"/v1/alerts/{number}/acknowledge").status_code == 403
    assert len(doctor.get("/v1/alerts").json()) == 1
    assert doctor.send("POST", f"/v1/alerts/{shown['id']}/acknowledge").status_code == 204
    assert doctor.get("/v1/alerts").json() == []
    assert doctor.send("POST", f"/v1/alerts/{shown['id']}/acknowledge").status_code == 409


def test_who_opts_out_is_in_no_list(front, everybody):
    doctor = everybody["doctor"]
    assert doctor.send("PUT", f"/v1/residents/{OURS}/opt-out").status_code == 204
    assert doctor.get("/v1/lists", target="fall").json()["residents"] == []
    assert doctor.get(f"/v1/residents/{OURS}").json()["opted_out_at"] is not None
    assert doctor.send("DELETE", f"/v1/residents/{OURS}/opt-out").status_code == 204
    assert len(doctor.get("/v1/lists", target="fall").json()["residents"]) == 1


def test_what_cannot_be_written_down_is_not_shown(front, everybody, monkeypatch):
    def cannot(*_: object) -> None:
        raise door.AwayError("the disk is full")

    monkeypatch.setattr("serving.audit.Audit.write", cannot)
    answer = everybody["doctor"].get(f"/v1/residents/{OURS}")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "王" not in answer.text


def test_the_audit_holds_together_after_all_this(front):
    assert front.clinic.audit.verify().rows > 0


def test_the_log_holds_nobody(front, everybody, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    # That is the caller, not the service.
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)
    who = front.clinic.people.identities([OURS])[OURS]
    for visit in everybody.values():
        visit.get(f"/v1/residents/{OURS}?identity=true")
        visit.get("/v1/lists", target="fall", after=who.name)
        visit.send("POST", "/v1/residents/find", {"number": who.number})
        visit.send("POST", f"/v1/residents/{OURS}/visits", {"kind": "home", "note": who.name})
        visit.send("POST", "/v1/session", {"name": who.name, "password": who.number})
        visit.get(f"/{who.number}/{who.name}")
    assert "GET /v1/residents/{resident} 200" in caplog.text
    for told in (who.name, who.number, GOOD, "password"):
        assert told not in caplog.text


@pytest.fixture
def counted(tmp_path, monkeypatch) -> Front:
    """A county of two townships in which few are at very high risk."""
    front = Front(clinic_behind(monkeypatch, db=str(tmp_path / "county.db")))
    people_of(front.clinic, range(1, 61), townships=("柿西", "城关"))
    night(front.clinic.database)
    for subject in range(1, 61):
        tier = "very high" if subject <= 7 else "low" if subject < 40 else "high"
        score(front.clinic.database, front.clinic.people.resident(subject).id, tier=tier)
    return front


def test_a_manager_sees_no_cell_below_ten_and_the_same_for_weeks(counted):
    manager = counted.person("ma", "manager")
    shown = manager.get("/v1/counts").json()
    cells = [cell for table in shown["tables"] for cell in table["cells"]]
    assert {cell["residents"] for cell in cells if cell["tier"] == "very high"} == {None}
    assert all(cell["residents"] is None or cell["residents"] >= 10 for cell in cells)
    assert any(cell["residents"] for cell in cells)
    # One who opts out, or a night in which one has moved, would be told by the difference.
    counted.clinic.people.opt_out(7, utc_now())
    night(counted.clinic.database, 2)
    assert manager.get("/v1/counts").json() == shown
    later = counts_of(counted.clinic.database, utc_now() + timedelta(days=29))
    assert (shown["run"], later.run) == (1, 2)


def test_the_countys_login_server_lets_in_whom_it_knows_with_the_role_it_gives(tmp_path, monkeypatch):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    people = (
        User(sub="u1", claims={"groups": ["family-doctors"], "preferred_username": "li.wei", "name": "李伟"}),
        User(sub="u2", claims={"groups": ["cooks"]}),
    )
    (tmp_path / "secret").write_text("the client's secret\n", encoding="utf-8")
    with run_server_in_thread(user_claims=people, require_nonce=True) as server:
        said = (
            f'issuer = "http://localhost:{server.server_port}"\nclient_id = "weibing"\nclient_secret_file = "secret"\n'
            '[roles]\nfamily-doctors = "doctor"\n'
        )
        (tmp_path / "login.toml").write_text(said, encoding="utf-8")
        told = {"db": str(tmp_path / "c.db"), "login_server": tmp_path / "login.toml", "public_url": HOST}
        front = Front(clinic_behind(monkeypatch, **told))
        known, stranger, thief = front.anybody(), front.anybody(), front.anybody()
        for visit, who, status in ((known, "u1", 303), (stranger, "u2", 401)):
            left = visit.get("/login/server").headers["location"]
            back = httpx.post(left, data={"sub": who}, follow_redirects=False).headers["location"]
            assert back.startswith(f"{HOST}/login/arrived?")
            assert thief.client.get(back.removeprefix(HOST)).status_code == 401
            assert visit.client.get(back.removeprefix(HOST)).status_code == status
            assert visit.client.get(back.removeprefix(HOST)).status_code == 401
    assert (known.get("/v1/session").json()["label"], known.get("/v1/panels").json()) == ("李伟", [])
    assert stranger.get("/v1/panels").status_code == 401


def test_a_login_server_needs_to_be_described_whole(tmp_path, monkeypatch):
    (tmp_path / "login.toml").write_text('issuer = "https://login.example.cn"', encoding="utf-8")
    told = {"db": str(tmp_path / "c.db"), "login_server": tmp_path / "login.toml"}
    with pytest.raises(WeibingError, match="WEIBING_PUBLIC_URL"):
        clinic_behind(monkeypatch, **told)
    with pytest.raises(WeibingError, match=r"login\.toml does not say how to log in"):
        clinic_behind(monkeypatch, public_url=HOST, **told)
