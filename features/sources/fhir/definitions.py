"""What other resources refer to: the drugs of Medications, the questions and scores of Questionnaires."""

import re
from dataclasses import dataclass, field

from features.sources.fhir.coding import codes_of, segment, written
from features.sources.fhir.elements import Element, element, elements, text
from features.sources.fhir.reading import Resource
from features.sources.fhir.values import score

KINDS = ("Medication", "Questionnaire")

_LOINC = re.compile(r"\d{4,6}-\d")


@dataclass(frozen=True)
class Definitions:
    """Codes of drugs by ``Medication/12``; codes of questions and scores of answers by the form's address."""

    drugs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    questions: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    scores: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        """Remember what a resource defines."""
        if resource.kind == "Medication":
            self.drugs[f"Medication/{resource.id}"] = drug_codes(resource.content)
        elif resource.kind == "Questionnaire":
            for form in {text(resource.content, "url"), f"Questionnaire/{resource.id}"} - {None}:
                self._add_questions(resource.content, form or "")

    def score(self, form: str | None, answers: tuple[str, ...]) -> float | None:
        """Return what a form says that an answer counts."""
        found = (self.scores.get(((form or "").partition("|")[0], answer)) for answer in answers)
        return next((value for value in found if value is not None), None)

    def _add_questions(self, part: Element, form: str) -> None:
        for item in elements(part, "item"):
            codes = codes_of([{"coding": item.get("code")}], "Questionnaire")
            if codes:
                self.questions[form, text(item, "linkId") or ""] = codes
            for option in elements(item, "answerOption"):
                coding = element(option, "valueCoding")
                answer, counts = written(coding, "answer"), score(option, coding)
                if answer and counts is not None:
                    self.scores[form, answer] = counts
            self._add_questions(item, form)


def drug_codes(medication: Element) -> tuple[str, ...]:
    """Return the codes of a Medication, or of what it is made of."""
    ingredients = [element(it, "itemCodeableConcept") for it in elements(medication, "ingredient")]
    return codes_of([element(medication, "code")], "Medication") or codes_of(ingredients, "Medication")


def question(form: str | None, link: str | None, definitions: Definitions) -> tuple[str, ...]:
    """Return the codes of a question of a form, by its linkId.

    They are what the Questionnaire says, or the LOINC code that the linkId is, or a local code of form and linkId.
    """
    form, link = (form or "").partition("|")[0], link or ""
    if known := definitions.questions.get((form, link)):
        return known
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
