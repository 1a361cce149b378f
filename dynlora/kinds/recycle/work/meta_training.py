"""Meta-training: one meta-LoRA learns to tell the classes of every episode by their prototypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.episodes import EpisodeDraw, episode_logits
from dynlora.kinds.recycle.work.lora_training import LoraTraining
from dynlora.kinds.recycle.work.meta_model import MetaModel
from dynlora.kinds.recycle.work.pool import Pool


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
