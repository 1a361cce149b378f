"""The Compare page: groups over seeds, axes, pairs, many runs, numbers, sweeps and tables, and their addresses."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

import dynlora
from dynlora.analysis.frames import RunQueries
from dynlora.jobs.launch import RunHandle
from dynlora.server.serve import sample_runs_dir
from dynlora.store import queries
from dynlora.viz.compare import panels, run_selection
from dynlora.viz.report import documents
from dynlora.viz.ui import run_actions
from tests.pages.app import charts, is_text, open_page, open_whole, plain, verdict_chart, words
from tests.store.builder import finished_run, new_run
from tests.viz.runs import HOSTILE, config, make_run


def ids(count: int) -> list[str]:
    return [f"20260101-000000-{number:08x}" for number in range(count)]


def seeds(runs_dir: Path, **more: object) -> str:
    """Make three seeds of each of two strategies and return the address of them all."""
    for number, run in enumerate(ids(6)):
        strategy = "dynamic" if number < 3 else "lora"
        make_run(runs_dir, run_id=run, seed=number % 3, strategy=strategy, gates=False, **more)  # pyright: ignore[reportArgumentType]
    return ",".join(ids(6))


def traces(app: object, number: int) -> list[str]:
    """Return the names of a chart's lines and bands; the names at the ends of lines are traces without one."""
    return [trace["name"] for trace in charts(app)[number]["data"] if "name" in trace]  # pyright: ignore[reportArgumentType]


def test_a_damaged_run_is_named_and_the_others_stay_drawn(runs_dir: Path) -> None:
    chosen = seeds(runs_dir)
    with sqlite3.connect(runs_dir / ids(6)[0] / "run.db") as connection:
        connection.execute("UPDATE modules SET name = (SELECT name FROM modules WHERE position = 0)")
    connection.close()
    for section in ("results", "capacity"):
        app = open_page("compare", runs=chosen, section=section)
        assert not app.error
        [warning] = [re.sub(r"[\\\u200b]", "", one.value) for one in app.warning]
        assert warning.startswith(f"run {ids(6)[0]}: two of its modules have one name")
        assert charts(app)


def test_the_address_restores_axis_grouping_and_pair(runs_dir: Path) -> None:
    runs = seeds(runs_dir, steps=11)
    app = open_page("compare", runs=runs, x="seconds", group="runs", first="lora (reconstruction)")
    assert charts(app)[0]["layout"]["xaxis"]["title"]["text"] == "Training time (s)"
    assert len(traces(app, 0)) == 6
    assert app.selectbox(key="address-first").value == "lora"
    app = open_page("compare", runs=runs, section="capacity", ranks="spread")
    assert "Standard deviation" in json.dumps(charts(app)[-1])


def test_many_runs_stay_readable(runs_dir: Path) -> None:
    for number, run in enumerate(ids(26)):
        make_run(runs_dir, run_id=run, seed=number % 2, steps=1, strategy=f"s{number // 2}", gates=False)
    app = open_page("compare", runs=",".join(ids(26)), highlight="s9, n = 2", scale="log", smoothing="none")
    (end,) = [trace for trace in charts(app)[0]["data"] if trace.get("mode") == "text"]
    assert end["text"] == ["\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}s9"]
    assert charts(app)[0]["layout"]["yaxis"]["type"] == "log"
    assert len({name for name in traces(app, 0) if "band" not in name}) == 13
    assert len(app.multiselect(key="address-runs").value) == 26


@pytest.mark.parametrize(
    ("text", "section"), list(zip(HOSTILE, ("capacity", "numbers", "sweeps", "paper"), strict=True))
)
def test_hostile_names_are_text_in_every_view(text: str, section: str, runs_dir: Path) -> None:
    for number, run in enumerate(ids(3)):
        make_run(runs_dir, run_id=run, text=text, seed=number % 2, strategy=text[:60] if number else "lora", steps=1)
    is_text(open_page("compare", runs=",".join(ids(3)), section=section))


def test_runs_of_one_name_stay_apart_when_another_control_changes(runs_dir: Path) -> None:
    app = open_page("compare", runs=seeds(runs_dir, steps=1))
    assert len(set(app.multiselect(key="address-runs").options)) == 6
    app.segmented_control(key="address-group").set_value("runs").run()
    assert len(app.multiselect(key="address-runs").value) == 6
    assert len(traces(app, 0)) == 6
    app.segmented_control(key="address-x").set_value("parameter-steps").run()
    assert app.query_params["x"] == "parameter-steps"


@pytest.mark.usefixtures("_samples")
def test_the_first_screen_of_samples_has_a_verdict_and_its_chart(runs_dir: Path) -> None:
    app = open_page("compare")
    rows = [queries.run_summary(sample_runs_dir() / run) for run in app.multiselect(key="address-runs").value]
    assert len({(row.model, row.data, row.max_steps) for row in rows}) == 1, "they can be compared"
    assert len({row.seed for row in rows}) >= 3
    assert "Samples are shown" not in words(app)
    chart = verdict_chart(app)
    assert chart is not None
    curves = [trace for trace in chart["data"] if trace["x"]]
    assert len(curves) == len({row.config["strategy"].get("allocation") for row in rows})


@pytest.mark.usefixtures("_samples")
def test_a_run_that_nothing_is_like_leads_to_its_baseline_beside_the_samples(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=ids(1)[0], text="mine", steps=47, about={"max_steps": 47})
    app = open_page("compare")
    assert ids(1)[0] not in app.multiselect(key="address-runs").value
    assert verdict_chart(app) is not None
    assert "no other run is like yours, mine" in plain(app)
    assert "no other run is like yours" not in words(open_page("compare", runs=ids(1)[0]))


def test_the_default_leaves_out_methods_with_fewer_common_seeds_than_the_baseline(runs_dir: Path) -> None:
    def run(number: int, strategy: str, seed: int) -> str:
        name = f"20260101-00000{number}-00000000"
        make_run(runs_dir, run_id=name, strategy=strategy, seed=seed, gates=False, moves=strategy != "lora")
        return name

    both = [run(2 * seed + place, method, seed) for seed in (0, 1) for place, method in enumerate(("lora", "sora"))]
    once = run(4, "adalora", 0)
    newest = run(5, "dynamic", 0)
    newer = run(6, "dynamic", 1)
    app = open_page("compare")
    assert set(app.multiselect(key="address-runs").value) == {*both, newest, newer}
    assert once not in app.multiselect(key="address-runs").value


def test_the_default_prefers_a_run_that_trains_beside_plain_lora_with_the_same_settings(runs_dir: Path) -> None:
    def run(number: int, strategy: str, lr: float, state: str = "finished", steps: int = 40) -> str:
        name = f"20260101-00000{number}-00000000"
        settings = config(strategy, 0) | {"train": {"steps": 40, "lr": lr}}
        make_run(
            runs_dir,
            run_id=name,
            strategy=strategy,
            gates=False,
            moves=strategy != "lora",
            state=state,
            steps=steps,
            about={"config": settings},
        )
        return name

    plain, _, live = run(1, "lora", 0.001), run(2, "adalora", 0.001), run(3, "dynamic", 0.001, "running", 30)
    other = run(4, "elalora", 0.008)
    app = open_page("compare")
    assert app.multiselect(key="address-runs").value[0] == live
    assert plain in app.multiselect(key="address-runs").value
    assert other not in app.multiselect(key="address-runs").value


def test_a_run_that_is_alone_says_why_and_gets_a_twin_by_one_press(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other, made = ids(3)
    make_run(runs_dir, run_id=first, state="running", steps=6)
    make_run(runs_dir, run_id=other, steps=80, about={"max_steps": 80})
    requests: list[dict[str, object]] = []

    def start(config: dict[str, object], _: Path, *, key: str) -> RunHandle:
        requests.append(config)
        return RunHandle(made, make_run(runs_dir, run_id=made, state="queued", strategy="lora"))

    monkeypatch.setattr(run_actions, "start", start)
    app = open_page("compare", runs=first)
    text = plain(app)
    assert "There is nothing to compare" in text
    assert "no other run trains minilm on sentiment4" in text
    app.button(key="start-twin").click().run()
    assert [one["strategy"] for one in requests] == [{"name": "lora"}]
    assert app.query_params["runs"] == f"{first},{made}"
    assert app.multiselect(key="address-runs").value == [first, made]


# pyright: reportAttributeAccessIssue=false
# (elements that streamlit's test harness has no class for come without types)


SECTIONS = ("numbers", "sweeps", "paper")


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


def test_any_two_numbers_and_many_at_once(swept: str) -> None:
    app = open_page("compare", runs=swept, section="numbers", across="train.lr", up="params.used")
    scatter, parallel = charts(app)
    assert scatter["layout"]["xaxis"]["title"]["text"] == "Learning rate"
    assert len(parallel["layout"]["xaxis"]["ticktext"]) == 4
    app.selectbox(key="address-up").set_value("step").run()
    assert charts(app)[0]["layout"]["yaxis"]["title"]["text"] == "Steps done"
    assert app.query_params["up"] == "step"
    app.multiselect(key="address-axes").set_value(["strategy.name"]).run()
    assert len(charts(app)[1]["layout"]["xaxis"]["ticktext"]) == 3


def test_a_sweep_as_lines_and_as_a_grid(swept: str) -> None:
    app = open_page("compare", runs=swept, section="sweeps")
    lines, slices, grid = charts(app)
    assert len(slices["data"]) == 2, "a panel for the rate, one for the method"
    assert len([trace for trace in lines["data"] if not trace["name"].endswith("band")]) == 2
    assert grid["data"][0]["text"] == [["0.015<br>n = 2", "0.035<br>n = 2"]] * 2
    app.selectbox(key="address-side").set_value("train.lr").run()
    assert "Select two different settings" in plain(app)


def test_the_table_of_the_paper_in_three_forms(swept: str) -> None:
    app = open_page("compare", runs=swept, section="paper", per="configuration")
    assert "| dynamic" in words(app)
    assert "**0.035 ± 0.007** (2)" in words(app)
    assert [r"\begin{tabular}" in app.code[0].value, "| --- |" in app.code[1].value] == [True, True]
    app.segmented_control(key="address-per").set_value("method").run()
    assert "which is optimistic" in plain(app)


@pytest.mark.parametrize("section", SECTIONS)
def test_runs_without_results_or_differences_are_calm(section: str, runs_dir: Path) -> None:
    for run_id in ids(2):
        new_run(runs_dir, run_id, "queued")
    app = open_page("compare", section=section)
    assert not app.error
    expected = {"numbers": "the same settings", "sweeps": "has a result yet", "paper": "is finished and has a result"}
    assert expected[section] in plain(app)


def test_of_many_runs_the_newest_are_opened_and_all_are_counted(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_selection, "MOST_READ", 3)
    monkeypatch.setattr(run_selection, "MOST_LISTED", 5)
    first = finished_run(runs_dir, 10, ids(1)[0])
    for run_id in ids(7)[1:]:
        shutil.copytree(first, runs_dir / run_id)
    app = open_page("compare", q="finished")
    assert "The newest 5 of 7 matching runs are compared" in plain(app)
    assert "The newest 3 of 5 runs are shown here" in plain(app)
    app = open_page("compare", q="finished", section="numbers")
    assert "5 runs shown" in plain(app)
    assert "are shown here" not in plain(app)


def test_a_brush_lists_the_runs_it_holds_with_the_way_to_compare_them(runs_dir: Path) -> None:
    ids = [f"20260101-000000-1000000{number}" for number in range(5)]
    for number, run_id in enumerate(ids):
        strategy = "lora" if number < 3 else "dynamic"
        make_run(runs_dir, run_id=run_id, strategy=strategy, seed=number, text=f"run {number}")
    app = open_page("compare", section="numbers", runs=",".join(ids))
    assert "picked" not in words(app)
    app.session_state["chart-parallel"] = {"selection": {"points": [], "box": [{"x": [-0.1, 0.1], "y": [0.9, 1.1]}]}}
    app.run()
    assert "3 runs picked" in words(app)
    assert sorted(app.dataframe[-1].value["strategy"].str.partition(" ")[0]) == ["lora"] * 3


def test_a_panel_is_on_the_page_in_the_report_and_in_the_notebook(runs_dir: Path) -> None:
    folders = {run: runs_dir / run for run in seeds(runs_dir, moves=True).split(",")}
    view = panels.compared(folders, RunQueries()).view
    plot = dynlora.compare(list(folders), runs_dir).plot
    blocks = {
        block.title for part in documents.comparison_document(list(folders.values())).parts for block in part.blocks
    }
    pages = [open_page("compare", runs=",".join(folders), section=section) for section in ("results", "capacity")]
    titles = {plain(page) for page in pages} | {one.label for page in pages for one in page.expander}
    for panel in panels.panels_of():
        title = panel.heading(view)
        assert any(title in words for words in titles), title
        if panel.data(view) is not None:
            assert title in blocks
            assert not panel.has_figure or getattr(plot, panel.id)().caption


def test_runs_of_two_tasks_have_a_verdict_line_each_and_one_note_in_place_of_warnings(runs_dir: Path) -> None:
    both = seeds(runs_dir, extras=True)
    other = [f"20260101-000000-{number:08x}" for number in (10, 11)]
    for run, strategy in zip(other, ("dynamic", "lora"), strict=True):
        make_run(runs_dir, run_id=run, strategy=strategy, gates=False, extras=True, about={"data": "tickets"})
    app = open_page("compare", runs=",".join([both, *other]))
    lines = [one.value for one in app.markdown if one.value.startswith("**On ")]
    assert len(lines) == 2
    assert not app.warning
    assert "They differ in strategy (" in plain(app)


def test_one_configuration_or_no_shared_seed_says_why_nothing_is_paired(runs_dir: Path) -> None:
    first, second, third = ids(3)
    make_run(runs_dir, run_id=first)
    make_run(runs_dir, run_id=second, seed=1)
    make_run(runs_dir, run_id=third, seed=2, strategy="lora")
    assert "A paired difference needs two" in words(open_whole("compare", runs=f"{first},{second}"))
    assert "share no seed" in words(open_whole("compare", runs=f"{first},{third}"))


def test_a_comparison_is_presented_screen_by_screen(runs_dir: Path) -> None:
    app = open_page("compare", runs=seeds(runs_dir, extras=True), present="1")
    assert verdict_chart(app) is not None
    keys = ["present-previous", "present-next", "present-end"]
    assert [button.key for button in app.main.button if str(button.key).startswith("present")] == keys
    app.button(key="present-next").click().run()
    assert len(charts(app)) == 1
    app.button(key="present-end").click().run()
    assert "present" not in app.query_params
    assert "Final results" in words(app)
