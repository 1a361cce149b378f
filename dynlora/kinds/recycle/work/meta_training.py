"""Meta-training: one meta-LoRA learns to tell the classes of every episode by their prototypes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.episodes import EpisodeDraw, episode_logits
from dynlora.kinds.recycle.work.lora_training import LoraTraining
from dynlora.kinds.recycle.work.meta_model import MetaModel
from dynlora.kinds.recycle.work.token_space import Synthetic


class Pool(Protocol):
    """Examples by class."""

    @property
    def rows(self) -> Sequence[np.ndarray]:
        """Rows of each class."""
        ...

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d), with their gradient."""
        ...


@dataclass(frozen=True)
class SyntheticPool:
    """Synthetic inputs of all classes of all teachers.

    Attributes:
        rows: of each class.
        inputs: all of them.
    """

    rows: Sequence[np.ndarray]
    inputs: Synthetic

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d)."""
        return meta.synthetic_features(self.inputs.take(torch.from_numpy(rows)))


@dataclass(frozen=True)
class TextPool:
    """Texts of classes: real data, for comparison.

    Attributes:
        rows: of each class.
        texts: all of them.
    """

    rows: Sequence[np.ndarray]
    texts: list[str]

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d)."""
        return meta.features(meta.tokens([self.texts[row] for row in rows]))


class MetaTraining(LoraTraining):
    """The meta-LoRA in training; one optimizer step an episode.

    Attributes:
        meta: the model.
        pool: examples by class.
        autocast: makes the precision's context.
        draw: of the episodes.
        accuracy: of the last episode's queries.
    """

    def __init__(
        self, meta: MetaModel, pool: Pool, settings: RecycleSettings, autocast: Callable[[], Any] = nullcontext
    ) -> None:
        """Make the draw of the episodes and the optimizer.

        Raises:
            ConfigError: when the pool has too few classes or examples.
        """
        super().__init__(meta.adapters, settings.episodes, settings.lr, "episode")
        self.meta, self.pool, self.autocast = meta, pool, autocast
        self.draw = EpisodeDraw(pool.rows, settings.ways, settings.shots, settings.queries, settings.seed)
        self.accuracy = math.nan

    def batch_loss(self, index: int) -> Tensor:
        """Return the cross entropy of an episode's queries, ()."""
        episode = self.draw[index]
        with self.autocast():
            features = self.pool.features(self.meta, episode.rows)
        logits, target = episode_logits(features, episode)
        self.accuracy = float((logits.argmax(1) == target).float().mean())
        return F.cross_entropy(logits, target)
