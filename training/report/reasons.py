"""What drives the risks, and whether any of it looks like a leak."""

from collections.abc import Iterator

from training.report import charts
from training.report.blocks import Block, Panel, Picture, Points, Table, Text
from training.report.run import Run

DEPENDENCE_SHOWN = 6
TABLE_SHOWN = 20


def drivers(run: Run) -> Iterator[Block]:
    """Yield what moves the risks: how strongly, in whom, and at which values."""
    yield Text(run.words("drivers.1"))
    yield Text(run.words("drivers.2"))
    yield _swarm(run)
    yield _dependence(run)
    yield _strongest(run)


def _names(run: Run, number: int) -> list[str]:
    return [run.words.feature(run.card.features[place]) for place in run.drivers.strongest[:number]]


def _swarm(run: Run) -> Picture:
    words = run.words
    caption = words("drivers.beeswarm", rows=min(charts.SWARM_ROWS, len(run.drivers.value)))
    alt = words("drivers.beeswarm_alt", strongest=words("semicolon").join(_names(run, 3)))
    drawn = run.svg(charts.swarm(run.drivers, words))
    return Picture(caption, [Panel("", drawn)], alt, words("drivers.note"))


def _dependence(run: Run) -> Picture:
    words = run.words
    places = run.drivers.strongest[:DEPENDENCE_SHOWN].tolist()
    panels = [
        Panel(words.feature(run.card.features[place]), run.svg(charts.dependence(run.drivers, place, words)))
        for place in places
    ]
    alt = words("drivers.dependence_alt", features=words("semicolon").join(_names(run, len(places))))
    return Picture(words("drivers.dependence"), panels, alt, words("drivers.dependence_note"))


def _strongest(run: Run) -> Table:
    header = [run.words(f"drivers.{column}") for column in ("feature", "mean", "share")]
    change, share = run.drivers.mean_change, run.drivers.share
    rows = [
        [run.words.feature(run.card.features[place]), f"{change[place]:.2f}", f"{share[place]:.1%}"]
        for place in run.drivers.strongest[:TABLE_SHOWN].tolist()
    ]
    return Table(run.words("drivers.table"), header, rows)


def alarms(run: Run) -> Iterator[Block]:
    """Yield the leak alarms, or that none rang."""
    rang = run.evidence.alarms
    if not rang:
        yield Text(run.words("alarms.none"))
        return
    yield Text(run.words("alarms.some", count=len(rang)), "alarm")
    yield Points([f"{run.words(f'alarm.{each.kind}')}: {run.words.said(each.message)}" for each in rang])
