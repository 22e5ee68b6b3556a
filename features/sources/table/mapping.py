"""The mapping file: how a county's tables become events. Read from TOML into frozen models, all mistakes at once.

Every class is one kind of section of the file. What a rule does to a table is in `rules.py`; the file is
explained, with an example of everything, in `docs/records.md`.
"""

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from features.errors import WeibingError, did_you_mean
from features.sources.table.cells import DATE_FORMATS
from features.sources.table.settings import (
    Answer,
    Answers,
    Code,
    Column,
    Columns,
    Day,
    Encoding,
    Formats,
    Length,
    Section,
    System,
    Texts,
    Zone,
    listed,
    mistake,
    require_unit,
)
from features.times import UNITS

MISSING = ("", "NA", "N/A", "NULL", "null", "NaN", "nan", "\\N")
DROP = "drop"
IN_ROW_ORDER = "rows"


class OnDate(Section):
    """One date for every row, such as the day of a survey."""

    date: Day


class InColumn(Section):
    """A column of dates, or of dates and times."""

    column: Column
    format: Formats = DATE_FORMATS


class Elapsed(Section):
    """A number of hours, days, months or years since an origin."""

    hours: Column | None = None
    days: Column | None = None
    months: Column | None = None
    years: Column | None = None
    origin: "Times"

    @model_validator(mode="after")
    def _in_one_unit(self) -> "Elapsed":
        if len(self.model_fields_set & ELAPSED_IN.keys()) != 1:
            raise mistake(f"give one of {', '.join(ELAPSED_IN)}")
        return self

    @property
    def amount(self) -> Column:
        """The column that holds the number."""
        return next(part for part in self.parts() if isinstance(part, Column))

    @property
    def microseconds(self) -> int:
        """The length of one unit."""
        return next(length for unit, length in ELAPSED_IN.items() if getattr(self, unit))


class AtAge(Section):
    """The resident's age in years, with the birth from which it counts."""

    age: Column
    birth: "Times"


class InOrder(Section):
    """Without dates: the rank of the row among the resident's rows, from 0, times a step, after an origin."""

    order: Annotated[str, AfterValidator(lambda name: name if name == IN_ROW_ORDER else Column(name))]
    origin: "Times" = (OnDate(date="2000-01-01"),)
    step: Length = "1d"


ELAPSED_IN = {"hours": UNITS["h"], "days": UNITS["d"], "months": UNITS["mo"], "years": UNITS["y"]}
_KINDS_OF_TIME = {"column": "~column", "date": "~date", "order": "~order", "age": "~age"} | dict.fromkeys(
    ELAPSED_IN, "~elapsed"
)
_WHAT_A_TIME_IS = (
    'a time is a date such as "2000-01-01", or a table with one of: '
    "column; days (or hours, months, years) and origin; age and birth; order"
)


def _kind_of_time(given: object) -> str | None:
    if not isinstance(given, dict):
        return None
    return next((_KINDS_OF_TIME[setting] for setting in given if setting in _KINDS_OF_TIME), None)


def _as_times(given: object) -> list[object]:
    return [{"date": one} if isinstance(one, str | date) else one for one in listed(given)]


Time = Annotated[
    Annotated[OnDate, Tag("~date")]
    | Annotated[InColumn, Tag("~column")]
    | Annotated[Elapsed, Tag("~elapsed")]
    | Annotated[AtAge, Tag("~age")]
    | Annotated[InOrder, Tag("~order")],
    Discriminator(_kind_of_time, "mistake", _WHAT_A_TIME_IS),
]
# Of several, the first that can be read.
Times = Annotated[tuple[Time, ...], BeforeValidator(_as_times), Field(min_length=1)]


class Where(Section):
    """A condition on a column of the row."""

    column: Column
    one_of: Answers | None = Field(default=None, validation_alias="is")
    none_of: Answers | None = Field(default=None, validation_alias="is_not")
    at_least: float | None = None
    at_most: float | None = None
    present: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Where":
        if self.model_fields_set == {"column"}:
            raise mistake("a filter needs one of is, is_not, at_least, at_most, present")
        return self


class Rule(Section):
    """What makes events of rows: of those that meet every condition, at a time of its own or the row's."""

    where: tuple[Where, ...] = ()
    time: Times = ()

    @property
    def timeless(self) -> bool:
        """Whether the events are always true of the resident, and so have no time."""
        return False


class Birth(Rule):
    """The resident's birth: its time; or, with `age`, the time less the age."""

    age: Column | None = None


class Death(Rule):
    """The resident's death."""


class ObservationEnd(Rule):
    """The time until which nothing that happened would be missing from the records."""


class Sex(Rule):
    """The resident's sex; becomes the concept `female`, 1 or 0."""

    column: Column
    female: Answers
    male: Answers

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "Sex":
        if both := set(self.female) & set(self.male):
            raise mistake(f'"{min(both)}" is both female and male')
        return self

    @property
    def timeless(self) -> bool:
        """A sex is told without a time."""
        return True


class Event(Rule):
    """One event for each row."""

    code: Code


class UnitColumn(Section):
    """A column that holds the unit of the value."""

    column: Column


Unit = Annotated[
    Annotated[str, Tag("~text")] | Annotated[UnitColumn, Tag("~table")],
    Discriminator(lambda given: "~text" if isinstance(given, str) else "~table"),
]


class Value(Rule):
    """A column of numbers that all mean the same."""

    column: Column
    code: Code
    unit: Unit | None = None
    static: bool = False

    @property
    def timeless(self) -> bool:
        """Whether it is declared static."""
        return self.static

    @model_validator(mode="after")
    def _in_a_known_unit(self) -> "Value":
        if isinstance(self.unit, str):
            require_unit(self.code, self.unit)
        return self


class Naming(Rule):
    """What names or local codes become: those in `codes` what it says, those in `drop` nothing."""

    codes: dict[str, Code] = Field(default_factory=dict)
    drop: Texts = ()

    @property
    def rest(self) -> str:
        """The system under which all others are kept, or DROP."""
        return "LOCAL"


class Named(Naming):
    """A column of names and one of their numbers."""

    name: Column
    value: Column
    unit: Unit | None = None
    units: dict[str, str] = Field(default_factory=dict)
    others: System = "LOCAL"

    @property
    def rest(self) -> str:
        """What `others` says."""
        return self.others

    @model_validator(mode="after")
    def _in_known_units(self) -> "Named":
        for name, code in self.codes.items():
            unit = self.units.get(name, self.unit)
            if isinstance(unit, str):
                require_unit(code, unit)
        return self


class Coded(Naming):
    """Columns of codes of a system; with a separator, several in a cell."""

    column: Columns = Field(validation_alias=AliasChoices("column", "columns"))
    system: System = "LOCAL"
    separator: Texts = ()
    others: Literal["drop"] | None = None

    @property
    def rest(self) -> str:
        """The system, unless the others are dropped."""
        return self.others or self.system


class Flag(Rule):
    """Columns that say yes or no."""

    column: Columns = Field(validation_alias=AliasChoices("column", "columns"))
    yes: Answers = Field(validation_alias="is")
    code: Code


class Choice(Rule):
    """A column of coded answers, each of which stands for a number."""

    column: Column
    code: Code
    values: dict[Answer, float]
    static: bool = False

    @property
    def timeless(self) -> bool:
        """Whether it is declared static."""
        return self.static


class Text(Rule):
    """A column of free text, or of names of places."""

    column: Column
    code: Code
    static: bool = False

    @property
    def timeless(self) -> bool:
        """Whether it is declared static."""
        return self.static


class Resident(Section):
    """The resident's id: an integer as it is; or anything, hashed with the secret in a variable or a file."""

    column: Column
    key: str | None = None


def _as_resident(given: object) -> object:
    return {"column": given} if isinstance(given, str) else given


def _as_rule(given: object) -> object:
    """Let the settings of a time stand for the rule whose time it is: ``death = { column = "died" }``."""
    if isinstance(given, dict) and not {"time", "age"} & given.keys():
        time = {name: setting for name, setting in given.items() if name != "where"}
        return {name: setting for name, setting in (("where", given.get("where")), ("time", time)) if setting}
    return given if isinstance(given, dict) else {"time": given}


class Table(Section):
    """One kind of table: which files hold it, how they are written, and the rules that make events of its rows."""

    file: Annotated[Texts, Field(min_length=1)]
    name: str = ""
    source: str = ""
    encoding: Encoding = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    sheet: str | None = None
    member: Texts = ("*",)
    missing: Texts | None = None
    timezone: Zone | None = None

    resident: Annotated[Resident, BeforeValidator(_as_resident)]
    record: Columns | None = None
    where: tuple[Where, ...] = ()
    time: Times = ()

    birth: Annotated[Birth, BeforeValidator(_as_rule)] | None = None
    sex: Sex | None = None
    death: Annotated[Death, BeforeValidator(_as_rule)] | None = None
    observation_end: Annotated[ObservationEnd, BeforeValidator(_as_rule)] | None = None
    event: tuple[Event, ...] = ()
    value: tuple[Value, ...] = ()
    named: tuple[Named, ...] = ()
    code: tuple[Coded, ...] = ()
    flag: tuple[Flag, ...] = ()
    choice: tuple[Choice, ...] = ()
    text: tuple[Text, ...] = ()

    def rules(self) -> Iterator[tuple[str, Rule]]:
        """Yield the rules, the birth first, each with the words in which to speak of it."""
        for kind in ("birth", "sex", "death", "observation_end"):
            if rule := getattr(self, kind):
                yield kind, rule
        for kind in ("event", "value", "named", "code", "flag", "choice", "text"):
            for number, rule in enumerate(getattr(self, kind), start=1):
                yield f"{kind} {number}", rule

    def takes(self, file: Path) -> bool:
        """Whether the table is in that file."""
        return any(fnmatchcase(file.name, pattern) for pattern in self.file)

    @property
    def title(self) -> str:
        """What its records are called by: the name, or the patterns of its files."""
        return self.name or " ".join(self.file)

    def orders(self) -> set[str]:
        """Return the columns by which rows are ranked, where there are no dates."""
        return {section.order for section in _within(self) if isinstance(section, InOrder)}

    @model_validator(mode="after")
    def _says_something(self) -> "Table":
        if not any(self.rules()):
            raise mistake("the table has no rules, so that nothing would come of it")
        return self

    @model_validator(mode="after")
    def _has_times(self) -> "Table":
        timeless = [place for place, rule in self.rules() if not (self.time or rule.time or rule.timeless)]
        if timeless:
            raise mistake(f"{', '.join(timeless)}: no time. Give the table, or the rule, a time")
        return self


class Mapping(Section):
    """The whole file."""

    name: str = ""
    source: str = ""
    timezone: Zone = "Asia/Shanghai"
    relative_times: bool = False
    missing: Texts = MISSING
    table: tuple[Table, ...]

    def source_of(self, table: Table) -> str:
        """Return the name of the system that a table comes from."""
        return table.source or self.source or self.name

    @model_validator(mode="after")
    def _each_record_in_one_table(self) -> "Mapping":
        titles = [(self.source_of(table), table.title) for table in self.table if table.record]
        for _, title in titles:
            if titles.count((_, title)) > 1:
                raise mistake(f'two tables have records and are called "{title}". Give each a name of its own')
        return self


Elapsed.model_rebuild()
AtAge.model_rebuild()
InOrder.model_rebuild()


def read_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises
    ------
    WeibingError
        If the file cannot be read, is not TOML, or says anything that cannot be; names every mistake in it.
    """
    written = _text_of(path)
    try:
        return Mapping.model_validate(tomllib.loads(written))
    except tomllib.TOMLDecodeError as error:
        raise WeibingError(f"{path.name}: this is not TOML: {error}.") from error
    except ValidationError as error:
        lines = table_lines(written)
        sentences = [f"{path.name}{_place(mistaken, lines)}: {_sentence(mistaken)}" for mistaken in error.errors()]
        raise WeibingError("\n".join(sentences)) from error


def table_lines(written: str) -> list[int]:
    """Return the lines on which the tables of a mapping begin; none where they are not written as ``[[table]]``."""
    lines = written.splitlines()
    return [number for number, line in enumerate(lines, start=1) if re.match(r"\s*\[\[\s*table\s*\]\]", line)]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise WeibingError(f"The mapping {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise WeibingError(f"The mapping {path} is not UTF-8. Save it as UTF-8.") from error


def _within(section: Section) -> Iterator[Section]:
    for part in section.parts():
        if isinstance(part, Section):
            yield part
            yield from _within(part)


# What stands under a name, or under one of the unions' tags, in the place that a mistake has.
SECTIONS: dict[str, type[Section]] = {
    "table": Table,
    "resident": Resident,
    "where": Where,
    "birth": Birth,
    "sex": Sex,
    "death": Death,
    "observation_end": ObservationEnd,
    "event": Event,
    "value": Value,
    "named": Named,
    "code": Coded,
    "flag": Flag,
    "choice": Choice,
    "text": Text,
    "~date": OnDate,
    "~column": InColumn,
    "~elapsed": Elapsed,
    "~age": AtAge,
    "~order": InOrder,
    "~table": UnitColumn,
}
_NUMBERED = {"table", "where", "event", "value", "named", "code", "flag", "choice", "text"}
_IN_OUR_WORDS = {
    "string_type": "this must be a text, in quotes",
    "string_too_short": "this must not be empty",
    "string_too_long": "this must be a single character",
    "string_pattern_mismatch": "this must be the name of a system, such as ICD10",
    "literal_error": f'this can only be "{DROP}"',
    "greater_than_equal": "this must not be negative",
    "too_short": "this must not be empty",
    "model_type": "this must be a table of settings, such as { column = … }",
    "dict_type": "this must be a table, such as { name = … }",
    "tuple_type": "this must be a list, or tables in double brackets",
    "float_type": "this must be a number",
    "float_parsing": "this must be a number",
    "int_type": "this must be a whole number",
    "int_parsing": "this must be a whole number",
    "bool_type": "this must be true or false",
    "bool_parsing": "this must be true or false",
}
_OF_A_SETTING = {"missing", "extra_forbidden"}


def _place(mistaken: ErrorDetails, lines: list[int]) -> str:
    """Return where a mistake is: ``, table 2 (line 14), value 1``."""
    place, steps = "", [*mistaken["loc"]]
    if mistaken["type"] in _OF_A_SETTING:
        steps.pop()
    for before, step in zip([None, *steps], steps, strict=False):
        if isinstance(step, str) and not step.startswith("~") and before != "~date":
            place += f", {step}"
        elif before in _NUMBERED and isinstance(step, int):
            place += f" {step + 1}"
            place += f" (line {lines[step]})" if before == "table" and step < len(lines) else ""
    return place


def _sentence(mistaken: ErrorDetails) -> str:
    *within, setting = mistaken["loc"] or ("",)
    if mistaken["type"] == "missing":
        return f'"{setting}" is missing.'
    if mistaken["type"] == "extra_forbidden":
        known = next((SECTIONS[str(step)] for step in reversed(within) if step in SECTIONS), Mapping).settings()
        if setting in known:
            return f'"{setting}" is another name of a setting that is given already.'
        return f'there is no setting "{setting}" here.{did_you_mean(str(setting), known)}'
    sentence = _IN_OUR_WORDS.get(mistaken["type"], mistaken["msg"])
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."
