"""The notebook runs from its first cell to its last."""

import nbformat
import pages
import pytest
from nbclient import NotebookClient

NOTEBOOK = pages.ROOT / "docs" / "first_study.ipynb"


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore:.*TCP without encryption")
def test_every_cell_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert notebook.cells

    NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
