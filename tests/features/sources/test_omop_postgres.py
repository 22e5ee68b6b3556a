"""An OMOP data set in a PostgreSQL server: whichever way it is read, the store is the same."""

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import psycopg
import pytest
import sqlalchemy as sql

from features.errors import WeibingError
from features.events import EventStore
from features.sources.omop import ingest_omop
from features.sources.omop.database import opened_database
from features.sources.omop.tables import NEEDED, VOCABULARY
from features.sources.report import IngestReport
from tests.postgres import drop, new_database
from tests.real import real_records

TODAY = date(2025, 1, 1)

# The types that OHDSI's own definition of the tables gives, by how a column's name ends; VARCHAR for the others.
TYPES = {
    "_datetime": "TIMESTAMP",
    "_date": "DATE",
    "_id": "INTEGER",
    "_number": "NUMERIC",
    "_of_birth": "INTEGER",
    "_supply": "INTEGER",
    "_separation": "INTEGER",
}
TEXTS = {"vocabulary_id", "domain_id", "concept_class_id", "unique_device_id", "production_id"}

PERSON = """\
person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,birth_datetime
7,8532,1950,6,1,
8,8507,1948,11,20,1948-11-20 07:30:00
"""
MEASUREMENT = """\
measurement_id,person_id,measurement_concept_id,measurement_date,measurement_datetime,value_as_number,unit_concept_id
1,7,3004249,2024-03-05,2024-03-05 08:30:00,152.5,8876
2,8,3016723,2024-03-06,,81,8749
3,8,3016723,2024-03-07,,,8749
4,8,3004249,2024-03-07,2024-03-07 21:15:30,148,8876
5,7,3004249,2024-03-09,2024-03-09 08:30:00,150.0,8876
"""
CONDITION = """\
condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_source_value
1,7,11,2024-03-05,I10
2,8,21,2024-03-06,E11.9
"""
CONCEPT = """\
concept_id,concept_name,vocabulary_id,concept_class_id,concept_code
11,Essential hypertension,ICD10,ICD10 code,I10
"""
ANCESTOR = """\
ancestor_concept_id,descendant_concept_id,min_levels_of_separation,max_levels_of_separation
201826,21,1,1
"""
MADE_UP = {
    "person": PERSON,
    "measurement": MEASUREMENT,
    "condition_occurrence": CONDITION,
    "concept": CONCEPT,
    "concept_ancestor": ANCESTOR,
}


@pytest.fixture
def database(database_server) -> Iterator[str]:
    """The URL of an empty database."""
    url = new_database(database_server)
    yield url
    drop(database_server, url)


def type_of(column: str) -> str:
    ends = [kind for end, kind in TYPES.items() if column.endswith(end) and column not in TEXTS]
    return ends[0] if ends else "VARCHAR"


def load(url: str, tables: dict[str, str], schema: str = "public") -> None:
    """Make the tables as OHDSI defines them, and fill them from CSV."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for table, content in tables.items():
            header = next(csv.reader(io.StringIO(content)))
            columns = ", ".join(f'"{name}" {type_of(name)}' for name in header)
            cursor.execute(f"CREATE TABLE {schema}.{table} ({columns})")
            with cursor.copy(f"COPY {schema}.{table} FROM STDIN (FORMAT csv, HEADER)") as copy:
                copy.write(content)


def written(folder: Path, tables: dict[str, str]) -> Path:
    folder.mkdir()
    for table, content in tables.items():
        (folder / f"{table}.csv").write_text(content, encoding="utf-8")
    return folder


def taken_in(source: Path | str, store: Path, **options: str) -> tuple[IngestReport, pl.DataFrame]:
    """Take a data set in; return the report, and the events of the store."""
    report = ingest_omop(source, store, today=TODAY, **options)
    opened = EventStore.open(store)
    return report, pl.concat([opened.read(shard) for shard in opened.shards])


def test_a_real_sample_tells_in_a_server_what_it_tells_in_its_files(database, tmp_path):
    sample = real_records("omop") / "Synthea27Nj_5.4.zip"
    with zipfile.ZipFile(sample) as archive:
        members = {Path(name).stem.lower(): name for name in archive.namelist() if "MACOSX" not in name}
        tables = {table: archive.read(members[table]).decode() for table in NEEDED if table in members}
    assert len(tables) == len(NEEDED), "the sample has all tables that are read"
    load(database, {table: content for table, content in tables.items() if table not in VOCABULARY}, "cdm")
    load(database, {table: content for table, content in tables.items() if table in VOCABULARY}, "vocabulary")

    from_files, expected = taken_in(sample, tmp_path / "files")
    url = f"{database}&schema=cdm&vocabulary_schema=vocabulary"
    from_server, events = taken_in(url, tmp_path / "server")
    assert events.equals(expected)
    assert len(events) > 20_000
    assert from_server.remarks == from_files.remarks
    assert (from_server.events_written, from_server.duplicates, from_server.residents_new) == (
        from_files.events_written,
        from_files.duplicates,
        28,
    )
    again, same = taken_in(url, tmp_path / "server")
    assert (again.events_written, again.residents_new) == (0, 0)
    assert same.equals(expected)


def test_what_a_server_s_types_hold_is_read_as_from_files(database, tmp_path):
    load(database, MADE_UP)
    options = {"timezone": "Asia/Shanghai"}
    _, expected = taken_in(written(tmp_path / "cdm", MADE_UP), tmp_path / "files", **options)
    _, events = taken_in(database, tmp_path / "server", **options)
    assert events.equals(expected)
    told = set(events.select("subject_id", pl.col("time").dt.to_string("%F %T"), "code", "numeric_value").rows())
    assert told >= {
        (7, "2024-03-05 00:30:00", "OMOP//3004249", 152.5),
        (8, "2024-03-06 16:00:00", "OMOP//3016723", None),
        (7, "2024-03-04 16:00:00", "ICD10//I10", None),
        (8, "2024-03-05 16:00:00", "OMOP//201826", None),
    }


def test_a_row_that_was_corrected_in_the_server_replaces_what_it_told_before(database, tmp_path):
    load(database, MADE_UP)
    taken_in(database, tmp_path / "store")
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        connection.execute(
            "UPDATE measurement SET value_as_number = 125, measurement_date = '2024-03-04',"
            " measurement_datetime = NULL WHERE measurement_id = 1"
        )
    report, events = taken_in(database, tmp_path / "store")
    _, fresh = taken_in(database, tmp_path / "fresh")
    assert events.equals(fresh)
    assert (report.records_replaced, report.events_removed, report.events_written) == (1, 1, 1)


def test_a_time_with_a_zone_of_its_own_keeps_it_whatever_the_session_s(database, tmp_path):
    load(database, MADE_UP)
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        connection.execute("SET TIME ZONE 'Asia/Shanghai'")
        connection.execute("ALTER TABLE measurement ALTER measurement_datetime TYPE TIMESTAMPTZ")
        connection.execute(f"ALTER DATABASE {sql.make_url(database).database} SET timezone TO 'America/New_York'")
    for zone in ("UTC", "Asia/Shanghai"):
        _, events = taken_in(database, tmp_path / zone[:3], timezone=zone)
        (told,) = events.filter(pl.col("numeric_value") == 152.5)["time"]
        assert told == datetime(2024, 3, 5, 0, 30), zone


def test_a_view_serves_as_a_table_does(database, tmp_path):
    load(database, MADE_UP, "raw")
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        connection.execute("CREATE SCHEMA cdm")
        for table in MADE_UP:
            connection.execute(f"CREATE VIEW cdm.{table} AS SELECT * FROM raw.{table}")
    _, expected = taken_in(written(tmp_path / "cdm", MADE_UP), tmp_path / "files")
    _, events = taken_in(database, tmp_path / "server", schema="cdm")
    assert events.equals(expected)


def test_rows_are_fetched_as_they_are_needed(database, monkeypatch):
    monkeypatch.setattr("features.sources.omop.database.ROWS_PER_BATCH", 2)
    load(database, MADE_UP)
    with opened_database(database) as opened:
        batches = opened.batches("measurement", ["measurement_id"])
        assert next(batches)["measurement_id"].to_list() == ["1", "2"]
        open_cursors = opened.connection.execute(
            sql.text("SELECT count(*) FROM pg_cursors WHERE statement LIKE '%measurement%'")
        )
        assert open_cursors.scalar_one() == 1, "the server holds the rest"
        assert [len(batch) for batch in batches] == [2, 1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"username": "stranger", "password": "secret"}, 'role "stranger" does not exist'),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "onnection"),
    ],
    ids=["database", "user", "host"],
)
def test_a_server_that_does_not_let_one_in_is_said_without_the_password(database, tmp_path, change, sentence):
    url = sql.make_url(database).set(**change).render_as_string(hide_password=False)
    with pytest.raises(
        WeibingError, match=f"The database postgresql\\+psycopg://… cannot be read: .*{sentence}"
    ) as error:
        ingest_omop(url, tmp_path / "store", today=TODAY)
    assert "secret" not in str(error.value)
    assert not (tmp_path / "store").exists()


def test_who_may_not_read_a_table_is_told_so_and_nothing_is_written(database, tmp_path):
    load(database, MADE_UP)
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT SELECT ON person TO reader")
    url = sql.make_url(database).set(username="reader").render_as_string()
    with pytest.raises(WeibingError, match="permission denied for table"):
        ingest_omop(url, tmp_path / "store", today=TODAY)
    assert not (tmp_path / "store").exists()
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")
