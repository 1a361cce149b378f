"""What adapted modules do on given examples: how strongly each acts, how much each matters, and what gates gain.

The effect is ‖h - h₀‖ / ‖h₀‖ of a module's output with and without its adapter; h₀ is the frozen module's output for
the same input, so that one forward tells the effect of every module. The ratio is taken for each token and averaged
over those of the example. Every method has it, without a gradient. How much a module matters is -⟨∂L/∂h, h - h₀⟩,
summed over the tokens: what the loss of the example would rise by without it, to first order. What reacting gains is
the held-out loss with each gate at its mean, minus the loss with the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.analysis.stats import normal_reach
from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.data.held_back import Batch
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
        ratio = _by_example(added.norm(dim=-1) / frozen, self._mask)
        if ratio is not None:
            values, tokens = ratio
            self._calls[index].append(values.mean(0).sum(1) / tokens)


def _by_example(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return values of the rows of a module's input by example, (members, batch, tokens), and the tokens of each.

    They are the batch, flattened or not, once or for every member of an ensemble; None where they are neither. Padding
    is 0.
    """
    batch = len(mask)
    if values.numel() % mask.numel() == 0:
        counts = mask.bool()
        return values.reshape(-1, *mask.shape).where(counts, 0.0), counts.sum(1).clamp_min(1)
    if len(values) % batch:
        return None
    tokens = values.reshape(len(values) // batch, batch, -1)
    return tokens, tokens.new_full((batch,), tokens.shape[2])


@contextmanager
def measured_effects(adapters: Sequence[LoraLinear], mask: Tensor) -> Iterator[ModuleEffects]:
    """Measure the effect of each module in the forwards inside the block.

    Args:
        adapters: the modules; without any nothing is measured.
        mask: of the batch, 1 for a token and 0 for padding, (batch, length).
    """
    effects = ModuleEffects(len(adapters), mask)
    with _hooked(adapters, effects.add):
        yield effects


@contextmanager
def _hooked(adapters: Sequence[LoraLinear], hook: Callable[..., None]) -> Iterator[None]:
    """Call `hook` with index, module, inputs and output at each forward of a module inside the block."""
    handles = [module.register_forward_hook(partial(hook, index)) for index, module in enumerate(adapters)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def losses_without(
    model: nn.Module,
    losses: Callable[[Batch, Tensor], Tensor],
    tokens: Tokens,
    adapters: Sequence[LoraLinear],
    batch_size: int,
) -> np.ndarray:
    """Return what the loss of each row would rise by without each module, to first order, (n, n_modules).

    It is -⟨∂L/∂h, h - h₀⟩ of a module's output h, summed over a row's tokens. One backward of a batch tells it of every
    module and row, since no row's loss depends on another row. No gradient of a weight is made.

    Args:
        model: with the adapters, in any mode; it is run in eval mode and put back.
        losses: makes the loss of each row, (batch,), of a batch and its labels.
        tokens: the rows.
        adapters: the modules.
        batch_size: rows of a batch, those whose activations a training step holds at most.
    """
    training, device = model.training, next(model.parameters()).device
    rises = np.zeros((len(tokens), len(adapters)), np.float32)
    model.eval()
    try:
        for rows in sorted_batches(tokens.length, batch_size):
            batch = tokens.batch(rows, device)
            labels, mask = batch.pop("labels"), batch["attention_mask"]
            calls: list[tuple[int, Tensor, Tensor]] = []
            with torch.enable_grad(), _hooked(adapters, partial(_keep, calls)):
                loss = losses(batch, labels).sum()
            outputs = [output for _, output, _ in calls]
            gradients = torch.autograd.grad(loss, outputs, allow_unused=True) if outputs else ()
            for (index, _, added), gradient in zip(calls, gradients, strict=True):
                rise = None if gradient is None else _by_example(-(gradient.float() * added).sum(-1), mask)
                if rise is not None:
                    rises[rows, index] += rise[0].sum((0, 2)).cpu().numpy()
    finally:
        model.train(training)
    return rises


@torch.no_grad()
def _keep(
    calls: list[tuple[int, Tensor, Tensor]], index: int, module: LoraLinear, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    """Keep a module's output and what its adapter adds to it: a forward hook."""
    if output.requires_grad and not module.is_off:
        calls.append((index, output, module.added(inputs[0], output).float()))


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
