"""One teacher and the base model as inversion sees them: functions of synthetic texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.kinds.recycle.work.meta_model import MetaModel
from dynlora.kinds.recycle.work.token_space import TokenSpace, reading

LEAST_DEVIATION = 1e-3
"""Deviations are counted as at least this fraction of the layer's mean deviation."""


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of the hidden states of each layer, (layers, d) each."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, states: Sequence[Tensor], mask: Tensor) -> Moments:
        """Return the moments of hidden states (n, length, d) over the tokens that a mask (n, length) counts."""
        weight = mask.unsqueeze(-1).float()
        total = weight.sum()
        means, deviations = [], []
        for state in states:
            mean = (state.float() * weight).sum((0, 1)) / total
            variance = ((state.float() - mean).square() * weight).sum((0, 1)) / total
            means.append(mean)
            deviations.append((variance + 1e-12).sqrt())
        return cls(torch.stack(means), torch.stack(deviations))

    def distance(self, other: Moments) -> Tensor:
        """Return how far other moments are from these, (), in this text's deviations.

        The mean over layers and dimensions of ((mean - mean') / s)² + ((s - s') / s)².
        """
        least = LEAST_DEVIATION * self.deviation.mean(1, keepdim=True)
        size = self.deviation.maximum(least)
        means = ((other.mean - self.mean) / size).square()
        return (means + ((other.deviation - self.deviation) / size).square()).mean()


@torch.no_grad()
def text_moments(backbone: Any, tokenizer: Any, sentences: Sequence[str], length: int) -> Moments:
    """Return the moments of a backbone on sentences that are cut after `length` tokens."""
    batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=length, return_tensors="pt")
    device = next(backbone.parameters()).device
    given = {name: tensor.to(device) for name, tensor in batch.items()}
    states = backbone(**given, output_hidden_states=True).hidden_states
    return Moments.of(states, given["attention_mask"])


@dataclass(frozen=True)
class TeacherSpace:
    """Synthetic texts for a teacher; see `inversion.Searched`.

    Attributes:
        teacher: the trained run, used as a function alone.
        base: the backbone that all teachers share; it is read without its meta-LoRA.
        space: of word embeddings.
        moments: of public text.
        kind: what a search starts from: text, words or noise.
        autocast: makes the precision's context.
    """

    teacher: AdaptedModel
    base: MetaModel
    space: TokenSpace
    moments: Moments
    kind: str = "words"
    autocast: Callable[[], Any] = nullcontext

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Return where the search of n inputs starts, standardised, (n, slots, d)."""
        return self.space.start(n, self.kind, generator)

    def logits(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the teacher's logits, (n, classes)."""
        model = self.teacher.base.model
        with reading(model, self.space.inputs(self.space.place(z), kept)) as batch, self.autocast():
            return self.teacher.strategy.forward(model, batch)

    def strangeness(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the distance of the base model's hidden moments to those of public text, ()."""
        model, inputs = self.base.base.model, self.space.inputs(self.space.place(z), kept)
        with self.base.adapters.disabled(), reading(model, inputs) as batch, self.autocast():
            states = model(**batch, output_hidden_states=True).hidden_states
        return self.moments.distance(Moments.of(states, inputs.mask))

    def nearest(self, z: Tensor) -> Tensor:
        """Return the id of the token nearest to each slot, (n, slots)."""
        return self.space.nearest(self.space.place(z))

    def unlike(self, z: Tensor, nearest: Tensor) -> Tensor:
        """Return the mean squared distance of slots to tokens, in variances of the embeddings, ()."""
        return self.space.unlike(self.space.place(z), nearest)

    def may_drop(self) -> Tensor:
        """Return which slots may be dropped, (slots,): all but the last one that a decoder's head reads."""
        free = torch.ones(self.space.slots, dtype=torch.bool)
        free[-1] = not self.space.keeps_last
        return free
