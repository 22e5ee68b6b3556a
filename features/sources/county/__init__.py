"""A synthetic county: residents who live, fall ill, are examined and written down, with their true risks beside.

Nobody in it exists. What happens is drawn from hazards that depend on slow attributes of each resident and on what
has happened (`residents.py`, `hazards.py`, `course.py`), so the probability of every outcome is known (`risk.py`,
`fall_risk.py`) and a model can be asked how much of it it recovers. The figures lie in the tables beside this file,
most of them assumptions; `docs/county.md` says how the county is made and how exact the truth is.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from features.errors import WeibingError
from features.events import EventStore
from features.sources.county.course import live_through, past
from features.sources.county.dice import Dice
from features.sources.county.hazards import Rates
from features.sources.county.ledger import EIGHT_HOURS
from features.sources.county.period import Period
from features.sources.county.programmes import Programmes, Taken
from features.sources.county.records import records
from features.sources.county.residents import settle
from features.sources.county.tables import fingerprint
from features.sources.county.truth import Truth
from features.sources.county.visits import asked_for_falls
from features.times import DAY, instant

ZONE = "Asia/Shanghai"
NAME = "synthetic county"
# A block is drawn as a whole from the seed and its number, so the first residents do not depend on how many follow.
BLOCK = 2_000
# What is known beside the records: a row per resident at risk, index time and target; the same per intervention; and a
# row per resident.
TRUTHS = ("truth", "effects", "hidden")


@dataclass(frozen=True)
class County:
    """A county that was simulated: how many residents and events, and from when until when in naive UTC."""

    residents: int
    events: int
    start: datetime
    end: datetime


@dataclass(frozen=True)
class _Plan:
    """What a county is made of; the same plan makes the same bytes."""

    residents: int
    period: Period
    seed: int
    programmes: Programmes


def simulate(
    path: Path,
    *,
    residents: int = 20_000,
    years: int = 8,
    seed: int = 0,
    end: date = date(2025, 1, 1),
    interventions: Mapping[str, Taken] | None = None,
    treated_from: date | None = None,
    progress: Callable[[str], None] | None = None,
) -> County:
    """Write a synthetic county into an event store, and what is true of it beside the store's data.

    The same arguments give the same bytes. With and without `interventions`, chance falls alike, so two counties differ
    by what the programmes do.

    Parameters
    ----------
    path : where the store is made
    residents : everyone who lives there at some time, those born during the record included
    years : how many calendar years the record has
    seed : from which everything is drawn
    end : the first of January with which the record closes
    interventions : programmes by name (`interventions.csv`), and the share of those eligible or the residents they take
    treated_from : the first of January on which they begin, of those eligible then; else the first day of the record
    progress : told in a sentence how far it is

    Returns
    -------
    County
        `truth.parquet` has a row per resident at risk, index time (each first of January of the record, in naive UTC)
        and target: `risk`, the probability that the outcome is recorded within the target's horizon and before death,
        and `log_hazard`, the natural logarithm of the constant yearly hazard that would give this risk.
        `effects.parquet` has a row per intervention more: whether the resident is `eligible`, and `risk_if_treated`
        from the index time on. `hidden.parquet` has a row per resident: when hypertension and diabetes began and were
        found.

    Raises
    ------
    WeibingError
        If a number is out of range, an intervention unknown, or a store with other events is at the path.
    """
    _check(residents, years, seed, end)
    plan = _plan(residents, Period(end.year - years, years), seed, interventions or {}, treated_from)
    made_of = {"residents": residents, "years": years, "seed": seed, "end": end.isoformat(), "tables": fingerprint()}
    store = _store(path, {"synthetic": True, **made_of, **_described(plan.programmes)})
    with _Truths(path) as truths:
        store.append(_blocks(plan, truths, progress or _silently))
    events = sum(pq.read_metadata(shard).num_rows for shard in store.shards)
    return County(residents, events, instant(date(plan.period.first_year, 1, 1), ZONE), instant(end, ZONE))


def _silently(sentence: str) -> None:
    """Tell nobody."""


def _check(residents: int, years: int, seed: int, end: date) -> None:
    if residents < 1 or years < 1 or seed < 0:
        raise WeibingError("A county needs at least one resident, one year and a seed that is not negative.")
    if (end.month, end.day) != (1, 1):
        raise WeibingError(f"A county's record closes on a first of January, not on {end}. Use {end.year}-01-01.")
    if end.year - years < 1992:
        raise WeibingError(f"A county's record begins in 1992 or later. Ask for at most {end.year - 1992} years.")


def _plan(residents: int, period: Period, seed: int, taken: Mapping[str, Taken], treated_from: date | None) -> _Plan:
    Programmes.check(taken)
    first = treated_from or date(period.first_year, 1, 1)
    year = first.year - period.first_year
    if (first.month, first.day) != (1, 1) or not 0 <= year < period.years:
        last = period.first_year + period.years - 1
        raise WeibingError(
            f"Programmes begin on a first of January from {period.first_year} to {last}, not on {first}."
        )
    return _Plan(residents, period, seed, Programmes(dict(taken), year))


def _described(programmes: Programmes) -> dict[str, Any]:
    """Return what a store's description says of programmes; of residents who are named, a digest."""
    if not programmes.taken:
        return {}
    taken = {
        name: some if isinstance(some, float | int) else hashlib.sha256(repr(sorted(some)).encode()).hexdigest()[:12]
        for name, some in programmes.taken.items()
    }
    return {"interventions": taken, "treated_from_year": programmes.first}


def _store(path: Path, description: dict[str, Any]) -> EventStore:
    store = EventStore.create(path, timezone=ZONE, name=NAME, description=description)
    if store.description != description:
        raise WeibingError(f"{path} holds other records than this county's. Choose another place, or remove it.")
    return store


class _Truths:
    """The files of what is true: written block by block beside their places, and moved there when complete."""

    def __init__(self, path: Path) -> None:
        self.places = [path / f"{name}.parquet" for name in TRUTHS]
        self.writers: list[pq.ParquetWriter] = []

    def __enter__(self) -> "_Truths":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for writer in self.writers:
            writer.close()
        for place in self.places:
            if error is None:
                place.with_suffix(".new").replace(place)
            else:
                place.with_suffix(".new").unlink(missing_ok=True)

    def add(self, frames: list[pl.DataFrame]) -> None:
        """Write what is true of a block, a frame per file."""
        tables = [frame.to_arrow() for frame in frames]
        if not self.writers:
            places = zip(self.places, tables, strict=True)
            self.writers = [pq.ParquetWriter(place.with_suffix(".new"), table.schema) for place, table in places]
        for writer, table in zip(self.writers, tables, strict=True):
            writer.write_table(table)


def _blocks(plan: _Plan, truths: _Truths, progress: Callable[[str], None]) -> Iterator[pl.DataFrame]:
    """Yield the events of each block of residents, and write what is true of them."""
    wanted = pl.col("subject_id") <= plan.residents
    for number in range(-(-plan.residents // BLOCK)):
        events, *true = _block(number, plan)
        truths.add([frame.filter(wanted) for frame in true])
        yield events.filter(wanted)
        progress(f"{min((number + 1) * BLOCK, plan.residents):,} of {plan.residents:,} residents")


def _block(number: int, plan: _Plan) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the events of a block of residents, their true risks, the effects of interventions, what is hidden."""
    dice, period, programmes = Dice(plan.seed, number), plan.period, plan.programmes
    residents = settle(1 + number * BLOCK, BLOCK, period, dice.of("residents"))
    rates = Rates.of(residents, period)
    course = past(residents, period, rates, dice)
    for year in range(period.years):
        if year == programmes.first:
            programmes = programmes.begin(residents, course, period.new_year(year), dice)
        live_through(year, course, residents, programmes.in_force(rates, year), dice)
    events, answers = records(residents, course, period, dice)
    truth = Truth(residents, course, rates, programmes, answers, asked_for_falls(residents, period))
    risks, effects = truth.risks_and_effects()
    return events, _risk_frame(risks), _effect_frame(effects), truth.hidden()


def _risk_frame(risks: pl.DataFrame) -> pl.DataFrame:
    hazard = (-(-pl.col("risk")).log1p() / pl.col("horizon")).log()
    columns = ("subject_id", "index_time", "target", "risk", "log_hazard")
    return _dated(risks.with_columns(log_hazard=hazard)).select(columns).sort("subject_id", "index_time", "target")


def _effect_frame(effects: pl.DataFrame) -> pl.DataFrame:
    columns = ("subject_id", "index_time", "target", "intervention", "eligible", "risk", "risk_if_treated")
    return _dated(effects).select(columns).sort("subject_id", "index_time", "target", "intervention")


def _dated(rows_of_days: pl.DataFrame) -> pl.DataFrame:
    index_time = (pl.col("day") * DAY - EIGHT_HOURS).cast(pl.Datetime("us"))
    return rows_of_days.with_columns(pl.col("target", "^intervention$").cast(pl.String), index_time=index_time)
