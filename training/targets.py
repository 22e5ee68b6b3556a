"""THE three targets, a declaration; or others from a TOML file, which may also change these.

A file's table named like a built-in target changes only the keys that it gives; any other name adds a target::

    [hypertension]
    horizon = "5y"
    index = { first = ["examination"], offset = "1d" }

    [kidney]
    outcome = ["diabetic_kidney_disease"]
    horizon = "3y"
    present = ["diabetes"]
    latest = [{ concept = "egfr", at_least = 60 }]
    index = { every = "1y", start = "2015-01-01" }
    increasing = ["age", "hba1c", "sbp"]
    tiers = [0.05, 0.1, 0.2]
    comparators = ["ckd_pc_decline_3y", "kdigo"]

`comparators` names the published scores to measure beside the model (docs/comparators.md lists them).
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import date
from math import inf
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from features.cohort import IndexTimes, Limit, Target, calendar_steps
from features.errors import WeibingError, did_you_mean
from features.times import DAY, instant, length
from features.vocabulary import Vocabulary, builtin
from training.comparators.registry import comparator_named, names_for

YEARLY = IndexTimes(every="1y")

HYPERTENSION = Target(
    name="hypertension",
    label_en="hypertension",
    label_zh="新发高血压",
    outcome=("hypertension_found",),
    horizon="4y",
    index=YEARLY,
    age=(18, inf),
    limits=(Limit("sbp", below=140), Limit("dbp", below=90)),
    increasing=("age", "sbp", "dbp", "bmi", "family_history_hypertension"),
    tiers=(0.05, 0.10, 0.20),
    tiers_source="Parikh et al., Ann Intern Med 2008;148:102-110 (5, 10 %); 20 % is twice that",
    comparators=names_for("hypertension"),
)

DIABETES_COMPLICATION = Target(
    name="diabetes_complication",
    label_en="first complication of diabetes",
    label_zh="首发糖尿病并发症",
    outcome=("diabetes_complication_found",),
    horizon="5y",
    index=YEARLY,
    age=(18, inf),
    present=("diabetes_found",),
    increasing=("age", "hba1c", "sbp", "uacr"),
    tiers=(0.05, 0.10, 0.20),
    tiers_source="bands of the WHO 2019 cardiovascular charts (5, 10, 20 %), taken over for this outcome",
    comparators=names_for("diabetes_complication"),
)

FALL = Target(
    name="fall",
    label_en="fall",
    label_zh="跌倒",
    outcome=("fall_found",),
    horizon="1y",
    index=YEARLY,
    age=(65, inf),
    recurrent=True,
    increasing=("age", "fall", "fall_found", "timed_up_and_go", "adl_score", "frailty_index"),
    decreasing=("grip_strength",),
    tiers=(0.10, 0.20, 0.40),
    tiers_source="no published bands; 17 % is the yearly rate of people of 65 and over in the country (CLSURE 2010)",
    comparators=names_for("fall"),
)

TARGETS = {target.name: target for target in (HYPERTENSION, DIABETES_COMPLICATION, FALL)}

NAMES_IN_FILE = {"limits": "latest"}

# What pydantic finds wrong, in TOML's words.
FAULTS = {"tuple_type": "write a list, [ … ]", "dataclass_type": "write a table, { … }"}


def read_targets(path: Path | None = None, vocabulary: Vocabulary | None = None) -> dict[str, Target]:
    """Return the targets by name: the built-in ones, or those that a TOML file declares.

    Raises
    ------
    WeibingError
        If the file cannot be read, or a key, concept or value in it is wrong; names the target and the key.
    """
    if path is None:
        return TARGETS
    try:
        declared = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeibingError(f"The targets file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeibingError(f"{path}: this is not TOML in UTF-8: {error}.") from error
    if not declared:
        raise WeibingError(f"{path} declares no target.")
    found = {}
    for name, table in declared.items():
        try:
            found[name] = target_from(name, table, vocabulary or builtin())
        except WeibingError as error:
            raise WeibingError(f"{path}, target {name}: {error}") from error
    return found


def target_named(name: str, path: Path | None = None) -> Target:
    """Return one target by name, from a file or of the built-in ones.

    Raises
    ------
    WeibingError
        If there is none of that name, or the file is wrong.
    """
    targets = read_targets(path)
    if name not in targets:
        known = ", ".join(targets)
        raise WeibingError(f'There is no target "{name}"; there are {known}.{did_you_mean(name, list(targets))}')
    return targets[name]


def target_from(name: str, table: object, vocabulary: Vocabulary) -> Target:
    """Make a target of the keys of a file's table, on top of the built-in target of that name where there is one.

    Raises
    ------
    WeibingError
        If a key, concept or value is wrong.
    """
    if not isinstance(table, Mapping):
        raise WeibingError(f'"{table}" is not a table of keys. Write [{name}] on a line of its own.')
    _only(table, Target, "")
    given = {"limits" if key == "latest" else key: _dates_as_text(value) for key, value in table.items()}
    _only(given.get("index"), IndexTimes, "index.")
    limits = given.get("limits")
    for limit in limits if isinstance(limits, list) else []:
        _only(limit, Limit, "latest.")
    base = asdict(TARGETS[name]) if name in TARGETS else {"name": name}
    missing = [key for key in ("outcome", "horizon", "index") if key not in base | given]
    if missing:
        raise WeibingError(f"a new target also needs {', '.join(missing)}.")
    try:
        target = TypeAdapter(Target).validate_python(base | given)
    except ValidationError as error:
        raise WeibingError("; ".join(_in_words(fault) for fault in error.errors()) + ".") from error
    _check(target, vocabulary)
    return target


def _dates_as_text(value: object) -> object:
    """Return a table with the dates that TOML lets one write without quotes as texts; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    return {key: each.isoformat() if isinstance(each, date) else each for key, each in value.items()}


def _only(table: object, kind: type, where: str) -> None:
    """Refuse keys that a declaration does not have."""
    known = [NAMES_IN_FILE.get(f.name, f.name) for f in fields(kind) if f.name != "name"]
    for key in table if isinstance(table, Mapping) else []:
        if key not in known:
            raise WeibingError(f'there is no key "{where}{key}".{did_you_mean(key, known)}')


def _in_words(fault: ErrorDetails) -> str:
    place = ".".join(NAMES_IN_FILE.get(str(part), str(part)) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{place} is missing"
    said = FAULTS.get(fault["type"], f"{fault['msg'][:1].lower()}{fault['msg'][1:]}")
    return f"{place}: {said}, not {fault['input']!r}"


def _check(target: Target, vocabulary: Vocabulary) -> None:
    if not re.fullmatch(r"[\w-]+", target.name):
        raise WeibingError("name it with letters, digits, _ and - alone.")
    for concept in target.concepts:
        vocabulary.concept(concept)
    for name in target.comparators:
        comparator_named(name)
    _check_index(target.index)
    if length(target.horizon) < DAY:
        raise WeibingError(f"horizon must be a day or longer, not {target.horizon}.")
    if not target.outcome:
        raise WeibingError("outcome names no concept.")
    if not target.age[0] < target.age[1]:
        raise WeibingError(f"age must be a range that rises, not {list(target.age)}.")
    for limit in target.limits:
        if not limit.at_least < limit.below:
            raise WeibingError(f"latest {limit.concept}: at_least must be less than below, not {limit.at_least:g}.")
    if not 0 < target.tiers[0] < target.tiers[1] < target.tiers[2] < 1:
        raise WeibingError(f"tiers must rise between 0 and 1, not {list(target.tiers)}.")


def _check_index(index: IndexTimes) -> None:
    if index.every:
        calendar_steps(index.every, 1)
    if index.offset:
        length(index.offset)
    for day in (index.start, index.stop):
        if day:
            instant(day)
    if sum(map(bool, (index.every, index.each, index.first))) != 1:
        raise WeibingError("index needs one of every, each and first.")
