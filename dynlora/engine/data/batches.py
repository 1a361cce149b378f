"""Token batches of like length; batch k of an epoch is a pure function of (seed, epoch, k)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dynlora.engine.data.text_data import Rows
from dynlora.engine.randomness import stream_seed
from dynlora.tasks import Task

POOL = 50
"""Batches drawn together and sorted by length: little padding, still a random order."""

MULTIPLE = 8
"""Padded lengths are a multiple of this, which matrix units like."""


@dataclass(frozen=True)
class Tokens:
    """Tokenised rows.

    Attributes:
        features: per row, what the tokenizer gave: input_ids, attention_mask and maybe token_type_ids.
        label: (n,), int64 or float32.
        length: tokens of each row, (n,).
        pad: value to fill each feature with.
        targets: per row, the label of each token, for a task that has one a token; `label` counts them then.
        notes: what a person should know of how the rows became tokens, in sentences.
    """

    features: list[dict[str, list[int]]]
    label: np.ndarray
    length: np.ndarray
    pad: dict[str, int]
    targets: list[list[int]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def take(self, rows: np.ndarray) -> Tokens:
        """Return the rows at these positions."""
        targets = None if self.targets is None else [self.targets[row] for row in rows]
        return Tokens([self.features[row] for row in rows], self.label[rows], self.length[rows], self.pad, targets)

    def counted(self, rows: np.ndarray) -> int:
        """Return how many labels of rows count in the loss."""
        return len(rows) if self.targets is None else int(self.label[rows].sum())

    def batch(self, indices: Sequence[int] | np.ndarray, device: torch.device | None = None) -> dict[str, Tensor]:
        """Return rows padded to their longest: each feature (batch, seq), labels (batch,) or (batch, seq)."""
        width = padded_width(self.length, indices)
        batch = {}
        for name, fill in self.pad.items():
            batch[name] = _padded([self.features[index][name] for index in indices], width, fill).to(device)
        if self.targets is None:
            batch["labels"] = torch.from_numpy(self.label[np.asarray(indices)]).to(device)
        else:
            batch["labels"] = _padded([self.targets[index] for index in indices], width, IGNORED).to(device)
        return batch


IGNORED = -100
"""Label of a token that does not count; padding is told by length, never by a token's id."""


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    """Return rows of numbers filled up on the right, (n, width)."""
    table = np.full((len(rows), width), fill, dtype=np.int64)
    for row, values in enumerate(rows):
        table[row, : len(values)] = values
    return torch.from_numpy(table)


def padded_width(length: np.ndarray, rows: Sequence[int] | np.ndarray) -> int:
    """Return the width a batch of these rows is padded to: the longest, rounded up to a multiple of `MULTIPLE`."""
    return -(-max(1, *(int(length[row]) for row in rows)) // MULTIPLE) * MULTIPLE


def padded_tokens(length: np.ndarray, rows: Sequence[int] | np.ndarray) -> int:
    """Return the tokens of a batch of these rows, padding included."""
    return len(rows) * padded_width(length, rows)


def tokenize(tokenizer: PreTrainedTokenizerBase, rows: Rows, max_length: int, task: Task) -> Tokens:
    """Return the rows as tokens, cut after `max_length` of them, and with the labels that the task gives them."""
    encoded = task.encode_rows(tokenizer, rows, max_length)
    names = list(encoded.features[0]) if encoded.features else ["input_ids", "attention_mask"]
    pads = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    return Tokens(
        encoded.features,
        rows.label if encoded.counts is None else encoded.counts,
        np.array([len(feature["input_ids"]) for feature in encoded.features]),
        {name: pads.get(name, 0) for name in names},
        encoded.targets,
        encoded.notes,
    )


def epoch_batches(length: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch, each `batch_size` row indices of like length.

    Rows are shuffled, pools of `POOL` batches are sorted by length, and the batches shuffled again. Every batch is
    whole: the rows left over are dropped from this epoch; fewer rows than a batch are repeated to fill one.
    """
    rng = np.random.default_rng(stream_seed(seed, "batches", epoch))
    order = rng.permutation(len(length))
    if len(order) < batch_size:
        order = np.resize(order, batch_size)
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(length[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool) - batch_size + 1, batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]


class BatchOrder:
    """Which rows each forward pass sees: number `index` counts forward passes from 0 over all epochs."""

    def __init__(self, length: np.ndarray, batch_size: int, seed: int, first: int = 0) -> None:
        """Prepare the order for rows of these lengths; number 0 is the `first` of a run's."""
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.first = first
        self.per_epoch = len(epoch_batches(length, batch_size, seed, 0))
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the row indices of one forward pass."""
        epoch, position = divmod(self.first + index, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, epoch_batches(self.length, self.batch_size, self.seed, epoch)
        return self._batches[position]


def divisors(tokens: Tokens, parts: Sequence[np.ndarray], process: int, processes: int) -> list[float]:
    """Return what the mean loss of each part of a step is divided by, so that every label that counts weighs alike.

    (labels of the whole step) / (labels of this process's part of the part · processes): the number of parts where
    each has as many labels. Gradients are averaged over processes afterwards.

    Args:
        tokens: the rows.
        parts: which rows each part of the step has, over all processes.
        process: this one.
        processes: how many share each part.
    """
    whole = sum(tokens.counted(rows) for rows in parts)
    shares = [tokens.counted(rows[process::processes]) for rows in parts]
    return [whole / (share * processes) if share else math.inf for share in shares]


def sorted_batches(length: np.ndarray, batch_size: int, apart: Sequence[int] = ()) -> Iterator[np.ndarray]:
    """Yield all rows, longest first, for evaluation: the first batch needs the most memory.

    Rows that are `apart` have batches of their own, after those of the others.
    """
    order = np.argsort(-length, kind="stable")
    is_apart = np.isin(order, apart)
    for rows in (order[~is_apart], order[is_apart]):
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


LOOK = 32
"""Rows a batch of what a method looks at before training."""


def calibration_batches(
    tokens: Tokens, n: int, seed: int, device: torch.device | None = None
) -> list[dict[str, Tensor]]:
    """Return n batches of `LOOK` training examples with labels, for what is looked at before training.

    They are drawn on their own, so that a start does not depend on how training batches its rows.
    """
    order = BatchOrder(tokens.length, LOOK, stream_seed(seed, "look"))
    return [tokens.batch(order[index], device) for index in range(n)]
