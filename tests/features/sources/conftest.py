"""A small county whose tables and expected events are drawn as text."""

import gzip
import io
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from features.events import EventStore, normalised
from features.sources.report import IngestReport
from features.sources.table import ingest_tables
from features.sources.table.identities import Who

TODAY = date(2025, 1, 1)
CROSSWALK = "crosswalk.csv"
COLUMNS = {
    "resident": "subject_id",
    "time": "time",
    "code": "code",
    "value": "numeric_value",
    "unit": "unit",
    "text": "text_value",
}


@dataclass
class County:
    """Files in a folder, a mapping, and the store that comes of them."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def file(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        """Write a table; the name says how: .csv, .csv.gz, .xlsx, .parquet, or archive.zip/member.csv."""
        text = dedent(text).lstrip("\n")
        path = self.folder / name
        if ".zip/" in name:
            path = self.folder / name.split("/", maxsplit=1)[0]
            with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name.partition("/")[2], text.encode(encoding))
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode(encoding)))
        elif name.endswith(".xlsx"):
            pl.read_csv(io.StringIO(text), infer_schema=False).write_excel(path)
        elif name.endswith(".parquet"):
            pl.read_csv(io.StringIO(text), try_parse_dates=True).write_parquet(path)
        else:
            path.write_bytes(text.encode(encoding))
        return path

    def mapping(self, text: str) -> Path:
        path = self.folder / "mapping.toml"
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def files(self) -> list[Path]:
        files = (path for path in self.folder.iterdir() if path.is_file() and path.suffix != ".toml")
        return sorted(path for path in files if path.name != CROSSWALK)

    def ingest(self, mapping: str | None = None, today: date = TODAY) -> IngestReport:
        """Take all files into the store; who ids are says the file of that name, where there is one."""
        path = self.mapping(mapping) if mapping else self.folder / "mapping.toml"
        crosswalk = self.folder / CROSSWALK
        who = Who(crosswalk=crosswalk if crosswalk.is_file() else None)
        return ingest_tables(self.files(), self.store, path, who=who, today=today)

    def drawn(self, *columns: str) -> list[list[str]]:
        """Return the store's events as a drawn table has them; by default the columns that hold anything."""
        store = EventStore.open(self.store)
        shards = [store.read(shard) for shard in store.shards] or [normalised(pl.DataFrame())]
        events = pl.concat(shards).sort("subject_id", "time", "code", "numeric_value")
        local = pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone(store.timezone)
        told = events.select(
            resident=pl.col("subject_id").cast(pl.String),
            time=local.dt.strftime("%Y-%m-%d %H:%M:%S").str.strip_suffix(" 00:00:00").str.strip_suffix(":00"),
            code="code",
            value=pl.col("numeric_value").map_elements(lambda value: f"{value:g}", pl.String),
            unit="unit",
            text="text_value",
        ).with_columns(pl.all().fill_null(""))
        filled = [name for name in told.columns if (told[name] != "").any()]
        wanted = list(columns) or filled
        assert set(filled) <= set(wanted), f"there are {filled}"
        return [wanted, *(list(row) for row in told.select(wanted).rows())]

    def is_drawn(self, text: str) -> None:
        """Require the store to hold just the events of a drawn table."""
        expected = parsed(text)
        assert self.drawn(*expected[0]) == expected


def parsed(text: str) -> list[list[str]]:
    """Return the cells of a drawn table, line by line."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


@pytest.fixture
def county(tmp_path: Path) -> County:
    return County(tmp_path)
