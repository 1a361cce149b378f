"""Students: what each of them learns from, and what else is measured beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.distil.setting import TAUGHT
from benchmarks.distil.work import Work
from dynlora.engine.randomness import stream_seed
from dynlora.kinds.sources import LoraTraining
from dynlora.tasks.token_loss import token_divergence, token_loss


class RealTraining(LoraTraining):
    """A student that learns from the teachers' own examples, by their loss or by the teachers' distributions.

    Attributes:
        work: whose student, teachers and examples.
        soft: learn from the teachers' distributions.
    """

    def __init__(self, work: Work, *, soft: bool) -> None:
        """Pool the examples of all teachers: as many of each, since one may have more."""
        of, materials = work.setting, work.distilling.materials
        super().__init__(materials.student.adapters, of.steps, of.lr)
        self.work, self.soft = work, soft
        count = min(map(len, work.examples))
        draw = np.random.default_rng(stream_seed(of.seed, "real examples"))
        pool = [
            (teacher, int(row))
            for teacher, own in enumerate(work.examples)
            for row in draw.permutation(len(own))[:count]
        ]
        self.pool = [pool[place] for place in draw.permutation(len(pool))]

    def batch_loss(self, index: int) -> Tensor:
        """Return the mean over the tokens of a batch."""
        size, materials = self.work.setting.batch, self.work.distilling.materials
        drawn = [self.pool[place % len(self.pool)] for place in range(index * size, (index + 1) * size)]
        sums, counts = list[Tensor](), 0
        for teacher in sorted({one for one, _ in drawn}):
            rows = [row for of, row in drawn if of == teacher]
            batch = self.work.examples[teacher].batch(rows, materials.device)
            labels = batch.pop("labels")
            outputs: Any = materials.student.strategy.forward(materials.student.base.model, batch)
            if self.soft:
                own = materials.models[teacher]
                with torch.no_grad():
                    wanted: Any = own.strategy.forward(own.base.model, batch)
                loss, count = token_divergence(wanted, outputs, labels)
            else:
                loss, count = token_loss(outputs, labels)
            sums.append(loss.sum())
            counts += int(count.sum())
        return torch.stack(sums).sum() / max(1, counts)


STUDENTS: dict[str, Callable[[Work], LoraTraining]] = {
    "student": lambda work: work.texts_training(work.distilling.texts["samples"]),
    "real data": lambda work: RealTraining(work, soft=False),
    "base texts": lambda work: work.texts_training(work.base_texts()),
    "real texts": lambda work: RealTraining(work, soft=True),
}
"""What each student learns from, what matters most first."""


def parts(work: Work) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each model that is compared, and what measures it."""
    materials, measured = work.distilling.materials, work.measured
    student = materials.student
    yield "base", lambda: measured.take("base", student, student.adapters.disabled(), work.rows)
    own, *others = STUDENTS
    yield own, lambda: _learned(work, own)
    for name, model in zip(TAUGHT, materials.models, strict=True):
        yield name, lambda name=name, model=model: measured.take(name, model, nullcontext(), work.rows)
    yield "averaged", lambda: _averaged(work)
    for name in others:
        yield name, lambda name=name: _learned(work, name)


def _learned(work: Work, name: str) -> None:
    """Train a student and measure it."""
    materials = work.distilling.materials
    materials.forget_learning()
    learning = STUDENTS[name](work)
    while not learning.is_done:
        learning.advance()
    work.figures.setdefault("last_loss", {})[name] = learning.loss
    work.measured.take(name, materials.student, nullcontext(), work.rows)
    materials.forget_learning()


def _averaged(work: Work) -> None:
    averaged = work.measured.averaged()
    assert averaged is not None, work.measured.notes
    work.measured.take("averaged", averaged, nullcontext(), work.rows)
