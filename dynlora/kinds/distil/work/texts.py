"""Texts that a teacher writes of its own: from the start token, at temperature 1, without any data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.evaluation.generate import Limits, Written, write
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.randomness import stream_seed
from dynlora.kinds.recycle.work.meta_training import LoraTraining
from dynlora.kinds.recycle.work.token_space import around
from dynlora.tasks.token_loss import token_divergence
from dynlora.tasks.token_rows import IGNORED, end_token


@dataclass(frozen=True)
class Start:
    """What a text begins with before its first written token.

    Attributes:
        ids: tokens, at least one.
        what: in words.
    """

    ids: tuple[int, ...]
    what: str


def start_of(tokenizer: Any) -> Start:
    """Return what a teacher's own texts begin with.

    That is what the tokenizer puts before every text, else its token for the beginning, else its end token, which
    separates documents.

    Raises:
        DataError: when the tokenizer has none of these.
    """
    before, _ = around(tokenizer)
    if before:
        return Start(before, "what its tokenizer puts before every text")
    if tokenizer.bos_token_id is not None:
        return Start((tokenizer.bos_token_id,), "its token for the beginning of a text")
    return Start((end_token(tokenizer),), "its end token, since it has no token for the beginning of a text")


def written_texts(model: AdaptedModel, start: Start, count: int, tokens: int, seed: int) -> list[Written]:
    """Return texts that a model writes at temperature 1 from its start, in one batch with a cache.

    Args:
        model: that writes.
        start: of every text.
        count: of texts.
        tokens: of a text at most, the start left out.
        seed: of what is drawn.
    """
    limits = Limits(tokens, len(start.ids) + tokens, temperature=1.0, seed=seed)
    return write(model.base.model, model.base.tokenizer, [start.ids] * count, limits, model.adapters.gates)


@dataclass
class Texts:
    """Texts of one teacher.

    Attributes:
        start: tokens that each of them begins with.
        end: token that is put after a text that ended.
        rows: tokens that were written, the end token included where the text ended.
        ended: whether each text ended, else it was cut off.
    """

    start: tuple[int, ...]
    end: int
    rows: list[list[int]] = field(default_factory=list[list[int]])
    ended: list[bool] = field(default_factory=list[bool])

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self.rows)

    def add(self, written: Sequence[Written]) -> None:
        """Add texts; a text that is empty or was written before stays, since it is what the teacher writes."""
        for one in written:
            self.rows.append([*one.ids, *([self.end] if one.ended else [])])
            self.ended.append(one.ended)

    def described(self) -> dict[str, Any]:
        """Return what is recorded: number, tokens, how many ended, are empty or repeat an earlier one, and a digest."""
        counts = [len(row) for row in self.rows]
        return {
            "texts": len(self),
            "tokens": sum(counts),
            "mean_tokens": sum(counts) / max(1, len(counts)),
            "ended": sum(self.ended),
            "empty": sum(self._is_empty(index) for index in range(len(self))),
            "repeated": len(self) - len({tuple(row) for row in self.rows}),
            "digest": self.digest(),
        }

    def _is_empty(self, index: int) -> bool:
        return len(self.rows[index]) == int(self.ended[index])

    def digest(self) -> str:
        """Return the SHA-256 of all tokens in order, -1 after each text."""
        flat = [token for row in self.rows for token in (*row, -1)]
        return hashlib.sha256(np.array([*self.start, -1, *flat], dtype="<i8").tobytes()).hexdigest()

    def batch(self, rows: Sequence[int], pad: int, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Return some texts as a model reads them, and the tokens to be predicted, (n, longest), -100 for none."""
        whole = [[*self.start, *self.rows[row]] for row in rows]
        return padded(whole, [len(self.start)] * len(whole), pad, device)

    def state(self) -> dict[str, Tensor]:
        """Return the texts as tensors."""
        return {
            "ids": torch.tensor([token for row in self.rows for token in row], dtype=torch.int64),
            "lengths": torch.tensor([len(row) for row in self.rows], dtype=torch.int64),
            "ended": torch.tensor(self.ended, dtype=torch.bool),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the texts of a saved state."""
        parts: Iterator[Tensor] = iter(state["ids"].split(state["lengths"].tolist()))
        self.rows, self.ended = [part.tolist() for part in parts], state["ended"].tolist()


def padded(
    rows: Sequence[Sequence[int]], starts: Sequence[int], pad: int, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Return tokens filled up on the right, and those that are to be predicted: none of the first `starts`."""
    width = max(map(len, rows))
    ids = [[*row, *[pad] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    labels = [
        [IGNORED] * start + list(row[start:]) + [IGNORED] * (width - len(row))
        for row, start in zip(rows, starts, strict=True)
    ]
    batch = {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
    return batch, torch.tensor(labels, device=device)


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
        rounds = {place // len(self.pool): None for place in places}
        order = {number: self._order(number) for number in rounds}
        return [self.pool[order[place // len(self.pool)][place % len(self.pool)]] for place in places]

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
        teacher_logits = teacher.strategy.forward(teacher.base.model, batch)
    student_logits = student.strategy.forward(student.base.model, batch)
    return token_divergence(teacher_logits, student_logits, labels)  # pyright: ignore[reportArgumentType] - of a task that writes
