"""What the mapping file may not say, and what the message is then."""

from textwrap import dedent

import pytest

from features.errors import WeibingError
from features.sources.table.mapping import read_mapping


@pytest.fixture
def refused(tmp_path):
    def refused(text: str) -> str:
        path = tmp_path / "mapping.toml"
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        with pytest.raises(WeibingError) as error:
            read_mapping(path)
        return str(error.value)

    return refused


HEAD = """\
[[table]]
file = "a.csv"
resident = "id"
time = { column = "day" }
"""


def test_every_mistake_is_told_at_once_with_its_place(refused):
    assert refused("""
        timezon = "Asia/Shanghai"

        [[table]]
        file = "a.csv"
        resident = "id"
        time = { column = "day", format = "YYYY-MM-DD" }
        event = [{ code = "examinaton" }]

        [[table]]
        file = "b.csv"
        time = { colum = "day" }
        value = [{ column = "x", code = "sbp" }, { column = "y", code = "hdl", unit = "mgdl" }]
    """).splitlines() == [
        'mapping.toml, table 1 (line 3), time, format: "YYYY-MM-DD" is not a format of dates. '
        'Write one such as "%Y-%m-%d" or "%Y年%m月%d日".',
        'mapping.toml, table 1 (line 3), event 1, code: there is no concept "examinaton". Did you mean "examination"? '
        "A code that is no concept is written SYSTEM//code.",
        'mapping.toml, table 2 (line 9): "resident" is missing.',
        'mapping.toml, table 2 (line 9), time: a time is a date such as "2000-01-01", or a table with one of: column; '
        "days (or hours, months, years) and origin; age and birth; order.",
        'mapping.toml, table 2 (line 9), value 2: the unit "mgdl" of hdl is not known. Did you mean "mg/dL"?',
        'mapping.toml: there is no setting "timezon" here. Did you mean "timezone"?',
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "value = [{ colum = 'x', code = 'sbp' }]",
            'value 1: there is no setting "colum" here. Did you mean "column"?',
        ),
        ("value = [{ column = 'x' }]", 'value 1: "code" is missing.'),
        ("value = [{ column = 3, code = 'sbp' }]", "value 1, column: this must be a text, in quotes."),
        ("value = [{ column = '', code = 'sbp' }]", "value 1, column: this must not be empty."),
        ("value = [3]", "value 1: this must be a table of settings"),
        ("value = 3", "value: this must be a list"),
        ("value = [{ column = 'x', code = 'LOINC//' }]", 'value 1, code: there is no concept "LOINC//".'),
        ("value = [{ column = 'x', code = 'sbp', unit = 3 }]", "value 1, unit: this must be a table of settings"),
        ("value = [{ column = 'x', code = 'sbp', static = 'si' }]", "value 1, static: this must be true or false."),
        (
            "named = [{ name = 'n', value = 'v', codes = { a = 'sbbp' } }]",
            'named 1, codes, a: there is no concept "sbbp".',
        ),
        (
            "named = [{ name = 'n', value = 'v', codes = { a = 'sbp' }, units = { a = 'mg' } }]",
            'named 1: the unit "mg" of sbp is not known.',
        ),
        (
            "named = [{ name = 'n', value = 'v', others = 'A//B' }]",
            "named 1, others: this must be the name of a system",
        ),
        ("code = [{ system = 'ICD10' }]", 'code 1: "column" is missing.'),
        (
            "code = [{ column = 'a', columns = ['b'] }]",
            'code 1: "columns" is another name of a setting that is given already.',
        ),
        ("code = [{ columns = [] }]", "code 1, columns: this must not be empty."),
        ("code = [{ column = 'a', others = 'keep' }]", 'code 1, others: this can only be "drop"'),
        ("flag = [{ column = 'x', code = 'fall' }]", 'flag 1: "is" is missing.'),
        (
            "choice = [{ column = 'x', code = 'smoking', values = { a = 'b' } }]",
            "choice 1, values, a: this must be a number.",
        ),
        ("sex = { column = 'x', female = 'F' }", 'sex: "male" is missing.'),
        ("sex = { column = 'x', female = ['F', 'M'], male = 'M' }", 'sex: "M" is both female and male.'),
        ("birth = 'born'", 'birth, time: "born" is not a date.'),
        ("birth = { age = 'age', where = [{ column = 'x' }] }", "birth, where 1: a filter needs one of is, is_not,"),
        (
            "death = { column = 'x', formt = '%Y' }",
            'death, time: there is no setting "formt" here. Did you mean "format"?',
        ),
        ("death = { days = 'x' }", 'death, time: "origin" is missing.'),
        (
            "death = { days = 'x', years = 'y', origin = '2000-01-01' }",
            "death, time: give one of hours, days, months, years.",
        ),
        ("death = { order = 'x', step = '1 day' }", 'death, time, step: "1 day" is not a length of time'),
        (
            "event = [{ code = 'fall', time = { days = 'x', origin = 'day 0' } }]",
            'event 1, time, origin: "day 0" is not a date.',
        ),
        (
            "where = [{ column = 'x', at_least = 'y' }]\nevent = [{ code = 'fall' }]",
            "where 1, at_least: this must be a number.",
        ),
        (
            "encoding = 'big5'\nevent = [{ code = 'fall' }]",
            'encoding: the encoding "big5" is not known. Use "utf-8" or "gb18030".',
        ),
        ("delimiter = '||'\nevent = [{ code = 'fall' }]", "delimiter: this must be a single character."),
        ("skip = -1\nevent = [{ code = 'fall' }]", "skip: this must not be negative."),
        ("timezone = 'Mars'\nevent = [{ code = 'fall' }]", 'timezone: There is no time zone "Mars".'),
        ("", ": the table has no rules, so that nothing would come of it."),
    ],
)
def test_a_mistake_is_told_with_its_place_and_remedy(refused, rule, message):
    found = refused(HEAD + rule)
    assert found.startswith("mapping.toml, table 1 (line 1)")
    assert message in found


def test_an_event_without_any_time_is_refused(refused):
    message = refused("""
        [[table]]
        file = "a.csv"
        resident = "id"
        birth = { age = "age" }
        sex = { column = "sex", female = "F", male = "M" }
        value = [{ column = "x", code = "education", static = true }, { column = "y", code = "sbp" }]
    """)
    assert message == "mapping.toml, table 1 (line 1): birth, value 2: no time. Give the table, or the rule, a time."


def test_a_mapping_without_tables_is_refused(refused):
    assert refused("timezone = 'UTC'") == 'mapping.toml: "table" is missing.'


def test_what_is_not_toml_is_refused_with_its_line(refused):
    assert "this is not TOML" in (message := refused("[[table]]\nfile = a.csv"))
    assert "line 2" in message


def test_a_mapping_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(WeibingError, match=r"mapping .*none.toml cannot be read: No such file"):
        read_mapping(tmp_path / "none.toml")
    (tmp_path / "gbk.toml").write_bytes('name = "县"'.encode("gb18030"))
    with pytest.raises(WeibingError, match="is not UTF-8"):
        read_mapping(tmp_path / "gbk.toml")
