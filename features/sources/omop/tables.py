"""The tables of the OMOP Common Data Model (5.3 and 5.4) from which events come, and those from which none do."""

from dataclasses import dataclass

WHO = "person_id"

PERSON, GENDER = "person", "gender_concept_id"
BIRTH, YEAR_OF_BIRTH, MONTH_OF_BIRTH, DAY_OF_BIRTH = "birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth"
OBSERVATION_PERIOD, PERIOD_END = "observation_period", "observation_period_end_date"
CONCEPT, CONCEPT_ANCESTOR = VOCABULARY = "concept", "concept_ancestor"

# What stands beside an amount, or in its place.
UNIT, UNIT_TEXT = "unit_concept_id", "unit_source_value"
VALUE_CONCEPT, VALUE_TEXT, VALUE_AS_WRITTEN = "value_as_concept_id", "value_as_string", "value_source_value"
OPERATOR = "operator_concept_id"
# SNOMED's relational operators, as OMOP numbers them. "Equal" (4172703) says nothing that the number does not.
OPERATORS = {4171754: "≤", 4171755: "≥", 4171756: "<", 4172704: ">"}


@dataclass(frozen=True)
class Clinical:
    """A table of which each row is something that happened to a person at a time.

    Its columns are named after a `stem` (``condition_concept_id``), after `when` it began (``condition_start_date``)
    and `until` when it lasted. `amount` is a column of numbers, measured in `unit` or in one that stands beside each.
    `by_ancestor` says whether a more general concept may stand for that of a row: a kind of diabetes is diabetes, but
    numbers of two measurements that are akin do not compare.
    """

    name: str
    stem: str
    when: str
    until: str | None = None
    amount: str | None = None
    unit: str | None = None
    by_ancestor: bool = True

    @property
    def concept(self) -> str:
        """The column of the standard concept."""
        return f"{self.stem}_concept_id"

    @property
    def source_concept(self) -> str:
        """The column of the concept that the source used."""
        return f"{self.stem}_source_concept_id"

    @property
    def source_value(self) -> str:
        """The column of the source's own code."""
        return f"{self.stem}_source_value"

    @property
    def begins(self) -> tuple[str, str]:
        """The columns that tell when it began; where the first is empty, the second does."""
        return f"{self.when}_datetime", f"{self.when}_date"

    @property
    def ends(self) -> tuple[str, ...]:
        """The columns that tell when it ended."""
        return (f"{self.until}_datetime", f"{self.until}_date") if self.until else ()

    @property
    def columns(self) -> list[str]:
        """All columns that are read, beside the person's."""
        amount = [self.amount] if self.amount else []
        beside = [UNIT, UNIT_TEXT, OPERATOR, VALUE_CONCEPT, VALUE_TEXT, VALUE_AS_WRITTEN] if self.has_answers else []
        return [self.concept, self.source_concept, self.source_value, *self.begins, *self.ends, *amount, *beside]

    @property
    def has_answers(self) -> bool:
        """Whether a row may hold a concept or a text in the place of a number."""
        return self.amount is not None and self.unit is None


VISIT = Clinical("visit_occurrence", "visit", "visit_start", until="visit_end")
DEATH = Clinical("death", "cause", "death")

# In the order in which they are read.
CLINICAL = (
    VISIT,
    Clinical("condition_occurrence", "condition", "condition_start"),
    Clinical("drug_exposure", "drug", "drug_exposure_start", amount="days_supply", unit="d"),
    Clinical("measurement", "measurement", "measurement", amount="value_as_number", by_ancestor=False),
    Clinical("observation", "observation", "observation", amount="value_as_number"),
    Clinical("procedure_occurrence", "procedure", "procedure"),
    Clinical("device_exposure", "device", "device_exposure_start"),
    DEATH,
)

# Each table that is read, with what it must tell: of the columns in brackets, one is enough.
NEEDED: dict[str, list[tuple[str, ...]]] = {
    PERSON: [(WHO,), (BIRTH, YEAR_OF_BIRTH), (GENDER,)],
    **{table.name: [(WHO,), (table.concept,), table.begins] for table in CLINICAL},
    DEATH.name: [(WHO,), DEATH.begins],
    OBSERVATION_PERIOD: [(WHO,), (PERIOD_END,)],
    CONCEPT: [("concept_id",), ("vocabulary_id",), ("concept_class_id",), ("concept_code",)],
    CONCEPT_ANCESTOR: [("ancestor_concept_id",), ("descendant_concept_id",), ("min_levels_of_separation",)],
}

# They repeat what the others tell, or tell of money, or in prose.
NOT_TAKEN = (
    "visit_detail",
    "condition_era",
    "drug_era",
    "dose_era",
    "episode",
    "specimen",
    "note",
    "note_nlp",
    "payer_plan_period",
    "cost",
)


def key_of(table: str) -> str:
    """Return the column that numbers the rows of a table. A person is one, and dies once."""
    return WHO if table in (PERSON, DEATH.name) else f"{table}_id"
