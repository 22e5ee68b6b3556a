"""The report is whole in both languages, says what the evidence says, and fetches nothing."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from string import Formatter

import numpy as np
import pytest

from features.errors import WeibingError
from features.measures import KINDS
from training import report
from training.leaks import Alarm
from training.report.charts import Dot, calibration, dots, svg
from training.report.drivers import change_of_risk
from training.report.page import page, read_notes
from training.report.probast import ANSWERS
from training.report.words import Words, table
from training.train import Trained
from training.validate import METRICS, Estimate, calibration_curve

# Every item of TRIPOD+AI, as its paper numbers them.
TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17"
    " 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
PUNCTUATION = {"separator", "semicolon", "gap", "sentence_end"}
LANGUAGES = pytest.mark.parametrize("language", ["en", "zh"])


class Elements(HTMLParser):
    """What a page is made of, and whether it closes what it opens."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def written(small_trained) -> Callable[..., str]:
    """A page of the small run, or of one that is like it but for some of its evidence; each is made once."""
    made: dict[str, str] = {}

    def of(language: str, **changes: object) -> str:
        key = f"{language} {changes}"
        if key not in made:
            made[key] = page(like(small_trained, **changes), language)
        return made[key]

    return of


def like(trained: Trained, **changes: object) -> Trained:
    card = {name: changes.pop(name) for name in ("synthetic",) if name in changes}
    model = replace(trained.model, card=replace(trained.model.card, **card))
    return replace(trained, model=model, evidence=replace(trained.evidence, **changes))


@LANGUAGES
def test_the_page_is_whole_and_fetches_nothing(written, language):
    text = written(language)
    elements = Elements(text)
    assert not elements.open
    assert not elements.all("script", "link", "img", "iframe", "object", "embed", "form")
    addresses = [value or "" for _, attrs in elements.found for name, value in attrs.items() if "href" in name]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"https?:|url\((?!#)|@import|//[a-z]", text)


@LANGUAGES
def test_every_link_within_the_page_leads_somewhere(written, language):
    elements = Elements(written(language))
    places = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(places) == len(set(places))
    assert {str(attrs["href"])[1:] for attrs in elements.all("a")} <= set(places)


@LANGUAGES
def test_every_item_of_tripod_ai_has_its_number_and_something_to_say(written, language):
    found = re.findall(
        r'<article class="item[^"]*" id="item-\w+">\s*<h3><span class="number">(.+?)</span>.*?'
        r'<div class="body">(.*?)</article>',
        written(language),
        re.DOTALL,
    )
    numbered = {number: re.sub("<[^>]*>", "", body) for number, body in found if number != "+"}
    assert list(numbered) == TRIPOD.split()
    assert all(said.strip() for said in numbered.values())


@LANGUAGES
def test_the_page_can_be_read_by_a_screen_reader(written, language):
    elements = Elements(written(language))
    assert elements.all("html") == [{"lang": {"en": "en", "zh": "zh-CN"}[language]}]
    assert len(elements.all("h1")) == 1
    assert all(attrs.get("scope") in {"col", "row"} for attrs in elements.all("th"))
    assert len(elements.all("table")) == len(elements.all("caption"))
    pictures = [attrs for attrs in elements.all("div") if attrs.get("role") == "img"]
    assert len(pictures) >= 5
    assert all(attrs.get("aria-label") for attrs in pictures)
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize(("language", "stamp"), [("en", "SYNTHETIC DATA"), ("zh", "模拟数据")])
def test_simulated_records_are_stamped_on_the_screen_on_paper_and_on_every_picture(written, language, stamp):
    text = written(language)
    elements = Elements(text)
    assert [attrs["class"] for attrs in elements.all("div") if attrs.get("class") in {"stamp", "watermark"}] == [
        "stamp",
        "watermark",
    ]
    assert f'@top-center {{ content: "{stamp}"' in text
    pictures = text.split("<svg")[1:]
    assert pictures
    assert all(stamp in picture.split("</svg>")[0] for picture in pictures)


@LANGUAGES
def test_real_records_are_not_stamped(written, language):
    text = written(language, synthetic=False)
    assert "SYNTHETIC" not in text
    assert "模拟数据" not in text
    assert 'class="watermark"' not in text


def test_the_figures_on_the_page_are_those_of_the_evidence(written, small_trained):
    text = Elements(written("en")).text
    validation = small_trained.evidence.validation
    assert f"AUROC {validation.metrics['auroc']}" in text
    for name in METRICS:
        form = ".1%" if "_top_" in name else ".3f"
        metric = validation.metrics[name]
        assert f"{metric.estimate:{form}} ({metric.lower:{form}} to {metric.upper:{form}})" in text
    assert f"{validation.events:,} with the outcome, {validation.n - validation.events:,} without" in text
    for auc in small_trained.evidence.over_time.auc:
        assert str(auc) in text
    assert small_trained.model.card.fingerprint in text


def test_every_rival_subgroup_and_feature_is_on_the_page(written, small_trained):
    text = Elements(written("en")).text
    evidence = small_trained.evidence
    for rival in evidence.rivals:
        assert rival.title_en in text
        if rival.difference:
            assert f"{rival.difference.estimate:+.3f} ({rival.difference.lower:+.3f} to" in text
    for each in evidence.subgroups:
        assert each.value in text
        if each.metrics:
            assert str(each.metrics["observed_to_expected"]) in text
    for name in small_trained.model.card.features:
        assert f" {name} " in text


def test_the_flow_adds_up(written, small_trained):
    """What is left after each reason is what there was less what it took."""
    flow = small_trained.evidence.cohort.flow
    out = sum(number for reason, number in flow.items() if reason not in ("candidates", "at risk"))
    left = flow["candidates"] - out
    assert left == len(small_trained.evidence.sample.person)
    text = Elements(written("en")).text
    assert f"{left:,} remain" in text
    assert f"{left:,} index times at risk" in text


def test_an_alarm_is_told_and_forbids_the_use(written):
    rang = (
        Alarm("alone", "hba1c_latest", "hba1c_latest alone reaches an AUROC of 0.973, above 0.90: it leaks.", 0.973),
    )
    text = Elements(written("en", alarms=rang, synthetic=False)).text
    assert "hba1c_latest alone reaches an AUROC of 0.973" in text
    assert "Not yet." in text
    assert "Leak alarms rang" in text
    assert "Not yet." not in Elements(written("en", alarms=rang)).text


def test_a_model_of_simulated_records_may_not_be_used(written):
    text = Elements(written("en")).text
    assert "May it be used? No. It was trained on simulated records." in text


def test_what_could_not_be_validated_is_a_limitation(written):
    text = Elements(
        written("en", temporal="These records have no calendar dates.", clusters="There is 1 township.")
    ).text
    assert "Not validated on later dates: These records have no calendar dates." in text
    assert "Not validated by leaving clusters out: There is 1 township." in text
    assert "4.9 Was the model measured on data other than those it was made of? no" in text


def test_features_that_repeat_others_are_told_in_one_row(written):
    twins = {"sbp_max_2y": "the same as sbp_latest in every row", "dbp_max_2y": "the same as dbp_latest in every row"}
    assert written("en", dropped=twins).count("the same as another feature in every row") == 1
    assert "与另一特征逐行相同" in written("zh", dropped=twins)


def test_an_item_that_a_program_cannot_know_is_left_to_the_county(written, small_trained):
    assert "To be filled in by the county: the ethics committee" in Elements(written("en")).text
    assert "由县级填写： 伦理委员会名称" in Elements(written("zh")).text
    told = Elements(page(small_trained, "en", {"17": "Approved by the county, 2026-3 <b>"})).text
    assert "Approved by the county, 2026-3 <b>" in told
    assert "the ethics committee, its decision" not in told


def test_notes_of_a_county_are_read_from_toml(tmp_path):
    file = tmp_path / "notes.toml"
    file.write_text('17 = "Approved."\n18a = "None."\n', encoding="utf-8")
    assert read_notes(file) == {"17": "Approved.", "18a": "None."}


@pytest.mark.parametrize(
    ("content", "said"),
    [('28 = "x"', '"28" is no item'), ("17 = 3", "in quotes"), ("17", "not TOML")],
)
def test_wrong_notes_are_refused_with_their_place(tmp_path, content, said):
    file = tmp_path / "notes.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(WeibingError, match=said) as refused:
        read_notes(file)
    assert str(file) in str(refused.value)


def test_a_language_that_nobody_wrote_is_refused(small_trained):
    with pytest.raises(WeibingError, match='no language "fr"'):
        page(small_trained, "fr")


def test_chinese_pages_leave_no_english_sentence_of_the_report_itself(written):
    """Names of features, papers and townships may be English; the report's own words may not."""
    chinese = Elements(written("zh")).text
    english = [row["en"] for row in table("words").values() if len(row["en"].split()) > 4 and "{" not in row["en"]]
    assert len(english) > 100
    assert [sentence for sentence in english if sentence in chinese] == []
    for reason in ("never known", "not yet or no longer", "always the same"):
        assert reason not in chinese


@pytest.mark.parametrize("name", ["words", "tripod", "probast", "units"])
def test_both_languages_say_the_same_figures(name):
    for key, row in table(name).items():
        fields = [{field for _, field, _, _ in Formatter().parse(row[language]) if field} for language in ("en", "zh")]
        if name == "units" or key in PUNCTUATION:
            continue
        assert row["en"].strip(), key
        assert row["zh"].strip(), key
        # A Chinese sentence may leave out what an English part of it already says.
        assert fields[1] - fields[0] <= {"figure", "low", "high", "lowest", "highest"}, key
        assert fields[0] - fields[1] <= {"said"}, key


def test_every_sentence_that_another_part_says_fills_its_figures():
    for row in table("said").values():
        groups = re.compile(row["key"]).groups
        for language in ("en", "zh"):
            places = [int(field) for _, field, _, _ in Formatter().parse(row[language]) if field]
            assert all(place < groups for place in places), row["key"]


def test_every_question_of_probast_has_an_answer():
    assert list(table("probast")) == list(ANSWERS)


@pytest.mark.parametrize(
    ("sentence", "english", "chinese"),
    [
        ("age not at least 18", "under 18 years of age", "不满18岁"),
        ("with hypertension", "with hypertension", "已有高血压"),
        ("latest sbp not below 140", "latest systolic blood pressure at least 140", "最近一次收缩压不低于140"),
        ("less than 5y before the records end", "less than 5 years before the records end", "距档案终点不足5年"),
        ("Nobody wrote this one.", "Nobody wrote this one.", "Nobody wrote this one."),
    ],
)
def test_reasons_are_told_in_the_words_of_the_vocabulary(sentence, english, chinese):
    assert Words("en").said(sentence) == english
    assert Words("zh").said(sentence) == chinese


@pytest.mark.parametrize(
    ("feature", "english", "chinese"),
    [
        ("sbp_mean_1y", "systolic blood pressure, mean, 1 year", "收缩压，平均，近1年"),
        ("county_clinic_distance", "county clinic distance", "county clinic distance"),
    ],
)
def test_a_feature_is_named_as_one_says_it(feature, english, chinese):
    assert (Words("en").feature(feature), Words("zh").feature(feature)) == (english, chinese)


def test_an_outcome_is_explained_down_to_the_values_its_rule_looks_at():
    lines = Words("en").rule("hypertension_found")
    assert any("systolic blood pressure ≥ 140 mmHg or diastolic blood pressure ≥ 90 mmHg" in line for line in lines)
    assert any("on 3 different days, within 1 year" in line for line in lines)
    assert any("（3个不同日期），1年之内" in line for line in Words("zh").rule("hypertension_found"))


def test_a_contribution_becomes_the_risk_that_would_be_missing_without_it():
    """expit(0) − expit(−1) = 0.5 − 0.2689; expit(−2) − expit(−2 + 0.5) = 0.1192 − 0.1824."""
    changed = change_of_risk(np.array([0.0, -2.0]), np.array([[1.0], [-0.5]]))
    assert changed[:, 0] == pytest.approx([23.106, -6.322], abs=1e-3)


def test_a_cell_of_fewer_than_ten_residents_is_not_shown(written, small_trained):
    few = replace(small_trained.evidence.subgroups[0], value="hermits", n=7, residents=7, events=3, metrics=None)
    few = replace(few, reason="fewer than 10 residents")
    text = Elements(written("en", subgroups=(*small_trained.evidence.subgroups, few))).text
    row = text[text.index("hermits (fewer than 10 residents)") :][:80]
    assert row.count("<10") == 3
    assert "7" not in row.split("–")[0].replace("10", "")


def test_a_chart_draws_no_dot_for_what_is_not_defined():
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    drawn = dots([Dot("women", Estimate(0.7, 0.6, 0.8)), Dot("men", nothing)], "AUROC", 0.7)
    assert [row["label"] for row in drawn["data"]["values"]] == ["women"]
    assert "men" not in svg(drawn).replace("women", "")


def test_the_histogram_below_the_calibration_curve_counts_every_row_once(small_trained):
    rows, risk = small_trained.evidence.rows, small_trained.evidence.grown.risk
    outcome, risk = rows.outcome[rows.known], risk[rows.known]
    groups = calibration_curve(outcome, risk, rows.weight[rows.known])
    interval = groups.observed, groups.observed
    spec = calibration(small_trained.evidence.calibration, groups, interval, outcome, risk, Words("en"))
    bars = spec["vconcat"][1]["data"]["values"]
    counted = [sum(bar["high"] - bar["low"] for bar in bars if bar["outcome"] == had) for had in (0, 1)]
    assert counted == [int((1 - outcome).sum()), int(outcome.sum())]


def test_measures_have_words_wherever_a_feature_may_be_named():
    assert all(Words("zh").spelled(kind.unit.format("mm[Hg]")).count("[") == 0 for kind in KINDS.values())


def test_the_figures_for_a_program_hold_what_the_page_says(small_trained):
    figures = report.summary(small_trained)
    assert figures["auroc"] == small_trained.evidence.validation.metrics["auroc"].as_dict()
    assert figures["synthetic"] is True
    assert dict(report.lines(small_trained))["AUROC"] == str(small_trained.evidence.validation.metrics["auroc"])
