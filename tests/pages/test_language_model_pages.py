"""The pages of a run that learned to write: every one opens, and the texts are there from step 0 on."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.training import run as training
from tests.pages.app import open_page, words
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm


@pytest.fixture
def writer(tmp_path: Path, runs_dir: Path) -> str:
    """Id of a finished run of a tiny decoder."""
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
    values = lm_values(save_tiny_lm(tmp_path / "model"), save_problems(tmp_path / "data"), train__steps=4)
    outcome = training.train(parse_config(values), runs_dir, progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder.name


def test_every_page_opens_and_texts_are_read_step_by_step(writer: str) -> None:
    app = open_page("run", run=writer, section="results")
    said = words(app).replace("\\", "")
    assert "Generated texts" in said
    assert "of 6 answers are correct (95 % CI" in said
    assert app.select_slider(key="generations-step-2").options == ["0", "4"]
    app.selectbox(key="generations-prompt").set_value(1).run()
    assert not app.exception
    for page in ("capacity", "inputs", "compare", "playground", "runs", "home"):
        open_page(page, run=writer)


def test_examples_have_prompts_completions_and_right_tokens_on_every_page(writer: str) -> None:
    for page, address in (("run", {"section": "results"}), ("inputs", {})):
        frames = [one.value for one in open_page(page, run=writer, **address).dataframe]
        examples = [frame for frame in frames if "completion" in frame.columns]
        assert examples, page
        for frame in examples:
            assert any(str(name).startswith("right tokens") for name in frame.columns)
            assert not {"label", "true", "prediction"} & set(frame.columns)


def test_the_report_holds_the_generated_texts(writer: str, runs_dir: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", writer, "--runs-dir", str(runs_dir), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Generated texts at step 4" in page
    assert "of 6 answers are correct" in page
    assert "right tokens" in page


@pytest.mark.usefixtures("here")
def test_the_playground_shows_who_continues_a_prompt_and_how(writer: str) -> None:
    app = open_page("playground", run=writer, text="a2:")
    assert not app.error
    said = words(app)
    assert "Continuations" in said
    assert "The adapter continues the text" in said
    assert "Attribution by word" not in said
