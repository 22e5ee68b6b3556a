"""The charts of the report: Vega-Lite specifications, drawn as SVG without a browser or a network.

They are as wide as a telephone shows; the page enlarges them where there is room.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.quality.charts import CELL_HEIGHT, INK, Spec, drawn
from features.quality.words import columns
from training.report.drivers import Drivers
from training.report.words import Words
from training.validate import CalibrationCurve, DecisionCurve, Estimate, SmoothCalibration

Floats = NDArray[np.float64]
Row = dict[str, Any]

WIDTH, HEIGHT = 280, 250
MODEL, REFERENCE, WARNING, FAINT = "#1f5fa8", "#7b8794", "#b3261e", "#c9d3df"
# Told apart without seeing colours, too: by their dashes.
LINES = ("#1f5fa8", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be185d", "#4d7c0f", "#475569")
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [1, 3], [10, 4], [3, 3, 1, 3])
LOW, HIGH = "#1e88e5", "#d81b60"
BINS = 40
SWARM_ROWS, SWARM_FEATURES = 300, 12
SWARM_HEIGHT, DOT = 26, 2.4
SLOTS = 90
# A feature with no more values than this is drawn with its dots spread, and a tick at each value.
FEW_VALUES = 6
# Labels up to this many columns stand beside a chart; longer ones are cut.
LONGEST_LABEL = 27
LETTER = 6.2


@dataclass(frozen=True)
class Dot:
    """An estimate with its interval, on a line of its own; a `summary` stands out."""

    label: str
    figure: Estimate
    summary: bool = False


def svg(spec: Spec, stamp: str = "") -> str:
    """Draw a chart to stand within a page; a stamp is written across it.

    Numbers keep two decimals: nobody sees more, and the page is half as long.
    """
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawn(spec))
    text = re.sub(r"(\.\d\d)\d+", r"\1", text)
    return text.replace("</svg>", f"{_stamp(text, stamp)}</svg>") if stamp else text


def calibration(
    smooth: SmoothCalibration,
    groups: CalibrationCurve,
    interval: tuple[Floats, Floats],
    outcome: Floats,
    risk: Floats,
    words: Words,
) -> Spec:
    """Draw the smooth calibration curve and groups of rising risk, above the distribution of the risks."""
    top = max([*_finite(interval[1]), *_finite(smooth.upper), float(np.quantile(risk, 0.999))])
    end = min(1.0, 1.04 * top)
    axis = {"format": ".0%", "tickCount": 5}
    x = {"field": "risk", "type": "quantitative", "scale": {"domain": [0, end], "nice": False}}
    y = {"type": "quantitative", "scale": {"domain": [0, end], "nice": False}, "axis": axis | {"minExtent": 40}}
    main: Spec = {
        "width": WIDTH,
        "height": HEIGHT,
        "layer": [
            _diagonal(end, x | {"axis": axis | {"labels": False}, "title": None}, y),
            *_curve(smooth, x, y),
            *_points(groups, interval, x, y | {"title": words("calibration.observed")}),
        ],
    }
    predicted = x | {"field": "from", "axis": axis, "title": words("calibration.predicted")}
    below = {"field": "low", "type": "quantitative", "title": words("calibration.rows")}
    shade = {"field": "outcome", "type": "nominal", "scale": {"domain": [0, 1], "range": [FAINT, WARNING]}}
    bars: Spec = {
        "width": WIDTH,
        "height": 70,
        "data": {"values": list(_histogram(outcome, risk, end))},
        "mark": {"type": "rect", "aria": False},
        "encoding": {
            "x": predicted,
            "x2": {"field": "to"},
            "y": below | {"axis": {"tickCount": 2, "minExtent": 40}},
            "y2": {"field": "high"},
            "color": shade | {"legend": None},
        },
    }
    return {"vconcat": [main, bars], "spacing": 8}


def decision(curve: DecisionCurve, names: dict[str, str], tiers: Sequence[float], words: Words) -> Spec:
    """Draw the net benefit of several risks; `names` are their titles, that of the model first."""
    lowest = -0.25 * max(curve.prevalence, 0.01)
    lines = {title: curve.net_benefit[name] for name, title in names.items()}
    lines |= {words("decision.all"): curve.treat_all, words("decision.none"): np.zeros(curve.thresholds.size)}
    rows = [
        {"threshold": at, "benefit": benefit, "line": title}
        for title, values in lines.items()
        for at, benefit in zip(curve.thresholds.tolist(), values.tolist(), strict=True)
        if benefit >= lowest
    ]
    colours = [*_around(LINES, len(names)), REFERENCE, INK]
    dashes = [*_around(DASHES, len(names)), [2, 2], [1, 0]]
    legend = {"orient": "bottom", "columns": 1, "symbolSize": 300, "labelLimit": WIDTH}
    line = {"field": "line", "type": "nominal", "sort": list(lines), "legend": legend}
    x = _quantity("threshold", words("decision.threshold"), {"format": ".0%", "tickCount": 5})
    y = _quantity("benefit", words("decision.net_benefit"), {"tickCount": 5})
    model = next(iter(names))
    band = [
        {"threshold": at, "lower": max(low, lowest), "upper": max(high, lowest)}
        for at, low, high in zip(
            *(part.tolist() for part in (curve.thresholds, curve.lower[model], curve.upper[model])), strict=True
        )
        if math.isfinite(low + high)
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "layer": [
            {
                "data": {"values": band},
                "mark": {"type": "area", "opacity": 0.18, "color": MODEL},
                "encoding": {"x": x, "y": _quantity("lower", None), "y2": {"field": "upper"}},
            },
            {
                "data": {"values": [{"threshold": tier} for tier in tiers if tier <= curve.thresholds[-1]]},
                "mark": {"type": "rule", "strokeDash": [1, 3], "color": INK},
                "encoding": {"x": x},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": line | {"scale": {"domain": list(lines), "range": colours}},
                    "strokeDash": line | {"scale": {"domain": list(lines), "range": dashes}},
                },
            },
        ],
    }


def dots(rows: Sequence[Dot], title: str, reference: float, prediction: tuple[float, float] | None = None) -> Spec:
    """Draw estimates with their intervals below each other, a line where they should lie, and where a new one may."""
    shown = [row for row in rows if math.isfinite(row.figure.estimate)]
    values = [
        {"label": _short(row.label), **_ends(row.figure), "colour": WARNING if row.summary else MODEL} for row in shown
    ]
    labels = [row["label"] for row in values]
    x = _quantity("estimate", title, {"tickCount": 4}) | {"scale": {"zero": False, "nice": True}}
    axis = {"labelLimit": 400, "minExtent": LETTER * max(map(columns, labels), default=0), "grid": False}
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": axis}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    layers: list[Spec] = [
        {"data": {"values": [{"at": reference}]}, "mark": _rule(), "encoding": {"x": _quantity("at", title)}},
        {
            "mark": {"type": "rule", "aria": False},
            "encoding": {"x": _quantity("lower", title), "x2": {"field": "upper"}},
        },
        {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1, "aria": False}, "encoding": {"x": x}},
    ]
    for layer in layers[1:]:
        layer["encoding"] |= {"y": y, "color": colour}
    if prediction:
        layers.insert(0, _shaded(prediction, title))
    return {
        "data": {"values": values},
        "width": WIDTH - 80,
        "height": {"step": CELL_HEIGHT},
        "layer": layers,
        "resolve": {"scale": {"x": "shared"}},
    }


def swarm(drivers: Drivers, words: Words) -> Spec:
    """Draw each feature's changes of risk for a sample of rows, the strongest features first."""
    places = drivers.strongest[:SWARM_FEATURES]
    names = [words.feature(drivers.features[place]) for place in places]
    rows = [
        row | {"feature": name}
        for place, name in zip(places, names, strict=True)
        for row in _swarmed(drivers.change[:SWARM_ROWS, place], drivers.value[:SWARM_ROWS, place])
    ]
    size = float(np.abs(drivers.change[:SWARM_ROWS, places]).max(initial=0.1))
    scale = {"domain": [0, 1], "range": [LOW, HIGH]}
    legend = {"title": words("drivers.value"), "values": [0, 1], "orient": "bottom", "gradientLength": 120}
    legend["labelExpr"] = f"datum.value < 0.5 ? '{words('drivers.low')}' : '{words('drivers.high')}'"
    colour = {"field": "rank", "type": "quantitative", "scale": scale, "legend": legend}
    one: Spec = {
        "width": WIDTH + 30,
        "height": SWARM_HEIGHT,
        "layer": [
            {
                "data": {"values": [{"at": 0}]},
                "mark": _rule(),
                "encoding": {"x": _quantity("at", words("drivers.points"))},
            },
            {
                "mark": {"type": "circle", "size": DOT * 5, "opacity": 0.75, "aria": False},
                "encoding": {
                    "x": _quantity("change", words("drivers.points"), {"tickCount": 6})
                    | {"scale": {"domain": [-size, size], "nice": True}},
                    "y": _quantity("off", None, None) | {"scale": {"domain": [-1, 1]}},
                    "color": {"condition": {"test": "datum.rank === null", "value": "#9aa5b1"}, **colour},
                },
            },
        ],
    }
    header = {"labelOrient": "top", "labelAnchor": "start", "labelAngle": 0, "labelPadding": 1}
    header |= {"labelFontWeight": "normal", "labelLimit": WIDTH + 40}
    facet = {"field": "feature", "type": "nominal", "sort": names, "header": header}
    return {"data": {"values": rows}, "facet": {"row": facet}, "spec": one, "spacing": 4}


def dependence(drivers: Drivers, place: int, words: Words, seed: int = 0) -> Spec:
    """Draw the change of risk against the value of one feature, a dot a row in which it is known."""
    value, change = drivers.value[:SWARM_ROWS, place], drivers.change[:SWARM_ROWS, place]
    known = ~np.isnan(value)
    few = np.unique(value[known]).size <= FEW_VALUES
    spread = np.random.default_rng(seed).uniform(-0.12, 0.12, int(known.sum())) if few else 0.0
    name = drivers.features[place]
    unit = words.unit(name)
    rows = [
        {"value": at, "change": points}
        for at, points in zip((value[known] + spread).tolist(), change[known].tolist(), strict=True)
    ]
    title = f"{_short(words.feature(name), 40)}{f' ({unit})' if unit else ''}"
    ticks: Spec = {"values": np.unique(value[known]).tolist()} if few else {"tickCount": 5}
    x = _quantity("value", title, ticks) | {"scale": {"zero": False, "nice": not few}}
    return {
        "data": {"values": rows},
        "width": WIDTH - 20,
        "height": 150,
        "layer": [
            {"data": {"values": [{"at": 0}]}, "mark": _rule(), "encoding": {"y": _quantity("at", None)}},
            {
                "mark": {"type": "circle", "size": 12, "opacity": 0.6, "color": MODEL, "aria": False},
                "encoding": {"x": x, "y": _quantity("change", words("drivers.points"), {"tickCount": 5})},
            },
        ],
    }


def learning(persons: Sequence[int], auroc: Sequence[Estimate], title: str, words: Words) -> Spec:
    """Draw the AUROC by the number of residents learnt from."""
    rows = [{"persons": number, **_ends(figure)} for number, figure in zip(persons, auroc, strict=True)]
    scale = {"scale": {"type": "log", "nice": False}, "axis": {"values": list(persons), "format": ",d"}}
    x = {"field": "persons", "type": "quantitative", "title": words("learning.persons"), **scale}
    y = {"scale": {"zero": False}}
    return {
        "data": {"values": rows},
        "width": WIDTH,
        "height": 150,
        "layer": [
            {
                "mark": {"type": "rule", "color": MODEL},
                "encoding": {"x": x, "y": _quantity("lower", title) | y, "y2": {"field": "upper"}},
            },
            {
                "mark": {"type": "line", "point": {"filled": True, "size": 40}, "color": MODEL},
                "encoding": {"x": x, "y": _quantity("estimate", title) | y},
            },
        ],
    }


def _diagonal(end: float, x: Spec, y: Spec) -> Spec:
    values = [{"risk": 0, "observed": 0}, {"risk": end, "observed": end}]
    mark = {"type": "line", "strokeDash": [5, 4], "color": REFERENCE, "strokeWidth": 1.2}
    return {"data": {"values": values}, "mark": mark, "encoding": {"x": x, "y": y | {"field": "observed"}}}


def _curve(smooth: SmoothCalibration, x: Spec, y: Spec) -> Iterator[Spec]:
    parts = (smooth.risk, smooth.observed, smooth.lower, smooth.upper)
    names = ("risk", "observed", "lower", "upper")
    rows = [dict(zip(names, map(float, row), strict=True)) for row in zip(*parts, strict=True)]
    whole = {"data": {"values": [row for row in rows if all(map(math.isfinite, row.values()))]}}
    band = {"x": x, "y": y | {"field": "lower"}, "y2": {"field": "upper"}}
    yield whole | {"mark": {"type": "area", "color": MODEL, "opacity": 0.18}, "encoding": band}
    line = {"x": x, "y": y | {"field": "observed"}}
    yield whole | {"mark": {"type": "line", "color": MODEL, "strokeWidth": 2}, "encoding": line}


def _points(groups: CalibrationCurve, interval: tuple[Floats, Floats], x: Spec, y: Spec) -> Iterator[Spec]:
    names = ("risk", "observed", "lower", "upper")
    parts = (groups.risk, groups.observed, *interval)
    rows = {"data": {"values": [dict(zip(names, map(float, row), strict=True)) for row in zip(*parts, strict=True)]}}
    bars = {"x": x, "y": y | {"field": "lower"}, "y2": {"field": "upper"}}
    yield rows | {"mark": {"type": "rule", "color": INK}, "encoding": bars}
    point = {"type": "point", "filled": True, "size": 36, "color": INK, "opacity": 1}
    yield rows | {"mark": point, "encoding": {"x": x, "y": y | {"field": "observed"}}}


def _histogram(outcome: Floats, risk: Floats, end: float) -> Iterator[Row]:
    """Yield how many rows have which risk, those with the outcome below the others; the last bar holds all above."""
    edges = np.linspace(0, end, BINS + 1)
    base = np.zeros(BINS, np.int64)
    for had in (1, 0):
        counted, _ = np.histogram(np.minimum(risk[outcome == had], end), edges)
        top = base + counted
        for place in np.flatnonzero(counted).tolist():
            ends = {"from": float(edges[place]), "to": float(edges[place + 1])}
            yield {**ends, "low": int(base[place]), "high": int(top[place]), "outcome": had}
        base = top


def _swarmed(change: Floats, value: Floats) -> Iterator[Row]:
    """Yield a feature's dots: where many have nearly the same change, they stand beside each other."""
    known = ~np.isnan(value)
    rank = np.full(value.size, np.nan)
    if known.any():
        ordered = np.sort(value[known])
        middle = (np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")) / 2
        rank = np.where(known, middle / max(ordered.size, 1), np.nan)
    size = float(np.abs(change).max(initial=0.0)) or 1.0
    slot = np.round(change / size * SLOTS)
    for each in np.unique(slot):
        here = np.flatnonzero(slot == each)
        offsets = _spread(here.size)
        for place, off in zip(here[np.argsort(rank[here], kind="stable")].tolist(), offsets, strict=True):
            told = None if math.isnan(rank[place]) else round(float(rank[place]), 3)
            yield {"change": float(change[place]), "off": off, "rank": told}


def _spread(dots_here: int) -> list[float]:
    """Return offsets from the middle line, at most 1, in order."""
    step = min(0.16, 1.8 / max(dots_here - 1, 1))
    return [step * (place - (dots_here - 1) / 2) for place in range(dots_here)]


def _ends(figure: Estimate) -> Row:
    """Return an estimate and its interval; without one, the estimate stands for both ends."""
    ends = {"lower": figure.lower, "upper": figure.upper}
    return {
        "estimate": figure.estimate,
        **{name: end if math.isfinite(end) else figure.estimate for name, end in ends.items()},
    }


def _shaded(prediction: tuple[float, float], title: str) -> Spec:
    low, high = prediction
    mark = {"type": "rect", "color": WARNING, "opacity": 0.1}
    encoding = {"x": _quantity("low", title), "x2": {"field": "high"}}
    return {"data": {"values": [{"low": low, "high": high}]}, "mark": mark, "encoding": encoding}


def _quantity(name: str, title: str | None, axis: Spec | None = {}) -> Spec:  # noqa: B006
    return {"field": name, "type": "quantitative", "title": title, "axis": axis}


def _rule() -> Spec:
    return {"type": "rule", "strokeDash": [4, 3], "color": REFERENCE}


def _around(values: Sequence[Any], number: int) -> list[Any]:
    return [values[place % len(values)] for place in range(number)]


def _finite(values: Floats) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _short(label: str, longest: int = LONGEST_LABEL) -> str:
    """Return a label cut to so many columns."""
    if columns(label) <= longest:
        return label
    cut = label
    while columns(cut) > longest - 1:
        cut = cut[:-1]
    return f"{cut.rstrip()}…"


def _stamp(text: str, stamp: str) -> str:
    """Return what is written across a chart, as large as it is wide."""
    width, height = (float(number) for number in re.findall(r'(?:width|height)="([\d.]+)"', text)[:2])
    size = min(1.2 * width / max(columns(stamp), 1), height / 3)
    middle = f"{width / 2:.0f} {height / 2:.0f}"
    return (
        f'<text transform="translate({middle}) rotate(-20)" text-anchor="middle" font-size="{size:.0f}"'
        f' font-weight="bold" fill="{WARNING}" fill-opacity="0.2">{escape(stamp)}</text>'
    )
