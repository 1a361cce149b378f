"""What a model writes at an evaluation, which answers are right, and the loss of single tokens of given texts.

Writing is timed first, so that texts stay a small part of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import Limits, OnToken, Written, batch_size, write
from dynlora.engine.loop.schedule import ALWAYS, Outlook
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


@dataclass(frozen=True)
class InterimTexts:
    """Lets a model continue prompts at an evaluation, and records what it wrote.

    Attributes:
        prompts: held-out prompts.
        model: adapted, without what wraps it for several processes; each of them writes all texts, the first records.
        gates: of the adapted model.
        outlook: says which evaluations write, and learns what that takes.
        recorder: takes the texts, and the activity: how far they are.
        agree: the mean of a tensor over the processes.
        is_deciding: whether the texts decide which evaluation is the best; they are then written at every one.
    """

    prompts: Prompts
    model: PreTrainedModel
    gates: Gates | None
    outlook: Outlook
    recorder: Recorder
    agree: Callable[[Tensor], Tensor]
    is_deciding: bool

    def write(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Write the texts of the evaluation after `step`, where it is one that writes.

        Args:
            step: optimizer steps done.

        Returns:
            metrics of the texts, and those by which evaluations are compared; both empty where nothing is written.
        """
        if self.outlook.writing_s is None:
            self._time(is_start=step == 0)
        positions = self.prompts.positions(last=step == self.outlook.total)
        if not len(positions) or not self.outlook.writes_at(step):
            return {}, {}
        start, n = time.perf_counter(), len(positions)
        written = self.prompts.written(
            self.model,
            self.gates,
            positions,
            lambda ended, tokens: self._tell(f"answer {min(ended + 1, n):,} of {n:,}, token {tokens:,}"),
        )
        self.outlook.took_writing(step, time.perf_counter() - start)
        return self.prompts.record(self.recorder, step, written, positions)

    def _time(self, *, is_start: bool) -> None:
        """Time a few tokens, and before the first step choose which evaluations write; all processes agree."""
        self._tell("timing answers")
        outlook = self.outlook
        interim, last = self.prompts.costs(self.model, self.gates)
        seconds = torch.tensor([interim.seconds, last.seconds, outlook.token_s or 0.0], device=self.model.device)
        interim_s, last_s, outlook.token_s = self.agree(seconds).tolist()
        outlook.writing_s = interim_s, last_s
        if not is_start:
            return
        self.decide(interim_s)
        if outlook.writes != ALWAYS:
            where = "the first and the last evaluation" if outlook.writes_at(0) else "the last evaluation"
            self.recorder.log(
                "info",
                f"Answers are written at {where} only: {interim.prompts:,} at every evaluation, up to "
                f"{interim_s:.0f} s each time, would take more than a fifth of the run "
                "(log.generate_interim, log.generate_max)",
            )

    def decide(self, interim_s: float) -> None:
        """Choose which evaluations write, by the seconds of the texts of one before the last."""
        if not self.is_deciding:
            self.outlook.decide(interim_s)

    def _tell(self, what: str) -> None:
        """Say how far the texts are, and how long the run still takes."""
        self.recorder.activity(f"evaluating: {what}", self.outlook.remaining_s())


MOST_TOKENS = 8192
"""Tokens, those of prompts included, whose loss each evaluation records: 32 KiB."""

SIGNAL, EVENT = "probe_token_loss", "probe_tokens"
"""The losses at an evaluation, one example after the other; and once, at step 0, what each token adds to its text."""


@dataclass(frozen=True)
class TokenTrace:
    """Examples whose losses are recorded token by token: the first of the probe set, each whole.

    Attributes:
        rows: which held-out examples they are, (n,), in the order of the probe set.
        texts: what each token of each of them adds to the text.
    """

    rows: np.ndarray
    texts: Sequence[Sequence[str]]

    @classmethod
    def of(
        cls, tokens: Tokens, probe: np.ndarray, tokenizer: PreTrainedTokenizerBase, most: int = MOST_TOKENS
    ) -> TokenTrace | None:
        """Return the first examples of a probe set with at most `most` tokens in all; None where one has more.

        Args:
            tokens: held-out examples.
            probe: row indices of the probe set.
            tokenizer: of the model.
            most: tokens in all.
        """
        n = int((np.cumsum(tokens.length[probe]) <= most).sum())
        rows = probe[:n]
        texts = [token_texts(tokenizer, tokens.features[int(row)]["input_ids"]) for row in rows]
        return cls(rows, texts) if n else None

    def record(self, recorder: Recorder, step: int, token_loss: np.ndarray) -> None:
        """Record the losses of an evaluation.

        Args:
            recorder: takes them.
            step: of the evaluation.
            token_loss: of the whole probe set, as `Predictions.token_loss` has it.
        """
        if step == 0:
            recorder.event(step, EVENT, [], {"tokens": [list(text) for text in self.texts]})
        values = np.concatenate(list(token_loss[: len(self.rows)]))
        recorder.define_signal(SIGNAL, "example", "nats", len(values))
        recorder.vector(SIGNAL, step, values)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to a text; a piece of a letter is shown as the tokenizer names it."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [str(tokenizer.decode([token])) for token in ids]
    broken = "\N{REPLACEMENT CHARACTER}"
    return [str(name) if broken in text or not text else text for text, name in zip(texts, names, strict=True)]
