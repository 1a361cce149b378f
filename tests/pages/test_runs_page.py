"""The Runs page by its address: ticked runs compared, exported, tagged; searches started from Launch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs.helper_job import Failure, HelperJob
from dynlora.jobs.sweep import STUDIES_DIR
from dynlora.store.notes import Notes, annotate_notes, read_notes
from dynlora.viz.ui import run_picker
from tests.pages.app import actions, open_page, plain, words
from tests.store.builder import finished_run, new_run

# pyright: reportAttributeAccessIssue=false
# (elements that streamlit's test harness has no class for come without types)


IDS = [f"20260101-000000-0000000{number}" for number in range(4)]


@pytest.fixture
def runs(runs_dir: Path) -> Path:
    for number, run_id in enumerate(IDS):
        meta: dict[str, Any] = {"name": f"run {number}", "created": 10.0 * number, "strategy": "lora"}
        if number == 3:
            new_run(runs_dir, run_id, "queued", **{**meta, "strategy": "dynamic"})
        else:
            finished_run(runs_dir, 10 * (number + 1), run_id, **meta)
    annotate_notes(runs_dir / IDS[1], add=["good"], note="$x$ <b>note</b>")
    return runs_dir


@pytest.mark.parametrize("name", ["own", None])
def test_the_conclusion_is_on_ones_own_runs_once_there_are_some(
    name: str | None, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tmp_path / "samples"
    monkeypatch.setattr(run_picker, "sample_runs_dir", lambda: samples)
    meta: dict[str, Any] = {"strategy": "lora", "data": "sentiment4", "metric": "accuracy"}
    for number, accuracy in enumerate((0.91, 0.93)):
        finished_run(samples, 10, IDS[number], **meta, metrics={"accuracy": accuracy})
    if name:
        finished_run(runs_dir, 10, IDS[2], **{**meta, "data": "tickets"}, metrics={"accuracy": 0.71})
    conclusion = plain(open_page("runs"))
    assert ("On tickets" in conclusion) == (name is not None)
    assert ("On sentiment4" in conclusion) == (name is None)


def names(app: AppTest) -> list[str]:
    return app.dataframe[0].value["name"].tolist() if app.dataframe else []


def tick(app: AppTest, *rows: int) -> AppTest:
    """Tick rows of the table as a browser does."""
    state = app.session_state["grid"][0]
    app.session_state[state] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return app.run()


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ({"q": "run", "sort": "highest", "status": "finished"}, "run 2, run 1, run 0"),
        ({"sort": "nonsense", "group": "<b>", "status": "dancing"}, "run 3, run 2, run 1, run 0"),
        ({"q": "nothing like it"}, ""),
    ],
)
def test_a_link_restores_the_list(runs: Path, address: dict[str, str], listed: str) -> None:
    app = open_page("runs", **address)
    assert ", ".join(names(app)) == listed
    if not listed:
        assert "None of 4 runs matches" in words(app)


def test_the_controls_write_the_address(runs: Path) -> None:
    app = open_page("runs")
    app.text_input(key="address-q").set_value("run").run()
    app.multiselect(key="address-status").set_value(["finished"]).run()
    app.selectbox(key="address-sort").set_value("oldest").run()
    assert {key: "".join(app.query_params[key]) for key in ("q", "status", "sort")} == {
        "q": "run",
        "status": "finished",
        "sort": "oldest",
    }
    assert names(app) == ["run 0", "run 1", "run 2"]
    app.multiselect(key="address-status").set_value([]).run()
    assert "status" not in app.query_params


def test_ticked_runs_stay_ticked_when_one_appears_or_is_filtered(runs: Path) -> None:
    app = tick(open_page("runs", sort="oldest"), 1, 2)
    assert app.session_state["ticked"] == IDS[1:3]
    new_run(runs, "20260101-000000-00000009", "queued", name="new", created=5.0)
    app.run()
    assert names(app) == ["run 0", "new", "run 1", "run 2", "run 3"]
    assert app.session_state["ticked"] == IDS[1:3]
    app.text_input(key="address-q").set_value("good").run()
    assert app.session_state["ticked"] == [IDS[1]]


def test_ticked_runs_are_exported_with_the_command_for_each(runs: Path) -> None:
    app = tick(open_page("runs", sort="oldest"), 0, 1)
    assert f"dynlora export {IDS[0]} --out adapter-{IDS[0]} --runs-dir {runs}" in app.code[0].value
    assert [button.label for button in app.get("download_button")] == ["CSV", "JSON"]


def test_tags_and_a_note_are_saved_and_shown_as_text(runs: Path) -> None:
    app = tick(open_page("runs", sort="oldest"), 1)
    assert app.text[0].value == "$x$ <b>note</b>"
    app.multiselect(key=f"tags-{IDS[1]}").set_value(["good", "late"])
    app.text_area(key=f"note-{IDS[1]}").set_value("changed")
    app.button(key="save-notes").click().run()
    assert read_notes(runs / IDS[1]) == Notes(tags=("good", "late"), note="changed")
    app = tick(app, 0, 1)
    app.multiselect(key="tags-many").set_value(["late"])
    app.button(key="save-notes").click().run()
    assert read_notes(runs / IDS[0]).tags == ("late",)
    assert read_notes(runs / IDS[1]).tags == ("good", "late")


def test_samples_can_be_exported_and_not_changed(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    finished_run(samples, 5, IDS[0])
    app = tick(open_page("runs"), 0)
    assert [button.key for button in app.button if button.key in ("save-notes", "delete")] == []
    assert app.get("download_button")


def test_a_sweep_is_counted_then_queued_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[tuple] = []

    def enqueue(config: dict, lists: dict, runs_dir: Path, *, key: str) -> list[str]:
        sweeps.append((config, lists, key))
        return ["a", "b"]

    monkeypatch.setattr("dynlora.viz.ui.run_actions.enqueue_sweep", enqueue)
    app = open_page("launch", mode="sweep")
    assert app.button(key="sweep-start").label == "Queue 6 runs"
    app.selectbox(key="sweep-base").set_value(IDS[0])
    app.text_input(key="sweep-name").set_value("try")
    app.text_area(key="sweep-lines").set_value("seed=0..1").run()
    assert "--set seed=0..1 --name try" in app.code[-1].value
    app.button(key="sweep-start").click().run()
    assert [(config["strategy"], config["name"], lists) for config, lists, _ in sweeps] == [
        ({"name": "dynamic", "gates": "module", "explore": 1.0, "scale_lr_ratio": 1.0}, "try", {"seed": "0..1"})
    ]


def test_a_sweep_that_cannot_be_is_one_sentence(runs: Path) -> None:
    app = open_page("launch", mode="sweep")
    app.text_area(key="sweep-lines").set_value("seed=0..900").run()
    assert "more than 200" in app.error[0].value


def test_a_dashboard_that_only_looks_offers_no_change(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    launch_page = open_page("launch", mode="sweep", sweep="search")
    assert [button.key for button in launch_page.button if "search" in str(button.key)] == []
    app = tick(open_page("runs"), 1)
    assert actions(app) == [app.button(key="hide").label]
    assert json.dumps([area.label for area in app.text_area]) == "[]"


def test_the_trash_is_there_when_the_list_is_empty(runs_dir: Path) -> None:
    from dynlora.jobs import launch

    finished_run(runs_dir, 5, IDS[0])
    launch.delete(runs_dir, IDS[0])
    app = open_page("runs")
    assert "There are no runs yet" in words(app)
    app.multiselect(key="trash").set_value([IDS[0]]).run()
    app.button(key="restore").click().run()
    assert app.dataframe[0].value["id"].tolist() == [IDS[0]]


def click(app: AppTest, row: int) -> AppTest:
    """Click the name in a row of the table as a browser does."""
    key = f"open-{app.session_state['grid'][0]}"
    app.session_state[key] = {"row": row, "label": ""}
    return app.run()


def test_a_click_on_a_name_opens_the_run(runs: Path) -> None:
    app = click(open_page("runs", sort="oldest"), 1)
    assert [title.value for title in app.title] == ["run 1"]
    assert app.query_params["run"] == [IDS[1]] or app.query_params["run"] == IDS[1]


def test_a_click_on_a_table_that_is_gone_opens_nothing(runs: Path) -> None:
    """A run that appeared meanwhile moved the rows: the click would open a neighbour."""
    app = open_page("runs")
    key = f"open-{app.session_state['grid'][0]}"
    new_run(runs, "20260101-000000-00000009", "queued", name="newer", created=99.0, strategy="lora")
    app.session_state[key] = {"row": 1, "label": ""}
    assert [title.value for title in app.run().title] == ["Runs"]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the form asks to start."""
    calls: list[tuple[Any, ...]] = []

    def start(config: Mapping[str, Any], lists: Mapping[str, str], options: Mapping[str, Any], _: Path) -> str:
        calls.append((config, lists, options))
        return options["study"]

    monkeypatch.setattr("dynlora.viz.launch.sweep_form.sweep.start", start)
    return calls


def test_what_is_started_is_what_the_command_says(runs: Path, starts: list[tuple[Any, ...]]) -> None:
    app = open_page("launch", mode="sweep", sweep="search")
    app.selectbox(key="search-base").set_value(IDS[0])
    app.text_area(key="search-lines-any").set_value("train.lr=1e-4..1e-2:log\nadapter.rank=2..8")
    app.number_input(key="search-trials").set_value(7)
    app.number_input(key="search-confirm").set_value(0).run()
    assert "--set train.lr=1e-4..1e-2:log --set adapter.rank=2..8 --study search --trials 7" in app.code[-1].value
    assert any("8 runs, one after the other" in caption.value for caption in app.caption)
    app.button(key="search-start").click().run()
    ((config, lists, options),) = starts
    assert config["strategy"] == {"name": "dynamic", "gates": "module", "explore": 1.0, "scale_lr_ratio": 1.0}
    assert lists == {"train.lr": "1e-4..1e-2:log", "adapter.rank": "2..8"}
    assert (options["trials"], options["confirm"], options["pruner"], options["objective"]) == (7, 0, "median", "loss")


def test_rates_are_tuned_fairly_with_one_press(runs: Path, starts: list[tuple[Any, ...]]) -> None:
    app = open_page("launch", mode="sweep", sweep="search")
    app.session_state["search-preset"] = "fair"
    app.run()
    app.button(key="search-start").click().run()
    ((_, lists, options),) = starts
    assert list(lists) == ["train.lr"]
    assert (options["study"], options["each"]) == ("rates", "strategy.name=lora,dynamic")


def test_searches_stand_below_the_form_with_their_conclusion(runs: Path) -> None:
    folder = runs / STUDIES_DIR
    folder.mkdir()
    job, broken = HelperJob(kind="search"), Failure(kind="ConfigError", message="train.lr=x: must be a number")
    message = "<b>best</b> is better\n\n  --set train.lr=3"
    job.model_copy(update={"status": "done", "message": message}).write(folder / "done.job")
    job.model_copy(update={"status": "failed", "error": broken}).write(folder / "broken.job")
    job.of_process(1).write(folder / "now.job")
    app = open_page("launch", mode="sweep", sweep="search")
    text = " ".join(caption.value for caption in app.caption)
    assert "is better" in text
    assert "<b>" not in text, "text is escaped"
    assert "--set train.lr=3" in [block.value for block in app.code]
    assert "must be a number" in app.error[0].value
    assert app.button(key="search-stop-now").label == "Stop searching"
