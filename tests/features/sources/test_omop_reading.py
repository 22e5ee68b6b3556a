"""Where an OMOP data set may lie and how it may be written: whichever it is, the store is the same."""

import gzip
import io
import zipfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy

from features.errors import WeibingError
from features.events import EventStore
from features.sources.omop import database, ingest_omop, reading
from tests.tables import cells_from

TODAY = date(2025, 1, 1)
PERSON = cells_from("""
    person_id | gender_concept_id | year_of_birth | month_of_birth | day_of_birth
    7         | 8532              | 1950          | 6              | 1
    8         | 8507              | 1961          | 1              | 2
""")
MEASUREMENT = cells_from("""
    measurement_id | person_id | measurement_concept_id | measurement_date | value_as_number | unit_concept_id
    1              | 7         | 3004249                | 2024-03-05       | 152.5           | 8876
    2              | 8         | 3016723                | 2024-03-06       | 81              | 8749
    3              | 8         | 3016723                | 2024-03-07       |                 | 8749
""")
CONCEPT = cells_from("""
    concept_id | concept_name      | vocabulary_id | concept_class_id | concept_code
    11         | "Creatinine" test | LOINC         | Lab Test         | 2160-0
""")
EXPECTED = [
    (7, None, "female", 1.0, None),
    (7, "1950-06-01", "MEDS_BIRTH", None, None),
    (7, "2024-03-05", "OMOP//3004249", 152.5, "mm[Hg]"),
    (8, None, "female", 0.0, None),
    (8, "1961-01-02", "MEDS_BIRTH", None, None),
    (8, "2024-03-06", "OMOP//3016723", 81.0, "umol/L"),
    (8, "2024-03-07", "OMOP//3016723", None, None),
]


@pytest.fixture
def ingested(tmp_path):
    """Take a data set in; return the events."""

    def ingested(source, **options) -> list[tuple]:
        ingest_omop(source, tmp_path / "store", today=TODAY, **options)
        store = EventStore.open(tmp_path / "store")
        events = pl.concat([store.read(shard) for shard in store.shards])
        day = pl.col("time").dt.to_string("%Y-%m-%d")
        return events.select("subject_id", day, "code", "numeric_value", "unit").rows()

    return ingested


@pytest.fixture
def refusal(ingested, tmp_path):
    """Return the sentence with which a data set is refused; nothing of it is written."""

    def refusal(source, **options) -> str:
        with pytest.raises(WeibingError) as error:
            ingested(source, **options)
        assert not (tmp_path / "store").exists()
        return str(error.value)

    return refusal


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "cdm"
    folder.mkdir()
    return folder


def csv(frame: pl.DataFrame, **options) -> bytes:
    return frame.write_csv(**options).encode()


def parquet(frame: pl.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.write_parquet(written)
    return written.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


TYPED = MEASUREMENT.with_columns(
    pl.col("measurement_id", "person_id", "measurement_concept_id").cast(pl.Int32),
    pl.col("unit_concept_id").cast(pl.Int64),
    pl.col("measurement_date").str.to_date(),
    pl.col("value_as_number").cast(pl.Float64),
)


@pytest.mark.parametrize(
    "files",
    [
        {"person.csv": csv(PERSON), "measurement.csv": csv(MEASUREMENT)},
        {"PERSON.CSV": csv(PERSON), "Measurement.csv.gz": gzip.compress(csv(MEASUREMENT))},
        {"cdm/a/person.csv": csv(PERSON), "cdm/b/measurement.tsv": csv(MEASUREMENT, separator="\t")},
        {"person.csv": csv(PERSON, separator="\t"), "measurement.txt": csv(MEASUREMENT, line_terminator="\r\n")},
        {"person.csv": b"\xef\xbb\xbf" + csv(PERSON), "measurement.csv": csv(MEASUREMENT, quote_style="always")},
        {"person.csv": csv(PERSON.rename(str.upper)), "measurement.parquet": parquet(TYPED.rename(str.upper))},
        {
            "person.parquet": parquet(PERSON.cast(pl.Float64)),
            "measurement/part-0.parquet": parquet(TYPED[:1]),
            "measurement/part-1.parquet": parquet(TYPED[1:].select(reversed(TYPED.columns))),
        },
        {
            "person.csv": csv(PERSON),
            "measurement.csv": csv(MEASUREMENT, null_value="\\N"),
            "person.md": b"#",
            ".DS_Store": b"\0",
            "measurements_explained.csv": b"no table",
        },
    ],
    ids=["csv", "packed", "nested", "tabs", "quoted", "capitals", "parts", "litter"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_files_may_be_written_in_many_ways(ingested, folder, files, packed):
    if packed:
        source = zipped(folder / "cdm.zip", files | {"__MACOSX/cdm/person.csv": b"\0\5\26\7"})
    else:
        source = folder
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    assert ingested(source) == EXPECTED


def test_times_of_parquet_keep_their_zone(ingested, folder):
    told = pl.DataFrame({"person_id": [7], "procedure_concept_id": [11], "procedure_date": [date(2024, 3, 5)]})
    at = pl.datetime(2024, 3, 5, 3, time_zone="Asia/Shanghai")
    told.with_columns(procedure_datetime=at).write_parquet(folder / "procedure_occurrence.parquet")
    assert ingested(folder) == [(7, "2024-03-04", "OMOP//11", None, None)]


def test_quotation_marks_between_tabs_quote_nothing(ingested, folder):
    # OHDSI's downloads have names that begin with a quotation mark which nothing closes.
    lines = ["concept_id\tconcept_name\tvocabulary_id\tconcept_class_id\tconcept_code"]
    lines += ['10\t"Half open\tSNOMED\tFinding\t1', '11\t"Creatinine" test\tLOINC\tLab Test\t2160-0']
    (folder / "CONCEPT.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "measurement.csv").write_bytes(csv(MEASUREMENT[1:2].with_columns(measurement_concept_id=pl.lit("11"))))
    assert ingested(folder) == [(8, "2024-03-06", "LOINC//2160-0", 81.0, "umol/L")]


def test_a_line_break_within_quotation_marks_ends_no_row(ingested, folder, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 100)
    (folder / "observation.csv").write_text(
        "person_id,observation_concept_id,observation_date,value_as_string\n"
        + '7,11,2024-03-05,"a\nb"\n' * 20
        + "7,12,2024-03-06,c\n",
        encoding="utf-8",
    )
    assert [code for _, _, code, *_ in ingested(folder)] == ["OMOP//11", "OMOP//12"]


def test_where_blocks_of_a_file_end_makes_no_difference(ingested, folder, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 200)
    (folder / "person.csv").write_bytes(csv(PERSON))
    (folder / "measurement.csv").write_bytes(csv(pl.concat([MEASUREMENT] * 20)))
    assert ingested(folder) == EXPECTED


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"person_id,death_date\n7,2024-01-02\n8\n",
            "cdm/death.csv, row 2: there are 1 cells where the header has 2. Is a delimiter or a quotation mark miss",
        ),
        ("person_id,death_date\n7,二月\n".encode("gb18030"), "cdm/death.csv is not in UTF-8. Save it as UTF-8."),
        (b"", "cdm/death.csv: there is no header in its first line."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(refusal, folder, content, sentence):
    (folder / "death.csv").write_bytes(content)
    assert sentence in refusal(folder)


@pytest.mark.parametrize("name", ["death.csv.gz", "death.parquet"])
def test_a_damaged_file_is_named(refusal, folder, name):
    whole = pl.DataFrame({"person_id": range(10_000), "death_date": "2024-01-02"})
    packed = gzip.compress(csv(whole)) if name.endswith(".gz") else parquet(whole)
    (folder / name).write_bytes(packed[: len(packed) // 2])
    assert f"cdm/{name} cannot be read: " in refusal(folder)


def test_a_source_that_is_not_there_is_named(refusal, folder):
    assert f"{folder}/x is not there. Name the folder, the zip or the database" in refusal(folder / "x")
    (folder / "person.csv").write_bytes(csv(PERSON))
    assert "person.csv is neither a folder nor a zip." in refusal(folder / "person.csv")


# databases


@pytest.fixture
def sqlite(tmp_path) -> str:
    """The URL of a database with the data set: names in capitals, one table a view, a table of something else."""
    url = f"sqlite:///{tmp_path}/county.db"
    PERSON.rename(str.upper).write_database("PERSON", url)
    TYPED.write_database("lab", url)
    PERSON.write_database("users", url)
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("create view Measurement as select * from lab"))
    return url


def test_a_database_tells_what_files_tell(ingested, sqlite):
    assert ingested(sqlite) == EXPECTED


def test_a_database_hands_its_rows_out_in_batches(ingested, sqlite, monkeypatch):
    sizes = []
    monkeypatch.setattr(database, "ROWS_PER_BATCH", 2)
    original = database.Database.batches

    def watched(*arguments):
        for batch in original(*arguments):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(database.Database, "batches", watched)
    assert ingested(sqlite) == EXPECTED
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("query", ["?schema=main", "?schema=main&vocabulary_schema=main&timeout=5"])
def test_the_url_may_name_schemas(ingested, sqlite, query):
    assert ingested(sqlite + query) == EXPECTED


def test_the_schema_may_be_given(ingested, sqlite):
    assert ingested(sqlite, schema="main") == EXPECTED


def test_a_database_is_asked_for_the_concepts_that_matter_alone(ingested, sqlite, monkeypatch):
    monkeypatch.setattr(database, "VALUES_PER_QUERY", 3)
    CONCEPT.cast({"concept_id": pl.Int64}).write_database("concept", sqlite)
    ancestors = """
        ancestor_concept_id | descendant_concept_id | min_levels_of_separation
        320128              | 21                    | 1
        999                 | 22                    | 1
    """
    cells_from(ancestors).cast(pl.Int64).write_database("concept_ancestor", sqlite)
    conditions = """
        person_id | condition_concept_id | condition_start_date
        7         | 11                   | 2024-03-05
        7         | 21                   | 2024-03-06
        7         | 22                   | 2024-03-07
    """
    cells_from(conditions).write_database("condition_occurrence", sqlite)
    codes = {code for _, _, code, *_ in ingested(sqlite)} - {code for _, _, code, *_ in EXPECTED}
    assert codes == {"LOINC//2160-0", "OMOP//320128", "OMOP//22"}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite:////nowhere/county.db", "There is no database /nowhere/county.db."),
        ("nosuch://me:secret@host/county", "The database nosuch://… cannot be read: "),
        ("firebird+nosuch://me:secret@host/county", "The database firebird+nosuch://… cannot be read: "),
        ("mysql+cymysql://me:secret@host/county", "The driver of mysql+cymysql is not installed"),
        ("://", "The database ://… cannot be read: "),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(refusal, url, sentence):
    said = refusal(url)
    assert said.startswith(sentence)
    assert "secret" not in said


def test_a_file_that_is_no_database_is_said(refusal, tmp_path):
    (tmp_path / "county.db").write_bytes(b"not a database, but long enough to look like something" * 100)
    assert "The database sqlite://… cannot be read: file is not a database" in refusal(
        f"sqlite:///{tmp_path}/county.db"
    )
