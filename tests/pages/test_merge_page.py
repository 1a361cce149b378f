"""The Recycle page with merges: finished, at work, started from the form; the Playground with one that answers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dynlora.cli.main import main
from dynlora.jobs import quick_launch
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.run_kind import registry
from dynlora.viz import kinds as viz_kinds
from tests.kinds.merge.written import PLAN, written_merge
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, words
from tests.pages.test_home_page import links
from tests.pages.test_recycle_page import press


def test_a_finished_merge_begins_with_its_conclusion(runs_dir: Path) -> None:
    folder = written_merge(runs_dir)
    app = open_page("recycle", run=folder.name)
    assert "it is not significantly different from that of the run" in words(app)
    assert len(charts(app)) == 2
    assert not app.exception


@pytest.mark.parametrize(("until", "drawn"), [(0, 0), (4, 1)])
def test_a_merge_at_work_shows_its_ranks_once_they_are_known(until: int, drawn: int, runs_dir: Path) -> None:
    folder = written_merge(runs_dir, state="stopped", until=until)
    app = open_page("recycle", run=folder.name)
    assert "Not tested yet" in words(app)
    assert len(charts(app)) == drawn
    assert not app.exception


@pytest.mark.parametrize(("head", "is_asked"), [("none", True), ("equal", True), ("own", False)])
def test_a_merge_is_taken_away_and_asked_where_it_has_a_head(head: str, is_asked: bool, runs_dir: Path) -> None:
    folder = written_merge(runs_dir, merge={**PLAN, "head": head})
    (folder / "adapter").mkdir()
    app = open_page("recycle", run=folder.name)
    assert {"Adapter", "Merged model"} <= {button.proto.label for button in app.get("download_button")}
    assert ("Write with it" in links(app)) is is_asked
    assert (f"dynlora predict {folder.name}" in "".join(block.value for block in app.code)) is is_asked


def test_the_form_merges_runs_of_one_base_and_says_why_not_others(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_launch, "wake", lambda root: None)
    one, two = (trained(runs_dir, name=name, task="regression", model="minilm") for name in ("one", "two"))
    three = trained(runs_dir, name="three", task="regression", model="bert-base")
    app = open_page("recycle")
    way: Any = app.get("button_group")[0]
    way.set_value("Merge adapters").run()
    assert "Choose sources" in words(app)
    app.multiselect(key="merge-sources").set_value([one, three]).run()
    assert "give runs of one base model" in words(app)
    app.multiselect(key="merge-sources").set_value([one, two]).run()
    app.selectbox(key="merge-method").set_value("TIES").run()
    app.selectbox(key="merge-budget").set_value("Half of all together").run()
    app.text_input(key="merge-weights").set_value("0.3,0.2,0.1").run()
    assert "give one for each" in words(app)
    app.text_input(key="merge-weights").set_value("0.3, 0.2").run()
    press(app, "Merge")
    settings = MergeSettings.of_run(runs_dir / app.query_params["run"])
    assert (set(settings.sources), settings.method) == ({one, two}, "ties")
    assert (settings.budget, settings.weights) == (0.5, (0.3, 0.2))


def test_the_command_of_the_form_says_the_same(runs_dir: Path) -> None:
    settings = {"sources": ["a", "b"], "method": "dare", "budget": 0.5, "weights": [0.3, 0.2]}
    program, name, *arguments = shlex.split(viz_kinds.command(registry()["merge"], settings))
    assert (program, name) == ("dynlora", "merge")
    options = main.commands[name].make_context(name, arguments).params
    assert {key: list(options[key]) if key == "sources" else options[key] for key in settings} == {
        **settings,
        "weights": "0.3,0.2",
    }
    assert options["runs_dir"] == runs_dir
