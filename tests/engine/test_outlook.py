"""How long a run still takes, what it says while it evaluates, and which evaluations write texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.config import RunConfig, parse_config
from dynlora.contracts.harness import ListRecorder, MemoryKeeper
from dynlora.engine.evaluation.written import WritingCost
from dynlora.engine.loop import schedule
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.engine.loop.schedule import ALWAYS, FIRST, LAST, WRITING_FREE_S, Outlook, writing_evaluations
from dynlora.engine.recorder import NullRecorder
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.checkpoints import training_state
from dynlora.training.inputs import load_inputs
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm


class ActivityRecorder(ListRecorder):
    """Keeps what the run says it does, and the log."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        super().__init__()
        self.activities: list[tuple[str, float | None]] = []
        self.messages: list[str] = []

    def activity(self, phase: str, remaining_s: float | None) -> None:
        """Keep it."""
        self.activities.append((phase, remaining_s))

    def log(self, level: str, message: str) -> None:
        """Keep it."""
        self.messages.append(message)


def train_lm(tmp_path: Path, **overrides: Any) -> tuple[Any, ActivityRecorder]:
    """Train a tiny language model, and return its trainer and what was recorded."""
    recorder = ActivityRecorder()
    trainer = build_trainer(load_inputs(lm_config(tmp_path, **overrides)), recorder, make_accelerator())
    trainer.train(MemoryKeeper())
    return trainer, recorder


def lm_config(tmp_path: Path, **overrides: Any) -> RunConfig:
    """Write a tiny language model and its data, and return the config of a run."""
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    data.mkdir()
    return parse_config(lm_values(save_tiny_lm(model), save_problems(data), **overrides))


def texts(recorder: ActivityRecorder) -> dict[int, int]:
    """Return how many texts each evaluation wrote, by step."""
    return {step: len(payload["rows"]) for step, kind, _, payload in recorder.events if kind == "generations"}


@given(interim=st.floats(0, 1e4), evaluations=st.integers(1, 1000), run_s=st.floats(0, 1e6, allow_subnormal=False))
def test_texts_before_the_last_evaluation_take_at_most_a_fifth(interim: float, evaluations: int, run_s: float) -> None:
    writes = writing_evaluations(interim, evaluations, run_s)
    seconds = interim * {ALWAYS: evaluations, FIRST: 1, LAST: 0}[writes]
    assert seconds <= max(WRITING_FREE_S, run_s / 5) * (1 + 1e-9)


def test_remaining_time_is_of_steps_and_evaluations() -> None:
    outlook = Outlook(20, 5, 100.0, (50.0, 200.0), writing_s=(2.0, 4.0))
    outlook.expect(0, evaluates=True)
    assert outlook.remaining_s() is None  # no step was made yet
    outlook.token_s = 0.01
    for seconds in (9.0, 3.0, 3.0):
        outlook.took_step(seconds)  # the first of a process is slower, and is left out
    outlook.expect(5, evaluates=True)
    now, between, last = 0.5 + 2.0, 2 * (0.5 + 2.0), 2.0 + 4.0
    assert outlook.remaining_s() == pytest.approx(15 * 3.0 + now + between + last, abs=0.1)
    outlook.took_writing(5, 1.0)  # texts end at half their limit
    outlook.expect(20)
    assert outlook.remaining_s() == pytest.approx(0.0, abs=0.1)
    outlook.expect(10)
    assert outlook.remaining_s() == pytest.approx(10 * 3.0 + 1.5 + 2.0 + 2.0, abs=0.1)


def test_a_resumed_run_counts_its_evaluations_from_its_first_step(tmp_path: Path) -> None:
    before = Outlook(20, 5, 100.0, (50.0, 200.0), token_s=0.01, writing_s=(2.0, 4.0), writes=FIRST)
    write_checkpoint(tmp_path / "checkpoint", {"outlook": before.state_dict()})
    after = Outlook(20, 5, 100.0, (50.0, 200.0))
    after.load_state_dict(read_checkpoint(tmp_path / "checkpoint")["outlook"])
    assert after == before
    after.took_step(3.0)
    after.expect(10)
    assert after.remaining_s() == pytest.approx(10 * 3.0 + 0.5 + (2.0 + 4.0), abs=0.1)


def test_a_checkpoint_of_an_earlier_version_writes_at_every_evaluation(tmp_path: Path) -> None:
    config = lm_config(tmp_path, log__eval_every=3)
    inputs = load_inputs(config)
    before = build_trainer(inputs, NullRecorder(), make_accelerator())
    before.step = 5
    state = training_state(before, inputs)
    del state["outlook"], state["evaluated_s"]
    recorder = ActivityRecorder()
    state["writes"] = LAST  # a key of no version
    trainer = build_trainer(load_inputs(config), recorder, make_accelerator(), state)
    assert trainer.outlook == before.outlook
    trainer.train(MemoryKeeper())
    assert texts(recorder) == {6: 4, 9: 4, 12: 6}


def test_a_run_says_what_it_does_while_it_evaluates(tmp_path: Path) -> None:
    _, recorder = train_lm(tmp_path)
    phases = [phase for phase, _ in recorder.activities]
    assert "evaluating: example 40 of 40" in phases
    assert any(phase.startswith("evaluating: answer 1 of 4, token ") for phase in phases)
    assert any(phase.startswith("evaluating: answer 1 of 6, token ") for phase in phases)
    assert phases[-1] == ""
    first_step = next(at for at, (_, seconds) in enumerate(recorder.activities) if seconds is not None)
    assert phases[first_step - 1] == "", "the first evaluation is over while the first step is taken"
    known = [seconds for phase, seconds in recorder.activities if seconds is not None]
    assert len(known) > 12
    assert known[-1] == pytest.approx(0.0, abs=1e-3)


def test_evaluations_before_the_last_write_few_texts(tmp_path: Path) -> None:
    trainer, recorder = train_lm(tmp_path)
    assert texts(recorder) == {0: 4, 6: 4, 12: 6}
    rows = {
        step: [row["row"] for row in payload["rows"]]
        for step, kind, _, payload in recorder.events
        if kind == "generations"
    }
    assert set(rows[0]) <= set(rows[12])
    assert trainer.outlook.writes == ALWAYS


def test_what_decides_is_measured_on_all_prompts_at_every_evaluation(tmp_path: Path) -> None:
    trainer, recorder = train_lm(tmp_path, data__metric="exact_match")
    assert texts(recorder) == {0: 6, 6: 6, 12: 6}
    measured = recorder.scalars["exact_match", "validation"]
    assert trainer.best["exact_match"] == max(measured.values())


@pytest.mark.parametrize(("seconds", "steps"), [(9.0, {0: 4, 12: 6}), (11.0, {12: 6})], ids=["the first", "the last"])
def test_texts_that_would_take_more_than_a_fifth_are_left_out(
    seconds: float, steps: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dynlora.engine.evaluation.written.Prompts.cost",
        lambda self, model, gates, positions: WritingCost(len(positions), 12, 1.0, seconds),
    )
    trainer, recorder = train_lm(tmp_path)
    assert texts(recorder) == steps
    assert any("would take more than a fifth of the run" in message for message in recorder.messages)
    assert trainer.outlook.writes in (FIRST, LAST)


def test_an_estimate_falls_while_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: clock[0])
    outlook = Outlook(10, 5, 1.0, (1.0, 1.0))
    outlook.took_step(2.0)
    outlook.expect(4)
    before = outlook.remaining_s()
    clock[0] += 3.0
    assert before == pytest.approx(12.0)
    assert outlook.remaining_s() == pytest.approx(9.0)
