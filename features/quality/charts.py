"""The charts of the page: Vega-Lite specifications, drawn as SVG without a browser or a network."""

from typing import Any

import polars as pl
import vl_convert

from features.quality.survey import TOWNSHIP
from features.quality.values import SUSPECTED
from features.quality.words import SMALLEST_CELL, Words, columns

Spec = dict[str, Any]

VEGA_LITE = "https://vega.github.io/schema/vega-lite/v5.json"
# Nothing of a chart is fetched from anywhere.
NOWHERE: list[str] = []
FONT = "system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
INK, GRID, BAR, ALARM, EMPTY = "#1f2933", "#e4e7eb", "#3d7ea6", "#c2410c", "#f5f7fa"
# From white to the colour of the bars.
SHADES = ["#f2f7fb", "#3d7ea6"]
CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {"labelColor": INK, "titleColor": INK, "gridColor": GRID, "domain": False, "tickColor": GRID},
    "axisX": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"},
    "axisY": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 280},
    "header": {"labelColor": INK, "labelFontSize": 12, "labelFontWeight": "bold", "title": None},
    "legend": {"labelColor": INK, "labelFontSize": 11, "orient": "top", "title": None, "columnPadding": 28},
}
# The width of a letter of the size of axis labels; a Chinese character takes two.
LETTER = 6.2
# As wide as a telephone shows without turning it.
WIDTH = 270
CELL_WIDTH, CELL_HEIGHT = 34, 19
YEARS_SHOWN = 12
CONCEPTS_SHOWN = 36
TOWNSHIPS_SHOWN = 24
BINS_A_DECADE = 20


def drawn(spec: Spec) -> str:
    """Draw a chart as SVG."""
    whole = {"$schema": VEGA_LITE, "config": CONFIG} | spec
    return str(vl_convert.vegalite_to_svg(whole, allowed_base_urls=NOWHERE))


def heat(table: pl.DataFrame, across: str, concepts: list[str], words: Words) -> Spec | None:
    """Draw the share of residents with a usable value: concepts downwards, years or townships across.

    Cells of fewer than ten residents are left empty.
    """
    known = table.drop_nulls(across).filter(pl.col("concept").is_in(concepts))
    places = known[across].unique().sort().to_list()[-YEARS_SHOWN if across == "year" else 0 :][:TOWNSHIPS_SHOWN]
    small = (pl.col("residents") > 0) & (pl.col("residents") < SMALLEST_CELL) | (pl.col("observed") < SMALLEST_CELL)
    cells = known.filter(~small & pl.col(across).is_in(places))
    if not len(cells):
        return None
    rows = [
        {"across": str(row[across]), "down": words.short(row["concept"]), "share": round(row["share"], 4)}
        for row in cells.iter_rows(named=True)
    ]
    order = list(dict.fromkeys(map(words.short, concepts)))
    angle = {"labelAngle": 0} if across == "year" else {"labelAngle": -50, "labelAlign": "left", "labelPadding": 6}
    x = {"field": "across", "type": "ordinal", "sort": [str(place) for place in places], "title": None}
    y = {"field": "down", "type": "nominal", "sort": order, "title": None, "axis": _room(order)}
    shade = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1], "range": SHADES}, "legend": None}
    white = {"condition": {"test": "datum.share > 0.88", "value": "white"}, "value": INK}
    text = {"field": "share", "type": "quantitative", "format": ".0%"}
    return {
        "data": {"values": rows},
        "width": {"step": CELL_WIDTH},
        "height": {"step": CELL_HEIGHT},
        "encoding": {"x": x | {"axis": {"orient": "top", **angle}}, "y": y},
        "layer": [
            {"mark": {"type": "rect", "stroke": "white"}, "encoding": {"color": shade}},
            {"mark": {"type": "text", "fontSize": 10}, "encoding": {"text": text, "color": white}},
        ],
    }


def digits(table: pl.DataFrame, words: Words) -> Spec | None:
    """Draw the shares of the last digits of each pressure, with the tenth that is expected of each."""
    rows = [
        {"pressure": words.concept(row["concept"]), "digit": number, "share": row[f"ends_in_{number}"]}
        for row in table.filter(pl.col("readings") >= SMALLEST_CELL).iter_rows(named=True)
        for number in range(10)
    ]
    if not rows:
        return None
    share = {"field": "share", "type": "quantitative", "axis": {"format": ".0%", "tickCount": 4}, "title": None}
    bar = {
        "x": {"field": "digit", "type": "ordinal", "axis": {"labelAngle": 0}, "title": words("digit")},
        "y": share,
        "color": {"condition": {"test": "datum.digit % 5 == 0", "value": ALARM}, "value": BAR},
    }
    expected = {"mark": {"type": "rule", "strokeDash": [4, 3], "color": INK}, "encoding": {"y": {"datum": 0.1}}}
    layers = {"width": WIDTH, "height": 110, "layer": [{"mark": "bar", "encoding": bar}, expected]}
    return {"data": {"values": rows}, "facet": {"row": _each("pressure", rows)}, "spec": layers}


def digits_of_townships(table: pl.DataFrame, words: Words) -> Spec | None:
    """Draw, by township, the share of readings that end in 0."""
    shown = table.drop_nulls(TOWNSHIP).filter(pl.col("readings") >= SMALLEST_CELL)
    rows = [
        {"pressure": words.concept(row["concept"]), "township": row[TOWNSHIP], "share": row["ends_in_0"]}
        for row in shown.iter_rows(named=True)
    ]
    if not rows:
        return None
    names = [row["township"] for row in rows]
    encoding = {
        "x": {"field": "share", "type": "quantitative", "axis": {"format": ".0%", "tickCount": 4}, "title": None},
        "y": {"field": "township", "type": "nominal", "sort": None, "title": None, "axis": _room(names)},
        "color": {"value": BAR},
    }
    one = {"width": WIDTH - 60, "height": {"step": CELL_HEIGHT}, "mark": "bar", "encoding": encoding}
    return {"data": {"values": rows}, "facet": {"row": _each("pressure", rows)}, "spec": one}


def numbers(table: pl.DataFrame, words: Words) -> Spec | None:
    """Draw how the recorded numbers spread of which some look like another unit, on a logarithmic scale."""
    positive = table.filter(pl.col("number") > 0)
    bins = (pl.col("number").log10() * BINS_A_DECADE).floor()
    summed = positive.group_by("concept", SUSPECTED, bin=bins).agg(pl.col("events").sum())
    marks = {True: words("other_unit"), False: words("stated_unit")}
    rows = [
        {
            "concept": words.concept(row["concept"]),
            "from": 10 ** (row["bin"] / BINS_A_DECADE),
            "to": 10 ** ((row["bin"] + 1) / BINS_A_DECADE),
            "events": row["events"],
            "marks": marks[row[SUSPECTED]],
        }
        for row in summed.filter(pl.col("events") >= SMALLEST_CELL).sort("concept", "bin").iter_rows(named=True)
    ]
    if not rows:
        return None
    ticks = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
    x = {"field": "from", "type": "quantitative", "scale": {"type": "log", "nice": False}, "title": words("number")}
    encoding = {
        "x": x | {"axis": {"values": ticks, "format": "~g", "grid": False, "labelOverlap": True}},
        "x2": {"field": "to"},
        "y": {
            "field": "events",
            "type": "quantitative",
            "axis": {"tickCount": 4},
            "title": words("events"),
            "stack": None,
        },
        "y2": {"datum": 0},
        "color": {
            "field": "marks",
            "type": "nominal",
            "scale": {"domain": [marks[False], marks[True]], "range": [BAR, ALARM]},
        },
    }
    one = {"width": WIDTH, "height": 120, "mark": {"type": "rect", "opacity": 0.85}, "encoding": encoding}
    resolve = {"scale": {"x": "independent", "y": "independent"}}
    return {"data": {"values": rows}, "facet": {"row": _each("concept", rows)}, "spec": one, "resolve": resolve}


def volume(table: pl.DataFrame, words: Words) -> Spec | None:
    """Draw the events of each month."""
    rows = [
        {"month": f"{row['month']}-01", "events": row["events"]}
        for row in table.tail(YEARS_SHOWN * 12).iter_rows(named=True)
        if row["events"] >= SMALLEST_CELL
    ]
    if not rows:
        return None
    encoding = {
        "x": {"field": "month", "type": "temporal", "timeUnit": "yearmonth", "axis": {"format": "%Y"}, "title": None},
        "y": {"field": "events", "type": "quantitative", "axis": {"tickCount": 4, "format": "~s"}, "title": None},
        "color": {"value": BAR},
    }
    return {"data": {"values": rows}, "width": WIDTH, "height": 120, "mark": "bar", "encoding": encoding}


def labels(table: pl.DataFrame, names: list[str], words: Words) -> Spec | None:
    """Draw the occasions of each target's outcomes by year."""
    shown = table.filter(pl.col("of_target") & (pl.col("residents") >= SMALLEST_CELL))
    recent = shown.filter(pl.col("year") > max(shown["year"].to_list(), default=0) - YEARS_SHOWN)
    rows = [
        {"target": words.target(row["label"]), "year": str(row["year"]), "events": row["events"]}
        for name in names
        for row in recent.filter(pl.col("label") == name).iter_rows(named=True)
    ]
    if not rows:
        return None
    encoding = {
        "x": {"field": "year", "type": "ordinal", "axis": {"labelAngle": 0}, "title": None},
        "y": {"field": "events", "type": "quantitative", "axis": {"tickCount": 4}, "title": None},
        "color": {"value": BAR},
    }
    one = {"width": WIDTH, "height": 90, "mark": "bar", "encoding": encoding}
    resolve = {"scale": {"y": "independent"}}
    return {"data": {"values": rows}, "facet": {"row": _each("target", rows)}, "spec": one, "resolve": resolve}


def _room(texts: list[str]) -> Spec:
    """Leave room for the longest text: fonts at hand here may be narrower than the reader's."""
    return {"minExtent": LETTER * max(map(columns, texts))}


def _each(field: str, rows: list[dict[str, Any]]) -> Spec:
    """One chart below the other for each value of a field, in the order of the rows, its name above it."""
    header = {"labelOrient": "top", "labelAnchor": "start", "labelAngle": 0, "labelPadding": 4}
    order = list(dict.fromkeys(row[field] for row in rows))
    return {"field": field, "type": "nominal", "sort": order, "header": header}
