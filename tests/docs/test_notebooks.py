"""The example notebooks: they run as they are, show what they say, and call nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.attack.test_without_network import heard, listened_to  # noqa: F401

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK, MARIMO = EXAMPLES / "notebook.ipynb", EXAMPLES / "marimo_notebook.py"
PLOTLY = "application/vnd.plotly.v1+json"


def executed(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Any:
    """Return the example notebook, executed in a kernel with an environment."""
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    return notebook


def outputs(notebook: Any) -> dict[str, dict[str, Any]]:
    """Return what each cell shows by kind, by the id of the cell.

    What a cell prints may come in several pieces, as a kernel sends what it has whenever it has time; they are joined.
    """
    by_cell: dict[str, dict[str, Any]] = {}
    for cell in notebook.cells:
        kinds = by_cell.setdefault(cell["id"], {})
        for output in cell.get("outputs", []):
            kinds.update(output.get("data", {}))
            if output["output_type"] == "stream":
                kinds[output["name"]] = kinds.get(output["name"], "") + output["text"]
    return by_cell


def foreign(calls: str) -> list[str]:
    """Return the calls to other machines; a kernel talks with its client on this one."""
    return [line for line in calls.splitlines() if "127.0.0.1" not in line and "localhost" not in line]


@pytest.mark.journey
def test_the_notebook_runs_shows_its_figures_the_same_each_time_and_calls_nobody(
    monkeypatch: pytest.MonkeyPatch,
    heard: Path,  # noqa: F811
) -> None:
    with monkeypatch.context() as patch:
        figures = outputs(executed(patch, listened_to(heard)))
    assert "3 seeds" in figures["compare"]["text/html"]
    assert all(answer in figures["run"]["text/html"] for answer in ("86.1 %", "95 % CI ", "Does dynamic help?"))
    assert figures["play"]["text/html"].startswith("<iframe ")
    for cell in ("differences", "training", "ranks", "capacity", "flow", "ablation", "score"):
        assert figures[cell][PLOTLY]["data"], cell
    assert foreign(heard.read_text()) == []
    assert outputs(executed(monkeypatch, dict(os.environ))) == figures


def test_printed_pieces_are_joined() -> None:
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("one", " sentence", "\n")]
    cell = nbformat.v4.new_code_cell(id="cell", outputs=pieces)
    assert outputs(nbformat.v4.new_notebook(cells=[cell])) == {"cell": {"stdout": "one sentence\n"}}


def test_the_notebook_is_kept_without_outputs_and_valid() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell["id"] for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert len({cell["id"] for cell in notebook.cells}) == len(notebook.cells)


SHOWN = """
import json, runpy, sys
from marimo._output.formatting import try_format
outputs, _ = runpy.run_path(sys.argv[1])["app"].run()
found = [(type(one).__name__, try_format(one)) for one in outputs if one is not None]
print(json.dumps([[name, one.mimetype, one.data, one.traceback] for name, one in found]))
"""


def marimo(heard: Path, *command: str) -> str:  # noqa: F811
    """Run a command on the marimo notebook in an empty home; return what it prints, after a look whom it called."""
    home = heard.parent / "home"
    home.mkdir()
    environment = {**listened_to(heard), "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert foreign(heard.read_text()) == []
    return done.stdout


@pytest.mark.journey
def test_the_marimo_notebook_runs_as_a_script_and_calls_nobody(heard: Path) -> None:  # noqa: F811
    marimo(heard, str(MARIMO))


@pytest.mark.journey
def test_marimo_can_show_every_cell(heard: Path) -> None:  # noqa: F811
    cells = json.loads(marimo(heard, "-c", SHOWN, str(MARIMO)).splitlines()[-1])
    assert [trouble for *_, trouble in cells if trouble] == []
    by_name = {name: data for name, _, data, _ in cells}
    assert "3 seeds" in by_name["Comparison"]
    assert by_name["Replay"].startswith("<iframe ")
    assert any("Up to step 120, rank was removed from query" in data for data in by_name.values())  # a caption
    assert {kind for _, kind, *_ in cells} == {"text/html"}
    assert {"PageFigure", "Figures", "Run"} <= set(by_name)
