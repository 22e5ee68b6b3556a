"""Every example of docs/omop.md, run as it stands there."""

import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from features.sources.omop import ingest_omop

PAGE = Path(__file__).parents[3] / "docs" / "omop.md"
TODAY = date(2025, 1, 1)


@dataclass
class Example:
    """What stands between two headings: the files, the events they become, and lines of the report."""

    title: str
    files: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)


def examples() -> list[Example]:
    found = [Example("")]
    text = PAGE.read_text(encoding="utf-8")
    for match in re.finditer(r"^(?:#+ (?P<title>.+)|```(?P<kind>.+)\n(?P<body>(?:.*\n)*?)```)$", text, re.MULTILINE):
        if match["title"]:
            found.append(Example(match["title"]))
        elif match["kind"].startswith("csv "):
            found[-1].files[match["kind"].removeprefix("csv ")] = match["body"]
        else:
            found[-1].blocks[match["kind"]] = match["body"]
    return [example for example in found if example.files]


def test_the_page_has_an_example_of_every_kind_of_table():
    tables = {name.lower() for example in examples() for name in example.files}
    assert len(examples()) == 8
    assert len(tables) == 10


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.title)
def test_the_example_does_what_the_page_says(example, county):
    folder = county.folder / "cdm"
    folder.mkdir()
    for name, text in example.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    report = ingest_omop(folder, county.store, today=TODAY).text()
    county.is_drawn(example.blocks["events"])
    for line in example.blocks.get("report", "").splitlines():
        assert line in report
