"""Secrets that the service makes: drawn at random, shown once, kept as digests."""

import secrets
from hashlib import sha256

BYTES = 32


def new_secret() -> str:
    """Return a secret that nobody can guess: 256 random bits."""
    return secrets.token_urlsafe(BYTES)


def digest(secret: str) -> str:
    """Return what is kept of a secret.

    It is found by its digest, so how long the search takes tells nothing of the secret. No salt and no slow hash: 256
    random bits cannot be tried one after the other.
    """
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
