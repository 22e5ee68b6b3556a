"""A declaration becomes a plan; the plan fills the profiles of many residents, or of one.

Both go through the same compiled loops on the same kind of arrays, so one is many, bit for bit.
"""

import hashlib
from collections.abc import Iterable
from math import nan

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import WeibingError
from features.events import ORDER, EventStore, normalised
from features.kernel import (
    ALWAYS,
    UNBOUNDED,
    Coded,
    Known,
    Meanings,
    Plan,
    Rows,
    Small,
    fill,
    fill_residents,
    translate,
)
from features.measures import OF_NUMBERS, Feature
from features.profile import PROFILE, Profile
from features.vocabulary import Vocabulary, builtin

KEYS = ["subject_id", "index_time"]

# What values are derived from, in the order that the kernel knows, and what they become: see features/derived.py.
DERIVED_FROM = ("age", "female", "height", "creatinine", "weight")
DERIVED = {"egfr": ("age", "female", "creatinine"), "bmi": ("height", "weight")}

# With fewer events than this, a dictionary is faster than columns.
FEW = 4_000

Pairs = list[tuple[str, str | None]]


class Translator:
    """Turns recorded events into usable events of the wanted concepts, values derived from others among them."""

    def __init__(self, concepts: Iterable[str], vocabulary: Vocabulary) -> None:
        wanted = set(concepts)
        needed = {source for concept in wanted for source in DERIVED.get(concept, ())}
        self.concepts = sorted(wanted | needed)
        self.vocabulary = vocabulary

    def known(self, events: pl.DataFrame, residents: NDArray[np.int64]) -> Known:
        """Return the usable events of these residents, who are in ascending order, from those of a shard."""
        events = _ordered(events)
        subject = events["subject_id"].to_numpy()
        begins = np.flatnonzero(np.diff(subject, prepend=subject[:1] - 1))
        place = np.searchsorted(residents, subject[begins]).clip(max=len(residents) - 1)
        asked = residents[place] == subject[begins]
        counts = np.diff(begins, append=len(subject))
        if not asked.all():
            events = events.filter(pl.Series(np.repeat(asked, counts)))
        return self._translated(events, np.repeat(place[asked], counts[asked]), len(residents))

    def of_one(self, events: pl.DataFrame) -> Known:
        """Return the usable events of one resident."""
        return self._translated(_ordered(events), np.zeros(len(events), np.int64), 1)

    def frame(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the usable events of a shard as `subject_id`, `concept`, `time` (null: always) and `value`."""
        residents = events["subject_id"].unique().sort()
        known = self.known(events, residents.to_numpy())
        who = np.repeat(np.arange(len(residents)), np.diff(known.starts))
        concept = pl.Series(self.concepts, dtype=pl.Enum(self.concepts))
        return pl.DataFrame(
            {
                "subject_id": residents.gather(who),
                "concept": concept.gather(known.concept.astype(np.uint32)),
                "time": pl.Series(known.time).replace({int(ALWAYS): None}).cast(pl.Datetime("us")),
                "value": pl.Series(known.value, nan_to_null=True),
            }
        )

    def _translated(self, events: pl.DataFrame, resident: NDArray[np.int64], residents: int) -> Known:
        pair, pairs = _pairs(events)
        number = events["numeric_value"].to_numpy()
        coded = Coded(resident, pair, _microseconds(events["time"]), number)
        who, what, when, worth = translate(coded, self._meanings(pairs))
        return Known(np.searchsorted(who, np.arange(residents + 1)), what, when, worth)

    def _meanings(self, pairs: Pairs) -> Meanings:
        number_of = {concept: number for number, concept in enumerate(self.concepts)}
        starts, concepts, numbers = [0], [], []
        for code, unit in pairs:
            for meaning in self.vocabulary.meanings(code, unit):
                if meaning.concept in number_of:
                    concepts.append(number_of[meaning.concept])
                    # A number in an unknown unit is not used.
                    factor = meaning.factor if meaning.known_unit else nan
                    numbers.append((factor, meaning.offset, nan if meaning.value is None else meaning.value))
            starts.append(len(concepts))
        known = [self.vocabulary.concepts[concept] for concept in self.concepts]
        return Meanings(
            starts=np.array(starts, np.int32),
            concept=np.array(concepts, np.int32),
            numbers=np.array(numbers, np.float64).reshape(-1, 3),
            bounds=np.array([(concept.low, concept.high, concept.numeric) for concept in known], np.float64),
            sources=np.array([number_of.get(concept, -1) for concept in DERIVED_FROM], np.int32),
            targets=np.array([number_of.get(concept, -1) for concept in DERIVED], np.int32),
        )


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
        rows = Rows(np.append(row_starts, len(index)), _microseconds(index["index_time"]))
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


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events sorted by resident and time, as they are where they already are."""
    subject, time = events["subject_id"].to_numpy(), _microseconds(events["time"])
    later = (subject[1:] > subject[:-1]) | ((subject[1:] == subject[:-1]) & (time[1:] >= time[:-1]))
    return events if later.all() else events.sort(ORDER)


def _microseconds(time: pl.Series) -> NDArray[np.int64]:
    # numpy's "not a time" is ALWAYS.
    return time.to_numpy().view(np.int64)


def _pairs(events: pl.DataFrame) -> tuple[Small, Pairs]:
    """Return which (code, unit) pair each event bears, and the pairs."""
    if len(events) <= FEW:
        number_of: dict[tuple[str, str | None], int] = {}
        both = zip(events["code"].to_list(), events["unit"].to_list(), strict=True)
        pair = [number_of.setdefault(each, len(number_of)) for each in both]
        return np.array(pair, np.int32), list(number_of)
    code, codes = _numbered(events["code"])
    unit, units = _numbered(events["unit"])
    combined = code.astype(np.int64) * len(units) + unit
    present = np.flatnonzero(np.bincount(combined, minlength=len(codes) * len(units)))
    number = np.zeros(len(codes) * len(units), np.int32)
    number[present] = np.arange(len(present))
    return number[combined], [(str(codes[p // len(units)]), units[p % len(units)]) for p in present]


def _numbered(texts: pl.Series) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return the number of each text, and the texts by number; the last one is null."""
    known = texts.drop_nulls().unique().sort()
    number = texts.cast(pl.Enum(known)).to_physical().cast(pl.Int64).fill_null(len(known))
    return number.to_numpy(), [*known.to_list(), None]


def _frame(index: pl.DataFrame, names: list[str], filled: NDArray[np.float32]) -> pl.DataFrame:
    columns = [pl.Series(name, column, nan_to_null=True) for name, column in zip(names, filled, strict=True)]
    return index.select(KEYS).with_columns(columns)
