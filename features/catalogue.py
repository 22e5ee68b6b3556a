"""The list of features as a page: `docs/features.md`, written from the declaration.

python -m features.catalogue            write docs/features.md
python -m features.catalogue - | less   show it
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from features.measures import KINDS, NIGHT_BEGINS, NIGHT_ENDS, Feature, Measure
from features.profile import PROFILE, SPECIAL, SWITCH
from features.vocabulary import Vocabulary, builtin

PAGE = Path(__file__).parent.parent / "docs" / "features.md"

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
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
