"""The Recycle page and the Playground with recycles, distillations and merges: finished, and started from the form."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs import quick_launch
from dynlora.kinds.distil.settings import DistilSettings
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.viz import kinds as viz_kinds
from dynlora.viz import trials
from dynlora.viz.ui import model_client
from tests.conftest import Once
from tests.kinds.distil.conftest import made_student
from tests.kinds.distil.written import written_distil
from tests.kinds.merge.written import PLAN, written_merge
from tests.kinds.recycle.written import written_recycle
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, press, words
from tests.pages.test_home_page import links
from tests.pages.trained import Here


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


def test_a_distillation_at_work_shows_texts_and_steps(runs_dir: Path) -> None:
    app = open_page("recycle", run=written_distil(runs_dir, state="stopped", until=6).name)
    assert len(charts(app)) == 1
    (texts,) = [frame.value for frame in app.dataframe if "ended" in frame.value]
    assert texts["text"].tolist()[1] == "(empty)"


@pytest.fixture
def student(once: Once, runs_dir: Path) -> Path:
    """A finished distillation of two tiny teachers, with them, in the runs folder of the test."""
    made = once.made("student", made_student)
    shutil.copytree(made.parent, runs_dir, dirs_exist_ok=True)
    return runs_dir / made.name


def test_a_student_is_taken_away_and_written_with_from_its_page(student: Path) -> None:
    app = open_page("recycle", run=student.name)
    assert {"Adapter", "Merged model"} <= {button.proto.label for button in app.get("download_button")}
    assert f"dynlora predict {student.name}" in "".join(block.value for block in app.code)
    assert "Write with it" in links(app)


def test_nothing_is_offered_of_a_distillation_without_a_student(here: Here, runs_dir: Path) -> None:
    folder = written_distil(runs_dir, state="stopped", until=6)
    (folder / "checkpoint").mkdir()
    app = open_page("recycle", run=folder.name)
    keys = [str(button.key) for button in app.get("download_button")]
    assert [key for key in keys if not key.startswith("csv-")] == ["report"]
    assert "Write with it" not in links(app)
    app = open_page("playground")
    assert not app.selectbox


def test_a_student_writes_in_the_playground_beside_a_teacher(here: Here, student: Path) -> None:
    teacher = DistilSettings.of_run(student).teachers[0]
    app = open_page("playground", run=student.name, text="abab", tokens="6", other=teacher)
    while [button for button in app.button if button.key == "talk-stop"]:
        app.run()
    assert len(app.selectbox(key="address-run").options) == 3
    text = "".join(str(getattr(one, "value", "")) for one in app.get("html"))
    assert all(f"{who} · 6 tokens" in text for who in ("Adapter", "Base model", "Run teacher 0")), text[-2000:]
    assert "Attribution by module" in words(app)
    assert "How it was made" in links(app)
    assert len(charts(app)) == 2


def test_the_last_trained_run_stays_that_of_the_session(here: Here, student: Path) -> None:
    teacher = DistilSettings.of_run(student).teachers[0]
    app = open_page("playground", run=teacher)
    app.selectbox(key="address-run").set_value(student.name).run()
    assert app.session_state["last_run"] == teacher


def test_the_form_takes_runs_that_write_and_keeps_kinds_apart(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_launch, "wake", lambda root: None)
    viz_kinds._fit.clear()
    one = trained(runs_dir, name="one", task="causal_lm", model="smollm2-135m")
    two = trained(runs_dir, name="two", task="causal_lm", model="smollm2-135m")
    three = trained(runs_dir, name="three", task="classification", model="smollm2-135m", labels=["a", "b"])
    app = open_page("recycle")
    app.multiselect(key="recycle-teachers").set_value([one, three]).run()
    assert "choose runs of one kind" in words(app)
    app.multiselect(key="recycle-teachers").set_value([one, two]).run()
    assert "This is data\\-free distillation, not LoRA Recycle" in words(app)
    assert not [widget for widget in app.number_input if widget.key == "recycle-ways"]
    app.number_input(key="distil-rank").set_value(5).run()
    press(app, "Start")
    settings = DistilSettings.of_run(runs_dir / app.query_params["run"])
    assert (set(settings.teachers), settings.rank, settings.samples) == ({one, two}, 5, 64)


@pytest.mark.parametrize(("head", "is_asked"), [("equal", True), ("own", False)])
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


def test_without_a_meta_lora_the_tab_leads_to_where_one_is_made(runs_dir: Path) -> None:
    assert "Finished classifiers teach one meta" in words(open_page("playground", tab="few-shot"))
