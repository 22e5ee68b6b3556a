"""What other resources refer to: the drugs of Medications, the questions and scores of Questionnaires."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from features.sources.fhir.coding import codes_of, segment, written
from features.sources.fhir.elements import Element, element, elements, text
from features.sources.fhir.reading import Resource
from features.sources.fhir.values import score

KINDS = ("Medication", "Questionnaire")

_LOINC = re.compile(r"\d{4,6}-\d")


class Question(NamedTuple):
    """What is asked, as codes, and what the answers to it count."""

    codes: tuple[str, ...]
    scores: Mapping[str, float] = MappingProxyType({})

    def score(self, answers: Iterable[str]) -> float | None:
        """Return what an answer counts, which may be told by several codes, or None where that is not said."""
        return next((self.scores[answer] for answer in answers if answer in self.scores), None)


@dataclass(frozen=True)
class Definitions:
    """Codes of drugs by ``Medication/12``; questions by the form's address and the linkId."""

    drugs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    questions: dict[tuple[str, str], Question] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        """Remember what a resource defines."""
        if resource.kind == "Medication":
            self.drugs[f"Medication/{resource.id}"] = drug_codes(resource.content)
        elif resource.kind == "Questionnaire":
            for form in {text(resource.content, "url"), f"Questionnaire/{resource.id}"} - {None}:
                self._add_questions(resource.content, form or "")

    def question(self, form: str | None, link: str | None) -> Question:
        """Return a question of a form, by its linkId.

        The codes are what the Questionnaire says, or the LOINC code that the linkId is, or a local code of form and
        linkId.
        """
        form, link = (form or "").partition("|")[0], link or ""
        known = self.questions.get((form, link), Question(()))
        return known if known.codes else known._replace(codes=_by_link(form, link))

    def _add_questions(self, part: Element, form: str) -> None:
        for item in elements(part, "item"):
            codes = codes_of([{"coding": item.get("code")}], "Questionnaire")
            self.questions[form, text(item, "linkId") or ""] = Question(codes, dict(_scores(item)))
            self._add_questions(item, form)


def drug_codes(medication: Element) -> tuple[str, ...]:
    """Return the codes of a Medication, or of what it is made of."""
    ingredients = [element(it, "itemCodeableConcept") for it in elements(medication, "ingredient")]
    return codes_of([element(medication, "code")], "Medication") or codes_of(ingredients, "Medication")


def _scores(item: Element) -> Iterator[tuple[str, float]]:
    for option in elements(item, "answerOption"):
        coding = element(option, "valueCoding")
        answer, counts = written(coding, "answer"), score(option, coding)
        if answer and counts is not None:
            yield answer, counts


def _by_link(form: str, link: str) -> tuple[str, ...]:
    last = link.rpartition("/")[2]
    if _is_loinc(last):
        return (f"LOINC//{last}",)
    return (f"LOCAL//{segment(form)}/{link}" if form else f"LOCAL//{link}",) if link else ()


def _is_loinc(code: str) -> bool:
    """Whether a text has the form of a LOINC code, and its check digit (modulo 10, as that of bank cards)."""
    if not _LOINC.fullmatch(code):
        return False
    digits = [int(digit) for digit in code.replace("-", "")[::-1]]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
