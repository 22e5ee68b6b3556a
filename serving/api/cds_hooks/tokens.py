"""JSON web tokens, by which a system says who it is: signed by a key of its own, for one address, for one use."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Protocol, cast

from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool

from serving.api.cds_hooks.clients import Client
from serving.api.cds_hooks.outward import OutwardError, outward
from serving.api.problems import ProblemError, unavailable
from serving.settings import Settings

log = logging.getLogger(__name__)

# Asymmetric ones alone: with a shared secret, whoever can verify can sign.
ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519")
LONGEST_TOKEN = 8_192
LONGEST_JTI = 255
# How far the clocks of two systems may be apart.
LEEWAY_SECONDS = 30
# A token that lasts longer must be remembered longer.
LONGEST_LIFE_SECONDS = 3_600
# How long keys are taken for true, and how long at least before they are asked for again.
KEYS_SECONDS, AGAIN_SECONDS = 600.0, 30.0
# How long they go on where they cannot be asked for again.
LAST_KEYS_SECONDS = 86_400.0
LEAST_RSA_BITS = 2_048


class ReplayBook(Protocol):
    """Remembers which tokens were used. Its method is called beside the loop, on any thread."""

    def first_use(self, issuer: str, jti: str, expires: float) -> bool:
        """Remember a token until it expires (seconds since 1970), and say whether it is used for the first time.

        Of two that ask at once, one is told so.
        """


class MemoryReplays:
    """Remembers used tokens in this process: enough where there is one."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._until: dict[tuple[str, str], float] = {}
        self._lock = Lock()

    def first_use(self, issuer: str, jti: str, expires: float) -> bool:
        """Remember a token until it expires, and say whether it is used for the first time."""
        with self._lock:
            now = self._now()
            for key in [key for key, until in self._until.items() if until < now]:
                del self._until[key]
            if (issuer, jti) in self._until:
                return False
            self._until[issuer, jti] = expires
            return True


@dataclass
class _Keys:
    """The keys of a client, and when they were had and last asked for."""

    found: jwk.KeySet | None = None
    had_at: float = float("-inf")
    asked_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Doorkeeper:
    """Lets in who bears a token of a listed client."""

    def __init__(
        self,
        clients: Sequence[Client],
        replays: ReplayBook,
        settings: Settings,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clients = {client.issuer: client for client in clients}
        self._keys = {client.issuer: _Keys() for client in clients}
        self._replays = replays
        self._settings = settings
        self._now = now

    async def admit(self, authorization: str | None, *audiences: str) -> Client:
        """Return the client that a request to an address, which may have several names, comes from.

        Raises
        ------
        ProblemError
            401 where the token is not good, 503 where its keys cannot be had.
        """
        written = _bearer(authorization)
        client, header = self._claimed(written)
        keys = await self._key_set(client, header["kid"])
        try:
            claims = jwt.decode(written, keys, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError):
            raise refused("its signature is not that of the system") from None
        self._require_claims(claims, client, audiences)
        expires = float(claims["exp"]) + LEEWAY_SECONDS
        if not await run_in_threadpool(self._replays.first_use, client.issuer, claims["jti"], expires):
            raise refused("it was used before; every call needs one of its own")
        return client

    def _claimed(self, written: str) -> tuple[Client, Mapping[str, str]]:
        """Return the client that a token says it is of, and its header; nothing of it is believed yet."""
        try:
            signed = jws.extract_compact(written.encode())
            header, claims = signed.headers(), json.loads(signed.payload or b"")
        except (JoseError, ValueError, RecursionError, TypeError):
            raise refused("it cannot be read") from None
        client = self._clients.get(str(claims.get("iss"))) if isinstance(claims, dict) else None
        if client is None:
            raise refused("its issuer is not listed here")
        if header.get("typ") != "JWT" or header.get("alg") not in ALGORITHMS:
            raise refused(f"it should be of type JWT, signed by one of {', '.join(ALGORITHMS)}")
        if not isinstance(header.get("kid"), str):
            raise refused("it does not name its key")
        if "jku" in header and header["jku"] not in (client.keys, f"{client.keys}/"):
            raise refused("its keys are not where those of its issuer are listed")
        return client, cast(Mapping[str, str], header)

    def _require_claims(self, claims: Mapping[str, object], client: Client, audiences: Sequence[str]) -> None:
        now, told = self._now(), claims.get("aud")
        meant = told if isinstance(told, list) else [told]
        if claims.get("iss") != client.issuer or not any(audience in meant for audience in audiences):
            raise refused(f"it is not for {audiences[0]}")
        expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        begins = _seconds(claims, "nbf") if "nbf" in claims else issued
        if expires + LEEWAY_SECONDS <= now:
            raise refused("it has expired")
        if max(issued, begins) - LEEWAY_SECONDS > now:
            raise refused("it is of a time to come; compare the clocks")
        if not 0 < expires - issued <= LONGEST_LIFE_SECONDS:
            raise refused(f"it should last {LONGEST_LIFE_SECONDS:,} seconds at most")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_JTI or not jti.isprintable():
            raise refused("it has no jti, or one that cannot be kept")

    async def _key_set(self, client: Client, kid: str) -> jwk.KeySet:
        """Return the keys of a client with this one among them."""
        keys = self._keys[client.issuer]
        async with keys.lock:
            now = self._now()
            stale = now - keys.had_at > KEYS_SECONDS or not _holds(keys.found, kid)
            if stale and now - keys.asked_at > AGAIN_SECONDS:
                keys.asked_at = now
                await self._renew(client, keys)
        if keys.found is None or now - keys.had_at > LAST_KEYS_SECONDS:
            raise unavailable("The keys of the system that calls cannot be had now.", int(AGAIN_SECONDS))
        if not _holds(keys.found, kid):
            raise refused("its key is not among those of its issuer")
        return keys.found

    async def _renew(self, client: Client, keys: _Keys) -> None:
        """Read the keys of a client again; where that fails, those that were known go on."""
        try:
            keys.found, keys.had_at = key_set(await self._told_keys(client)), self._now()
        except (OutwardError, OSError, ValueError, JoseError) as error:
            log.warning("The keys of %s cannot be had: %s", client.issuer, error)

    async def _told_keys(self, client: Client) -> object:
        if client.keys_file is not None:
            return json.loads(await run_in_threadpool(client.keys_file.read_bytes))
        async with outward(self._settings.cds_fetch_seconds, self._settings.cds_fetch_bytes) as way:
            return await way.get(str(client.keys))


def key_set(told: object) -> jwk.KeySet:
    """Return the public keys of a JWK Set that tokens may be signed by.

    Raises
    ------
    ValueError
        If there is none.
    """
    listed = told.get("keys") if isinstance(told, dict) else None
    usable = [key for key in listed if _is_usable(key)] if isinstance(listed, list) else []
    if not usable:
        raise ValueError("there is no public key in it that is long enough and for signatures")
    return jwk.KeySet.import_key_set({"keys": usable})


def refused(why: str) -> ProblemError:
    """Return the problem of a token that is not good."""
    detail = f"The token does not do: {why}."
    return ProblemError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def _is_usable(key: object) -> bool:
    if not isinstance(key, dict) or key.get("kty") not in ("EC", "RSA", "OKP") or not isinstance(key.get("kid"), str):
        return False
    long_enough = key["kty"] != "RSA" or len(str(key.get("n", ""))) * 6 >= LEAST_RSA_BITS
    return "d" not in key and key.get("use", "sig") == "sig" and long_enough


def _holds(keys: jwk.KeySet | None, kid: str) -> bool:
    return keys is not None and any(key.kid == kid for key in keys.keys)


def _bearer(authorization: str | None) -> str:
    scheme, _, written = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not written:
        raise refused("send one as Authorization: Bearer")
    if len(written) > LONGEST_TOKEN or not written.isascii():
        raise refused("it cannot be read")
    return written.strip()


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise refused(f"its {name} is not a time in seconds")
    return float(value)
