"""Who may do what: no path leaks, whatever the role, the resident, the panel and the action."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.security import csrf
from serving.security.caller import Caller, Panel, RefusedError, Resident, may, require
from serving.security.roles import MAY, OF, ROLES, SCOPES, WITH_CODE

# Written out by hand, as an oracle: who may do it to a resident or panel of their own, who to any, and which scope.
#   action             | one's own | any                               | scope of a system
PLAIN = """
    see resident       | doctor    |                                   | see-resident
    see identity       | doctor    |                                   | see-identity
    record visit       | doctor    |                                   |
    record observation | doctor    |                                   | record-observation
    acknowledge alert  | doctor    |                                   |
    opt out            | doctor    |                                   |
    see list           | doctor    |                                   | see-list
    score              |           | scientist                         | score
    export run         |           |                                   | export-run
    see counts         |           | manager scientist                 |
    plan campaign      |           | manager                           |
    see models         |           | doctor manager scientist          |
    see drift          |           | scientist                         |
    promote model      |           | scientist                         |
    manage users       |           | administrator                     |
    see audit          |           | administrator                     |
    see metrics        |           | administrator                     | see-metrics
    change password    |           | doctor manager scientist administrator |
"""
ORACLE = {
    cells[0]: cells[1:]
    for cells in ([cell.strip() for cell in line.split("|")] for line in PLAIN.split("\n") if line.strip())
}
OF_RESIDENT = {
    "see resident", "see identity", "record visit", "record observation", "acknowledge alert", "opt out",
}  # fmt: skip

panel_ids = st.frozensets(st.integers(1, 6), max_size=3)
words = st.text(string.ascii_letters + " -_", max_size=20)
callers = st.builds(
    Caller,
    user_id=st.integers(1, 9),
    name=words,
    role=st.sampled_from([*ROLES, "root", ""]),
    panels=panel_ids,
    scopes=st.frozensets(st.sampled_from([*(action.replace(" ", "-") for action in OF), "*", "all"]), max_size=4),
    via=st.sampled_from(["session", "token", "command"]),
)
subjects = st.one_of(
    st.none(), st.builds(Resident, id=st.integers(1, 99), panels=panel_ids), st.builds(Panel, id=st.integers(1, 6))
)
actions = st.one_of(st.sampled_from(list(OF)), words)


def expected(caller: Caller, action: str, of: Resident | Panel | None) -> bool:
    """Say in plain steps what the table above says."""
    if action not in ORACLE:
        return False
    own, anybody, scope = ORACLE[action]
    needs = "resident" if action in OF_RESIDENT else "panel" if action == "see list" else "nothing"
    given_kind = {Resident: "resident", Panel: "panel"}.get(type(of), "nothing")
    if needs != given_kind:
        return False
    if caller.role == "system":
        return scope != "" and caller.via == "token" and scope in caller.scopes
    if caller.via == "token":
        return False
    if caller.role in anybody.split():
        return True
    if caller.role != own or of is None:
        return False
    theirs = of.panels if isinstance(of, Resident) else {of.id}
    return any(panel in theirs for panel in caller.panels)


@given(callers, actions, subjects)
def test_nobody_may_do_what_the_plain_table_does_not_say(caller, action, of):
    assert may(caller, action, of) == expected(caller, action, of)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", OF)
def test_each_role_may_do_what_the_plain_table_says(role, action):
    of = {"resident": Resident(7, frozenset({2})), "panel": Panel(2), "nothing": None}[OF[action]]
    scopes = frozenset({action.replace(" ", "-")})
    caller = Caller(1, "li", role, frozenset({2}), scopes, "token" if role == "system" else "session")
    assert may(caller, action, of) == expected(caller, action, of)
    assert may(caller, action, of) == (action in MAY[role])


@given(callers, st.sampled_from(list(OF)), subjects)
def test_no_panel_and_no_scope_leave_only_what_is_of_nobody(caller, action, of):
    bare = replace(caller, panels=frozenset(), scopes=frozenset())
    if may(bare, action, of):
        assert OF[action] == "nothing"
        assert bare.role != "system"


def test_a_doctor_does_not_see_a_resident_who_has_left_the_panel():
    doctor = Caller(1, "li", "doctor", frozenset({2}), frozenset(), "session")
    assert may(doctor, "see resident", Resident(7, frozenset({2})))
    assert not may(doctor, "see resident", Resident(7, frozenset({3})))
    assert not may(doctor, "see resident", Resident(7))


def test_the_number_of_a_panel_is_not_taken_for_that_of_a_resident():
    doctor = Caller(1, "li", "doctor", frozenset({2}), frozenset(), "session")
    assert not may(doctor, "see resident", Panel(2))
    assert not may(doctor, "see list", Resident(2, frozenset({2})))


def test_a_manager_gets_nobody():
    manager = Caller(1, "wu", "manager", frozenset({1, 2, 3}), frozenset(SCOPES), "session")
    one = Resident(7, frozenset({1, 2, 3}))
    assert not any(may(manager, action, one) for action in OF)
    assert not any(may(manager, action, Panel(1)) for action in OF)


def test_a_refusal_names_the_action_and_nobody():
    doctor = Caller(1, "li", "doctor", frozenset(), frozenset(), "session")
    with pytest.raises(RefusedError) as refused:
        require(doctor, "see identity", Resident(4711, frozenset({23})))
    assert str(refused.value) == "You may not do this: see identity."


def test_whoever_manages_users_needs_a_code():
    assert {"administrator"} == WITH_CODE


def test_a_form_needs_the_token_of_its_own_cookie():
    token = csrf.form_token("secret of the session")
    here = {"origin": "https://weibing.county.cn", "host": "weibing.county.cn"}
    assert csrf.is_ours("POST", "secret of the session", token, **here)
    assert csrf.is_ours("POST", "secret of the session", token, origin=None, host="weibing.county.cn")
    assert not csrf.is_ours("POST", "another secret", token, **here)
    assert not csrf.is_ours("POST", "secret of the session", None, **here)
    assert not csrf.is_ours("POST", None, csrf.form_token(""), **here)
    assert not csrf.is_ours("POST", "", csrf.form_token(""), **here)
    assert "secret" not in token


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://[", "https://weibing.county.cn.evil.example"]
)
def test_a_form_of_another_site_is_refused(origin):
    token = csrf.form_token("s")
    assert not csrf.is_ours("POST", "s", token, origin=origin, host="weibing.county.cn")


def test_reading_a_page_needs_no_token():
    assert csrf.is_ours("GET", None, None, origin=None, host="weibing.county.cn")
    assert not csrf.is_ours("DELETE", None, None, origin=None, host="weibing.county.cn")
