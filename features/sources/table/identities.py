"""Who the ids of a source are: as a crosswalk lists them, or hashed with a secret; the same way for every source.

A crosswalk is a table with the columns ``source``, ``source_id`` and ``resident``. An id that it lists is that
resident. Any other is hashed with the secret, or left out where there is none. Neither the ids nor the secret are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from features.errors import WeibingError, did_you_mean
from features.sources.table.residents import are_identity_numbers, integers, key_in, key_of, keyed, written_one_way

COLUMNS = ("source", "source_id", "resident")


@dataclass(frozen=True)
class Who:
    """What is said of the ids of a source by whoever takes it in.

    Parameters
    ----------
    source : the name of the system that the records and their ids come from; each kind of source has one by default
    key : the environment variable that holds the secret, or ``@`` and the file that does
    crosswalk : the file, where there is one
    identifier : of FHIR, the system of the identifier that stands for a Patient in the place of the id
    """

    source: str | None = None
    key: str | None = None
    crosswalk: Path | None = None
    identifier: str | None = None

    def identities(self, source: str, key: str | None = None) -> "Identities":
        """Read what is needed to tell who ids are; the source and the secret are by default those given here.

        Raises
        ------
        WeibingError
            If the secret or the crosswalk is not as it must be, or the crosswalk lists nobody of the source.
        """
        name, read = self.source or source, secret(key or self.key)
        return Identities(name, read, listed_in(self.crosswalk, name, read) if self.crosswalk else None)


@dataclass(frozen=True)
class Identities:
    """Who the ids of one source are.

    Parameters
    ----------
    source : the name of the system that the ids are of
    key : the secret with which ids are hashed
    listed : the residents of a crosswalk, by id, each id written one way; None without a crosswalk
    """

    source: str
    key: bytes | None = field(default=None, repr=False)
    listed: Mapping[str, int] | None = field(default=None, repr=False)

    @property
    def given(self) -> bool:
        """Whether something says who an id is; otherwise the id is the resident."""
        return self.key is not None or self.listed is not None

    def residents(self, ids: pl.Series) -> pl.Series:
        """Return the residents of ids; null for those that nothing says."""
        hashed = keyed(ids, self.key) if self.key else pl.repeat(None, len(ids), dtype=pl.Int64, eager=True)
        if self.listed is None:
            return hashed
        distinct = ids.unique().drop_nulls()
        known = pl.Series([self.listed.get(one) for one in written_one_way(distinct)], dtype=pl.Int64)
        return ids.replace_strict(distinct, known, default=None, return_dtype=pl.Int64).fill_null(hashed)


ANYBODY = Who()
NUMBERED = Identities("")


def secret(key: str | None) -> bytes | None:
    """Return the secret of an environment variable, or of a file (``@file``); None where none is named.

    Raises
    ------
    WeibingError
        If there is none, or it is short enough to be guessed.
    """
    if key is None:
        return None
    return key_in(Path(key[1:])) if key.startswith("@") else key_of(key)


def listed_in(path: Path, source: str, key: bytes | None) -> dict[str, int]:
    """Return the residents that a crosswalk lists of a source, by id.

    Residents that are no integers, or identity numbers, are hashed with the secret.

    Raises
    ------
    WeibingError
        If the file is not as it must be, or lists nobody of the source; names the line.
    """
    rows = _rows(path)
    ours = rows.filter(pl.col("source") == source)
    if not len(ours):
        known = rows["source"].unique().sort().to_list()
        raise WeibingError(
            f'The crosswalk {path.name} lists nobody of the source "{source}". Its sources are: {", ".join(known)}.'
            f"{did_you_mean(source, known)} Say which one the records are of."
        )
    residents = _residents(ours, path, key)
    found: dict[str, int] = {}
    for line, one, resident in zip(ours["line"], written_one_way(ours["source_id"]), residents, strict=True):
        if found.setdefault(one, resident) != resident:
            raise WeibingError(f"{path.name}, line {line}: this id of {source} is listed before, as another resident.")
    return found


def _rows(path: Path) -> pl.DataFrame:
    """Read a crosswalk as text, with the line of each row."""
    try:
        cells = pl.read_csv(path, infer_schema=False, row_index_name="line", row_index_offset=2)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise WeibingError(f"The crosswalk {path} cannot be read as a CSV in UTF-8: {reason}") from error
    rows = cells.rename(str.strip)
    for name in COLUMNS:
        if name not in rows.columns:
            header = ", ".join(rows.columns[1:])
            raise WeibingError(f'{path.name}: there is no column "{name}". The columns are: {header}.')
    rows = rows.select("line", *(pl.col(name).str.strip_chars().replace("", None) for name in COLUMNS))
    empty = rows.filter(pl.any_horizontal(pl.all().is_null()) & ~pl.all_horizontal(pl.col(COLUMNS).is_null()))
    if len(empty):
        raise WeibingError(f"{path.name}, line {empty['line'][0]}: an empty cell. Each row has {', '.join(COLUMNS)}.")
    return rows.drop_nulls()


def _residents(rows: pl.DataFrame, path: Path, key: bytes | None) -> list[int]:
    residents = rows["resident"]
    numbers = integers(residents)
    if not numbers.null_count() and not are_identity_numbers(residents):
        return numbers.to_list()
    if key is None:
        raise WeibingError(
            f"{path.name}: the residents are identity numbers, or no integers. Hash them: put a secret in an "
            "environment variable and name it as the key, such as WEIBING_RESIDENT_KEY; or number the residents."
        )
    return keyed(residents, key).to_list()
