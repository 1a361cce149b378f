"""Input groups and the probe set: how the inputs are distributed, as the frozen model sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor, nn

from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.randomness import stream_seed

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
