"""A damaged run beside healthy ones: it is named, and the others are shown without it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.errors import CorruptRunError
from dynlora.kinds.train.panels.cost import LearningRate
from dynlora.store import queries
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report import comparison_report
from tests.command_line import document, run
from tests.viz.runs import make_run

GOOD, OTHER, BAD = (f"20260101-000000-0000000{n}" for n in (1, 2, 3))

DAMAGES = {
    "two modules of one name": "UPDATE modules SET name = (SELECT name FROM modules WHERE position = 0)",
    "a later version": "PRAGMA user_version = 1000000",
}
"""What is done to a store, so that the run cannot be read."""


@pytest.fixture
def damaged(runs_dir: Path, request: pytest.FixtureRequest) -> Path:
    """A runs folder with two healthy runs, and one that is damaged."""
    for number, run_id in enumerate((GOOD, OTHER, BAD)):
        make_run(runs_dir, run_id=run_id, seed=number)
    change(runs_dir / BAD, DAMAGES[request.param])
    return runs_dir


def change(folder: Path, statement: str) -> None:
    """Change the store of a run as nothing here does."""
    with sqlite3.connect(folder / "run.db") as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_commands_name_the_damaged_run_and_show_the_others(damaged: Path, tmp_path: Path) -> None:
    for command in ("show", "report"):
        more = ("--out", str(tmp_path / "r.html")) if command == "report" else ()
        refused = run(damaged, command, BAD, *more)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert f"run {BAD}" in refused.stderr
    comparison = document(run(damaged, "compare", GOOD, BAD, OTHER, "--json"))
    assert [row["id"] for row in comparison["runs"]] == [GOOD, OTHER]
    assert [BAD in sentence for sentence in comparison["damaged"]] == [True]
    assert run(damaged, "compare", GOOD, BAD, OTHER).stdout.startswith(f"run {BAD}")
    page = comparison_report([damaged / name for name in (GOOD, BAD, OTHER)]).decode()
    assert f"run {BAD}" in page
    assert "it is left out" in page
    with pytest.raises(CorruptRunError, match=BAD):
        queries.readable([damaged / BAD])


def test_a_number_that_was_changed_names_the_run(runs_dir: Path) -> None:
    folder = make_run(runs_dir, run_id=BAD)
    change(folder, "UPDATE scalars SET value = NULL WHERE name = 'lr'")
    with pytest.raises(CorruptRunError, match=rf"^run {BAD}: a value of scalar 'lr' is damaged"):
        queries.scalars_frame(folder, "lr", "train")


def test_a_learning_rate_of_gaps_is_not_known() -> None:
    series = pd.DataFrame({"step": [1, 2], "value": [float("nan")] * 2})
    view = RunView(Path("run"), SimpleNamespace(series=lambda _: series))
    assert LearningRate().data(view) is None
    assert at_highest(series["value"]) == at_lowest(series["value"]) == 0
