"""Any data set in the MEDS format: https://github.com/Medical-Event-Data-Standard/meds, version 0.3 or 0.4.

Columns that the standard lets one leave out, write in another type or add are taken as they come.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds

from features.errors import WeibingError, did_you_mean
from features.events import SCHEMA, EventStore
from features.records import PAIRS, ROW, pairs_of, read_pairs
from features.sources.report import IngestReport, Reason, admit, opened_store
from features.sources.table.identities import ANYBODY, Identities, Who
from features.sources.table.residents import IDENTITY_OR_MOBILE, are_identity_numbers
from features.times import zone

ROWS_PER_BATCH = 500_000
# Identity numbers have 18 digits; ids below need not be looked at.
SMALLEST_IDENTITY_NUMBER = 10**17


def ingest_meds(
    source: Path,
    store_path: Path,
    *,
    timezone: str | None = None,
    who: Who = ANYBODY,
    today: date | None = None,
    progress: Callable[[str], None] | None = None,
) -> IngestReport:
    """Read a data set in the MEDS format into an event store, new or there already: all of it or nothing.

    Parameters
    ----------
    source : the folder that holds `data/` with its Parquet files, nested as they may be
    store_path : the store, created where there is none
    timezone : of the store; and of the data set's times, unless they bear one or Weibing wrote them. By default, that
        of the data set if Weibing wrote it, and else UTC
    who : what is said of the ids in `subject_id`; the source is by default "meds"
    today : the day after whose end nothing can have happened; by default, today in that zone. Records whose dates were
        shifted into the future need a later one
    progress : called now and then with a line that says how far it is

    Raises
    ------
    WeibingError
        If the data set does not conform, or the store is not as it must be.
    """
    found = _DataSet.found(Path(source), Path(store_path))
    name = timezone or found.store.timezone
    report = IngestReport()
    identities = who.identities("meds")
    until = today or datetime.now(zone(name)).date()
    kept = found.store
    with opened_store(Path(store_path), timezone=name, name=kept.name, description=kept.description) as store:
        found.require_same_kind(store)
        admit(found.events(_Reading(name, identities, report), progress or _in_silence), store, report, until)
    return report


@dataclass(frozen=True)
class _Reading:
    """How rows are read: the zone of their times, who their subjects are, and the report of what was found."""

    times_in: str
    identities: Identities
    report: IngestReport


@dataclass(frozen=True)
class _DataSet:
    """A data set in the MEDS format; `own` if it is a store that Weibing made, which holds times in UTC."""

    store: EventStore
    shards: list[Path]
    own: bool

    @classmethod
    def found(cls, path: Path, target: Path) -> "_DataSet":
        """Find a data set, and that its files have the columns of the format."""
        data = path / meds.data_subdirectory
        if not any(data.rglob("*.parquet")):
            raise WeibingError(
                f"{path} is no data set in the MEDS format: there are no Parquet files in {data}. Name the folder that "
                f'holds "{meds.data_subdirectory}".'
            )
        if path.resolve() == target.resolve():
            raise WeibingError(f"{path} cannot be taken into itself. Name another store.")
        store = EventStore.open(path)
        shards = store.shards
        for shard in shards:
            _require_columns(shard)
        return cls(store, shards, own=store.shard_bits is not None)

    def require_same_kind(self, target: EventStore) -> None:
        """Require that a synthetic county is not mixed with a real one, nor dates with days since the first."""
        if self.own and target.description != self.store.description:
            raise WeibingError(
                f"{self.store.path} is {_described(self.store)}, and {target.path} is {_described(target)}. Take it "
                "into a store of its own."
            )

    def events(self, reading: _Reading, progress: Callable[[str], None]) -> Iterator[pl.DataFrame]:
        """Yield the events, all of a resident at once, so that they can be held against the birth among them.

        From a store of our own, with the records that tell them.
        """
        reading = replace(reading, times_in="UTC") if self.own else reading
        report = reading.report
        splits = self.store.path / meds.subject_splits_filepath
        if splits.is_file():
            report.add_rows(f"{meds.subject_splits_filepath} (not taken in)", pq.read_metadata(splits).num_rows)
        for number, shard in enumerate(self.shards, 1):
            batches = _with_records(_batches(shard), shard) if self.own else _batches(shard)
            for rows in _whole_residents(_as_in_the_store(rows, shard, reading) for rows in batches):
                report.add_rows(meds.data_subdirectory, len(rows))
                yield rows
            progress(f"{number:,} of {len(self.shards):,} files: {report.rows[meds.data_subdirectory]:,} rows")
        progress("sorting the events into the store")


def _batches(shard: Path) -> Iterator[pl.DataFrame]:
    try:
        with pq.ParquetFile(shard) as parquet:
            for rows in parquet.iter_batches(ROWS_PER_BATCH):
                yield pl.DataFrame(rows)
    except (pa.ArrowException, OSError) as error:
        raise WeibingError(f"{shard} cannot be read to its end: {error}") from error


def _with_records(batches: Iterator[pl.DataFrame], shard: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a shard of our own, each once for every record that tells it."""
    pairs, first = read_pairs(pairs_of(shard)), 0
    for rows in batches:
        numbered = rows.with_row_index(ROW, first).with_columns(pl.col(ROW).cast(PAIRS[ROW]))
        first += len(rows)
        yield numbered.join(pairs, on=ROW, how="left", maintain_order="left").drop(ROW) if len(pairs) else rows


def _whole_residents(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut the rows anew, between two residents."""
    rest = pl.DataFrame()
    for batch in batches:
        rows = pl.concat([rest, batch], how="diagonal_relaxed")
        others = (rows["subject_id"] != rows["subject_id"][-1]).arg_true() if len(rows) else []
        cut = int(others[-1]) + 1 if len(others) else 0
        yield rows[:cut]
        rest = rows[cut:]
    yield rest


def _as_in_the_store(rows: pl.DataFrame, shard: Path, reading: _Reading) -> pl.DataFrame:
    """Return rows with the store's types; identity and telephone numbers are struck out of texts."""
    types = {name: dtype for name, dtype in SCHEMA.items() if name in rows.columns and name != "time"}
    cast = rows.with_columns(
        _in_utc(rows["time"], reading.times_in),
        *(pl.col(name).cast(dtype, strict=False) for name, dtype in types.items()),
    )
    for column in ("subject_id", "code"):
        if cast[column].null_count():
            raise WeibingError(f'{shard}: there are events without a "{column}", which MEDS does not allow.')
    known = _about_residents(cast, shard, reading)
    return _without_numbers_of_people(known, reading.report) if "text_value" in types else known


def _about_residents(rows: pl.DataFrame, shard: Path, reading: _Reading) -> pl.DataFrame:
    """Return the rows of residents, under their own ids."""
    if not reading.identities.given:
        _require_no_identity_numbers(rows["subject_id"], shard)
        return rows
    residents = reading.identities.residents(rows["subject_id"].cast(pl.String))
    reading.report.remark(Reason.NOT_LISTED, meds.data_subdirectory, residents.null_count())
    return rows.with_columns(residents.alias("subject_id")).drop_nulls("subject_id")


def _in_utc(times: pl.Series, timezone: str) -> pl.Series:
    """Return times as naive UTC; those that bear no zone are of the one given."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        return times.dt.cast_time_unit("us").dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    local = times.cast(SCHEMA["time"])
    if timezone == "UTC":
        return local
    # What summer time skips, it moves to an hour later.
    found = _shifted(local, timezone)
    return found.zip_with(found.is_not_null(), _shifted(local + timedelta(hours=1), timezone))


def _shifted(local: pl.Series, timezone: str) -> pl.Series:
    aware = local.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    return aware.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _without_numbers_of_people(rows: pl.DataFrame, report: IngestReport) -> pl.DataFrame:
    text = pl.col("text_value")
    telling = rows.filter(text.str.contains(IDENTITY_OR_MOBILE))
    for code, count in telling.group_by("code").len().iter_rows():
        report.remark(Reason.STRUCK_OUT, code, count)
    return rows.with_columns(text.str.replace_all(IDENTITY_OR_MOBILE, "***")) if len(telling) else rows


def _require_no_identity_numbers(residents: pl.Series, shard: Path) -> None:
    large = residents.filter(residents >= SMALLEST_IDENTITY_NUMBER).unique()
    if are_identity_numbers(large.cast(pl.String)):
        raise WeibingError(
            f"{shard}: the residents are identity numbers, which never enter the store. Hash them: put a secret in an "
            "environment variable and give its name as the key, such as WEIBING_RESIDENT_KEY."
        )


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return values in (pa.string(), pa.large_string(), pa.string_view())


# The columns of MEDS, and what they hold. A column of nulls alone may bear no type.
REQUIRED = ("subject_id", "time", "code")
HOLDS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "subject_id": ("integers", pa.types.is_integer),
    "time": ("times", _is_time),
    "code": ("texts", _is_text),
    "numeric_value": ("numbers", _is_number),
    "text_value": ("texts", _is_text),
}


def _require_columns(shard: Path) -> None:
    """Require the columns of the format, in types that can be what they must be."""
    try:
        schema = pq.read_schema(shard)
    except (pa.ArrowException, OSError) as error:
        raise WeibingError(f"{shard} is not a Parquet file, or is damaged: {error}") from error
    for name in REQUIRED:
        if name not in schema.names:
            columns = f"The columns are: {', '.join(schema.names)}.{did_you_mean(name, schema.names)}"
            raise WeibingError(f'{shard}: there is no column "{name}", which MEDS requires.\n{columns}')
    for name, (what, fits) in HOLDS.items():
        kind = schema.field(name).type if name in schema.names else pa.null()
        if not fits(kind) and not pa.types.is_null(kind):
            raise WeibingError(f'{shard}: the column "{name}" holds {kind}, where MEDS has {what}.')


def _described(store: EventStore) -> str:
    return ", ".join(f"{name}: {value}" for name, value in store.description.items()) or "a store of dated records"


def _in_silence(line: str) -> None:
    pass
