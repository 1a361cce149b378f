"""The Compare page's sections for many runs: numbers, sweeps, the paper's table; links, empty states, bounds."""

# pyright: reportAttributeAccessIssue=false
# (elements that streamlit's test harness has no class for come without types)
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.viz.compare import run_selection
from tests.pages.app import charts, open_page, words
from tests.store.builder import finished_run, new_run
from tests.viz.runs import make_run

SECTIONS = ("numbers", "sweeps", "paper")


def ids(count: int) -> list[str]:
    return [f"20260101-000000-{number:08x}" for number in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strategies, two rates, two seeds, made once."""
    root = tmp_path_factory.mktemp("swept")
    for number, run_id in enumerate(ids(8)):
        strategy, lr, seed = ("dynamic", "lora")[number // 4], (1e-3, 2e-3)[number // 2 % 2], number % 2
        config = {"seed": seed, "strategy": {"name": strategy}, "train": {"lr": lr}, "adapter": {"rank": 4}}
        finished_run(
            root,
            10 * (1 + number % 4),
            run_id,
            name=f"run {number}",
            strategy=strategy,
            seed=seed,
            fidelity="code",
            config=config,
            params={"budget": 1000, "active": 900, "gate": number},
        )
    return root


@pytest.fixture
def swept(made: Path, runs_dir: Path) -> str:
    """Copy the runs to the runs folder; the address of all."""
    shutil.copytree(made, runs_dir, dirs_exist_ok=True)
    return ",".join(ids(8))


def page_text(app: AppTest) -> str:
    return words(app).replace("\\", "").replace("\u200b", "")


def test_any_two_numbers_and_many_at_once(swept: str) -> None:
    app = open_page("compare", runs=swept, section="numbers", across="train.lr", up="params.used")
    scatter, parallel = charts(app)
    assert scatter["layout"]["xaxis"]["title"]["text"] == "Learning rate"
    assert scatter["layout"]["yaxis"]["title"]["text"] == "Adapter parameters in use"
    assert [trace["name"] for trace in scatter["data"]] == ["dynamic", "lora"]
    assert parallel["layout"]["xaxis"]["ticktext"] == [
        "Learning<br>rate",
        "Strategy",
        "Adapter<br>parameters<br>in use",
        "Accuracy",
    ]
    assert "8 runs shown" in page_text(app)
    app.selectbox(key="address-up").set_value("step").run()
    assert charts(app)[0]["layout"]["yaxis"]["title"]["text"] == "Steps done"
    assert app.query_params["up"] in ("step", ["step"])
    app.multiselect(key="address-axes").set_value(["strategy.name"]).run()
    assert len(charts(app)[1]["layout"]["xaxis"]["ticktext"]) == 3


def test_a_sweep_as_lines_and_as_a_grid(swept: str) -> None:
    app = open_page("compare", runs=swept, section="sweeps")
    lines, slices, grid = charts(app)
    assert len(slices["data"]) == 2, "a panel for the rate, one for the method"
    assert lines["layout"]["xaxis"]["title"]["text"] == "Learning rate"
    assert len([trace for trace in lines["data"] if not trace["name"].endswith("band")]) == 2
    assert grid["data"][0]["text"] == [["0.015<br>n = 2", "0.035<br>n = 2"]] * 2
    assert grid["data"][0]["texttemplate"] == "%{text}"
    assert "Cells average over seeds" in page_text(app)
    app.selectbox(key="address-side").set_value("train.lr").run()
    assert "Select two different settings" in page_text(app)


def test_the_table_of_the_paper_in_three_forms(swept: str) -> None:
    app = open_page("compare", runs=swept, section="paper", per="configuration")
    assert "| dynamic" in words(app)
    assert "**0.035 ± 0.007** (2)" in words(app)
    assert [r"\begin{tabular}" in app.code[0].value, "| --- |" in app.code[1].value] == [True, True]
    saved = [one.label for one in app.get("download_button") if not str(one.key).startswith("csv-")]
    assert saved == ["Save as LaTeX", "Save as Markdown"]
    app.segmented_control(key="address-per").set_value("method").run()
    assert "which is optimistic" in page_text(app)


@pytest.mark.parametrize("section", SECTIONS)
def test_runs_without_results_or_differences_are_calm(section: str, runs_dir: Path) -> None:
    for run_id in ids(2):
        new_run(runs_dir, run_id, "queued")
    app = open_page("compare", section=section)
    assert not app.error
    expected = {"numbers": "the same settings", "sweeps": "has a result yet", "paper": "is finished and has a result"}
    assert expected[section] in page_text(app)


@pytest.mark.parametrize("section", SECTIONS)
def test_one_configuration_has_nothing_to_sweep(section: str, runs_dir: Path) -> None:
    for seed, run_id in enumerate(ids(2)):
        finished_run(runs_dir, 10, run_id, seed=seed)
    app = open_page("compare", section=section)
    assert not app.error
    if section == "sweeps":
        assert "No numeric setting differs" in page_text(app)
        assert "A grid needs two settings" in page_text(app)


def test_of_many_runs_the_newest_are_opened_and_all_are_counted(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_selection, "MOST_READ", 3)
    monkeypatch.setattr(run_selection, "MOST_LISTED", 5)
    first = finished_run(runs_dir, 10, ids(1)[0])
    for run_id in ids(7)[1:]:
        shutil.copytree(first, runs_dir / run_id)
    app = open_page("compare", q="finished")
    assert "The newest 5 of 7 matching runs are compared" in page_text(app)
    assert "The newest 3 of 5 runs are shown here" in page_text(app)
    app = open_page("compare", q="finished", section="numbers")
    assert "5 runs shown" in page_text(app)
    assert "are shown here" not in page_text(app)


def test_a_brush_lists_the_runs_it_holds_with_the_way_to_compare_them(runs_dir: Path) -> None:
    ids = [f"20260101-000000-1000000{number}" for number in range(5)]
    for number, run_id in enumerate(ids):
        strategy = "lora" if number < 3 else "dynamic"
        make_run(runs_dir, run_id=run_id, strategy=strategy, seed=number, text=f"run {number}")
    app = open_page("compare", section="numbers", runs=",".join(ids))
    assert "picked" not in words(app)
    app.session_state["chart-parallel"] = {"selection": {"points": [], "box": [{"x": [-0.1, 0.1], "y": [0.9, 1.1]}]}}
    app.run()
    assert not app.exception
    assert "3 runs picked" in words(app)
    assert sorted(app.dataframe[-1].value["strategy"].str.partition(" ")[0]) == ["lora"] * 3
