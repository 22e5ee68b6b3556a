"""A declaration becomes a plan; the plan fills the profiles of many residents, or of one.

Both go through the same compiled loops on the same kind of arrays, so one is many, bit for bit.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.columns import clock, read_columns, segments
from features.errors import WeibingError
from features.events import EventStore, normalised
from features.kernel import UNBOUNDED, Known, Plan, Rows, fill, fill_residents
from features.measures import KINDS, OF_NUMBERS, Feature, Measure
from features.profile import PROFILE, SWITCH, Profile, declared
from features.times import standard_offset
from features.translation import Translator
from features.vocabulary import Vocabulary, builtin

T = TypeVar("T")

KEYS = ["subject_id", "index_time"]


class Engine:
    """Fills the profiles that a declaration describes.

    Parameters
    ----------
    profile
        The declaration; Weibing's own unless another is given.
    vocabulary
        What codes and units mean; the one that Weibing ships with unless another is given.
    timezone
        The county's zone, an IANA name: its local days and nights are those that features speak of.

    Raises
    ------
    WeibingError
        If there is no such zone; if a feature names an unknown concept, asks for numbers of a concept that has none,
        or belongs to the law's special categories and the profile does not take these in.
    """

    def __init__(
        self, profile: Profile = PROFILE, vocabulary: Vocabulary | None = None, timezone: str = "Asia/Shanghai"
    ) -> None:
        self.profile = profile
        self.vocabulary = vocabulary or builtin()
        self.timezone = timezone
        for feature in profile.features:
            _check(feature, profile, self.vocabulary)
        self.translator = Translator((feature.concept for feature in profile.features), self.vocabulary, timezone)
        self._plan = _plan(profile, self.translator.concepts, standard_offset(timezone))

    @classmethod
    def of_store(cls, store: EventStore) -> "Engine":
        """Return the engine for a store: its zone, and the features that the county has switched on."""
        return cls(declared(), timezone=store.timezone)

    def also(self, features: Iterable[Feature]) -> "Engine":
        """Return an engine that fills these features too, behind its own."""
        return Engine(self.profile.also(features), self.vocabulary, self.timezone)

    def profiles(self, events: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
        """Fill a profile for every row of `index`, residents in parallel.

        Parameters
        ----------
        events : columns of the event store
            Of these residents, and of any others.
        index : `subject_id`, `index_time`
            Any number of index times a resident; a resident without events gets nulls.

        Returns
        -------
        Sorted by `subject_id` and `index_time`, followed by a float32 column a feature.
        """
        asked = _Asked.of(index)
        known = self.translator.known(events, asked.residents)
        return _frame(asked, self.profile.names, list(self.fill(known, asked.rows)))

    def fill(self, known: Known, rows: Rows) -> NDArray[np.float32]:
        """Fill rows from the usable events that :attr:`translator` returns of the same residents.

        Returns
        -------
        shape (features, rows), NaN is null
        """
        filled = np.empty((len(self.profile), len(rows.index_time)), np.float32)
        if len(rows.index_time):
            fill(known, rows, self._plan, filled)
        return filled

    def one(self, events: pl.DataFrame, index_time: int) -> NDArray[np.float32]:
        """Fill the profile of one resident, on this thread.

        Parameters
        ----------
        events : columns of the event store
            Of this resident alone.
        index_time
            Microseconds since 1970 (UTC).

        Returns
        -------
        shape (features,), NaN is null
        """
        return self.fill_one(self.translator.of_one(events), index_time)

    def fill_one(self, known: Known, index_time: int) -> NDArray[np.float32]:
        """Fill one row from the usable events of one resident, on this thread; as :meth:`one`."""
        filled = np.empty((len(self.profile), 1), np.float32)
        rows = Rows(np.array([0, 1]), np.array([index_time]))
        fill_residents(0, 1, known, rows, self._plan, filled)
        return filled[:, 0]


@dataclass(frozen=True)
class _Asked:
    """The rows of a profile that are asked for, sorted by resident and index time.

    `residents`, shape (residents,), ascending; `rows` says where each one's begin in `index`.
    """

    index: pl.DataFrame
    residents: NDArray[np.int64]
    rows: Rows

    @classmethod
    def of(cls, index: pl.DataFrame) -> "_Asked":
        index = index.select(pl.col("subject_id").cast(pl.Int64), pl.col("index_time").cast(pl.Datetime("us")))
        index = index.sort(KEYS)
        subject, time = index["subject_id"].to_numpy(), clock(index["index_time"].to_numpy())
        residents, starts, _ = segments(subject, time)
        return cls(index, residents, Rows(starts, time))

    def among(self, residents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Rows]:
        """Return those of some residents that are asked for, the places of their rows, and these rows."""
        place = np.searchsorted(self.residents, residents)
        here = np.flatnonzero(place < len(self.residents))
        here = here[self.residents[place[here]] == residents[here]]
        first, stop = self.rows.starts[place[here]], self.rows.starts[place[here] + 1]
        starts = np.append(0, np.cumsum(stop - first))
        rows = np.arange(starts[-1]) + np.repeat(first - starts[:-1], stop - first)
        return residents[here], rows, Rows(starts, self.rows.index_time[rows])


def profile_store(store: EventStore, index: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Fill the profiles of a store's residents, one shard at a time.

    Parameters
    ----------
    index : `subject_id`, `index_time`

    Returns
    -------
    As :meth:`Engine.profiles`.
    """
    asked = _Asked.of(index)
    # As of a resident without events.
    filled = [np.full(len(asked.index), nothing) for nothing in engine.one(_no_events(), 0)]
    with store.held() as still:
        for columns in ahead(map(read_columns, still.shards)):
            residents, rows, theirs = asked.among(columns.resident)
            known = engine.translator.of_columns(columns, residents)
            for feature, values in zip(filled, engine.fill(known, theirs), strict=True):
                feature[rows] = values
    return _frame(asked, engine.profile.names, filled)


def _no_events() -> pl.DataFrame:
    return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))


def ahead(shards: Iterator[T]) -> Iterator[T]:
    """Yield shards, each read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, shards, None)
        while (read := coming.result()) is not None:
            coming = reader.submit(next, shards, None)
            yield read


def fingerprint(profiles: pl.DataFrame) -> str:
    """Return a fingerprint of profiles: the same residents, times, features and values give the same."""
    digest = hashlib.sha256("\n".join(profiles.columns).encode())
    for name in profiles.columns:
        column = profiles[name].to_physical()
        digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    return digest.hexdigest()[:16]


def _check(feature: Feature, profile: Profile, vocabulary: Vocabulary) -> None:
    concept = vocabulary.concept(feature.concept)
    if feature.measure in OF_NUMBERS and not (concept.numeric or concept.kind == "static"):
        raise WeibingError(
            f'The feature "{feature.name}" needs numbers, but {concept.name} (kind: {concept.kind}) has none.'
        )
    if feature.measure is Measure.SHARE_OF_DAYS and feature.within is None:
        raise WeibingError(f'The feature "{feature.name}" needs a look-back, such as within="30d".')
    if concept.kind == "place":
        raise WeibingError(
            f'The feature "{feature.name}" is of {concept.name}, a place, which no profile holds. Leave it out.'
        )
    if concept.kind == "special" and not profile.special_categories:
        raise WeibingError(
            f'The feature "{feature.name}" is of {concept.name}, one of the law\'s special categories. Set {SWITCH}=1,'
            " or Profile(…, special_categories=True), where the county has a lawful reason to use it."
        )


def _plan(profile: Profile, concepts: list[str], zone: int) -> Plan:
    of_events = [feature for feature in profile.features if feature.measure is not Measure.TOTAL]
    totals = [feature for feature in profile.features if feature.measure is Measure.TOTAL]
    column_of = {name: column for column, name in enumerate(profile.names)}
    series_of = {f: 2 * concepts.index(f.concept) + (f.measure in OF_NUMBERS) for f in of_events}
    slot_of = {f: (series_of[f], -(f.look_back or UNBOUNDED)) for f in of_events}
    slots = sorted(set(slot_of.values()))
    of_events.sort(key=slot_of.__getitem__)
    every = range(2 * len(concepts) + 1)
    return Plan(
        wanted=np.isin(every[:-1], [series for series, _ in slots]),
        slot_starts=_starts([series for series, _ in slots], every),
        slot_length=np.array([-length for _, length in slots], np.int64),
        feature_starts=_starts([slots.index(slot_of[f]) for f in of_events], range(len(slots) + 1)),
        column=np.array([column_of[f.name] for f in of_events], np.int32),
        measure=np.array([f.measure for f in of_events], np.int32),
        at_least=np.array([f.at_least for f in of_events], np.int32),
        part_starts=np.cumsum([0, *(len(f.of) for f in totals)]).astype(np.int32),
        total=np.array([column_of[f.name] for f in totals], np.int32),
        part=np.array([column_of[name] for f in totals for name in f.of], np.int32),
        nothing=np.array([_nothing(f) for f in profile.features], np.float32),
        zone=zone,
    )


def _starts(numbers: list[int], every: range) -> NDArray[np.int32]:
    """Return where each number begins in ascending ones."""
    return np.searchsorted(np.array(numbers, np.int64), np.array(every)).astype(np.int32)


def _nothing(feature: Feature) -> float:
    known = KINDS[feature.measure].nothing
    return np.nan if known is None else known


def _frame(asked: _Asked, names: list[str], filled: list[NDArray[np.float32]]) -> pl.DataFrame:
    """Return rows as a frame, taking the features from the list one by one, so that none is held twice."""
    filled.reverse()
    return asked.index.with_columns([pl.Series(name, filled.pop(), nan_to_null=True) for name in names])
