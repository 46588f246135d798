"""The notebooks under workflows/examples run from top to bottom, and show what is stored in them."""

import os
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "workflows" / "examples").glob("*.ipynb"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook):
    """What each cell shows, warnings of other libraries left out."""
    return [
        [sorted(each.get("data", {"text": 0})) for each in cell.outputs if each.get("name") != "stderr"]
        for cell in code(notebook)
    ]


@pytest.mark.slow  # a kernel that imports torch, and a training
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_a_notebook_runs_and_shows_what_is_stored(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(stored)
    NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [cell.execution_count for cell in code(stored)] == list(range(1, len(code(stored)) + 1))
    assert kinds(fresh) == kinds(stored)
    assert len(NOTEBOOKS) == 2
