"""The Decode page: empty, with a decode, while one runs, started from its form, and reached from elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.errors import ConfigError
from dynlora.jobs import quick_launch
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.store.summary import run_summary
from dynlora.viz import trials
from dynlora.viz.ui import model_client
from tests.kinds.decode.written import written_decode
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, press, words


def html_of(app: AppTest) -> str:
    """Return the solution that is drawn."""
    return next(str(one.proto.body) for one in app.get("html") if "dl-steps" in str(one.proto.body))


def test_a_decode_begins_with_its_conclusion_and_shows_who_wrote_what(runs_dir: Path) -> None:
    folder = written_decode(runs_dir)
    app = open_page("decode", run=folder.name)
    assert app.selectbox(key="address-point").value == "threshold=0.5"
    assert app.selectbox(key="address-problem").value == "1", "one with a rejected step comes first"
    assert "Rejected draft" in html_of(app)
    assert len(charts(app)) == 4


def test_point_problem_and_cost_are_in_the_address(runs_dir: Path) -> None:
    folder = written_decode(runs_dir)
    app = open_page("decode", run=folder.name, point="draft", problem="2", cost="seconds")
    assert (app.selectbox(key="address-point").value, app.selectbox(key="address-problem").value) == ("draft", "2")
    assert "Seconds of this machine" in words(app)
    assert "No step was judged at this point" in words(app)
    app.selectbox(key="address-point").set_value("threshold=0.9").run()
    assert app.query_params["point"] == "threshold=0.9"


def test_a_link_to_a_decode_on_another_page_leads_here(runs_dir: Path) -> None:
    folder = written_decode(runs_dir)
    assert "a decode\n" in words(open_page("capacity", run=folder.name))


def test_a_link_to_a_training_on_this_page_leads_to_its_page(run: Path) -> None:
    app = open_page("decode", run=run.name)
    assert not any("Decode:" in str(title.value) for title in app.title)


def test_the_form_queues_a_decode_and_says_the_command(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_launch, "wake", lambda root: None)
    draft, target = trained(runs_dir, name="small"), trained(runs_dir, name="large")
    app = open_page("decode")
    app.selectbox(key="decode-draft").set_value(draft).run()
    app.selectbox(key="decode-target").set_value(target).run()
    app.selectbox(key="decode-limit").set_value("20").run()
    press(app, "Start decoding")
    made = app.query_params["run"]
    settings = DecodeSettings.of_run(runs_dir / made)
    assert (settings.draft, settings.target, settings.limit) == (draft, target, 20)
    summary = run_summary(runs_dir / made)
    assert (summary.status, summary.max_steps) == ("queued", settings.points * 20)


def with_roles(runs_dir: Path) -> Path:
    """Write a decode whose draft and target are there."""
    trials.has_roles.clear()
    writer, folder = trained(runs_dir), written_decode(runs_dir)
    (folder / "config.yaml").write_text(DecodeSettings.of(draft=writer, target=writer).to_yaml(), "utf-8")
    return folder


def test_what_the_child_refuses_is_said(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConfigError("question: is empty; type a problem")

    with_roles(runs_dir)
    monkeypatch.setattr(model_client, "shared", lambda: SimpleNamespace(ask=refuse))
    assert "question:" in words(press(open_page("playground", tab="decode"), "Decode"))


def test_the_panel_beside_the_list_leads_to_the_page_of_the_kind(runs_dir: Path) -> None:
    folder = written_decode(runs_dir)
    app = AppTest.from_function(_panel, args=(folder.name,)).run()
    assert "Open decode" in words(app)
    assert not charts(app)


def _panel(run_id: str) -> None:
    """Draw the panel alone; it is run as a script of its own."""
    from dynlora.viz.run.result_cards import run_panel
    from dynlora.viz.ui.run_picker import find_run

    run_panel(find_run(run_id))


def test_a_decode_without_its_roles_cannot_be_tried(runs_dir: Path) -> None:
    written_decode(runs_dir)
    trials.has_roles.clear()
    assert not trials.can_try_decode()
    assert "No decode here has its draft, target and reward at hand" in words(open_page("playground", tab="decode"))
