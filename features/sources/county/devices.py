"""What devices at home and on the wrist record: often, of few, and in the last years only."""

import numpy as np
from numpy.random import Generator

from features.sources.county.ledger import Ledger
from features.sources.county.period import DAYS_A_YEAR, NEVER, Days, Floats
from features.sources.county.tables import rate, rows

# A device is used for a week of every quarter.
EVERY_DAYS, DAYS_OF_USE = 91, 7


def write_devices(known_hypertension: Days, ledger: Ledger, rng: Generator) -> None:
    """Write what the owners of a cuff or a wearable measure, from the day they own it."""
    everyone = len(ledger.residents)
    first = ledger.period.end - int(rate("devices_years") * DAYS_A_YEAR)
    start = first + rng.integers(0, EVERY_DAYS, everyone)
    cuff = (rng.random(everyone) < rate("home_cuff")) & (known_hypertension < NEVER)
    worn = (rng.random(everyone) < rate("wearable")) & (ledger.residents.age(start) >= float(rate("wearable_from")))
    _write("cuff", *_days(np.where(cuff, np.maximum(start, known_hypertension), NEVER), ledger), ledger, rng)
    _write("wearable", *_days(np.where(worn, start, NEVER), ledger), ledger, rng)


def _days(start: Days, ledger: Ledger) -> tuple[Days, Days]:
    """Return who uses a device on which days."""
    who = np.flatnonzero(start < ledger.period.end)
    offsets = np.arange(int(ledger.period.end - start.min(initial=NEVER)) if len(who) else 0)
    offsets = offsets[offsets % EVERY_DAYS < DAYS_OF_USE]
    day = start[who][:, None] + offsets
    return np.repeat(who, len(offsets)), day.ravel()


def _write(device: str, who: Days, day: Days, ledger: Ledger, rng: Generator) -> None:
    """Write each measurement of a device at its hour, but for days on which it was not used."""
    for row in rows("devices"):
        if row["device"] == device:
            used = rng.random(len(who)) < float(row["share_of_days"])
            values = _usual(row, who[used], day[used], ledger)
            values = values + float(row["noise_sd"]) * rng.standard_normal(len(values))
            step = float(row["step"])
            values = np.clip(np.round(values / step) * step, float(row["low"]), float(row["high"]))
            ledger.enter(row["concept"], who[used], day[used], values, hour=int(row["hour"]))


def _usual(row: dict[str, str], who: Days, day: Days, ledger: Ledger) -> Floats:
    trait = ledger.residents.traits[row["trait"]]
    usual: Floats = float(row["plus"]) + float(row["times"]) * trait.level(ledger.residents.age(day, who), who)
    return usual
