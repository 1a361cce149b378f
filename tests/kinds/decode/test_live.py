"""A problem that is typed in, solved step by step with the roles of a decode, also by the inference child."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dynlora.errors import ConfigError
from dynlora.inference.worker import Answering
from dynlora.jobs import quick_launch
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work.live import Live, load_live
from dynlora.kinds.decode.work.solve import Point, solve
from tests.kinds.decode.conftest import STEP, Runs

QUESTION = "a3:"


@pytest.fixture(scope="module")
def folder(runs: Runs) -> Path:
    settings = DecodeSettings.of(
        draft=runs.draft, target=runs.target, reward="target-likelihood", step_string=STEP, limit=1, new_tokens=12
    )
    return quick_launch.create(settings, runs.folder, "queued")


@pytest.fixture(scope="module")
def live(folder: Path) -> Live:
    return load_live(folder)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_steps_are_those_of_the_same_problem_decoded_whole(live: Live, threshold: float) -> None:
    *steps, end = live.solved(QUESTION, threshold)
    whole = solve(live.cast, live._problem(QUESTION), Point("threshold", threshold), live.limits, live.seed)
    assert "".join(step["text"] for step in steps) == whole.text
    assert [step["by"] for step in steps] == [step.by for step in whole.steps]
    assert (end["ended"], end["tokens"], end["flops"]) == (whole.ended, whole.tokens, whole.flops)
    assert end["target_flops"] > 0


@pytest.mark.parametrize(
    ("question", "threshold", "message"),
    [
        ("", 0.5, "empty"),
        ("x" * 5000, 0.5, "at most 4,000"),
        (QUESTION, 1.5, "threshold=1.5: must be from 0 to 1"),
        (QUESTION, float("nan"), "threshold=nan"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    live: Live, question: str, threshold: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        next(live.solved(question, threshold))


def test_the_child_streams_the_steps(folder: Path) -> None:
    child = Answering()
    request = {
        "number": 1,
        "ask": "decode",
        "arguments": {"folder": str(folder), "question": QUESTION, "threshold": 0.0},
    }
    answer = child.reply(json.dumps(request))
    assert answer["ok"], answer
    while child.busy:
        child.advance()
    read = child.reply(json.dumps({"number": 2, "ask": "read", "arguments": {"stream": answer["answer"]}}))["answer"]
    assert read["status"] == "done"
    assert read["error"] is None
    assert read["messages"][-1]["tokens"]["target"] == 0
    kept = child.special["decode"]
    child.reply(json.dumps(request))
    assert child.special["decode"] is kept, "the roles are loaded once"
    os.utime(folder / "config.yaml", (0, 0))
    child.reply(json.dumps(request))
    assert child.special["decode"] is not kept
