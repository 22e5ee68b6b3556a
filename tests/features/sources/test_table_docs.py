"""Every example of docs/records.md, run as it stands there."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from features.errors import WeibingError
from features.sources.table.mapping import SECTIONS, Mapping

PAGE = Path(__file__).parents[3] / "docs" / "records.md"


@dataclass
class Example:
    """What stands between two headings: blocks by kind, and the files."""

    title: str
    blocks: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str, str]] = field(default_factory=list)


def examples() -> list[Example]:
    found = [Example("")]
    text = PAGE.read_text(encoding="utf-8")
    for match in re.finditer(r"^(?:#+ (?P<title>.+)|```(?P<kind>.+)\n(?P<body>(?:.*\n)*?)```)$", text, re.MULTILINE):
        kind, *names = (match["kind"] or "").split(" ")
        if match["title"]:
            found.append(Example(match["title"]))
        elif kind == "csv":
            name, encoding = [*names, "utf-8"][:2]
            found[-1].files.append((name, match["body"], encoding))
        else:
            found[-1].blocks[match["kind"]] = match["body"]
    return [example for example in found if "toml" in example.blocks]


@pytest.fixture
def environment(monkeypatch):
    def export(script: str) -> None:
        for name, value in re.findall(r"export (\w+)=(\S+)", script):
            monkeypatch.setenv(name, value)

    return export


def test_the_page_has_an_example_of_everything():
    assert len(examples()) >= 25


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.title)
def test_the_example_does_what_the_page_says(example, county, environment):
    for name, text, encoding in example.files:
        county.file(name, text, encoding)
    county.mapping(example.blocks["toml"])
    environment(example.blocks.get("sh", ""))

    if "error" in example.blocks:
        with pytest.raises(WeibingError) as error:
            county.ingest()
        assert str(error.value) == example.blocks["error"].strip()
        return
    report = county.ingest().text()
    if "events" in example.blocks:
        county.is_drawn(example.blocks["events"])
    if "whole report" in example.blocks:
        assert report == example.blocks["whole report"].strip()
    for line in example.blocks.get("report", "").splitlines():
        assert line in report


@pytest.mark.parametrize("section", {Mapping, *SECTIONS.values()}, ids=lambda section: section.__name__)
def test_the_page_lists_every_setting(section):
    listed = PAGE.read_text(encoding="utf-8").partition("## All settings")[2]
    for setting in section.settings():
        assert re.search(rf"\b{setting}\b", listed), setting
