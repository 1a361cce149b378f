"""A run that learned to write: loaded, asked, exported; what it cannot do is a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from dynlora.config import parse_config
from dynlora.engine.evaluation.inference import bake_gates, mean_gates
from dynlora.errors import ConfigError, DataError
from dynlora.inference.export import export_run
from dynlora.inference.load import GATE_ROWS, evaluate_run, load_run
from dynlora.inference.session import Examined, perturbed_rows
from dynlora.store import queries
from dynlora.training import run as training
from dynlora.training.build import read_data
from tests.tiny_lm import lm_values, save_lines, save_problems, save_tiny_lm


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `dynamic` with gates on a tiny Llama."""
    folder = tmp_path_factory.mktemp("writer")
    (folder / "data").mkdir()
    values = lm_values(save_tiny_lm(folder / "model"), save_problems(folder / "data"), strategy={"name": "dynamic"})
    outcome = training.train(parse_config(values), folder / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def test_it_is_evaluated_and_asked_as_it_was_trained(writer: Path) -> None:
    recorded = queries.run_summary(writer)["metrics"]
    found = evaluate_run(writer)["metrics"]
    assert found["loss"] == pytest.approx(recorded["loss"], rel=1e-5)
    assert found["perplexity"] == pytest.approx(recorded["perplexity"], rel=1e-5)
    events = queries.events_frame(writer, ("generations",))
    first = events["payload"].iloc[-1]["rows"][0]
    (answer,) = load_run(writer).answers([first["prompt"]])
    assert (answer["prediction"], answer["tokens"]) == (first["text"], first["tokens"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_both_exports_say_what_the_run_says_with_its_gates_at_their_means(
    kind: str, writer: Path, tmp_path: Path
) -> None:
    report = export_run(writer, tmp_path / "out", format=kind)
    assert report["baked"] is True
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template
    auto: Any = peft.AutoPeftModelForCausalLM if kind == "peft" else transformers.AutoModelForCausalLM
    loaded = auto.from_pretrained(tmp_path / "out").eval()
    model = load_run(writer)
    config = parse_config(queries.run_summary(writer)["config"])
    bake_gates(model, mean_gates(model, model.tokens(read_data(config).train_sample(GATE_ROWS, config.seed))))
    inputs = tokenizer(["a2:"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(**inputs).logits, model.base.model(**inputs).logits, atol=1e-5, rtol=1e-5
        )  # fmt: skip
        greedy = loaded.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(greedy[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == model.answers(["a2:"])[0]["prediction"]


def test_words_of_an_answer_cannot_be_attributed_where_there_is_none(writer: Path) -> None:
    examined = Examined(writer)
    with pytest.raises(ConfigError, match=r"data\.task=causal_lm has no answer to attribute; generate instead"):
        examined.explained("a2:", None)
    *_, last = examined.knockouts([(0,)])
    assert len(last.effects) == 1


def test_a_shift_changes_prompts_and_not_what_is_to_be_written(writer: Path) -> None:
    rows = Examined(writer).sample(8)
    shifted = perturbed_rows(rows, "upper", 1.0, 0, is_written=True)
    assert shifted.text == [text.upper() for text in rows.text] != rows.text
    assert shifted.text_pair == rows.text_pair
    turns = [[{"role": "user", "content": "tell me a story"}, {"role": "assistant", "content": "there was a fox"}]] * 8
    talks = perturbed_rows(replace(rows, fields={"messages": turns}), "upper", 1.0, 0, is_written=True)
    for talk in talks.fields["messages"]:
        assert [turn["content"] for turn in talk] == ["TELL ME A STORY", "there was a fox"]


def test_lost_completions_are_told_to_the_log_and_trained_without(tmp_path: Path) -> None:
    rows = [{"prompt": "a" * (30 if index % 4 == 0 else 3), "completion": "bc"} for index in range(40)]
    data = save_lines(tmp_path / "rows.jsonl", rows)
    values = lm_values(save_tiny_lm(tmp_path / "model"), data, data__max_length=16, train__steps=2)
    outcome = training.train(parse_config(values), tmp_path / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    said = queries.logs_frame(outcome.folder)["message"].tolist()
    assert any("examples lose their whole completion at data.max_length=16 and are left out" in line for line in said)


def test_a_tokenizer_that_cannot_hold_conversations_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    data = save_lines(tmp_path / "talks.jsonl", [talk] * 20)
    values = lm_values(save_tiny_lm(tmp_path / "model", template=None), data)
    with pytest.raises(DataError, match="has no chat template"):
        training.train(parse_config(values), tmp_path / "runs", progress=False)
    assert not list((tmp_path / "runs").glob("*/run.db"))
    values = lm_values(save_tiny_lm(tmp_path / "chat"), data, train__steps=2)
    outcome = training.train(parse_config(values), tmp_path / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    assert queries.run_summary(outcome.folder)["task"] == "causal_lm"
