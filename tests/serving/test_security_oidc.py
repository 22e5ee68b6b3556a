"""Login at a login server that runs: who comes back, in which browser, with which role."""

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from oidc_provider_mock import User, run_server_in_thread

from features.errors import WeibingError
from serving.security.login import LoginError
from serving.security.oidc import AWAY, LoginServer, Provider
from serving.store.database import Database
from tests.serving.accounts import KEY, quick_login

BACK = "http://localhost/login/back"
ROLES = {"family-doctors": "doctor", "health-bureau": "manager", "it": "administrator"}
PEOPLE = (
    User(sub="u1", claims={"groups": ["staff", "family-doctors"], "preferred_username": "Li.Wei", "name": "李伟"}),
    User(sub="u2", claims={"groups": ["staff"], "preferred_username": "zhao"}),
    User(sub="u3", claims={"groups": "it"}),
    User(sub="u4", claims={"groups": ["family-doctors"], "preferred_username": "Li.Wei"}),
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with run_server_in_thread(user_claims=PEOPLE, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def door(issuer, tmp_path) -> LoginServer:
    login = quick_login(Database.open(str(tmp_path / "county.db")))
    return LoginServer(Provider(issuer, "weibing", "the client's secret", BACK, ROLES), login.accounts, login.sessions)


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def go(address: str, who: str) -> dict[str, str]:
    """Log in at the login server as a browser does; return the parameters with which it is sent back."""
    sent = httpx.post(address, data={"sub": who}, follow_redirects=False)
    assert sent.headers["location"].startswith(BACK)
    return dict(parse_qsl(urlsplit(sent.headers["location"]).query))


def test_a_doctor_of_the_county_is_let_in(door):
    address, cookie = door.depart(now())
    secret, account = door.arrive(go(address, "u1"), cookie, now())
    assert (account.role, account.label, account.local) == ("doctor", "李伟", False)
    assert account.name == f"li.wei@{urlsplit(door.provider.issuer).netloc}"
    assert door.sessions.find(secret, now()).caller().user_id == account.id


def test_the_same_person_has_one_account_and_two_have_two(door):
    numbers = []
    for who in ("u1", "u1", "u4"):
        address, cookie = door.depart(now())
        numbers.append(door.arrive(go(address, who), cookie, now())[1])
    assert numbers[0].id == numbers[1].id != numbers[2].id
    assert numbers[2].name.startswith(numbers[0].name + "-")


def test_the_address_holds_a_challenge_and_not_its_secrets(door):
    address, state = door.depart(now())
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert asked["state"] == [state]
    assert len(asked["nonce"][0]) >= 32
    assert "secret" not in address
    assert "code_verifier" not in address


def test_whoever_redeems_the_code_shows_the_verifier_of_the_challenge(door, monkeypatch):
    sent = []
    post = httpx.Client.send

    def watched(self, request, **options):
        sent.append(request)
        return post(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", watched)
    address, cookie = door.depart(now())
    door.arrive(go(address, "u1"), cookie, now())
    body = next(parse_qs(one.content.decode()) for one in sent if one.url.path.endswith("/token"))
    made = base64.urlsafe_b64encode(hashlib.sha256(body["code_verifier"][0].encode()).digest()).decode().rstrip("=")
    assert parse_qs(urlsplit(address).query)["code_challenge"] == [made]


def test_an_administrator_needs_a_code_of_ours_too(door):
    address, cookie = door.depart(now())
    secret, _ = door.arrive(go(address, "u3"), cookie, now())
    assert door.sessions.find(secret, now()).step == "set up code"


def test_whoever_has_no_role_there_has_none_here(door, caplog):
    address, cookie = door.depart(now())
    with pytest.raises(LoginError):
        door.arrive(go(address, "u2"), cookie, now())
    assert "names no role" in caplog.text
    assert "zhao" not in caplog.text
    assert door.accounts.all() == []


def test_a_disabled_account_is_not_let_in(door):
    address, cookie = door.depart(now())
    _, account = door.arrive(go(address, "u1"), cookie, now())
    door.accounts.disable(account.name, now())
    address, cookie = door.depart(now())
    with pytest.raises(LoginError):
        door.arrive(go(address, "u1"), cookie, now())


def test_a_role_that_was_taken_away_ends_the_sessions(door):
    address, cookie = door.depart(now())
    secret, _ = door.arrive(go(address, "u1"), cookie, now())
    moved = replace(door, provider=replace(door.provider, roles={"staff": "manager"}))
    address, cookie = moved.depart(now())
    _, account = moved.arrive(go(address, "u1"), cookie, now())
    assert account.role == "manager"
    assert door.sessions.find(secret, now()) is None


def test_another_browser_is_not_let_in(door):
    address, _ = door.depart(now())
    _, other = door.depart(now())
    back = go(address, "u1")
    for cookie in (other, None, ""):
        with pytest.raises(LoginError):
            door.arrive(back, cookie, now())


def test_nobody_comes_back_twice_or_too_late(door):
    address, cookie = door.depart(now())
    back = go(address, "u1")
    door.arrive(back, cookie, now())
    with pytest.raises(LoginError):
        door.arrive(back, cookie, now())
    address, cookie = door.depart(now())
    with pytest.raises(LoginError):
        door.arrive(go(address, "u1"), cookie, now() + AWAY + timedelta(seconds=1))


@pytest.mark.parametrize("changed", [
    {"iss": "https://evil.example"}, {"code": "made up"}, {"code": ""}, {"error": "access_denied"},
])  # fmt: skip
def test_what_did_not_come_from_the_login_server_is_refused(door, changed):
    address, cookie = door.depart(now())
    with pytest.raises(LoginError):
        door.arrive({**go(address, "u1"), **changed}, cookie, now())


@dataclass
class Signed:
    """An ID token, and who says that it is theirs."""

    claims: dict[str, object]
    key: RSAKey

    def token(self) -> str:
        return jwt.encode({"alg": "RS256", "kid": "k"}, self.claims, self.key)


RSA = RSAKey.generate_key(2048, {"kid": "k"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "k"})


def by_hand(algorithm: str, claims: dict[str, object], secret: bytes = b"") -> str:
    """Write a token as no library would: signed with a text that everybody knows, or not at all."""
    told = [json.dumps(part).encode() for part in ({"alg": algorithm, "kid": "k"}, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in told)
    signature = hmac.digest(secret, text, "sha256") if secret else b""
    return f"{text.decode()}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


FORGED = {
    "another key": lambda claims: Signed(claims, OTHER_RSA).token(),
    "the public key as a secret": lambda claims: by_hand("HS256", claims, RSA.as_pem(private=False)),
    "no signature": lambda claims: by_hand("none", claims),
    "another issuer": lambda claims: Signed({**claims, "iss": "https://evil.example"}, RSA).token(),
    "another client": lambda claims: Signed({**claims, "aud": "another"}, RSA).token(),
    "another client, in our name": lambda claims: Signed({**claims, "aud": "another", "azp": "weibing"}, RSA).token(),
    "several clients": lambda claims: Signed({**claims, "aud": ["weibing", "another"]}, RSA).token(),
    "another login": lambda claims: Signed({**claims, "nonce": "another"}, RSA).token(),
    "no nonce": lambda claims: Signed({name: claims[name] for name in claims if name != "nonce"}, RSA).token(),
    "ended": lambda claims: Signed({**claims, "exp": claims["iat"] - 100}, RSA).token(),
    "from the future": lambda claims: Signed({**claims, "iat": claims["iat"] + 9_999}, RSA).token(),
    "nobody": lambda claims: Signed({**claims, "sub": ""}, RSA).token(),
    "no text": lambda claims: "nonsense",
}  # fmt: skip


def claims_of(door: LoginServer) -> dict[str, object]:
    issued = int(datetime.now(UTC).timestamp())
    return {
        "iss": door.provider.issuer,
        "aud": "weibing",
        "sub": "u1",
        "nonce": "n",
        "iat": issued,
        "exp": issued + 300,
    }


def test_a_token_of_the_issuers_key_is_taken(door):
    keys = {"keys": [RSA.as_dict(private=False)]}
    assert door._checked({"id_token": Signed(claims_of(door), RSA).token()}, keys, "n", now())["sub"] == "u1"


@pytest.mark.parametrize("forged", FORGED)
def test_a_token_that_is_forged_is_not_taken(door, forged):
    keys = {"keys": [RSA.as_dict(private=False)]}
    with pytest.raises(LoginError):
        door._checked({"id_token": FORGED[forged](claims_of(door))}, keys, "n", now())


@pytest.mark.parametrize("issuer", ["http://sso.county.cn", "ftp://sso", "", "sso.county.cn"])
def test_an_issuer_without_tls_is_refused(issuer):
    with pytest.raises(WeibingError, match="https://"):
        Provider(issuer, "weibing", "s", BACK, ROLES)


def test_a_role_of_systems_is_given_to_no_person():
    with pytest.raises(WeibingError, match="cannot mean"):
        Provider("https://sso.county.cn", "weibing", "s", BACK, {"x": "system"})


def test_a_login_server_that_is_gone_or_another_is_said(door):
    gone = replace(door, provider=replace(door.provider, issuer="http://127.0.0.1:9"))
    with pytest.raises(WeibingError, match="Check that it runs"):
        gone.depart(now())
    renamed = replace(
        door, provider=replace(door.provider, issuer=door.provider.issuer.replace("localhost", "127.0.0.1") + "/")
    )
    with pytest.raises(WeibingError, match=r"calls itself otherwise|does not answer"):
        renamed.depart(now())


def test_no_secret_is_in_a_log(door, caplog):
    caplog.set_level(logging.DEBUG, logger="serving")
    address, cookie = door.depart(now())
    back = go(address, "u1")
    secret, _ = door.arrive(back, cookie, now())
    with pytest.raises(LoginError):
        door.arrive(back, cookie, now())
    said = caplog.text + repr(door)
    for each in ("the client's secret", cookie, back["code"], secret, "u1", repr(KEY.hashing)):
        assert each not in said
