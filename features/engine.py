"""A declaration becomes a plan; the plan fills the profiles of many residents, or of one.

Both go through the same compiled loops on the same kind of arrays, so one is many, bit for bit.
"""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import WeibingError
from features.events import EventStore, normalised
from features.kernel import (
    UNBOUNDED,
    Plan,
    Rows,
    fill,
    fill_residents,
)
from features.measures import OF_NUMBERS, Feature
from features.profile import PROFILE, Profile
from features.translation import Translator, clock
from features.vocabulary import Vocabulary, builtin

KEYS = ["subject_id", "index_time"]


class Engine:
    """Fills the profiles that a declaration describes.

    Parameters
    ----------
    profile
        The declaration; Weibing's own unless another is given.
    vocabulary
        What codes and units mean; the one that Weibing ships with unless another is given.

    Raises
    ------
    WeibingError
        If a feature names an unknown concept, or asks for the numbers of a concept that has none.
    """

    def __init__(self, profile: Profile = PROFILE, vocabulary: Vocabulary | None = None) -> None:
        self.profile = profile
        self.vocabulary = vocabulary or builtin()
        for feature in profile.features:
            _check(feature, self.vocabulary)
        self._translator = Translator((feature.concept for feature in profile.features), self.vocabulary)
        self._plan = _plan(profile, self._translator.concepts)

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
        index = index.select(pl.col("subject_id").cast(pl.Int64), pl.col("index_time").cast(pl.Datetime("us")))
        index = index.sort(KEYS)
        residents = index["subject_id"].unique().sort().to_numpy()
        row_starts = np.searchsorted(index["subject_id"].to_numpy(), residents)
        rows = Rows(np.append(row_starts, len(index)), clock(index["index_time"]))
        filled = np.empty((len(self.profile), len(index)), np.float32)
        if len(index):
            fill(self._translator.known(events, residents), rows, self._plan, filled)
        return _frame(index, self.profile.names, filled)

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
        filled = np.empty((len(self.profile), 1), np.float32)
        rows = Rows(np.array([0, 1]), np.array([index_time]))
        fill_residents(0, 1, self._translator.of_one(events), rows, self._plan, filled)
        return filled[:, 0]


def profile_store(store: EventStore, index: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Fill the profiles of a store's residents, one shard at a time.

    Parameters
    ----------
    index : `subject_id`, `index_time`

    Returns
    -------
    As :meth:`Engine.profiles`.
    """
    parts = []
    for shard in store.shards:
        events = store.read(shard)
        here = index.join(events.select("subject_id").unique(), on="subject_id", how="semi")
        if len(here):
            parts.append(engine.profiles(events, here))
    found = pl.concat([part.select(KEYS) for part in parts]) if parts else index.select(KEYS).clear()
    parts.append(engine.profiles(_no_events(), index.join(found, on=KEYS, how="anti")))
    return pl.concat(parts).sort(KEYS)


def _no_events() -> pl.DataFrame:
    return normalised(pl.DataFrame(schema={"subject_id": pl.Int64}))


def fingerprint(profiles: pl.DataFrame) -> str:
    """Return a fingerprint of profiles: the same residents, times, features and values give the same."""
    digest = hashlib.sha256("\n".join(profiles.columns).encode())
    for name in profiles.columns:
        column = profiles[name].to_physical()
        digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    return digest.hexdigest()[:16]


def _check(feature: Feature, vocabulary: Vocabulary) -> None:
    concept = vocabulary.concept(feature.concept)
    if feature.measure in OF_NUMBERS and not (concept.numeric or concept.kind == "static"):
        raise WeibingError(
            f'The feature "{feature.name}" needs numbers, but {concept.name} (kind: {concept.kind}) has none.'
        )


def _plan(profile: Profile, concepts: list[str]) -> Plan:
    slot_of = [(concepts.index(f.concept), f.look_back or UNBOUNDED) for f in profile.features]
    slots = sorted(set(slot_of), key=lambda slot: (slot[0], -slot[1]))
    number_of = {slot: number for number, slot in enumerate(slots)}
    return Plan(
        slot_starts=np.searchsorted([concept for concept, _ in slots], np.arange(len(concepts) + 1)).astype(np.int32),
        slot_length=np.array([length for _, length in slots], np.int64),
        measure=np.array([feature.measure for feature in profile.features], np.int32),
        slot=np.array([number_of[slot] for slot in slot_of], np.int32),
        at_least=np.array([feature.at_least for feature in profile.features], np.int32),
    )


def _frame(index: pl.DataFrame, names: list[str], filled: NDArray[np.float32]) -> pl.DataFrame:
    columns = [pl.Series(name, column, nan_to_null=True) for name, column in zip(names, filled, strict=True)]
    return index.select(KEYS).with_columns(columns)
