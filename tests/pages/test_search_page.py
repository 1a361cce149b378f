"""The search on the Runs and Compare pages: in the address, wrong in its place, saved as views."""

# pyright: reportAttributeAccessIssue=false
# (elements that streamlit's test harness has no class for come without types)
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.store.notes import View, annotate_notes, read_views, save_view
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, open_page, open_whole, plain
from tests.store.builder import finished_run

IDS = [f"20260101-000000-0000000{number}" for number in range(4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs, each with a learning rate of its own, made once."""
    root = tmp_path_factory.mktemp("runs")
    for number, run_id in enumerate(IDS):
        config = {"seed": 1, "strategy": {"name": "lora"}, "train": {"lr": 1e-3 * (1 + number)}}
        finished_run(root, 10 * (number + 1), run_id, name=f"run {number}", created=10.0 * number, config=config)
    annotate_notes(root / IDS[1], add=["paper"])
    return root


@pytest.fixture
def runs(made: Path, runs_dir: Path) -> Path:
    shutil.copytree(made, runs_dir, dirs_exist_ok=True)
    return runs_dir


def names(app: AppTest) -> list[str]:
    return app.dataframe[0].value["name"].tolist() if app.dataframe else []


def test_a_link_restores_a_search_over_settings_results_and_tags(runs: Path) -> None:
    app = open_page("runs", q="train.lr>=3e-3 and accuracy>0.035 or tag:paper")
    assert names(app) == ["run 3", "run 1"]
    assert "2 of 4 runs match" in plain(app)
    assert "Compare all 2 matching runs" in [link.proto.label for link in app.get("page_link")]


def test_a_mistake_is_shown_in_its_place_and_hides_no_run(runs: Path) -> None:
    app = open_page("runs", q="tag:paper or acuracy>0.8")
    assert "search, column 14: 'acuracy' is not a field of these runs; did you mean accuracy?" in plain(app)
    assert app.code[0].value == "tag:paper or acuracy>0.8\n             ^"
    assert len(names(app)) == 4


def test_a_view_is_saved_chosen_and_forgotten(runs: Path) -> None:
    app = open_page("runs", q="tag:paper")
    app.text_input(key="view-name").set_value("for the paper")
    app.button(key="view-save").click().run()
    assert read_views(runs) == (View(name="for the paper", query="tag:paper"),)
    app = open_page("runs")
    assert len(names(app)) == 4
    app.pills(key="address-view").set_value("for the paper").run()
    assert names(app) == ["run 1"]
    assert app.query_params["q"] == "tag:paper"
    app.button(key="view-forget").click().run()
    assert read_views(runs) == ()


def test_a_view_without_a_name_is_refused_in_a_sentence(runs: Path) -> None:
    app = open_page("runs", q="tag:paper")
    app.button(key="view-save").click().run()
    assert "must be 1 to 40 printable characters" in app.error[0].value.replace("\\", "")
    assert "view-save" not in [button.key for button in open_page("runs", q="tag:").button]


def test_names_of_views_are_text(runs: Path) -> None:
    save_view(runs, ":red[x] **b** <img src=x>", "tag:paper")
    app = open_page("runs")
    assert ":red[x]" not in app.pills(key="address-view").options[0]


def test_a_dashboard_that_only_looks_offers_views_and_changes_none(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_view(runs, "mine", "tag:paper")
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    app = open_page("runs", q="run")
    assert app.pills(key="address-view").options == ["mine"]
    assert not app.button


def test_compare_takes_what_a_search_fits(runs: Path) -> None:
    app = open_whole("compare", q="train.lr>=2e-3")
    assert "3 of 4 runs match and are compared" in plain(app)
    assert not app.multiselect
    assert len(charts(app)) >= 3
    assert "Only run 1 is selected" in plain(open_page("compare", q="tag:paper"))
    wrong = open_page("compare", q="tag:")
    assert "a value is missing after tag:" in plain(wrong)
    assert not charts(wrong)
