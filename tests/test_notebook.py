"""The example notebook runs as it stands, and is committed without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "one_file_loss.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Its cells of code, executed in a folder of their own."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, 4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "report.html").is_file()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def of(cells: list[Any], start: str) -> list[Any]:
    """The outputs of the cell that begins with a text."""
    (found,) = [cell.outputs for cell in cells if cell.source.startswith(start)]
    return list(found)


def test_it_is_committed_without_outputs() -> None:
    import nbformat

    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_a_run_shows_its_progress_and_its_verdicts(cells: list[Any]) -> None:
    progress, result = of(cells, "result = xpo_bench.run(")
    assert progress["data"]["text/plain"].startswith("12 cells: ")
    assert "Which algorithm? 1 task, 3 seeds" in result["data"]["text/html"]
    assert "capped cap=2" in result["data"]["text/html"]
    assert result["data"]["text/plain"].startswith("<xpo_bench.Result of 12 cells: 3 algorithms, 1 task")


def test_plots_are_pictures_and_frames_are_tables(cells: list[Any]) -> None:
    for start in ("import matplotlib", 'result.plot("curves"'):
        assert [list(o["data"]) for o in of(cells, start)] == [["text/plain", "image/png"]]
    for start in ("curves = ", "frame = "):
        (table,) = of(cells, start)
        assert "<table" in table["data"]["text/html"]


def test_nothing_is_said_besides(cells: list[Any]) -> None:
    streams = [o["text"] for cell in cells for o in cell.outputs if o["output_type"] == "stream"]
    assert streams == ["Writing my_loss.py\n"]
