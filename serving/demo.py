"""A clinic for a synthetic county: made-up names, panels by township, accounts to look around with."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from features.events import EventStore
from serving.api.clinic import DEMO_SECRET
from serving.duties import DutyRules, rulebook
from serving.night import WholeNight, whole_night
from serving.scoring.nightly import Options
from serving.scoring.parquet import FileLedger
from serving.scoring.run import Ledger
from serving.security.accounts import Accounts
from serving.security.roles import SCOPES, Role
from serving.security.tokens import Tokens
from serving.settings import Settings
from serving.store.database import Database
from serving.store.identity import FILE_VARIABLE, VARIABLE, Identity, Key
from serving.store.ledger import DatabaseLedger
from serving.store.panels import Panels
from serving.store.people import People, Person, Sex
from training.model import RiskModel

SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰涛明超秀霞平刚桂英华玉兰建国红文斌春梅志"
DATABASE = "weibing.db"
# As many as one doctor looks after.
PANEL = 2_000
PEOPLE: tuple[tuple[str, Role], ...] = (
    ("doctor", "doctor"),
    ("manager", "manager"),
    ("scientist", "scientist"),
    ("administrator", "administrator"),
)
DAYS = 30


@dataclass(frozen=True)
class Furnished:
    """What to come in with: names and passwords of the first login, and a token for other systems."""

    passwords: dict[str, str]
    token: str
    panels: int


def closing_day(now: datetime) -> date:
    """Return the day with which a synthetic county's record closes: after now, so that everybody still lives there."""
    return date(now.year + 1, 1, 1)


def first_night(
    store: EventStore,
    folder: Path,
    models: Mapping[str, RiskModel],
    now: datetime,
    progress: Callable[[str], None],
) -> tuple[Furnished, WholeNight]:
    """Furnish a clinic in a folder, and score a synthetic county for the first time."""
    database = Database.open(str(folder / DATABASE))
    progress("residents: made-up names, panels, accounts")
    furnished = furnish(store, database, Key.of(DEMO_SECRET), now)
    ledgers: list[Ledger] = [DatabaseLedger(database), FileLedger(folder / "scores.parquet")]
    rules = DutyRules(rulebook("2017"), timezone=store.timezone)
    options = Options(index_time=now)
    return furnished, whole_night(store, ledgers, models, rules, now, options, progress=progress)


def settings_of(folder: Path, port: int | None) -> Settings:
    """Return the settings of a demonstration in a folder; its key goes into the environment, as any key does."""
    os.environ.pop(FILE_VARIABLE, None)
    os.environ[VARIABLE] = DEMO_SECRET
    places = {"mlruns": folder / "mlruns", "store": folder / "county", "db": str(folder / DATABASE)}
    return Settings.from_environment(port=port, demo=True, **places)


def furnish(store: EventStore, database: Database, key: Key, now: datetime) -> Furnished:
    """Register a synthetic county's residents under made-up names, sign panels, and let people in."""
    accounts, people = Accounts(database), People(database, key)
    passwords = {}
    for name, role in PEOPLE:
        _, initial = accounts.add(name, role, now)
        passwords[name] = str(initial)
    system, _ = accounts.add("system", "system", now)
    _, token = Tokens(database).make(system, SCOPES, DAYS, now)
    known = pl.concat([_known(store.read(shard)) for shard in store.shards])
    people.register(_persons(known), now)
    return Furnished(passwords, token, _sign(known, Panels(database), accounts.named("doctor").id, now))


def _known(events: pl.DataFrame) -> pl.DataFrame:
    """Return where residents live, whether they are women, and when they were born."""

    def of(code: str, value: pl.Expr) -> pl.Expr:
        return value.filter(pl.col("code") == code).first().alias(code)

    return events.group_by("subject_id", maintain_order=True).agg(
        of("township", pl.col("text_value")),
        of("female", pl.col("numeric_value")),
        of("MEDS_BIRTH", pl.col("time").dt.year()),
    )


def _persons(known: pl.DataFrame) -> Iterator[Person]:
    rng = np.random.default_rng(0)
    for subject, township, female, born in known.sort("subject_id").iter_rows():
        name = "".join(rng.choice(list(SURNAMES), 1)) + "".join(rng.choice(list(GIVEN), 2))
        sex: Sex = "female" if female else "male"
        # No such number is anybody's: the region 000000 is none.
        identity = Identity(name, f"000000{born or 1900}{subject % 10**8:08}")
        yield Person(subject, identity, township, sex, born)


def _sign(known: pl.DataFrame, panels: Panels, doctor: int, since: datetime) -> int:
    """Make panels of each township; the first is the doctor's. Return how many."""
    made = 0
    for township, of in sorted(known.partition_by("township", as_dict=True).items(), key=repr):
        for number, part in enumerate(of.sort("subject_id").iter_slices(PANEL)):
            panel = panels.make(f"{township[0]} {number + 1}", None if made else doctor)
            panels.sign(panel.id, part["subject_id"].to_list(), since)
            made += 1
    return made
