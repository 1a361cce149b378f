"""The Playground of a run that writes, without a page: histories, captions, tokens as HTML, sorted losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.inputs import figures
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.kit.token_text import FARTHEST, Colouring, TextToken, reach_of, tokens_html, visible
from dynlora.viz.playground import chat_model
from dynlora.viz.playground import figures as chat_figures
from dynlora.viz.playground.chat_model import Answer, Settings, Talk, Turn, Voice
from dynlora.viz.ui.model_client import Streamed

CHAT = Settings(chat=True)
ADAPTER, BASE = (Voice(key, key, Path("run"), key) for key in ("adapter", "base"))
SCALE = Colouring("nats", ("worse", "better"))


def whole_answer(voice: Voice, text: str, **more: Any) -> Answer:
    """Return an answer that has been written whole."""
    messages = [{"id": index, "text": letter} for index, letter in enumerate(text)]
    if messages and not more:
        messages[-1] |= {"end": "token", "whole": text}
    return Answer(voice, {}, Streamed("x", messages, ended=True, **more))


def turn(prompt: str, *answers: Answer) -> Turn:
    return Turn(prompt, CHAT, {answer.voice.key: answer for answer in answers})


def test_each_voice_has_its_own_conversation_and_skips_what_it_did_not_answer() -> None:
    talk = Talk(
        [
            turn("one", whole_answer(ADAPTER, "first"), whole_answer(BASE, "other")),
            turn("two", whole_answer(ADAPTER, "second"), whole_answer(BASE, "", error="it failed")),
        ]
    )
    turns = talk.request_for(ADAPTER, "three", CHAT)["turns"]
    assert [entry["content"] for entry in turns] == ["one", "first", "two", "second", "three"]
    assert [entry["role"] for entry in turns] == ["user", "assistant"] * 2 + ["user"]
    turns = talk.request_for(BASE, "three", CHAT)["turns"]
    assert [entry["content"] for entry in turns] == ["one", "other", "three"]
    another = Voice("adapter", "adapter", Path("another run"), "adapter")
    assert len(talk.request_for(another, "three", CHAT)["turns"]) == 1, "another run did not say what this one said"
    assert talk.request_for(ADAPTER, "three", Settings()) == {"text": "three"}
    half = Settings(strength=0.5)
    assert talk.request_for(ADAPTER, "three", half) == {"text": "three", "strength": 0.5}
    assert talk.request_for(BASE, "three", half) == {"text": "three"}, "only the run's own adapter has a strength"
    assert half.words == "greedy, at most 64 tokens, adapter strength 0.5"


def test_an_answer_says_how_it_ended() -> None:
    assert whole_answer(ADAPTER, "ab").state == "2 tokens"
    assert whole_answer(ADAPTER, "ab", stopped=True).state == "2 tokens, stopped"
    assert Answer(ADAPTER, {}, Streamed("x", [{"id": 1, "text": "a"}])).state == "1 token so far"
    limit = Answer(ADAPTER, {}, Streamed("x", [{"id": 1, "text": "a", "end": "limit", "whole": "a"}], ended=True))
    assert limit.state == "1 token, cut off at the limit"


@given(st.lists(st.tuples(st.text(max_size=8), st.one_of(st.none(), st.floats(allow_nan=True))), max_size=12))
def test_tokens_of_any_text_are_escaped_and_joined(pieces: list[tuple[str, float | None]]) -> None:
    tokens = [TextToken(text, value, f"<b>{text}\"'") for text, value in pieces]
    for colours in (LIGHT, DARK):
        markup = tokens_html({"<i>": tokens}, SCALE, colours)
        assert "<small>&lt;i&gt;</small>" in markup
        assert markup.count("<b>") == 1, "the bar of the legend"
        assert markup.count("<span") == len(tokens) + 3


def test_the_legend_says_where_numbers_are_beyond_its_ends() -> None:
    small = tokens_html({"": [TextToken("a", 0.5)]}, SCALE, LIGHT)
    assert "worse (−0.5)" in small
    assert "better (+0.5)" in small
    large = tokens_html({"": [TextToken("a", 3 * FARTHEST)]}, SCALE, LIGHT)
    assert "worse (≤ −5)" in large
    assert "better (≥ +5)" in large
    assert reach_of([float("nan"), 0.0]) == 1.0


def row(text: str, adapter: float, base: float) -> dict[str, Any]:
    top = [[text, float(np.exp(adapter))], [" ", 0.1]]
    return {"text": text, "adapter": adapter, "base": base, "adapter_top": top, "base_top": top}


def test_tokens_have_probabilities_and_their_sum_is_that_of_the_text() -> None:
    message = {"tokens": [row("a", -0.1, -2.1), row("<b>", -1.0, -0.5)]}
    frame = chat_model.token_frame(message)
    assert frame["adapter"].tolist() == pytest.approx(np.exp([-0.1, -1.0]))
    assert frame["difference"].tolist() == pytest.approx([2.0, -0.5])
    assert "log-probability +1.5 nats against the base model (2 tokens)" in chat_model.token_caption(frame)
    assert "adapter 90.5 %, base 12.2 %" in chat_model.text_tokens(message)[0].tooltip
    assert chat_model.alternatives(message["tokens"][0]).shape == (2, 5)


def test_modules_are_sorted_and_those_that_change_the_text_are_named() -> None:
    modules = pd.DataFrame(
        {
            "position": [1, 0, 2],
            "short": ["query 0", "key 0", "key 1"],
            "label": ["query", "key", "key"],
            "layer": [0, 0, 1],
        }
    )
    messages = [{"module": index, "adds": adds, "changes": adds > 1} for index, adds in enumerate([0.5, 2.0, -0.25])]
    frame = chat_model.ablation_frame(messages, modules)
    assert dict(zip(frame["short"], frame["adds"], strict=True)) == {"query 0": 2.0, "key 0": 0.5, "key 1": -0.25}
    estimates = chat_model.estimate_frame([0.25, 1.5, -0.25], modules)
    assert "Rank correlation with the estimate: 1.00." in chat_model.ablation_caption(frame, estimates)
    values = chat_figures.ablation_map(frame, LIGHT).data[0].z  # pyright: ignore
    assert np.nanmax(values) == 2.0
    assert chat_model.ablation_frame(messages[:1], modules)["short"].tolist() == ["key 0"], "as far as it has come"


def test_token_losses_are_sorted_and_masked_tokens_left_out() -> None:
    losses = {"tokens": ["a", "b", " c"], "base": [None, 2.0, 1.0], "adapter": [None, 0.5, 1.5], "step": 7}
    assert figures.differences(losses) == [None, 1.5, -0.5]
    lines = figures.lines_of({"adapter": losses}, figures.LOSS)
    assert list(lines) == ["base", "adapter"]
    assert [token.value for token in lines["base"]] == [None, 2.0, 1.0]
    assert lines["adapter"][0].tooltip == "not part of the loss"
    assert list(figures.lines_of({"adapter": losses}, figures.DIFFERENCE)) == ["adapter"]
    whole = figures.all_tokens([losses, losses], [4, 9])
    assert whole["difference"].tolist() == [1.5, 1.5, -0.5, -0.5]
    assert whole["context"].tolist() == ["a", "a", "ab", "ab"]


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "</s>", "<s>", "[CLS]", "[SEP]", "<pad>"])
def test_a_special_token_is_never_written_out(token: str) -> None:
    assert visible(token) == "◆"
    markup = tokens_html({"": [TextToken("end", 0.5), TextToken(token, 0.5)]}, SCALE, LIGHT)
    assert "im_end" not in markup
    assert markup.count("◆") == 1
    assert visible("a <s> b") != "◆", "a text that only has one in it"
