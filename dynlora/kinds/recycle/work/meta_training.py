"""Meta-training: one meta-LoRA learns to tell the classes of every episode by their prototypes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from dynlora import strategies
from dynlora.config import TrainConfig
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import load_optimizer_state, optimizer_state
from dynlora.engine.loop.first_steps import TrainingDiverged
from dynlora.engine.loop.optimizer import build_optimizer, clip, set_lr
from dynlora.engine.model.adapters import Adapters
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot import EpisodeDraw, episode_logits
from dynlora.kinds.recycle.work.meta_model import MetaModel
from dynlora.kinds.recycle.work.token_space import Synthetic


@dataclass
class LoraTraining(ABC):
    """A LoRA in training; what it learns from is a subclass's.

    Attributes:
        adapters: that learn.
        steps: of all.
        lr: learning rate.
        unit: what a step is called in messages.
        step: steps done.
        loss: of the last step.
    """

    adapters: Adapters
    steps: int
    lr: float
    unit: str = "step"
    step: int = 0
    loss: float = math.nan
    config: TrainConfig = field(init=False)
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Make the optimizer."""
        self.config = TrainConfig.model_validate(
            {"steps": self.steps, "lr": self.lr, "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "fp32"}
        )
        self.optimizer = build_optimizer(strategies.build("lora", {}), self.adapters, [], self.config)

    @abstractmethod
    def batch_loss(self, index: int) -> Tensor:
        """Return the loss of what step `index` (from 0) learns from, (): a pure function of the seed and the index."""

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def advance(self) -> float:
        """Take one optimizer step and return its loss.

        Raises:
            TrainingDiverged: when the loss is not a number.
        """
        self.step += 1
        set_lr(self.optimizer, self.config, self.step, self.steps)
        loss = self.batch_loss(self.step - 1)
        loss.backward()
        clip(self.optimizer, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            raise TrainingDiverged(f"lr={self.lr}: the loss of {self.unit} {self.step} is not finite; lower lr")
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "adapters": adapter_state(self.adapters),
            "optimizer": optimizer_state(self.optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]
        load_adapter_state(self.adapters, state["adapters"])
        load_optimizer_state(self.optimizer, state["optimizer"])


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
