"""Who asks, and whether they may: the one place where that is decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.security.roles import MAY, OF, Action, Reach, Role

Via = Literal["session", "token", "command"]


@dataclass(frozen=True)
class Resident:
    """A resident, as far as it matters who may see one: the number, and the panels the resident is in now."""

    id: int
    panels: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Panel:
    """The residents under contract with one doctor."""

    id: int


Subject = Resident | Panel | None


@dataclass(frozen=True)
class Caller:
    """Who asks: somebody whose login is complete, or a system with a valid token.

    Attributes
    ----------
    panels : those of which the caller is the doctor, as of this request
    scopes : the actions that the token names, as ``see-list``; none where there is no token
    """

    user_id: int
    name: str
    role: Role
    panels: frozenset[int]
    scopes: frozenset[str]
    via: Via


class RefusedError(Exception):
    """The caller may not do that. Says what, not with whom."""

    def __init__(self, action: str) -> None:
        super().__init__(f"You may not do this: {action}.")
        self.action = action


def may(caller: Caller, action: Action, of: Subject = None) -> bool:
    """Whether a caller may do something to a resident, to a panel, or at all.

    False for whatever the table of roles does not name, a role or an action it does not know, and a subject of
    another kind than the action's.
    """
    reach = _reach(caller, action)
    if reach is None or not _fits(action, of):
        return False
    if reach == "scope":
        return caller.via == "token" and action.replace(" ", "-") in caller.scopes
    # A token gives what its scopes name and nothing else, whoever holds it.
    if caller.via == "token":
        return False
    return reach == "all" or (reach == "own" and _is_own(caller, of))


def require(caller: Caller, action: Action, of: Subject = None) -> None:
    """Refuse what a caller may not do.

    Raises
    ------
    RefusedError
        If :func:`may` says no.
    """
    if not may(caller, action, of):
        raise RefusedError(action)


def _reach(caller: Caller, action: Action) -> Reach | None:
    of_role: Mapping[Action, Reach] = MAY.get(caller.role, {})
    return of_role.get(action)


def _fits(action: Action, of: Subject) -> bool:
    kinds = {"resident": Resident, "panel": Panel, "nothing": type(None)}
    return isinstance(of, kinds[OF[action]])


def _is_own(caller: Caller, of: Subject) -> bool:
    if isinstance(of, Resident):
        return bool(caller.panels & of.panels)
    return isinstance(of, Panel) and of.id in caller.panels
