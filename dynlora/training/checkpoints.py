"""What survives a stop or a crash: the state of training, and the adapters that were learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.engine.evaluation.evaluate import HeldOutPart
from dynlora.engine.loop.adapter_state import adapter_state
from dynlora.engine.loop.checkpoint import optimizer_state, write_checkpoint
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.base_model import head_parameters
from dynlora.errors import StorageError
from dynlora.store.schema import DB_NAME, command_text
from dynlora.store.writer import RunWriter
from dynlora.training.inputs import Inputs


class RunCheckpoints:
    """Keeps a trainer's state in the run folder; only the first process writes."""

    def __init__(self, folder: Path, writer: RunWriter | None, inputs: Inputs) -> None:
        """Write below `folder`, and say so to `writer`."""
        self.folder = folder
        self.writer = writer
        self.inputs = inputs
        self._identity = _identity(folder)

    def checkpoint(self, trainer: Trainer) -> None:
        """Keep the whole state: the store is safe on the disk before the checkpoint takes its name."""
        if self.writer is None:
            return
        self._note(trainer)
        try:
            self.writer.commit(durable=True)
        except OSError as error:  # a checkpoint ahead of the store would leave steps that nobody recorded
            self._not_kept("checkpoint", trainer, str(error), must=trainer.step == 0)
            return
        if self._keep("checkpoint", training_state(trainer, self.inputs), trainer, must=trainer.step == 0):
            self.writer.set_meta("checkpoint_step", trainer.step)

    def best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Keep the adapter of the best evaluation so far; the run names it the best only where it was kept."""
        if self.writer is not None and self._keep("adapter-best", trained_state(trainer, self.inputs), trainer):
            self.writer.set_meta(
                "best", {**metrics, "step": trainer.step, **_rows(trainer.evaluation.part(last=False))}
            )

    def last(self, trainer: Trainer) -> None:
        """Keep the adapter as it is now."""
        if self.writer is not None:
            self._keep("adapter", trained_state(trainer, self.inputs), trainer, must=True)
            self._note(trainer)

    def _keep(self, name: str, state: dict[str, Any], trainer: Trainer, *, must: bool = False) -> bool:
        """Write a state and say whether it was; else training continues with the one before, unless it must be kept.

        Raises:
            StorageError: when what must be kept cannot be, or the run's folder is gone.
        """
        try:
            write_checkpoint(self.folder / name, state)
        except OSError as error:
            self._not_kept(name, trainer, error.strerror or str(error), must=must)
            return False
        return True

    def _not_kept(self, name: str, trainer: Trainer, reason: str, *, must: bool) -> None:
        """Say that a state was not written, as a warning of the run or, where it must be kept, as the run's end."""
        what = f"the {name.replace('-', ' ')} of step {trainer.step} cannot be written ({reason})"
        if not (self.folder / DB_NAME).exists():
            raise StorageError(self._gone())
        if must:
            raise StorageError(f"{what}; free some space, then {self._resume()}")
        if self.writer is not None:
            self.writer.warn(f"{what}; training continues, and the last one is still valid")

    def _gone(self) -> str:
        """Say what became of the run's folder: it has another name in the same place, or is not there any more."""
        name, root, renamed = self.folder.name, self.folder.parent, self._other_name()
        if not root.exists():
            return (
                f"run {name}: the runs folder {root} was moved or removed during training; move it back, then "
                f"{self._resume()}"
            )
        if renamed is None:
            return f"run {name}: its folder was moved or removed during training; nothing more is saved"
        return (
            f"run {name}: its folder was renamed to {renamed} during training; rename it back to {name}, then "
            f"{self._resume()}"
        )

    def _resume(self) -> str:
        return command_text("resume", self.folder.name, runs_dir=self.folder.parent)

    def _other_name(self) -> str | None:
        """Return the name that the run's folder has now in the same place; None where it is not there."""
        try:
            beside = list(self.folder.parent.iterdir())
        except OSError:
            return None
        return next((one.name for one in beside if self._identity and _identity(one) == self._identity), None)

    def _note(self, trainer: Trainer) -> None:
        """Tell the store the figures that change as the run goes."""
        if self.writer is not None:
            self.writer.set_meta("params", parameter_counts(trainer, self.inputs))
            self.writer.set_meta("scaling", {module.info.name: module.scaling for module in trainer.adapters})
            self.writer.set_meta("time", trainer.timing.medians())
            if trainer.last_eval_subset is not None:
                self.writer.set_meta(
                    "evaluated", {"rows": len(trainer.last_eval_subset.rows), "of": trainer.last_eval_subset.of}
                )


def _rows(part: HeldOutPart) -> dict[str, int]:
    """Return on how many rows a number was found, where these are not all."""
    return {} if part.is_whole else {"rows": len(part.rows)}


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what a folder keeps under another name, None where it cannot be read."""
    try:
        status = folder.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def training_state(trainer: Trainer, inputs: Inputs) -> dict[str, Any]:
    """Return everything a bit-equal resume needs; random streams are functions of seed and step."""
    return {
        **trained_state(trainer, inputs),
        "optimizer": optimizer_state(trainer.optimizer),
        "strategy": trainer.strategy.state_dict(),
        "best": trainer.best,
        "train_s": trainer.timing.train_s,
        "evaluated_s": trainer.timing.evaluated_s,
        "outlook": trainer.outlook.state_dict(),
    }


def trained_state(trainer: Trainer, inputs: Inputs) -> dict[str, Any]:
    """Return what was learned: adapters and head, what they belong to, and how the last evaluation found them."""
    return {
        "step": trainer.step,
        "adapters": adapter_state(trainer.adapters),
        "head": dict(head_parameters(inputs.base)),
        "labels": inputs.data.labels,
        "task": inputs.data.task.name,
        **({"task_settings": settings} if (settings := inputs.data.task.settings()) else {}),
        "metrics": trainer.metrics,
    }


def parameter_counts(trainer: Trainer, inputs: Inputs) -> dict[str, int]:
    """Return parameters: budget, active, allocated, gate, head."""
    head = sum(tensor.numel() for tensor in head_parameters(inputs.base).values())
    return {**trainer.adapters.adapter_parameter_count(), "head": head}
