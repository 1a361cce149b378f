"""What survives a stop or a crash: the state of training, and the adapters that were learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.building import Inputs
from dynlora.engine.adapter_state import adapter_state, head_state
from dynlora.engine.checkpoint import optimizer_state, write_checkpoint
from dynlora.engine.models import head_parameters
from dynlora.engine.trainer import Trainer
from dynlora.store.writer import RunWriter


class RunKeeper:
    """Keeps a trainer's state in the run folder; only the first process writes."""

    def __init__(self, folder: Path, writer: RunWriter | None, inputs: Inputs) -> None:
        """Write below `folder`, and say so to `writer`."""
        self.folder = folder
        self.writer = writer
        self.inputs = inputs

    def checkpoint(self, trainer: Trainer) -> None:
        """Keep the whole state: the store is safe on the disk before the checkpoint takes its name."""
        if self.writer is None:
            return
        self._note(trainer)
        self.writer.commit(durable=True)
        write_checkpoint(self.folder / "checkpoint", training_state(trainer, self.inputs))

    def best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Keep the adapter of the best evaluation so far."""
        if self.writer is not None:
            write_checkpoint(self.folder / "adapter-best", trained_state(trainer, self.inputs))
            self.writer.set_meta("best", {**metrics, "step": trainer.step})

    def last(self, trainer: Trainer) -> None:
        """Keep the adapter as it is now."""
        if self.writer is not None:
            write_checkpoint(self.folder / "adapter", trained_state(trainer, self.inputs))
            self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        """Tell the store the figures that change as the run goes."""
        if self.writer is not None:
            self.writer.set_meta("params", parameter_counts(trainer, self.inputs))
            self.writer.set_meta("time", trainer.timing.medians())


def training_state(trainer: Trainer, inputs: Inputs) -> dict[str, Any]:
    """Return everything a bit-equal resume needs; random streams are functions of seed and step."""
    return {
        **trained_state(trainer, inputs),
        "optimizer": optimizer_state(trainer.optimizer),
        "strategy": trainer.strategy.state_dict(),
        "best": trainer.best,
        "train_s": trainer.timing.train_s,
    }


def trained_state(trainer: Trainer, inputs: Inputs) -> dict[str, Any]:
    """Return what was learned: adapters and head, what they belong to, and how the last evaluation found them."""
    return {
        "step": trainer.step,
        "adapters": adapter_state(trainer.adapters),
        "head": head_state(head_parameters(inputs.base)),
        "labels": inputs.data.labels,
        "task": inputs.data.task,
        "metrics": trainer.metrics,
    }


def parameter_counts(trainer: Trainer, inputs: Inputs) -> dict[str, int]:
    """Return parameters: budget, active, allocated, gate, head."""
    head = sum(tensor.numel() for tensor in head_parameters(inputs.base).values())
    return {**trainer.adapters.adapter_parameter_count(), "head": head}
