"""The worked examples run from top to bottom, and say what they said when they were written."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_a_notebook_runs_from_top_to_bottom(name):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    written = [said(cell) for cell in notebook.cells if cell.cell_type == "code"]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER.parent)}}).execute()
    assert [said(cell) for cell in notebook.cells if cell.cell_type == "code"] == written


def said(cell: nbformat.NotebookNode) -> str:
    """Return what a cell wrote, but for its numbers, whose last digits are the machine's."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return re.sub(r"[-+\d.,%\s─═]+", " ", "".join(parts))


def test_there_is_a_notebook():
    assert (FOLDER / "01-from-records-to-a-score.ipynb").exists()
