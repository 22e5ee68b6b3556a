"""A Parquet file as a ledger: the scores of the last complete run, and beside it, hidden, the run under way.

    scores.parquet           the last complete run; its metadata say which
    .scores.parquet.run/     run.json, and of each piece that is done 0007.parquet and 0007.json, its tally

A run becomes visible by a rename.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow.lib as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import WeibingError
from serving.scoring.run import BEFORE, DRIVERS, FRESH, KEYS, Run, ShardScores, Tally

OF_DRIVER = pl.Schema({name: kind for name, kind in DRIVERS.items() if name not in ("score", "position")})
# What the file holds: a row for each resident at risk and target.
TABLE = pl.Schema({**FRESH, "drivers": pl.List(pl.Struct(OF_DRIVER))})

RUN = b"weibing.run"


@dataclass(frozen=True)
class FileLedger:
    """Keeps scores in a Parquet file.

    Raises
    ------
    WeibingError
        From each method: if files cannot be read or written.
    """

    path: Path

    @property
    def _folder(self) -> Path:
        return self.path.with_name(f".{self.path.name}.run")

    def last(self) -> Run | None:
        """Return the run that the file holds."""
        with _said(self.path):
            return _run_of(self.path)

    def unfinished(self) -> Run | None:
        """Return the run under way; one that was complete but for its scratch has that removed."""
        told = self._folder / "run.json"
        with _said(self.path):
            if not told.exists():
                return None
            run = Run.from_json(told.read_text(encoding="utf-8"))
            if run == _run_of(self.path):
                shutil.rmtree(self._folder)
                return None
            return run

    def begin(self, run: Run) -> Run:
        """Begin a run beside the file."""
        last = self.last()
        numbered = replace(run, number=1 if last is None else last.number + 1)
        with _said(self.path):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            _write_whole(self._folder / "run.json", numbered.as_json())
        return numbered

    def abandon(self, run: Run) -> None:
        """Remove what a run has written."""
        with _said(self.path):
            shutil.rmtree(self._folder, ignore_errors=True)

    def done(self, run: Run) -> dict[str, Tally]:
        """Return what has been done, by piece."""
        with _said(self.path):
            tallies = [
                json.loads(path.read_text(encoding="utf-8")) for path in sorted(self._folder.glob("[0-9]*.json"))
            ]
        return {tally.shard: tally for tally in map(Tally.from_dict, tallies)}

    def before(self, residents: pl.Series) -> pl.DataFrame:
        """Return the scores of residents in the file."""
        return self._rows(residents, BEFORE.names())

    def size(self) -> int:
        """Return how many scores the file has."""
        with _said(self.path):
            return int(pq.read_metadata(self.path).num_rows) if self.path.exists() else 0

    def residents(self) -> pl.DataFrame:
        """Return who has a score in the file."""
        with _said(self.path):
            if not self.path.exists():
                return pl.DataFrame(schema=KEYS)
            return pl.read_parquet(self.path, columns=KEYS.names())

    def write(self, run: Run, scores: ShardScores) -> None:
        """Keep a piece: its new scores and, from the file, those that stand."""
        part = self._folder / f"{scores.place:06}"
        if self.unfinished() != run:
            raise WeibingError(f"Run {run.number} takes no more scores: another run was begun after it.")
        if part.with_suffix(".json").exists():
            return
        table = pl.concat([_nested(scores), self._standing(run, scores.kept)]).sort(KEYS.names())
        with _said(self.path):
            with _taking_the_place_of(part.with_suffix(".parquet")) as writing:
                table.write_parquet(writing)
            _write_whole(part.with_suffix(".json"), json.dumps(scores.tally.as_dict(), ensure_ascii=False))

    def complete(self, run: Run) -> None:
        """Put all pieces together, and the file in the place of the one before."""
        whole = self._folder / "whole.parquet"
        with _said(self.path):
            schema = TABLE.to_frame().to_arrow().schema.with_metadata({RUN: run.as_json()})
            with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
                for part in sorted(self._folder.glob("[0-9]*.parquet")):
                    # Each piece is a group of rows, so that it is found again without reading the others.
                    rows = pl.read_parquet(part).to_arrow().cast(schema)
                    writer.write_table(rows, row_group_size=max(len(rows), 1))
            whole.replace(self.path)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _standing(self, run: Run, kept: pl.DataFrame) -> pl.DataFrame:
        """Return scores of the file that hold at the run's index time too."""
        rows = self._rows(kept["subject_id"].unique(), TABLE.names()).join(kept, on=KEYS.names(), how="semi")
        unmoved = pl.element().struct.with_fields(change=pl.lit(0.0))
        return rows.with_columns(
            pl.lit(run.index_time, TABLE["index_time"]).alias("index_time"),
            previous=pl.col("probability"),
            drivers=pl.col("drivers").list.eval(unmoved),
        ).cast(TABLE)

    def _rows(self, residents: pl.Series, columns: list[str]) -> pl.DataFrame:
        """Return the file's rows of residents, reading no more than the groups of rows that they are in."""
        wanted = np.sort(residents.to_numpy())
        with _said(self.path):
            if not len(wanted) or not self.path.exists():
                return pl.DataFrame(schema={name: TABLE[name] for name in columns})
            groups = _groups(self.path, self.path.stat().st_mtime_ns, self.path.stat().st_ino)
            here = [number for number, group in enumerate(groups) if _meet(group, wanted)]
            rows = pl.DataFrame(pq.ParquetFile(self.path).read_row_groups(here, columns=columns))
        return rows.filter(pl.col("subject_id").is_in(wanted)).cast(pl.Schema({name: TABLE[name] for name in columns}))


def _nested(scores: ShardScores) -> pl.DataFrame:
    """Return the new scores with their drivers as lists."""
    named = scores.drivers.select("score", drivers=pl.struct(OF_DRIVER.names()))
    lists = named.group_by("score", maintain_order=True).agg("drivers")
    fresh = scores.fresh.with_row_index("score").join(lists, on="score", how="left", maintain_order="left")
    return fresh.drop("score").with_columns(pl.col("drivers").cast(TABLE["drivers"]).fill_null([]))


def _run_of(path: Path) -> Run | None:
    if not path.exists():
        return None
    told = (pq.read_schema(path).metadata or {}).get(RUN)
    return None if told is None else Run.from_json(told.decode())


@lru_cache(maxsize=2)
def _groups(path: Path, changed: int, identity: int) -> list[NDArray[np.int64]]:
    """Return the residents of each group of rows, ascending; a file that has changed is read anew."""
    with pq.ParquetFile(path) as file:
        numbers = range(file.num_row_groups)
        return [np.unique(file.read_row_group(number, columns=["subject_id"])[0].to_numpy()) for number in numbers]


def _meet(group: NDArray[np.int64], wanted: NDArray[np.int64]) -> bool:
    """Whether any of the wanted, both ascending, is in a group."""
    place = np.minimum(np.searchsorted(group, wanted), len(group) - 1)
    return bool(len(group)) and bool((group[place] == wanted).any())


def _write_whole(path: Path, text: str) -> None:
    with _taking_the_place_of(path) as writing:
        writing.write_text(text, encoding="utf-8")


@contextmanager
def _taking_the_place_of(path: Path) -> Iterator[Path]:
    """Give a file of a name that nobody else writes to, which then gets the name."""
    writing = path.with_name(f"{uuid4().hex}.writing")
    yield writing
    writing.rename(path)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeibingError(f"The scores cannot be kept in {path}: {error.strerror or error}.") from error
    except (ValueError, pa.ArrowException) as error:
        raise WeibingError(f"{path}, or the run beside it, is damaged: {error}. Remove it and score again.") from error
