"""Tables kept in a file beside the trees that they were made of; a file that does not fit is as good as none."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.shapley.cuts import Cuts
from training.shapley.explainer import Explainer
from training.shapley.tables import Lookups

Ints = NDArray[np.int64]

# Raised whenever tables come to hold something else, so that older files are made anew.
FORMAT = 1


def write_tables(path: Path, explainer: Explainer, texts: Sequence[str], group: Ints) -> None:
    """Write what explains boosters by group to a file; nothing where LightGBM has to explain them."""
    if explainer.slow:
        return
    arrays = {
        **{f"cuts_{name}": part for name, part in explainer.cuts._asdict().items()},
        **{f"lookups_{name}": part for name, part in explainer.lookups._asdict().items()},
        "base": np.array([explainer.base]),
        "groups": np.array([explainer.groups, explainer.forests]),
    }
    np.savez(path, made_of=made_of(texts, group), content=_content(arrays), allow_pickle=False, **arrays)


def read_tables(path: Path, texts: Sequence[str], group: Ints) -> Explainer | None:
    """Return what explains boosters by group, or None where the file is not of these, damaged or not there."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        same = str(arrays.pop("made_of")) == made_of(texts, group)
        if not same or str(arrays.pop("content")) != _content(arrays):
            return None
        groups, forests = arrays["groups"].tolist()
        return Explainer(
            cuts=Cuts(*(arrays[f"cuts_{name}"] for name in Cuts._fields)),
            lookups=Lookups(*(arrays[f"lookups_{name}"] for name in Lookups._fields)),
            base=float(arrays["base"][0]),
            groups=groups,
            forests=forests,
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def made_of(texts: Sequence[str], group: Ints) -> str:
    """Return a fingerprint of boosters and groups."""
    parts = [str(FORMAT), *texts, " ".join(map(str, group.tolist()))]
    return hashlib.sha256("\n\n".join(parts).encode()).hexdigest()


def _content(arrays: dict[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
