"""Meta-training: one meta-LoRA learns to tell the classes of every episode by their prototypes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch.nn import functional as F
from torch.optim import Optimizer

from dynlora import strategies
from dynlora.config import TrainConfig
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import load_optimizer_state, optimizer_state
from dynlora.engine.loop.optimizer import build_optimizer, clip, set_lr
from dynlora.engine.loop.trainer import TrainingDiverged
from dynlora.kinds.recycle import RecycleSettings
from dynlora.recycling.episodes import EpisodeDraw, episode_logits
from dynlora.recycling.meta_model import MetaModel
from dynlora.recycling.pool import Pool


@dataclass
class MetaTraining:
    """The meta-LoRA in training; one optimizer step an episode.

    Attributes:
        meta: the model.
        pool: examples by class.
        settings: of the recycle.
        autocast: makes the precision's context.
        step: episodes done.
        loss, accuracy: of the last episode's queries.
    """

    meta: MetaModel
    pool: Pool
    settings: RecycleSettings
    autocast: Callable[[], Any] = nullcontext
    step: int = 0
    loss: float = math.nan
    accuracy: float = math.nan
    draw: EpisodeDraw = field(init=False)
    config: TrainConfig = field(init=False)
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Make the draw of the episodes and the optimizer.

        Raises:
            ConfigError: when the pool has too few classes or examples.
        """
        of = self.settings
        self.draw = EpisodeDraw(self.pool.rows, of.ways, of.shots, of.queries, of.seed)
        self.config = TrainConfig.model_validate(
            {"steps": of.episodes, "lr": of.lr, "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "fp32"}
        )
        self.optimizer = build_optimizer(strategies.build("lora", {}), self.meta.adapters, [], self.config)

    @property
    def is_done(self) -> bool:
        """Whether all episodes are done."""
        return self.step >= self.settings.episodes

    def advance(self) -> float:
        """Learn from one episode and return its loss.

        Raises:
            TrainingDiverged: when the loss is not a number.
        """
        self.step += 1
        set_lr(self.optimizer, self.config, self.step, self.settings.episodes)
        episode = self.draw[self.step - 1]
        with self.autocast():
            features = self.pool.features(self.meta, episode.rows)
        logits, target = episode_logits(features, episode)
        loss = F.cross_entropy(logits, target)
        loss.backward()
        clip(self.optimizer, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = float(loss.detach())
        self.accuracy = float((logits.argmax(1) == target).float().mean())
        if not math.isfinite(self.loss):
            raise TrainingDiverged(f"lr={self.settings.lr}: the loss of episode {self.step} is not finite; lower lr")
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step, "adapters": adapter_state(self.meta.adapters),
            "optimizer": optimizer_state(self.optimizer),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]
        load_adapter_state(self.meta.adapters, state["adapters"])
        load_optimizer_state(self.optimizer, state["optimizer"])
