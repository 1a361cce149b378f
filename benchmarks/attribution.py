"""Where the time of a step goes: methods are wrapped from outside while a trainer takes blocks of real steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from dynlora import strategies
from dynlora.config import parse_config
from dynlora.engine import edits
from dynlora.engine.loop.step_signals import StepSignals
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.gates import GateReader
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs

PARTS = ("scoring", "allocating", "gating", "recording")
REPEATS = 30


class Attribution:
    """Seconds by part; a call inside of a timed call counts for the outer one only."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = {part: 0.0 for part in PARTS}
        self._open = False

    @contextmanager
    def attached(self, trainer: Trainer) -> Iterator[None]:
        """Time the parts of a trainer's steps inside the block."""
        strategy, recorder = trainer.strategy, trainer.recorder
        with ExitStack() as stack:
            for owner, name, part in (
                (strategy, "observe", "scoring"),
                (strategy, "allocate", "allocating"),
                (edits, "apply", "allocating"),
                (GateReader, "read", "gating"),
                (StepSignals, "record", "recording"),
                (StepSignals, "record_timing", "recording"),
                (recorder, "scalar", "recording"),
            ):
                stack.enter_context(mock.patch.object(owner, name, self._timed(part, getattr(owner, name))))
            for handle in self._around_gates(trainer):
                stack.callback(handle.remove)
            yield

    def _timed(self, part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and adds its seconds to a part."""

        def timed(*arguments: Any, **named: Any) -> Any:
            if self._open:
                return act(*arguments, **named)
            self._open = True
            begin = time.perf_counter()
            try:
                return act(*arguments, **named)
            finally:
                self.seconds[part] += time.perf_counter() - begin
                self._open = False

        return timed

    def _around_gates(self, trainer: Trainer) -> list[Any]:
        """Time what the gates' hook does once the embedding is known: one hook before it, one after it."""
        if trainer.adapters.gates is None:
            return []
        begin = [0.0]

        def before(*_: Any) -> None:
            begin[0] = time.perf_counter()

        def after(*_: Any) -> None:
            self.seconds["gating"] += time.perf_counter() - begin[0]

        embedding = trainer.model.get_input_embeddings()  # pyright: ignore
        return [embedding.register_forward_hook(before, prepend=True), embedding.register_forward_hook(after)]


class Racer:
    """One variant in training, with a run store that records as in every run; it takes blocks of steps when told to.

    Attributes:
        trainer: of the variant.
        block_s: mean seconds a step of each block.
        parts: seconds a step of each part of the step, a mapping for each block.
        used: most parameters the adapters and gates had after a block.
    """

    def __init__(self, values: Mapping[str, Any], folder: Path, *, room_of: str | None = None) -> None:
        """Build the trainer.

        Args:
            values: of the config.
            folder: to record in.
            room_of: strategy whose room to grow the adapters get, though nothing fills it.

        Raises:
            ConfigError: when the strategy has no such setting.
        """
        self.trainer = build_trainer_of(values, folder, room_of=room_of)
        self.block_s: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.used = 0
        self._attribution = Attribution()
        self._order, self._signals = self.trainer.begin()

    def block(self, steps: int) -> None:
        """Take so many steps."""
        self.trainer.model.train()
        with self._attribution.attached(self.trainer):
            before, begin = dict(self._attribution.seconds), time.perf_counter()
            for _ in range(steps):
                self.trainer.take_step(self._order, self._signals)
            self.block_s.append((time.perf_counter() - begin) / steps)
        self.parts.append({part: (self._attribution.seconds[part] - before[part]) / steps for part in PARTS})
        count = self.trainer.adapters.adapter_parameter_count()
        self.used = max(self.used, count["active"] + count["gate"])

    def shares(self) -> dict[str, float]:
        """Return each part's share of the time of a step, and `gate product`, which is measured apart."""
        step_s = statistics.mean(self.block_s)
        shares = {part: statistics.mean(block[part] for block in self.parts) / step_s for part in PARTS}
        return shares | {"gate product": gate_product_s(self.trainer) / step_s}

    def close(self) -> None:
        """End the record."""
        self._signals.flush()
        self.trainer.recorder.finish("stopped")  # pyright: ignore


def build_trainer_of(values: Mapping[str, Any], folder: Path, *, room_of: str | None = None) -> Trainer:
    """Return a trainer at step 0 that records into a run below a folder.

    Raises:
        ConfigError: when the strategy has no such setting.
    """
    config = parse_config(values)
    inputs = load_inputs(config)
    if room_of is not None:
        setattr(inputs.strategy, "max_rank", strategies.build(room_of, {}).max_rank)  # noqa: B010 - hides the method
    run = RunWriter.create(folder, config_yaml=config.to_yaml(), meta={}, max_steps=inputs.total, state="running")
    writer = RunWriter.open(run, resume_from=None)
    trainer = build_trainer(inputs, writer, make_accelerator())
    if room_of is not None:
        for module in trainer.adapters:
            module.holds_live = False
            module.hold(module.max_rank)
    rows = [(module.info, module.max_rank) for module in trainer.adapters]
    writer.define_modules([ModuleRow(i.name, i.layer, i.kind, i.d_in, i.d_out, room) for i, room in rows])
    return trainer


def gate_product_s(trainer: Trainer) -> float:
    """Return the seconds a step by which a gate slows the products it takes part in, forward and backward.

    It cannot be told from plain LoRA's own product inside a step: it is the median difference of the two, measured in
    turn on tensors of a step's shape, times the modules.
    """
    adapters, batch = trainer.adapters, trainer.config.train.batch_size
    if adapters.gates is None:
        return 0.0
    rank = round(statistics.mean(adapters.ranks))
    width = round(statistics.median(trainer.tokens.length.tolist()))
    device = trainer.accelerator.device
    with trainer.autocast():
        kind = torch.nn.functional.linear(torch.ones(1, 1, device=device), torch.ones(1, 1, device=device)).dtype
    inner = torch.randn(batch, width, rank, device=device, dtype=kind, requires_grad=True)
    gate = torch.ones(batch, 1, 1, device=device, requires_grad=True)
    gradient = torch.ones_like(inner)

    def seconds(gated: bool) -> float:
        begin = time.perf_counter()
        product = (inner * (2.0 * gate)).to(kind) if gated else inner * 2.0
        product.backward(gradient)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    extra = statistics.median(seconds(True) - seconds(False) for _ in range(REPEATS))
    return max(0.0, extra) * len(adapters)


def effects_s(trainer: Trainer) -> float:
    """Return the seconds that the effect of each module on the probe set adds to an evaluation.

    It is the median difference of two passes over the probe set, with and without it, taken in turn.
    """
    tokens = trainer.evaluation.tokens.take(trainer.evaluation.probe)

    def seconds(acted_on: Sequence[int]) -> float:
        begin = time.perf_counter()
        trainer.predictions(tokens, acted_on=acted_on)
        return time.perf_counter() - begin

    every = range(len(tokens))
    seconds(every)
    return statistics.median(seconds(every) - seconds(()) for _ in range(REPEATS))


def importance_s(trainer: Trainer) -> float:
    """Return the median seconds that the importance of each module to each probe example takes, once a run."""

    def seconds() -> float:
        begin = time.perf_counter()
        trainer.probe_importance()
        return time.perf_counter() - begin

    seconds()
    return statistics.median(seconds() for _ in range(REPEATS))
