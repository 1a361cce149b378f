"""What a model that writes texts continues at an evaluation: timed first, so that texts stay a small part of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dynlora.engine.evaluation.written import EXACT_MATCH, Prompts
from dynlora.engine.loop.outlook import ALWAYS, Outlook
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
        recorder: takes the texts, and is told how far they are.
        agree: the mean of a tensor over the processes.
    """

    prompts: Prompts
    model: PreTrainedModel
    gates: Gates | None
    outlook: Outlook
    recorder: Recorder
    agree: Callable[[Tensor], Tensor]

    def write(self, step: int, metric: str) -> tuple[dict[str, float], dict[str, float]]:
        """Write the texts of the evaluation after `step`, where it is one that writes.

        Args:
            step: optimizer steps done.
            metric: that decides which evaluation is the best.

        Returns:
            metrics of the texts, and those by which evaluations are compared; both empty where nothing is written.
        """
        if self.outlook.writing is None:
            self._time(is_start=step == 0, is_deciding=metric == EXACT_MATCH)
        places = self.prompts.places(last=step == self.outlook.total)
        if not len(places) or not self.outlook.writes_at(step):
            return {}, {}
        start, n = time.perf_counter(), len(places)
        written = self.prompts.written(
            self.model,
            self.gates,
            places,
            lambda ended, tokens: self._tell(f"answer {min(ended + 1, n):,} of {n:,}, token {tokens:,}"),
        )
        self.outlook.took_writing(step, time.perf_counter() - start)
        return self.prompts.record(self.recorder, step, written, places)

    def _time(self, *, is_start: bool, is_deciding: bool) -> None:
        """Time a few tokens, and before the first step choose which evaluations write; all processes agree."""
        self._tell("timing answers")
        outlook = self.outlook
        early, last = (
            self.prompts.cost(self.model, self.gates, self.prompts.places(last=last)) for last in (False, True)
        )
        seconds = torch.tensor([early.seconds, last.seconds, outlook.token_s or 0.0], device=self.model.device)
        agreed = self.agree(seconds).tolist()
        outlook.writing = replace(early, seconds=agreed[0]), replace(last, seconds=agreed[1])
        outlook.token_s = agreed[2]
        if not is_start or is_deciding:  # what decides is measured at every evaluation
            return
        outlook.decide()
        if outlook.writes != ALWAYS:
            where = "the first and the last evaluation" if outlook.writes_at(0) else "the last evaluation"
            self.recorder.log(
                "info",
                f"Answers are written at {where} only: {early.prompts:,} at every evaluation, up to "
                f"{early.seconds:.0f} s each time, would take more than a fifth of the run "
                "(log.generate_interim, log.generate_max)",
            )

    def _tell(self, what: str) -> None:
        """Say how far the texts are, and how long the run still takes."""
        self.recorder.activity(f"evaluating: {what}", self.outlook.remaining_s())
