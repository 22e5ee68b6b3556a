"""One compiled pass over a resident's events, in order of time, adds what they say together.

At each moment, that is all events of the same time, it adds the derived values (`derived.py`), the phenotypes whose
rules are now satisfied (`phenotypes.py`) and the count of frailty deficits (`concepts/frailty.csv`). Nothing it adds
rests on a later event. Facts without a time come first and are a moment of their own; what they say always holds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled, compiled_within
from features.derived import BIRTH, SOURCES, derive
from features.kernel import ALWAYS, Floats, Ints, Singles, Small
from features.times import DAY

# The most days that a rule can ask for.
MOST = 8
NEVER = np.iinfo(np.int64).min // 2
NUMBER_OF_SOURCES = len(SOURCES)
# The columns of `Rules.evidence`.
TIMES, WITHIN, APART, DISTINCT, BESIDE, FIRST_SIGN, ANEW = range(7)
# The bits of `Rules.role`.
WRITTEN, SOURCE, SIGN, DEFICIT = 1, 2, 4, 8


class Rules(NamedTuple):
    """Compiled rules. Concepts are numbered; -1 stands for none.

    `role`, shape (concepts,), says whether a concept is written (1), a source of derived values (2), a sign (4) and a
    row of the frailty table (8), as a sum. `bounds`, shape (concepts, 3), holds the lowest and highest plausible value,
    and whether the concept is a number; `zone_offset` is the county's time less UTC.

    `source`, shape (concepts,), is which source of derived values a concept is, `derived` the concept of each derived
    value.

    A sign is a row: those of a concept begin at `sign_starts`, shape (concepts + 1,). `sign`, shape (signs, 3), holds
    its evidence, its number among the distinct signs, and whether it stands beside; `limits`, shape (signs, 2), the
    values that count. `evidence`, shape (evidence, 7), holds times, within, apart, distinct, whether there are signs
    beside, where its distinct signs begin, and whether its phenotype is recurrent. `given`, from `given_starts` on, are
    the phenotypes that an evidence asks for. `evidence_starts` says where the evidence of each phenotype begins,
    `phenotype`, shape (phenotypes, 2), holds its concept and whether it is recurrent.

    A row of the frailty table: those of a concept begin at `deficit_starts`; `deficit`, shape (rows, 2), holds the
    number of the deficit (-1: it only shows that a kind of record exists) and the bit of the kind of record,
    `deficit_limits` the values that count. `assessable_in`, shape (deficits,), holds the bits of the kinds of record
    that would show a deficit. `tally` are the concepts of the number of deficits, of the assessable, and of the index.
    """

    role: Small
    bounds: Floats
    zone_offset: int
    source: Small
    derived: Small
    sign_starts: Small
    sign: Small
    limits: Floats
    evidence: Ints
    given_starts: Small
    given: Small
    evidence_starts: Small
    phenotype: Small
    deficit_starts: Small
    deficit: Ints
    deficit_limits: Floats
    assessable_in: Ints
    tally: Small


class Found(NamedTuple):
    """What is known of a resident so far.

    Of each source the sum and number of this moment's values, and the last mean known; of each evidence whether it is
    satisfied, and anew; its counted times, how many, and the last days of a sign and of one beside; of each distinct
    sign when it was last seen; of each phenotype whether it was found, and on which day last; of each deficit whether
    it is there. `flags` are: something new of the sources, of the evidence, of the deficits; the kinds of
    record seen; and how many deficits, and assessable, were told last. The first holds a bit for each source.
    `exhausted` says which concepts have nothing left to tell the rules.
    """

    sums: Floats
    now: Floats
    known: Floats
    result: Floats
    satisfied: NDArray[np.bool_]
    anew: NDArray[np.bool_]
    counted: Ints
    times: Ints
    last: Ints
    found: NDArray[np.bool_]
    day: Ints
    deficits: NDArray[np.bool_]
    flags: Ints
    exhausted: NDArray[np.bool_]


OF_SOURCES, OF_EVIDENCE, OF_DEFICITS, RECORDED, DEFICITS_TOLD, ASSESSABLE_TOLD = range(6)


class Written(NamedTuple):
    """Where usable events are written: `concept`, `time`, `value`; `place`, shape (1,), is where the next one goes."""

    concept: Small
    time: Ints
    value: Singles
    place: Ints


@compiled
def nothing_found(rules: Rules) -> Found:
    """Return room for what is known of a resident."""
    sources, evidence, signs = NUMBER_OF_SOURCES, len(rules.evidence), len(rules.sign)
    phenotypes = len(rules.phenotype)
    return Found(
        np.zeros((sources, 2)),
        np.empty(sources),
        np.empty(sources),
        np.empty(len(rules.derived)),
        np.empty(evidence, np.bool_),
        np.empty(evidence, np.bool_),
        np.empty((evidence, MOST), np.int64),
        np.empty((evidence, 3), np.int64),
        np.empty(signs, np.int64),
        np.empty(phenotypes, np.bool_),
        np.empty(phenotypes, np.int64),
        np.empty(len(rules.assessable_in), np.bool_),
        np.empty(6, np.int64),
        np.empty(len(rules.role), np.bool_),
    )


@compiled_within
def forget(found: Found) -> None:
    """Begin with another resident."""
    found.sums[:] = 0.0
    found.now[:] = np.nan
    found.known[:] = np.nan
    found.satisfied[:] = False
    found.anew[:] = False
    found.times[:, 0] = 0
    found.times[:, 1:] = NEVER
    found.last[:] = NEVER
    found.found[:] = False
    found.day[:] = NEVER
    found.deficits[:] = False
    found.flags[:] = 0
    found.exhausted[:] = False


@compiled_within
def usable(value: float, bounds: Floats) -> bool:
    """Whether an event says something: a number within its plausible range, or no number where none is needed."""
    if np.isnan(value):
        return bool(bounds[2] == 0.0)
    return bool(bounds[0] <= value <= bounds[1])


@compiled_within
def note(concept: int, time: int, value: float, rules: Rules, found: Found, written: Written) -> None:
    """Take in a usable event: write it where it is wanted, and remember what the moment's end needs."""
    role = rules.role[concept]
    if role & WRITTEN:
        write(concept, time, value, written)
    if role & SOURCE:
        add(rules.source[concept], time, value, found.flags, found.sums, found.known)
    if role & (SIGN | DEFICIT) and not found.exhausted[concept]:
        remember(concept, time, value, rules, found)


@compiled_within
def write(concept: int, time: int, value: float, written: Written) -> None:
    """Write a usable event."""
    place = written.place[0]
    written.concept[place], written.time[place], written.value[place] = concept, time, value
    written.place[0] = place + 1


@compiled_within
def remember(concept: int, time: int, value: float, rules: Rules, found: Found) -> None:
    """Remember of an event what rules and the frailty table ask for, and whether its concept can still tell more."""
    exhausted = True
    for row in range(rules.sign_starts[concept], rules.sign_starts[concept + 1]):
        evidence = rules.sign[row, 0]
        if not found.satisfied[evidence] or rules.evidence[evidence, ANEW]:
            if _within(value, rules.limits[row]):
                _see(row, time, rules, found)
            exhausted = exhausted and found.satisfied[evidence] and not rules.evidence[evidence, ANEW]
    for row in range(rules.deficit_starts[concept], rules.deficit_starts[concept + 1]):
        exhausted = _assess(row, value, rules, found) and exhausted
    found.exhausted[concept] = exhausted


@compiled_within
def add(source: int, time: int, value: float, flags: Ints, sums: Floats, known: Floats) -> None:
    """Take in a value of a source; of a birth its time, of what has no value that it is there."""
    if source == BIRTH:
        known[source] = time if time != ALWAYS else np.nan
    else:
        flags[OF_SOURCES] |= 1 << source
        sums[source, 0] += 1.0 if np.isnan(value) else value
        sums[source, 1] += 1.0


@compiled_within
def _within(value: float, limits: Floats) -> bool:
    """Whether a value counts; without limits none is needed."""
    if np.isnan(value):
        return bool(limits[0] == -np.inf and limits[1] == np.inf)
    return bool(limits[0] <= value < limits[1])


@compiled_within
def _assess(row: int, value: float, rules: Rules, found: Found) -> bool:
    """Take in an event of the frailty table; whether its row can tell no more."""
    deficit, kind = rules.deficit[row, 0], rules.deficit[row, 1]
    if found.flags[RECORDED] & kind == 0:
        found.flags[RECORDED] |= kind
        found.flags[OF_DEFICITS] = 1
    if deficit >= 0 and not found.deficits[deficit] and _within(value, rules.deficit_limits[row]):
        found.deficits[deficit] = True
        found.flags[OF_DEFICITS] = 1
    return bool(deficit < 0 or found.deficits[deficit])


@compiled_within
def _see(row: int, time: int, rules: Rules, found: Found) -> None:
    """Take in a sign, and say whether its evidence is satisfied now."""
    evidence, distinct, beside = rules.sign[row, 0], rules.sign[row, 1], rules.sign[row, 2]
    rule = rules.evidence[evidence]
    day = NEVER if time == ALWAYS else (time + rules.zone_offset) // DAY
    satisfied = False
    if rule[BESIDE]:
        found.times[evidence, 1 + beside] = day
        satisfied = day != NEVER and found.times[evidence, 1] == found.times[evidence, 2]
    elif rule[DISTINCT]:
        last = found.last[rule[FIRST_SIGN] + distinct]
        found.last[rule[FIRST_SIGN] + distinct] = time
        # Where the sign still counted, there are no more of them than before.
        still = last == ALWAYS or (last != NEVER and time - last <= rule[WITHIN])
        satisfied = not still and _distinct(evidence, time, rules, found) >= rule[TIMES]
    else:
        satisfied = rule[TIMES] == 1 or (time != ALWAYS and _again(evidence, time, day, rule, found))
    if satisfied:
        found.satisfied[evidence], found.anew[evidence] = True, True
        found.flags[OF_EVIDENCE] = 1


@compiled_within
def _distinct(evidence: int, time: int, rules: Rules, found: Found) -> int:
    """Count the distinct signs seen within the evidence's length of time; one without a time counts always."""
    first, within = rules.evidence[evidence, FIRST_SIGN], rules.evidence[evidence, WITHIN]
    stop = rules.evidence[evidence + 1, FIRST_SIGN] if evidence + 1 < len(rules.evidence) else len(found.last)
    signs = 0
    for sign in range(first, stop):
        last = found.last[sign]
        signs += last == ALWAYS or (last != NEVER and (time == ALWAYS or time - last <= within))
    return signs


@compiled_within
def _again(evidence: int, time: int, day: int, rule: Ints, found: Found) -> bool:
    """Count a day with a sign, unless it follows too soon; whether there are enough within the length of time."""
    counted, latest = found.times[evidence, 0], found.times[evidence, 2]
    too_soon = counted > 0 and (time - latest < rule[APART] if rule[APART] else found.times[evidence, 1] == day)
    if too_soon:
        return False
    found.counted[evidence, counted % MOST] = time
    found.times[evidence, 0], found.times[evidence, 1], found.times[evidence, 2] = counted + 1, day, time
    if counted + 1 < rule[TIMES]:
        return False
    return bool(time - found.counted[evidence, (counted + 1 - rule[TIMES]) % MOST] <= rule[WITHIN])


@compiled_within
def close(time: int, rules: Rules, found: Found, written: Written) -> None:
    """End a moment: add what its events, and those before, say together."""
    if found.flags[OF_SOURCES]:
        _derive(time, rules, found, written)
    # What is found may be a deficit, and the deficits may be a finding.
    while found.flags[OF_EVIDENCE] or found.flags[OF_DEFICITS]:
        if found.flags[OF_EVIDENCE]:
            _find(time, rules, found, written)
        if found.flags[OF_DEFICITS]:
            _tally(time, rules, found, written)


@compiled_within
def _derive(time: int, rules: Rules, found: Found, written: Written) -> None:
    touched = found.flags[OF_SOURCES]
    found.flags[OF_SOURCES] = 0
    for source in range(len(found.sums)):
        if touched >> source & 1:
            found.now[source] = found.sums[source, 0] / found.sums[source, 1]
            found.known[source] = found.now[source]
            found.sums[source, 0] = found.sums[source, 1] = 0.0
    if derive(found.now, found.known, time, found.result):
        for each in range(len(rules.derived)):
            concept, value = rules.derived[each], float(np.float32(found.result[each]))
            if concept >= 0 and not np.isnan(value) and usable(value, rules.bounds[concept]):
                note(concept, time, value, rules, found, written)
    for source in range(len(found.sums)):
        found.now[source] = np.nan


@compiled_within
def _find(time: int, rules: Rules, found: Found, written: Written) -> None:
    """Add the phenotypes that are satisfied now; those that rest on others come after them."""
    found.flags[OF_EVIDENCE] = 0
    day = (time + rules.zone_offset) // DAY if time != ALWAYS else ALWAYS
    for phenotype in range(len(rules.phenotype)):
        concept, recurrent = rules.phenotype[phenotype, 0], rules.phenotype[phenotype, 1]
        if found.found[phenotype] and (not recurrent or found.day[phenotype] == day):
            continue
        for evidence in range(rules.evidence_starts[phenotype], rules.evidence_starts[phenotype + 1]):
            holds = found.anew[evidence] if recurrent else found.satisfied[evidence]
            if holds and _given(evidence, rules, found):
                found.found[phenotype], found.day[phenotype] = True, day
                note(concept, time, np.nan, rules, found, written)
                break
    found.anew[:] = False
    found.flags[OF_EVIDENCE] = 0


@compiled_within
def _given(evidence: int, rules: Rules, found: Found) -> bool:
    """Whether all phenotypes that an evidence asks for have been found."""
    for each in range(rules.given_starts[evidence], rules.given_starts[evidence + 1]):
        if not found.found[rules.given[each]]:
            return False
    return True


@compiled_within
def _tally(time: int, rules: Rules, found: Found, written: Written) -> None:
    """Add the number of deficits, of those that the kinds of record seen could show, and the index."""
    found.flags[OF_DEFICITS] = 0
    deficits = assessable = 0
    for deficit in range(len(found.deficits)):
        deficits += found.deficits[deficit]
        assessable += found.deficits[deficit] or found.flags[RECORDED] & rules.assessable_in[deficit] != 0
    changed = deficits != found.flags[DEFICITS_TOLD] or assessable != found.flags[ASSESSABLE_TOLD]
    found.flags[DEFICITS_TOLD], found.flags[ASSESSABLE_TOLD] = deficits, assessable
    if changed:
        note(rules.tally[0], time, float(deficits), rules, found, written)
        note(rules.tally[1], time, float(assessable), rules, found, written)
        note(rules.tally[2], time, float(np.float32(deficits / len(found.deficits))), rules, found, written)
