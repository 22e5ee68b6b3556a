"""Who a row is about: ids as they are, or hashed with a secret; and identity numbers kept out of the store.

A Chinese identity number (GB 11643-1999) has 17 digits and a check character; digits 7 to 14 are the date of birth.
"""

import hmac
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import WeibingError
from features.sources.table.cells import half_width

# Who knows the shape of identity numbers can try them all against a secret that is short enough to be guessed.
SHORTEST_KEY = 16

# One in eleven numbers of 18 digits passes the check by chance, and some of those look like a date of birth; of
# identity numbers nearly all do.
SHARE_THAT_IS_NO_CHANCE = 0.1

_WEIGHTS = np.array([7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2])
_CHECK_CHARACTERS = np.frombuffer(b"10X98765432", np.uint8)
# Anywhere in a text. Mobile numbers are struck out with the identity numbers.
IDENTITY_OR_MOBILE = r"\d{17}[\dXx]|1[3-9]\d{9}"
# The same, but not within a longer number: the code of a village, such as 131024101201, is no telephone number.
STANDING_ALONE = rf"(^|\D)(?:{IDENTITY_OR_MOBILE})(\D|$)"


def key_of(variable: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the secret that an environment variable holds.

    Raises
    ------
    WeibingError
        If there is none, or it is short enough to be guessed.
    """
    return _long_enough(environment.get(variable, ""), f"The environment variable {variable}", "is not set")


def key_in(file: Path) -> bytes:
    """Return the secret that a file holds, without blanks and line breaks around it.

    Raises
    ------
    WeibingError
        If it cannot be read, or is short enough to be guessed.
    """
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WeibingError(f"The file of the secret, {file}, cannot be read as text in UTF-8: {error}.") from error
    return _long_enough(key, f"The file of the secret, {file},", "is empty")


def _long_enough(key: str, where: str, empty: str) -> bytes:
    if len(key) < SHORTEST_KEY:
        raise WeibingError(
            f"{where} {'is too short' if key else empty}. Put a secret of at least {SHORTEST_KEY} characters in it, "
            "keep it, and use the same one for every ingest."
        )
    return key.encode()


def integers(text: pl.Series) -> pl.Series:
    """Return ids that are integers (also written ``12.0``) as they are, null where a cell is anything else."""
    ids = text.cast(pl.Int64, strict=False)
    other = (text.is_not_null() & ids.is_null()).arg_true()
    if not len(other):
        return ids
    return ids.scatter(
        other, half_width(text[other]).str.extract(r"^([+-]?\d+)(?:\.0+)?$").cast(pl.Int64, strict=False)
    )


def keyed(text: pl.Series, key: bytes) -> pl.Series:
    """Return ids hashed with a secret: the first 63 bits of HMAC-SHA256, so that nobody without it can reverse them."""
    distinct = text.unique().drop_nulls()
    hashes = [
        int.from_bytes(hmac.digest(key, one.encode(), "sha256")[:8], "big") >> 1 for one in written_one_way(distinct)
    ]
    return text.replace_strict(distinct, pl.Series(hashes, dtype=pl.Int64), default=None, return_dtype=pl.Int64)


def written_one_way(ids: pl.Series) -> list[str]:
    """Return ids written one way, so that the same person in two tables has the same hash."""
    return half_width(ids).str.to_uppercase().str.replace(r"^(\d+)\.0+$", "${1}").to_list()


def are_identity_numbers(text: pl.Series) -> bool:
    """Whether so many of the cells are valid identity numbers that it is not by chance."""
    digits = _of_the_shape(text)
    return len(digits) > 0 and bool((_born_on_a_date(digits) & _checks(digits)).mean() >= SHARE_THAT_IS_NO_CHANCE)


def are_rounded_identity_numbers(text: pl.Series) -> bool:
    """Whether the cells are identity numbers that a spreadsheet took for numbers, and rounded to 15 digits."""
    digits = _of_the_shape(text)
    return len(digits) > 0 and bool((_born_on_a_date(digits) & (digits[:, 15:] == 0).all(axis=1)).mean() >= 0.5)


def _of_the_shape(text: pl.Series) -> NDArray[np.int64]:
    """Return the characters, as numbers from 0, of the cells that have the shape; shape (cells, 18)."""
    alike = text.filter((text.str.len_bytes() == 18) & text.str.contains(r"^\d{17}[\dXx]$"))
    characters = np.frombuffer("".join(alike.to_list()).upper().encode(), np.uint8)
    return characters.reshape(-1, 18).astype(np.int64) - ord("0")


def _checks(digits: NDArray[np.int64]) -> NDArray[np.bool_]:
    expected = _CHECK_CHARACTERS[digits[:, :17] @ _WEIGHTS % 11].astype(np.int64) - ord("0")
    return np.asarray(digits[:, 17] == expected, dtype=bool)


def _born_on_a_date(digits: NDArray[np.int64]) -> NDArray[np.bool_]:
    year, month, day = (digits[:, a:b] @ 10 ** np.arange(b - a)[::-1] for a, b in ((6, 10), (10, 12), (12, 14)))
    return np.asarray((abs(year - 1975) <= 125) & (abs(month - 6.5) < 6) & (abs(day - 16) < 16))
