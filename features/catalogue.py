"""The lists of features and of phenotypes as pages: `docs/features.md`, `docs/phenotypes.md`, from the declarations.

python -m features.catalogue            write them
python -m features.catalogue - | less   show them
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from features.derived import DERIVED
from features.measures import KINDS, NIGHT_BEGINS, NIGHT_ENDS, Feature, Measure
from features.phenotypes import PHENOTYPES
from features.profile import PROFILE, SPECIAL, SWITCH
from features.rules import frailty
from features.vocabulary import Vocabulary, builtin

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PHENOTYPES_PAGE = DOCS / "features.md", DOCS / "phenotypes.md"

HEAD = """# The features

<!-- Written by `python -m features.catalogue` from `features/profile.py`: change that, not this. -->

What Weibing knows about a resident at an index time: {number} features of {concepts} concepts. The declaration is
`PROFILE` in [features/profile.py](../features/profile.py), version `{version}`; the same one serves a county and a
single resident. A feature that the records of a county never fill is left out when a model is trained on them.

- [How to read it](#how-to-read-it)
- [The measures](#the-measures)
- [The list](#the-list)
- [What is left out, and why](#what-is-left-out-and-why)
- [What a county may switch on](#what-a-county-may-switch-on)

## How to read it

**A look-back** ends at the index time and does not hold it: `1y` is `[index − 1 year, index)`, of 365.25 days. What is
recorded at the index time itself is not yet known. Where none is given, everything before the index time counts.

**Null is not 0.** Null says that nobody knows: no pressure was ever measured, so there is no latest one. 0 says that it
was not recorded, and is taken not to have happened: no fall in the year, no statin in use, no days in hospital. The
measures that are 0 where nothing was recorded are marked below; all others are null. A model is told which is which,
and never a mean in place of a null.

**Days and nights** are those of the store's time zone, in its standard time. Night is {night_begins}:00 to
{night_ends:02}:00. A record that is dated by its day alone lies at midnight: it counts for its day, and for no hour.

**Units** are UCUM; an empty one is a count, a ratio, a grade, or yes (1) or no (0). What codes and units become a
concept is in [vocabulary.md](vocabulary.md). Some concepts are computed as the records are read: from others at the
same moment (`bmi`, `pulse_pressure`, `egfr`, `non_hdl`), or found by a rule that says when it was first satisfied
(`fall_found`, `hypertension_found`).
"""

FOOT = """
## What is left out, and why

- **Names, villages and townships, ethnicity, doctors, insurance numbers.** The first never enter the store. A place is
  a concept (`township`), for counting by place alone: a profile that names it is refused. A risk must follow from a
  person's health, and not from where others like them live or to whom they turned.
- **The law's special categories**: HIV infection, severe mental illness, tuberculosis. They are concepts (kind
  `special`), so that a county sees what its records hold, and in no profile unless switched on.
- **Antipsychotics and antidepressants stay**, as two of the fourteen classes of drugs that STOPPFall names for raising
  the risk of falls (Seppala et al., Age Ageing 2021;50:1189-1199); they are prescribed for much else than severe mental
  illness. Depression and dementia stay too: they are common, and treated in primary care.
- **What is recorded at or after the index time**, in any form.

## What a county may switch on

With the environment variable `{switch}=1`, wherever Weibing trains and wherever it serves, the profile also has:

{special}

Set it only where there is a lawful reason to use them (Personal Information Protection Law, articles 28 and 29), and
train again: a model that was trained without them does not use them, and one that was trained with them is refused
where the switch is off. In Python: `Engine(Profile(…, special_categories=True))`. Without it a profile that names such
a concept is refused, and the message names the concept and the switch. A target's at-risk rule never names them.
"""


PHENOTYPES_HEAD = """# The phenotypes

<!-- Written by `python -m features.catalogue` from `features/phenotypes.py`: change that, not this. -->

A phenotype is a rule that turns events into a dated finding. It is dated when its rule is first satisfied, from what
was recorded up to then; one marked *each time* is dated on every day that satisfies it anew. Days are the county's.
Each is a concept like any other: a target's `outcome`, `present` or `absent`, and a feature, may name it, so that the
label of a target is a choice between them:

    [hypertension]
    outcome = ["hypertension_coded"]      # instead of hypertension_found

`weibing cohort`, `train` and `evaluate` print the rule that they used, and how many outcomes were found by what.

Names within a rule are concepts ([vocabulary.md](vocabulary.md)) or earlier phenotypes; values are in the concept's own
unit. What is computed from other values (`egfr`, `uacr_stage`, `blood_pressure_controlled`) is below.

| phenotype | English | 中文 | rule | source |
|---|---|---|---|---|
"""

DERIVED_HEAD = """
## Values that are computed

At every moment at which their sources are recorded; height, sex and birth are the last known.

| concept | English | 中文 | unit | from |
|---|---|---|---|---|
"""

FRAILTY_HEAD = """
## Frailty

The electronic frailty index (Clegg et al., Age Ageing 2016;45:353-360): the deficits found so far, of 36
(`frailty_deficits`), their share (`frailty_index`), and how many of the 36 the kinds of record seen so far could have
shown (`frailty_assessable`). A deficit that nobody looked for counts as absent, so read the index beside that number.

| deficit | found by | source |
|---|---|---|
"""


def phenotypes_page(vocabulary: Vocabulary | None = None) -> str:
    """Return the page of phenotypes, in Markdown."""
    known = vocabulary or builtin()
    phenotypes = "\n".join(
        f"| `{each.name}` | {concept.label_en} | {concept.label_zh} |"
        f" {each}{' (*each time*)' if each.recurrent else ''} | {each.source} |"
        for each in PHENOTYPES
        for concept in (known.concepts[each.name],)
    )
    derived = "\n".join(
        f"| `{name}` | {concept.label_en} | {concept.label_zh} | {concept.unit} | {', '.join(sources)} |"
        for name, sources in DERIVED.items()
        for concept in (known.concepts[name],)
    )
    deficits = "\n".join(
        f"| {row.deficit.replace('_', ' ')} | {row.sign} | {row.source} |" for row in frailty() if row.deficit
    )
    return f"{PHENOTYPES_HEAD}{phenotypes}\n{DERIVED_HEAD}{derived}\n{FRAILTY_HEAD}{deficits}\n"


def page(vocabulary: Vocabulary | None = None) -> str:
    """Return the page, in Markdown."""
    known = vocabulary or builtin()
    head = HEAD.format(
        number=len(PROFILE),
        concepts=len({feature.concept for feature in PROFILE.features}),
        version=PROFILE.version,
        night_begins=NIGHT_BEGINS,
        night_ends=NIGHT_ENDS,
    )
    foot = FOOT.format(switch=SWITCH, special="\n".join(f"- {_said(feature, known)}" for feature in SPECIAL))
    measures = "\n".join(("## The measures", "", *_measures()))
    features = "\n".join(("## The list", "", *_list(PROFILE.features, known)))
    return f"{head}\n{measures}\n\n{features}\n{foot}"


def _measures() -> Iterator[str]:
    yield "| measure | 度量 | meaning | nothing recorded |"
    yield "|---|---|---|---|"
    for measure, kind in KINDS.items():
        name = kind.en or measure.name.lower().replace("_", " ")
        nothing = "null" if kind.nothing is None else f"{kind.nothing:g}"
        yield f"| {name} | {kind.zh or '—'} | {kind.meaning} | {nothing} |"


def _list(features: Sequence[Feature], vocabulary: Vocabulary) -> Iterator[str]:
    yield "| feature | English | 中文 | unit | concept | look-back |"
    yield "|---|---|---|---|---|---|"
    for feature in features:
        concept = vocabulary.concept(feature.concept)
        cells = (
            f"`{feature.name}`",
            feature.label(concept) + _at_least(feature),
            feature.label(concept, "zh"),
            f"`{feature.unit(concept)}`" if feature.unit(concept) else "",
            f"`{feature.concept}`",
            feature.within or "",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    for feature in features:
        if feature.measure is Measure.TOTAL:
            yield f"`{feature.name}` sums {', '.join(f'`{name}`' for name in feature.of)}."
            yield ""


def _at_least(feature: Feature) -> str:
    return f" (of {feature.at_least} or more)" if feature.at_least > 1 else ""


def _said(feature: Feature, vocabulary: Vocabulary) -> str:
    concept = vocabulary.concept(feature.concept)
    return f"`{feature.name}`: {feature.label(concept)} ({feature.label(concept, 'zh')})"


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(page() + "\n" + phenotypes_page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
        PHENOTYPES_PAGE.write_text(phenotypes_page(), encoding="utf-8")
