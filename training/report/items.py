"""What each item of TRIPOD+AI says of a run: the sentences of `words.csv`, and where a sentence is not enough, more."""

from collections.abc import Callable, Iterator, Mapping

from training.report import discussion, performance, reasons, residents, specification
from training.report.blocks import Block, Item, Section, Table, Text
from training.report.run import Run
from training.report.words import table
from training.rivals import LOGISTIC, Rival
from training.validate import Validation

# Of the features that were left out for one reason, so many are named.
NAMED = 8


def sections(run: Run) -> list[Section]:
    """Return the report in the order of TRIPOD+AI, every item with what the run knows and what the county must add."""
    found: dict[str, list[Item]] = {}
    for key, row in table("tripod").items():
        item = Item(key, row["number"], row[run.language], list(_blocks(key, run)))
        found.setdefault(row["section"], []).append(item)
    return [Section(key, run.words(f"section.{key}"), items) for key, items in found.items()]


def _blocks(key: str, run: Run) -> Iterator[Block]:
    if key in MORE:
        yield from MORE[key](run)
    else:
        yield from map(Text, run.all_said(key))
    if key in run.notes:
        yield Text(run.notes[key])
    elif run.words.has(f"fill.{key}"):
        yield Text(run.said(f"fill.{key}"), "fill")


def _context(run: Run) -> Iterator[Block]:
    yield Text(run.said("item.3a.again" if run.target.recurrent else "item.3a.first"))
    titles = [run.rival(rival) for rival in run.evidence.rivals if is_published(rival)]
    if titles:
        yield Text(run.said("item.3a.rivals", rivals=run.words("separator").join(titles)))
    else:
        yield Text(run.said("item.3a.none"))


def _inequalities(run: Run) -> Iterator[Block]:
    yield Text(run.said("item.3c.groups" if run.groups.columns else "item.3c.none"))


def _sources(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("5a"))
    if run.card.synthetic:
        yield Text(run.said("item.5a.synthetic"), "alarm")


def _dates(run: Run) -> Iterator[Block]:
    yield Text(run.said("item.5b.relative" if run.relative else "item.5b.dates"))


def _setting(run: Run) -> Iterator[Block]:
    places = run.groups["township"].drop_nulls().n_unique() if "township" in run.groups.columns else 0
    townships = run.words("item.6a.townships", count=places) if places else ""
    yield Text(run.said("item.6a.1", townships=townships))


def _eligibility(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("6b"))
    if not run.relative:
        yield Text(run.said("item.6b.end"))


def _outcome(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("8a"))
    if run.target.recurrent:
        yield Text(run.said("item.8a.recurrent"))
    if run.evidence.sample.weights.truncated:
        yield Text(run.said("item.8a.truncated"))
    if run.measured_outcome:
        yield Text(run.said("item.8a.incorporation", concepts=run.words.concepts(run.measured_outcome)))
    yield from residents.definition(run)


def _choice(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("9a"))
    rows = [[run.words.said(why), str(len(names)), _some(names, run)] for why, names in run.reasons().items()]
    if rows:
        header = [run.words(f"dropped.{column}") for column in ("reason", "count", "which")]
        yield Table(run.words("dropped.caption"), header, rows, worded=True)


def _some(names: list[str], run: Run) -> str:
    shown = run.words("semicolon").join(map(run.words.feature, names[:NAMED]))
    left = len(names) - NAMED
    return shown if left <= 0 else f"{shown} {run.words('and_more', count=left)}"


def _size(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("10"))
    if run.evidence.sample.share < 1:
        yield Text(run.said("item.10.share", share=f"{run.evidence.sample.share:.1%}"))
    yield from residents.learning(run)


def _missing(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("11"))
    if run.card.recipe.partner:
        yield Text(run.said("item.11.partner"))
    yield residents.missing(run)


def _use(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("12a"))
    temporal = run.evidence.temporal
    if isinstance(temporal, Validation):
        yield Text(run.said("item.12a.temporal"))
    else:
        yield Text(run.said("item.12a.temporal_not", reason=run.words.said(temporal)))
    yield Text(run.said("item.12a.clusters", said=_clusters(run)))


def _clusters(run: Run) -> str:
    found = run.evidence.clusters
    if isinstance(found, str):
        return run.words.said(found).rstrip(".。")
    return run.words("clusters.done", grouping=run.grouping(found.grouping), count=len(found.each))


def _handling(run: Run) -> Iterator[Block]:
    directions = list(specification.directions(run).values())
    target, words = run.target, run.words
    if not any(directions):
        yield Text(run.said("item.12b.free"))
        return
    better = words("item.12b.decreasing", concepts=words.concepts(target.decreasing)) if target.decreasing else ""
    yield Text(
        run.said(
            "item.12b.directed",
            rising=directions.count(1),
            falling=directions.count(-1),
            increasing=words.concepts(target.increasing) or words("none"),
            decreasing=better,
        )
    )


def _building(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("12c"))
    if run.evidence.tuned is not None:
        yield Text(run.words.said(run.evidence.tuned.said))


def _heterogeneity(run: Run) -> Iterator[Block]:
    found = run.evidence.clusters
    if isinstance(found, str):
        yield Text(run.said("item.12d.not", reason=run.words.said(found)))
    else:
        said = _clusters(run)
        yield Text(run.said("item.12d.done", said=f"{said[:1].upper()}{said[1:]}"))


def _fairness(run: Run) -> Iterator[Block]:
    if run.sensitive:
        yield Text(run.said("item.14.sensitive", sensitive=run.words.concepts(run.sensitive)), "alarm")
    else:
        yield Text(run.said("item.14.plain"))
    yield from map(Text, run.all_said("14"))


def _output(run: Run) -> Iterator[Block]:
    yield from map(Text, run.all_said("15"))
    source = run.target.tiers_source
    yield Text(run.said("item.15.source", source=source) if source else run.said("item.15.no_source"))


def _next(run: Run) -> Iterator[Block]:
    if run.card.synthetic:
        yield Text(run.said("item.27c.synthetic"))
    yield from map(Text, run.all_said("27c"))


def is_published(rival: Rival) -> bool:
    """Whether a rival is a published score, rather than fitted on the same folds."""
    return rival.name != LOGISTIC


# The items of which a sentence alone cannot tell.
MORE: Mapping[str, Callable[[Run], Iterator[Block]]] = {
    "3a": _context,
    "3c": _inequalities,
    "5a": _sources,
    "5b": _dates,
    "6a": _setting,
    "6b": _eligibility,
    "8a": _outcome,
    "9a": _choice,
    "10": _size,
    "11": _missing,
    "12a": _use,
    "12b": _handling,
    "12c": _building,
    "12d": _heterogeneity,
    "14": _fairness,
    "15": _output,
    "20a": residents.flow,
    "20b": residents.characteristics,
    "21": residents.analyses,
    "22": specification.specification,
    "23a": performance.performance,
    "23b": performance.clusters,
    "drivers": reasons.drivers,
    "alarms": reasons.alarms,
    "25": discussion.interpretation,
    "26": discussion.limitations,
    "27c": _next,
}
