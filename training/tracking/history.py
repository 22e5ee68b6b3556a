"""Which version served when, by whose decision, and why: what a registry writes down at every change of champion."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

Kind = Literal["first", "promoted", "forced", "rolled back"]

# The tag of a registered model that holds a change: this, and its number.
TAG = "promotion."
# MLflow cuts off a registered model's tag where it is longer than 5,000 characters.
LONGEST_REASON = 1_000


@dataclass(frozen=True)
class Promotion:
    """One change of champion.

    Attributes
    ----------
    version : which serves from then on
    before : which served until then, if any
    kind : the first that passed, promoted by the rule, forced against it, or rolled back to
    at : when, in UTC
    by : whose account of the machine
    reason : why, in that person's words
    against : the checks that refused it, where it was forced
    """

    version: str
    before: str | None
    kind: Kind
    at: str
    by: str
    reason: str = ""
    against: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the change as one reads it."""
        instead = f" instead of {self.before}" if self.before else ""
        forced = f" against {', '.join(self.against)}" if self.against else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.at}  version {self.version}{instead}, {self.kind}{forced} by {self.by}{why}"

    def as_dict(self) -> dict[str, Any]:
        """Return the change as JSON holds it."""
        return asdict(self)

    def tag(self) -> str:
        """Return the change as a tag holds it."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


def history_of(tags: Mapping[str, str], champion: str | None) -> tuple[Promotion, ...]:
    """Read the changes of champion from a registered model's tags, the oldest first.

    A change is written down before it is made. Where it was interrupted in between, the version before still serves,
    and the change is left out: it did not happen, and the next one takes its place.
    """
    names = sorted(name for name in tags if name.startswith(TAG))
    changes = tuple(TypeAdapter(Promotion).validate_json(tags[name]) for name in names)
    interrupted = changes and changes[-1].version != champion and changes[-1].before == champion
    return changes[:-1] if interrupted else changes


def tag_of(number: int) -> str:
    """Return the name of the tag that holds the change of this number, counted from 0."""
    return f"{TAG}{number:06}"


def before(changes: Iterable[Promotion], champion: str) -> str | None:
    """Return the champion to which one returns from the present one; None where there was none before.

    Returning twice goes back two steps: what one returned from is no longer behind.
    """
    served: list[str] = []
    for change in changes:
        if change.before and served[-1:] != [change.before]:
            served.append(change.before)
        if change.kind == "rolled back" and change.version in served:
            while served[-1] != change.version:
                served.pop()
        else:
            served.append(change.version)
    if served[-1:] != [champion]:
        served.append(champion)
    return served[-2] if len(served) > 1 else None
