"""Hidden moments of public text: what the base model's layers compute for any text, instead of images' statistics.

The published method borrows the batch-norm statistics of a ResNet. A transformer has none, so mean and deviation of the
hidden states are taken on public text, layer by layer, from the base model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PUBLIC_TEXT = Path(__file__).with_name("public_text.txt")
"""Sentences of books and documents in the public domain, one a line."""

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


def public_sentences() -> list[str]:
    """Return the public text, a sentence each."""
    return [line for line in PUBLIC_TEXT.read_text("utf-8").splitlines() if line.strip()]


def digest_of(sentences: Sequence[str]) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()


@torch.no_grad()
def text_moments(backbone: Any, tokenizer: Any, sentences: Sequence[str], length: int) -> Moments:
    """Return the moments of a backbone on sentences that are cut after `length` tokens."""
    batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=length, return_tensors="pt")
    device = next(backbone.parameters()).device
    given = {name: tensor.to(device) for name, tensor in batch.items()}
    states = backbone(**given, output_hidden_states=True).hidden_states
    return Moments.of(states, given["attention_mask"])
