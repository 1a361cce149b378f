"""The ablation card: nothing whole is lost, samples stay as they came, an end is told to whoever watches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dynlora.analysis import run_summary
from dynlora.analysis.retention import knockout_file
from dynlora.errors import CorruptRunError
from dynlora.inference.worker import Answering
from dynlora.store.lifecycle import annotate
from dynlora.store.measurements import Knockouts
from dynlora.viz import capacity, knockout
from dynlora.viz.ui import run_picker
from tests.pages.app import open_page, plain, press
from tests.pages.trained import Here
from tests.summaries import summary_with
from tests.viz.runs import make_run
from tests.waiting import until


@pytest.fixture(autouse=True)
def _card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the other cards of Capacity, most of the time of a look; `test_playground_page` draws all of them."""
    for name in ("capacity_conclusion", "live_cards", "decision_sections"):
        monkeypatch.setattr(capacity, name, lambda *_, **__: None)
    monkeypatch.setattr(capacity, "ranks_card", lambda *_, **__: None)


@pytest.fixture(scope="module")
def all_measured(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the ablation of every module of the trained run."""
    file = tmp_path_factory.mktemp("measured") / "knockout.json"
    answering = Answering()
    answering._knockout(str(trained_run), "last", str(file))
    while answering.busy:
        answering.advance()
    return file


@pytest.fixture
def measured_run(run: Path, all_measured: Path) -> Path:
    """A trained run whose modules have been measured."""
    shutil.copy(all_measured, run)
    return run


def watched(app: AppTest, here: Here) -> str:
    """Let what is under way come to its end, look until the bar is gone, and return what the page says then."""
    here.finish()
    until(lambda: not app.run().get("progress"), "the end of the ablation")
    return plain(app)


def measured(folder: Path) -> Knockouts:
    """Return what is kept of a run, all of it."""
    knockouts = Knockouts.read(knockout_file(folder))
    assert knockouts is not None
    assert len(knockouts.alone) == knockouts.n_modules
    return knockouts


def test_it_is_watched_by_whoever_comes_and_can_be_stopped(here: Here, run: Path) -> None:
    here.pace = 1
    app = open_page("capacity", run=run.name, section="ablation")
    press(app, "Measure all modules")
    other = open_page("capacity", run=run.name, section="ablation")
    assert "of 12 modules measured" in str(other.get("progress")[0].proto)
    press(other, "Stop")
    assert not other.get("progress")
    app.run()
    assert not app.get("progress")
    knockouts = Knockouts.read(knockout_file(run))
    assert knockouts is not None
    assert 0 < len(knockouts.alone) < knockouts.n_modules
    press(app, "Measure again")
    watched(app, here)
    assert measured(run).alone[0] == knockouts.alone[0]


def test_a_pair_is_measured_on_the_page(here: Here, measured_run: Path) -> None:
    app = open_page("capacity", run=measured_run.name, section="ablation")
    app.multiselect(key="knockout-pair").set_value([4, 1]).run()
    press(app, "Measure pair")
    text = watched(app, here)
    assert "each can replace the other" in text
    assert [effect.modules for effect in measured(measured_run).effects][-1] == (1, 4)


def test_a_child_that_dies_in_the_middle_is_told(here: Here, run: Path) -> None:
    app = open_page("capacity", run=run.name, section="ablation")
    press(app, "Measure all modules")
    here.answering = Answering()
    app.run()
    assert "The ablation ended early, and what it measured is saved: the model's process was restarted" in plain(app)
    assert not app.get("progress")
    assert "ended early" in plain(open_page("capacity", run=run.name, section="ablation")), "others are told too"
    press(app, "Measure again")
    assert "ended early" not in plain(app)


def test_a_sample_stays_as_it_came(
    here: Here, measured_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    came = (measured_run / "knockout.json").read_bytes()
    samples, empty = measured_run.parent, tmp_path / "own"
    empty.mkdir()
    monkeypatch.setattr(run_picker, "sample_runs_dir", lambda: samples)
    monkeypatch.setenv("DYNLORA_RUNS_DIR", str(empty))
    app = open_page("capacity", run=measured_run.name, section="ablation")
    assert "Spearman" in plain(app)
    app.selectbox(key="address-heldout").set_value(128)
    press(app, "Measure again")
    watched(app, here)
    assert (measured_run / "knockout.json").read_bytes() == came
    assert knockout_file(measured_run).is_relative_to(cache)
    measured(measured_run)


def test_a_run_without_its_adapter_shows_what_is_known_and_offers_nothing(here: Here, measured_run: Path) -> None:
    for name in ("adapter", "checkpoint"):
        shutil.rmtree(measured_run / name, ignore_errors=True)
    app = open_page("capacity", run=measured_run.name, section="ablation")
    text = plain(app)
    assert "This run has no saved adapter" in text
    assert "Spearman" in text
    assert "Measure again" not in [button.label for button in app.button]


@pytest.mark.parametrize(
    ("by", "message", "not_said"),
    [
        (None, "This run has no saved adapter", "RecordCallback"),
        ("transformers", "it is ablated in its own script: RecordCallback(..., ablate_rows=256)", "no saved adapter"),
        ("a loop of its own", "its adapter is not here", "RecordCallback"),
    ],
)
def test_only_a_run_of_the_callback_is_sent_to_it(
    by: str | None, message: str, not_said: str, here: Here, runs_dir: Path
) -> None:
    folder = make_run(runs_dir)
    if by is not None:
        annotate(folder, meta={"recorded_by": by})
    text = plain(open_page("capacity", run=folder.name, section="ablation"))
    assert message in text
    assert not_said not in text


LORA: dict[str, Any] = {"ranks": {"a": 4, "b": 4}, "planned_events": 0, "own_signals": {}}


@pytest.mark.parametrize(
    ("more", "is_uniform"),
    [
        ({}, True),
        ({"ranks": {"a": 4, "b": 3}}, False),
        ({"ranks": {}}, False),
        ({"planned_events": 9}, False),
        ({"own_signals": {"dimension": {}}}, False),
        ({"origin": {"run": None, "name": "small"}}, False),
    ],
)
def test_lora_as_it_is_is_a_uniform_twin(more: dict[str, Any], is_uniform: bool) -> None:
    assert run_summary.is_uniform(summary_with(LORA | more)) is is_uniform


def test_a_twin_has_the_same_terms_and_the_nearest_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"status": "finished", "model": "m", "data": "d", "max_steps": 300, "params": {"budget": 8}}
    other = {
        "seed3": {"seed": 3},
        "seed1": {"seed": 1},
        "short": {"max_steps": 120},
        "big": {"params": {"budget": 9}},
        "stopped": {"status": "stopped"},
        "moved": {},
        "own": {},
    }
    runs = pd.DataFrame(
        [{**same, "seed": 0, "id": key, "folder": str(tmp_path / key)} | row for key, row in other.items()]
    )
    monkeypatch.setattr(
        knockout.cached_queries,
        "ask",
        lambda _, folder: summary_with(LORA | ({"planned_events": 2} if folder.name == "moved" else {})),
    )
    own = summary_with({**same, "seed": 0})
    twins = knockout.uniform_twins(tmp_path / "own", own, runs)
    assert twins["id"].tolist() == ["seed1", "seed3"]

    def unreadable(*_: object) -> dict[str, Any]:
        raise CorruptRunError("a size of the run has the invalid value -9223372036854775808")

    monkeypatch.setattr(knockout.cached_queries, "ask", unreadable)
    assert knockout.uniform_twins(tmp_path / "own", own, runs).empty, "no matter of this page"
