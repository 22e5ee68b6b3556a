"""The service rules as they are written down: `rules.csv`, `signs.csv`, `targets.csv` and `kinds.csv`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from math import inf, isnan
from pathlib import Path
from typing import TypeVar

from features.errors import WeibingError, did_you_mean
from features.vocabulary import rows_of

D = TypeVar("D")
A = TypeVar("A")

BUILTIN = Path(__file__).parent
# The tables and the columns that each must have.
COLUMNS = {
    "rules.csv": (
        *("rule", "version", "form", "kind", "population", "from_age", "tier", "every_months", "first_months"),
        *("within_days", "notice_days", "closed_by", "urgent", "reason_en", "reason_zh", "never_en", "never_zh"),
        *("citation", "trust", "valid_from"),
    ),
    "signs.csv": (
        *("rule", "concept", "at_least", "above", "at_most", "female", "beside", "label_en", "label_zh"),
        *("trust", "source"),
    ),
    "targets.csv": ("version", "disease", "from_age", "below_age", "concept", "below", "citation", "trust"),
    "kinds.csv": ("kind", "label_en", "label_zh"),
}
TABLES = tuple(COLUMNS)
# How far the text behind a row is to be trusted: see docs/duties.md.
MARKS = ("VP", "VI", "VS", "M", "M-")
POPULATIONS = ("everyone", "unmanaged", "hypertension", "diabetes", "any_diabetes", "no_diabetes")
REGULAR = "regular"
FORMS = (
    *(REGULAR, "emergency", "emergency_result", "recheck", "suspected", "suspected_result", "secondary", "repeat"),
    *("uncontrolled", "uncontrolled_again", "uncontrolled_result", "complication"),
)
DISEASES = {"hypertension": ("sbp", "dbp"), "diabetes": ("glucose_fasting",)}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is to be done, in both languages."""

    kind: str
    label_en: str
    label_zh: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A value, or that something happened, which a rule looks for.

    `female` is None where the sign is the same for both sexes; with `beside` it counts only within forty weeks after
    one of these.
    """

    concept: str
    label_en: str
    label_zh: str
    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    female: bool | None = None
    beside: tuple[str, ...] = ()

    @property
    def of_number(self) -> bool:
        """Whether only a value can be this sign."""
        return self.at_least > -inf or self.above > -inf or self.at_most < inf

    def holds(self, value: float) -> bool:
        """Whether a value is this sign; of what has no limits, whether it is not a no (0)."""
        if not self.of_number:
            return isnan(value) or value > 0
        return self.at_least <= value <= self.at_most and value > self.above


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of `rules.csv`.

    Attributes
    ----------
    form : how it is worked out: see `forms.py`
    kind : what is to be done
    population, from_age, tiers : for whom; of `tiers`, (target, tier) any
    every_months, first_months : of what is due regularly, from the last time, and from when it first applies; None
        where it is due at once
    within_days : of what is due after something happened
    notice_days : how long before it is due it becomes a duty
    closed_by : the concepts any of which is doing it; where `all_of`, each of them must be
    """

    rule: str
    form: str
    kind: str
    population: str
    from_age: int
    tiers: tuple[tuple[str, str], ...]
    every_months: int
    first_months: int | None
    within_days: int
    notice_days: int
    closed_by: tuple[str, ...]
    all_of: bool
    urgent: bool
    reason_en: str
    reason_zh: str
    never_en: str
    never_zh: str
    citation: str
    trust: str
    valid_from: date
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """Below which value of a concept a disease is under control, at ages ``[from_age, below_age)``."""

    disease: str
    from_age: float
    below_age: float
    concept: str
    below: float


@dataclass(frozen=True)
class Rulebook:
    """The rules of one version, in the order of their rows, and the limits of control."""

    version: str
    rules: tuple[Rule, ...]
    limits: tuple[Limit, ...]
    kinds: Mapping[str, Kind]

    @classmethod
    def read(cls, version: str, folder: Path = BUILTIN) -> "Rulebook":
        """Read the rules that hold in a version: of each rule, the latest row that is not newer.

        Raises
        ------
        WeibingError
            If there are no targets of that version, or a table cannot be read or says something unknown.
        """
        rows = {table: rows_of(folder / table, COLUMNS[table], "table of rules") for table in TABLES}
        versions = sorted({row["version"] for row in rows["targets.csv"]})
        if version not in versions:
            raise WeibingError(f'There are no targets of version "{version}"; there are {", ".join(versions)}.')
        kinds = {row["kind"]: Kind(row["kind"], row["label_en"], row["label_zh"]) for row in rows["kinds.csv"]}
        place = folder / "rules.csv"
        signs = _signs(rows["signs.csv"], folder / "signs.csv")
        latest = {row["rule"]: row for row in sorted(rows["rules.csv"], key=_version) if row["version"] <= version}
        order = list(dict.fromkeys(row["rule"] for row in rows["rules.csv"] if row["rule"] in latest))
        rules = tuple(_rule(latest[name], signs.get(name, ()), kinds, place) for name in order)
        limits = tuple(_limit(row, folder / "targets.csv") for row in rows["targets.csv"] if row["version"] == version)
        return cls(version, rules, limits, kinds)

    @cached_property
    def limits_of(self) -> Mapping[str, tuple[Limit, ...]]:
        """The limits of each disease."""
        return {name: tuple(limit for limit in self.limits if limit.disease == name) for name in DISEASES}

    @cached_property
    def concepts(self) -> frozenset[str]:
        """Every concept that the rules look at."""
        closing = {concept for rule in self.rules for concept in rule.closed_by}
        signs = {concept for rule in self.rules for sign in rule.signs for concept in (sign.concept, *sign.beside)}
        return frozenset(closing | signs | {limit.concept for limit in self.limits})


@cache
def rulebook(version: str) -> Rulebook:
    """Return the rules that Weibing ships with."""
    return Rulebook.read(version)


def _version(row: Mapping[str, str]) -> str:
    return row["version"]


def _rule(row: Mapping[str, str], signs: tuple[Sign, ...], kinds: Mapping[str, Kind], path: Path) -> Rule:
    name = row["rule"]
    _known(row["form"], FORMS, f"{path}, rule {name}: form")
    _known(row["kind"], kinds, f"{path}, rule {name}: kind")
    _known(row["population"], POPULATIONS, f"{path}, rule {name}: population")
    _known(row["trust"], MARKS, f"{path}, rule {name}: trust")
    return Rule(
        rule=name,
        form=row["form"],
        kind=row["kind"],
        population=row["population"],
        from_age=_cell(row, "from_age", path, int, 0),
        tiers=tuple(_tier(text, path) for text in row["tier"].split(";") if text),
        every_months=_cell(row, "every_months", path, int, 0),
        first_months=_cell(row, "first_months", path, int, None),
        within_days=_cell(row, "within_days", path, int, 0),
        notice_days=_cell(row, "notice_days", path, int, 0),
        closed_by=tuple(row["closed_by"].replace("+", " ").split()),
        all_of="+" in row["closed_by"],
        urgent=row["urgent"] == "1",
        reason_en=row["reason_en"],
        reason_zh=row["reason_zh"],
        never_en=row["never_en"],
        never_zh=row["never_zh"],
        citation=row["citation"],
        trust=row["trust"],
        valid_from=_cell(row, "valid_from", path, date.fromisoformat, date.min),
        signs=signs,
    )


def _tier(text: str, path: Path) -> tuple[str, str]:
    target, colon, tier = text.partition(":")
    if not colon:
        raise WeibingError(f'{path}: the tier "{text}" must be written TARGET:TIER.')
    return target, tier


def _limit(row: Mapping[str, str], path: Path) -> Limit:
    _known(row["disease"], DISEASES, f"{path}: disease")
    _known(row["concept"], DISEASES[row["disease"]], f"{path}: concept of {row['disease']}")
    ages = _cell(row, "from_age", path, float, 0.0), _cell(row, "below_age", path, float, inf)
    return Limit(row["disease"], *ages, row["concept"], _cell(row, "below", path, float, inf))


def _signs(rows: Iterable[Mapping[str, str]], path: Path) -> dict[str, tuple[Sign, ...]]:
    found: dict[str, tuple[Sign, ...]] = {}
    for row in rows:
        found[row["rule"]] = (*found.get(row["rule"], ()), _sign(row, path))
    return found


def _sign(row: Mapping[str, str], path: Path) -> Sign:
    return Sign(
        concept=row["concept"],
        label_en=row["label_en"],
        label_zh=row["label_zh"],
        at_least=_cell(row, "at_least", path, float, -inf),
        above=_cell(row, "above", path, float, -inf),
        at_most=_cell(row, "at_most", path, float, inf),
        female={"": None, "0": False, "1": True}[row["female"]],
        beside=tuple(row["beside"].split()),
    )


def _cell(row: Mapping[str, str], column: str, path: Path, read: Callable[[str], D], absent: A) -> D | A:
    """Read a cell; `absent` where it is empty."""
    try:
        return read(row[column]) if row[column] else absent
    except ValueError as error:
        raise WeibingError(f'{path}: the {column} "{row[column]}" of {row.get("rule", "a row")} is wrong.') from error


def _known(name: str, known: Iterable[str], place: str) -> None:
    if name not in known:
        raise WeibingError(f'{place}: there is no "{name}".{did_you_mean(name, list(known))}')
