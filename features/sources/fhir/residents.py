"""Whom a resource is about: the ids of Patients, as residents of the store."""

import hashlib
import re

import polars as pl

from features.errors import WeibingError
from features.sources.table.residents import are_identity_numbers, keyed

# An integer as it is written; FHIR takes 12 and 0012 for two ids.
_INTEGER = re.compile(r"0|[1-9]\d{0,17}")


def residents_of(ids: pl.Series, key: bytes | None) -> pl.Series:
    """Return the residents of the ids of Patients.

    With a secret, all ids are hashed with it, as those of tables are: an id that is an identity number becomes the
    same resident in both. Without one, an integer is used as it is, and any other id is hashed without a secret (the
    first 63 bits of SHA-256): a server made it up, and it tells nothing of a person.

    Raises
    ------
    WeibingError
        If the ids are identity numbers and there is no secret.
    """
    if key:
        return keyed(ids, key)
    distinct = ids.unique()
    if are_identity_numbers(distinct):
        raise WeibingError(
            "The ids of the Patients are identity numbers, which never enter the store. Hash them: put a secret in an "
            "environment variable and give its name as the key, such as WEIBING_RESIDENT_KEY."
        )
    numbers = pl.Series([_unkeyed(one) for one in distinct], dtype=pl.Int64)
    return ids.replace_strict(distinct, numbers, return_dtype=pl.Int64)


def _unkeyed(one: str) -> int:
    if _INTEGER.fullmatch(one):
        return int(one)
    return int.from_bytes(hashlib.sha256(one.encode()).digest()[:8], "big") >> 1
