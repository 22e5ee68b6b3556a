"""Which code ran: the version of the package, and the commit where it runs from a checkout."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def package_version() -> str:
    """Return the version of the installed package."""
    return version("weibing")


@cache
def git_commit(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout, with ``+changes`` behind it where files were changed; None where it is none."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changed else commit


def _git(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *command], capture_output=True, check=True, text=True, timeout=10)
    # No git, or a checkout that belongs to somebody else: then the version alone must do.
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
