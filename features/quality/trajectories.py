"""What cannot be true of one resident: a visit after death, two births, an adult who grows."""

from collections.abc import Iterator

import polars as pl

from features.quality.fault import Fault, Level
from features.quality.survey import FRAMES, TOWNSHIP, Counts, Shard, Survey, Tables
from features.sources.report import DEATH

# A day, since a time of the day is often not known, or told in another zone.
LEEWAY = pl.duration(days=1)
# The oldest person whose age was verified reached 122 years.
OLDEST = pl.duration(days=round(122.5 * 365.25))
# Height no longer changes but for the loss of old age, about 4 cm in thirty years (Sorkin et al., Am J Epidemiol
# 1999;150:969-977); shoes and careless reading are left room for.
GROWN = pl.duration(days=round(20 * 365.25))
HEIGHT_CM = 6.0
# Within a year, few adults gain or lose a third of their weight.
WEIGHT_RATIO = 1.35
WEIGHT_WITHIN = pl.duration(days=366)
EXAMPLES = 10
# What is worth a note of a few residents is suspicious of so many.
MANY = 0.05

LEVELS = {
    "after_death": Level.WRONG,
    "before_birth": Level.WRONG,
    "two_births": Level.WRONG,
    "two_deaths": Level.WRONG,
    "two_sexes": Level.WRONG,
    "too_old": Level.WRONG,
    "pregnant_male": Level.WRONG,
    "height_change": Level.SUSPICIOUS,
    "weight_jump": Level.SUSPICIOUS,
    "no_birth": Level.NOTE,
    "no_sex": Level.NOTE,
}


class Trajectories:
    """Residents whose records contradict themselves."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._residents = 0
        self._counts = Counts("kind", TOWNSHIP)
        self._examples: dict[str, list[int]] = {}

    def look(self, shard: Shard) -> None:
        """Count the residents, and their events, to whom each contradiction applies."""
        self._residents += len(shard.residents)
        found = {**_of_dates(shard), **_of_statements(shard), **_of_bodies(shard)}
        for kind, rows in found.items():
            counted = rows.group_by("subject_id").agg(events=pl.len().cast(pl.Int64)).sort("subject_id")
            placed = counted.join(shard.residents.select("subject_id", TOWNSHIP), on="subject_id", how="left")
            summed = placed.group_by(TOWNSHIP).agg(residents=pl.len().cast(pl.Int64), events=pl.col("events").sum())
            self._counts.add(summed.select(pl.lit(kind).alias("kind"), TOWNSHIP, "residents", "events"))
            examples = [*self._examples.get(kind, []), *counted["subject_id"].head(EXAMPLES).to_list()]
            self._examples[kind] = examples[:EXAMPLES]

    def tables(self) -> Tables:
        """Return the residents of each contradiction, with some of them; and where they live."""
        places = self._counts.total()
        summed = places.group_by("kind").agg(pl.col("residents", "events").sum())
        some = [self._examples.get(kind, []) for kind in summed["kind"]]
        counted = summed.with_columns(
            share=pl.col("residents") / max(self._residents, 1),
            examples=pl.Series(some, dtype=pl.List(pl.Int64)),
        )
        return {
            "trajectories": counted.sort(["residents", "kind"], descending=[True, False]),
            "trajectories_by_township": places,
        }

    def faults(self) -> Iterator[Fault]:
        """Yield the contradictions that occur."""
        for row in self.tables()["trajectories"].iter_rows(named=True):
            figures = {"residents": row["residents"], "events": row["events"]}
            many = row["share"] >= MANY and LEVELS[row["kind"]] is Level.NOTE
            level = Level.SUSPICIOUS if many else LEVELS[row["kind"]]
            yield Fault(level, row["kind"], row["share"], row["residents"], figures)


def _of_dates(shard: Shard) -> dict[str, pl.DataFrame]:
    """Return the events, each with its resident, whose dates cannot be true."""
    dated = shard.recorded.filter(pl.col("time").is_not_null() & ~pl.col("code").is_in(FRAMES))
    events = dated.select("subject_id", "time").join(
        shard.residents.select("subject_id", "birth", "death"), on="subject_id", how="left"
    )
    time = pl.col("time")
    return {
        "after_death": events.filter(time > pl.col("death") + LEEWAY),
        "before_birth": events.filter(time < pl.col("birth") - LEEWAY),
        "too_old": events.filter(time > pl.col("birth") + OLDEST),
    }


def _of_statements(shard: Shard) -> dict[str, pl.DataFrame]:
    """Return the residents of whom what is said once for all is said twice, or never."""
    said, usable, residents = shard.recorded, shard.usable, shard.residents
    sexes = usable.filter(pl.col("concept") == "female")
    male = sexes.filter(pl.col("value") == 0).select("subject_id").unique()
    pregnant = usable.filter(pl.col("concept") == "pregnancy").select("subject_id")
    dated_births = usable.filter((pl.col("concept") == "age") & pl.col("day").is_not_null())
    deaths = said.filter((pl.col("code") == DEATH) & pl.col("time").is_not_null())
    return {
        "two_births": _several(dated_births, "day"),
        "two_deaths": _several(deaths, pl.col("time").dt.date()),
        "two_sexes": _several(sexes, "value"),
        "pregnant_male": pregnant.join(male, on="subject_id", how="semi"),
        "no_birth": residents.filter(pl.col("birth").is_null()).select("subject_id"),
        "no_sex": residents.join(sexes, on="subject_id", how="anti").select("subject_id"),
    }


def _several(events: pl.DataFrame, what: str | pl.Expr) -> pl.DataFrame:
    column = pl.col(what) if isinstance(what, str) else what
    return events.group_by("subject_id").agg(n=column.n_unique()).filter(pl.col("n") > 1).select("subject_id")


def _of_bodies(shard: Shard) -> dict[str, pl.DataFrame]:
    """Return the measurements of adults that cannot follow the one before."""
    bodies = shard.usable.filter(pl.col("concept").is_in(["height", "weight"]) & pl.col("time").is_not_null())
    births = shard.residents.select("subject_id", "birth")
    adults = bodies.join(births, on="subject_id").filter(pl.col("time") >= pl.col("birth") + GROWN)
    value, before = pl.col("value"), pl.col("value").shift().over("subject_id")
    elapsed = pl.col("time") - pl.col("time").shift().over("subject_id")
    heights = adults.filter(pl.col("concept") == "height").sort("subject_id", "time")
    weights = adults.filter(pl.col("concept") == "weight").sort("subject_id", "time")
    ratio = pl.max_horizontal(value / before, before / value)
    return {
        "height_change": heights.filter((value - before).abs() > HEIGHT_CM).select("subject_id"),
        "weight_jump": weights.filter((ratio > WEIGHT_RATIO) & (elapsed <= WEIGHT_WITHIN)).select("subject_id"),
    }
