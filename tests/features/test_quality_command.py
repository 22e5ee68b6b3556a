"""`weibing quality` as its users meet it."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from features.errors import WeibingError
from features.events import EventStore
from tests.features.quality_records import measured, people
from weibing import app

TARGETS = """
[kidney]
outcome = ["diabetic_kidney_disease"]
horizon = "3y"
index = { every = "1y" }
"""


@pytest.fixture
def store(tmp_path):
    """A county whose creatinine is half in mg/dL."""
    store = EventStore.create(tmp_path / "county", timezone="Asia/Shanghai")
    values = np.random.default_rng(0).normal(80, 12, 200) / np.where(np.arange(200) % 2, 1, 88.4)
    store.append([people(200), measured("creatinine", values), measured("sbp", np.full(200, 121.0))])
    return store.path


def run(*arguments: object, exit_code: int = 0) -> str:
    done = CliRunner().invoke(app, ["quality", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.stdout


def test_the_text_says_what_to_read_first(store):
    said = run(store)
    assert said.startswith("Quality of the records: county\n200 residents, ")
    assert re.search(r"wrong +creatinine: (49|50)\.\d% of creatinine \(no unit\) look like mg/dL", said)


def test_the_page_and_the_json_are_written_beside_it(store, tmp_path):
    said = run(store, "--html", tmp_path / "new" / "q.html", "--json", tmp_path / "q.json", "--language", "zh")
    assert "血清肌酐" in said
    assert "血清肌酐" in (tmp_path / "new" / "q.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "q.json").read_text(encoding="utf-8"))["residents"] == 200


def test_json_may_go_to_stdout_alone(store):
    assert json.loads(run(store, "--json", "-"))["unit_suspicions"][0]["looks_like"] == "mg/dL"


def test_targets_may_come_from_a_file(store, tmp_path):
    (tmp_path / "targets.toml").write_text(TARGETS, encoding="utf-8")
    said = run(store, "--targets", tmp_path / "targets.toml", "--at", "2020-06-01")
    assert "kidney: nobody has any of its outcomes (diabetic kidney disease)" in said
    assert "2020-01-01 to 2020-05-31" in said


def test_another_language_is_wrong_usage(store):
    run(store, "--language", "fr", exit_code=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--at", "yesterday"], '"yesterday" is not a date'),
        (["--targets", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(options, sentence, store):
    with pytest.raises(WeibingError, match=sentence):
        run(store, *options)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(WeibingError, match="There is no event store"):
        run(tmp_path / "nowhere")
