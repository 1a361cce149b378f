"""What a model that writes texts continues at an evaluation: timed first, so that texts stay a small part of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dynlora.engine.evaluation.written import Prompts
from dynlora.engine.loop.schedule import ALWAYS, Outlook
from dynlora.engine.model.gates import Gates
from dynlora.engine.recorder import Recorder


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
