"""What the inference child writes while it is read: whole, stopped in the middle, refused, left by its reader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.client import InferenceChild
from dynlora.inference.session import load_run
from dynlora.inference.worker import ABANDONED_S, MOST_KEPT, MOST_STREAMS, Answering, Streams
from dynlora.store import queries
from tests.waiting import until

TURNS = [{"role": "user", "content": "a2:"}]


def reply_to(answering: Answering, ask: str, **arguments: Any) -> dict[str, Any]:
    """Ask over JSON, and return the whole reply."""
    line = json.dumps({"number": 1, "ask": ask, "arguments": arguments})
    return json.loads(json.dumps(answering.reply(line)))


def written(answering: Answering, run: Path, **more: Any) -> dict[str, Any]:
    """Begin a text, let it be written to its end, and return what was read."""
    name = begun(answering, run, **more)
    while answering.busy:
        answering.advance()
    return reply_to(answering, "read", stream=name)["answer"]


def begun(answering: Answering, run: Path, **more: Any) -> str:
    reply = reply_to(answering, "write", **request(run, **more))
    assert reply["ok"], reply["error"]
    return reply["answer"]


def request(run: Path, **more: Any) -> dict[str, Any]:
    """Return what is asked for."""
    usual = {"mode": "adapter", "temperature": 0.0, "seed": 0, "new_tokens": 12}
    prompt = {} if "turns" in more else {"text": "a2:"}
    return {"folder": str(run), "which": "last", **usual, **prompt, **more}


def test_a_streamed_text_is_the_one_that_the_evaluation_wrote(writer: Path) -> None:
    rows = queries.events_frame(writer, ("generations",))["payload"].iloc[-1]["rows"]
    answering = Answering()
    for row in rows[:3]:
        stream = written(answering, writer, text=row["prompt"])
        assert "".join(message["text"] for message in stream["messages"]) == row["text"]
        last = stream["messages"][-1]
        assert (last["end"] == "token", last["whole"]) == (row["ended"], row["text"])
        assert (stream["status"], stream["error"]) == ("done", None)


def test_base_and_adapter_take_turns_and_a_seed_says_what_is_drawn(writer: Path) -> None:
    answering = Answering()
    names = [begun(answering, writer, mode=mode) for mode in ("adapter", "base", "adapter")]
    answering.advance()
    assert [len(reply_to(answering, "read", stream=name)["answer"]["messages"]) for name in names] == [1, 1, 1]
    while answering.busy:
        answering.advance()
    adapter, base, again = (
        [message["id"] for message in reply_to(answering, "read", stream=name)["answer"]["messages"]] for name in names
    )
    assert adapter == again
    assert adapter != base
    drawn = [written(answering, writer, temperature=2.0, seed=seed)["messages"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_stop_in_the_middle_keeps_what_was_written_and_the_child_goes_on(writer: Path) -> None:
    answering = Answering()
    whole = written(answering, writer, new_tokens=40)["messages"]
    name = begun(answering, writer, new_tokens=40)
    for _ in range(3):
        answering.advance()
    assert len(whole) > 3
    stopped = reply_to(answering, "end", stream=name)["answer"]
    assert stopped["status"] == "cancelled"
    assert stopped["messages"] == whole[:3]
    assert not answering.busy
    assert reply_to(answering, "read", stream=name, since=2)["answer"]["messages"] == whole[2:3]
    assert written(answering, writer, new_tokens=40)["messages"] == whole, "adapters and gates are as before"
    model = answering.model(str(writer), "last").model
    assert all(module.enabled for module in model.adapters)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"text": ""}, r"prompt: has 0 characters; give 1 to"),
        ({"text": "x" * 300}, r"has 300 tokens, and the model reads at most 256 with what it writes; shorten it"),
        ({"temperature": -1.0}, "must be from 0"),
        ({"new_tokens": 0}, "must be from 1 to 2,048"),
        ({"seed": -1}, "seed=-1: must be from 0"),
        ({"mode": "frozen"}, "mode=frozen: must be adapter or base"),
        ({"turns": [{"role": "user"}]}, "has a message without role and content"),
        ({"turns": []}, "is empty; give messages"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(more: dict[str, Any], words: str, writer: Path) -> None:
    reply = reply_to(Answering(), "write", **request(writer, **more))
    assert not reply["ok"]
    assert reply["error"]["kind"] == "ConfigError", "a person can mend it"
    assert re.search(words, reply["error"]["message"])


def test_a_chat_needs_a_template_and_is_told_by_it(writer: Path) -> None:
    answering = Answering()
    writer_facts = reply_to(answering, "writer", folder=str(writer), which="last")["answer"]
    assert writer_facts == {
        "chat": True,
        "learned_chat": False,
        "step": 12,
        "place": "adapter",
        "total": 256,
        "new": 12,
    }
    assert written(answering, writer, turns=TURNS)["messages"] != written(answering, writer)["messages"]
    answering.model(str(writer), "last").model.base.tokenizer.chat_template = None
    assert reply_to(answering, "writer", folder=str(writer), which="last")["answer"]["chat"] is False
    reply = reply_to(answering, "write", **request(writer, turns=TURNS))
    assert reply["error"]["message"] == "chat: the tokenizer of this run has no chat template; choose Completion"


def test_a_run_that_predicts_writes_nothing(trained_run: Path) -> None:
    reply = reply_to(Answering(), "writer", folder=str(trained_run), which="last")
    assert reply["error"]["message"] == (
        "data.task=classification: this run's model writes no texts; ask for a prediction instead"
    )


def test_tokens_of_an_example_add_up_to_its_recorded_loss(writer: Path) -> None:
    examples = queries.examples_frame(writer, queries.run_summary(writer).step).head(6)
    answering = Answering()
    name = reply_to(
        answering,
        "token_losses",
        folder=str(writer),
        which="last",
        texts=examples["text"].tolist(),
        pairs=examples["text_pair"].tolist(),
    )["answer"]
    while answering.busy:
        answering.advance()
    stream = reply_to(answering, "read", stream=name)["answer"]
    assert stream["error"] is None
    assert (len(stream["messages"]), stream["progress"]["of"]) == (6, 6)
    for message, loss in zip(stream["messages"], examples["loss"], strict=True):
        counted = [value for value in message["adapter"] if value is not None]
        assert sum(counted) / len(counted) == pytest.approx(loss, rel=1e-4)
        assert len(message["tokens"]) == len(message["adapter"]) == len(message["base"])
        assert message["adapter"][0] is None, "nothing is before the first token"
    name = reply_to(
        answering, "token_losses", folder=str(writer), which="last", texts=["not of the data"], pairs=[None]
    )["answer"]
    answering.advance()
    assert (
        "is not among the held-out examples" in reply_to(answering, "read", stream=name)["answer"]["error"]["message"]
    )


def test_a_text_is_seen_token_by_token_and_module_by_module(writer: Path) -> None:
    answering = Answering()
    messages = written(answering, writer)["messages"]
    ids = [message["id"] for message in messages]
    question = {"folder": str(writer), "which": "last", "text": "a2:", "ids": ids}
    view = reply_to(answering, "token_view", **question)["answer"]
    assert len(view["tokens"]) == len(ids)
    for row in view["tokens"]:
        assert row["adapter_top"][0][0] == row["text"], "greedy: each token is the most probable one"
        assert np.exp(row["adapter"]) == pytest.approx(row["adapter_top"][0][1], rel=1e-5)
        assert len(row["base_top"]) == 5
    name = reply_to(answering, "ablate_text", **question)["answer"]
    while answering.busy:
        answering.advance()
    read = reply_to(answering, "read", stream=name)["answer"]
    n = len(load_run(writer).adapters)
    estimates = np.abs(reply_to(answering, "estimate_text", **question)["answer"]["adds"])
    measured = [message["module"] for message in read["messages"]]
    assert sorted(measured) == list(range(n))
    assert (np.diff(estimates[measured]) <= 0).all(), "the largest estimates first"
    assert read["progress"]["of"] == n
    assert any(message["adds"] for message in read["messages"])
    for wrong in ([], [10**6], ["a"], [-1]):
        reply = reply_to(answering, "token_view", **{**question, "ids": wrong})
        assert reply["error"]["kind"] == "ConfigError"
        assert "tokens; give 1 to" in reply["error"]["message"]


# --- the streams themselves


def counting(n: int) -> Iterator[dict[str, Any]]:
    yield from ({"n": index} for index in range(n))


def failing(error: Exception) -> Iterator[dict[str, Any]]:
    yield {"n": 0}
    raise error


@pytest.mark.parametrize(
    ("error", "message", "is_broken"),
    [
        (RuntimeError("shapes do not fit"), "the model failed: shapes do not fit", True),
        (MemoryError(), "the model needs more memory than is available", True),
        (ConfigError("give less"), "give less", False),
    ],
)
def test_one_that_fails_says_so_and_the_others_go_on(error: Exception, message: str, is_broken: bool) -> None:
    streams = Streams()
    bad, good = streams.begin(failing(error)), streams.begin(counting(4))
    assert [streams.advance() for _ in range(5)] == [False, is_broken, False, False, False]
    assert message in streams.read(bad)["error"]["message"]
    assert streams.read(bad)["messages"] == [{"n": 0}]
    assert len(streams.read(good)["messages"]) == 4
    assert not streams.busy


def test_one_that_nobody_reads_ends_and_one_that_is_read_goes_on() -> None:
    now = [0.0]
    streams = Streams(clock=lambda: now[0])
    left, watched = streams.begin(counting(99)), streams.begin(counting(99))
    streams.advance()
    now[0] = ABANDONED_S
    streams.read(watched)
    now[0] = ABANDONED_S + 1
    streams.advance()
    assert streams.read(left)["status"] == "cancelled"
    assert len(streams.read(left)["messages"]) == 1
    assert len(streams.read(watched)["messages"]) == 2


def test_there_is_a_most_of_them_and_ended_ones_are_forgotten() -> None:
    streams = Streams()
    names = [streams.begin(counting(1)) for _ in range(MOST_STREAMS)]
    with pytest.raises(ConfigError, match="the most at once; try again"):
        streams.begin(counting(1))
    for _ in range(2):
        streams.advance()
    for _ in range(MOST_KEPT):
        streams.begin(counting(0))
        streams.advance()
    assert len(streams._streams) <= MOST_KEPT
    with pytest.raises(DynloraError, match="start it again"):
        streams.read(names[0])


@pytest.mark.journey
def test_a_real_child_streams_stops_and_answers_on(writer: Path) -> None:
    child = InferenceChild()
    try:
        name = child.ask("write", **request(writer, new_tokens=200))
        until(lambda: child.ask("read", stream=name)["messages"], "the first token")
        stopped = child.ask("end", stream=name)
        assert stopped["status"] != "running"
        again = child.ask("write", **request(writer))
        until(lambda: child.ask("read", stream=again)["status"] == "done", "the whole text")
        assert child.ask("read", stream=again)["messages"][-1]["whole"] == (
            "".join(message["text"] for message in child.ask("read", stream=again)["messages"])
        )
        with pytest.raises(DynloraError, match="start it again"):
            child.ask("read", stream="unknown")
    finally:
        child.stop()
