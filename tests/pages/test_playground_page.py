"""The Playground, the ablations of Capacity and the shift lab of Inputs, with a trained model behind them.

The model answers in this process instead of in a child: the same code, without the seconds a child takes to start.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from dynlora.config_files import read_yaml
from dynlora.server.serve import sample_runs_dir
from dynlora.store.measurements import Knockouts
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, open_page, open_whole, words
from tests.pages.trained import Here, plain
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"
HOSTILE = "<img src=x onerror=alert(1)> great $x$ film"


def test_a_text_is_answered_and_explained(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name, text="the film was great")
    text = plain(app)
    assert "Adapter predicts" in text
    assert "base model with head predicts" in text
    assert "gates frozen predicts" in text
    assert "the largest contributions are from" in text.lower()
    assert len(charts(app)) == 3
    html = "".join(element.proto.body for element in app.get("html"))
    assert "great" in html
    assert "layer 1" in html


def test_a_hostile_text_stays_text(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name, text=HOSTILE)
    html = "".join(element.proto.body for element in app.get("html"))
    assert "<img" not in html
    assert "&lt;" in html


def test_a_text_too_long_for_the_address_is_answered_all_the_same(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name)
    assert "Enter a text" in words(app)
    app.text_area[0].set_value("great film " * 200)
    next(button for button in app.button if "Predict" in button.label).click().run()
    assert not app.exception
    assert "text" not in app.query_params
    assert "Adapter predicts" in words(app)


def test_one_text_after_the_other_is_answered(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name)
    for text in ("great film", "dull plot", "lovely music"):
        app.text_area[0].set_value(text)
        next(button for button in app.button if "Predict" in button.label).click().run()
        assert app.query_params["text"] in (text, [text])
        html = "".join(element.proto.body for element in app.get("html"))
        assert re.search(rf"{text.split()[1]} ?</span>", html)


def test_a_second_run_answers_beside(here: Here, run: Path, trained_run: Path, runs_dir: Path) -> None:
    other = runs_dir / f"{trained_run.name[:-8]}0000000f"
    shutil.copytree(trained_run, other)
    app = open_page("playground", run=run.name, text="dull plot", other=other.name)
    assert "the other run predicts" in plain(app)


def test_a_slider_scales_the_adapter_of_the_answer(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name, text="the film was great", strength="0.0")
    text = plain(app)
    assert "The adapter is at strength 0." in text
    adapter, base = (re.search(rf"{who} predicts ([^;.]+\.\d %)", text) for who in ("Adapter", "with head"))
    assert adapter is not None
    assert base is not None
    assert adapter[1] == base[1]
    app.select_slider(key="address-strength").set_value(1.0).run()
    assert "strength" not in app.query_params
    assert "The adapter is at strength" not in plain(app)
    app.select_slider(key="address-strength").set_value(0.5).run()
    assert app.query_params["strength"] in ("0.5", ["0.5"])
    assert "The adapter is at strength 0.5." in plain(app)


def test_a_child_that_fails_is_one_sentence_and_the_page_goes_on(here: Here, run: Path) -> None:
    here.broken = "the model's process was ended by signal 9, possibly because of too little memory; try again"
    app = open_page("playground", run=run.name, text="great film")
    assert "ended by signal 9" in plain(app)
    assert "Predict a file" in words(app)
    here.broken = None
    app.run()
    assert "Adapter predicts" in plain(app)


@pytest.mark.parametrize("page", ["playground", "inputs", "capacity"])
def test_a_run_without_a_model_says_so(page: str, here: Here, runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_whole(page, run=RUN, text="great", example="1")
    assert not app.exception
    reasons = {
        "playground": "Its model cannot answer.",
        "inputs": "has no last adapter; it was not saved, or no step has been trained yet",
        "capacity": "no saved adapter",
    }
    assert reasons[page] in plain(app)
    assert not app.text_area, "a form that nobody answers"


def test_knock_outs_are_started_watched_and_read(here: Here, run: Path) -> None:
    app = open_whole("capacity", run=run.name)
    assert "Module ablation" in words(app)
    before = len(charts(app))
    next(button for button in app.button if button.label == "Measure all modules").click().run()
    assert app.run().get("progress"), "it is watched while it is under way"
    here.finish()
    app.run()
    knockouts = Knockouts.read(run / "knockout.json")
    assert knockouts is not None
    assert len(knockouts.alone) == knockouts.n_modules
    text = plain(app)
    assert "help and" in text
    assert "Spearman" in text
    assert len(charts(app)) == before + 3
    assert "Measure again" in [button.label for button in app.button]


def test_texts_can_be_perturbed_and_groups_told_apart(here: Here, run: Path) -> None:
    app = open_page("inputs", run=run.name, perturbation="cut", strength="0.75")
    next(toggle for toggle in app.toggle if toggle.label == "Evaluate perturbed text").set_value(True).run()
    text = plain(app)
    assert "Truncated (75 %): accuracy" in text
    app = open_page("inputs", run=run.name, lab="group")
    next(toggle for toggle in app.toggle if "Evaluate each group" in toggle.label).set_value(True).run()
    assert any({"group", "examples", "accuracy"} <= set(frame.value.columns) for frame in app.dataframe)


def test_an_example_is_shown_word_by_word(here: Here, run: Path) -> None:
    app = open_page("inputs", run=run.name, example="2")
    html = "".join(element.proto.body for element in app.get("html"))
    assert "layer 0" in html
    assert "adapter" in html


def test_umap_that_is_not_installed_says_how_to_get_it(here: Here, run: Path) -> None:
    pytest.importorskip("sklearn")
    try:
        import umap  # noqa: F401  # pyright: ignore
    except ImportError:
        app = open_page("inputs", run=run.name, plane="UMAP")
        assert "pip install" in words(app)
        assert not app.exception


def test_an_example_that_is_chosen_becomes_the_text(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(runs_dir, run_id="20260101-000000-00000001")
    monkeypatch.setattr(run_picker, "has_model", lambda folder: True)
    app = open_page("playground", run="20260101-000000-00000001")
    assert "1 fine" in app.selectbox(key="playground-example").options[2]
    app.selectbox(key="playground-example").select_index(2).run()
    assert app.text_area(key="playground-text").value == "1 fine"


def test_a_sample_without_its_adapter_says_why_and_how_to_train_it(
    run: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = sample_runs_dir()
    monkeypatch.setattr(run_picker, "sample_runs_dir", lambda: samples)
    (bare, *_) = [folder.name for folder in sorted(samples.glob("2*")) if not run_picker.has_model(folder)]
    app = open_page("playground", run=bare)
    text = "\n".join(info.value for info in app.info)
    assert "Most sample runs are kept without their adapter, to stay small" in text
    assert "Train it again with this command" in text
    (command,) = [block.value for block in app.code if block.value.startswith("dynlora train")]
    words = shlex.split(command)
    assert read_yaml(Path(words[words.index("--config") + 1])) == read_yaml(samples / bare / "config.yaml")
    assert words[words.index("--runs-dir") + 1] == str(runs_dir)
    assert run.name in "".join(link.proto.query_string for link in app.get("page_link"))
