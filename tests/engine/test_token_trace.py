"""Losses of tokens at every evaluation: what is recorded is what the trained model says, within a number of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.config import parse_config
from dynlora.engine.data.batches import tokenize
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.written import EVENT, SIGNAL, TokenTrace
from dynlora.inference.session import Examined
from dynlora.inference.writing import held_out_losses
from dynlora.store import queries
from dynlora.tasks.causal_lm import CausalLM
from dynlora.training import run as training_run
from dynlora.viz.inputs import figures
from tests.tiny_lm import byte_tokenizer, lm_values, save_problems, save_tiny_lm


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny decoder with evaluations at steps 0, 2 and 4."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "data").mkdir()
    values = lm_values(
        save_tiny_lm(folder / "model"), save_problems(folder / "data"), train__steps=4, log__eval_every=2
    )
    outcome = training_run.train(parse_config(values), folder / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def recorded(run: Path) -> figures.TokenTrace:
    """Return what a run recorded, as the page reads it."""
    trace = figures.recorded(queries.events_frame(run, (EVENT,)), queries.signal_frame(run, SIGNAL))
    assert trace is not None
    return trace


def test_the_names_of_what_is_recorded_are_those_that_are_read() -> None:
    assert (figures.SIGNAL, figures.EVENT) == (SIGNAL, EVENT)


def test_first_and_last_evaluation_are_what_base_and_adapter_say(writer: Path) -> None:
    trace = recorded(writer)
    assert list(trace.steps) == [0, 2, 4]
    examples = queries.examples_frame(writer)
    assert trace.covers(len(examples) - 1)
    assert not trace.covers(len(examples))
    some = examples.head(3)
    losses = held_out_losses(Examined(writer), some["text"].tolist(), some["text_pair"].tolist())
    for example, expected in enumerate(losses):
        trace_row = trace.at(example, 4)
        assert trace_row["tokens"] == expected["tokens"]
        for who in ("base", "adapter"):
            assert [one is None for one in trace_row[who]] == [one is None for one in expected[who]]
            known = [(a, b) for a, b in zip(trace_row[who], expected[who], strict=True) if a is not None]
            np.testing.assert_allclose(*zip(*known, strict=True), rtol=1e-4)
        assert trace.at(example, 0)["adapter"] == trace_row["base"]
        assert trace.at(example, 2)["adapter"] not in (trace_row["base"], trace_row["adapter"])


def test_the_mean_over_an_examples_tokens_is_its_recorded_loss(writer: Path) -> None:
    trace = recorded(writer)
    for step in trace.steps:
        loss = queries.examples_frame(writer, step)["loss"]
        means = [np.mean([one for one in trace.at(i, step)["adapter"] if one is not None]) for i in range(len(loss))]
        np.testing.assert_allclose(means, loss, rtol=1e-5)


def test_examples_are_recorded_whole_as_far_as_the_tokens_go() -> None:
    tokenizer = byte_tokenizer()
    data = Rows(["a", "bb", "c"], ["x" * 4, "y" * 4, "z" * 4], np.zeros(3), None)
    tokens = tokenize(tokenizer, data, 64, CausalLM())
    assert tokens.length.tolist() == [6, 7, 6], "prompt, completion and the end"
    probe = np.array([2, 1, 0])
    trace = TokenTrace.of(tokens, probe, tokenizer, most=13)
    assert trace is not None
    assert trace.rows.tolist() == [2, 1]
    assert "".join(trace.texts[1]) == "bbyyyy<|end|>"
    assert TokenTrace.of(tokens, probe, tokenizer, most=5) is None


@pytest.mark.parametrize("payload", [None, {}, {"tokens": "ab"}, {"tokens": [1]}, {"tokens": [["a"]]}])
def test_a_record_that_is_not_of_one_piece_is_none(payload: object) -> None:
    events = pd.DataFrame({"payload": [payload]})
    assert figures.recorded(events, pd.DataFrame({"step": [0], "0": [1.0], "1": [2.0]})) is None
    assert figures.recorded(events.head(0), pd.DataFrame({"step": [0]})) is None


def test_a_record_without_the_base_model_is_none() -> None:
    events = pd.DataFrame({"payload": [{"tokens": [["a", "b"]]}]})
    assert figures.recorded(events, pd.DataFrame({"step": [5], "0": [1.0], "1": [2.0]})) is None
    trace = figures.recorded(events, pd.DataFrame({"step": [0, 5], "0": [np.nan] * 2, "1": [2.0, 1.0]}))
    assert trace is not None
    assert trace.at(0, 5) == {"tokens": ["a", "b"], "step": 5, "base": [None, 2.0], "adapter": [None, 1.0]}
    assert figures.step_words(trace, 5) == {0: "0 (base)", 5: "5 (best, last)"}
    assert figures.step_words(trace, None)[5] == "5 (last)"
    assert "first 1 probe example." in figures.why_not(trace)
