"""Examples beside training: those held back for a method, and the input groups that results are split by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.randomness import stream_seed
from dynlora.tasks import Task

CLUSTERS = 4
"""Groups that k-means makes."""


@torch.inference_mode()
def embed(
    model: nn.Module, tokens: Tokens, rows: np.ndarray, batch_size: int, autocast: Callable[[], Any]
) -> np.ndarray:
    """Return the frozen model's embeddings of rows, averaged over their tokens, (n, d)."""
    backbone = _backbone(model)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    vectors: list[np.ndarray] = [np.empty(0)] * len(rows)
    try:
        for indices in sorted_batches(tokens.length[rows], batch_size):
            batch = tokens.batch(rows[indices], device)
            del batch["labels"]
            with autocast():
                hidden = backbone(**batch).last_hidden_state.float()
            for index, vector in zip(indices, pooled(hidden, batch["attention_mask"]).cpu().numpy(), strict=True):
                vectors[index] = vector
    finally:
        model.train(training)
    return np.stack(vectors) if vectors else np.empty((0, 0))


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return hidden states (n, length, d) averaged over the tokens that a mask (n, length) counts, (n, d)."""
    weight = mask.unsqueeze(-1).float()
    return (hidden.float() * weight).sum(1) / weight.sum(1).clamp_min(1)


@contextmanager
def pooled_from(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the hidden states that `embed` averages, of every forward of the model inside the block."""
    seen: list[Tensor] = []
    handle = _backbone(model).register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _backbone(model: nn.Module) -> Any:
    """Return the part of a model that makes hidden states of its texts."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return model.get_encoder()  # pyright: ignore - a decoder may need an input of its own
    return getattr(model, "base_model", model)


def plane(embedding: np.ndarray) -> np.ndarray:
    """Return the first two principal components, (n, 2), signs fixed by the library; zeros where there are fewer."""
    points = np.zeros((len(embedding), 2))
    n = min(2, *embedding.shape) if embedding.size else 0
    if len(embedding) > 1 and n:
        with np.errstate(invalid="ignore"):  # equal texts have no variance to explain
            points[:, :n] = PCA(n, svd_solver="full").fit_transform(embedding)
    return points


def fit_clusters(embedding: np.ndarray, seed: int) -> KMeans:
    """Return k-means fitted to embeddings (n, d); `predict` gives the index of each row's cluster."""
    n_clusters = min(CLUSTERS, len(np.unique(embedding, axis=0)))
    return KMeans(n_clusters, random_state=stream_seed(seed, "clusters") % 2**32).fit(embedding)


def probe_rows(label: np.ndarray, group: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """Return at most `n` row indices, in order: a keyed draw that takes as many from every group as there are."""
    rng = np.random.default_rng(stream_seed(seed, "probe"))
    group = np.zeros(len(label), dtype=int) if group is None else group
    shuffled = rng.permutation(len(label))
    turn = np.zeros(len(label))
    for value in np.unique(group):
        members = shuffled[group[shuffled] == value]
        turn[members] = np.arange(len(members))
    chosen = shuffled[np.argsort(turn[shuffled], kind="stable")][:n]
    return np.sort(chosen)


Batch = Mapping[str, Tensor]


def set_apart(tokens: Tokens, share: float, seed: int) -> tuple[Tokens, Tokens]:
    """Return rows without a drawn fraction of them, and that fraction: what is trained on, and what is kept from it.

    At least one row is set apart where the fraction is above zero, and one is always left.
    """
    if share <= 0:
        return tokens, tokens.take(np.arange(0))
    order = np.random.default_rng(stream_seed(seed, "reserve")).permutation(len(tokens))
    size = min(max(1, round(share * len(tokens))), len(tokens) - 1)
    return tokens.take(np.sort(order[size:])), tokens.take(np.sort(order[:size]))


@dataclass(frozen=True)
class HeldBack:
    """The model and the examples that a method may try something on.

    Attributes:
        model: the adapted model.
        forward: the method's forward.
        reserve: the examples kept from training by `Strategy.reserved_share`; empty without one.
        batch_size: rows a batch.
        autocast: makes the precision's context.
        task: what is learned: its loss, its predictions.
    """

    model: nn.Module
    forward: Callable[[nn.Module, Batch], Tensor]
    reserve: Tokens
    batch_size: int
    autocast: Callable[[], Any]
    task: Task

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number` of the reserve, which is gone through again and again in its own order."""
        start = number * self.batch_size
        rows = np.arange(start, start + min(self.batch_size, len(self.reserve))) % len(self.reserve)
        return self.reserve.batch(rows, next(self.model.parameters()).device)

    def batch_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch with its labels, part of the graph; the model stays in its mode."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with self.autocast():
            return self.task.batch_loss(self.forward(self.model, inputs), batch["labels"])

    def gradients(self, batch: Mapping[str, Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of a batch in eval mode and its gradient for each of `tensors`; nothing is left on them.

        Every process computes the whole batch: nothing is exchanged.
        """
        alone = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        with torch.enable_grad(), self.evaluating():
            loss = replace(self, model=alone).batch_loss(batch)
            of_tensors = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        return loss.detach(), list(of_tensors)

    @torch.no_grad()
    def reserve_loss(self, batches: int | None = None) -> float:
        """Return the mean loss over the reserve's rows, or over its first so many batches, in eval mode."""
        device = next(self.model.parameters()).device
        count = len(self.reserve) if batches is None else min(len(self.reserve), batches * self.batch_size)
        parts = [np.arange(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]
        with self.evaluating():
            sums = [self.batch_loss(self.reserve.batch(rows, device)) * len(rows) for rows in parts]
        return float(torch.stack(sums).sum() / count)

    @contextmanager
    def evaluating(self) -> Any:
        """Put the model in eval mode inside the block."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)
