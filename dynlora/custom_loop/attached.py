"""What `attach` returns: a strategy on a model that someone else trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.analysis.learning import message
from dynlora.custom_loop.files import Parts, adapter_form, check_folder, export_attached, restore, state_of
from dynlora.custom_loop.trainer_callback import Allocate, LoopRecord, detached
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.engine.loop.first_steps import FirstSteps
from dynlora.errors import ConfigError, storing
from dynlora.safe_files import path_of


@dataclass
class Attached(Parts):
    """A strategy on a model that someone else trains.

    Call `step()` where the loop would call `optimizer.step()`: gradients complete, and before they are cleared. Of
    transformers' Trainer `callback()` does.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> attached = dynlora.attach(model, strategy="lora", budget=2, steps=4, targets=["0", "2"])
        >>> record = attached.record("my loop")
        >>> loss = model(torch.randn(16, 8)).square().mean() + attached.penalty()
        >>> loss.backward()
        >>> attached.step(loss)
        []
        >>> record.metrics(1, {"accuracy": 0.9})
        >>> attached.save("state")
        >>> attached.load("state")

        In two parts, around an optimizer step that somebody else takes:

        >>> model(torch.randn(16, 8)).square().mean().backward()
        >>> attached.observe()
        >>> attached.optimizer.step()
        >>> attached.reallocate()
        []
        >>> attached.export("adapter").name
        'adapter'
        >>> record.finish()
        >>> callbacks = [attached.callback()]  # for transformers' Trainer
    """

    recording: LoopRecord | None = None

    def __post_init__(self) -> None:
        """Notice an optimizer that steps while nobody calls `step`, and adapters that do not learn."""
        self.watch = Watch(self.optimizer, lambda: self.index)
        steps = range(self.index, self.total)
        self.first_steps = FirstSteps(self.adapters, self.optimizer, steps, model=self.model)

    def penalty(self) -> Tensor:
        """Return what the strategy adds to the loss; add it before `backward`."""
        terms = self.strategy.penalty(self.adapters)
        device = self.adapters[0].lora_A.device
        return torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=device)

    def step(self, loss: Tensor | float | None = None) -> list[dict[str, Any]]:
        """Observe, move the weights, reallocate, clear the gradients; return what moved, module by index.

        Args:
            loss: of the step, for `record`; it changes nothing.

        Raises:
            ConfigError: when all steps were taken: schedules and ranks are made for their number.
        """
        self.observe()
        self.optimizer.step()
        made = self.reallocate(loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.clear_gradients()
        return made

    def observe(self) -> None:
        """Look at the gradients of a step, complete and before the weights move; the first part of `step`.

        Raises:
            ConfigError: when all steps were taken.
        """
        if self.index >= self.total:
            raise ConfigError(
                f"attach(steps={self.total}): all steps were taken, and ranks stay as they are from there on; attach "
                "with as many steps as the loop takes"
            )
        self.index += 1
        self.first_steps.before_step()
        with torch.no_grad():
            self.strategy.observe(self.adapters, self._step())

    def reallocate(self, loss: Tensor | float | None = None) -> list[dict[str, Any]]:
        """Move rank after the optimizer moved the weights, gradients not yet cleared; the last part of `step`."""
        step = replace(self._step(), loss=detached(loss))
        self._look_at_learning()
        if self.recording is not None:
            self.recording.capture_importance()
        with torch.no_grad():
            made = self.strategy.allocate(self.adapters, step)
            edits.apply(self.adapters, made, self.optimizer, step=self.index)
            if self.index == self.total:
                last = self.strategy.finish(self.adapters)
                edits.apply(self.adapters, last, self.optimizer, step=self.index)
                made = [*made, *last]
        if self.recording is not None:
            self.recording.step(step, made)
        self.adapters.streams.at(self.index)  # the next forward draws again
        return edits.describe(made)

    def _look_at_learning(self) -> None:
        """Warn where the adapters do not learn, once, and record it."""
        symptoms = self.first_steps.after_step()
        if symptoms is None:
            return
        if self.recording is not None:
            self.recording.learning(self.index, symptoms)
        for symptom in symptoms:
            warnings.warn(f"dynlora: {message(symptom, self.index)}", stacklevel=3)

    def record(
        self, name: str, runs_dir: str | Path = "runs", *, data: str = "recorded", every: int = 10
    ) -> LoopRecord:
        """Record the steps that follow as a run of the dashboard; `step(loss)` and `record(...).metrics` add numbers.

        Args:
            name: of the run, for people.
            runs_dir: folder of the runs; made when missing.
            data: name of the data, for people: runs of one name are compared with each other.
            every: steps between two looks at norms and effective ranks.

        Raises:
            ConfigError: when it is recorded already, or a value breaks a rule.
            StorageError: when the run cannot be made.
        """
        if self.recording is not None:
            raise ConfigError(f"record({name!r}): the steps are recorded already, in {self.recording.folder.name}")
        self.recording = LoopRecord(self, name, path_of("runs_dir", runs_dir), data, every)
        return self.recording

    def callback(self) -> Allocate:
        """Return the callback that takes these steps in transformers' Trainer, which must be given the optimizer too.

        `Trainer(model=attached.model, optimizers=(attached.optimizer, None), callbacks=[attached.callback()])`
        """
        self.watch.is_driven = True
        return Allocate(self)

    def _step(self) -> Step:
        return Step(self.index, self.total, float(self.optimizer.param_groups[0]["lr"]))

    def save(self, folder: str | Path) -> None:
        """Write adapters, head, moments and the strategy's state, so that `load` resumes to the bit.

        Tensors as safetensors, the rest as JSON. What else the loop needs, such as a schedule or the state
        of torch's random numbers, is its own to keep.

        Args:
            folder: made, or replaced as a whole where it is empty or was written by `save`.

        Raises:
            ConfigError: when something else is there, which would be lost.
            StorageError: when it cannot be written.
        """
        check_folder(folder)
        with storing(f"the state at {folder}"):
            Path(folder).absolute().parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(Path(folder).absolute(), state_of(self))

    def load(self, folder: str | Path) -> None:
        """Continue from what `save` wrote; the model and the arguments of `attach` must be the same.

        Raises:
            ConfigError: when it was saved with another strategy, number of steps or budget.
            CorruptRunError: when there is nothing saved, or it belongs to another model.
        """
        restore(self, read_checkpoint(path_of("folder", folder).absolute()))

    def export(
        self,
        folder: str | Path,
        batches: Iterable[Mapping[str, Tensor]] = (),
        *,
        form: str = "peft",
        ranks: str | None = None,
    ) -> Path:
        """Write the adapter for others to load, and return its folder; the model trains on unchanged.

        Args:
            folder: new or empty.
            batches: rows whose gates are averaged, where the strategy has gates: an exported adapter has none. Those
                that calibrated the gates are taken where none are given.
            form: peft, gguf, ollama or mlx, as `dynlora export --format` has them.
            ranks: of the form peft: as-trained, each module with its own, or uniform, one for all.

        Raises:
            ConfigError: when the folder is taken, the form is no adapter, or gates are to be averaged over nothing.
            NotMergeableError: when the form cannot hold the update.
            StorageError: when it cannot be written.
        """
        rows = [dict(batch) for batch in batches] or self.calibration
        return export_attached(self, path_of("folder", folder), rows, adapter_form(form, ranks))


PATIENCE = 2
"""Steps of the optimizer without one of the strategy's, from which it is said."""


class Watch:
    """Counts the optimizer's steps beside those of the strategy.

    Attributes:
        is_driven: whether a callback takes the strategy's steps.
    """

    def __init__(self, optimizer: Optimizer, steps: Callable[[], int]) -> None:
        """Watch `optimizer`; `steps` tells how many the strategy took."""
        self.is_driven = False
        self._steps, self._taken, self._said = steps, 0, False
        optimizer.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self._taken += 1
        if self._taken >= PATIENCE and not self._steps() and not self._said:
            self._said = True
            how = (
                "the Trainer was not given its callback: callbacks=[attached.callback()]"
                if not self.is_driven
                else "the callback was made and never called: give it to the Trainer"
            )
            warnings.warn(
                "attached.optimizer steps, and the strategy does not: no rank moves. Call attached.step() in the place "
                f"of optimizer.step(), or, with transformers' Trainer, {how}",
                stacklevel=2,
            )
