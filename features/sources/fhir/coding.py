"""CodeableConcepts as codes of the event store: ``LOINC//8480-6``. The code systems' addresses lie in `systems.csv`."""

import csv
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

from features.sources.fhir.elements import Element, elements, text
from features.sources.table.residents import IDENTITY_OR_MOBILE
from features.vocabulary import HIERARCHICAL, TEXT, builtin, text_concepts

# Beyond this length, words are a note and no name of anything.
LONGEST_WORDS = 64

_IDENTITY_OR_MOBILE = re.compile(IDENTITY_OR_MOBILE)
# Of a dual code of ICD-10, a dagger or plus marks the cause, and an asterisk what it led to.
_DAGGERS = "†+*"


@cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a table beside this file, as text."""
    with Path(__file__).with_name(f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def codes_of(concepts: Iterable[Element], kind: str) -> tuple[str, ...]:
    """Return the codes that tell what some CodeableConcepts mean, without those that repeat it in another system.

    Parameters
    ----------
    concepts : CodeableConcepts
    kind : the type of the resource; some addresses mean one system here and another there
    """
    return tuple(dict.fromkeys(code for concept in concepts for code in _codes_of(concept, kind)))


def written(coding: Element, kind: str) -> str | None:
    """Return the code of a Coding, or None where it has none."""
    code = text(coding, "code")
    return _written(text(coding, "system") or "", code, kind) if code else None


def struck_out(words: str) -> str:
    """Return words with identity numbers and mobile numbers struck out."""
    return _IDENTITY_OR_MOBILE.sub("***", words)


def segment(url: str) -> str:
    """Return the last part of an address, which is what people call it by."""
    return re.split(r"[/:#]", url.partition("|")[0].rstrip("/"))[-1]


def _codes_of(concept: Element, kind: str) -> tuple[str, ...]:
    found = tuple(code for coding in elements(concept, "coding") if (code := written(coding, kind)))
    return _telling(found) if found else tuple(_in_words(concept))


@lru_cache(maxsize=100_000)
def _telling(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the codes each of which says something that those before it do not.

    Where the vocabulary knows none of them, it is the first of a system that we know, or the first.
    """
    telling, told = [], set[str]()
    for code in codes:
        concepts = {meaning.concept for meaning in builtin().meanings(code)}
        if concepts - told:
            telling.append(code)
            told |= concepts
    return tuple(telling) or (min(codes, key=lambda code: code.startswith("LOCAL//")),)


def _in_words(concept: Element) -> Iterator[str]:
    """Yield what the words of a concept without a code mean, or a local code that they are."""
    words = text(concept, "text") or next(filter(None, (text(it, "display") for it in elements(concept, "coding"))), "")
    if mentioned := text_concepts(words):
        yield from (f"{TEXT}//{concept}" for concept in mentioned)
    elif words and len(words) <= LONGEST_WORDS:
        yield f"LOCAL//{struck_out(words)}"


@lru_cache(maxsize=100_000)
def _written(url: str, code: str, kind: str) -> str:
    url = url.rstrip("/").replace("https://", "http://", 1)
    system = _systems().get((url, kind)) or _systems().get((url, ""))
    if system is None:
        return f"LOCAL//{segment(url)}/{code}" if url else f"LOCAL//{code}"
    if system in HIERARCHICAL:
        code = code.upper().rstrip(_DAGGERS)
    return f"{system}//{code}"


@cache
def _systems() -> dict[tuple[str, str], str]:
    return {(row["url"], row["resource"]): row["system"] for row in rows("systems")}
