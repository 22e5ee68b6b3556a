"""Which of a county's codes are known, by count."""

import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest

from features.coverage import check_codes
from features.errors import WeibingError
from features.events import EventStore
from tests.tables import events_from

DIAGNOSES = """诊断,次数,体系
I10.x02,800,ICD10
e11.900;N18.3,40,ICD10
感冒,35,LOCAL
J00,5,ICD10
A10BA02,20,ATC
,9,ICD10
"""


@pytest.fixture
def diagnoses(tmp_path: Path) -> Path:
    path = tmp_path / "diagnoses.csv"
    path.write_text(DIAGNOSES, encoding="utf-8")
    return path


def test_codes_are_counted_row_by_row(diagnoses):
    found = check_codes(diagnoses, column="诊断", system="ICD10")
    assert found.counts == {
        "ICD10//I10.X02": 1,
        "ICD10//E11.900;N18.3": 1,
        "ICD10//感冒": 1,
        "ICD10//J00": 1,
        "ICD10//A10BA02": 1,
    }


def test_codes_are_known_or_not_by_count_the_most_frequent_first(diagnoses):
    found = check_codes(diagnoses, column="诊断", system="ICD10", count_column="次数", separator=";")
    assert list(found.known.items()) == [("ICD10//I10.X02", 800), ("ICD10//E11.900", 40), ("ICD10//N18.3", 40)]
    assert list(found.unknown.items()) == [("ICD10//感冒", 35), ("ICD10//A10BA02", 20), ("ICD10//J00", 5)]
    assert found.concepts("ICD10//E11.900") == ["diabetes"]


def test_the_counts_of_a_code_told_in_several_rows_are_summed(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text('code,n\nI10,"1,200"\ni10,3\nI10,\n', encoding="utf-8")
    assert check_codes(path, system="ICD10", count_column="n").counts == {"ICD10//I10": 1203}


def test_every_row_may_have_a_system_of_its_own(diagnoses):
    found = check_codes(diagnoses, column="诊断", system_column="体系", separator=";")
    assert set(found.unknown) == {"LOCAL//感冒", "ICD10//J00"}
    assert "metformin" in found.concepts("ATC//A10BA02")


def test_without_a_system_codes_are_written_as_in_the_store(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code\nsbp\nLOINC//8480-6\nlower\n", encoding="utf-8")
    found = check_codes(path)
    assert (set(found.known), set(found.unknown)) == ({"sbp", "LOINC//8480-6"}, {"lower"})


def test_a_store_s_codes_are_counted_over_all_shards(tmp_path):
    store = EventStore.create(tmp_path / "county")
    history = """
        time       | code         | value
        2024-01-01 | sbp          | 150
        2024-02-01 | sbp          | 148
        2024-02-01 | LOCAL//感冒  |
        2024-02-01 | ICD10//I10.x |
    """
    store.append([events_from(history, subject_id=1), events_from(history, subject_id=2)])
    found = check_codes(tmp_path / "county")
    assert found.source == "county"
    assert (found.known, found.unknown) == ({"sbp": 4, "ICD10//I10.x": 2}, {"LOCAL//感冒": 2})


@pytest.mark.parametrize("kind", ["gz", "xlsx", "parquet", "gb18030"])
def test_a_table_may_be_of_any_kind_that_an_ingest_takes(kind, tmp_path):
    table = pl.DataFrame({"诊断": ["I10", "J00"], "次数": ["3", "2"]})
    path = tmp_path / f"table.{'csv' if kind == 'gb18030' else 'csv.gz' if kind == 'gz' else kind}"
    if kind == "xlsx":
        table.write_excel(path)
    elif kind == "parquet":
        table.write_parquet(path)
    else:
        text = table.write_csv().encode("gb18030" if kind == "gb18030" else "utf-8")
        path.write_bytes(gzip.compress(text) if kind == "gz" else text)
    encoding = "gb18030" if kind == "gb18030" else "utf-8"
    found = check_codes(path, column="诊断", system="ICD10", count_column="次数", encoding=encoding)
    assert (found.known, found.unknown) == ({"ICD10//I10": 3}, {"ICD10//J00": 2})


def test_the_text_shows_sums_and_the_most_frequent_of_each(diagnoses):
    found = check_codes(diagnoses, column="诊断", system="ICD10", count_column="次数", separator=";")
    assert found.text(shown=2) == "\n".join(
        [
            "Codes in diagnoses.csv",
            "  known         3 of         6 codes          50.0 %",
            "  known       880 of       940 occurrences    93.6 %",
            "Known",
            "        800  ICD10//I10.X02  hypertension 高血压 (as ICD10//I10) [M]",
            "         40  ICD10//E11.900  diabetes 糖尿病 (as ICD10//E11) [M]",
            "         40  in 1 more codes",
            "Unknown",
            "         35  ICD10//感冒",
            "         20  ICD10//A10BA02",
            "          5  in 1 more codes",
            "A mark such as [M] says that nobody has looked the code up yet: see docs/vocabulary.md.",
        ]
    )


def test_a_verified_code_bears_no_mark(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code\nLOINC//8480-6\nsbp\n", encoding="utf-8")
    assert "[" not in check_codes(path).text()


def test_the_dict_is_all_of_it_for_programs(diagnoses):
    found = check_codes(diagnoses, column="诊断", system="ICD10", count_column="次数", separator=";").as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["codes"] == {"known": 3, "unknown": 3}
    assert found["occurrences"] == {"known": 880, "unknown": 60}
    assert found["known"][0] == {
        "code": "ICD10//I10.X02",
        "count": 800,
        "concepts": ["hypertension"],
        "listed_as": "ICD10//I10",
        "trust": "M",
    }
    assert found["unknown"][0] == {"code": "ICD10//感冒", "count": 35}


def test_an_empty_table_has_no_codes(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code\n", encoding="utf-8")
    found = check_codes(path)
    assert found.counts == {}
    assert "0 codes" in found.text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"column": "诊段"}, 'There is no column "诊段" in diagnoses.csv, but 诊断, 次数, 体系.'),
        ({"column": "诊断", "count_column": "数"}, 'There is no column "数" in diagnoses.csv'),
        ({"column": "诊断", "encoding": "latin-1"}, 'The encoding "latin-1" is not known. Use "utf-8" or "gb18030".'),
    ],
)
def test_a_mistake_is_named(options, said, diagnoses):
    with pytest.raises(WeibingError, match=re.escape(said)):
        check_codes(diagnoses, **options)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(WeibingError):
        check_codes(tmp_path)
