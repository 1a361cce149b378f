"""The Playground, the ablations of Capacity and the shift lab of Inputs, with a trained model behind them.

The model answers in this process instead of in a child: the same code, without the seconds a child takes to start.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.config_files import read_yaml
from dynlora.server.serve import sample_runs_dir
from dynlora.store import queries
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, field, open_page, plain, words
from tests.pages.trained import Here, lent, save_rows, train
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"
HOSTILE = "<img src=x onerror=alert(1)> great $x$ film"


def test_a_text_is_answered_and_explained(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name, text=HOSTILE)
    text = plain(app)
    assert "Adapter predicts" in text
    assert "base model with head predicts" in text
    assert "gates frozen predicts" in text
    assert "the largest contributions are from" in text.lower()
    assert len(charts(app)) == 4
    html = "".join(element.proto.body for element in app.get("html"))
    assert "great" in html
    assert "layer 1" in html
    assert "<img" not in html
    assert "&lt;" in html


def test_a_text_too_long_for_the_address_is_answered_all_the_same(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name)
    assert "Enter a text" in words(app)
    app.text_area[0].set_value("great film " * 200)
    next(button for button in app.button if "Predict" in button.label).click().run()
    assert "text" not in app.query_params
    assert "Adapter predicts" in words(app)


def test_one_text_after_the_other_is_answered(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name)
    for text in ("great film", "dull plot"):
        app.text_area[0].set_value(text)
        next(button for button in app.button if "Predict" in button.label).click().run()
        assert app.query_params["text"] == text
        html = "".join(element.proto.body for element in app.get("html"))
        assert re.search(rf"{text.split()[1]} ?</span>", html)


def test_a_slider_scales_the_adapter_of_the_answer(here: Here, run: Path) -> None:
    app = open_page("playground", run=run.name, text="the film was great", strength="0.0")
    text = plain(app)
    assert "The adapter is at strength 0." in text
    adapter, base = (re.search(rf"{who} predicts ([^;.]+\.\d %)", text) for who in ("Adapter", "with head"))
    assert adapter is not None
    assert base is not None
    assert adapter[1] == base[1]
    app.select_slider(key="address-strength-26").set_value(1.0).run()
    assert "strength" not in app.query_params
    assert "The adapter is at strength" not in plain(app)
    app.select_slider(key="address-strength-26").set_value(0.5).run()
    assert app.query_params["strength"] == "0.5"
    assert "The adapter is at strength 0.5." in plain(app)


def test_a_run_without_a_model_says_so(here: Here, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("playground", run=RUN, text="great")
    assert "Its model cannot answer." in plain(app)
    assert not app.text_area, "a form that nobody answers"


def test_an_example_is_shown_word_by_word(here: Here, run: Path) -> None:
    app = open_page("inputs", run=run.name, example="2")
    html = "".join(element.proto.body for element in app.get("html"))
    assert "layer 0" in html
    assert "adapter" in html


def test_an_example_that_is_chosen_becomes_the_text(
    here: Here, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs_dir)
    monkeypatch.setattr(run_picker, "has_model", lambda folder: True)
    app = open_page("playground", run="20260101-000000-00000001")
    assert "1 fine" in app.selectbox(key="playground-example").options[2]
    app.selectbox(key="playground-example").select_index(2).run()
    assert app.text_area(key="playground-text").value == "1 fine"
    app = open_page("playground", run="20260101-000000-00000001")
    app.button(key="suggestion-0").click().run()
    assert "0 fine" in str(app.query_params["text"])


def test_a_sample_without_its_adapter_says_why_and_how_to_train_it(
    run: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = sample_runs_dir()
    monkeypatch.setattr(run_picker, "sample_runs_dir", lambda: samples)
    folders = [folder for folder in sorted(samples.glob("2*")) if queries.run_summary(folder).kind == "train"]
    (bare, *_) = [folder.name for folder in folders if not run_picker.has_model(folder)]
    app = open_page("playground", run=bare)
    text = "\n".join(info.value for info in app.info)
    assert "Most sample runs are kept without their adapter, to stay small" in text
    assert "Train it again with this command" in text
    (command,) = [block.value for block in app.code if block.value.startswith("dynlora train")]
    words = shlex.split(command)
    assert read_yaml(Path(words[words.index("--config") + 1])) == read_yaml(samples / bare / "config.yaml")
    assert words[words.index("--runs-dir") + 1] == str(runs_dir)
    assert run.name in "".join(link.proto.query_string for link in app.get("page_link"))


FILE = "playground-file"


@pytest.fixture(scope="module")
def ungated_run(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny data without gates."""
    return train(tiny_bert, tiny_data, tmp_path_factory.mktemp("ungated"))


@pytest.fixture(scope="module")
def pair_run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pairs of texts."""
    folder = tmp_path_factory.mktemp("pairs")
    return train(tiny_bert, save_rows(folder / "data", "pairs"), folder / "runs", data__group_by="none")


@pytest.fixture(scope="module")
def numbers_run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers."""
    folder = tmp_path_factory.mktemp("others")
    return train(tiny_bert, save_rows(folder / "numbers", "numbers"), folder / "runs", data__group_by="none")


def offered(app: AppTest) -> list[str]:
    """Return the second runs that can be chosen."""
    return field(app.selectbox, "Compare with").options


def sent(app: AppTest, name: str, content: str) -> AppTest:
    """Send a small file."""
    app.file_uploader(key=FILE).set_value((name, content.encode(), "text/plain")).run()
    return app


def predictions(app: AppTest) -> list[list[str]]:
    """Return the columns of the tables of predictions on the page."""
    return [list(frame.value.columns) for frame in app.dataframe if "prediction" in frame.value.columns]


def test_only_runs_with_the_same_task_are_offered_beside_and_answer_a_file_too(
    here: Here, trained_run: Path, ungated_run: Path, pair_run: Path, numbers_run: Path, runs_dir: Path
) -> None:
    own, same = lent(trained_run, runs_dir), lent(ungated_run, runs_dir)
    for folder in (pair_run, numbers_run):
        lent(folder, runs_dir)
    app = open_page("playground", run=own, text="dull plot", other=same)
    assert len(offered(app)) == 2
    page_text = plain(app)
    assert "gates frozen predicts" in page_text
    assert "the other run predicts" in page_text
    sent(app, "films.csv", "text\ngreat film\ndull plot\n")
    (frame,) = [frame.value for frame in app.dataframe if "prediction" in frame.value.columns]
    columns = ["gates frozen", "base model with head", "the other run"]
    assert list(frame.columns) == ["text", "prediction", "certainty", *columns]
    assert frame["text"].tolist() == ["great film", "dull plot"]
    assert set(frame[columns].to_numpy().ravel()) <= {"good", "bad"}
    assert "2 rows." in plain(app)
    page_text = plain(open_page("playground", run=own, text="dull plot", other=numbers_run.name))
    assert "with a number as the label" in page_text
    assert "the other run predicts" not in page_text
    assert "Adapter predicts" in page_text
    assert "there is no run" in plain(open_page("playground", run=own, other="20990101-000000-00000000"))


def test_a_run_without_gates_has_none_to_freeze(here: Here, ungated_run: Path, runs_dir: Path) -> None:
    app = open_page("playground", run=lent(ungated_run, runs_dir), text="dull plot")
    text = plain(app)
    assert "Adapter predicts" in text
    assert "gates frozen" not in text
    assert "gates frozen" not in json.dumps(charts(app))
    assert predictions(sent(app, "a.txt", "great film\n")) == [
        ["text", "prediction", "certainty", "base model with head"]
    ]


def test_numbers_are_answered_with_numbers(here: Here, numbers_run: Path, runs_dir: Path) -> None:
    app = open_page("playground", run=lent(numbers_run, runs_dir), text="dull plot")
    assert "adapter: " in plain(app)
    app = sent(app, "a.txt", "great film\ndull plot\n")
    frame = next(frame.value for frame in app.dataframe if "prediction" in frame.value.columns)
    assert frame["prediction"].dtype == float


def test_pairs_are_asked_in_two_fields_and_read_from_files(here: Here, pair_run: Path, runs_dir: Path) -> None:
    app = open_page("playground", run=lent(pair_run, runs_dir), text="great film")
    assert "Enter a text" in words(app)
    app.text_area(key="playground-pair").set_value("dull plot")
    next(button for button in app.button if "Predict" in button.label).click().run()
    assert app.query_params["pair"] == "dull plot"
    assert "Adapter predicts" in plain(app)
    html = "".join(element.proto.body for element in app.get("html"))
    assert "plot </span>" in html

    app = sent(app, "a.jsonl", '{"sentence1": "great film", "sentence2": "dull plot"}\n')
    assert predictions(app) == [["text", "second text", "prediction", "certainty", "base model with head"]]
    app = sent(app, "b.csv", "sentence1,sentence2\ngreat film,\n")
    (error,) = app.error
    assert "row 1 has no second text" in error.value


def test_a_run_that_kept_no_adapter_is_not_offered_beside(
    here: Here, trained_run: Path, ungated_run: Path, runs_dir: Path
) -> None:
    own, other = lent(trained_run, runs_dir), lent(ungated_run, runs_dir)
    for name in ("adapter", "checkpoint"):
        shutil.rmtree(runs_dir / other / name, ignore_errors=True)
    app = open_page("playground", run=own, text="dull plot", other=other)
    assert len(offered(app)) == 1
    text = plain(app)
    assert "has no saved adapter, or is this run; select another run" in text
    assert "Adapter predicts" in text


def test_umap_that_is_not_installed_says_how_to_get_it(here: Here, run: Path) -> None:
    pytest.importorskip("sklearn")
    try:
        import umap  # noqa: F401  # pyright: ignore
    except ImportError:
        app = open_page("inputs", run=run.name, plane="UMAP")
        assert "pip install" in words(app)
        assert not app.exception
