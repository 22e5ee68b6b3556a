"""What a report is made of: texts, tables, pictures and steps, each free of any run and language."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph; `tone` is plain, quiet, alarm, or fill for what the county must say."""

    text: str
    tone: str = "plain"
    kind: str = "text"


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    points: list[str]
    kind: str = "points"


@dataclass(frozen=True)
class Heading:
    """A heading within an item."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Table:
    """A table as it is read: every cell is a text, the first of a row is its header; a `worded` one holds sentences."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    worded: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Panel:
    """A chart as SVG, and its title where there are several."""

    title: str
    svg: str


@dataclass(frozen=True)
class Picture:
    """Charts side by side; `alt` says what they show to who cannot see them."""

    caption: str
    panels: list[Panel]
    alt: str
    note: str = ""
    kind: str = "picture"


@dataclass(frozen=True)
class Step:
    """How many are left, and how many were left out on the way here and why."""

    left: str
    out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Flow:
    """Who came in and who stayed, step by step."""

    caption: str
    steps: list[Step]
    kind: str = "flow"


Block = Text | Points | Heading | Table | Picture | Flow


@dataclass(frozen=True)
class Item:
    """One item of a checklist, or an addition to it: `number` is empty then."""

    key: str
    number: str
    name: str
    blocks: list[Block]


@dataclass(frozen=True)
class Section:
    """Items under one title."""

    key: str
    title: str
    items: list[Item]
