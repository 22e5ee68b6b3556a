"""One-time codes that change every half minute (RFC 6238), as authenticator apps on a telephone show them."""

import hmac
import secrets
import struct
from base64 import b32encode
from datetime import datetime
from urllib.parse import quote

from features.times import SECOND, microseconds

STEP_SECONDS = 30
DIGITS = 6
# RFC 4226 asks for 128 bits or more, and recommends 160.
SECRET_BYTES = 20
# A telephone's clock may be half a minute off, and typing takes time (RFC 6238, section 5.2).
STEPS_OFF = 1


def new_key() -> bytes:
    """Return the secret that the service and one telephone share."""
    return secrets.token_bytes(SECRET_BYTES)


def step_of(now: datetime) -> int:
    """Return which half minute since 1970 a naive UTC time is in."""
    return microseconds(now) // SECOND // STEP_SECONDS


def code(key: bytes, step: int, *, digits: int = DIGITS, algorithm: str = "sha1") -> str:
    """Return the code of a half minute."""
    mac = hmac.digest(key, struct.pack(">Q", step), algorithm)
    start = mac[-1] & 15
    number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


def matching_step(key: bytes, given: str, now: datetime, after: int | None = None) -> int | None:
    """Return the half minute whose code was given, or None.

    Parameters
    ----------
    after
        The last half minute of which a code was taken: none up to it is taken again.
    """
    typed = given.replace(" ", "").encode("utf-8", "replace")
    steps = range(step_of(now) - STEPS_OFF, step_of(now) + STEPS_OFF + 1)
    # Each is compared, so that the time it takes does not tell which.
    found = [step for step in steps if hmac.compare_digest(code(key, step).encode(), typed)]
    return next((step for step in reversed(found) if after is None or step > after), None)


def address_for_app(key: bytes, account: str, issuer: str = "Weibing") -> str:
    """Return what an authenticator app reads from a QR code."""
    shown = b32encode(key).decode().rstrip("=")
    label = f"{quote(issuer)}:{quote(account)}"
    return f"otpauth://totp/{label}?secret={shown}&issuer={quote(issuer)}&digits={DIGITS}&period={STEP_SECONDS}"
