"""The kinds of setting a mapping file has, each checked when it is read."""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from typing import Annotated

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from features.errors import WeibingError, did_you_mean
from features.sources.table.cells import is_date_format
from features.times import instant, length, zone
from features.vocabulary import builtin

# GB18030 holds all of GBK and GB2312, so that a file in either reads with it.
ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-8-sig": "utf-8",
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "cp936": "gb18030",
}


class Column(str):
    """The name of a column of the table, as its header has it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read it from a text."""
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))


class Section(BaseModel):
    """A section of the mapping file; its fields are the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings(cls) -> list[str]:
        """Return the names of the settings, as the file has them."""
        fields = cls.model_fields.items()
        return [spelling for name, known in fields for spelling in _spellings(known.validation_alias or name)]

    def columns(self) -> Iterator[Column]:
        """Yield the columns that the section and those in it speak of."""
        for part in self.parts():
            if isinstance(part, Column):
                yield part
            else:
                yield from part.columns()

    def parts(self) -> "Iterator[Column | Section]":
        """Yield the columns and sections that are settings of this one."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Column | Section):
                    yield part


def mistake(sentence: str) -> PydanticCustomError:
    """Return an error of the mapping file that shows a sentence as it is."""
    return PydanticCustomError("mistake", "{sentence}", {"sentence": sentence})


def listed(given: object) -> list[object]:
    """Return a list as it is, and anything else as a list of one."""
    return given if isinstance(given, list) else [given]


def require_unit(code: str, unit: str) -> None:
    """Require a unit in which the vocabulary knows the code's concept; a code that is no concept may have any."""
    vocabulary = builtin()
    for meaning in vocabulary.meanings(code, unit):
        if not meaning.known_unit:
            known = [known for concept, known in vocabulary.units if concept == meaning.concept]
            hint = did_you_mean(unit, known) or f" Known are: {', '.join(known)}."
            raise mistake(f'the unit "{unit}" of {meaning.concept} is not known.{hint}')


def _spellings(alias: object) -> list[str]:
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def _as_cell(given: object) -> object:
    """Return an answer as a cell holds it, so that ``1``, ``1.0`` and ``"1"`` are the same."""
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    return str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given


def _known_code(code: str) -> str:
    system, slashes, within = code.partition("//")
    if (system and within) if slashes else builtin().meanings(code):
        return code
    hint = did_you_mean(code, list(builtin().concepts))
    raise mistake(f'there is no concept "{code}".{hint} A code that is no concept is written SYSTEM//code.')


def _known_format(form: str) -> str:
    if is_date_format(form):
        return form
    raise mistake(f'"{form}" is not a format of dates. Write one such as "%Y-%m-%d" or "%Y年%m月%d日".')


def _known_encoding(name: str) -> str:
    if name.lower() in ENCODINGS:
        return ENCODINGS[name.lower()]
    raise mistake(f'the encoding "{name}" is not known. Use "utf-8" or "gb18030".')


def _as_text(given: object) -> object:
    """Return a date that TOML has read already as the text it was."""
    return given.isoformat() if isinstance(given, date) else given


def _that_passes(check: Callable[[str], object]) -> AfterValidator:
    """Require a text that a function takes without a WeibingError."""
    return AfterValidator(partial(_passed, check))


def _passed(check: Callable[[str], object], text: str) -> str:
    try:
        check(text)
    except WeibingError as error:
        raise mistake(str(error)) from error
    return text


Code = Annotated[str, AfterValidator(_known_code)]
System = Annotated[str, Field(pattern="^[^/]+$")]
Zone = Annotated[str, _that_passes(zone)]
Length = Annotated[str, _that_passes(length)]
Day = Annotated[str, BeforeValidator(_as_text), _that_passes(instant)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
Format = Annotated[str, AfterValidator(_known_format)]
Answer = Annotated[str, BeforeValidator(_as_cell)]

Answers = Annotated[tuple[Answer, ...], BeforeValidator(listed), Field(min_length=1)]
Columns = Annotated[tuple[Column, ...], BeforeValidator(listed), Field(min_length=1)]
Formats = Annotated[tuple[Format, ...], BeforeValidator(listed), Field(min_length=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(listed)]
