"""The way in: passwords, waits, one-time codes, sessions, tokens; on both databases."""

import logging
from base64 import b32decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sql
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from features.errors import WeibingError
from features.times import microseconds
from serving.security import totp
from serving.security.caller import RefusedError
from serving.security.login import Login, LoginError
from serving.security.passwords import Passwords, Policy, TooManyError, initial_password
from serving.security.roles import SCOPES
from serving.security.secrets import digest, new_secret
from serving.security.sessions import COOKIE, cookie
from serving.security.tokens import Replays, Tokens, bearer
from serving.store import accounts as tables
from serving.store.identity import Key
from tests.serving.accounts import GOOD, HERE, KEY, NOW, OTHER, QUICK, copied, let_in, quick_login

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def login(sqlite, tmp_path) -> Iterator[Login]:
    with copied(sqlite, tmp_path / "county.db") as copy:
        yield quick_login(copy)


@pytest.fixture
def impatient(login) -> Login:
    """The way in, where an address must wait after few failures."""
    return replace(login, waits=replace(login.waits, free={"account": 4, "code": 4, "address": 4}))


@pytest.fixture
def either(database) -> Login:
    """The way in, on either database: for what leans on how a database counts, locks or answers."""
    return quick_login(database)


def key_in(address: str) -> bytes:
    """Return the secret that an authenticator app reads."""
    shown = parse_qs(urlsplit(address).query)["secret"][0]
    return b32decode(shown + "=" * (-len(shown) % 8))


def code_of(key: bytes, when: datetime) -> str:
    return totp.code(key, totp.step_of(when))


def with_code(login: Login, name: str = "chen", now: datetime = NOW) -> tuple[str, bytes]:
    """Let an administrator in; return the secrets of the session and of the one-time codes."""
    pending = let_in(login, name, "administrator", now)
    key = key_in(login.set_up_code(pending, now))
    return login.confirm_code(pending, code_of(key, now), now), key


def fail(login: Login, times: int, name: str = "li", now: datetime = NOW, address: str = HERE) -> None:
    for _ in range(times):
        with pytest.raises(LoginError):
            login.by_password(name, "wrong", address, now)


# RFC 6238, appendix B: seconds since 1970, algorithm, secret, code of eight digits.
VECTORS = """
    59          | sha1   | 94287082
    59          | sha256 | 46119246
    59          | sha512 | 90693936
    1111111109  | sha1   | 07081804
    1111111109  | sha256 | 68084774
    1111111109  | sha512 | 25091201
    1111111111  | sha1   | 14050471
    1111111111  | sha256 | 67062674
    1111111111  | sha512 | 99943326
    1234567890  | sha1   | 89005924
    1234567890  | sha256 | 91819424
    1234567890  | sha512 | 93441116
    2000000000  | sha1   | 69279037
    2000000000  | sha256 | 90698825
    2000000000  | sha512 | 38618901
    20000000000 | sha1   | 65353130
    20000000000 | sha256 | 77737706
    20000000000 | sha512 | 47863826
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in VECTORS.split("\n") if line.strip()]


@pytest.mark.parametrize(("seconds", "algorithm", "expected"), ROWS)
def test_codes_are_those_of_the_standard(seconds, algorithm, expected):
    key = (b"1234567890" * 7)[: {"sha1": 20, "sha256": 32, "sha512": 64}[algorithm]]
    when = datetime(1970, 1, 1) + timedelta(seconds=int(seconds))
    assert totp.code(key, totp.step_of(when), digits=8, algorithm=algorithm) == expected


def test_a_code_is_taken_half_a_minute_early_or_late_and_no_more():
    key, step = totp.new_key(), totp.step_of(NOW)
    taken = [off for off in range(-3, 4) if totp.matching_step(key, totp.code(key, step + off), NOW) == step + off]
    assert taken == [-1, 0, 1]


@pytest.mark.parametrize("typed", ["", "12345", "abcdef", "１２３４５６", "000000000000000000", "\0", "-12345"])
def test_what_is_no_code_is_not_taken(typed):
    assert totp.matching_step(b"k" * 20, typed, NOW) is None


def test_a_half_minute_that_was_taken_is_not_taken_again():
    key, step = totp.new_key(), totp.step_of(NOW)
    assert totp.matching_step(key, totp.code(key, step), NOW, after=step - 1) == step
    assert totp.matching_step(key, totp.code(key, step), NOW, after=step) is None


# What is typed, and why it is refused.
REFUSED = """
    short1A!          | fewer than 12
    aaaaaaaaAAAA11    | others guess
    Password12345!    | others guess
    ..woaini1314520!  | others guess
    qwertyuiopasdfghjklzx | others guess
    alllowercase      | it needs 3
    Li.Wei-2026-yes   | your name
"""


@pytest.mark.parametrize("line", [line.strip() for line in REFUSED.split("\n") if line.strip()])
def test_a_password_that_is_easily_guessed_is_refused(line):
    password, fault = (cell.strip() for cell in line.split("|"))
    with pytest.raises(WeibingError, match=fault) as refused:
        Policy().check(password, "li.wei")
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", [GOOD, "correct horse battery staple", "我家门前有两棵枣树A1x", "Tr0ub4dor&3xyz"])
def test_a_good_password_is_taken(password):
    Policy().check(password, "li.wei")


def test_the_same_password_again_is_refused_however_it_is_typed():
    with pytest.raises(WeibingError, match="the one you have now"):
        Policy().check("Ｓieben-Birken-am-Fluss-7", "li", GOOD)


def test_an_initial_password_is_good_and_never_the_same():
    drawn = {initial_password() for _ in range(50)}
    assert len(drawn) == 50
    for password in drawn:
        Policy().check(password, "li.wei")


@given(st.text(max_size=40))
def test_a_password_matches_its_own_hash_alone(password):
    passwords = Passwords(QUICK)
    kept = passwords.hashed(password)
    assert passwords.match(kept, password)
    assert not passwords.match(kept, password + "x")
    assert not passwords.match(None, password)
    assert not passwords.match("no hash at all", password)
    assert kept.startswith("$argon2id$")


def test_a_hash_of_less_work_is_outdated():
    assert Passwords().is_outdated(Passwords(QUICK).hashed(GOOD))


def test_nobody_is_let_in_by_the_initial_password(either):
    account, initial = either.accounts.add("Li.Wei", "doctor", NOW)
    secret, _ = either.by_password("li.wei", initial, HERE, NOW)
    session = either.sessions.find(secret, NOW)
    assert session.step == "change password"
    with pytest.raises(RefusedError):
        session.caller()
    fresh = either.change_password(secret, initial, GOOD, NOW)
    caller = either.sessions.find(fresh, NOW).caller(frozenset({3}))
    assert (caller.user_id, caller.role, caller.panels, caller.via) == (account.id, "doctor", frozenset({3}), "session")
    assert either.sessions.find(secret, NOW) is None


def test_an_initial_password_is_of_no_use_after_a_week(login):
    _, initial = login.accounts.add("li", "doctor", NOW)
    with pytest.raises(LoginError):
        login.by_password("li", initial, HERE, NOW + 7 * DAY)


def test_a_password_is_changed_after_half_a_year(login):
    let_in(login, "li")
    later = NOW + 180 * DAY
    secret, _ = login.by_password("li", GOOD, HERE, later)
    assert login.sessions.find(secret, later).step == "change password"


def test_a_changed_password_ends_all_sessions(either):
    one = let_in(either, "li")
    other, _ = either.by_password("li", GOOD, HERE, NOW)
    fresh = either.change_password(one, GOOD, OTHER, NOW)
    assert [either.sessions.find(each, NOW) is not None for each in (one, other, fresh)] == [False, False, True]
    with pytest.raises(LoginError):
        either.by_password("li", GOOD, HERE, NOW)


def test_a_password_is_not_changed_without_the_present_one(login):
    secret = let_in(login, "li")
    with pytest.raises(LoginError):
        login.change_password(secret, "wrong", OTHER, NOW)
    with pytest.raises(LoginError):
        login.change_password(new_secret(), GOOD, OTHER, NOW)


def test_a_wrong_name_fails_as_a_wrong_password_does(login):
    let_in(login, "li")
    said = []
    for name in ("li", "nobody"):
        with pytest.raises(LoginError) as refused:
            login.by_password(name, "wrong", HERE, NOW)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_the_waits_grow_and_end_with_the_right_password(either):
    let_in(either, "li")
    fail(either, 5)
    with pytest.raises(TooManyError) as first:
        either.by_password("li", GOOD, HERE, NOW)
    assert first.value.seconds == 16
    fail(either, 1, now=NOW + 15 * timedelta(seconds=1))
    with pytest.raises(TooManyError) as second:
        either.by_password("li", GOOD, HERE, NOW + 16 * timedelta(seconds=1))
    assert second.value.seconds == 30
    either.by_password("li", GOOD, HERE, NOW + MINUTE)
    fail(either, 4, now=NOW + MINUTE)


def test_waits_are_never_longer_than_an_hour(login):
    assert [login.waits.seconds_after(count, "account") for count in (1, 4, 5, 6, 12, 13, 99, 10**9)] == [
        0, 0, 15, 30, 1920, 3600, 3600, 3600,
    ]  # fmt: skip


def test_an_address_that_tries_many_names_must_wait_and_others_need_not(impatient):
    let_in(impatient, "li")
    for number in range(5):
        fail(impatient, 1, f"name{number}")
    with pytest.raises(TooManyError):
        impatient.by_password("li", GOOD, HERE, NOW)
    impatient.by_password("li", GOOD, "10.9.9.9", NOW)


def test_a_login_of_ones_own_does_not_wash_an_address_clean(impatient):
    let_in(impatient, "li")
    for number in range(5):
        fail(impatient, 1, f"name{number}")
        if number < 4:
            impatient.by_password("li", GOOD, HERE, NOW)
    with pytest.raises(TooManyError):
        impatient.by_password("li", GOOD, HERE, NOW)


def test_failures_are_forgotten_after_a_day(login):
    let_in(login, "li")
    fail(login, 5)
    fail(login, 4, now=NOW + DAY + MINUTE)
    login.waits.sweep(NOW + 3 * DAY)
    with login.accounts.database.reading() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(tables.failures)).scalar() == 0


def test_a_clock_that_was_ahead_locks_nobody_out_for_long(login):
    let_in(login, "li")
    fail(login, 5, now=NOW + 365 * DAY)
    login.by_password("li", GOOD, HERE, NOW)


def test_many_tries_at_once_are_no_way_around_the_wait(either):
    let_in(either, "li")

    def attempt(_: int) -> str:
        try:
            either.by_password("li", "wrong", HERE, NOW)
        except (LoginError, TooManyError) as error:
            return type(error).__name__
        return "in"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(24)))
    assert found.count("LoginError") == 5
    assert found.count("TooManyError") == 19


def test_an_administrator_gets_in_with_a_code_alone(login):
    pending = let_in(login, "chen", "administrator")
    assert login.sessions.find(pending, NOW).step == "set up code"
    address = login.set_up_code(pending, NOW)
    with pytest.raises(LoginError):
        login.confirm_code(pending, "000000" if code_of(key_in(address), NOW) != "000000" else "111111", NOW)
    whole = login.confirm_code(pending, code_of(key_in(address), NOW), NOW)
    assert login.sessions.find(pending, NOW) is None
    assert login.sessions.find(whole, NOW).caller().role == "administrator"


def test_the_next_login_asks_for_a_code_and_takes_it_once(either):
    _, key = with_code(either)
    later = NOW + 5 * MINUTE
    first, _ = either.by_password("chen", GOOD, HERE, later)
    assert either.sessions.find(first, later).step == "give code"
    with pytest.raises(LoginError):
        either.change_password(first, GOOD, OTHER, later)
    whole = either.give_code(first, code_of(key, later), later)
    assert either.sessions.find(whole, later).step is None
    second, _ = either.by_password("chen", GOOD, HERE, later)
    with pytest.raises(LoginError):
        either.give_code(second, code_of(key, later), later)
    either.give_code(second, code_of(key, later + MINUTE), later + MINUTE)


def test_the_code_of_the_setting_up_is_not_taken_again(login):
    _, key = with_code(login)
    again, _ = login.by_password("chen", GOOD, HERE, NOW)
    with pytest.raises(LoginError):
        login.give_code(again, code_of(key, NOW), NOW)


def test_one_code_lets_in_one_of_many_at_once(either):
    _, key = with_code(either)
    later = NOW + 5 * MINUTE
    pending = [either.by_password("chen", GOOD, HERE, later)[0] for _ in range(4)]

    def attempt(secret: str) -> bool:
        try:
            either.give_code(secret, code_of(key, later), later)
        except LoginError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, pending)) == 1


def test_codes_cannot_be_tried_one_after_the_other(login):
    with_code(login)
    pending, _ = login.by_password("chen", GOOD, HERE, NOW + MINUTE)
    for _ in range(5):
        with pytest.raises(LoginError):
            login.give_code(pending, "not a code", NOW + MINUTE)
    with pytest.raises(TooManyError):
        login.give_code(pending, "123456", NOW + MINUTE)


def test_a_code_that_works_is_not_replaced_by_whoever_is_logged_in(login):
    whole, _ = with_code(login)
    with pytest.raises(LoginError):
        login.set_up_code(whole, NOW)


def test_another_key_opens_no_secret_of_codes(login):
    with_code(login)
    thief = replace(login, key=Key.of("another key of thirty-two letters or more"))
    pending, _ = thief.by_password("chen", GOOD, HERE, NOW)
    with pytest.raises(WeibingError, match="the key is another one"):
        thief.give_code(pending, "123456", NOW)


@pytest.mark.parametrize(("after", "lives"), [(timedelta(minutes=29), True), (timedelta(minutes=30), False)])
def test_a_session_ends_when_it_is_not_used(login, after, lives):
    secret = let_in(login, "li")
    assert (login.sessions.find(secret, NOW + after) is not None) == lives


def test_a_session_ends_after_half_a_day_however_it_is_used(login):
    secret = let_in(login, "li")
    for minutes in range(0, 12 * 60, 29):
        assert login.sessions.find(secret, NOW + minutes * MINUTE) is not None
    assert login.sessions.find(secret, NOW + timedelta(hours=12)) is None
    assert login.sessions.find(secret, NOW) is None


def test_whoever_logs_out_is_out(login):
    secret = let_in(login, "li")
    login.sessions.end(secret)
    assert login.sessions.find(secret, NOW) is None


def test_a_session_is_kept_as_a_digest(login):
    secret = let_in(login, "li")
    with login.accounts.database.reading() as connection:
        kept = connection.execute(sql.select(tables.sessions.c.digest)).scalars().all()
    assert kept == [digest(secret)]


def test_old_sessions_are_swept(login):
    let_in(login, "li")
    login.sessions.sweep(NOW + DAY)
    with login.accounts.database.reading() as connection:
        assert not connection.execute(sql.select(tables.sessions)).all()


def test_the_cookie_is_for_this_host_and_no_script():
    told = cookie("secret")
    assert told["key"] == COOKIE == "__Host-weibing"
    assert (told["secure"], told["httponly"], told["samesite"], told["path"]) == (True, True, "lax", "/")
    assert "domain" not in told
    assert cookie(None)["max_age"] == 0


def test_a_disabled_account_is_out_at_once(login):
    let_in(login, "chen", "administrator")
    secret = let_in(login, "li")
    login.accounts.disable("li", NOW)
    assert login.sessions.find(secret, NOW) is None
    with pytest.raises(LoginError):
        login.by_password("li", GOOD, HERE, NOW)


def test_the_last_administrator_is_not_disabled(either):
    let_in(either, "chen", "administrator")
    with pytest.raises(WeibingError, match="the last who can manage users"):
        either.accounts.disable("chen", NOW)
    let_in(either, "wu", "administrator")
    either.accounts.disable("chen", NOW)


def test_a_reset_takes_away_the_password_the_code_and_the_sessions(either):
    whole, _ = with_code(either)
    initial = either.accounts.reset("chen", NOW)
    assert either.sessions.find(whole, NOW) is None
    with pytest.raises(LoginError):
        either.by_password("chen", GOOD, HERE, NOW)
    secret, _ = either.by_password("chen", initial, HERE, NOW)
    pending = either.change_password(secret, initial, OTHER, NOW)
    assert either.sessions.find(pending, NOW).step == "set up code"


@pytest.mark.parametrize("name", ["", "a b", "li@county", "x" * 61, "<script>", "li\0"])
def test_a_name_that_cannot_be_one_is_refused(login, name):
    with pytest.raises(WeibingError, match="cannot be the name"):
        login.accounts.add(name, "doctor", NOW)


def test_a_name_is_the_same_in_capitals_and_given_once(either):
    either.accounts.add("Li", "doctor", NOW)
    with pytest.raises(WeibingError, match='an account "li" already'):
        either.accounts.add("LI", "doctor", NOW)
    with pytest.raises(WeibingError, match=r'no role "docter".*Did you mean "doctor"'):
        either.accounts.add("wu", "docter", NOW)
    with pytest.raises(WeibingError, match=r'no account "lii".*Did you mean "li"'):
        either.accounts.named("lii")


def test_a_system_has_no_password(login):
    account, initial = login.accounts.add("lab", "system", NOW)
    assert (initial, account.password) == (None, None)
    with pytest.raises(LoginError):
        login.by_password("lab", "", HERE, NOW)
    with pytest.raises(WeibingError, match="it has tokens"):
        login.accounts.reset("lab", NOW)


def test_a_token_gives_its_scopes_until_it_ends(either):
    system, _ = either.accounts.add("lab", "system", NOW)
    tokens = Tokens(either.accounts.database)
    token, secret = tokens.make(system, ["record-observation"], 90, NOW)
    caller = tokens.caller(secret, NOW)
    assert (caller.role, caller.via, caller.scopes) == ("system", "token", frozenset({"record-observation"}))
    assert tokens.caller(secret, NOW + 90 * DAY - MINUTE) is not None
    assert tokens.caller(secret, NOW + 90 * DAY) is None
    assert [each.id for each in tokens.all(system)] == [token.id]


def test_a_revoked_token_is_of_no_use_at_once(login):
    system, _ = login.accounts.add("lab", "system", NOW)
    tokens = Tokens(login.accounts.database)
    token, secret = tokens.make(system, ["score"], 90, NOW)
    tokens.revoke(token.id, NOW)
    assert tokens.caller(secret, NOW) is None
    with pytest.raises(WeibingError, match="no token 99"):
        tokens.revoke(99, NOW)


def test_a_disabled_systems_tokens_are_of_no_use(login):
    system, _ = login.accounts.add("lab", "system", NOW)
    tokens = Tokens(login.accounts.database)
    _, secret = tokens.make(system, ["score"], 90, NOW)
    login.accounts.disable("lab", NOW)
    assert tokens.caller(secret, NOW) is None
    with pytest.raises(WeibingError, match="is disabled"):
        tokens.make(login.accounts.named("lab"), ["score"], 90, NOW)


def test_a_token_is_kept_as_a_digest(login):
    system, _ = login.accounts.add("lab", "system", NOW)
    _, secret = Tokens(login.accounts.database).make(system, ["score"], 90, NOW)
    with login.accounts.database.reading() as connection:
        row = connection.execute(sql.select(tables.tokens)).one()
    assert secret not in str(row)
    assert row.digest == digest(secret)


@pytest.mark.parametrize(("scopes", "days", "fault"), [
    ([], 9, "names what it is for"), (["scores"], 9, 'Did you mean "score"'), (["score"], 0, "not 0"),
    (["score"], 367, "not 367"), (["manage-users"], 9, "no scope"),
])  # fmt: skip
def test_a_token_for_nothing_or_for_ever_is_refused(login, scopes, days, fault):
    system, _ = login.accounts.add("lab", "system", NOW)
    with pytest.raises(WeibingError, match=fault):
        Tokens(login.accounts.database).make(system, scopes, days, NOW)


def test_a_person_gets_no_token(login):
    doctor, _ = login.accounts.add("li", "doctor", NOW)
    with pytest.raises(WeibingError, match="tokens are for systems"):
        Tokens(login.accounts.database).make(doctor, list(SCOPES), 9, NOW)


@pytest.mark.parametrize(
    "secret", ["", "weibing_", "weibing_" + "x" * 43, "Bearer", "x" * 10_000, "weibing_\0", "weibing_\ud800"]
)
def test_what_is_no_token_is_nobody(login, secret):
    assert Tokens(login.accounts.database).caller(secret, NOW) is None
    assert login.sessions.find(secret, NOW) is None


@pytest.mark.parametrize(("header", "token"), [
    ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("Bearer  ", None),
    (None, None),
])  # fmt: skip
def test_a_bearers_token_is_read_from_the_header(header, token):
    assert bearer(header) == token


def test_a_signed_call_is_taken_once(either):
    replays = Replays(either.accounts.database)
    assert replays.is_first("ehr", "1", NOW + MINUTE, NOW)
    assert not replays.is_first("ehr", "1", NOW + MINUTE, NOW)
    assert replays.is_first("another", "1", NOW + MINUTE, NOW)
    assert replays.is_first("ehr", "1", NOW + DAY, NOW + 2 * MINUTE)


def test_no_secret_is_in_a_log_or_an_exception(either, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = [GOOD, OTHER, "a wrong one"]
    account, initial = either.accounts.add("zhao.mingming", "administrator", NOW)
    pending, _ = either.by_password("zhao.mingming", initial, HERE, NOW)
    pending = either.change_password(pending, initial, GOOD, NOW)
    address = either.set_up_code(pending, NOW)
    code = code_of(key_in(address), NOW)
    whole = either.confirm_code(pending, code, NOW)
    _, token = Tokens(either.accounts.database).make(either.accounts.add("lab", "system", NOW)[0], ["score"], 9, NOW)
    said = [repr(either), repr(either.sessions.find(whole, NOW)), repr(either.accounts.all()), repr(account)]
    for attempt in (
        lambda: either.by_password("zhao.mingming", "a wrong one", HERE, NOW),
        lambda: either.change_password(whole, "a wrong one", OTHER, NOW),
        lambda: either.change_password(whole, GOOD, "short", NOW),
        lambda: either.confirm_code(whole, code, NOW),
    ):
        with pytest.raises((LoginError, WeibingError)) as refused:
            attempt()
        said.append(f"{refused.value!r} {refused.value}")
    secrets += [initial, pending, whole, token, code, address, KEY.encrypting.hex(), repr(KEY.encrypting)]
    for secret in secrets:
        assert secret not in " ".join(said) + caplog.text


def test_an_error_of_the_database_tells_no_value(either, caplog):
    with pytest.raises(DBAPIError) as broken, either.accounts.database.writing() as connection:
        connection.execute(sql.text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "zhang-san-110101"})
    assert "zhang-san-110101" not in str(broken.value)


def test_a_step_is_half_a_minute():
    assert totp.step_of(NOW) == microseconds(NOW) // 30_000_000
