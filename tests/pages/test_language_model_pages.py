"""The pages of a run that learned to write: every one opens, and the texts are there from step 0 on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.analysis.pairing import RunPairs
from dynlora.config import parse_config
from dynlora.store import queries
from dynlora.training import run as training_run
from dynlora.viz.ui import cached_queries
from tests.pages.app import charts, open_page, open_whole, plain, press
from tests.pages.trained import Here, lent
from tests.tiny_lm import lm_values, save_lines, save_problems, save_tiny_lm, tiny_problems


@pytest.fixture(scope="module")
def trained_writers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of a tiny decoder on the same data: one with gates."""
    folder = tmp_path_factory.mktemp("writers")
    for name in ("model", "data"):
        (folder / name).mkdir()
    model, data = save_tiny_lm(folder / "model"), save_problems(folder / "data")
    folders = []
    for strategy in ({"name": "lora"}, {"name": "dynamic", "gates": "module"}):
        own = {"strategy": strategy, "data__group_by": "difficulty", "log__retention": 1}
        values = lm_values(model, data, train__steps=4, **own)
        outcome = training_run.train(parse_config(values), folder / "runs", progress=False)
        assert outcome.state == "finished", outcome.error
        folders.append(outcome.folder)
    return folders


@pytest.fixture
def writer(trained_writers: list[Path], runs_dir: Path) -> str:
    """Id of a finished run of a tiny decoder."""
    return lent(trained_writers[0], runs_dir)


@pytest.fixture
def gated(trained_writers: list[Path], runs_dir: Path) -> str:
    """Id of one on the same data with gates."""
    return lent(trained_writers[1], runs_dir)


def texts(app: AppTest) -> str:
    """Return the HTML on the page, without its style sheet."""
    blocks = [str(getattr(one, "value", "")) for one in app.get("html")]
    return "\n".join(text for text in blocks if not text.startswith("<style"))


def finished(app: AppTest) -> AppTest:
    """Look again until nobody writes; each look lets the model write a little."""
    while [button for button in app.button if button.key == "talk-stop"]:
        app.run()
    return app


def test_every_page_opens_and_texts_are_read_step_by_step(here: Here, writer: str) -> None:
    app = open_page("run", run=writer, section="results")
    assert "of 6 answers are correct" in plain(app)
    assert app.select_slider(key="generations-step-2").options == ["0", "4"]
    written = texts(app)
    assert written.index("<small>Base model</small>") < written.index("<small>Step 4")
    app.selectbox(key="generations-prompt").set_value(1).run()
    for page in ("capacity", "inputs", "compare", "playground", "runs", "home"):
        open_page(page, run=writer)


def test_exact_match_is_paired_over_the_prompts_that_both_continued(writer: str, gated: str, runs_dir: Path) -> None:
    folders = {run: runs_dir / run for run in (writer, gated)}
    summaries = {run: queries.run_summary(folder) for run, folder in folders.items()}
    ends = [queries.signal_at(folder, "held_out_exact_match", (4,))[4] for folder in folders.values()]
    expected = (100 * (ends[1] - ends[0])).dropna().tolist()
    assert len(expected) == 6 < len(ends[0])
    differences = RunPairs(folders, summaries, lambda query, *arguments: query(*arguments)).differences(
        [(0, writer, gated)]
    )
    side = next(side for side in differences if side.key == "exact_match")
    assert side.differences[0].tolist() == expected
    assert not side.low_is_good
    assert "Paired over 1 common seed and 6 examples" in plain(open_whole("compare", runs=f"{writer},{gated}"))


def test_a_link_with_a_prompt_is_continued_by_adapter_and_base_as_they_write(here: Here, writer: str) -> None:
    here.pace = 1
    app = open_page("playground", run=writer, text="a2:")
    assert "Stop" in [button.label for button in app.button]
    assert "so far" in texts(app)
    finished(app)
    assert not app.error
    assert "The adapter continues the text differently from the base model (greedy, at most 12 tokens)" in plain(app)
    answers = texts(app)
    assert "Adapter · " in answers
    assert "Base model · " in answers
    assert "so far" not in answers


def test_stop_keeps_what_was_written_and_another_text_can_be_asked(here: Here, writer: str) -> None:
    here.pace = 1
    app = open_page("playground", run=writer, text="a2:", tokens="200")
    press(app, "Stop")
    assert ", stopped" in texts(app)
    assert not app.error
    here.pace = 50
    app.text_area(key="playground-text").set_value("b1:")
    press(app, "Generate")
    finished(app)
    assert ", stopped" not in texts(app)
    assert app.query_params["text"] == "b1:"


def test_a_chat_is_kept_over_pages_until_it_is_cleared(here: Here, runs_dir: Path, tmp_path: Path) -> None:
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
    for name, n in (("train", 40), ("validation", 8)):
        turns = [(("user", row["prompt"]), ("assistant", row["completion"])) for row in tiny_problems(n)]
        talks = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in turns]
        save_lines(tmp_path / "data" / f"{name}.jsonl", talks)
    values = lm_values(save_tiny_lm(tmp_path / "model"), tmp_path / "data", train__steps=2)
    chatter = training_run.train(parse_config(values), runs_dir, progress=False).folder.name
    here.pace = 50
    app = open_page("playground", run=chatter, tokens="8")
    for message in ("a2:", "b1:"):
        app.chat_input(key="talk-message").set_value(message).run()
        finished(app)
        assert app.query_params["text"] == "a2:", "the link of a conversation has its first message"
    assert "The adapter answers" in plain(app)
    assert texts(app).count("dl-asked") == 2
    app.switch_page("pages/inputs.py").run()
    app.switch_page("pages/playground.py").run()
    assert texts(app).count("dl-asked") == 2
    app.button(key="talk-clear").click().run()
    assert "dl-asked" not in texts(app)


def test_tokens_have_probabilities_and_modules_are_measured_cancelled_and_measured_again(
    here: Here, writer: str
) -> None:
    here.pace = 50
    app = finished(open_page("playground", run=writer, text="a2:"))
    assert "p(token): adapter" in texts(app)
    app.selectbox(key="talk-token").set_value(0).run()
    (frame,) = [one.value for one in app.dataframe if "p (adapter)" in one.value.columns]
    assert len(frame) == 5
    assert frame["p (adapter)"].is_monotonic_decreasing
    assert "Estimate of 14 modules: the largest contribution is from" in plain(app)
    assert len(charts(app)) == 2
    here.pace = 2
    press(app, "Measure all modules")
    assert "of 14 modules" in str(app.get("progress")[0].proto)
    press(app, "Cancel")
    assert "Cancelled after" in plain(app)
    here.pace = 50
    press(app, "Measure all modules")
    while [button for button in app.button if button.label == "Cancel"]:
        app.run()
    text = plain(app)
    assert "The largest contribution is from" in text
    assert len(charts(app)) == 2


def test_what_cannot_be_had_is_a_sentence(here: Here, writer: str, runs_dir: Path) -> None:
    here.pace = 50
    app = finished(open_page("playground", run=writer, text="x" * 300))
    assert "and the model reads at most 256 with what it writes" in "\n".join(error.value for error in app.error)
    here.broken = "the model's process ended by signal 9"
    app = open_page("playground", run=writer, text="a2:", tokens="5")
    assert "ended by signal 9" in "\n".join(error.value for error in app.error)
    here.broken = None
    shutil.rmtree(runs_dir / writer / "adapter")
    shutil.rmtree(runs_dir / writer / "checkpoint", ignore_errors=True)
    app = open_page("playground", run=writer, text="a2:")
    assert "its adapter was removed. Its model cannot answer. Train it again with this command." in plain(app)
    (command,) = [block.value for block in app.code if block.value.startswith("dynlora train")]
    assert str(runs_dir / writer / "config.yaml") in command


def test_a_link_that_holds_nonsense_opens(here: Here, writer: str) -> None:
    here.pace = 50
    app = open_page("playground", run=writer, temperature="nan", seed="-5", tokens="many", mode="x", text="<b>a</b>")
    finished(app)
    assert not app.error
    assert app.number_input(key="address-temperature").value == 0.0
    assert app.number_input(key="address-seed").value == 0
    assert app.number_input(key="address-tokens").value == 12


def looked_at(app: AppTest, label: str) -> list[dict]:
    """Return the first table that has a column of this name, as rows."""
    return next(one.value for one in app.dataframe if label in one.value.columns).to_dict("records")


def test_inputs_shows_where_the_adapter_helps_by_example_and_by_token(here: Here, writer: str) -> None:
    here.pace = 200
    app = open_page("inputs", run=writer, example="0")
    rows = looked_at(app, "difference")
    assert [row["difference"] for row in rows] == sorted((row["difference"] for row in rows), reverse=True)
    blocks = texts(app)
    assert "adapter, step 4" in blocks
    assert "not part of the loss" in blocks
    press(app, "Compute token losses of 40 examples")
    (table,) = [one.value for one in app.dataframe if "context" in one.value.columns]
    assert table["difference"].is_monotonic_decreasing


def forget_adapters(runs_dir: Path, run: str) -> None:
    """Remove all adapters that a run kept."""
    for name in ("adapter", "adapter-best", "checkpoint"):
        shutil.rmtree(runs_dir / run / name, ignore_errors=True)


def test_tokens_of_every_evaluation_are_shown_also_without_an_adapter(here: Here, writer: str, runs_dir: Path) -> None:
    forget_adapters(runs_dir, writer)
    app = open_page("inputs", run=writer, example="0", **{"token-colour": "loss"})
    slider = app.select_slider(key="address-token-step-2")
    assert slider.options[0] == "0 (base)"
    assert slider.options[-1].endswith("last)")
    assert "nats with the adapter (step 4)" in plain(app)
    slider.set_value(0).run()
    assert app.query_params["token-step"] == "0"
    blocks = texts(app)
    for line in ("base", "adapter, step 0 (base)", "adapter, step 4 ("):
        assert f"<small>{line}" in blocks
    assert "nats with the adapter (step 0)" in plain(app)
    assert "probe examples: mean decrease" in plain(app)


def test_a_run_of_before_says_why_there_is_no_slider(
    here: Here, writer: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = cached_queries.signal_names
    monkeypatch.setattr(
        cached_queries, "signal_names", lambda folder: [one for one in names(folder) if one != "probe_token_loss"]
    )
    here.pace = 200
    app = open_page("inputs", run=writer, example="0")
    assert "recorded no token losses at its evaluations" in plain(app)
    assert "nats with the adapter (step 4)" in plain(app), "the kept adapters are asked"
    forget_adapters(runs_dir, writer)
    text = plain(open_page("inputs", run=writer, example="0"))
    assert "recorded no token losses and kept no adapter" in text


def test_groups_of_a_run_that_writes_have_perplexity_accuracy_and_gates(here: Here, gated: str) -> None:
    app = open_whole("inputs", run=gated, lab="group", apart="on", map="gates")
    text = plain(app)
    assert not app.error
    for title in ("Perplexity by input group", "Loss by input group", "Token accuracy by input group"):
        assert title in text
    assert "Perplexity is highest for" not in text, "the groups have fewer than 20 examples"
    assert "Gates by input group" in text
    assert "This run has no gates" not in text
    frame = next(one.value for one in app.dataframe if "perplexity" in one.value.columns)
    assert len(frame) == 3, "the whole and two groups"
