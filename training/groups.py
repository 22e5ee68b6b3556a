"""To which groups of residents a cohort's rows belong: what subgroups and clusters are made of.

Each group is what was known at the index time. An event at or after it changes no group, and where nothing was known
the group is null.
"""

from math import inf
from pathlib import Path

import polars as pl
from meds import schema as meds

from features.engine import KEYS, Engine, profile_store
from features.events import EventStore
from features.measures import age, static
from features.profile import Profile
from features.times import YEAR
from features.vocabulary import Vocabulary

TOWNSHIP = "township"
# More places than this are no townships but addresses; of the smallest nothing can be said.
MOST_PLACES = 200

# The concept's values, 1 to 5.
EDUCATION = ("none", "primary school", "lower secondary", "upper secondary", "college")
# From which age, or so many years after the first dated event, each band begins; the last of them has no end.
AGE_BANDS = {"0-17": 0, "18-34": 18, "35-44": 35, "45-54": 45, "55-64": 55, "65-74": 65, "75-84": 75, "85+": 85}
RECORD_BANDS = {"<1": 0, "1-2": 1, "3-5": 3, "6+": 6}

# The groupings, and the values of each in their natural order; townships have no order but that of their names.
GROUPINGS: dict[str, tuple[str, ...]] = {
    "sex": ("female", "male"),
    "age_band": tuple(AGE_BANDS),
    TOWNSHIP: (),
    "education": EDUCATION,
    "residence": ("rural", "urban"),
    "record_years": tuple(RECORD_BANDS),
}

_ASKED = (age(), static("female"), static("education"), static("rural"))


def groups_of(store: EventStore, rows: pl.DataFrame, profiles: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Say to which groups each row of a cohort belongs.

    Parameters
    ----------
    rows : `subject_id`, `index_time`
        No resident twice at one index time.
    profiles : features of the same rows, in the same order
        Age and sex are taken from here, where they are among them.

    Returns
    -------
    A row each, in the same order, with a text column for every name in `GROUPINGS`, null where unknown. `township` is
    the last one told before the index time or, where none is dated, the one that always holds; `record_years` are the
    whole years since the first dated event, the birth left out.
    """
    with store.held() as still:
        told = _statics(still, rows, profiles, engine)
        begun = pl.concat([_NO_BEGINNINGS, *(_beginnings(shard) for shard in still.shards)])
        places = pl.concat([_NO_PLACES, *(_places(shard, engine.vocabulary) for shard in still.shards)])
    told = _with_place(told.join(begun, on="subject_id", how="left", maintain_order="left"), places)
    years = (pl.col("index_time") - pl.col("begin")).dt.total_microseconds() / YEAR
    return told.select(
        sex=_labelled("female", {1: "female", 0: "male"}),
        age_band=_band(pl.col("age"), AGE_BANDS),
        township=_of_enough_residents(told),
        education=_labelled("education", dict(enumerate(EDUCATION, 1))),
        residence=_labelled("rural", {1: "rural", 0: "urban"}),
        # A record that begins at the index time is not yet known at it.
        record_years=_band(pl.when(years > 0).then(years), RECORD_BANDS),
    )


def in_order(grouping: str, values: list[str]) -> list[str]:
    """Return values of a grouping in their natural order; those that `GROUPINGS` does not name by their names."""
    natural = GROUPINGS.get(grouping, ())
    return sorted(values, key=lambda value: (natural.index(value) if value in natural else len(natural), value))


_NO_BEGINNINGS = pl.DataFrame(schema={"subject_id": pl.Int64, "begin": pl.Datetime("us")})
_NO_PLACES = pl.DataFrame(schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), TOWNSHIP: pl.String})


def _statics(store: EventStore, rows: pl.DataFrame, profiles: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Return the rows' keys with age, sex, education and residence, as profiles tell them."""
    keys = rows.select(pl.col("subject_id").cast(pl.Int64), pl.col("index_time").cast(pl.Datetime("us")))
    there = [feature.name for feature in _ASKED if feature.name in profiles.columns]
    asked = Profile(*(feature for feature in _ASKED if feature.name not in there))
    filled = profile_store(store, keys, Engine(asked, engine.vocabulary, store.timezone))
    return keys.with_columns(profiles.select(there)).join(filled, on=KEYS, how="left", maintain_order="left")


def _beginnings(shard: Path) -> pl.DataFrame:
    """Return when the records of each resident of a shard begin."""
    events = pl.scan_parquet(shard).filter(pl.col("code") != meds.birth_code, pl.col("time").is_not_null())
    begun = events.group_by("subject_id").agg(begin=pl.col("time").min())
    return begun.select(pl.col(name).cast(dtype) for name, dtype in _NO_BEGINNINGS.schema.items()).collect()


def _places(shard: Path, vocabulary: Vocabulary) -> pl.DataFrame:
    """Return every township that a shard's residents tell, and since when: null for always."""
    events = pl.scan_parquet(shard)
    if "text_value" not in events.collect_schema().names():
        return _NO_PLACES
    named = pl.col("text_value").cast(pl.String).str.strip_chars()
    told = events.filter(pl.col("code").cast(pl.String).is_in(_codes(vocabulary)), named.str.len_chars() > 0)
    told = told.with_columns(named.alias(TOWNSHIP))
    return told.select(pl.col(name).cast(dtype) for name, dtype in _NO_PLACES.schema.items()).collect()


def _codes(vocabulary: Vocabulary) -> list[str]:
    told_by = [code for code, meanings in vocabulary.codes.items() if any(m.concept == TOWNSHIP for m in meanings)]
    return [TOWNSHIP, *told_by]


def _with_place(rows: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Add the township that each row's resident told last before its index time, or that always holds."""
    always = places.filter(pl.col("time").is_null()).group_by("subject_id").agg(always=pl.col(TOWNSHIP).last())
    numbered = rows.with_row_index("place").join(always, on="subject_id", how="left").sort("index_time")
    found = numbered.join_asof(
        places.drop_nulls("time").sort("time", maintain_order=True),
        left_on="index_time",
        right_on="time",
        by="subject_id",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    return found.with_columns(pl.coalesce(TOWNSHIP, "always").alias(TOWNSHIP)).sort("place").drop("place", "always")


def _of_enough_residents(rows: pl.DataFrame) -> pl.Expr:
    """Keep the names of the largest townships, where there are more than can be any."""
    sizes = rows.drop_nulls(TOWNSHIP).group_by(TOWNSHIP).agg(residents=pl.col("subject_id").n_unique())
    largest = sizes.sort(["residents", TOWNSHIP], descending=[True, False]).head(MOST_PLACES)
    return pl.when(pl.col(TOWNSHIP).is_in(largest[TOWNSHIP].to_list())).then(TOWNSHIP)


def _labelled(feature: str, labels: dict[int, str]) -> pl.Expr:
    number = pl.col(feature).fill_nan(None).round().cast(pl.Int64)
    return number.replace_strict(list(labels), list(labels.values()), default=None, return_dtype=pl.String)


def _band(years: pl.Expr, bands: dict[str, int]) -> pl.Expr:
    """Return the band that a number of years lies in: from its beginning, included, to the next one."""
    begins = [*bands.values(), inf]
    found = pl.lit(None, pl.String)
    for name, begin, end in zip(bands, begins, begins[1:], strict=False):
        found = pl.when(years.is_between(begin, end, closed="left")).then(pl.lit(name)).otherwise(found)
    return found
