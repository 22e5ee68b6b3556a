import hashlib
import hmac

import polars as pl
import pytest

from features.errors import WeibingError
from features.sources.table.residents import (
    are_identity_numbers,
    are_rounded_identity_numbers,
    integers,
    key_of,
    keyed,
)

# The examples of GB 11643-1999 itself.
VALID = ["11010519491231002X", "440524188001010014"]
KEY = b"a secret of some length"


def texts(*cells):
    return pl.Series(cells, dtype=pl.String)


def test_an_integer_is_an_id_as_it_is():
    assert integers(texts("12", "0012", "12.0", "１２", "-3")).to_list() == [12, 12, 12, 12, -3]


@pytest.mark.parametrize("cell", ["A12", "12.5", "9" * 19, "1e3", None])
def test_anything_else_is_not(cell):
    assert integers(texts(cell)).to_list() == [None]


def test_a_keyed_id_is_the_first_63_bits_of_the_hmac():
    digest = hmac.new(KEY, b"A12", hashlib.sha256).hexdigest()
    assert keyed(texts("A12", None), KEY).to_list() == [int(digest[:16], 16) // 2, None]


def test_the_same_id_written_another_way_has_the_same_hash():
    assert keyed(texts("11010519491231002X", "11010519491231002x", "１1010519491231002X"), KEY).n_unique() == 1
    assert keyed(texts("12", "12.0"), KEY).n_unique() == 1


def test_another_secret_gives_another_hash():
    assert keyed(texts("A12"), KEY)[0] != keyed(texts("A12"), KEY + b"!")[0]


def test_the_secret_comes_from_the_environment():
    assert key_of("KEY", {"KEY": "sixteen letters!"}) == b"sixteen letters!"


@pytest.mark.parametrize(("environment", "wrong"), [({}, "not set"), ({"KEY": "short"}, "too short")])
def test_a_secret_that_is_none_or_can_be_guessed_is_refused(environment, wrong):
    with pytest.raises(WeibingError, match=f"KEY is {wrong}.*at least 16"):
        key_of("KEY", environment)


def test_identity_numbers_are_known_by_their_check_character_and_birth():
    assert are_identity_numbers(texts(*VALID, "12", None))


@pytest.mark.parametrize(
    "cells",
    [
        ["110105194912310021"],  # the check character is wrong
        ["12345"],
        [],
        ["110105194912310021"] * 50 + VALID[:1],  # one in eleven passes the check by chance
    ],
)
def test_other_numbers_are_not_taken_for_them(cells):
    assert not are_identity_numbers(texts(*cells))


def test_identity_numbers_that_a_spreadsheet_rounded_are_known():
    assert are_rounded_identity_numbers(texts("110105194912310000", "440524188001010000"))
    assert not are_rounded_identity_numbers(texts(*VALID))
