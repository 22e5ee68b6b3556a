"""Login at the county's own login server: OpenID Connect, the code flow with PKCE.

One issuer, the configured one. What was sent away comes back once, in the browser that left, within ten minutes. The
server says who somebody is and, by a claim, with which role; a claim that names no role lets nobody in.
"""

import hmac
import logging
import secrets
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

from features.errors import WeibingError
from serving.security.accounts import Account, Accounts
from serving.security.login import LoginError
from serving.security.roles import ROLES, Role
from serving.security.secrets import digest, new_secret
from serving.security.sessions import Sessions
from serving.store.accounts import departures

with warnings.catch_warnings():
    # It says that it will want httpx2 one day.
    warnings.simplefilter("ignore")
    from authlib.integrations.httpx_client import OAuth2Client

log = logging.getLogger(__name__)

# A key that both sides know could be anybody's: the issuer alone can sign.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
AWAY = timedelta(minutes=10)
# Where people come back to.
ARRIVAL = "/login/arrived"
# How far two clocks may be apart.
LEEWAY_SECONDS = 60
TIMEOUT_SECONDS = 10.0
LONGEST_TEXT = 255
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True)
class Provider:
    """The login server, as an operator sets it.

    Attributes
    ----------
    redirect_uri : where it sends people back to; it knows this address
    claim : which of its claims says the role
    roles : what the claim says, and the role that is; of several, the first here
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    roles: Mapping[str, Role]
    claim: str = "groups"
    scope: str = "openid profile"

    def __post_init__(self) -> None:
        """Refuse what would not be safe."""
        _need_safe(self.issuer, "The issuer")
        for value, role in self.roles.items():
            if role not in ROLES or role == "system":
                raise WeibingError(f'The login server\'s "{value}" cannot mean the role "{role}": it is no person\'s.')

    @classmethod
    def in_file(cls, file: Path, public_url: str) -> "Provider":
        """Read what a TOML file says: issuer, client_id, client_secret_file, claim, scope and the table roles.

        Raises
        ------
        WeibingError
            If it cannot be read or says something else, or nobody is told where others reach the service.
        """
        if not public_url:
            raise WeibingError(
                "Login by a login server needs WEIBING_PUBLIC_URL, such as https://weibing.example.cn: people are sent "
                "back there."
            )
        try:
            said = tomllib.loads(file.read_text(encoding="utf-8"))
            secret = file.parent.joinpath(str(said.pop("client_secret_file"))).read_text(encoding="utf-8").strip()
            return cls(client_secret=secret, redirect_uri=f"{public_url}{ARRIVAL}", **said)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeibingError(
                f"{file} does not say how to log in by a login server ({error}). It needs issuer, client_id, "
                "client_secret_file and the table roles; see docs/security.md."
            ) from error

    def role_of(self, claims: Mapping[str, object]) -> Role | None:
        """Return the role that claims give, or None."""
        said = claims.get(self.claim)
        values = said if isinstance(said, list) else [said]
        return next((role for value, role in self.roles.items() if value in values), None)


@dataclass(frozen=True)
class LoginServer:
    """The way in by the login server."""

    provider: Provider
    accounts: Accounts
    sessions: Sessions

    def depart(self, now: datetime) -> tuple[str, str]:
        """Return where to send a browser, and the secret for a cookie by which it is known when it comes back.

        Raises
        ------
        WeibingError
            If the login server cannot be reached, or is not the one that is set.
        """
        state, nonce, verifier = new_secret(), new_secret(), secrets.token_urlsafe(64)
        row = {"state": digest(state), "nonce": nonce, "verifier": verifier, "ends_at": now + AWAY}
        with self._client() as client:
            endpoint = self._metadata(client)["authorization_endpoint"]
            address, _ = client.create_authorization_url(endpoint, state=state, nonce=nonce, code_verifier=verifier)
        with self.accounts.database.writing() as connection:
            connection.execute(departures.delete().where(departures.c.ends_at < now))
            connection.execute(departures.insert().values(row))
        return str(address), state

    def arrive(self, said: Mapping[str, str], cookie: str | None, now: datetime) -> tuple[str, Account]:
        """Let somebody in who comes back; return the secret of the session, and whose it is.

        Parameters
        ----------
        said
            The parameters of the address to which the login server sent the browser.
        cookie
            The secret of :meth:`depart`, as the browser has it.

        Raises
        ------
        LoginError
            If it is not who may come in; the log says why.
        WeibingError
            If the login server cannot be reached.
        """
        nonce, verifier = self._departure(said, cookie, now)
        claims = self._claims(said.get("code", ""), nonce, verifier, now)
        role = self.provider.role_of(claims)
        if role is None:
            raise _refused(f"its claim {self.provider.claim} names no role")
        account = self._account(claims, role, now)
        if account.disabled_at is not None:
            raise _refused("the account is disabled")
        return self.sessions.begin(account, now, whole=False), account

    def _departure(self, said: Mapping[str, str], cookie: str | None, now: datetime) -> tuple[str, str]:
        """Return the nonce and the verifier of whoever left, once."""
        state = said.get("state", "")
        if not cookie or not hmac.compare_digest(digest(cookie), digest(state)):
            raise _refused("it is not the browser that left")
        mine = departures.c.state == digest(state)
        with self.accounts.database.writing() as connection:
            found = connection.execute(departures.delete().where(mine).returning(*departures.c)).one_or_none()
        if found is None or found.ends_at < now:
            raise _refused("it came back too late, or twice")
        if said.get("iss", self.provider.issuer) != self.provider.issuer:
            raise _refused("it comes from another issuer")
        if "error" in said or not said.get("code"):
            raise _refused("the login server refused")
        return found.nonce, found.verifier

    def _claims(self, code: str, nonce: str, verifier: str, now: datetime) -> Mapping[str, object]:
        with self._client() as client:
            metadata = self._metadata(client)
            try:
                answer = client.fetch_token(metadata["token_endpoint"], code=code, code_verifier=verifier)
            except OAuthError:
                raise _refused("the login server gave no token for the code") from None
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            return self._checked(answer, self._get(client, metadata["jwks_uri"]), nonce, now)

    def _checked(
        self, answer: Mapping[str, object], keys: Mapping[str, object], nonce: str, now: datetime
    ) -> Mapping[str, object]:
        """Return the claims of an ID token that the issuer signed, for us, now, in answer to this login."""
        options = {
            "iss": {"essential": True, "value": self.provider.issuer},
            "aud": {"essential": True, "value": self.provider.client_id},
        }
        told = {"nonce": nonce, "client_id": self.provider.client_id, "access_token": answer.get("access_token")}
        try:
            token = jwt.decode(
                str(answer.get("id_token", "")), KeySet.import_key_set(cast(KeySetSerialization, keys)), ALGORITHMS
            )
            claims = CodeIDToken(token.claims, token.header, options, told)
            claims.validate(now=int((now - datetime(1970, 1, 1)).total_seconds()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise _refused(f"its ID token does not hold ({type(error).__name__})") from None
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_TEXT:
            raise _refused("its ID token names nobody")
        return dict(claims)

    def _account(self, claims: Mapping[str, object], role: Role, now: datetime) -> Account:
        subject, issuer = str(claims["sub"]), self.provider.issuer
        called = str(claims.get("preferred_username") or subject)[:LONGEST_TEXT]
        label = str(claims.get("name") or called)[:LONGEST_TEXT]
        return self.accounts.from_issuer(issuer, subject, role, f"{called}@{urlsplit(issuer).netloc}", label, now)

    def _client(self) -> OAuth2Client:
        return OAuth2Client(
            self.provider.client_id,
            self.provider.client_secret,
            scope=self.provider.scope,
            redirect_uri=self.provider.redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    def _metadata(self, client: OAuth2Client) -> dict[str, str]:
        issuer = self.provider.issuer
        found = self._get(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise WeibingError(f"The login server at {issuer} calls itself otherwise. Set the issuer as it says it.")
        endpoints = {name: str(found.get(name, "")) for name in NEEDED}
        for name, address in endpoints.items():
            _need_safe(address, f"The login server's {name}")
        return endpoints

    def _get(self, client: OAuth2Client, address: str) -> dict[str, object]:
        try:
            answer = client.request("GET", address, withhold_token=True)
            answer.raise_for_status()
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(error) from None
        if not isinstance(found, dict):
            raise self._unreachable(TypeError())
        return found

    def _unreachable(self, error: Exception) -> WeibingError:
        return WeibingError(
            f"The login server at {self.provider.issuer} does not answer as it must ({type(error).__name__}). "
            "Check that it runs, and that this machine reaches it."
        )


def _refused(why: str) -> LoginError:
    log.warning("A login by the login server was refused: %s.", why)
    return LoginError()


def _need_safe(address: str, what: str) -> None:
    """Refuse an address on whose way somebody could listen: https, or this machine itself."""
    parts = urlsplit(address)
    if not (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))
    ):
        raise WeibingError(f"{what} must be an address that begins with https://. Set it so.")
