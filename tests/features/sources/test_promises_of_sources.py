"""What always holds of profiles (design.md, section 5), held to the records of every source: promises 1, 2, 3 and 6."""

import json
import math
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine, fingerprint, profile_store
from features.events import EventStore
from features.profile import PROFILE
from features.sources.county import simulate
from features.sources.fhir import ingest_fhir
from features.sources.meds import ingest_meds
from features.sources.omop import ingest_omop
from features.sources.table import ingest_tables
from features.sources.table.mapping import read_mapping
from features.times import instant, microseconds
from features.vocabulary import builtin
from tests.reference.featuriser import Recorded, profile_of

TODAY = date(2025, 1, 1)
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
CHINA = "Asia/Shanghai"


def tables(folder: Path, store: Path) -> None:
    """Every ready mapping with its made-up tables, into one store."""
    for mapping in sorted(EXAMPLES.glob("*.toml")):
        taken = [file for table in read_mapping(mapping).table for file in EXAMPLES.glob("*.csv") if table.takes(file)]
        ingest_tables(sorted(taken), store, mapping, today=TODAY)


def fhir(folder: Path, store: Path) -> None:
    def of(resident: int, kind: str, number: int, **told: object) -> str:
        return json.dumps(
            {"resourceType": kind, "id": f"{kind}{number}", "subject": {"reference": f"Patient/{resident}"}, **told}
        )

    def coded(system: str, code: str) -> dict[str, object]:
        return {"coding": [{"system": system, "code": code}]}

    lines, number = [], 0
    for resident in range(1, 7):
        lines.append(
            json.dumps({"resourceType": "Patient", "id": str(resident), "gender": "female", "birthDate": "1950-06-01"})
        )
        for year in range(2016, 2024):
            number += 1
            day = f"{year}-0{1 + (resident + year) % 9}-10"
            for code, value in (("8480-6", 130 + (resident * year) % 30), ("4548-4", 6 + resident % 3 / 2)):
                quantity = {"value": value}
                seen = {"status": "final", "effectiveDateTime": day, "valueQuantity": quantity}
                lines.append(
                    of(resident, "Observation", f"{number}-{code}", code=coded("http://loinc.org", code), **seen)
                )
        onset = {
            "onsetDateTime": f"201{5 + resident % 4}-05-01",
            "code": coded("http://hl7.org/fhir/sid/icd-10", "E11.9"),
        }
        lines.append(of(resident, "Condition", resident, **onset))
    (folder / "export.ndjson").write_text("\n".join(lines), encoding="utf-8")
    ingest_fhir([folder / "export.ndjson"], store, timezone=CHINA, today=TODAY)


def omop(folder: Path, store: Path) -> None:
    person = ["person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id"]
    measured = ["measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number"]
    found = ["condition_occurrence_id,person_id,condition_concept_id,condition_start_date"]
    for resident in range(1, 7):
        person.append(f"{resident},8532,1950,0,0")
        found.append(f"{resident},{resident},201826,201{resident}-03-01")
        measured += [
            f"{resident}{year},{resident},3004249,{year}-0{1 + year % 9}-15,{125 + (resident * year) % 40}"
            for year in range(2014, 2024)
        ]
    for name, lines in (("person", person), ("measurement", measured), ("condition_occurrence", found)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ingest_omop(folder, store, timezone=CHINA, today=TODAY)


def county(folder: Path, store: Path) -> None:
    simulate(store, residents=40, years=6, seed=3)


def meds(folder: Path, store: Path) -> None:
    county(folder, folder / "other")
    ingest_meds(folder / "other", store, timezone=CHINA)


SOURCES: dict[str, Callable[[Path, Path], None]] = {
    "tables": tables,
    "fhir": fhir,
    "omop": omop,
    "meds": meds,
    "county": county,
}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    folder = tmp_path_factory.mktemp(request.param)
    SOURCES[request.param](folder, folder / "store")
    return EventStore.open(folder / "store")


@pytest.fixture(scope="module")
def engine(store: EventStore) -> Engine:
    return Engine.of_store(store)


def all_events(store: EventStore) -> pl.DataFrame:
    return pl.concat([store.read(shard) for shard in store.shards]).sort("subject_id", "time")


days = st.integers(0, 12 * 365).map(lambda day: date(2013, 1, 1) + timedelta(days=day))


def rows_at(store: EventStore, day: date) -> pl.DataFrame:
    return pl.DataFrame({"subject_id": store.residents()}).with_columns(index_time=instant(day, store.timezone))


@settings(max_examples=8)
@given(day=days)
def test_what_is_recorded_later_changes_no_profile(store, engine, day):
    events, index = all_events(store), rows_at(store, day)
    earlier = events.filter(pl.col("time").is_null() | (pl.col("time") < instant(day, store.timezone)))
    assert engine.profiles(events, index).equals(engine.profiles(earlier, index))


@settings(max_examples=8)
@given(day=days)
def test_one_is_many(store, engine, day):
    index = rows_at(store, day)
    batch = profile_store(store, index, engine)
    for row in batch.iter_rows():
        alone = engine.one(store.resident(row[0]), microseconds(row[1]))
        together = np.array([math.nan if value is None else value for value in row[2:]], np.float32)
        assert alone.tobytes() == together.tobytes()


@settings(max_examples=3)
@given(day=days, data=st.data())
def test_the_reference_agrees(store, engine, day, data):
    resident = int(data.draw(st.sampled_from(store.residents().tolist())))
    events, at = store.resident(resident), microseconds(instant(day, store.timezone))
    columns = (events["time"].to_physical(), events["code"], events["numeric_value"], events["unit"])
    # The reference walks slowly: of a long record of a device, its end.
    told = [Recorded(*row) for row in zip(*columns, strict=True)][-150:]
    kept = events.tail(150)
    expected = profile_of(told, at, PROFILE, builtin())
    for name, value in zip(engine.profile.names, engine.one(kept, at), strict=True):
        wanted = math.nan if expected[name] is None else expected[name]
        scale = 1e-3 if "_slope" in name else 2e-6
        np.testing.assert_allclose(value, wanted, rtol=scale, atol=scale, err_msg=f"{resident} {name}")


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_the_same_records_give_the_same_profiles(source, tmp_path):
    prints = []
    for name in ("one", "another"):
        folder = tmp_path / name
        folder.mkdir()
        SOURCES[source](folder, folder / "store")
        made = EventStore.open(folder / "store")
        prints.append(fingerprint(profile_store(made, rows_at(made, date(2022, 1, 1)), Engine.of_store(made))))
    assert prints[0] == prints[1]
    assert len(made.residents()) > 3
