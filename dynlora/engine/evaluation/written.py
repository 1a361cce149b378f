"""What a model writes at each evaluation: a fixed set of held-out prompts, and which answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import Limits, Written, write
from dynlora.engine.model.gates import Gates
from dynlora.engine.recorder import Recorder
from dynlora.tasks import WritingTask

EXACT_MATCH = "exact_match"
SHOWN_CHARACTERS = 4000
"""Characters of a text that the store keeps."""


@dataclass(frozen=True)
class Prompts:
    """Held-out prompts that are continued at each evaluation.

    Attributes:
        rows: which held-out rows they are, (n,).
        of: number of all held-out rows.
        ids: tokens of each prompt.
        text: each prompt for reading.
        expected: what the data has in the place of the written text.
        answer: what is right; None where the rows have no answers to check.
        group: name of each prompt's input group, or None.
        limits: how much is written.
        tokenizer: of the model.
        task: checks answers.
    """

    rows: np.ndarray
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
        cls, held_out: Rows, rows: np.ndarray, tokenizer: PreTrainedTokenizerBase, task: WritingTask, limits: Limits
    ) -> Prompts:
        """Return the prompts of some held-out rows."""
        chosen = held_out.take(rows)
        prompts = [task.prompt(tokenizer, chosen, index) for index in range(len(chosen))]
        answer = chosen.fields.get("answer")
        return cls(
            rows, len(held_out), [prompt.ids for prompt in prompts], [prompt.text for prompt in prompts],
            [prompt.expected for prompt in prompts], None if answer is None else list(answer), chosen.group, limits,
            tokenizer, task,
        )  # fmt: skip

    def written(self, model: PreTrainedModel, gates: Gates | None) -> list[Written]:
        """Return what the model writes after each prompt."""
        return write(model, self.tokenizer, self.ids, self.limits, gates)

    def record(self, recorder: Recorder, step: int, written: Sequence[Written]) -> dict[str, float]:
        """Record what was written, and return how much of it is right, where that can be checked."""
        texts = [str(self.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in written]
        right = None if self.answer is None else [
            self.task.is_right(answer, text) for answer, text in zip(self.answer, texts, strict=True)
        ]  # fmt: skip
        rows = [self._row(place, texts[place], written[place], right) for place in range(len(texts))]
        found = {} if right is None else {EXACT_MATCH: float(np.mean(right))}
        recorder.event(step, "generations", [], {"metrics": found, "rows": rows})
        for name, value in found.items():
            recorder.scalar(name, "validation", step, value)
        if right is not None:
            values = np.full(self.of, np.nan, dtype=np.float32)
            values[self.rows] = right
            recorder.define_signal("held_out_exact_match", "example", "", self.of)
            recorder.vector("held_out_exact_match", step, values)
        return found

    def _row(self, place: int, text: str, written: Written, right: Sequence[bool] | None) -> dict[str, Any]:
        """Return one text as the store keeps it."""
        return {
            "row": int(self.rows[place]),
            "group": None if self.group is None else self.group[place],
            "prompt": self.text[place][:SHOWN_CHARACTERS],
            "expected": self.expected[place][:SHOWN_CHARACTERS],
            "answer": None if self.answer is None else self.answer[place][:SHOWN_CHARACTERS],
            "text": text[:SHOWN_CHARACTERS],
            "tokens": len(written.ids),
            "ended": written.ended,
            "right": None if right is None else bool(right[place]),
        }
