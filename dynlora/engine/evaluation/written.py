"""What a model writes at each evaluation: a fixed set of held-out prompts, and which answers are right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import Limits, OnToken, Written, batch_size, write
from dynlora.engine.model.gates import Gates
from dynlora.engine.recorder import Recorder
from dynlora.tasks import WritingTask

EXACT_MATCH = "exact_match"
SHOWN_CHARACTERS = 4000
"""Characters of a text that the store keeps."""

TIMED_TOKENS = 6
"""Tokens after each of the prompts that are timed; a few more or less change little."""


@dataclass(frozen=True)
class WritingCost:
    """What the texts of an evaluation cost at most: texts that end before the limit cost less.

    Attributes:
        prompts: that are continued.
        new_tokens: most tokens after each.
        tokens_per_s: over all prompts that are continued at once.
        seconds: of the evaluation.
    """

    prompts: int
    new_tokens: int
    tokens_per_s: float
    seconds: float


@dataclass(frozen=True)
class Prompts:
    """Held-out prompts that are continued at each evaluation.

    Attributes:
        rows: which held-out examples they are, (n,).
        interim: positions among them, (m,), of those that evaluations before the last continue, in rising order.
        of: number of all held-out examples.
        ids: tokens of each prompt.
        text: each prompt for reading.
        expected: what the data has in the position of the written text.
        answer: what is right; None where the rows have no answers to check.
        group: name of each prompt's input group, or None.
        limits: how much is written.
        tokenizer: of the model.
        task: checks answers.
    """

    rows: np.ndarray
    interim: np.ndarray
    of: int
    ids: list[list[int]]
    text: list[str]
    expected: list[str]
    answer: list[str] | None
    group: list[str] | None
    limits: Limits
    tokenizer: PreTrainedTokenizerBase
    task: WritingTask

    @classmethod
    def of_rows(
        cls,
        held_out: Rows,
        rows: np.ndarray,
        interim: int,
        tokenizer: PreTrainedTokenizerBase,
        task: WritingTask,
        limits: Limits,
    ) -> Prompts:
        """Return the prompts of some held-out examples, (n,); `interim` of them, spread, are for every evaluation."""
        chosen = held_out.take(rows)
        prompts = [task.prompt(tokenizer, chosen, index) for index in range(len(chosen))]
        answer = chosen.fields.get("answer")
        few = np.unique(np.linspace(0, len(rows) - 1, min(interim, len(rows))).round().astype(int))
        return cls(
            rows,
            few,
            len(held_out),
            [prompt.ids for prompt in prompts],
            [prompt.text for prompt in prompts],
            [prompt.expected for prompt in prompts],
            None if answer is None else list(answer),
            chosen.group,
            limits,
            tokenizer,
            task,
        )

    def positions(self, *, last: bool) -> np.ndarray:
        """Return the positions, (m,), of the prompts that an evaluation continues: of all in the last one."""
        return np.arange(len(self.ids)) if last else self.interim

    def written(
        self,
        model: PreTrainedModel,
        gates: Gates | None,
        positions: np.ndarray,
        on_token: OnToken = lambda ended, tokens: None,
    ) -> list[Written]:
        """Return what the model writes after the prompts at `positions`."""
        return write(
            model, self.tokenizer, [self.ids[position] for position in positions], self.limits, gates, on_token
        )

    def costs(self, model: PreTrainedModel, gates: Gates | None) -> tuple[WritingCost, WritingCost]:
        """Return what the texts of an evaluation before the last cost, and those of the last."""
        last = self.cost(model, gates, self.positions(last=True))
        is_all = len(self.interim) == len(self.ids)
        return last if is_all else self.cost(model, gates, self.interim), last

    def cost(self, model: PreTrainedModel, gates: Gates | None, positions: np.ndarray) -> WritingCost:
        """Return what the texts after the prompts at `positions` cost, from a few tokens after one batch of them."""
        most = self.limits.new_tokens
        if not len(positions):
            return WritingCost(0, most, 0.0, 0.0)
        few = positions[: batch_size(model, [self.ids[position] for position in positions], self.limits)]
        short = replace(self, limits=replace(self.limits, new_tokens=min(TIMED_TOKENS, most)))
        times = [time.perf_counter()]
        short.written(model, gates, few, lambda ended, tokens: times.append(time.perf_counter()))
        first_s = times[1] - times[0]  # reads the prompts, and writes one token
        each_s = (times[-1] - times[1]) / (len(times) - 2) if len(times) > 2 else first_s
        seconds = (first_s + (most - 1) * each_s) * len(positions) / len(few)
        return WritingCost(len(positions), most, len(few) / each_s, seconds)

    def record(
        self, recorder: Recorder, step: int, written: Sequence[Written], positions: np.ndarray
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Record what was written after the prompts at `positions`.

        Returns:
            how much of it is right where that can be checked, and the same of those prompts that every evaluation
            continues, by which evaluations are compared.
        """
        texts = [str(self.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in written]
        right = None
        if self.answer is not None:
            answers = [self.answer[position] for position in positions]
            right = [self.task.is_right(answer, text) for answer, text in zip(answers, texts, strict=True)]
        rows = [
            self._row(int(position), text, answer, None if right is None else bool(right[index]))
            for index, (position, text, answer) in enumerate(zip(positions, texts, written, strict=True))
        ]
        metrics = {} if right is None else {EXACT_MATCH: float(np.mean(right))}
        recorder.event(step, "generations", [], {"metrics": metrics, "rows": rows})
        for name, value in metrics.items():
            recorder.scalar(name, "validation", step, value)
        if right is None:
            return {}, {}
        values = np.full(self.of, np.nan, dtype=np.float32)
        values[self.rows[positions]] = right
        recorder.define_signal("held_out_exact_match", "example", "", self.of)
        recorder.vector("held_out_exact_match", step, values)
        compared = np.asarray(right)[np.isin(positions, self.interim)]
        return metrics, {EXACT_MATCH: float(compared.mean())} if len(compared) else {}

    def _row(self, position: int, text: str, written: Written, right: bool | None) -> dict[str, Any]:
        """Return one text as the store keeps it."""
        return {
            "row": int(self.rows[position]),
            "group": None if self.group is None else self.group[position],
            "prompt": self.text[position][:SHOWN_CHARACTERS],
            "expected": self.expected[position][:SHOWN_CHARACTERS],
            "answer": None if self.answer is None else self.answer[position][:SHOWN_CHARACTERS],
            "text": text[:SHOWN_CHARACTERS],
            "tokens": len(written.ids),
            "ended": written.ended,
            "right": right,
        }
