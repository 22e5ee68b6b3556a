"""A recorded visit, as events: the contact itself, what was found, and what its closed duties asked for.

Duties are computed from records alone. What a visit is said to close would be due again tomorrow unless the records
show it: so a duty is closed by the concept that its rule names, and one that asks for a value is closed by the value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

import polars as pl
from pydantic import BaseModel, Field

from features.events import SCHEMA
from features.times import microseconds
from features.vocabulary import Vocabulary
from serving.api.bodies import PLAIN, STRICT
from serving.api.calls import Event
from serving.api.problems import Fault, unprocessable
from serving.api.records import read_time, unused
from serving.drivers import EPOCH
from serving.duties.rules import Rule, Rulebook

Kind = Literal["clinic", "home", "telephone"]
CONTACTS: Mapping[Kind, str] = {"clinic": "clinic_follow_up", "home": "home_visit", "telephone": "phone_follow_up"}
# What can be done without seeing the resident.
BY_TELEPHONE = frozenset({"phone_follow_up", "referral", "lifestyle_advice"})
# What a rule without closing concepts asks for, which looks at the pressure day by day.
PRESSURE = ("sbp", "dbp")


class NewVisit(BaseModel):
    """A contact with a resident."""

    model_config = STRICT

    kind: Kind
    time: Annotated[
        str | None, Field(max_length=40, description="ISO 8601; absent: now. Without an offset, in the county's zone.")
    ] = None
    closes: Annotated[
        list[Annotated[str, Field(max_length=100)]], Field(max_length=100, description="Rules of the duties done.")
    ] = []
    note: Annotated[str | None, Field(max_length=4_000, pattern=PLAIN)] = None
    facts: Annotated[
        list[Event], Field(max_length=200, description="What was found, as events; without a time: the visit's.")
    ] = []


@dataclass(frozen=True)
class VisitRead:
    """When a visit was, and what it adds to the records: columns of the event store but for the resident's."""

    time: datetime
    facts: pl.DataFrame


def read_visit(sent: NewVisit, vocabulary: Vocabulary, book: Rulebook, zone: str, now: datetime) -> VisitRead:
    """Return what a visit adds to the records.

    Raises
    ------
    ProblemError
        422 where it lies ahead, a fact cannot be, or it says that it closes what it does not.
    """
    time = now if sent.time is None else EPOCH + timedelta(microseconds=read_time(sent.time, zone, "time"))
    _need_past(time, now, "time")
    rows = [_row(fact, number, vocabulary, zone, now) for number, fact in enumerate(sent.facts)]
    shown = {CONTACTS[sent.kind]}
    shown |= {each.concept for fact in sent.facts for each in vocabulary.meanings(fact.code, fact.unit)}
    rules = {rule.rule: rule for rule in book.rules}
    for number, name in enumerate(sent.closes):
        if name not in rules:
            raise unprocessable(Fault(("closes", number), "there is no such rule"))
        shown |= set(_closing(rules[name], shown, sent.kind, number, vocabulary))
    told = {each.concept for fact in sent.facts for each in vocabulary.meanings(fact.code, fact.unit)}
    rows += [(None, concept, None, None, None) for concept in sorted(shown - told)]
    names = ("time", "code", "numeric_value", "text_value", "unit")
    schema = {name: SCHEMA[name] for name in names}
    return VisitRead(time, pl.DataFrame(rows, schema=schema, orient="row", strict=False))


def _row(
    fact: Event, number: int, vocabulary: Vocabulary, zone: str, now: datetime
) -> tuple[datetime | None, str, float | None, str | None, str | None]:
    place = ("facts", number)
    meanings = vocabulary.meanings(fact.code, fact.unit)
    if not meanings:
        raise unprocessable(Fault((*place, "code"), "nobody knows what this code means"))
    for meaning in meanings:
        if reason := unused(fact.value, meaning, vocabulary):
            raise unprocessable(Fault((*place, "value"), reason))
    for name, told in (("unit", fact.unit), ("text", fact.text)):
        if told and "\0" in told:
            raise unprocessable(Fault((*place, name), "there is a character without a shape in it"))
    time = None
    if fact.time is not None:
        time = EPOCH + timedelta(microseconds=read_time(fact.time, zone, *place, "time"))
        _need_past(time, now, *place, "time")
    return time, fact.code, fact.value, fact.text, fact.unit


def _need_past(time: datetime, now: datetime, *place: str | int) -> None:
    if microseconds(time) > microseconds(now):
        raise unprocessable(Fault(place, "this lies ahead"))


def _closing(rule: Rule, shown: set[str], kind: Kind, number: int, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield the concepts that the records still lack to show that what a rule asks for was done."""
    asked = rule.closed_by or PRESSURE
    lacking = [concept for concept in asked if concept not in shown]
    done = not lacking if rule.all_of else len(lacking) < len(asked)
    if done and not (kind == "telephone" and _only_seen(asked, shown)):
        return
    possible = [concept for concept in lacking if not vocabulary.concept(concept).numeric]
    if kind == "telephone":
        possible = [concept for concept in possible if concept in BY_TELEPHONE]
    if not possible or (rule.all_of and len(possible) < len(lacking)):
        how = "this is not done by telephone" if kind == "telephone" else f"add {' or '.join(lacking)} to facts"
        raise unprocessable(Fault(("closes", number), how))
    yield from possible if rule.all_of else possible[:1]


def _only_seen(asked: Sequence[str], shown: set[str]) -> bool:
    """Whether what is shown of what is asked for can only be done by seeing the resident."""
    return not (shown & set(asked) & BY_TELEPHONE) and not any(concept in PRESSURE for concept in shown & set(asked))
