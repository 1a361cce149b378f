"""What a strategy on somebody else's model consists of."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.model.adapters import Adapters
from dynlora.engine.strategy import Strategy
from dynlora.tasks import Task


@dataclass
class Parts:
    """A strategy on a model that someone else trains.

    Attributes:
        model: the model, its linear modules replaced by adapted ones.
        adapters: the adapted modules.
        strategy: the method.
        optimizer: AdamW over the adapters and whatever else of the model is trainable.
        total: optimizer steps that will be taken.
        head: names of the modules that are trained in full.
        task: what the model predicts, as far as its class tells.
        lora_alpha: as it was asked for; the scaling is alpha / budget.
        index: optimizer steps taken.
        calibration: batches that fixed the gates' standardisation.
    """

    model: nn.Module
    adapters: Adapters
    strategy: Strategy
    optimizer: Optimizer
    total: int
    head: list[str]
    task: Task
    lora_alpha: float
    index: int = 0
    calibration: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]], repr=False)
