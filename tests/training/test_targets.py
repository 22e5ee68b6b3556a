"""The built-in targets, and targets from a TOML file."""

import dataclasses
import re
from math import inf
from pathlib import Path
from textwrap import dedent

import pytest

from features.cohort import IndexTimes, Limit, Target, cohort
from features.errors import WeibingError
from features.events import EventStore
from features.vocabulary import BUILTIN, Vocabulary, builtin
from tests.tables import events_from
from training.targets import FALL, HYPERTENSION, TARGETS, read_targets, target_from, target_named

KIDNEY = """
    [kidney]
    outcome = ["diabetic_kidney_disease"]
    horizon = "3y"
    index = { every = "1y" }
"""


@pytest.fixture
def written(tmp_path: Path):
    """Write a targets file."""

    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "targets.toml"
        path.write_text(dedent(text), encoding=encoding)
        return path

    return write


@pytest.fixture
def at_risk(tmp_path: Path):
    """Say who of residents 1 to 6, all of them fifty, is at risk for a target at the first of January 2015."""
    # Who is born and seen before, and a witness until long after, so that nobody is left out for another reason.
    births = [f"{number} | 1965-01-01 | MEDS_BIRTH" for number in range(7)]
    seen = [f"{number} | 2012-06-01 | outpatient_visit" for number in range(7)]
    others = "\n".join(["subject_id | time | code", *births, *seen, "0 | 2030-06-01 | outpatient_visit"])
    day = IndexTimes(every="1y", start="2015-01-01", stop="2015-01-01")

    def residents(target: Target, history: str) -> list[int]:
        store = EventStore.create(tmp_path / "store", timezone="UTC")
        store.append([events_from(others), events_from(history)])
        found = cohort(store, dataclasses.replace(target, index=day))
        return [number for number in found.rows["subject_id"] if number]

    return residents


def test_without_a_file_there_are_the_three_built_in_targets():
    assert list(read_targets()) == ["hypertension", "diabetes_complication", "fall"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_built_in_target_is_one_that_a_file_could_declare(name):
    assert target_from(name, {}, builtin()) == TARGETS[name]


def test_every_built_in_target_is_labelled_and_says_where_its_tiers_come_from():
    for target in TARGETS.values():
        assert target.label_en, target.name
        assert re.search(r"[\u4e00-\u9fff]", target.label_zh), target.name
        assert target.tiers_source, target.name


def test_the_built_in_targets_are_those_of_the_design():
    asked = {name: (target.age, target.horizon, target.recurrent) for name, target in TARGETS.items()}
    assert asked == {
        "hypertension": ((18, inf), "4y", False),
        "diabetes_complication": ((18, inf), "5y", False),
        "fall": ((65, inf), "1y", True),
    }
    assert HYPERTENSION.limits == (Limit("sbp", below=140), Limit("dbp", below=90))
    assert {name: target.outcome for name, target in TARGETS.items()} == {
        "hypertension": ("hypertension_found",),
        "diabetes_complication": ("diabetes_complication_found",),
        "fall": ("fall_found",),
    }
    assert TARGETS["diabetes_complication"].present == ("diabetes_found",)


def test_hypertension_is_predicted_for_who_has_neither_diagnosis_nor_treatment_nor_raised_pressure(at_risk):
    history = """
        subject_id | time       | code             | value
        1          | 2014-02-01 | hypertension     |
        2          | 2014-02-01 | antihypertensive |
        3          | 2013-03-01 | sbp              | 150
        3          | 2013-06-01 | dbp              | 95
        3          | 2013-09-01 | sbp              | 145
        3          | 2014-02-01 | sbp              | 120
        4          | 2013-03-01 | sbp              | 150
        4          | 2013-06-01 | dbp              | 95
        4          | 2014-02-01 | sbp              | 120
        4          | 2014-02-01 | dbp              | 80
        5          | 2014-02-01 | sbp              | 140
        6          | 2015-01-01 | hypertension     |
    """
    # The outcome of the sixth is at the index time, not before it.
    assert at_risk(HYPERTENSION, history) == [4, 6]


def test_a_complication_is_predicted_for_who_has_diabetes_by_diagnosis_treatment_or_two_tests(at_risk):
    history = """
        subject_id | time       | code                | value
        1          | 2014-02-01 | diabetes            |
        2          | 2014-02-01 | ATC//A10BA02        |
        3          | 2013-03-01 | glucose_fasting     | 7.4
        3          | 2014-02-01 | hba1c               | 6.8
        4          | 2013-03-01 | glucose_fasting     | 7.4
        5          | 2014-02-01 | diabetes            |
        5          | 2014-03-01 | diabetic_neuropathy |
    """
    assert at_risk(TARGETS["diabetes_complication"], history) == [1, 2, 3]


def test_a_file_changes_only_the_keys_that_it_gives(written):
    targets = read_targets(written('[hypertension]\nhorizon = "5y"\nage = [30, 80]\n'))
    assert targets == {"hypertension": dataclasses.replace(HYPERTENSION, horizon="5y", age=(30.0, 80.0))}


def test_a_file_may_name_the_published_scores_beside_its_target(written):
    declared = written(KIDNEY + '    comparators = ["kdigo", "ckd_pc_decline_3y"]')
    assert target_named("kidney", declared).comparators == ("kdigo", "ckd_pc_decline_3y")
    assert target_named("kidney", written(KIDNEY)).comparators == ()


def test_a_published_score_that_there_is_not_is_refused_with_the_nearest_name(written):
    with pytest.raises(WeibingError, match=r'There is no published score "kdigoo"\. Did you mean "kdigo"\?'):
        read_targets(written(KIDNEY + '    comparators = ["kdigoo"]'))


def test_a_file_s_index_times_take_the_place_of_the_built_in_ones(written):
    targets = read_targets(written('[fall]\nindex = { first = ["examination", "diabetes"], offset = "1d" }\n'))
    assert targets["fall"].index == IndexTimes(first=("examination", "diabetes"), offset="1d")
    assert targets["fall"].outcome == FALL.outcome


def test_a_file_may_add_a_target(written):
    targets = read_targets(
        written(
            """
            [kidney]
            label_en = "kidney disease"
            label_zh = "肾病"
            outcome = ["diabetic_kidney_disease", "ckd"]
            horizon = "3y"
            age = [40, 90]
            present = ["diabetes"]
            absent = ["ckd"]
            latest = [{ concept = "egfr", at_least = 60 }, { concept = "sbp", below = 180 }]
            index = { every = "6mo", start = "2015-01-01", stop = 2020-01-01 }
            recurrent = false
            increasing = ["age", "hba1c"]
            decreasing = ["egfr"]
            tiers = [0.05, 0.1, 0.2]
            """
        )
    )
    assert targets["kidney"] == Target(
        name="kidney",
        label_en="kidney disease",
        label_zh="肾病",
        outcome=("diabetic_kidney_disease", "ckd"),
        horizon="3y",
        age=(40.0, 90.0),
        present=("diabetes",),
        absent=("ckd",),
        limits=(Limit("egfr", at_least=60.0), Limit("sbp", below=180.0)),
        index=IndexTimes(every="6mo", start="2015-01-01", stop="2020-01-01"),
        increasing=("age", "hba1c"),
        decreasing=("egfr",),
        tiers=(0.05, 0.1, 0.2),
    )


def test_only_the_targets_that_a_file_names_are_read(written):
    assert list(read_targets(written(KIDNEY + "[fall]"))) == ["kidney", "fall"]


def test_the_index_may_be_each_occurrence_of_a_concept(written):
    text = KIDNEY.replace('{ every = "1y" }', '{ each = "examination" }')
    assert read_targets(written(text))["kidney"].index == IndexTimes(each="examination")


def test_one_target_is_found_by_name(written):
    assert target_named("fall") is FALL
    assert target_named("kidney", written(KIDNEY)).horizon == "3y"
    with pytest.raises(WeibingError, match='no target "fal"; there are hypertension, diabetes_complication, fall'):
        target_named("fal")


def test_a_county_s_own_vocabulary_decides_which_concepts_there_are(written, tmp_path):
    for name in ("concepts.csv", "codes.csv", "units.csv"):
        (tmp_path / name).write_bytes((BUILTIN / name).read_bytes())
    with (tmp_path / "concepts.csv").open("a", encoding="utf-8") as file:
        file.write("scurvy,condition,scurvy,坏血病,,,,0\n")
    scurvy = written(KIDNEY.replace("diabetic_kidney_disease", "scurvy"))
    assert read_targets(scurvy, Vocabulary.read(tmp_path))["kidney"].outcome == ("scurvy",)
    with pytest.raises(WeibingError, match='no concept "scurvy"'):
        read_targets(scurvy)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('horizonn = "1y"', 'there is no key "horizonn". Did you mean "horizon"?'),
        ("limits = []", 'there is no key "limits".'),
        ('name = "other"', 'there is no key "name".'),
        ('index = { evry = "1y" }', 'there is no key "index.evry". Did you mean "every"?'),
        ('latest = [{ concept = "sbp", bellow = 1 }]', 'there is no key "latest.bellow". Did you mean "below"?'),
        ("latest = [{ below = 140 }]", "latest.0.concept is missing"),
        ('latest = { concept = "sbp" }', "latest: write a list, [ … ], not {'concept': 'sbp'}"),
        ("latest = 5", "latest: write a list, [ … ], not 5"),
        ("latest = [5]", "latest.0: write a table, { … }, not 5"),
        (
            'latest = [{ concept = "sbp", at_least = 9, below = 5 }]',
            "latest sbp: at_least must be less than below, not 9.",
        ),
        ('outcome = "fall"', "outcome: write a list, [ … ], not 'fall'"),
        ("outcome = []", "outcome names no concept."),
        ('outcome = ["fal"]', 'There is no concept "fal". Did you mean "fall"?'),
        ('present = ["diabetis"]', 'There is no concept "diabetis". Did you mean "diabetes"?'),
        ('absent = ["sbq"]', 'There is no concept "sbq". Did you mean "sbp"?'),
        ('increasing = ["sbq"]', 'There is no concept "sbq".'),
        ('latest = [{ concept = "sbq", below = 5 }]', 'There is no concept "sbq".'),
        ('index = { first = ["exam"] }', 'There is no concept "exam".'),
        ('index = { each = "exam" }', 'There is no concept "exam".'),
        ('index = "1y"', "index: write a table, { … }, not '1y'"),
        ("index = {}", "index needs one of every, each and first."),
        ('index = { every = "1y", each = "fall" }', "index needs one of every, each and first."),
        ('index = { every = "half a year" }', '"half a year" is not a length of time'),
        ('index = { every = "0.5y" }', 'every "0.5y": write a whole number of h, d, w, mo or y'),
        ('index = { each = "fall", offset = "-1d" }', '"-1d" is not a length of time'),
        ('index = { every = "1y", start = "2015-13-01" }', '"2015-13-01" is not a date. Write it as YYYY-MM-DD.'),
        ('index = { every = "1y", stop = "tomorrow" }', '"tomorrow" is not a date.'),
        ('horizon = "one year"', '"one year" is not a length of time'),
        ('horizon = "12h"', "horizon must be a day or longer, not 12h."),
        ("horizon = 365", "horizon: input should be a valid string, not 365"),
        ("age = 65", "age: write a list, [ … ], not 65"),
        ("age = [65]", "age.1 is missing"),
        ("age = [80, 65]", "age must be a range that rises, not [80.0, 65.0]."),
        ("tiers = [0.1, 0.2]", "tiers.2 is missing"),
        ("tiers = [0.1, 0.3, 0.2]", "tiers must rise between 0 and 1, not [0.1, 0.3, 0.2]."),
        ("tiers = [0.0, 0.1, 0.2]", "tiers must rise between 0 and 1"),
        ("tiers = [0.1, 0.2, 1.0]", "tiers must rise between 0 and 1"),
        ('tiers = ["low", 0.2, 0.3]', "tiers.0: input should be a valid number"),
        ('recurrent = "perhaps"', "recurrent: input should be a valid boolean"),
    ],
)
def test_a_mistake_is_said_with_the_file_and_the_target(written, keys, said):
    path = written(f"[fall]\n{keys}\n")
    with pytest.raises(WeibingError, match=re.escape(said)) as refused:
        read_targets(path)
    assert str(refused.value).startswith(f"{path}, target fall: ")


def test_all_the_wrong_values_of_a_target_are_said_at_once(written):
    with pytest.raises(WeibingError, match=r"age: .*; tiers: "):
        read_targets(written('[fall]\nage = 65\ntiers = "high"\n'))


@pytest.mark.parametrize("key", ["outcome", "horizon", "index"])
def test_a_new_target_needs_an_outcome_a_horizon_and_index_times(written, key):
    lines = [line for line in KIDNEY.splitlines() if not line.strip().startswith(key)]
    with pytest.raises(WeibingError, match=f"target kidney: a new target also needs {key}."):
        read_targets(written("\n".join(lines)))


def test_a_target_bears_a_name_that_can_be_a_file_s_and_a_model_s(written):
    with pytest.raises(WeibingError, match="target kidney/early: name it with letters, digits, _ and - alone"):
        read_targets(written(KIDNEY.replace("[kidney]", '["kidney/early"]')))


def test_a_key_outside_of_any_table_is_refused_with_the_remedy(written):
    with pytest.raises(WeibingError, match=r"\"1y\" is not a table of keys. Write \[horizon\] on a line of its own"):
        read_targets(written('horizon = "1y"\n'))


def test_an_empty_file_is_refused(written):
    with pytest.raises(WeibingError, match="declares no target"):
        read_targets(written("# nothing yet\n"))


@pytest.mark.parametrize(("text", "encoding"), [("[fall", "utf-8"), ('[fall]\nlabel_zh = "跌倒"', "gb18030")])
def test_what_is_not_toml_in_utf_8_is_refused(written, text, encoding):
    with pytest.raises(WeibingError, match=r"targets\.toml: this is not TOML in UTF-8"):
        read_targets(written(text, encoding))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeibingError, match=r"none\.toml cannot be read: No such file or directory"):
        read_targets(tmp_path / "none.toml")
