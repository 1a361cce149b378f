"""The adapter parameters in use are one number, gates included, wherever they are shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dynlora.analysis import run_summary, seed_groups
from dynlora.store import queries
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import scatter_model
from dynlora.viz.runs import table as runs_table
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"
TIMES = pd.DataFrame({"step": [1], "step_ms": [100.0], "strategy_ms": [1.0]})


def test_the_parameters_in_use_are_one_number_on_every_page(tmp_path: Path) -> None:
    summary = queries.run_summary(make_run(tmp_path, run_id=RUN))
    used = run_summary.parameters_in_use(summary["params"])
    assert used == 1056 + 24
    listed = queries.list_runs(tmp_path)
    assert run_summary.headline(summary, 1, TIMES)["Adapter parameters in use"] == f"{used:,}"
    assert runs_table.runs_table(listed)["adapter parameters"].tolist() == [used]
    final = compare_model.final_table([summary], {RUN: "a"}, "accuracy")
    assert final["adapter parameters in use"].tolist() == [used]
    groups = compare_model.by_group({RUN: summary}, seed_groups.alone({RUN: "a"}, {RUN: summary}), "accuracy")
    assert groups["active"].tolist() == [used]
    assert scatter_model.numbers(runs_table.plain_rows(listed)[0])[scatter_model.USED] == used
    assert run_summary.budget_share(summary["params"]) == 100 * used / 1152
    assert run_summary.parameters_in_use({}) is None
