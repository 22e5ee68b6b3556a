"""Every example of docs/fhir.md, run as it stands there."""

import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from features.errors import WeibingError
from features.sources.fhir import ingest_fhir
from features.sources.table.identities import Who

TODAY = date(2025, 1, 1)
PAGE = Path(__file__).parents[3] / "docs" / "fhir.md"
SECRET = r"export (\w+)=(\S+)"


@dataclass
class Example:
    """What stands between two headings: blocks by kind, and the files."""

    title: str
    blocks: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)


def examples() -> list[Example]:
    found = [Example("")]
    text = PAGE.read_text(encoding="utf-8")
    for match in re.finditer(r"^(?:#+ (?P<title>.+)|```(?P<kind>.+)\n(?P<body>(?:.*\n)*?)```)$", text, re.MULTILINE):
        kind, *names = (match["kind"] or "").split(" ")
        if match["title"]:
            found.append(Example(match["title"]))
        elif kind in ("json", "ndjson"):
            # A section may show several exports, each with what comes of it.
            if "events" in found[-1].blocks:
                found.append(Example(f"{found[-1].title}: {names[0]}"))
            found[-1].files.append((names[0], match["body"]))
        else:
            found[-1].blocks[match["kind"]] = match["body"]
    return [example for example in found if example.files]


def test_the_page_has_an_example_of_everything():
    assert len(examples()) >= 12


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.title)
def test_the_example_does_what_the_page_says(example, county, monkeypatch):
    files = [county.file(name, text) for name, text in example.files]
    secret = re.search(SECRET, example.blocks.get("sh", ""))
    if secret:
        monkeypatch.setenv(*secret.groups())
    key = secret[1] if secret else None

    if "error" in example.blocks:
        with pytest.raises(WeibingError) as error:
            ingest_fhir(files, county.store)
        assert str(error.value) == example.blocks["error"].strip()
        return
    report = ingest_fhir(files, county.store, who=Who(key=key), today=TODAY).text()
    if "events" in example.blocks:
        county.is_drawn(example.blocks["events"])
    if "whole report" in example.blocks:
        assert report == example.blocks["whole report"].strip()
    for line in example.blocks.get("report", "").splitlines():
        assert line in report
