"""What adapted modules do on given examples: how strongly each acts, and what gates that react to the input gain.

The effect is ‖h - h₀‖ / ‖h₀‖ of a module's output with and without its adapter; h₀ is the frozen module's output for
the same input, so that one forward tells the effect of every module. The ratio is taken for each token and averaged
over those of the example. Every method has it, without a gradient. What reacting gains is the held-out loss with each
gate at its mean, minus the loss with the gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.analysis.stats import normal_reach
from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.model.gates import Gates
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


MEAN_ROWS = 1024
"""Training examples whose gates are averaged; held-out examples would leak into the mean."""

MOST_ROWS = 1024
"""Held-out examples on which the reaction is measured, at most."""


@torch.no_grad()
def averaged_gates(model: nn.Module, gates: Gates, tokens: Tokens, batch_size: int = 64) -> Tensor:
    """Return each gate averaged over rows, (n_modules,) or (n_modules, max_rank).

    They depend on the embeddings alone, so no forward goes further; batches are those of predictions.
    """
    training, device = model.training, next(model.parameters()).device
    sums, means, places = torch.zeros_like(gates.bias), list[np.ndarray](), list[np.ndarray]()
    model.eval()
    try:
        with gates.adding_up(sums):
            for indices in sorted_batches(tokens.length, batch_size):
                batch = tokens.batch(indices, device)
                batch.pop("labels")
                gates.see(partial(model, **batch))
                means.append(gates.values.float().cpu().numpy())  # pyright: ignore[reportOptionalMemberAccess]
                places.append(indices)
    finally:
        model.train(training)
    if gates.mode == "rank":
        return sums.cpu() / len(tokens)
    return torch.from_numpy(np.concatenate(means)[np.argsort(np.concatenate(places), kind="stable")].mean(0))


def reaction(
    at_mean: np.ndarray, with_gates: np.ndarray, of: int, group: np.ndarray | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return what reacting lowers the loss by, with 95 % intervals over examples: of all and of each group.

    Args:
        at_mean: loss of each row with every gate at its mean, (n,).
        with_gates: loss of the same rows with the gates, (n,).
        of: number of all held-out examples.
        group: index of each row's group, (n,), or None.
        names: of the groups.
    """
    lowers = np.asarray(at_mean, np.float64) - np.asarray(with_gates, np.float64)
    parts = [] if group is None else [(name, lowers[group == index]) for index, name in enumerate(names)]
    groups = [{"group": name, **_mean_of(part)} for name, part in parts if len(part)]
    return {"of": of, "loss": float(np.mean(with_gates)), **_mean_of(lowers), "groups": groups}


def _mean_of(lowers: np.ndarray) -> dict[str, Any]:
    """Return the mean of differences, its interval (empty for one row) and their number."""
    mean, reach = float(lowers.mean()), normal_reach(lowers)
    ends = (None, None) if np.isnan(reach) else (mean - reach, mean + reach)
    return {"n": len(lowers), "lowers_by": mean, "low": ends[0], "high": ends[1]}
