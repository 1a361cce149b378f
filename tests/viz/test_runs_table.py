"""The list of runs: what a filter leaves, in which order, what groups say, what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dynlora.analysis.frames import csv_text
from dynlora.store import queries
from dynlora.store.notes import annotate_notes
from dynlora.store.writer import RunWriter
from dynlora.viz.kit import theme
from dynlora.viz.runs import cards
from dynlora.viz.runs import table as runs_table
from tests.store.builder import new_run
from tests.viz.drawn import layout_of, traces_of


def finished(root: Path, run_id: str, value: float, **meta: Any) -> Path:
    folder = new_run(root, run_id, metric="accuracy", created=float(run_id[1:]), **meta)
    with RunWriter.open(folder, resume_from=None) as writer:
        for step in (1, 2):
            writer.scalar("accuracy", "validation", step, value * step / 2)
            writer.progress(50 * step)
        writer.finish("finished")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    tmp_path = tmp_path_factory.mktemp("runs")
    annotate_notes(finished(tmp_path, "r1", 0.80, name="Alpha", strategy="lora"), add=["good"], note="Keep this")
    annotate_notes(finished(tmp_path, "r2", 0.90, name="beta", strategy="lora"), add=["good", "late"])
    finished(tmp_path, "r3", 0.70, name="gamma", strategy="dynamic", model="other", params={"active": 5, "budget": 10})
    new_run(tmp_path, "r4", "queued", name="delta", strategy="dynamic", created=4.0)
    (tmp_path / "r5").mkdir()
    (tmp_path / "r5" / "run.db").write_bytes(b"nothing")
    return queries.list_runs(tmp_path)


@pytest.mark.parametrize(
    ("query", "statuses", "strategies", "ids_expected"),
    [
        ("", [], [], "r1 r2 r3 r4 r5"),
        ("good late", [], [], "r2"),
        ("keep", [], [], "r1"),
        ("", ["queued", "corrupt"], [], "r4 r5"),
        ("", [], ["dynamic"], "r3 r4"),
        ("a", ["finished"], ["dynamic"], "r3"),
        ("nothing like it", [], [], ""),
        (".*", [], [], ""),
        ("tag:good or params.budget=10", [], [], "r1 r2 r3"),
        ("not tag:good", ["finished"], [], "r3"),
        ("status=corrupt", [], [], "r5"),
    ],
)
def test_filter(runs: pd.DataFrame, query: str, statuses: list[str], strategies: list[str], ids_expected: str) -> None:
    left = runs_table.filtered(runs_table.searched(runs, query), statuses, strategies)
    assert " ".join(sorted(left["id"])) == ids_expected


def test_plain_rows_hold_no_nothing_of_a_frame(runs: pd.DataFrame) -> None:
    rows = {row["id"]: row for row in runs_table.plain_rows(runs)}
    assert (rows["r5"]["seed"], rows["r5"]["strategy"], rows["r5"]["step"]) == (None, None, None)
    assert type(rows["r1"]["seed"]) is int


@pytest.mark.parametrize(
    ("sort", "first"),
    [("newest", "r4"), ("oldest", "r1"), ("highest", "r2"), ("lowest", "r3"), ("name", "r1"), ("budget", "r3")],
)
def test_order(runs: pd.DataFrame, sort: str, first: str) -> None:
    table = runs_table.ordered(runs_table.runs_table(runs), sort)
    assert table["id"].iloc[0] == first
    assert len(table) == 5


def test_the_table_says_what_is_known(runs: pd.DataFrame) -> None:
    table = runs_table.runs_table(runs).set_index("id")
    assert table.loc["r2", ["result", "metric", "trend", "tags"]].to_numpy().tolist() == [
        0.9,
        "accuracy",
        [0.45, 0.9],
        ["good", "late"],
    ]
    assert table["progress"].isna()["r2"], "a finished run has no bar"
    assert table.loc["r3", "of budget"] == 50
    assert table.loc["r5", "status"] == "unreadable"
    assert table["result"].isna()["r4"]
    assert (table.loc["r4", "trend"], table.loc["r4", "progress"]) == ([], 0)


def test_groups_give_count_mean_and_spread(runs: pd.DataFrame) -> None:
    summary = runs_table.group_summary(runs_table.grouped(runs, "strategy")).set_index("group")
    lora = summary.loc["lora, minilm on sentiment4"]
    assert (lora["runs"], lora["mean"], lora["spread"]) == (2, pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4))
    assert summary.loc["dynamic, other on sentiment4", "runs"] == 1
    assert set(runs_table.grouped(runs, "tag")["group"].str.partition(",")[0]) == {"good", "late", "no tag"}
    assert set(runs_table.grouped(runs, "data")["group"]) == {"minilm on sentiment4", "other on sentiment4"}


def test_the_figure_shows_every_run_and_the_means(runs: pd.DataFrame) -> None:
    members = runs_table.grouped(runs, "strategy")
    figure = cards.group_strip(members, runs_table.group_summary(members), "accuracy", theme.LIGHT)
    dots, means = traces_of(figure)
    assert sorted(dots.x) == pytest.approx([0.7, 0.8, 0.9])
    assert list(means.x) == pytest.approx([0.85, 0.7])
    assert list(means.error_x.array) == pytest.approx([0.05, 0]), "to the highest run: no whisker passes 1"
    assert list(means.error_x.arrayminus) == pytest.approx([0.05, 0])
    assert [text.partition(",")[0] for text in layout_of(figure).yaxis.ticktext] == ["dynamic", "lora"]


def test_a_strategy_is_never_averaged_over_models_or_data(tmp_path: Path) -> None:
    finished(tmp_path, "r1", 0.9, strategy="lora", data="sst2")
    finished(tmp_path, "r2", 0.5, strategy="lora", data="/home/me/tickets")
    finished(tmp_path, "r3", 0.7, strategy="lora", data="sst2", model="bert")
    finished(tmp_path, "r4", 0.3, strategy="lora", data="/home/you/tickets")
    summary = runs_table.group_summary(runs_table.grouped(queries.list_runs(tmp_path), "strategy"))
    assert dict(zip(summary["group"], summary["mean"], strict=True)) == {
        "lora, minilm on sst2": 0.9,
        "lora, bert on sst2": 0.7,
        "lora, minilm on /home/me/tickets": 0.5,
        "lora, minilm on /home/you/tickets": 0.3,
    }


def test_a_name_in_the_figure_is_text(tmp_path: Path) -> None:
    finished(tmp_path, "r1", 0.8, name="<img src=x>", strategy="<b>$x$</b>")
    members = runs_table.grouped(queries.list_runs(tmp_path), "strategy")
    figure = cards.group_strip(members, runs_table.group_summary(members), "accuracy", theme.DARK)
    drawn = str(figure.to_json()).replace("\\u003c", "<")
    assert "<b>" not in drawn
    assert "<img" not in drawn


def test_export_holds_the_rows_and_runs_no_formula(runs: pd.DataFrame) -> None:
    runs = runs.assign(note="=cmd()")
    rows = {row["id"]: row for row in json.loads(runs_table.export_json(runs))}
    assert rows["r1"]["note"] == "=cmd()"
    assert rows["r2"]["metrics"] == {"accuracy": 0.9}
    assert rows["r5"]["status"] == "corrupt"
    frame = runs_table.export_frame(runs).set_index("id")
    assert frame.loc["r2", "metrics.accuracy"] == 0.9
    assert frame.loc["r2", "tags"] == "good; late"
    assert ",'=cmd()" in csv_text(frame.reset_index())
    assert runs_table.export_command("r1", "/a b") == "dynlora export r1 --out adapter-r1 --runs-dir '/a b'"
