"""How strongly each adapted module acts on an example: ‖h - h₀‖ / ‖h₀‖ of its output with and without its adapter.

h₀ is the frozen module's output for the same input, so that one forward tells the effect of every module. The ratio is
taken for each token and averaged over those of the example. Every method has it, without a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.model.lora_linear import LoraLinear

LEAST = 1e-12
"""Norm below which an output counts as this large."""


class ModuleEffects:
    """The effects in the forwards of one batch; of a module that is called several times, their mean."""

    def __init__(self, n_modules: int, mask: Tensor) -> None:
        """Begin with nothing measured; `mask` is 1 for a token and 0 for padding, (batch, length)."""
        self._mask = mask
        self._calls: list[list[Tensor]] = [[] for _ in range(n_modules)]

    def values(self) -> np.ndarray:
        """Return the effect of each module on each example, (batch, n_modules); NaN where it was not measured."""
        unknown = self._mask.new_full((len(self._mask),), torch.nan, dtype=torch.float32)
        columns = [torch.stack(calls).mean(0) if calls else unknown for calls in self._calls]
        return torch.stack(columns, 1).cpu().numpy() if columns else np.empty((len(self._mask), 0), np.float32)

    def add(self, index: int, module: LoraLinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Measure one call of a module: a forward hook."""
        if module.is_off:
            return
        added = module.added(inputs[0], output).float()
        frozen = (output.float() - added).norm(dim=-1).clamp_min(LEAST)
        mean = self._mean(added.norm(dim=-1) / frozen)
        if mean is not None:
            self._calls[index].append(mean)

    def _mean(self, ratio: Tensor) -> Tensor | None:
        """Return the mean over the tokens of each example, (batch,), of the rows of a module's input.

        They are the batch, flattened or not, once or for every member of an ensemble; None where they are neither.
        """
        batch, n = len(self._mask), ratio.numel()
        if n % self._mask.numel() == 0:
            counts = self._mask.bool()
            tokens = ratio.reshape(-1, *self._mask.shape).mean(0).where(counts, 0.0)
            return tokens.sum(1) / counts.sum(1).clamp_min(1)
        return ratio.reshape(len(ratio) // batch, batch, -1).mean((0, 2)) if len(ratio) % batch == 0 else None


@contextmanager
def measured_effects(adapters: Sequence[LoraLinear], mask: Tensor) -> Iterator[ModuleEffects]:
    """Measure the effect of each module in the forwards inside the block.

    Args:
        adapters: the modules; without any nothing is measured.
        mask: of the batch, 1 for a token and 0 for padding, (batch, length).
    """
    effects = ModuleEffects(len(adapters), mask)
    handles = [
        module.register_forward_hook(partial(effects.add, index))  # pyright: ignore[reportArgumentType]
        for index, module in enumerate(adapters)
    ]
    try:
        yield effects
    finally:
        for handle in handles:
            handle.remove()
