"""A run that learned to write: loaded, asked, exported; what it cannot do is a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from dynlora.config import parse_config
from dynlora.engine.data.perturb import conditioned_rows, perturbed_rows
from dynlora.engine.evaluation import inference
from dynlora.errors import ConfigError, DataError
from dynlora.inference import export
from dynlora.inference.model_card import Padding
from dynlora.inference.session import Examined, evaluate_run, load_run
from dynlora.store import queries
from dynlora.tasks import WritingTask
from dynlora.training import run as training_run
from dynlora.training.inputs import read_data
from tests.command_line import document, run
from tests.inference.averaged import averaged
from tests.tiny_lm import lm_values, save_lines, save_tiny_lm


def test_it_is_evaluated_and_asked_as_it_was_trained(writer: Path) -> None:
    recorded = queries.run_summary(writer).metrics
    metrics = evaluate_run(writer)["metrics"]
    assert metrics["loss"] == pytest.approx(recorded["loss"], rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(recorded["perplexity"], rel=1e-5)
    events = queries.events_frame(writer, ("generations",))
    first = events["payload"].iloc[-1]["rows"][0]
    (answer,) = load_run(writer).answers([first["prompt"]])
    assert (answer["prediction"], answer["tokens"]) == (first["text"], first["tokens"])


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


@pytest.mark.parametrize("loss_on", ["all", "completion"])
def test_what_is_written_is_scored_and_never_perturbed(loss_on: str, writer: Path) -> None:
    """Also where the run learned from its prompts: their own loss would rise with any change of them."""
    examined = Examined(writer)
    examined.model = replace(examined.model, task=replace(examined.model.task, loss_on=loss_on))
    shift = examined.shifted("upper", 1.0, 8)
    sample = examined.sample(8)
    written = sum(len(pair) + 1 for pair in sample.text_pair or [])
    for side in ("before", "after"):
        assert shift[side]["metrics"]["tokens"] == written, "completions and their ends"
    assert shift["before"]["metrics"]["loss"] != shift["after"]["metrics"]["loss"]
    assert examined.shifted("upper", 0.0, 8)["after"] == shift["before"]


def test_of_a_plain_text_the_second_half_is_scored_after_a_perturbed_first(tmp_path: Path) -> None:
    texts = [f"the {word} was slow and the {word} was loud" for word in ("fox", "dog", "cat") * 14]
    data = save_lines(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    values = lm_values(save_tiny_lm(tmp_path / "model"), data, data__max_length=64, train__steps=2)
    outcome = training_run.train(parse_config(values), tmp_path / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    examined = Examined(outcome.folder)
    task = examined.model.task
    assert isinstance(task, WritingTask)
    rows, scored = conditioned_rows(task, examined.sample(4))
    assert scored == "half"
    assert all(first + second in texts for first, second in zip(rows.text, rows.text_pair or [], strict=True))
    assert all(second.startswith(" ") and len(second) > 12 for second in rows.text_pair or [])
    shift = examined.shifted("upper", 1.0, 4)
    assert shift["scored"] == "half"
    tokens = sum(len(second) + 1 for second in rows.text_pair or [])
    assert shift["before"]["metrics"]["tokens"] == shift["after"]["metrics"]["tokens"] == tokens
    assert all(example["after"] == example["before"].upper() for example in shift["examples"])
    assert task.halves("word") == ("wo", "rd")


def test_lost_completions_are_told_to_the_log_and_trained_without(tmp_path: Path) -> None:
    rows = [{"prompt": "a" * (30 if index % 4 == 0 else 3), "completion": "bc"} for index in range(40)]
    data = save_lines(tmp_path / "rows.jsonl", rows)
    values = lm_values(save_tiny_lm(tmp_path / "model"), data, data__max_length=16, train__steps=2)
    outcome = training_run.train(parse_config(values), tmp_path / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    messages = queries.logs_frame(outcome.folder)["message"].tolist()
    assert any(
        "examples lose their whole completion at data.max_length=16 and are left out" in line for line in messages
    )


def test_a_tokenizer_that_cannot_hold_conversations_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    data = save_lines(tmp_path / "talks.jsonl", [talk] * 20)
    values = lm_values(save_tiny_lm(tmp_path / "model", template=None), data)
    with pytest.raises(DataError, match="has no chat template"):
        training_run.train(parse_config(values), tmp_path / "runs", progress=False)
    assert not list((tmp_path / "runs").glob("*/run.db"))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_an_export_says_what_the_run_says_with_its_gates_at_their_means(
    form: str, writer: Path, exported: Callable[[Path, str], Path]
) -> None:
    folder = exported(writer, form)
    write: Any = transformers.pipeline("text-generation", model=str(folder))
    (written,) = write("a2:", max_new_tokens=12, do_sample=False, return_full_text=False)
    model = averaged(writer)
    assert written["generated_text"] == model.answers(["a2:"])[0]["prediction"]
    inputs = model.base.tokenizer(["a2:"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            write.model(**inputs).logits, model.base.model(**inputs).logits, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("form", ["peft", "merged"])
def test_an_export_holds_all_that_a_writer_needs(
    form: str, writer: Path, exported: Callable[[Path, str], Path]
) -> None:
    folder = exported(writer, form)
    names = {path.name for path in folder.iterdir()}
    needed = {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"}
    assert needed <= names
    assert ("config.json" in names) == (form == "merged"), "beside an adapter it would hide the base model"
    settings = transformers.GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.pad_token_id) == (0, 1)
    files = list(folder.glob("*.safetensors"))
    assert files
    for path in files:
        assert {str(tensor.dtype) for tensor in load_file(path).values()} == {"torch.float32"}


def test_ranks_and_alphas_are_patterns_of_whole_names(writer: Path, exported: Callable[[Path, str], Path]) -> None:
    settings = json.loads((exported(writer, "peft") / "adapter_config.json").read_text("utf-8"))
    assert settings["task_type"] == "CAUSAL_LM"
    names = [module.info.name for module in load_run(writer).adapters]
    for patterns in (settings["rank_pattern"], settings["alpha_pattern"]):
        fitting = {one: [name for name in names if re.fullmatch(rf"(.*\.)?({one})", name)] for one in patterns}
        assert all(len(pattern) == 1 for pattern in fitting.values())
        assert sorted(pattern[0] for pattern in fitting.values()) == sorted(settings["target_modules"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_the_snippet_of_a_writers_card_continues_a_text(
    form: str, writer: Path, exported: Callable[[Path, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(writer, form)
    (snippet,) = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(snippet.replace('"Your text"', '"a2:", "a b1:"'), names)
    short, together = (
        names["tokenizer"]("a2:", return_tensors="pt"),
        names["written"][0, names["inputs"]["input_ids"].shape[1] :],
    )
    alone = names["model"].generate(**short, max_new_tokens=64, do_sample=False, pad_token_id=1)[0, 3:]
    assert together.tolist()[: len(alone)] == alone.tolist()


def test_a_padding_token_that_ends_texts_is_told_on_the_card(writer: Path) -> None:
    model = load_run(writer)
    assert export._padding(model) == Padding("<|pad|>", 1, is_end=False)
    model.base.tokenizer.pad_token = model.base.tokenizer.eos_token
    padding = export._padding(model)
    assert padding is not None
    assert padding.is_end


TALKS = [
    [
        {"role": "system", "content": "say a letter"},
        {"role": "user", "content": f"{letter}{times}"},
        {"role": "assistant", "content": letter * times},
    ]
    for letter in "abc"
    for times in (1, 2)
]
"""Conversations of more than a question, so that only the template knows how they are written down."""


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": f"{letter}{times}:\n", "completion": letter * times} for letter in "abc" for times in (1, 2)],
        [{"messages": turns} for turns in TALKS],
        [{"text": f"{letter}{times}: " + letter * times} for letter in "abc" for times in (1, 2)],
    ],
    ids=["a line break at the seam", "conversations", "texts"],
)
def test_rows_of_a_file_are_continued_by_the_tokens_they_have_in_training(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train", "validation"):
        save_lines(tmp_path / "data" / f"{name}.jsonl", rows * 6)
    values = lm_values(save_tiny_lm(tmp_path / "model"), tmp_path / "data", train__steps=2, data__max_length=96)
    outcome = training_run.train(parse_config(values), tmp_path / "runs")
    assert outcome.state == "finished", outcome.error
    given: list[list[int]] = []
    write = inference.write

    def watched(model: Any, tokenizer: Any, prompts: list[list[int]], *more: Any) -> Any:
        given.extend(prompts)
        return write(model, tokenizer, prompts, *more)

    monkeypatch.setattr(inference, "write", watched)
    inputs = [{key: value for key, value in row.items() if key != "completion"} for row in rows]
    path = save_lines(tmp_path / "asked.jsonl", inputs)
    predictions = document(run(tmp_path / "runs", "predict", outcome.folder.name, "--file", str(path), "--json"))
    assert len(predictions) == len(rows)
    model = load_run(outcome.folder)
    tokens = model.tokens(read_data(parse_config(values)).train.take(np.arange(len(rows))))
    by_text = {
        tuple(one["input_ids"]): targets for one, targets in zip(tokens.features, tokens.targets or [], strict=True)
    }
    for ids, targets in by_text.items():
        if "text" in rows[0]:
            assert any(list(ids[:-1]) == prompt for prompt in given), "the whole text, and not its beginning"
        else:
            prompt = list(ids[: next(place for place, target in enumerate(targets) if target >= 0)])
            assert prompt in given


def test_an_empty_file_is_refused(writer: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n", "utf-8")
    result = run(writer.parent, "predict", writer.name, "--file", str(tmp_path / "none.txt"))
    assert (result.exit_code, "has no text" in result.stderr) == (2, True)
