"""The report as one page in HTML that needs nothing else: charts are drawn into it, and nobody is named."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from features.errors import WeibingError, did_you_mean
from training.report.blocks import Block, Item, Picture, Section, Table
from training.report.discussion import summary
from training.report.items import sections
from training.report.probast import flags
from training.report.run import Run
from training.report.specification import every_feature
from training.report.words import Words, table
from training.train import Trained

BACKQUOTED = re.compile(r"`([^`]+)`")


def page(trained: Trained, language: str = "en", notes: Mapping[str, str] | None = None) -> str:
    """Return the report of a training run as a page.

    Parameters
    ----------
    notes : what the county says itself, by item of TRIPOD+AI (see `read_notes`)

    Raises
    ------
    WeibingError
        If there is no such language.
    """
    run = Run(trained, Words.of(language), notes or {})
    environment = Environment(
        loader=PackageLoader("training.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    return environment.get_template("page.html").render(
        run=run,
        words=run.words,
        language={"en": "en", "zh": "zh-CN"}[language],
        stamp=run.card.synthetic,
        summary=summary(run),
        sections=_numbered([*sections(run), *_annexes(run)], run),
    )


def coded(text: str) -> Markup:
    """Return a sentence in HTML: what stands between backquotes is a command or a name."""
    return Markup(BACKQUOTED.sub(r"<code>\1</code>", str(escape(text))))


def read_notes(path: Path) -> dict[str, str]:
    """Return what a county says itself, by item of TRIPOD+AI, from a TOML file: ``17 = "approved by …"``.

    Raises
    ------
    WeibingError
        If the file cannot be read, or names something that is no item.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeibingError(f"The notes {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeibingError(f"{path}: this is not TOML in UTF-8: {error}.") from error
    for key, note in told.items():
        if key not in table("tripod"):
            raise WeibingError(f'{path}: "{key}" is no item of the report.{did_you_mean(key, list(table("tripod")))}')
        if not isinstance(note, str):
            raise WeibingError(f'{path}: write the note of item {key} in quotes: {key} = "…".')
    return told


def _annexes(run: Run) -> list[Section]:
    """Return what stands behind the report."""
    annexes: dict[str, list[Block]] = {"probast": flags(run), "features": [every_feature(run)]}
    return [Section(key, run.words(f"section.{key}"), [Item(key, "", "", blocks)]) for key, blocks in annexes.items()]


def _numbered(found: list[Section], run: Run) -> list[Section]:
    """Number the tables and the figures from the first to the last."""
    counted = {"table": 0, "figure": 0}

    def captioned(block: Block) -> Block:
        if not isinstance(block, Table | Picture):
            return block
        kind = "table" if isinstance(block, Table) else "figure"
        counted[kind] += 1
        return replace(
            block, caption=run.words("caption", number=run.words(kind, number=counted[kind]), said=block.caption)
        )

    return [
        replace(
            section,
            items=[replace(item, blocks=[captioned(block) for block in item.blocks]) for item in section.items],
        )
        for section in found
    ]
