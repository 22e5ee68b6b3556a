"""Compiled functions do what they say in Python, are kept, and are compiled afresh when their sources change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from features import compiled as compiled_module
from features.compiled import compiled, compiled_parallel, sources_digest
from features.derived import body_mass_index, egfr_ckd_epi_2021

REPOSITORY = Path(__file__).parents[2]

SOURCES = {
    "features/kernel.py": "from features.compiled import compiled\nfrom features.times import YEAR\n",
    "features/times.py": "from features.errors import WeibingError\n\nYEAR = 365\n",
    "features/errors.py": "class WeibingError(Exception): ...\n",
    "features/report.py": "WORDS = 1\n",
    "training/deep/boost.py": "from features.compiled import compiled\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository, of which kernel.py and boost.py hold compiled functions."""
    for name, text in SOURCES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "repository"


@compiled
def harmonic(terms: int) -> float:
    total = 0.0
    for term in range(1, terms + 1):
        total += 1.0 / term
    return total


@compiled_parallel
def squares(values: np.ndarray, result: np.ndarray) -> None:
    for place in numba.prange(len(values)):
        result[place] = values[place] ** 2


def test_a_compiled_function_returns_what_its_python_returns():
    assert harmonic(50) == sum(1.0 / term for term in range(1, 51))
    assert body_mass_index(70.0, 175.0) == body_mass_index.py_func(70.0, 175.0)
    assert egfr_ckd_epi_2021(90.0, 60.0, 1.0) == pytest.approx(egfr_ckd_epi_2021.py_func(90.0, 60.0, 1.0), rel=1e-14)


def test_a_parallel_loop_fills_every_place():
    values, result = np.arange(10_000.0), np.zeros(10_000)
    squares(values, result)
    assert (result == values**2).all()


@pytest.mark.parametrize("changed", ["features/kernel.py", "training/deep/boost.py"])
def test_a_change_in_a_file_with_compiled_functions_compiles_all_afresh(root, changed):
    before = sources_digest(root)
    (root / changed).write_text(SOURCES[changed] + "# changed\n", encoding="utf-8")
    assert sources_digest(root) != before


def test_a_change_in_a_constant_that_a_compiled_file_imports_compiles_all_afresh(root):
    before = sources_digest(root)
    (root / "features/times.py").write_text(SOURCES["features/times.py"].replace("365", "366"), encoding="utf-8")
    assert sources_digest(root) != before


def test_a_change_elsewhere_compiles_nothing_afresh(root):
    before = sources_digest(root)
    (root / "features/report.py").write_text("WORDS = 2\n", encoding="utf-8")
    assert sources_digest(root) == before


def test_the_digest_is_of_what_the_sources_say_and_not_of_where_they_are(root):
    moved = shutil.copytree(root, root.with_name("elsewhere"))
    assert sources_digest(moved) == sources_digest(root)


def test_the_kernel_counts_among_the_sources(tmp_path):
    copied = shutil.copytree(REPOSITORY / "features", tmp_path / "features", ignore=shutil.ignore_patterns("*cache*"))
    before = sources_digest(tmp_path)
    for name in ("kernel.py", "derived.py", "times.py", "measures.py"):
        text = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(text + "# changed\n", encoding="utf-8")
        assert sources_digest(tmp_path) != before, name
        (copied / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("writable", "folder"), [(True, "repository/features/__pycache__"), (False, "user/weibing")])
def test_machine_code_is_kept_beside_the_sources_or_where_these_are_read_only_with_the_user(
    root, monkeypatch, writable, folder
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.with_name("user")))
    monkeypatch.setattr(compiled_module.os, "access", lambda *_: writable)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    compiled_module._keep_compiled(root)
    assert Path(numba.config.CACHE_DIR) == root.parent / folder / f"compiled-{sources_digest(root)}"


def test_a_later_process_starts_without_compiling(tmp_path):
    (tmp_path / "features").mkdir()
    for name in ("__init__.py", "compiled.py", "derived.py"):
        shutil.copy(REPOSITORY / "features" / name, tmp_path / "features" / name)
    asks = (
        "from features.derived import body_mass_index as f; f(70.0, 175.0); print(sum(f.stats.cache_misses.values()))"
    )
    compiled_in_each = [run(asks, tmp_path) for _ in range(2)]
    assert compiled_in_each == ["1", "0"]


def test_a_folder_that_the_operator_names_is_used(tmp_path):
    asks = "import features.compiled, numba; print(numba.config.CACHE_DIR)"
    assert run(asks, REPOSITORY, NUMBA_CACHE_DIR=str(tmp_path)) == str(tmp_path)


def run(program: str, where: Path, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | settings
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
