"""The page: it needs nothing else, names nobody, and shows no small cell."""

import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from features.cohort import IndexTimes, Target
from features.quality import Quality
from features.quality.page import page
from tests.features.quality_records import TOWNSHIPS, frame, measured, people, quality_of

STROKE = Target("stroke", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("age", "sbp"), label_en="stroke soon")
FALL = Target("fall", ("fall",), "1y", IndexTimes(every="1y"), increasing=("age",))
# Far from any figure that a report could hold.
FAR = 7_310_000


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Quality:
    """A county with faults: units, digits, a township of four residents, three of them dead and visiting."""
    rng = np.random.default_rng(5)
    values = np.where(np.arange(600) % 3 == 1, 0.9, np.round(rng.normal(80, 12, 600)))
    events = [
        people(600, townships=TOWNSHIPS),
        frame({"subject_id": [601, 602, 603, 604], "time": None, "code": "township", "text_value": "Tiny"}),
        measured("creatinine", values),
        measured("sbp", np.round(rng.normal(130, 18, 604), -1)),
        measured("stroke", np.full(7, np.nan)),
        measured("fall", np.full(50, np.nan)),
        frame({"subject_id": [601, 602, 603], "time": measured("sbp", np.ones(3))["time"], "code": "MEDS_DEATH"}),
        measured("sbp", np.full(600, 121.0), start=measured("sbp", np.ones(1))["time"][0].replace(year=2021)),
        frame({"subject_id": [601, 602, 603], "time": [measured("sbp", np.ones(360))["time"][359]] * 3, "code": "dbp"}),
    ]
    moved = pl.concat(events, how="diagonal").with_columns(pl.col("subject_id") + FAR)
    return quality_of(tmp_path_factory.mktemp("planted"), moved, targets=(STROKE, FALL))


@pytest.fixture(scope="module", params=["en", "zh"])
def written(planted, request) -> str:
    return page(planted, request.param)


class Elements(HTMLParser):
    """The elements of a page, and those left open."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    return elements


def test_the_page_is_whole_and_fetches_nothing(written):
    elements = parsed(written)
    assert not elements.open
    assert not elements.addresses
    assert not {"script", "link", "img", "iframe"} & set(elements.names)
    assert "url(" not in written
    assert "@import" not in written


def test_the_page_has_a_chart_of_each_kind(written):
    assert parsed(written).names.count("svg") == 7


def test_no_resident_is_named(written):
    assert not re.search(str(FAR)[:4], written)


def test_counts_below_ten_are_hidden(planted):
    written = page(planted, "en")
    assert "events after death: &lt;10 residents, &lt;10 events" in written
    assert "stroke soon: only &lt;10 of the residents have an outcome" in written
    for table in re.findall(r"<table>.*?</table>", written, re.DOTALL):
        header = re.findall(r"<th scope=.col.>(.*?)</th>", table)
        for cells in re.findall(r"<tr><td>.*?</tr>", table):
            figures = dict(zip(header, re.findall(r"<td>(.*?)</td>", cells), strict=True))
            shown = [figures[name] for name in ("residents", "events", "far out") if name in figures]
            assert not [figure for figure in shown if re.fullmatch("[1-9]", figure)], figures


def test_a_township_of_fewer_than_ten_is_not_in_the_heatmap(planted):
    written = page(planted, "en")
    heatmap = written.split("<h3>Completeness by township")[1].split("</figure>")[0]
    assert "Baita" in heatmap
    assert "Tiny" not in heatmap


def test_the_worst_is_first_and_labels_are_in_the_language(planted):
    english, chinese = page(planted, "en"), page(planted, "zh")
    assert re.search(r'<span class="level wrong">wrong</span><span>creatinine', english)
    assert re.search(r'<span class="level wrong">错误</span><span>血清肌酐', chinese)
    assert '<html lang="zh-CN">' in chinese


def test_a_store_with_hardly_anything_has_a_page_too(tmp_path):
    little = quality_of(tmp_path, people(1), measured("sbp", np.array([121.0])))
    written = page(little)
    assert not parsed(written).open
    assert "<svg" not in written


def test_what_the_records_say_is_text_and_no_markup(tmp_path):
    evil = measured("<script>alert(1)</script>", np.zeros(20))
    written = page(quality_of(tmp_path, people(20, townships=("<b>x</b>",)), evil, measured("sbp", np.full(20, 121.0))))
    assert "script" not in parsed(written).names
    assert "b" not in parsed(written).names
    assert "&lt;script&gt;" in written
