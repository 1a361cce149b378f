"""Few-shot episodes: which examples are support and which are queries, and what prototypes make of them.

A prototype is the mean of a class's support features; the logits of a query are minus its squared Euclidean distances
to the prototypes (Snell et al. 2017, arXiv 1703.05175).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError


@dataclass(frozen=True)
class Episode:
    """One few-shot task.

    Attributes:
        classes: which classes of the pool, (ways,).
        support: rows of the examples that are given, (ways, shots).
        query: rows of the examples to classify, (ways, queries); none of them is in `support`.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """All rows, the support first."""
        return np.concatenate([self.support.ravel(), self.query.ravel()])


@dataclass(frozen=True)
class EpisodeDraw:
    """Draws episodes from a pool of classes; episode `index` is a pure function of the seed and its number.

    Attributes:
        rows: rows of each class.
        ways: classes of an episode.
        shots: support examples of a class; one of them is drawn for each episode.
        queries: query examples of a class, at most.
        seed: of the draw.
        purpose: names the random stream.
    """

    rows: Sequence[np.ndarray]
    ways: int
    shots: tuple[int, ...]
    queries: int
    seed: int
    purpose: str = "episode"

    def __post_init__(self) -> None:
        """Refuse a pool that has too few classes or examples.

        Raises:
            ConfigError: one sentence that says what to change.
        """
        most = max(self.shots)
        if len(self.rows) < self.ways:
            raise ConfigError(
                f"ways={self.ways}: there are only {len(self.rows)} classes; lower ways, or add runs or classes"
            )
        fewest = min(len(rows) for rows in self.rows)
        if fewest <= most:
            raise ConfigError(
                f"shots={most}: a class has only {fewest} examples, which leaves no query; lower shots, or give more"
            )

    def __getitem__(self, index: int) -> Episode:
        """Return one episode."""
        rng = np.random.default_rng(stream_seed(self.seed, self.purpose, index))
        classes = rng.choice(len(self.rows), self.ways, replace=False)
        shots = int(rng.choice(self.shots))
        queries = min(self.queries, min(len(self.rows[one]) for one in classes) - shots)
        drawn = [rng.permutation(self.rows[one])[: shots + queries] for one in classes]
        table = np.stack(drawn)
        return Episode(classes, table[:, :shots], table[:, shots:])

    def first(self, n: int) -> Iterator[Episode]:
        """Yield the first n episodes."""
        return (self[index] for index in range(n))


def rows_of_classes(label: np.ndarray, least: int = 1) -> list[np.ndarray]:
    """Return the rows of each class of labels (n,), in order of the labels; classes of fewer than `least` are left."""
    by_class = [np.flatnonzero(label == value) for value in np.unique(label)]
    return [rows for rows in by_class if len(rows) >= least]


def prototypes(support: Tensor) -> Tensor:
    """Return the mean features of each class, (ways, d), of support features (ways, shots, d)."""
    return support.mean(1)


def distances(query: Tensor, prototype: Tensor) -> Tensor:
    """Return the squared Euclidean distances, (n, ways), of features (n, d) to prototypes (ways, d)."""
    return (query.unsqueeze(1) - prototype.unsqueeze(0)).square().sum(-1)


def episode_logits(features: Tensor, episode: Episode) -> tuple[Tensor, Tensor]:
    """Return the logits of an episode's queries, (ways · queries, ways), and their classes.

    Args:
        features: of `episode.rows`, (ways · shots + ways · queries, d).
        episode: whose rows they are.
    """
    ways, shots = episode.support.shape
    support, query = features[: ways * shots], features[ways * shots :]
    logits = -distances(query, prototypes(support.view(ways, shots, -1)))
    target = torch.arange(ways, device=features.device).repeat_interleave(episode.query.shape[1])
    return logits, target


@torch.no_grad()
def episode_accuracy(features: Tensor, episode: Episode) -> float:
    """Return the fraction of an episode's queries whose nearest prototype is that of their class.

    Args:
        features: of all rows that episodes are drawn from, (n, d).
        episode: to measure.
    """
    logits, target = episode_logits(features[torch.from_numpy(episode.rows)], episode)
    return float((logits.argmax(1) == target).float().mean())
