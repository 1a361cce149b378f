"""Every page with every state a run can be in: no exception, and hostile text is text."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch
from tests.pages.app import PAGES, ROOT, RUN_PAGES, actions, charts, is_text, open_page, open_whole, words
from tests.pairwise import alternating
from tests.viz.runs import HOSTILE, make_run

COLD_INIT = PagesManager.__init__


@pytest.mark.parametrize("page", PAGES)
def test_empty_store_says_what_to_do(page: str) -> None:
    app = open_page(page)
    assert "There are no runs yet" in words(app) or page in ("launch", "methods", "tour", "decode", "recycle")


@pytest.mark.parametrize(("page", "drawn"), [("inputs", 3), ("compare", 5), ("methods", 0)])
def test_finished_run(page: str, drawn: int, runs_dir: Path) -> None:
    make_run(runs_dir)
    make_run(runs_dir, run_id="20260101-000000-00000002", strategy="lora", gates=False)
    app = open_whole(page)
    assert not app.error
    assert len(charts(app)) == drawn


@alternating("page, state", ["playground", "shrink"], ["queued", "failed"])  # others in test_states.py
def test_states(page: str, state: str, runs_dir: Path) -> None:
    error = "the disk is full" if state == "failed" else None
    make_run(runs_dir, state=state, steps=7, error=error)
    open_page(page, run="20260101-000000-00000001")


@pytest.mark.parametrize("page", RUN_PAGES)
def test_corrupt_run_is_one_sentence(page: str, runs_dir: Path) -> None:
    folder = make_run(runs_dir)
    (folder / "run.db").write_bytes(b"not a database" * 100)
    app = open_page(page, run="20260101-000000-00000001")
    assert len(app.error) == 1


@alternating("page, run_id", ["run", "capacity"], ["../../etc", "<b>x</b>"])
def test_ids_from_the_address_are_checked(page: str, run_id: str, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page(page, run=run_id)
    assert len(app.error) == 1
    assert "<b>" not in app.error[0].value


@alternating("page, text", ["home", "runs", "playground", "shrink", "compare"], HOSTILE)  # others in test_states.py
def test_hostile_text_is_text(page: str, text: str, runs_dir: Path) -> None:
    make_run(runs_dir, text=text)
    make_run(runs_dir, run_id="20260101-000000-00000002", text=text)
    is_text(open_page(page))


def test_a_link_opened_first_of_all_gets_the_whole_app(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PagesManager, "__init__", COLD_INIT)
    make_run(runs_dir)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=3000)
    app.switch_page("pages/capacity.py").run()
    assert "dynlora" in [element.value.strip("# ") for element in app.sidebar.markdown]


def test_a_double_click_starts_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, dict]] = []

    def start(config: dict, runs_dir: Path, *, key: str, checked: bool) -> launch.RunHandle:
        started.append((key, config))
        return launch.RunHandle("20260101-000000-00000001", runs_dir)

    monkeypatch.setattr("dynlora.viz.launch.form.start", start)
    app = open_page("launch")
    app.button(key="start").click().run()
    app.button(key="start").click().run()
    assert len({key for key, _ in started}) == 1
    assert started[0][1]["train"] == {"steps": 100}
    assert "Started as 20260101-000000-00000001" in words(app)


def test_samples_are_read_only(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    make_run(samples, state="stopped", steps=5)
    app = open_page("run")
    assert not actions(app)
    assert "Read-only" in words(app)


def test_capacity_begins_with_the_newest_run_in_which_rank_moved(runs_dir: Path) -> None:
    moved, still = "20260101-000001-00000000", "20260101-000002-00000000"
    make_run(runs_dir, run_id=moved)
    make_run(runs_dir, run_id=still, strategy="lora", gates=False, moves=False)
    assert open_page("capacity").selectbox(key="address-run").value == moved
    assert open_page("run").selectbox(key="address-run").value == still


def test_module_and_step_stay_when_another_run_is_chosen(runs_dir: Path) -> None:
    first, second = "20260101-000001-00000000", "20260101-000002-00000000"
    make_run(runs_dir, run_id=first)
    make_run(runs_dir, run_id=second, text="other")
    module = "bert.encoder.layer.1.attention.self.key"
    app = open_page("capacity", run=first, step="5", module=module)
    app.selectbox(key="address-run").set_value(second).run()
    assert {name: app.query_params[name] for name in ("run", "step", "module")} in (
        {"run": second, "step": "5", "module": module},
        {"run": [second], "step": ["5"], "module": [module]},
    )
