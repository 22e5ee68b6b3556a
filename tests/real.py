"""Records that nobody here made: they lie beside the checkout, and none of them in it."""

import os
from pathlib import Path

import pytest

BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


def real_records(name: str) -> Path:
    """Return the folder of a set of real records, such as `fhir`.

    It is looked for in `../shared/data`, or in the folder that the environment variable WEIBING_REAL_RECORDS names.
    Where it is not there, the test is skipped and says so; in CI, which must have it, the test fails.
    """
    folder = Path(os.environ.get("WEIBING_REAL_RECORDS") or BESIDE_THE_CHECKOUT) / name
    if not folder.is_dir():
        sentence = f"there are no real records at {folder}; WEIBING_REAL_RECORDS may name the folder that holds {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder
