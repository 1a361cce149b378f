"""The student in training: one LoRA learns from the texts of all teachers, each against the teacher that wrote it.

The teachers' distributions are computed again for every batch. Kept whole, they would be as many numbers per token as
the model knows words; the largest of them alone would be an approximation. Teachers share the frozen weights, so this
costs one more forward per batch and no more memory than their adapters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.randomness import stream_seed
from dynlora.kinds.distil.work.texts import Texts
from dynlora.kinds.recycle.work.lora_training import LoraTraining
from dynlora.tasks.token_loss import token_divergence


class StudentTraining(LoraTraining):
    """The student in training.

    Attributes:
        student: the model that learns.
        models: of the teachers.
        texts: of each teacher.
        pool: (teacher, row) of all texts.
    """

    def __init__(
        self,
        student: AdaptedModel,
        models: Sequence[AdaptedModel],
        texts: Sequence[Texts],
        *,
        steps: int,
        lr: float,
        batch_size: int,
        seed: int,
    ) -> None:
        """Pool the texts of all teachers and make the optimizer."""
        super().__init__(student.adapters, steps, lr)
        self.student, self.models, self.texts = student, models, texts
        self.pool = [(teacher, row) for teacher, of in enumerate(texts) for row in range(len(of))]
        self.batch_size, self.seed = min(batch_size, len(self.pool)), seed

    def drawn(self, index: int) -> list[tuple[int, int]]:
        """Return (teacher, row) of the texts of a step: all are seen once before any is seen again."""
        places = range(index * self.batch_size, (index + 1) * self.batch_size)
        rounds = {draw // len(self.pool): None for draw in places}
        order = {number: self._order(number) for number in rounds}
        return [self.pool[order[draw // len(self.pool)][draw % len(self.pool)]] for draw in places]

    def _order(self, number: int) -> np.ndarray:
        return np.random.default_rng(stream_seed(self.seed, "student texts", number)).permutation(len(self.pool))

    def batch_loss(self, index: int) -> Tensor:
        """Return the mean of KL(teacher || student) over the tokens of a batch, ()."""
        drawn = self.drawn(index)
        sums, counts = list[Tensor](), 0
        for teacher in sorted({one for one, _ in drawn}):
            rows = [row for of, row in drawn if of == teacher]
            kl, count = divergence(self.models[teacher], self.student, self.texts[teacher], rows)
            sums.append(kl.sum())
            counts += int(count.sum())
        return torch.stack(sums).sum() / max(1, counts)


def divergence(
    teacher: AdaptedModel, student: AdaptedModel, texts: Texts, rows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return KL(teacher || student) over the tokens of texts, and how many tokens they have, (n,) each; nats.

    Args:
        teacher: whose distributions are to be met.
        student: any model of the same words; its gradient is kept where it is wanted.
        texts: that the models read.
        rows: which of them.
    """
    batch, labels = texts.batch(rows, int(student.base.tokenizer.pad_token_id), student.base.model.device)  # pyright: ignore
    with torch.no_grad():
        of_teacher = teacher.strategy.forward(teacher.base.model, batch)
    of_student = student.strategy.forward(student.base.model, batch)
    return token_divergence(of_teacher, of_student, labels)  # pyright: ignore[reportArgumentType] - of a task that writes
