"""What a concept of OMOP is written as in the store, and what it stands for where the vocabulary does not know it.

Every concept can be written ``OMOP//<concept_id>``. Where our vocabulary does not know that code, the data set's own
vocabulary tables may lead to one that it does:

1. the concept's code in a system of ours (``LOINC//2339-0``),
2. the concept that the source used, or its code (``ICD10//E11.9``),
3. of a drug, the ATC codes next above it (``ATC//C09AA03``), known or not,
4. more general concepts that are known: of each meaning, the nearest.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from features.sources.omop.reading import Only, Source
from features.sources.omop.tables import CONCEPT, CONCEPT_ANCESTOR
from features.vocabulary import Vocabulary

OMOP, LOCAL, ATC, UCUM = "OMOP//", "LOCAL//", "ATC", "UCUM"
# A chemical substance with its purpose; what lies above it is groups of them.
SUBSTANCE = "ATC 5th"

# Of an event before it is coded; concepts are 0 where there is none, as OMOP has it.
STANDARD, OF_SOURCE, ANSWER, SOURCE_VALUE = "concept", "source_concept", "answer", "source_value"
KEYS = [STANDARD, OF_SOURCE, ANSWER]
# Of an event that bears another code than that of its own concept: the latter.
SOURCE_CODE = "source_code"


def table(name: str) -> list[dict[str, str]]:
    """Read a small table that lies beside this module."""
    with Path(__file__).with_name(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def affirmative() -> tuple[int, ...]:
    """Return the concepts that answer with yes."""
    return tuple(int(row["concept_id"]) for row in table("answers.csv"))


@dataclass(frozen=True)
class Concepts:
    """What concepts are written as: frames of `concept_id` and `code`; and the units (UCUM) that concepts name.

    `known` are concepts that our vocabulary knows, `same` those whose code in another system it knows, `answered` the
    codes it knows of a question with its answer. `general` are the ATC codes and the known concepts that stand for
    those below them, each with its `meaning`; `above` has which of them lie above what, and by how many levels.
    """

    known: pl.DataFrame
    same: pl.DataFrame
    answered: list[str]
    general: pl.DataFrame
    above: pl.DataFrame
    units: dict[int, str]

    @classmethod
    def read(cls, source: Source, vocabulary: Vocabulary) -> "Concepts":
        """Read what the vocabulary tables of a data set tell, as far as it has any."""
        systems = {row["vocabulary_id"]: row["system"] for row in table("systems.csv")}
        told = _told(source, [*systems, UCUM])
        within = [code.removeprefix(OMOP) for code in vocabulary.codes if code.startswith(OMOP)]
        known = _coded([int(code) for code in within if code.isdecimal()])
        general = pl.concat([_facts(known, vocabulary), _substances(told)])
        return cls(
            known,
            same=_same(told, systems, vocabulary),
            answered=[OMOP + code for code in within if not code.isdecimal()],
            general=general,
            above=_above(source, general["concept_id"].unique().to_list()),
            units=_units(told.filter(vocabulary_id=UCUM)),
        )

    def coded(self, events: pl.DataFrame, *, by_ancestor: bool) -> pl.DataFrame:
        """Return the events with a `code` in place of the concepts and the source's value.

        An event for whose concept several known codes stand becomes several. Where the code is not that of its own
        concept, that one is its `source_code`.
        """
        codes = self._codes(events.select(KEYS).unique(), by_ancestor=by_ancestor)
        found, own = pl.col("code"), _own_code()
        coded = (
            events.join(codes, on=KEYS, how="left")
            .with_columns(pl.coalesce(found, own).alias("code"), pl.when(found != own).then(own).alias(SOURCE_CODE))
            .drop(*KEYS, SOURCE_VALUE)
        )
        return coded if coded[SOURCE_CODE].count() else coded.drop(SOURCE_CODE)

    def _codes(self, asked: pl.DataFrame, *, by_ancestor: bool) -> pl.DataFrame:
        """Return codes for KEYS that ask for one: those of the best kind there is; nothing where there is none."""
        # A question that is answered with yes is a fact; any other answer is another matter than the question.
        facts = asked.filter(pl.col(ANSWER).is_in([0, *affirmative()]))
        kinds = [
            asked.with_columns(code=_own_code(local=False)).filter(pl.col("code").is_in(self.answered)),
            *(_joined(facts, key, codes) for key in (STANDARD, OF_SOURCE) for codes in (self.known, self.same)),
            *(_joined(facts, STANDARD, codes) for codes in (self._next_above(facts[STANDARD]) if by_ancestor else ())),
        ]
        ranked = pl.concat([kind.with_columns(rank=pl.lit(rank)) for rank, kind in enumerate(kinds)])
        return ranked.filter(pl.col("rank") == pl.col("rank").min().over(KEYS)).drop("rank")

    def _next_above(self, concepts: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the codes next above concepts, of each meaning: those of ATC, and the others."""
        levels = pl.col("levels")
        nearest = (
            self.above.filter(pl.col("concept_id").is_in(concepts.unique().to_list()))
            .cast({"concept_id": pl.Int64, "above": pl.Int64})
            .join(self.general, left_on="above", right_on="concept_id")
            .filter(levels == levels.min().over("concept_id", "meaning"))
        )
        codes = nearest.select("concept_id", "code", of_atc=pl.col("meaning") == ATC).unique()
        return codes.filter("of_atc"), codes.filter(~pl.col("of_atc"))


def _own_code(*, local: bool = True) -> pl.Expr:
    """Return the code of an event's own concept, with the answer if there is one.

    Where OMOP has no concept, it is that of the source's, or else the source's own value.
    """
    concept = pl.when(pl.col(STANDARD) != 0).then(STANDARD).otherwise(OF_SOURCE)
    code = pl.format(f"{OMOP}{{}}", concept)
    if local:
        code = pl.when(concept == 0).then(LOCAL + pl.col(SOURCE_VALUE)).fill_null(code)
    return pl.when(pl.col(ANSWER) != 0).then(pl.format("{}//{}", code, ANSWER)).otherwise(code)


def _joined(asked: pl.DataFrame, key: str, codes: pl.DataFrame) -> pl.DataFrame:
    return asked.join(codes.rename({"concept_id": key}), on=key).select(*KEYS, "code")


def _coded(concepts: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"concept_id": concepts}, {"concept_id": pl.Int64}).with_columns(
        code=pl.format(f"{OMOP}{{}}", "concept_id")
    )


def _told(source: Source, vocabularies: list[str]) -> pl.DataFrame:
    """Return the concepts of some vocabularies."""
    columns = ["concept_id", "vocabulary_id", "concept_class_id", "concept_code"]
    parts = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
    if CONCEPT in source.tables():
        batches = source.batches(CONCEPT, columns, Only("vocabulary_id", vocabularies))
        parts += [batch.filter(pl.col("vocabulary_id").is_in(vocabularies)) for batch in batches]
    return pl.concat(parts).with_columns(pl.col("concept_id").cast(pl.Int64))


def _same(told: pl.DataFrame, systems: dict[str, str], vocabulary: Vocabulary) -> pl.DataFrame:
    """Return the concepts whose code in a system of ours the vocabulary knows."""
    of_systems = told.filter(pl.col("vocabulary_id").is_in(list(systems)))
    system = pl.col("vocabulary_id").replace_strict(systems, return_dtype=pl.String)
    codes = of_systems.select("concept_id", code=pl.format("{}//{}", system, pl.col("concept_code").str.to_uppercase()))
    return codes.filter(pl.Series([bool(vocabulary.meanings(code)) for code in codes["code"]], dtype=pl.Boolean))


def _facts(known: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """Return what known concepts mean that any kind of them means too: what is no number."""
    rows = [
        (concept, code, meaning.concept)
        for concept, code in known.iter_rows()
        for meaning in vocabulary.meanings(code)
        if not vocabulary.concepts[meaning.concept].numeric
    ]
    return pl.DataFrame(rows, {**known.schema, "meaning": pl.String}, orient="row")


def _substances(told: pl.DataFrame) -> pl.DataFrame:
    """Return the ATC codes of substances, all of one meaning: that they are the drug's."""
    atc = told.filter(vocabulary_id=ATC, concept_class_id=SUBSTANCE)
    return atc.select("concept_id", code=f"{ATC}//" + pl.col("concept_code"), meaning=pl.lit(ATC))


def _above(source: Source, concepts: list[int]) -> pl.DataFrame:
    """Return what lies below some concepts, in as few bytes as will do: there are millions of drugs."""
    columns = {
        "descendant_concept_id": ("concept_id", pl.UInt32()),
        "ancestor_concept_id": ("above", pl.UInt32()),
        "min_levels_of_separation": ("levels", pl.UInt8()),
    }
    parts = [pl.DataFrame(schema=dict(columns.values()))]
    if CONCEPT_ANCESTOR in source.tables():
        for batch in source.batches(CONCEPT_ANCESTOR, list(columns), Only("ancestor_concept_id", concepts)):
            cells = batch.select(
                pl.col(told).cast(kind, strict=False).alias(name) for told, (name, kind) in columns.items()
            )
            parts.append(cells.filter(pl.col("above").is_in(concepts)).drop_nulls())
    return pl.concat(parts, rechunk=True)


def _units(told: pl.DataFrame) -> dict[int, str]:
    """Return units by concept: as this module's table spells them, or else as the data set does."""
    ours = {int(row["concept_id"]): row["unit"] for row in table("units.csv")}
    return dict(told.select("concept_id", "concept_code").iter_rows()) | ours
