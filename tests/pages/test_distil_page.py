"""The Recycle page with runs that write: finished, at work, started from the form."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dynlora.jobs import quick_launch
from dynlora.kinds.distil.settings import DistilSettings
from dynlora.viz import kinds as viz_kinds
from tests.conftest import Once
from tests.kinds.distil.conftest import made_student
from tests.kinds.distil.written import written_distil
from tests.kinds.recycle.written import written_recycle
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, words
from tests.pages.test_home_page import links
from tests.pages.test_recycle_page import press
from tests.pages.trained import Here


def test_a_finished_distillation_begins_with_its_conclusion(runs_dir: Path) -> None:
    folder = written_distil(runs_dir)
    app = open_page("recycle", run=folder.name)
    text = words(app)
    assert "The student is nearer to its teachers than the base model" in text
    assert "This is data\\-free distillation, not LoRA Recycle" in text
    assert len(charts(app)) == 3
    assert not app.exception


@pytest.mark.parametrize(("until", "drawn"), [(0, 0), (3, 0), (6, 1)])
def test_a_distillation_at_work_shows_texts_and_steps(until: int, drawn: int, runs_dir: Path) -> None:
    folder = written_distil(runs_dir, state="stopped", until=until)
    app = open_page("recycle", run=folder.name)
    assert "Not tested yet" in words(app)
    assert len(charts(app)) == drawn
    frames = [frame.value for frame in app.dataframe if "ended" in frame.value]
    assert bool(frames) == (until > 0)
    if frames:
        assert frames[0]["text"].tolist()[1] == "(empty)"
    assert not app.exception


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
    assert not app.exception, [str(error.value) for error in app.exception]
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
    assert not app.exception
    assert app.session_state["last_run"] == teacher


def test_both_kinds_are_on_the_page(runs_dir: Path) -> None:
    one, other = written_recycle(runs_dir), written_distil(runs_dir)
    picker = open_page("recycle").selectbox(key="address-run")
    assert len(picker.options) == 2
    assert "beats the base model" in words(open_page("recycle", run=one.name))
    assert "nearer to its teachers" in words(open_page("recycle", run=other.name))


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
