"""What each role may do: one table. What it does not say, nobody may."""

from collections.abc import Mapping
from typing import Literal, get_args

Role = Literal["doctor", "manager", "scientist", "administrator", "system"]
ROLES: tuple[Role, ...] = get_args(Role)

# What an action is done to: one resident, one panel, or neither.
Of = Literal["resident", "panel", "nothing"]

# How far a right goes: to the caller's own panels; to all there is; to all there is, where the token names the action.
Reach = Literal["own", "all", "scope"]

Action = Literal[
    "see resident",
    "see identity",
    "record visit",
    "record observation",
    "acknowledge alert",
    "opt out",
    "see list",
    "score",
    "export run",
    "see counts",
    "plan campaign",
    "see models",
    "see drift",
    "promote model",
    "manage users",
    "see audit",
    "see metrics",
    "change password",
]

OF: Mapping[Action, Of] = {
    "see resident": "resident",
    "see identity": "resident",
    "record visit": "resident",
    "record observation": "resident",
    "acknowledge alert": "resident",
    "opt out": "resident",
    "see list": "panel",
    "score": "nothing",
    "export run": "nothing",
    "see counts": "nothing",
    "plan campaign": "nothing",
    "see models": "nothing",
    "see drift": "nothing",
    "promote model": "nothing",
    "manage users": "nothing",
    "see audit": "nothing",
    "see metrics": "nothing",
    "change password": "nothing",
}

# A doctor works with the panel. A manager sees counts (through serving.security.disclosure), and nobody. A scientist
# sees models, and the records only where they are outside this service. An administrator sees accounts and the audit,
# and no record. A system does what its token names, and never learns who somebody is unless it names that too.
MAY: Mapping[Role, Mapping[Action, Reach]] = {
    "doctor": {
        "see resident": "own",
        "see identity": "own",
        "record visit": "own",
        "record observation": "own",
        "acknowledge alert": "own",
        "opt out": "own",
        "see list": "own",
        "see models": "all",
        "change password": "all",
    },
    "manager": {
        "see counts": "all",
        "plan campaign": "all",
        "see models": "all",
        "change password": "all",
    },
    "scientist": {
        "see counts": "all",
        "score": "all",
        "see models": "all",
        "see drift": "all",
        "promote model": "all",
        "change password": "all",
    },
    "administrator": {
        "manage users": "all",
        "see audit": "all",
        "see metrics": "all",
        "change password": "all",
    },
    "system": {
        "see resident": "scope",
        "see identity": "scope",
        "record observation": "scope",
        "see list": "scope",
        "score": "scope",
        "export run": "scope",
        "see metrics": "scope",
    },
}

# Those who can give rights to others log in with a one-time code as well.
WITH_CODE: frozenset[Role] = frozenset(role for role in ROLES if "manage users" in MAY[role])

# What a token may name: an action, its spaces written as hyphens.
SCOPES: Mapping[str, Action] = {
    action.replace(" ", "-"): action for action, reach in MAY["system"].items() if reach == "scope"
}
