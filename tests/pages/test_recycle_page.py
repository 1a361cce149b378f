"""The Recycle page and the few-shot tab of the Playground: empty, at work, finished, started from the form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs import quick_launch
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.viz import kinds as viz_kinds
from dynlora.viz import trials
from dynlora.viz.ui import model_client
from tests.kinds.recycle.written import written_recycle
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, words


class Child:
    """Answers few-shot questions as the inference child does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def ask(self, what: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return the first label for each text."""
        assert what == "few_shot"
        self.requests.append(arguments)
        labels = dict.fromkeys(label for _, label in arguments["support"])
        first = arguments["support"][0]
        return [
            {
                "text": text,
                "label": first[1],
                "distances": dict.fromkeys(labels, 1.0),
                "nearest": {"text": first[0], "label": first[1], "distance": 0.5},
            }
            for text in arguments["texts"]
        ]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    fake = Child()
    monkeypatch.setattr(model_client, "shared", lambda: fake)
    return fake


def press(app: AppTest, label: str) -> AppTest:
    """Press a button and check that nothing broke."""
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def test_without_a_recycle_the_page_says_what_it_is_for(runs_dir: Path) -> None:
    text = words(open_page("recycle"))
    assert "One adapter is made of several finished ones" in text
    assert "No finished run can teach yet" in text


def test_a_recycle_begins_with_its_conclusion(runs_dir: Path) -> None:
    folder = written_recycle(runs_dir)
    app = open_page("recycle", run=folder.name)
    text = words(app)
    assert "The meta\\-LoRA beats the base model at 1 example per class" in text
    assert len(charts(app)) == 6
    assert app.selectbox(key="address-class").value == "0"


@pytest.mark.parametrize("until", [0, 2, 6])
def test_a_recycle_at_work_says_what_it_does(until: int, runs_dir: Path) -> None:
    folder = written_recycle(runs_dir, state="stopped", until=until)
    text = words(open_page("recycle", run=folder.name))
    assert "Not tested yet" in text


def test_the_form_says_why_a_run_cannot_teach_and_queues_the_others(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_launch, "wake", lambda root: None)
    viz_kinds._fit.clear()
    one = trained(runs_dir, name="one", task="classification", model="minilm", labels=["a", "b", "c"])
    two = trained(runs_dir, name="two", task="classification", model="minilm", labels=["d", "e"])
    trained(runs_dir, name="three", task="regression", model="minilm")
    app = open_page("recycle")
    assert "learned regression; give a run that classifies" in words(app)
    app.multiselect(key="recycle-teachers").set_value([one]).run()
    assert "the teachers have 3 classes together; give fewer ways" in words(app)
    app.multiselect(key="recycle-teachers").set_value([one, two]).run()
    press(app, "Start")
    settings = RecycleSettings.of_run(runs_dir / app.query_params["run"])
    assert set(settings.teachers) == {one, two}


def test_teachers_of_a_different_number_of_blocks_are_not_mixed(runs_dir: Path) -> None:
    viz_kinds._fit.clear()
    facts = {"task": "classification", "model": "minilm", "labels": ["a", "b", "c"]}
    whole = trained(runs_dir, **facts)
    short = trained(runs_dir, **facts, config={"model": {"name": "minilm", "layers": 2}})
    app = open_page("recycle")
    app.multiselect(key="recycle-teachers").set_value([whole, short]).run()
    text = words(app)
    assert "the first 2 blocks of minilm" in text
    assert "give runs of one base model" in text
    assert next(button for button in app.button if button.label == "Start").disabled


def test_the_playground_has_the_tab_only_where_there_is_something_to_try(run: Path, runs_dir: Path) -> None:
    assert not open_page("playground", run=run.name).get("button_group")
    (written_recycle(runs_dir) / "adapter").mkdir()
    assert trials.can_try_few_shot()


def test_pasted_examples_are_answered_at_once(runs_dir: Path, child: Child) -> None:
    folder = written_recycle(runs_dir)
    (folder / "adapter").mkdir()
    app = open_page("playground", tab="few-shot", meta=folder.name)
    assert child.requests[0]["folder"] == str(folder)
    assert [label for _, label in child.requests[0]["support"]] == ["delivery", "delivery", "refund", "refund"]
    assert "Nearest of 2 classes by squared distance" in words(app)
    app.text_area(key="few-shot-examples").set_value("only one line").run()
    assert "line 1" in words(app)
    assert not app.exception


def test_without_a_meta_lora_the_tab_leads_to_where_one_is_made(runs_dir: Path) -> None:
    assert "Finished classifiers teach one meta" in words(open_page("playground", tab="few-shot"))
