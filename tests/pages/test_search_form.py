"""The form of a search on Launch: what is started is what the command says, and searches are followed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs.helper_job import Failure, HelperJob
from dynlora.jobs.sweep import STUDIES_DIR
from dynlora.viz.ui import run_picker
from tests.pages.app import open_page
from tests.pages.test_runs_page import IDS, runs

__all__ = ["runs"]


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
    assert not app.exception
    assert "--set train.lr=1e-4..1e-2:log --set adapter.rank=2..8 --study search --trials 7" in app.code[-1].value
    assert any("8 runs, one after the other" in caption.value for caption in app.caption)
    app.button(key="search-start").click().run()
    ((config, lists, options),) = starts
    assert config["strategy"] == {"name": "dynamic", "gates": "module", "explore": 1.0}
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


def test_a_line_that_is_no_setting_is_one_sentence(runs: Path) -> None:
    app = open_page("launch", mode="sweep", sweep="search")
    app.text_area(key="search-lines-any").set_value("train.lr").run()
    assert not app.exception
    assert "key=value" in app.error[0].value.replace("\\", "")


def test_searches_stand_below_the_form_with_their_conclusion(runs: Path) -> None:
    folder = runs / STUDIES_DIR
    folder.mkdir()
    job, broken = HelperJob(kind="search"), Failure(kind="ConfigError", message="train.lr=x: must be a number")
    message = "<b>best</b> is better\n\n  --set train.lr=3"
    job.model_copy(update={"status": "done", "message": message}).write(folder / "done.job")
    job.model_copy(update={"status": "failed", "error": broken}).write(folder / "broken.job")
    job.of_process(1).write(folder / "now.job")
    app = open_page("launch", mode="sweep", sweep="search")
    assert not app.exception
    text = " ".join(caption.value for caption in app.caption)
    assert "is better" in text
    assert "<b>" not in text, "text is escaped"
    assert "--set train.lr=3" in [block.value for block in app.code]
    assert "must be a number" in app.error[0].value
    assert app.button(key="search-stop-now").label == "Stop searching"


def test_a_dashboard_that_only_looks_starts_no_search(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    app = open_page("launch", mode="sweep", sweep="search")
    assert [button.key for button in app.button if "search" in str(button.key)] == []
