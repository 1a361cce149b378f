"""What a hook of a strategy is told: where training is, and what it may look at before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from dynlora.engine.data.held_back import Batch
from dynlora.tasks import Task


@dataclass(frozen=True)
class Step:
    """Where training is when a hook is called.

    Attributes:
        index: optimizer steps done, 1 after the first.
        total: optimizer steps of the run, T.
        lr: learning rate of this step.
        loss: of the step's batch, penalties left out, on the device; None before it is known.
    """

    index: int
    total: int
    lr: float
    loss: Tensor | None = None


@dataclass(frozen=True)
class Probe:
    """What a strategy may look at before the adapters exist.

    Attributes:
        model: the base model with its head.
        rank: rank of uniform LoRA.
        budget: parameters allowed, Σ rank · (d_in + d_out) unless the strategy says otherwise.
        lora_alpha: alpha of the config; standard scaling is lora_alpha / rank.
        total: optimizer steps of the run, T.
        batches: gives n batches of training examples, with labels, on the model's device; none on resume or load.
        seed: of the run.
        task: what the model learns.
        mixed: names of the modules whose rows do not belong to examples, in equal shares.
    """

    model: nn.Module
    rank: int
    budget: int
    lora_alpha: float
    total: int
    batches: Callable[[int], list[Batch]]
    seed: int
    task: Task
    mixed: tuple[str, ...] = ()
